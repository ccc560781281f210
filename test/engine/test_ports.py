"""Inputs and outputs in fp16 around a network of another precision."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.capabilities import capabilities_of
from airside_perception.engine.ports import half_ports
from airside_perception.engine.typed import typed_network

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def mixed():
    """y = half(2 x) in fp32 outside, which the second output reads: z = y + 1."""
    nodes = [
        helper.make_node('Cast', ['x'], ['x16'], to=HALF),
        helper.make_node('Mul', ['x16', 'two'], ['y16']),
        helper.make_node('Cast', ['y16'], ['y'], to=FLOAT),
        helper.make_node('Add', ['y', 'one'], ['z']),
    ]
    weights = [
        numpy_helper.from_array(np.array([2.0], np.float16), 'two'),
        numpy_helper.from_array(np.array([1.0], np.float32), 'one'),
    ]
    ports = [helper.make_tensor_value_info(name, FLOAT, [1, 3, 2, 2]) for name in 'xyz']
    graph = helper.make_graph(nodes, 'mixed', ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    half = session.get_inputs()[0].type == 'tensor(float16)'
    return session.run(None, {'x': x.astype(np.float16 if half else np.float32)})


def test_the_same_numbers_come_out_in_fp16() -> None:
    model = mixed()
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    expected = run(model, x)
    found = half_ports(model, ('x', 'y', 'z', 'none'))
    onnx.checker.check_model(found, full_check=True)
    for value, wanted in zip(run(found, x), expected, strict=True):
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value, wanted)
    some = run(half_ports(model, ('y',)), x)
    assert [value.dtype for value in some] == [np.float16, np.float32]
    np.testing.assert_array_equal(some[1], expected[1])
    assert model.graph.input[0].type.tensor_type.elem_type == FLOAT  # the given one is left alone


def test_a_network_in_fp16_inside_gets_the_layouts_that_are_asked_for(tmp_path) -> None:
    path = tmp_path / 'mixed.onnx'
    onnx.save(mixed(), path)

    flags = SimpleNamespace(__members__={'STRONGLY_TYPED': 1})
    can = capabilities_of(SimpleNamespace(NetworkDefinitionCreationFlag=flags))
    assert can.strongly_typed == 'always'
    source = typed_network(path, BuildSettings(io_formats={'x': 'hwc8', 'z': 'hwc8'}), can)
    graph = onnx.load_model_from_string(source.data).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert kinds == {'x': HALF, 'y': FLOAT, 'z': HALF}
