"""The engine contract on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

from airside_perception.engine import TensorSpec, open_engine, require
from airside_perception.errors import EngineError


@pytest.fixture
def doubler(tmp_path):
    """y = x + x for float32 x [n, 3]."""
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 3])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, ['n', 3])
    graph = helper.make_graph([helper.make_node('Add', ['x', 'x'], ['y'])], 'double', [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, tmp_path / 'double.onnx')
    return tmp_path / 'double.onnx'


def test_infer(doubler):
    with open_engine(doubler) as engine:
        assert engine.inputs == (TensorSpec('x', (-1, 3), np.dtype(np.float32)),)
        assert [str(spec) for spec in engine.outputs] == ['y: float32 [?, 3]']
        assert engine.info.backend == 'onnxruntime'
        assert engine.info.device == 'cpu'
        assert engine.info.notes == ()
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        found = engine.infer({'x': x})
        assert list(found) == ['y']
        assert_array_equal(found['y'], 2 * x)


@pytest.mark.parametrize(
    ('feeds', 'said'),
    [
        ({}, "input 'x' is missing"),
        ({'x': np.zeros((1, 3), np.float32), 'z': np.zeros(1)}, "no input 'z'"),
        ({'x': np.zeros((1, 3))}, r"'x' is float64 \[1, 3\], expected x: float32 \[\?, 3\]"),
        ({'x': np.zeros((1, 4), np.float32)}, r"'x' is float32 \[1, 4\]"),
        ({'x': np.zeros(3, np.float32)}, r"'x' is float32 \[3\]"),
    ],
)
def test_wrong_feeds_are_named(doubler, feeds, said):
    with open_engine(doubler) as engine, pytest.raises(EngineError, match=said):
        engine.infer(feeds)


def test_closed_twice_and_then_used(doubler):
    engine = open_engine(doubler)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match='closed'):
        engine.infer({'x': np.zeros((1, 3), np.float32)})


def test_settings_that_do_not_apply_are_reported(doubler):
    with open_engine(doubler, dla_core=1, precision='int8') as engine:
        assert len(engine.info.notes) == 2
        assert all('not applicable' in note for note in engine.info.notes)


def test_files_that_are_no_network(tmp_path):
    with pytest.raises(EngineError, match='no such network'):
        open_engine(tmp_path / 'missing.onnx')
    (tmp_path / 'corrupt.onnx').write_bytes(b'not a network')
    with pytest.raises(EngineError, match=r'corrupt\.onnx: ONNX Runtime cannot load it'):
        open_engine(tmp_path / 'corrupt.onnx')
    (tmp_path / 'network.pt').write_bytes(b'')
    with pytest.raises(EngineError, match=r"unknown kind of network '\.pt'"):
        open_engine(tmp_path / 'network.pt')


def test_failure_inside_the_network(tmp_path):
    x = helper.make_tensor_value_info('x', TensorProto.INT64, [1])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, None)
    table = helper.make_tensor('table', TensorProto.FLOAT, [2], [1.0, 2.0])
    gather = helper.make_node('Gather', ['table', 'x'], ['y'])
    graph = helper.make_graph([gather], 'gather', [x], [y], initializer=[table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, tmp_path / 'gather.onnx')
    with (
        open_engine(tmp_path / 'gather.onnx') as engine,
        pytest.raises(EngineError, match='inference failed'),
    ):
        engine.infer({'x': np.array([9], np.int64)})


def test_tensors_of_types_that_numpy_lacks(tmp_path):
    x = helper.make_tensor_value_info('x', TensorProto.STRING, [1])
    y = helper.make_tensor_value_info('y', TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node('Identity', ['x'], ['y'])], 'text', [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, tmp_path / 'text.onnx')
    with pytest.raises(EngineError, match='not supported'):
        open_engine(tmp_path / 'text.onnx')


def test_require_compares_with_what_a_card_says(doubler):
    with open_engine(doubler) as engine:
        assert require(engine, 'input', 'x', (-1, 3)).name == 'x'
        with pytest.raises(EngineError, match=r"no input 'images'; it has x: float32"):
            require(engine, 'input', 'images', (1, 3))
        with pytest.raises(EngineError, match=r'needs \[1, 4\]'):
            require(engine, 'output', 'y', (1, 4))
