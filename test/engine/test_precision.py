"""fp16 networks: the same answers as fp32 within fp16's rounding, on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.graph import has_qdq, is_half
from airside_perception.engine.precision import to_half
from airside_perception.errors import EngineError

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def kinds(model: Any) -> dict[str, int]:
    """Element type of every tensor of the interface and of every initialiser."""
    graph = model.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    return {**found, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.fixture
def convolution(network: Any) -> Any:
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node('Conv', ['x', 'w', 'b'], ['c'], 'conv', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c'], ['y'], 'relu'),
    ]
    weights = {
        'w': rng.normal(0, 0.2, (5, 3, 3, 3)).astype(np.float32),
        'b': rng.normal(0, 1, 5).astype(np.float32),
    }
    return network(nodes, {'x': [1, 3, 8, 9]}, {'y': [1, 5, 8, 9]}, weights)


def test_half_inside_float_outside(convolution: Any, run: Any) -> None:
    half = to_half(convolution, keep_io=True)
    onnx.checker.check_model(half, full_check=True)
    assert kinds(half) == {'x': FLOAT, 'y': FLOAT, 'w': HALF, 'b': HALF}
    assert operators(half) == ['Cast', 'Conv', 'Relu', 'Cast']
    x = np.random.default_rng(2).normal(0, 1, (1, 3, 8, 9)).astype(np.float32)
    found, expected = run(half, x=x)[0], run(convolution, x=x)[0]
    assert found.dtype == np.float32
    assert_allclose(found, expected, atol=4e-3)  # 27 products of size 0.2, 11 bits each
    assert np.abs(found - expected).max() > 0


def test_half_outside_as_well(convolution: Any, run: Any) -> None:
    half = to_half(convolution, keep_io=False)
    onnx.checker.check_model(half, full_check=True)
    assert set(kinds(half).values()) == {HALF}
    assert operators(half) == ['Conv', 'Relu']
    assert is_half(half)
    assert not is_half(convolution)
    x = np.random.default_rng(2).normal(0, 1, (1, 3, 8, 9)).astype(np.float16)
    found = run(half, x=x)[0]
    assert found.dtype == np.float16
    assert_allclose(found, run(convolution, x=x.astype(np.float32))[0], atol=4e-3)


def test_some_of_the_outside_in_half(convolution: Any, run: Any) -> None:
    half = to_half(convolution, keep_io={'y'})
    onnx.checker.check_model(half, full_check=True)
    assert (kinds(half)['x'], kinds(half)['y']) == (HALF, FLOAT)
    assert operators(half) == ['Conv', 'Relu', 'Cast']
    assert run(half, x=np.zeros((1, 3, 8, 9), np.float16))[0].dtype == np.float32


def test_the_model_that_is_given_stays_as_it_is(convolution: Any) -> None:
    before = convolution.SerializeToString()
    to_half(convolution, keep_io=False)
    assert convolution.SerializeToString() == before


@pytest.mark.parametrize('keep', [('relu',), ('Relu',)])
def test_nodes_that_stay_in_fp32(convolution: Any, keep: tuple[str, ...]) -> None:
    half = to_half(convolution, keep_io=True, keep=keep)
    onnx.checker.check_model(half, full_check=True)
    assert operators(half) == ['Cast', 'Conv', 'Cast', 'Relu']


def test_weights_are_rounded_to_nearest_and_never_twice(network: Any, run: Any) -> None:
    """A weight read by nodes of both precisions is exact in fp32, not a cast of its fp16."""
    weight = np.array([1.0001, 3e-8, 2.0, np.inf], np.float32)
    nodes = [
        helper.make_node('Mul', ['x', 'w'], ['a'], 'half'),
        helper.make_node('Mul', ['x', 'w'], ['b'], 'single'),
    ]
    model = network(nodes, {'x': [4]}, {'a': [4], 'b': [4]}, {'w': weight})
    half = to_half(model, keep_io=True, keep=['single'])
    a, b = run(half, x=np.ones(4, np.float32))
    assert_array_equal(b, weight)
    assert_array_equal(a, weight.astype(np.float16).astype(np.float32))


def test_weights_beyond_fp16_are_clipped_with_a_warning(network: Any, run: Any) -> None:
    weight = np.array([7e4, -1e6, 1.0], np.float32)
    model = network(
        [helper.make_node('Identity', ['x'], ['i']), helper.make_node('Add', ['i', 'w'], ['y'])],
        {'x': [3]},
        {'y': [3]},
        {'w': weight},
    )
    with pytest.warns(RuntimeWarning, match='w: weights beyond ±65504 are clipped'):
        half = to_half(model, keep_io=True)
    assert_array_equal(run(half, x=np.zeros(3, np.float32))[0], [65504, -65504, 1])


def test_constants_casts_and_scales(network: Any, run: Any) -> None:
    """Constant nodes become weights, Cast follows, the scales of Resize stay fp32."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32))
    nodes = [
        helper.make_node('Constant', [], ['scales'], value=scales),
        helper.make_node('Constant', [], ['one'], value_float=1.0),
        helper.make_node('Cast', ['n'], ['f'], to=FLOAT),
        helper.make_node('Add', ['x', 'f'], ['s']),
        helper.make_node('Mul', ['s', 'one'], ['m']),
        helper.make_node('Resize', ['m', '', 'scales'], ['y'], mode='nearest'),
    ]
    inputs = {'x': [1, 1, 2, 2], 'n': (INT64, [1])}
    model = network(nodes, inputs, {'y': [1, 1, 4, 4]})
    half = to_half(model, keep_io=False)
    onnx.checker.check_model(half, full_check=True)
    found = kinds(half)
    assert (found['scales'], found['one'], found['n']) == (FLOAT, HALF, INT64)
    assert 'Constant' not in operators(half)
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    n = np.array([3], np.int64)
    assert_array_equal(run(half, x=x.astype(np.float16), n=n)[0], run(model, x=x, n=n)[0])


