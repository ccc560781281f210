"""INT8 networks on ONNX Runtime: near fp32, the same from feeds and from scales, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper

from airside_perception.engine.bias import correct_biases
from airside_perception.engine.calibration_cache import calibration_cache, read_scales
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq
from airside_perception.engine.qdq import insert_qdq, scales, strip_qdq
from airside_perception.engine.quantize import quantize
from airside_perception.errors import EngineError


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def cosine(a: Any, b: Any) -> float:
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture
def residual(network: Any) -> Any:
    """conv - relu - conv - add to the first - relu, a pooled Gemm; nodes without names."""
    rng = np.random.default_rng(5)
    weights = {
        'w1': rng.normal(0, 0.3, (8, 3, 3, 3)),
        'b1': rng.normal(0, 0.3, 8),
        'w2': rng.normal(0, 0.2, (8, 8, 3, 3)) * np.logspace(-2, 0, 8).reshape(8, 1, 1, 1),
        'w3': rng.normal(0, 0.2, (4, 8)),
        'b3': rng.normal(0, 0.2, 4),
    }
    weights['w2'][3] = 0.0  # a channel of nothing
    nodes = [
        helper.make_node('Conv', ['x', 'w1', 'b1'], ['c1'], pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c1'], ['r1']),
        helper.make_node('Conv', ['r1', 'w2'], ['c2'], pads=[1, 1, 1, 1]),
        helper.make_node('Add', ['c2', 'r1'], ['s']),
        helper.make_node('Relu', ['s'], ['r2']),
        helper.make_node('GlobalAveragePool', ['r2'], ['p']),
        helper.make_node('Flatten', ['p'], ['f']),
        helper.make_node('Gemm', ['f', 'w3', 'b3'], ['y'], transB=1),
    ]
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    return network(nodes, {'x': [1, 3, 12, 10]}, {'y': [1, 4], 'r2': [1, 8, 12, 10]}, constants)


@pytest.fixture
def feeds() -> list[dict[str, Any]]:
    rng = np.random.default_rng(6)
    return [{'x': rng.normal(0, 1, (1, 3, 12, 10)).astype(np.float32)} for _ in range(6)]


def test_near_fp32_with_pairs_before_the_operators_only(
    residual: Any, feeds: list[dict[str, Any]], run: Any
) -> None:
    quantized = quantize(residual, feeds)
    onnx.checker.check_model(quantized, full_check=True)
    assert operators(quantized).count('QuantizeLinear') == 6  # x, r1, f and three weights
    assert [value.name for value in quantized.graph.output] == ['y', 'r2']
    made = {name: node.op_type for node in quantized.graph.node for name in node.output}
    assert (made['y'], made['r2']) == ('Gemm', 'Relu')
    for found, expected in zip(run(quantized, **feeds[0]), run(residual, **feeds[0]), strict=True):
        assert cosine(found, expected) > 0.999
        assert np.abs(found - expected).max() > 0.0


def test_scales_are_the_largest_values_over_127(
    residual: Any, feeds: list[dict[str, Any]]
) -> None:
    found = scales(quantize(residual, feeds))
    assert set(found) == {'x', 'r1', 'f'}
    largest = max(np.abs(item['x']).max() for item in feeds)
    assert found['x'] == pytest.approx(largest / 127, rel=1e-6)


@pytest.mark.parametrize('method', ['entropy', 'percentile'])
def test_other_methods(residual: Any, feeds: list[dict[str, Any]], run: Any, method: str) -> None:
    feeds[0]['x'][0, 0, 0, 0] = 60.0
    quantized = quantize(residual, iter(feeds), method)
    assert scales(quantized)['x'] < 60 / 127 * 1.000001
    found, expected = run(quantized, **feeds[1])[1], run(residual, **feeds[1])[1]
    assert cosine(found, expected) > 0.9


def test_from_scales_as_from_feeds(residual: Any, feeds: list[dict[str, Any]], run: Any) -> None:
    """Two independent ways to the same numbers."""
    quantized = quantize(residual, feeds, correct=0)
    inserted = insert_qdq(residual, scales(quantized))
    onnx.checker.check_model(inserted, full_check=True)
    assert scales(inserted) == scales(quantized)
    assert sorted(operators(inserted)) == sorted(operators(quantized))
    for found, expected in zip(run(inserted, **feeds[0]), run(quantized, **feeds[0]), strict=True):
        assert_array_equal(found, expected)


def test_weights_have_a_scale_for_every_channel(
    residual: Any, feeds: list[dict[str, Any]], run: Any
) -> None:
    """The faintest channel of the second convolution keeps its 8 bits."""
    for quantized in (quantize(residual, feeds), insert_qdq(residual, {'x': 1.0, 'r1': 1.0})):
        pair = next(node for node in quantized.graph.node if node.input[0] == 'w2')
        stored = {item.name: item for item in quantized.graph.initializer}
        step = onnx.numpy_helper.to_array(stored[pair.input[1]])
        weight = onnx.numpy_helper.to_array(stored['w2'])
        expected = np.abs(weight).max(axis=(1, 2, 3)) / 127
        assert_allclose(np.delete(step, 3), np.delete(expected, 3), rtol=1e-6)
        assert step[3] > 0.0
        assert np.isfinite(run(quantized, **feeds[0])[0]).all()


def test_excluded_nodes_and_other_operators(residual: Any, feeds: list[dict[str, Any]]) -> None:
    residual.graph.node[-1].name = 'head'
    assert set(scales(quantize(residual, feeds, exclude=['head']))) == {'x', 'r1'}
    known = scales(quantize(residual, feeds))
    assert set(scales(insert_qdq(residual, known, exclude=['head']))) == {'x', 'r1'}
    assert set(scales(quantize(residual, feeds, operators=['Gemm']))) == {'f'}
    with pytest.raises(EngineError, match="exclude names 'tail'"):
        quantize(residual, feeds, exclude=['tail'])
    with pytest.raises(EngineError, match="operator 'Sin' is not one of Conv"):
        quantize(residual, feeds, operators=['Sin'])


def test_half_for_the_rest(residual: Any, feeds: list[dict[str, Any]], run: Any) -> None:
    half = quantize(residual, feeds, half=True)
    onnx.checker.check_model(half, full_check=True)
    assert has_qdq(half)
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {TensorProto.FLOAT16, TensorProto.INT8}
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    for found, expected in zip(run(half, **feeds[0]), run(residual, **feeds[0]), strict=True):
        assert cosine(found, expected) > 0.999
    outside = quantize(residual, feeds, half=True, keep_io=False)
    assert outside.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def test_convolutions_say_their_kernel(residual: Any, feeds: list[dict[str, Any]]) -> None:
    """TensorRT 8.6 cannot see it through DequantizeLinear."""
    for model in (quantize(residual, feeds, correct=0), insert_qdq(residual, {'x': 0.1})):
        sizes = [
            list(item.ints)
            for node in model.graph.node
            for item in node.attribute
            if node.op_type == 'Conv' and item.name == 'kernel_shape'
        ]
        assert sizes == [[3, 3], [3, 3]]


def test_biases_are_corrected_for_the_means(network: Any, run: Any) -> None:
    """Means by channel are those of fp32 in every layer."""
    rng = np.random.default_rng(9)
    weights = {
        'w1': rng.normal(0, 0.3, (6, 2, 3, 3)),
        'b': rng.normal(0, 0.3, 6),
        'w2': rng.normal(0, 0.2, (5, 6, 3, 3)),
        'w3': rng.normal(0, 0.2, (5, 5, 3, 3)),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w1', 'b'], ['c1'], pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c1'], ['r1']),
        helper.make_node('Conv', ['r1', 'w2'], ['c2'], pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c2'], ['r2']),
        helper.make_node('Conv', ['r2', 'w3'], ['y'], pads=[1, 1, 1, 1]),
    ]
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    shapes = {'c1': [1, 6, 30, 30], 'c2': [1, 5, 30, 30], 'y': [1, 5, 30, 30]}
    model = network(nodes, {'x': [1, 2, 30, 30]}, shapes, constants)

    def feed() -> dict[str, Any]:  # mostly the same everywhere, as empty ground is
        spots = (rng.random((1, 2, 30, 30)) < 0.05) * rng.normal(0, 3, (1, 2, 30, 30))
        return {'x': (spots + 0.123).astype(np.float32)}

    feeds = [feed() for _ in range(4)]
    plain = quantize(model, feeds, correct=0)
    corrected = quantize(model, feeds)
    onnx.checker.check_model(corrected, full_check=True)
    assert scales(corrected) == scales(plain)

    def shifts(quantized: Any) -> list[float]:
        """How far the means of each output are from fp32's."""
        pairs = [zip(run(quantized, **x), run(model, **x), strict=True) for x in feeds]
        means = [[(a - b).mean(axis=(0, 2, 3)) for a, b in outputs] for outputs in pairs]
        return [float(np.abs(np.mean(each, axis=0)).max()) for each in zip(*means, strict=True)]

    assert min(shifts(plain)) > 1e-4
    assert max(shifts(corrected)) < 1e-6
    with pytest.raises(EngineError, match='there are none'):
        correct_biases(plain, model, [])
    with pytest.raises(EngineError, match='bias correction failed'):
        correct_biases(plain, model, [{'z': np.zeros(1, np.float32)}])


