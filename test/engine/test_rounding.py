"""fp16 computed in fp32: rounding where an engine rounds, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.precision import to_half
from airside_perception.engine.rounding import rounded_half
from airside_perception.errors import EngineError


def answer(model: Any, **feeds: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return session.run(None, feeds)


def half(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float16).astype(np.float32)


@pytest.fixture
def model() -> Any:
    """y = relu(conv(x)) * 3 with a shape [1, 4, 5, 5], z = 2 * conv(x)."""
    rng = np.random.default_rng(0)
    weights = {
        'w': rng.normal(size=(4, 3, 1, 1)), 'b': rng.normal(size=4), 'three': np.array(3.1),
        'two': np.array(2.3),
    }  # fmt: skip
    nodes = [
        helper.make_node('Conv', ['x', 'w', 'b'], ['c'], 'conv'),
        helper.make_node('Relu', ['c'], ['r'], 'relu'),
        helper.make_node('Mul', ['r', 'three'], ['y'], 'mul'),
        helper.make_node('Mul', ['x', 'two'], ['z'], 'double'),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, 'g', [value('x', TensorProto.FLOAT, [1, 3, 5, 5])],
        [value('y', TensorProto.FLOAT, [1, 4, 5, 5]), value('z', TensorProto.FLOAT, [1, 3, 5, 5])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def by_hand(model: Any, x: np.ndarray, keep: str = '') -> list[np.ndarray]:
    """The same in NumPy, rounded step by step."""
    w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    conv = {k: w[k] if keep == 'conv' else half(w[k]) for k in ('w', 'b')}
    into = x if keep == 'conv' else half(x)
    c = np.einsum('oi,bihw->bohw', conv['w'][:, :, 0, 0], into) + conv['b'][None, :, None, None]
    r = half(np.maximum(c, 0))  # to round before it or after it is the same
    return [half(r * half(w['three'])), half(half(x) * half(w['two']))]


@pytest.mark.parametrize('keep', ['', 'conv'])
def test_rounds_where_an_engine_does(model: Any, keep: str) -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 5, 5)).astype(np.float32)
    rounded = rounded_half(to_half(model, True, [keep] if keep else []))
    onnx.checker.check_model(rounded)
    for found, wanted in zip(answer(rounded, x=x), by_hand(model, x, keep), strict=True):
        # sums in another order may fall to the other side of a rounding: one step at most
        np.testing.assert_allclose(found, wanted, rtol=1.1e-3)
        assert (found == wanted).mean() > 0.9
    assert (answer(rounded, x=x)[0] != answer(model, x=x)[0]).any()


def test_the_model_itself_is_left_alone(model: Any) -> None:
    given = to_half(model, True)
    before = given.SerializeToString()
    rounded_half(given)
    assert given.SerializeToString() == before


def test_integers_are_not_rounded() -> None:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node('Add', ['i', 'i'], ['j'], 'sum')]
    graph = helper.make_graph(
        nodes, 'g', [value('i', TensorProto.INT64, [2])], [value('j', TensorProto.INT64, [2])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    rounded = rounded_half(to_half(model, True))
    assert [node.op_type for node in rounded.graph.node] == ['Add']
    (found,) = answer(rounded, i=np.array([70001, 3], np.int64))
    assert found.tolist() == [140002, 6]


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node('Identity', ['x'], ['y'])], 'b', [],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])],
    )  # fmt: skip
    node = helper.make_node('If', ['c'], ['z'], then_branch=branch, else_branch=branch)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], 'g', [value('c', TensorProto.BOOL, [1]), value('x', TensorProto.FLOAT, [1])],
        [value('z', TensorProto.FLOAT, [1])],
    )  # fmt: skip
    with pytest.raises(EngineError, match='control flow'):
        rounded_half(helper.make_model(graph))