def test_operators_that_onnx_has_for_fp32_only(network: Any, run: Any) -> None:
    nodes = [
        helper.make_node('Mul', ['b', 'b'], ['boxes']),
        helper.make_node('NonMaxSuppression', ['boxes', 's', 'most'], ['kept']),
        helper.make_node('ConstantOfShape', ['shape'], ['zeros']),
        helper.make_node('Add', ['s', 'zeros'], ['y']),
    ]
    constants = {'most': np.array([2], np.int64), 'shape': np.array([1, 1, 2], np.int64)}
    model = network(
        nodes,
        {'b': [1, 2, 4], 's': [1, 1, 2]},
        {'kept': (INT64, ['n', 3]), 'y': [1, 1, 2]},
        constants,
    )
    half = to_half(model, keep_io=False)
    onnx.checker.check_model(half, full_check=True)
    assert operators(half).count('Cast') == 3  # boxes, scores, zeros
    b = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]], np.float16)
    s = np.array([[[0.5, 0.25]]], np.float16)
    kept, y = run(half, b=b, s=s)
    assert_array_equal(kept, [[0, 0, 0], [0, 0, 1]])
    assert_array_equal(y, s)


def test_outputs_that_are_read_inside_too_or_are_weights(network: Any, run: Any) -> None:
    nodes = [
        helper.make_node('Relu', ['x'], ['a']),
        helper.make_node('Add', ['a', 'w'], ['b']),
    ]
    weight = np.array([0.1, 0.2], np.float32)
    model = network(nodes, {'x': [2]}, {'a': [2], 'b': [2], 'w': [2]}, {'w': weight})
    for keep_io, kind in ((True, np.float32), (False, np.float16)):
        half = to_half(model, keep_io)
        a, b, w = run(half, x=np.array([-1, 1], kind))
        assert_array_equal(a, [0, 1])
        assert_array_equal(w, weight.astype(kind))
        assert_allclose(b, [0.1, 1.2], atol=1e-3)
        assert [v.name for v in half.graph.output] == ['a', 'b', 'w']


def test_control_flow_and_unknown_types_are_refused(network: Any) -> None:
    body = helper.make_graph(
        [helper.make_node('Relu', ['x'], ['r'])],
        'body',
        [],
        [helper.make_tensor_value_info('r', FLOAT, [2])],
    )
    node = helper.make_node('If', ['c'], ['y'], 'choose', then_branch=body, else_branch=body)
    model = network([node], {'c': (TensorProto.BOOL, []), 'x': [2]}, {'y': [2]})
    with pytest.raises(EngineError, match=r"'choose' \(If\): networks with control flow"):
        to_half(model, keep_io=True)
    own = helper.make_node('Own', ['x'], ['o'], 'mine', domain='own')
    model = helper.make_model(
        helper.make_graph(
            [own, helper.make_node('Relu', ['o'], ['y'])],
            'g',
            [helper.make_tensor_value_info('x', FLOAT, [2])],
            [helper.make_tensor_value_info('y', FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid('', 17), helper.make_opsetid('own', 1)],
    )
    with pytest.raises(EngineError, match=r"'mine' \(Own\): the type of 'o' does not follow"):
        to_half(model, keep_io=True)
    model.graph.value_info.append(helper.make_tensor_value_info('o', FLOAT, [2]))
    assert operators(to_half(model, keep_io=False)) == ['Cast', 'Own', 'Cast', 'Relu']


def test_quantised_networks_get_half_scales(network: Any, run: Any) -> None:
    """Opset 17 is raised to 19; a scale below fp16's smallest number does not become zero."""
    nodes = [
        helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['d']),
        helper.make_node('DequantizeLinear', ['w', 'tiny', 'z'], ['v']),
        helper.make_node('Add', ['d', 'v'], ['y']),
    ]
    constants = {
        's': np.array(0.25, np.float32),
        'tiny': np.array(1e-9, np.float32),
        'z': np.array(0, np.int8),
        'w': np.array([1, 2, 3], np.int8),
    }
    model = network(nodes, {'x': [3]}, {'y': [3]}, constants)
    half = to_half(model, keep_io=False)
    onnx.checker.check_model(half, full_check=True)
    assert has_qdq(half)
    assert half.opset_import[0].version == 19
    assert kinds(half) == {'x': HALF, 'y': HALF, 's': HALF, 'tiny': HALF,
                           'z': TensorProto.INT8, 'w': TensorProto.INT8}  # fmt: skip
    tiny = next(item for item in half.graph.initializer if item.name == 'tiny')
    assert numpy_helper.to_array(tiny) > 0
    x = np.array([0.3, -0.6, 100], np.float16)
    assert_array_equal(run(half, x=x)[0], np.array([0.25, -0.5, 31.75], np.float16))


@pytest.mark.parametrize(
    ('name', 'limit'),
    [('apron_centerpoint', 0.02), ('apron_pointpillars', 0.01), ('apron_yolox', 0.01)],
)
def test_the_shipped_networks(repository: Path, name: str, limit: float, run: Any) -> None:
    """Relative error of every output, against its largest value."""
    model = onnx.load(str(repository / 'models' / f'{name}.onnx'))
    half = to_half(model, keep_io=True)
    onnx.checker.check_model(half, full_check=True)
    value = model.graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    x = np.random.default_rng(3).uniform(0, 255 if shape[1] == 3 else 2, shape)
    feeds = {value.name: x.astype(np.float32)}
    for found, expected in zip(run(half, **feeds), run(model, **feeds), strict=True):
        assert np.abs(found - expected).max() < limit * np.abs(expected).max()