def test_stripped_is_as_before(residual: Any, feeds: list[dict[str, Any]], run: Any) -> None:
    stripped = strip_qdq(quantize(residual, feeds, correct=0))
    assert operators(stripped) == operators(residual)
    for found, expected in zip(run(stripped, **feeds[0]), run(residual, **feeds[0]), strict=True):
        assert_array_equal(found, expected)


def test_strip_weights_that_are_stored_as_int8_and_quantised_outputs(
    network: Any, run: Any
) -> None:
    nodes = [
        helper.make_node('DequantizeLinear', ['codes', 'steps', 'zeros'], ['w'], axis=0),
        helper.make_node('Mul', ['x', 'w'], ['m']),
        helper.make_node('QuantizeLinear', ['m', 'step', 'zero'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 'step', 'zero'], ['y']),
    ]
    constants = {
        'codes': np.array([[2, 4], [6, 8]], np.int8),
        'steps': np.array([0.5, 0.25], np.float32),
        'zeros': np.array([0, 2], np.int8),
        'step': np.array(0.1, np.float32),
        'zero': np.array(0, np.int8),
    }
    model = network(nodes, {'x': [2, 2]}, {'y': [2, 2]}, constants)
    stripped = strip_qdq(model)
    onnx.checker.check_model(stripped, full_check=True)
    assert not has_qdq(stripped)
    assert_allclose(run(stripped, x=np.ones((2, 2), np.float32))[0], [[1, 2], [1, 1.5]])
    assert scales(model) == {'m': pytest.approx(0.1)}


