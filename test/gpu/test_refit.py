"""Weights, layers and scales of engines on the GPU, beside ONNX Runtime and NumPy.

Engines that are refitted, sparse or stripped, what they say of their layers, and a calibration
cache that TensorRT itself writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from airside_perception.cuda.runtime import (
    DeviceArray,
    PinnedArray,
    Stream,
    copy_to_device,
    copy_to_host,
)
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.inspect_engine import inspect_engine
from airside_perception.deploy.profile.engine_layers import read_information
from airside_perception.deploy.refit import refit
from airside_perception.engine import open_engine
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings, read_profile
from airside_perception.engine.calibration_cache import calibration_cache, read_scales
from airside_perception.engine.callbacks import cache_reader
from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.plan import load_plan
from airside_perception.engine.sparsity import is_sparse
from airside_perception.engine.trt_log import collect, logger
from airside_perception.errors import EngineError, RefusalError

SOURCES = ('edge_mask_convolutions', 'jit_convolutions')  # no cuBLAS and cuDNN needed
SHAPE = (1, 8, 32, 48)
BATCHES = 6
LARGEST = 127
Build = Callable[..., tuple[Path, Manifest]]


@pytest.fixture
def tensorrt() -> TensorRT:
    try:
        return load_tensorrt('tensorrt', build=True)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def sources(tensorrt: TensorRT) -> tuple[str, ...]:
    return tuple(name for name in SOURCES if name.upper() in tensorrt.can.tactic_sources)


@pytest.fixture
def build(tensorrt: TensorRT, sources: tuple[str, ...], tmp_path: Path) -> Build:
    """Function: builds a network with these settings; engine and manifest."""

    def make(network: Path, **settings: Any) -> tuple[Path, Manifest]:
        level = {'opt_level': 1} if tensorrt.can.optimization_level else {}
        said: dict[str, Any] = {'tactic_sources': sources, 'timing_cache': '', **level}
        wanted = BuildSettings(**{**said, **settings})
        out = tmp_path / 'engines' / wanted.file_name(network)
        return out, build_engine(network, out, wanted)

    return make


def convolutions(seed: int, batch: int | str = 1, sparse: bool = False) -> onnx.ModelProto:
    """x [batch, 8, 32, 48] -> y [batch, 8, 32, 48] and z [batch, 5, 16, 24]; weights by the seed.

    With `sparse`, of every 4 input channels of each weight 2 are zero.
    """
    random = np.random.default_rng(seed)
    weights, nodes = [], []

    def conv(name: str, source: str, target: str, channels: tuple[int, int], stride: int) -> None:
        scale = 1 / np.sqrt(9 * channels[1])
        values = (random.normal(size=(*channels, 3, 3)) * scale).astype(np.float32)
        if sparse:
            values[:, 1::4] = values[:, 2::4] = 0.0
        bias = random.normal(size=channels[0]).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f'{name}_w'))
        weights.append(numpy_helper.from_array(bias, f'{name}_b'))
        nodes.append(
            helper.make_node(
                'Conv', [source, f'{name}_w', f'{name}_b'], [target], f'/{name}',
                kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride],
            )
        )  # fmt: skip

    conv('stem', 'x', 'a', (16, 8), 1)
    nodes.append(helper.make_node('Relu', ['a'], ['b'], '/relu1'))
    conv('middle', 'b', 'c', (16, 16), 1)
    nodes.append(helper.make_node('Add', ['b', 'c'], ['d'], '/add'))
    nodes.append(helper.make_node('Relu', ['d'], ['e'], '/relu2'))
    conv('head', 'e', 'y', (8, 16), 1)
    conv('small', 'e', 'z', (5, 16), 2)
    outputs = {'y': [batch, 8, 32, 48], 'z': [batch, 5, 16, 24]}
    return model_of(nodes, {'x': [batch, *SHAPE[1:]]}, outputs, weights)


def normalised(seed: int) -> onnx.ModelProto:
    """A convolution and a batch normalisation, which TensorRT folds into weights of its own."""
    random = np.random.default_rng(seed)
    values = {
        'w': random.normal(size=(8, 8, 1, 1)), 'scale': random.uniform(0.5, 2, 8),
        'shift': random.normal(size=8), 'mean': random.normal(size=8),
        'variance': random.uniform(0.5, 2, 8),
    }  # fmt: skip
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c'], '/conv', kernel_shape=[1, 1]),
        helper.make_node(
            'BatchNormalization', ['c', 'scale', 'shift', 'mean', 'variance'], ['y'], '/bn'
        ),
    ]
    weights = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()]
    return model_of(nodes, {'x': list(SHAPE)}, {'y': list(SHAPE)}, weights)


def model_of(nodes: Any, inputs: Any, outputs: Any, weights: Any) -> onnx.ModelProto:
    def values(shapes: dict[str, Any]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(nodes, 'g', values(inputs), values(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


def feeds_of(batch: int = 1) -> dict[str, Any]:
    return {'x': np.random.default_rng(9).normal(size=(batch, *SHAPE[1:])).astype(np.float32)}


def answers(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    with open_engine(path) as engine:
        return engine.infer(feeds)


def near(found: dict[str, Any], expected: dict[str, Any], share: float) -> None:
    """Within a share of the largest value of each output."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert_allclose(found[name], value, atol=share * np.abs(value).max(), rtol=0)


