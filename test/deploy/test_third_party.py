"""The README's way to run a third-party CenterPoint, on networks of its shapes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import CenterHead, LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.deploy.__main__ import main
from airside_perception.engine import open_engine
from airside_perception.lidar.detector import LidarDetector
from airside_perception.types import PointCloud

CHANNELS = 32
HEAD = {
    'heatmap': [-10.0, -10.0, -10.0, -10.0, -10.0],
    'reg': [0.5, 0.25],
    'height': [0.75],
    'dim': np.log([1.8, 4.5, 1.5]).tolist(),  # width, length, height
    'rot': [0.0, 1.0],  # an angle of 0: towards -y
    'vel': [0.0, 0.0],
}


def save(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict) -> None:
    def infos(shapes: dict) -> list:
        kind = TensorProto.FLOAT
        return [helper.make_tensor_value_info(name, kind, n) for name, n in shapes.items()]

    stored = [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, 'part', infos(inputs), infos(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8
    onnx.save(model, str(path))


def save_encoder(path: Path) -> None:
    """Channel 0 is 1 where there are points, channel 1 their greatest height; the rest is 0."""
    weight, bias = np.zeros((9, CHANNELS)), np.zeros(CHANNELS)
    weight[2, 1] = bias[0] = 1.0
    nodes = [
        helper.make_node('MatMul', ['input_features', 'weight'], ['linear']),
        helper.make_node('Add', ['linear', 'bias'], ['shifted']),
        helper.make_node('Relu', ['shifted'], ['positive']),
        helper.make_node('ReduceMax', ['positive'], ['pillar_features'], axes=[1]),
    ]
    save(
        path, nodes, {'input_features': [4000, 32, 9]}, {'pillar_features': [4000, 1, CHANNELS]},
        {'weight': weight, 'bias': bias},
    )  # fmt: skip


def save_head(path: Path) -> None:
    """A pedestrian wherever there are points, a car where they are higher than a metre."""
    nodes, constants = [], {}
    for name, bias in HEAD.items():
        weight = np.zeros((len(bias), CHANNELS, 1, 1))
        if name == 'heatmap':
            weight[4, 0], weight[0, 1] = 11.0, 13.0
        nodes.append(
            helper.make_node('Conv', ['spatial_features', f'{name}_w', f'{name}_b'], [name])
        )
        constants |= {f'{name}_w': weight, f'{name}_b': bias}
    outputs = {name: [1, len(bias), 480, 480] for name, bias in HEAD.items()}
    save(path, nodes, {'spatial_features': [1, CHANNELS, 480, 480]}, outputs, constants)


@pytest.fixture
def network(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Both files, and the card as the README has it written."""
    path = tmp_path / 'pts_backbone_neck_head_centerpoint.onnx'
    encoder = tmp_path / 'pts_voxel_encoder_centerpoint.onnx'
    save_head(path)
    save_encoder(encoder)
    text = (repository / 'README.md').read_text(encoding='utf-8')
    (card,) = re.findall(r'```yaml\n(name: autoware_centerpoint\n.*?)```', text, re.DOTALL)
    assert main(['encoder', str(encoder)]) == 0
    path.with_suffix('.yaml').write_text(card + capsys.readouterr().out, encoding='utf-8')
    return path


def test_the_card_of_the_readme(network: Path) -> None:
    card = find_card(network)
    assert isinstance(card, LidarCard)
    assert card.grid == card.output_grid == (480, 480)
    assert card.published == ('car', 'truck', 'bus', 'cyclist', 'person')
    assert card.centers == CenterHead(
        size_order='wlh', heading='minus_y_clockwise', least_norms=(0.3, 0.3, 0.3, 0.3, 0.0),
        velocity='vel',
    )  # fmt: skip
    assert card.past_sweeps == 1
    assert card.weight.shape == (9, CHANNELS)
    assert not card.needs_intensity
    assert main(['inspect', str(network)]) == 0


def test_it_finds_what_is_there(network: Path) -> None:
    card = find_card(network)
    assert isinstance(card, LidarCard)
    points = np.float32([[10.0, -20.0, 0.5], [10.1, -20.1, 1.9], [-30.0, 40.0, 0.1]])
    with open_engine(network, threads=1) as engine:
        detector = LidarDetector(engine, card, LidarConfig())
        found = detector.detect(PointCloud(5, 'base_link', points, ('x', 'y', 'z')))
    assert found.classes == ('car', 'person')
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-14.7, -1.0])), rtol=1e-3)
    corners = np.floor((points[1:, :2] + 76.8) / 0.32) * 0.32 - 76.8
    np.testing.assert_allclose(found.boxes[:, :2], corners + np.array([0.16, 0.08]), atol=1e-4)
    sizes = [0.75, 4.5, 1.8, 1.5, -np.pi / 2]
    np.testing.assert_allclose(found.boxes[:, 2:], [sizes, sizes], atol=1e-4)
