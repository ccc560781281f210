"""Another input size for a network, and the networks that have only one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import CameraCard, load_card
from airside_perception.deploy.resize import resize_network, set_input_size
from airside_perception.engine import open_engine
from airside_perception.errors import CardError, EngineError

CARD = {
    'name': 'tiny', 'architecture': 'yolox', 'classes': ['car'], 'sizes': {'car': [4, 2, 1.5]},
    'input': {'height': 32, 'width': 64}, 'output': {'strides': [8]},
}  # fmt: skip


def network(cells: int = -1, inputs: int = 1) -> onnx.ModelProto:
    """One convolution of stride 8 whose cells become rows; `cells` builds their number in."""
    weight = np.random.default_rng(0).normal(0, 0.1, (6, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node('Conv', ['images', 'weight'], ['features'], strides=[8, 8]),
            helper.make_node('Reshape', ['features', 'shape'], ['flat']),
            helper.make_node('Transpose', ['flat'], ['output'], perm=[0, 2, 1]),
        ],
        'tiny',
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 64])
            for name in ['images', 'more'][:inputs]
        ],
        [helper.make_tensor_value_info('output', TensorProto.FLOAT, [1, 32, 6])],
        [
            numpy_helper.from_array(weight, 'weight'),
            numpy_helper.from_array(np.array([1, 6, cells]), 'shape'),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def write(folder: Path, model: onnx.ModelProto, card: dict[str, object]) -> Path:
    path = folder / 'tiny.onnx'
    onnx.save(model, str(path))
    path.with_suffix('.yaml').write_text(yaml.safe_dump(card), encoding='utf-8')
    return path


def test_all_shapes_are_those_of_the_new_size() -> None:
    model = network()
    resized = set_input_size(model, 64, 128)
    assert shape_of(resized.graph.input[0]) == [1, 3, 64, 128]
    assert shape_of(resized.graph.output[0]) == [1, 128, 6]
    shapes = {value.name: shape_of(value) for value in resized.graph.value_info}
    assert shapes == {'features': [1, 6, 8, 16], 'flat': [1, 6, 128]}
    assert shape_of(model.graph.output[0]) == [1, 32, 6]  # the model that was given stays


def test_the_resized_network_computes_the_same(tmp_path: Path) -> None:
    source = write(tmp_path, network(), CARD)
    target = tmp_path / 'large.onnx'
    resize_network(source, target, 64, 128)
    card = load_card(target.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    assert (card.height, card.width) == (64, 128)
    images = np.random.default_rng(1).normal(size=(1, 3, 64, 128)).astype(np.float32)
    with open_engine(target) as large, open_engine(source) as small:
        whole = large.infer({'images': images})['output'].reshape(8, 16, 6)
        part = small.infer({'images': images[:, :, 32:, :64]})['output'].reshape(4, 8, 6)
    np.testing.assert_allclose(whole[4:, :8], part, atol=1e-5)


def test_a_network_made_for_one_size_is_refused() -> None:
    with pytest.raises(EngineError, match=r'does not run at 64 x 128: .*reshape'):
        set_input_size(network(cells=32), 64, 128)


def test_a_network_with_two_inputs_is_refused() -> None:
    with pytest.raises(EngineError, match=r'inputs images, more: only .* one image input'):
        set_input_size(network(inputs=2), 64, 128)


def test_the_hash_in_the_card_is_that_of_the_new_file(tmp_path: Path) -> None:
    source = write(tmp_path, network(), CARD)
    pinned = {**CARD, 'sha256': hashlib.sha256(source.read_bytes()).hexdigest()}
    source.with_suffix('.yaml').write_text(yaml.safe_dump(pinned), encoding='utf-8')
    resize_network(source, tmp_path / 'large.onnx', 64, 128)
    digest = hashlib.sha256((tmp_path / 'large.onnx').read_bytes()).hexdigest()
    assert load_card(tmp_path / 'large.yaml').sha256 == digest


def test_what_cannot_be_resized_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path, network(), CARD)
    with pytest.raises(CardError, match='60 x 128 is no multiple of stride 8'):
        resize_network(source, tmp_path / 'large.onnx', 60, 128)
    for size in ((0, 128), (64, -8)):
        with pytest.raises(CardError, match='is no size: expected pixels'):
            resize_network(source, tmp_path / 'large.onnx', *size)
    with pytest.raises(EngineError, match=r'x\.onnx: cannot be written: '):
        resize_network(source, source / 'x.onnx', 64, 128)
    source.write_bytes(b'no network')
    with pytest.raises(EngineError, match='not a readable ONNX file'):
        resize_network(source, tmp_path / 'large.onnx', 64, 128)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['tiny.onnx', 'tiny.yaml']


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    source = write(tmp_path, network(), CARD)
    resize_network(source, tmp_path / 'new' / 'large.onnx', 64, 128)
    assert (tmp_path / 'new' / 'large.onnx').is_file()
    assert load_card(tmp_path / 'new' / 'large.yaml').name == 'tiny'


def test_a_network_without_images_is_refused(tmp_path: Path) -> None:
    card = {
        'name': 'pillars', 'architecture': 'pointpillars', 'classes': ['car'],
        'input': {
            'range': [0, 0, -1, 8, 8, 3], 'pillar': [1, 1], 'max_points': 8, 'max_pillars': 9,
        },
        'encoder': {'features': ['x'], 'weight': [[1.0]], 'bias': [0.0]},
        'output': {
            'stride': 2,
            'anchors': [{'class': 'car', 'size': [4, 2, 1.5], 'z': -1.0, 'yaws': [0.0]}],
        },
    }  # fmt: skip
    source = write(tmp_path, network(), card)
    with pytest.raises(CardError, match='pointpillars has no image input'):
        resize_network(source, tmp_path / 'large.onnx', 64, 128)