# --- refit ---


@pytest.mark.parametrize(('precision', 'share'), [('fp32', 1e-4), ('fp16', 1e-2)])
def test_refit(build: Build, tmp_path: Path, precision: str, share: float, capsys: Any) -> None:
    old = saved(convolutions(1), tmp_path / 'net.onnx')
    new = saved(convolutions(2), tmp_path / 'new.onnx')
    engine, manifest = build(old, precision=precision, refit=True)
    assert manifest.refittable
    names = {f'{name}_{kind}' for name in ('stem', 'middle', 'head', 'small') for kind in 'wb'}
    assert set(manifest.weights) == names
    near(answers(engine, feeds_of()), answers(old, feeds_of()), share)
    started = time.monotonic()
    found = refit(engine, new)
    seconds = time.monotonic() - started
    assert set(found.changed) == names
    assert max(item.max_rel for item in found.compared.values()) < share
    near(answers(engine, feeds_of()), answers(new, feeds_of()), share)
    with pytest.raises(AssertionError):  # the two networks are not alike
        near(answers(engine, feeds_of()), answers(old, feeds_of()), share)
    told = Manifest.read(engine)
    assert told.onnx_path(engine).resolve() == new
    assert told.notes[-1].startswith('refitted from new.onnx')
    if told.refittable:
        refit(engine, old)
        near(answers(engine, feeds_of()), answers(old, feeds_of()), share)
    with capsys.disabled():
        print(f'\n{precision}: build {manifest.build_seconds:.1f} s, refit {seconds:.2f} s')  # noqa: T201  a figure


def test_refit_of_one_weight(build: Build, tmp_path: Path) -> None:
    old = saved(convolutions(1), tmp_path / 'net.onnx')
    model = convolutions(1)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == 'middle_b')
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, 'middle_b'))
    new = saved(model, tmp_path / 'new.onnx')
    engine, _ = build(old, precision='fp32', refit=True)
    assert refit(engine, new).changed == ('middle_b',)
    near(answers(engine, feeds_of()), answers(new, feeds_of()), 1e-4)


def test_refit_with_shapes_that_vary(build: Build, tmp_path: Path) -> None:
    old = saved(convolutions(1, 'n'), tmp_path / 'net.onnx')
    new = saved(convolutions(2, 'n'), tmp_path / 'new.onnx')
    profiles = tuple(
        read_profile(f'x:{a}x8x32x48:{b}x8x32x48:{c}x8x32x48')
        for a, b, c in ((1, 1, 1), (2, 4, 4))
    )
    engine, _ = build(old, precision='fp32', refit=True, profiles=profiles)
    before = engine.read_bytes()
    try:
        refit(engine, new)
    except RefusalError:
        # 8.6 was seen to leave the old weights in the second profile, and to fail in CUDA
        assert engine.read_bytes() == before
        return
    for batch in (1, 2, 4):
        near(answers(engine, feeds_of(batch)), answers(new, feeds_of(batch)), 1e-4)
    found = inspect_engine(engine)
    assert found.problem == ''
    assert found.refittable == Manifest.read(engine).refittable
    assert found.profiles[1] == {'x': ((2, 8, 32, 48), (4, 8, 32, 48), (4, 8, 32, 48))}


