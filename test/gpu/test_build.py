"""Engines built on the GPU, and what they answer beside ONNX Runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from airside_perception.card import find_card
from airside_perception.engine import open_engine
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings, read_profile
from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.qdq import scales
from airside_perception.engine.quantize import quantize
from airside_perception.errors import EngineError

SOURCES = ('edge_mask_convolutions', 'jit_convolutions')  # no cuBLAS and cuDNN needed


@pytest.fixture
def tensorrt() -> TensorRT:
    try:
        return load_tensorrt('tensorrt', build=True)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def build(tensorrt: TensorRT, tmp_path: Path) -> Any:
    """Function: builds a network with these settings; engine and manifest."""
    known = tuple(name for name in SOURCES if name.upper() in tensorrt.can.tactic_sources)

    def make(network: Path, **settings: Any) -> tuple[Path, Manifest]:
        level = {'opt_level': 1} if tensorrt.can.optimization_level else {}
        said: dict[str, Any] = {'tactic_sources': known, 'timing_cache': '', **level}
        wanted = BuildSettings(**{**said, **settings})
        out = tmp_path / wanted.file_name(network)
        return out, build_engine(network, out, wanted)

    return make


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two convolutions, a residual, and a deconvolution by 2: x [1, 5, 24, 32] -> y."""
    rng = np.random.default_rng(1)
    shapes = {'w1': (16, 5, 3, 3), 'b1': (16,), 'w2': (16, 16, 3, 3), 'w3': (16, 6, 2, 2)}
    weights = {name: rng.normal(0, 0.15, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node('Conv', ['x', 'w1', 'b1'], ['c1'], '/conv1', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c1'], ['r1'], '/relu1'),
        helper.make_node('Conv', ['r1', 'w2'], ['c2'], '/conv2', pads=[1, 1, 1, 1]),
        helper.make_node('Add', ['c2', 'r1'], ['s'], '/add'),
        helper.make_node('Relu', ['s'], ['r2'], '/relu2'),
        helper.make_node('ConvTranspose', ['r2', 'w3'], ['y'], '/up', strides=[2, 2]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        'g',
        [value('x', TensorProto.FLOAT, [1, 5, 24, 32])],
        [value('y', TensorProto.FLOAT, [1, 6, 48, 64])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / 'network.onnx'))
    return tmp_path / 'network.onnx'


def feeds_of(network: Path, count: int = 1) -> list[dict[str, Any]]:
    value = onnx.load(str(network)).graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(2)
    scale = 255 if value.name == 'images' else 1
    return [{value.name: rng.random(shape, np.float32) * scale} for _ in range(count)]


def expected_of(network: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    with open_engine(network) as engine:
        return engine.infer(feeds)


def answers(engine_path: Path, feeds: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the engine says, its inputs in its own dtype, as float32."""
    with open_engine(engine_path, **more) as engine:
        kinds = {spec.name: spec.dtype for spec in engine.inputs}
        found = engine.infer({name: x.astype(kinds[name]) for name, x in feeds.items()})
    return {name: value.astype(np.float32) for name, value in found.items()}


def models(network: Path, tiny_models: Any, folder: Path) -> list[Path]:
    return [network, tiny_models.tiny_lidar_model(folder), tiny_models.tiny_camera_model(folder)]


def near(found: dict[str, Any], expected: dict[str, Any], share: float) -> None:
    """Within a share of the largest value of each output."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert_allclose(found[name], value, atol=share * max(1.0, np.abs(value).max()))


@pytest.mark.parametrize(('precision', 'share'), [('fp32', 1e-4), ('fp16', 5e-3)])
def test_floats(
    build: Any, network: Path, tiny_models: Any, tmp_path: Path, precision: str, share: float
) -> None:
    for path in models(network, tiny_models, tmp_path):
        feeds = feeds_of(path)[0]
        engine, _ = build(path, precision=precision)
        near(answers(engine, feeds), expected_of(path, feeds), share)


def test_fp16_inputs_with_the_channels_last(build: Any, network: Path) -> None:
    feeds = feeds_of(network)[0]
    engine, manifest = build(network, io_formats={'x': 'hwc8'}, io_precision='fp16')
    assert [dict(item) for item in manifest.inputs] == [
        {'name': 'x', 'dtype': 'float16', 'shape': [1, 5, 24, 32], 'layout': 'hwc8'}
    ]
    assert (manifest.outputs[0]['dtype'], manifest.outputs[0]['layout']) == ('float16', 'linear')
    with open_engine(engine) as opened:
        tensor = opened.tensor('x')
        assert (tensor.layout, tensor.channels, tensor.dtype) == ('hwc8', 8, np.float16)
    near(answers(engine, feeds), expected_of(network, feeds), 5e-3)


def test_int8(build: Any, network: Path, tiny_models: Any, tmp_path: Path) -> None:
    """By Q/DQ nodes and by their scales: the same numbers on the way to near fp32's."""
    for path in models(network, tiny_models, tmp_path):
        feeds = feeds_of(path, 8)
        model = quantize(onnx.load(str(path)), feeds)
        with_qdq = path.with_name(f'{path.stem}_int8.onnx')
        onnx.save(model, str(with_qdq))
        expected = expected_of(path, feeds[0])
        if path != network:  # its INT8 deconvolution is not for every TensorRT
            near(answers(build(with_qdq, precision='int8')[0], feeds[0]), expected, 0.05)
        cache = path.with_suffix('.json')
        cache.write_text(str(scales(model)).replace("'", '"'))
        engine, manifest = build(path, precision='int8', calibration=cache)
        assert len(manifest.calibration_sha256) == 64
        near(answers(engine, feeds[0]), expected, 0.05)


def test_shapes_that_vary(build: Any, network: Path) -> None:
    model = onnx.load(str(network))
    for value in (*model.graph.input, *model.graph.output):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f'{value.name}{axis}'
    onnx.save(model, str(network))
    profiles = (
        read_profile('x:1x5x8x8:1x5x16x16:1x5x16x16'),
        read_profile('x:1x5x24x32:1x5x24x32:1x5x32x32'),
    )
    engine, manifest = build(network, precision='fp32', profiles=profiles)
    assert manifest.inputs[0]['shape'] == [1, 5, -1, -1]
    rng = np.random.default_rng(3)
    for height, width in ((8, 8), (16, 12), (32, 32)):
        feeds = {'x': rng.random((1, 5, height, width), np.float32)}
        near(answers(engine, feeds), expected_of(network, feeds), 1e-4)


def test_manifest(build: Any, network: Path, tensorrt: TensorRT, device: Any) -> None:
    engine, manifest = build(network)
    assert (manifest.gpu, manifest.sm) == (device.name, device.sm)
    assert manifest.cuda == device.driver_version
    assert manifest.tensorrt == tensorrt.version_text
    assert manifest.onnx == 'network.onnx'
    assert manifest.dla_core == -1
    assert manifest.dla_layer_pct is None
    with open_engine(engine) as opened:
        assert opened.info.precision == 'fp16'
    model = onnx.load(str(network))
    model.producer_name = 'another'
    onnx.save(model, str(network))
    with pytest.raises(EngineError, match='has changed since it was built'):
        open_engine(engine)


def test_the_card_of_an_engine(build: Any, tiny_models: Any, tmp_path: Path) -> None:
    engine, _ = build(tiny_models.tiny_camera_model(tmp_path))
    assert find_card(engine).name == 'tiny_camera'


def test_version_compatible(build: Any, network: Path, tensorrt: TensorRT) -> None:
    if not tensorrt.can.version_compatible:
        pytest.skip(f'{tensorrt} has no version-compatible engines')
    engine, manifest = build(network, version_compatible=True)
    assert manifest.host_code
    with pytest.raises(EngineError, match='allow_host_code'):
        open_engine(engine)
    feeds = feeds_of(network)[0]
    near(answers(engine, feeds, allow_host_code=True), expected_of(network, feeds), 5e-3)


def test_timings_are_kept(build: Any, network: Path, tmp_path: Path, capsys: Any) -> None:
    cache = tmp_path / 'timings.cache'
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        _, manifest = build(network, timing_cache=cache)
        seconds.append(time.monotonic() - started)
        assert not [note for note in manifest.notes if 'timings' in note]
    assert cache.stat().st_size > 100
    with capsys.disabled():
        print(f'\nbuild {seconds[0]:.1f} s, with its timings again {seconds[1]:.1f} s')  # noqa: T201  a figure


def test_a_dla_that_is_not_there(build: Any, network: Path, tensorrt: TensorRT) -> None:
    from airside_perception.engine.trt_log import logger

    if tensorrt.module.Builder(logger(tensorrt)).num_DLA_cores:
        pytest.skip('there is a DLA core')
    with pytest.raises(EngineError, match='finds no DLA core on this machine'):
        build(network, device='dla0')