def test_deconvolutions_by_output_channel(network: Any, run: Any) -> None:
    rng = np.random.default_rng(8)
    weight = rng.normal(0, 1, (4, 3, 2, 2)).astype(np.float32)
    node = helper.make_node('ConvTranspose', ['x', 'w'], ['y'], 'up', strides=[2, 2])
    model = network([node], {'x': [1, 4, 5, 5]}, {'y': [1, 3, 10, 10]}, {'w': weight})
    feeds = [{'x': rng.normal(0, 1, (1, 4, 5, 5)).astype(np.float32)}]
    with pytest.raises(EngineError, match='no Q/DQ nodes for activations'):
        scales(quantize(model, feeds))
    quantized = quantize(model, feeds, operators=['ConvTranspose'], correct=0)
    inserted = insert_qdq(model, scales(quantized), operators=['ConvTranspose'])
    found = run(quantized, **feeds[0])[0]
    assert_array_equal(run(inserted, **feeds[0])[0], found)
    assert cosine(found, run(model, **feeds[0])[0]) > 0.999
    split = quantize(split_deconvolutions(model), feeds)
    assert cosine(run(split, **feeds[0])[0], run(model, **feeds[0])[0]) > 0.999


def test_what_is_refused(residual: Any, feeds: list[dict[str, Any]]) -> None:
    with pytest.raises(EngineError, match='there are none'):
        quantize(residual, [])
    with pytest.raises(EngineError, match='calibration failed: '):
        quantize(residual, [{'images': feeds[0]['x']}])
    with pytest.raises(EngineError, match="method 'mean' is not one of minmax"):
        quantize(residual, feeds, method='mean')
    with pytest.raises(EngineError, match='has Q/DQ nodes already'):
        quantize(quantize(residual, feeds), feeds)
    with pytest.raises(EngineError, match=r'none of the 1 scales \(conv1'):
        insert_qdq(residual, {'conv1': 0.1})
    with pytest.raises(EngineError, match=r"the scale of 'x' is 0\.0"):
        insert_qdq(residual, {'x': 0.0})