def test_refit_of_a_batch_normalisation_is_right_or_refused(build: Build, tmp_path: Path) -> None:
    old = saved(normalised(1), tmp_path / 'net.onnx')
    new = saved(normalised(2), tmp_path / 'new.onnx')
    engine, _ = build(old, precision='fp32', refit=True)
    before = engine.read_bytes()
    try:
        refit(engine, new)
    except RefusalError as error:
        assert 'batch normalisation' in str(error) or 'have no place in it' in str(error)  # noqa: PT017  either is fine
        assert engine.read_bytes() == before
    else:
        near(answers(engine, feeds_of()), answers(new, feeds_of()), 1e-4)


def test_what_cannot_be_refitted(build: Build, tmp_path: Path, capsys: Any) -> None:
    old = saved(convolutions(1), tmp_path / 'net.onnx')
    engine, manifest = build(old, precision='fp32')
    assert not manifest.refittable
    assert main(['refit', str(engine), str(old)]) == 1
    assert 'its weights are fixed' in capsys.readouterr().err
    engine, _ = build(old, precision='fp32', refit=True)
    other = saved(normalised(1), tmp_path / 'other.onnx')
    before = engine.read_bytes()
    assert main(['refit', str(engine), str(other)]) == 1
    assert 'not the network that' in capsys.readouterr().err
    assert engine.read_bytes() == before


def test_stripped(build: Build, tensorrt: TensorRT, tmp_path: Path) -> None:
    path = saved(convolutions(1), tmp_path / 'net.onnx')
    if not tensorrt.can.strip_plan:
        with pytest.raises(EngineError, match=r'strip: TensorRT .* does not have it'):
            build(path, strip=True)
        return
    full, _ = build(path, precision='fp32')
    size = full.stat().st_size
    engine, manifest = build(path, precision='fp32', strip=True, refit=True)
    assert manifest.stripped
    assert engine.stat().st_size < size
    with pytest.raises(EngineError, match='its weights were left out'):
        open_engine(engine)
    refit(engine, path)
    near(answers(engine, feeds_of()), answers(path, feeds_of()), 1e-4)


# --- sparsity and layers ---


def test_sparsity(build: Build, tmp_path: Path) -> None:
    model = convolutions(1, sparse=True)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert all(is_sparse(value, 1) for name, value in weights.items() if name.endswith('_w'))
    path = saved(model, tmp_path / 'net.onnx')
    engine, manifest = build(path, sparsity=True)
    assert any('4 of 4 weights have 2 zeros in every 4' in note for note in manifest.notes)
    near(answers(engine, feeds_of()), answers(path, feeds_of()), 1e-2)
    dense = saved(convolutions(1), tmp_path / 'dense.onnx')
    engine, manifest = build(dense, sparsity=True)
    assert any('sparsity has no effect: none of 4' in note for note in manifest.notes)
    near(answers(engine, feeds_of()), answers(dense, feeds_of()), 1e-2)


def test_layer_info(build: Build, tmp_path: Path, capsys: Any) -> None:
    path = saved(convolutions(1), tmp_path / 'net.onnx')
    file = tmp_path / 'layers.json'
    for precision in ('fp32', 'fp16'):
        engine, manifest = build(path, precision=precision, layer_info=file)
        layers = json.loads(file.read_text())['Layers']
        assert layers
        assert all(isinstance(layer, dict) and layer['Name'] for layer in layers)
        known = read_information(file.read_text())
        assert {item.device for item in known.values()} == {'gpu'}
        kinds = {item.precision for name, item in known.items() if '/' in name}
        assert kinds <= {'fp32', precision}, known  # where types are weak, TensorRT chooses
        for node in ('/stem', '/middle', '/head', '/small'):
            assert any(node in name for name in known), (node, list(known))
        found = inspect_engine(engine)
        assert found.layers_from == 'the engine'
        assert {layer['name'] for layer in found.layers} == set(known)
        assert found.memory_bytes == manifest.memory_bytes > 0
    assert main(['inspect', f'{engine}.json', '--layers']) == 0
    text = capsys.readouterr().out
    with capsys.disabled():
        print(f'\n{text}')  # noqa: T201  to be looked at


