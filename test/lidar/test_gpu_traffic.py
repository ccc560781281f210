"""Bytes that the GPU moves, against counts by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import LidarCard, find_card
from benchmarks.gpu_traffic import Moved, Sweep, lidar_traffic, main, network_traffic

SWEEP = Sweep(points=100, in_range=60, pillars=10, candidates=65, boxes=2)


def two_layers() -> onnx.ModelProto:
    """3 channels of 8 x 6 to 12 of 4 x 3 and back to 2 of 8 x 6."""

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])

    weights = {'a': (12, 3, 3, 3), 'bias': (12,), 'b': (12, 2, 2, 2)}
    nodes = [
        helper.make_node('Conv', ['in', 'a', 'bias'], ['x'], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['x'], ['y']),
        helper.make_node('ConvTranspose', ['y', 'b'], ['out'], strides=[2, 2]),
    ]
    arrays = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, 'g', [value('in', 3, 8, 6)], [value('out', 2, 8, 6)], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def test_a_network_by_hand() -> None:
    dense = network_traffic(two_layers())
    weights = 2 * (12 * 3 * 9 + 12 + 12 * 2 * 4)
    given = out = 2 * 8 * 48  # 3 and 2 channels take the room of 8
    between = 2 * 16 * 12
    assert dense.ends == Moved(given + weights, out)
    assert dense.layers == Moved(given + between + weights, between + out)
    assert dense.count == 2
    assert dense.products == 12 * 3 * 9 * 12 + 12 * 2 * 4 * 12


def test_a_network_without_fixed_shapes() -> None:
    model = two_layers()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = 'rows'
    with pytest.raises(ValueError, match="the shape of 'x' is not fixed"):
        network_traffic(model)


def test_the_steps_of_a_cloud_by_hand(tmp_path: Path, tiny_models: ModuleType) -> None:
    card = find_card(tiny_models.tiny_lidar_model(tmp_path))
    assert isinstance(card, LidarCard)
    assert (card.grid, card.output_grid, len(card.bias)) == ((80, 80), (40, 40), 4)
    assert card.outputs[card.score_output] <= 8
    assert lidar_traffic(card, SWEEP) == {
        'clear': (10 * 16, 10 * 16),  # four features take the room of eight
        'copy_in': (0, 1024 + 8192 * 16),
        'bin': (100 * 16 + 60 * 4, 100 * 8 + 60 * 4),
        'number': (6400 * 4, 10 * 4 + 10 * 16),
        'sort': (100 * 8 + 60 * 4 + 60 * 16, 60 * 16 + 60 * 4),
        'draw': (10 * 16 + 60 * 16 + 4 * 48, 10 * 4 + 10 * 16 + 10 * 16),
        'scan': (1600 * 16, 65 * 8),
        'select': (65 * 8, 65 * 8),
        'boxes': (65 * 8 + 65 * 18, 65 * 32),
        'suppress': (2 * 65 * 40 + 3 * 64 * 8 + 2 * 32, 3 * 64 * 8 + 2 * 36),
        'copy_out': (64 + 1000 * 36, 0),
    }


def test_bytes_and_bandwidth() -> None:
    assert Moved(3_000_000, 1_224_000).total == 4_224_000
    assert Moved(3_000_000, 1_224_000).microseconds(4224.0) == pytest.approx(1.0)


def test_the_command(
    tmp_path: Path, tiny_models: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tiny_models.tiny_lidar_model(tmp_path)
    assert main([str(network), '--bandwidth', '100', '--points', '8192']) == 0
    rows = {line[:24].strip(): line[24:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows['copy_in'] == ['0.000', '0.132', '1.32']
    assert float(rows['whole, network as ends'][0]) > float(rows['all around the network'][0]) > 0
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'none.onnx')])
    assert 'none.yaml: no model card' in capsys.readouterr().err