def test_other_kinds_of_quantisation_have_no_cache(network: Any) -> None:
    nodes = [
        helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['y']),
    ]
    constants = {'s': np.array(0.1, np.float32), 'z': np.array(3, np.uint8)}
    with pytest.raises(EngineError, match="'x': TensorRT takes one constant scale"):
        scales(network(nodes, {'x': [2]}, {'y': [2]}, constants))


def test_cache(tmp_path: Path) -> None:
    known = {'canvas': 1 / 127, 'a:0 b': 0.5}
    text = calibration_cache(known, (10, 7, 0))
    assert text == 'TRT-100700-EntropyCalibration2\ncanvas: 3c010204\na:0 b: 3f000000\n'
    assert calibration_cache(known).startswith('TRT-8600-')
    for version, number in (((8, 5, 2), 8502), ((7, 1, 3), 7103), ((10, 3, 0, 30), 100300)):
        assert calibration_cache(known, version).startswith(f'TRT-{number}-EntropyCalibration2\n')
    smallest = calibration_cache(known, algorithm='MinMaxCalibration')
    assert smallest.startswith('TRT-8600-MinMaxCalibration\n')
    with pytest.raises(EngineError, match="'Guess' is not one of"):
        calibration_cache(known, algorithm='Guess')
    (tmp_path / 'a.cache').write_text(text)
    (tmp_path / 'a.json').write_text(json.dumps(known))
    assert read_scales(tmp_path / 'a.cache') == pytest.approx(known, rel=1e-7)
    assert read_scales(tmp_path / 'a.json') == known


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"a": "b"}', "'a' is 'b', expected a number"),
        ('{"a": 1', 'no calibration'),
        ('{}', 'there are no scales'),
        ('a: 3c010204', 'begins with TRT-'),
        ('TRT-8600-x\na 3c01', "line 'a 3c01'"),
        ('TRT-8600-x\na: 3c01', 'no calibration'),
        ('TRT-8600-x\na: xyz', 'no calibration'),
        ('TRT-8600-x\na: 7fc00000', "'a' is nan"),
    ],
)
def test_files_that_are_no_calibration(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / 'scales').write_text(text)
    with pytest.raises(EngineError, match=said):
        read_scales(tmp_path / 'scales')
    with pytest.raises(EngineError, match='cannot be read: No such file'):
        read_scales(tmp_path / 'none')


@pytest.mark.parametrize(('name', 'least'), [('apron_pointpillars', 0.99), ('apron_yolox', 0.99)])
def test_the_shipped_networks(
    repository: Path, run: Any, name: str, least: float, record_property: Any
) -> None:
    """Cosine of every output to fp32's, on inputs of the kind that it was calibrated with."""
    model = split_deconvolutions(onnx.load(str(repository / 'models' / f'{name}.onnx')))
    value = model.graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(3)

    def feed() -> dict[str, Any]:
        x = rng.uniform(0, 255, shape) if shape[1] == 3 else rng.uniform(0, 2, shape)
        return {value.name: (x * (rng.random((1, 1, *shape[2:])) < 0.3)).astype(np.float32)}

    quantized = quantize(model, [feed(), feed()], correct=0)  # which takes a minute or two
    assert 'ConvTranspose' not in operators(quantized)
    x = feed()
    for output, found, expected in zip(
        model.graph.output, run(quantized, **x), run(model, **x), strict=True
    ):
        record_property(f'cosine_{output.name}', cosine(found, expected))
        assert cosine(found, expected) > least