def test_all(sources: tuple[str, ...], tmp_path: Path, capsys: Any) -> None:
    saved(convolutions(1), tmp_path / 'net.onnx')
    matrix = {
        'out': 'engines', 'models': ['net.onnx'], 'precisions': ['fp32', 'fp16'],
        'devices': ['gpu', 'dla1'],
        'settings': {'tactic_sources': list(sources), 'opt_level': 1, 'timing_cache': ''},
        'overrides': [{'where': {'precision': 'fp32', 'device': 'dla1'}, 'skip': True}],
    }  # fmt: skip
    (tmp_path / 'engines.yaml').write_text(yaml.safe_dump(matrix))
    words = ['build', '--all', str(tmp_path / 'engines.yaml'), '--json']
    for expected in ('built', 'current'):
        main(words)
        states = [item['state'] for item in json.loads(capsys.readouterr().out)['engines']]
        assert states[:2] == [expected] * 2


# --- calibration caches that TensorRT writes ---


@pytest.fixture
def batches() -> list[Any]:
    """Uniform from -3 to 3, so that clipping does not pay; the largest value is 3 exactly."""
    random = np.random.default_rng(5)
    found = [random.uniform(-3, 3, SHAPE).astype(np.float32) for _ in range(BATCHES)]
    found[2][0, 0, 0, 0] = 3.0
    return found


def calibrator(module: Any, kind: str, batches: list[Any], stack: ExitStack) -> Any:
    """A calibrator of TensorRT's that is fed from device memory, and keeps what it is given."""
    base: Any = getattr(module, kind)
    device = stack.enter_context(DeviceArray(SHAPE, np.float32))
    pinned = stack.enter_context(PinnedArray(SHAPE, np.float32))
    stream = stack.enter_context(Stream())

    class Calibrator(base):  # type: ignore[misc]  # a class of a module found at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.left = list(batches)
            self.asked: list[list[str]] = []
            self.cache = b''

        def get_batch_size(self) -> int:
            return SHAPE[0]

        def get_batch(self, names: list[str]) -> list[int] | None:
            self.asked.append(list(names))
            if not self.left:
                return None
            pinned.array[...] = self.left.pop(0)
            copy_to_device(device.address, pinned.address, device.nbytes, stream)
            stream.synchronize()
            return [device.address]

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: Any) -> None:
            self.cache = bytes(cache)

    return Calibrator()


def int8_plan(tensorrt: TensorRT, sources: tuple[str, ...], path: Path, calibrated: Any) -> bytes:
    """Built by TensorRT's own calls: with the flag INT8 and this calibrator."""
    module = tensorrt.module
    with collect(others=True) as said:
        builder = module.Builder(logger(tensorrt))
        network = builder.create_network(tensorrt.creation_flags(strongly_typed=False))
        parser = module.OnnxParser(network, logger(tensorrt))
        assert parser.parse(path.read_bytes()), said
        config = builder.create_builder_config()
        config.set_flag(module.BuilderFlag.INT8)
        config.clear_flag(module.BuilderFlag.TF32)  # its rounding would be in the scales
        config.int8_calibrator = calibrated
        mask = sum(1 << int(getattr(module.TacticSource, name.upper())) for name in sources)
        config.set_tactic_sources(mask)
        plan = builder.build_serialized_network(network, config)
    assert plan is not None, said
    return bytes(plan)


