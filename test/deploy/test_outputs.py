"""Random inputs, outputs on ONNX Runtime, and how far two outputs are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from airside_perception.deploy.agreement import compare_runs, random_inputs, read_sizes
from airside_perception.deploy.large import copy_whole, stored_bytes
from airside_perception.deploy.outputs import (
    OnnxRunner,
    compare_outputs,
    difference,
    dynamic_dims,
    random_feeds,
    run_onnx,
)
from airside_perception.errors import ConfigError, EngineError


def network(nodes: list[Any], inputs: dict[str, Any], outputs: list[str], opset: int = 17) -> Any:
    graph = helper.make_graph(
        nodes,
        'tiny',
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def relu(shape: Any = (2, 3), kind: int = TensorProto.FLOAT) -> Any:
    return network([helper.make_node('Relu', ['x'], ['y'])], {'x': (kind, shape)}, ['y'])


def test_numbers_of_a_difference() -> None:
    reference = np.array([[3.0, -4.0], [0.0, 1.0]], np.float32)
    found = difference(reference, reference + np.array([[0.5, 0.0], [0.0, -0.25]], np.float32))
    assert found.max_abs == 0.5
    assert found.max_rel == 0.5 / 4
    assert found.mean_abs == 0.75 / 4
    a, b = np.array([3, -4, 0, 1.0]), np.array([3.5, -4, 0, 0.75])
    expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert found.cosine == pytest.approx(expected, rel=1e-12)
    assert found.within(0.125)
    assert not found.within(0.124)


@pytest.mark.parametrize(
    ('reference', 'other', 'nan', 'inf', 'max_abs'),
    [
        ([np.nan, 1.0], [np.nan, 1.0], 0, 0, 0.0),
        ([np.inf, 1.0], [np.inf, 1.5], 0, 0, 0.5),
        ([np.inf, 1.0], [-np.inf, 1.0], 0, 1, 0.0),
        ([1.0, 1.0], [np.nan, np.inf], 1, 1, 0.0),
        ([np.nan, np.inf], [1.0, 2.0], 1, 1, 0.0),
        ([np.nan, 1.0], [np.inf, 1.0], 1, 0, 0.0),
        ([], [], 0, 0, 0.0),
    ],
)
def test_values_that_are_no_numbers(
    reference: Any, other: Any, nan: int, inf: int, max_abs: float
) -> None:
    found = difference(np.array(reference, np.float32), np.array(other, np.float32))
    assert (found.nan, found.inf, found.max_abs) == (nan, inf, max_abs)
    assert found.within(1.0) == (not nan and not inf)


def test_large_values_do_not_overflow() -> None:
    large = np.full(4, 1e200)
    assert difference(large, large * 2).cosine == pytest.approx(1.0)
    assert difference(large, large * 2).max_rel == 1.0


def test_zeros() -> None:
    zeros = np.zeros(3, np.float32)
    assert difference(zeros, zeros) == difference(np.zeros(3, bool), np.zeros(3, bool))
    assert difference(zeros, zeros).cosine == 1.0
    assert difference(zeros, zeros).within(0.0)
    assert difference(zeros, zeros + 1e-9).cosine == 0.0
    assert not difference(zeros, zeros + 1e-9).within(1.0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(EngineError, match=r"output 'y': shapes differ: \[2\] and \[3\]"):
        compare_outputs({'y': np.zeros(2)}, {'y': np.zeros(3)})
    with pytest.raises(EngineError, match="output 'y' is missing; there are z"):
        compare_outputs({'y': np.zeros(2)}, {'z': np.zeros(2)})
    with pytest.raises(EngineError, match='no numbers'):
        difference(np.array(['car']), np.array(['bus']))


@pytest.mark.parametrize(
    ('kind', 'dtype', 'low', 'high'),
    [
        (TensorProto.FLOAT, np.float32, -6, 6),
        (TensorProto.FLOAT16, np.float16, -6, 6),
        (TensorProto.DOUBLE, np.float64, -6, 6),
        (TensorProto.UINT8, np.uint8, 0, 255),
        (TensorProto.INT8, np.int8, -128, 127),
        (TensorProto.INT64, np.int64, 0, 3),
        (TensorProto.INT32, np.int32, 0, 3),
        (TensorProto.BOOL, np.bool_, 0, 1),
    ],
)
def test_random_inputs_by_type(kind: int, dtype: Any, low: float, high: float) -> None:
    model = relu([40, 50], kind)
    value = random_feeds(model, seed=3)['x']
    assert value.dtype == dtype
    assert value.shape == (40, 50)
    assert low <= value.min() < value.max() <= high
    assert np.array_equal(value, random_feeds(model, seed=3)['x'])
    assert not np.array_equal(value, random_feeds(model, seed=4)['x'])
    if high > 100:  # all of the range is used
        assert value.min() <= low + 2
        assert value.max() >= high - 2


@pytest.mark.parametrize('kind', [TensorProto.BOOL, TensorProto.FLOAT, TensorProto.INT64])
def test_random_scalars_are_arrays(kind: int) -> None:
    value = random_feeds(relu([], kind))['x']
    assert isinstance(value, np.ndarray)
    assert value.shape == ()


def test_sizes_of_dimensions_that_vary() -> None:
    model = network(
        [helper.make_node('Relu', ['x'], ['y'])],
        {
            'x': (TensorProto.FLOAT, ['batch', 3, 'height', None]),
            'n': (TensorProto.FLOAT, ['batch', None]),
        },
        ['y'],
    )
    assert dynamic_dims(model) == {'batch': 1, 'height': 64, 'x:3': 64, 'n:1': 1}
    feeds = random_feeds(model, sizes={'batch': 4, 'x:3': 8})
    assert {name: value.shape for name, value in feeds.items()} == {
        'x': (4, 3, 64, 8), 'n': (4, 1),
    }  # fmt: skip
    with pytest.raises(ConfigError, match='size width=8: no such dimension; those that vary: b'):
        random_feeds(model, sizes={'width': 8})
    with pytest.raises(ConfigError, match='size batch=0: expected 1 or more'):
        random_feeds(model, sizes={'batch': 0})


def test_weights_among_the_inputs_are_not_fed() -> None:
    model = relu()
    model.graph.initializer.append(helper.make_tensor('x', TensorProto.FLOAT, [2, 3], range(6)))
    assert random_feeds(model) == {}


def test_inputs_without_random_values() -> None:
    model = relu()
    model.graph.input[0].type.tensor_type.ClearField('shape')
    with pytest.raises(EngineError, match="input 'x' has no shape: its rank is not known"):
        random_feeds(model)
    with pytest.raises(EngineError, match="input 'x' of type STRING: no random values"):
        random_feeds(relu(kind=TensorProto.STRING))
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    with pytest.raises(EngineError, match="input 'x' is a sequence_type, not a tensor"):
        random_feeds(model)


def test_any_tensor_can_be_an_output(tmp_path: Path) -> None:
    model = network(
        [
            helper.make_node('Abs', ['x'], ['size']),
            helper.make_node('Sqrt', ['size'], ['root']),
            helper.make_node('Tanh', ['root'], ['y']),
        ],
        {'x': (TensorProto.FLOAT, [2, 3])},
        ['y'],
    )
    feeds = random_feeds(model)
    found = run_onnx(model, feeds, ['root', 'y'])
    assert list(found) == ['root', 'y']
    np.testing.assert_allclose(found['root'], np.sqrt(np.abs(feeds['x'])), rtol=1e-6)
    expected = ReferenceEvaluator(model).run(None, feeds)[0]
    assert difference(expected, found['y']).within(1e-6)
    assert len(model.graph.output) == 1
    path = tmp_path / 'tiny.onnx'
    onnx.save(model, str(path))
    assert list(run_onnx(path, feeds, optimise=False)) == ['y']
    with pytest.raises(EngineError, match="no output 'z'; there are y"):
        run_onnx(model, feeds, ['z'])


def test_what_does_not_load_or_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r'nothing\.onnx: ONNX Runtime cannot load it'):
        run_onnx(tmp_path / 'nothing.onnx', {})
    runner = OnnxRunner(relu())
    with pytest.raises(EngineError, match='ONNX Runtime cannot run it') as raised:
        runner.run({'x': np.zeros((5, 3), np.float32)})
    assert '\n' not in str(raised.value)
    assert capfd.readouterr() == ('', '')


def test_bytes_of_a_network_and_a_copy_of_it(repository: Path) -> None:
    path = repository / 'models' / 'apron_yolox.onnx'
    model = onnx.load(str(path))
    assert stored_bytes(model) == pytest.approx(path.stat().st_size, rel=2e-3)
    assert copy_whole(model) == model


def test_every_size_is_tried() -> None:
    model = relu(['batch', 3])
    labels = [label for label, _ in random_inputs(model, seed=5)]
    assert labels == [
        'seed 5, batch=1', 'seed 6, batch=1', 'seed 7, batch=1', 'seed 8, batch=2',
        'seed 9, batch=3',
    ]  # fmt: skip
    shapes = [feeds['x'].shape for _, feeds in random_inputs(model, sizes={'batch': (8,)})]
    assert shapes == [(8, 3)] * 3
    with pytest.raises(ConfigError, match="size of 'rows': no such dimension"):
        list(random_inputs(model, sizes={'rows': (1,)}))


def test_sizes_that_only_one_of_two_can_do() -> None:
    def reference(feeds: Any) -> Any:
        if len(feeds['x']) == 1:
            raise EngineError('not one')
        return {'y': feeds['x']}

    def other(feeds: Any) -> Any:
        if len(feeds['x']) == 3:
            raise EngineError('not three')
        return {'y': feeds['x'] * (1 + 1e-3)}

    inputs = [(f'n={n}', {'x': np.ones((n, 2))}) for n in (1, 2, 3)]
    found = compare_runs(reference, other, inputs)
    assert found.tried == ('n=2',)
    assert dict(found.skipped) == {'n=1': 'not one'}
    assert dict(found.failed) == {'n=3': 'not three'}
    assert found.differences['y'].max_rel == pytest.approx(1e-3)
    assert not found.within(1.0)
    assert compare_runs(reference, other, inputs[:2]).within(2e-3)
    with pytest.raises(EngineError, match=r'runs on no random input \(n=1: not one\)'):
        compare_runs(reference, other, inputs[:1])


def test_sizes_as_words() -> None:
    assert read_sizes(['batch=1,8', 'x:3=640']) == {'batch': (1, 8), 'x:3': (640,)}
    for word in ('batch', 'batch=', '=3', 'batch=1,,2', 'batch=0', 'batch=-1', 'batch=two'):
        with pytest.raises(ConfigError, match='expected NAME=N'):
            read_sizes([word])