@pytest.fixture
def weak(tensorrt: TensorRT) -> TensorRT:
    if not tensorrt.can.int8_calibrator:
        pytest.skip(f'{tensorrt} has no calibrators')
    return tensorrt


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.mark.parametrize(
    ('kind', 'algorithm'),
    [
        ('IInt8EntropyCalibrator2', 'EntropyCalibration2'),
        ('IInt8MinMaxCalibrator', 'MinMaxCalibration'),
    ],
)
def test_a_cache_that_tensorrt_wrote(
    weak: TensorRT,
    sources: tuple[str, ...],
    batches: list[Any],
    stack: ExitStack,
    tmp_path: Path,
    kind: str,
    algorithm: str,
    capsys: Any,
) -> None:
    """Reads back to the scales that TensorRT found, and is written again byte for byte."""
    path = saved(convolutions(1), tmp_path / 'net.onnx')
    calibrated = calibrator(weak.module, kind, batches, stack)
    int8_plan(weak, sources, path, calibrated)
    assert calibrated.left == []
    assert {tuple(names) for names in calibrated.asked} == {('x',)}
    file = tmp_path / 'trt.cache'
    file.write_bytes(calibrated.cache)
    with capsys.disabled():
        print(f'\n{calibrated.cache.decode()}')  # noqa: T201  to be looked at
    found = read_scales(file)

    # every tensor of the network is there, by its ONNX name
    model = onnx.load(str(path))
    tensors = ['x', *(name for node in model.graph.node for name in node.output)]
    assert {'x', 'y', 'z'} <= set(found)
    assert set(tensors) <= set(found), (tensors, list(found))
    assert [name for name in found if name not in tensors and not name.startswith('(Unn')] == []
    assert all(0.0 < scale < 1e3 for scale in found.values())

    # the scale of the input by definition; of the others by what ONNX Runtime computes
    largest = values_of(model, tensors, batches)
    assert largest['x'] == 3.0
    if algorithm == 'MinMaxCalibration':
        for name in tensors:
            assert found[name] * LARGEST == pytest.approx(largest[name], rel=2e-3), name
        assert np.float32(found['x']) == np.float32(3.0 / LARGEST)
    else:  # entropy may clip; TensorRT's histogram reaches beyond the largest value: 4, 11 % seen
        for name in tensors:
            assert 0.1 * largest[name] < found[name] * LARGEST < 1.5 * largest[name], name
        assert found['x'] * LARGEST > 0.9 * 3.0

    # the same text again, so TensorRT reads what we write as its own
    again = calibration_cache(found, weak.version, algorithm)
    assert again.encode() == calibrated.cache


def values_of(model: Any, tensors: list[str], batches: list[Any]) -> dict[str, float]:
    """{tensor: largest absolute value over the batches}, by ONNX Runtime."""
    from airside_perception.deploy.outputs import OnnxRunner

    runner = OnnxRunner(model, tensors[1:], optimise=False)
    largest = dict.fromkeys(tensors, 0.0)
    for batch in batches:
        for name, value in {'x': batch, **runner.run({'x': batch})}.items():
            largest[name] = max(largest[name], float(np.abs(value).max()))
    return largest


def test_our_text_is_read_as_a_calibration(
    weak: TensorRT,
    sources: tuple[str, ...],
    batches: list[Any],
    stack: ExitStack,
    tmp_path: Path,
) -> None:
    """By our text TensorRT builds what it built by its own calibration: the same numbers."""
    path = saved(convolutions(1), tmp_path / 'net.onnx')
    calibrated = calibrator(weak.module, 'IInt8EntropyCalibrator2', batches, stack)
    first = int8_plan(weak, sources, path, calibrated)
    (tmp_path / 'trt.cache').write_bytes(calibrated.cache)
    text = calibration_cache(read_scales(tmp_path / 'trt.cache'), weak.version)
    second = int8_plan(weak, sources, path, cache_reader(weak.module, text.encode()))
    results = [ran(weak, plan, batches[0]) for plan in (first, second)]
    for name, value in results[0].items():
        near({name: results[1][name]}, {name: value}, 4e-2)  # of 127 steps, two layers deep
    expected = answers(path, {'x': batches[0]})
    near(results[1], expected, 0.1)


def ran(tensorrt: TensorRT, data: bytes, x: Any) -> dict[str, Any]:
    """Outputs of a plan with linear fp32 inputs and outputs, on TensorRT's own calls."""
    plan = load_plan(tensorrt, 'int8', data, -1, False)
    shapes = {'x': x.shape, 'y': (1, 8, 32, 48), 'z': (1, 5, 16, 24)}
    results = {}
    with ExitStack() as held:
        stream = held.enter_context(Stream())
        host = {n: held.enter_context(PinnedArray(s, np.float32)) for n, s in shapes.items()}
        there = {n: held.enter_context(DeviceArray(s, np.float32)) for n, s in shapes.items()}
        host['x'].array[...] = x
        copy_to_device(there['x'].address, host['x'].address, there['x'].nbytes, stream)
        for name, array in there.items():
            assert plan.context.set_tensor_address(name, array.address)
        assert plan.context.execute_async_v3(stream.handle)
        for name in ('y', 'z'):
            copy_to_host(host[name].address, there[name].address, there[name].nbytes, stream)
        stream.synchronize()
        results = {name: host[name].array.copy() for name in ('y', 'z')}
        plan.free()
    return results
