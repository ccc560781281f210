"""Engines: really built by TensorRT-RTX, and on fakes of the other versions' true surfaces."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from airside_perception.engine import build as build_module
from airside_perception.engine.build import build_engine
from airside_perception.engine.build_settings import BuildSettings, read_profile
from airside_perception.engine.capabilities import load_tensorrt
from airside_perception.engine.manifest import Manifest, manifest_path, sha256_of
from airside_perception.engine.placement import placement, read_information
from airside_perception.engine.qdq import scales
from airside_perception.engine.quantize import quantize
from airside_perception.errors import ConfigError, DeviceError, EngineError

BUILDERS = ['full_8_5', 'full_8_6', 'full_10_0', 'full_10_3', 'full_10_7', 'full_10_16',
            'full_11_0', 'full_11_4', 'rtx_1_7']  # fmt: skip
WEAK, STRONG = BUILDERS[:2], BUILDERS[2:]
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture
def conv(network: Any, tmp_path: Path) -> Path:
    """conv - relu - deconvolution by 2; input x [1, 3, 8, 8], output y."""
    rng = np.random.default_rng(1)
    weights = {
        'w': rng.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32),
        'v': rng.normal(0, 0.2, (4, 2, 2, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c'], '/conv', pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c'], ['r'], '/relu'),
        helper.make_node('ConvTranspose', ['r', 'v'], ['y'], '/up', strides=[2, 2]),
    ]
    model = network(nodes, {'x': [1, 3, 8, 8]}, {'y': [1, 2, 16, 16]}, weights)
    onnx.save(model, str(tmp_path / 'net.onnx'))
    return tmp_path / 'net.onnx'


@pytest.fixture
def dynamic(network: Any, tmp_path: Path) -> Path:
    weights = {'w': np.ones((2, 3, 1, 1), np.float32)}
    nodes = [helper.make_node('Conv', ['x', 'w'], ['y'], '/conv')]
    model = network(nodes, {'x': ['n', 3, 8, 8]}, {'y': ['n', 2, 8, 8]}, weights)
    onnx.save(model, str(tmp_path / 'dynamic.onnx'))
    return tmp_path / 'dynamic.onnx'


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    (tmp_path / 'scales.json').write_text('{"x": 0.02, "r": 0.01, "y": 0.03}')
    return tmp_path / 'scales.json'


@pytest.fixture
def fake(install: Any, builders: Any, monkeypatch: Any, tmp_path: Path) -> Any:
    """Function: makes a fake TensorRT with a builder the one that is installed."""
    monkeypatch.setenv('AIRSIDE_PERCEPTION_CACHE', str(tmp_path / 'cache'))

    def put(name: str) -> Any:
        return builders.equip(install(name))

    return put


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def kinds(model: Any) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def built(network: Path, **settings: Any) -> Manifest:
    return build_engine(network, network.with_suffix('.engine'), BuildSettings(**settings))


# --- settings ---


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'precision': 'fp8'}, "precision = 'fp8': not one of fp32, fp16, int8"),
        ({'device': 'dla2'}, 'device'),
        ({'precision': 'fp32', 'device': 'dla0'}, 'fp16 or int8 only'),
        ({'precision': 'fp32', 'io_precision': 'fp16'}, 'need precision fp16 or int8'),
        ({'precision': 'fp32', 'io_formats': {'x': 'hwc8'}}, 'need precision fp16 or int8'),
        ({'io_formats': {'x': 'nhwc'}}, "io_formats of 'x' = 'nhwc': not one of linear, hwc8"),
        ({'calibration': 'a.json'}, 'is for precision int8, not fp16'),
        ({'dla_strict': True}, 'is for device dla0 or dla1'),
        ({'workspace_mb': -1}, 'workspace_mb = -1'),
        ({'opt_level': 6}, 'opt_level = 6'),
        ({'hardware_compatible': 'all'}, 'hardware_compatible'),
        ({'profiles': ({'x': ((2,), (1,), (3,))},)}, "profile of 'x': 2, 1, 3 are not"),
        ({'profiles': ({'x': ((1,), (1, 1), (3,))},)}, "profile of 'x'"),
    ],
)
def test_settings_that_contradict_themselves(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BuildSettings(**settings)


def test_profiles_as_text() -> None:
    text = 'a:1x3:2x3:4x3,ns/b:0:1x5:1x5:1x5'
    assert read_profile(text.split(',')[0]) == {'a': ((1, 3), (2, 3), (4, 3))}
    found = read_profile(text)
    assert found['ns/b:0'] == ((1, 5), (1, 5), (1, 5))
    settings = BuildSettings(profiles=(found,))
    assert settings.options()[4:6] == ('--profile', text)
    for wrong in ('a', 'a:1x3:2x3', 'a:1x:2:3', 'a:1,5:2:3', 'a:0x3:1x3:1x3'):
        with pytest.raises(ConfigError, match='profile'):
            read_profile(wrong)


# --- TensorRT-RTX, which builds without a GPU ---


@pytest.fixture
def rtx(monkeypatch: Any) -> Any:
    pytest.importorskip('tensorrt_rtx_bindings', reason='TensorRT-RTX is not installed')
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_rtx_bindings')
    return load_tensorrt('rtx', build=True)


def quantized(path: Path, folder: Path, count: int = 1) -> Path:
    model = onnx.load(str(path))
    value = model.graph.input[0]
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(4)
    feeds = [{value.name: rng.random(shape, np.float32)} for _ in range(count)]
    onnx.save(quantize(model, feeds, correct=0), str(folder / f'{path.stem}_int8.onnx'))
    return folder / f'{path.stem}_int8.onnx'


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8', 'int8 by scales'])
@pytest.mark.parametrize(
    'name', ['apron_pointpillars', 'apron_yolox', 'tiny_lidar', 'tiny_camera']
)
def test_rtx_builds_every_network(
    rtx: Any, repository: Path, tiny_models: Any, tmp_path: Path, name: str, precision: str
) -> None:
    path = repository / 'models' / f'{name}.onnx'
    if name.startswith('tiny'):
        path = getattr(tiny_models, f'{name}_model')(tmp_path)
    more: dict[str, Any] = {}
    if precision.startswith('int8'):
        with_qdq = quantized(path, tmp_path)
        if precision == 'int8':
            path = with_qdq
        else:
            more['calibration'] = tmp_path / 'scales.json'
            more['calibration'].write_text(json.dumps(scales(onnx.load(str(with_qdq)))))
    settings = BuildSettings(precision.split()[0], **more)
    out = tmp_path / 'out' / settings.file_name(path)
    told: list[tuple[str, float]] = []
    manifest = build_engine(path, out, settings, lambda step, share: told.append((step, share)))
    assert out.stat().st_size > 1000
    assert manifest.engine_sha256 == sha256_of(out)
    assert manifest.onnx_sha256 == sha256_of(path)
    assert (out.parent / manifest.onnx).resolve() == path.resolve()
    assert (manifest.flavor, manifest.tensorrt) == ('rtx', rtx.version_text)
    assert (manifest.gpu, manifest.sm, manifest.precision) == ('', '', precision.split()[0])
    assert [item['dtype'] for item in (*manifest.inputs, *manifest.outputs)] == ['float32'] * (
        1 + len(manifest.outputs)
    )
    read = Manifest.read(out)
    assert json.loads(json.dumps(dataclasses.asdict(read))) == json.loads(
        json.dumps(dataclasses.asdict(manifest))
    )
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (told[0], told[-1]) == (('reading', 0.0), ('done', 1.0))
    assert len(shares) > 20
    assert not [path for path in out.parent.iterdir() if path.name.startswith('.')]


def test_rtx_fp16_is_half_as_large(rtx: Any, repository: Path, tmp_path: Path) -> None:
    path = repository / 'models' / 'apron_pointpillars.onnx'
    sizes = []
    for precision in ('fp32', 'fp16'):
        build_engine(path, tmp_path / precision, BuildSettings(precision))
        sizes.append((tmp_path / precision).stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]


def test_rtx_layouts_and_half_outside(rtx: Any, repository: Path, tmp_path: Path) -> None:
    path = repository / 'models' / 'apron_pointpillars.onnx'
    settings = BuildSettings(io_formats={'canvas': 'hwc8'})
    manifest = build_engine(path, tmp_path / 'a.engine', settings)
    assert manifest.inputs == (
        {'name': 'canvas', 'dtype': 'float16', 'shape': [1, 32, 480, 480], 'layout': 'hwc8'},
    )
    assert {item['dtype'] for item in manifest.outputs} == {'float32'}
    manifest = build_engine(path, tmp_path / 'a.engine', BuildSettings(io_precision='fp16'))
    ports = (*manifest.inputs, *manifest.outputs)
    assert {(item['dtype'], item['layout']) for item in ports} == {('float16', 'linear')}


def test_rtx_two_profiles(rtx: Any, dynamic: Path) -> None:
    with pytest.raises(ConfigError, match=r'shapes vary \(x \[-1, 3, 8, 8\]\)'):
        built(dynamic)
    two = (read_profile('x:1x3x8x8:1x3x8x8:1x3x8x8'), read_profile('x:2x3x8x8:4x3x8x8:8x3x8x8'))
    manifest = built(dynamic, profiles=two)
    assert manifest.inputs[0]['shape'] == [-1, 3, 8, 8]
    assert manifest.profiles[1] == {'x': ((2, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}
    for text, said in [
        ('z:1:1:1', "profile for 'z'; inputs are"),
        ('x:1x3x8:1x3x8:1x3x8', r"'x': \[1, 3, 8\] does not fit \[-1, 3, 8, 8\]"),
        ('x:1x4x8x8:1x4x8x8:1x4x8x8', 'does not fit'),
    ]:
        with pytest.raises(ConfigError, match=said):
            built(dynamic, profiles=(read_profile(text),))


def test_rtx_settings(rtx: Any, conv: Path) -> None:
    manifest = built(
        conv,
        workspace_mb=64,
        opt_level=1,
        tactic_sources=('jit_convolutions', 'edge_mask_convolutions'),
        tf32=True,
        timing_cache=conv.with_suffix('.cache'),
    )
    assert manifest.settings['workspace_mb'] == 64
    assert not conv.with_suffix('.cache').exists()  # RTX keeps no timings
    with pytest.raises(ConfigError, match=r"'cublas': TensorRT rtx .* has edge_mask_conv"):
        built(conv, tactic_sources=('cublas',))
    with pytest.raises(EngineError, match=r'did not take ampere_plus: it has .*NONE'):
        built(conv, hardware_compatible='ampere_plus')  # the setting is there and does nothing


def test_rtx_finer_layers(rtx: Any, conv: Path) -> None:
    manifest = built(conv, layer_precision={'/conv': 'fp32'})
    assert manifest.settings['layer_precision'] == {'/conv': 'fp32'}
    assert BuildSettings.of_record(manifest.settings).layer_precision == {'/conv': 'fp32'}


def test_rtx_refusals_keep_what_was_there(rtx: Any, conv: Path) -> None:
    built(conv)
    engine = conv.with_suffix('.engine')
    before = engine.read_bytes(), manifest_path(engine).read_bytes()
    with pytest.raises(EngineError, match=r'device dla0 is asked for, and .* finds no DLA core'):
        built(conv, device='dla0')
    with pytest.raises(EngineError, match=r'cannot build it: .*libnvinfer_lean'):
        built(conv, version_compatible=True)
    with pytest.raises(ConfigError, match='int8 needs scales: --calibration names'):
        built(conv, precision='int8')
    with pytest.raises(ConfigError, match="io_formats names 'z'; inputs and outputs are x, y"):
        built(conv, io_formats={'z': 'hwc8'})
    assert (engine.read_bytes(), manifest_path(engine).read_bytes()) == before


def test_rtx_operators_that_it_does_not_have(rtx: Any, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Nonesuch', ['x'], ['y'], 'odd')],
        'g',
        [value('x', FLOAT, [2])],
        [value('y', FLOAT, [2])],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / 'odd.onnx'))
    with pytest.raises(EngineError, match=r"cannot parse it: node 'odd' \(Nonesuch\): "):
        built(tmp_path / 'odd.onnx', precision='fp32')


def test_rtx_is_ended_by_its_callback(rtx: Any, conv: Path) -> None:
    class StopError(Exception):
        pass

    def stop(step: str, share: float) -> None:
        if step == 'building' and share > 0.3:
            raise StopError

    with pytest.raises(StopError):
        build_engine(conv, conv.with_suffix('.engine'), BuildSettings(), stop)
    assert not conv.with_suffix('.engine').exists()


@pytest.mark.parametrize(
    ('content', 'said'), [(None, 'no such network'), (b'text', 'not a readable'), (b'', 'no out')]
)
def test_files_that_are_no_network(tmp_path: Path, content: Any, said: str, fake: Any) -> None:
    fake('full_10_3')
    if content is not None:
        (tmp_path / 'a.onnx').write_bytes(content)
    with pytest.raises(EngineError, match=said):
        built(tmp_path / 'a.onnx')


def test_folders_that_cannot_be_written(fake: Any, conv: Path) -> None:
    fake('full_10_3')
    (conv.parent / 'file').write_text('')
    with pytest.raises(EngineError, match='cannot be written'):
        build_engine(conv, conv.parent / 'file' / 'a.engine', BuildSettings())


# --- the other versions, by their names ---


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
def test_precision_is_where_each_version_takes_it_from(
    fake: Any, conv: Path, calibration: Path, name: str, precision: str
) -> None:
    trt = fake(name)
    more = {'calibration': calibration} if precision == 'int8' else {}
    manifest = built(conv, precision=precision, **more)
    told, model = trt.told, trt.told['model']
    assert (manifest.gpu, manifest.sm, manifest.cuda) == ('Fake GPU', 'sm_90', '12.6')
    assert ('QuantizeLinear' in operators(model)) == (precision == 'int8')
    assert ('DepthToSpace' in operators(model)) == (precision == 'int8')
    if name in WEAK:
        assert told['creation'] == {'EXPLICIT_BATCH'}
        wanted = {'fp32': set(), 'fp16': {'FP16'}, 'int8': {'FP16', 'INT8'}}[precision]
        assert told.flags() == wanted
        assert HALF not in kinds(model)
    else:
        assert told['creation'] == {'STRONGLY_TYPED'}
        assert told.flags() == set()
        assert (HALF in kinds(model)) == (precision != 'fp32')
        assert (FLOAT in kinds(model)) == (precision == 'fp32')
    assert told['TF32'] is False
    assert 'cache' not in told


@pytest.mark.parametrize('name', BUILDERS)
@pytest.mark.parametrize('precision', ['fp16', 'int8'])
def test_a_layer_finer_than_the_rest(
    fake: Any, conv: Path, calibration: Path, name: str, precision: str
) -> None:
    """By constraints where types are weak, else by the types and Q/DQ of the network."""
    trt = fake(name)
    more = {'calibration': calibration} if precision == 'int8' else {}
    manifest = built(conv, precision=precision, layer_precision={'/co*': 'fp32'}, **more)
    assert manifest.options[4:6] == ('--layer-precision', '/co*:fp32')
    told, model = trt.told, trt.told['model']
    node = {n.name: n for n in model.graph.node}['/conv']
    if name in WEAK:
        assert 'OBEY_PRECISION_CONSTRAINTS' in told.flags()
        assert told['precisions'] == {'/conv': 'FLOAT'}
        assert told['output types'] == {('/conv', 0): 'FLOAT'}
    else:
        assert 'OBEY_PRECISION_CONSTRAINTS' not in told.flags()
        stored = {t.name: t.data_type for t in model.graph.initializer}
        assert stored[node.input[1]] == FLOAT
    assert made_by_dequantize(model, node.input[0]) is False
    deconvolution = next(n for n in model.graph.node if n.name in ('/up', '/up_1x1'))
    assert made_by_dequantize(model, deconvolution.input[0]) is (precision == 'int8')


def made_by_dequantize(model: Any, name: str) -> bool:
    return any(
        node.op_type == 'DequantizeLinear' and name in node.output for node in model.graph.node
    )


def test_a_deconvolution_that_is_finer_stays_one(fake: Any, conv: Path, calibration: Path) -> None:
    trt = fake('full_10_3')
    built(conv, precision='int8', calibration=calibration, layer_precision={'/up': 'fp16'})
    assert 'DepthToSpace' not in operators(trt.told['model'])
    assert 'QuantizeLinear' in operators(trt.told['model'])


def test_finer_layers_that_cannot_be(
    fake: Any, conv: Path, calibration: Path, tmp_path: Path
) -> None:
    trt = fake('full_8_6')
    with pytest.raises(ConfigError, match=r"'/cnov': no such node.*did you mean '/conv'\?"):
        built(conv, layer_precision={'/cnov': 'fp32'})
    with pytest.raises(ConfigError, match='with precision fp16 it can be fp32'):
        built(conv, layer_precision={'/conv': 'fp16'})
    with pytest.raises(ConfigError, match='with precision fp32 it can be nothing finer'):
        built(conv, precision='fp32', layer_precision={'/conv': 'fp32'})
    trt.deaf['precision'] = ''
    with pytest.raises(EngineError, match='did not take fp32 for /conv: it has None'):
        built(conv, layer_precision={'/conv': 'fp32'})
    model = quantize(onnx.load(str(conv)), [{'x': np.ones((1, 3, 8, 8), np.float32)}], correct=0)
    onnx.save(model, str(tmp_path / 'qdq.onnx'))
    with pytest.raises(ConfigError, match='has Q/DQ nodes, which say what is int8'):
        built(tmp_path / 'qdq.onnx', precision='int8', layer_precision={'/conv': 'fp16'})


@pytest.mark.parametrize('name', BUILDERS)
def test_layouts(fake: Any, conv: Path, name: str) -> None:
    trt = fake(name)
    manifest = built(conv, io_formats={'x': 'hwc8'})
    assert manifest.inputs[0] == {
        'name': 'x', 'dtype': 'float16', 'shape': [1, 3, 8, 8], 'layout': 'hwc8',
    }  # fmt: skip
    assert manifest.outputs[0]['dtype'] == 'float32'
    assert manifest.outputs[0]['layout'] == 'linear'
    assert ('FP16' in trt.told.flags()) == (name in WEAK)


def test_an_engine_that_is_not_what_was_asked_for_is_seen(fake: Any, conv: Path) -> None:
    """The layout is read back, before the build and from the engine."""
    trt = fake('full_8_6')
    trt.deaf['formats'] = 'allowed_formats: not for this type'
    with pytest.raises(
        EngineError, match=r'did not take the layout of x: it has 1 \(allowed_formats: not for'
    ):
        built(conv, io_formats={'x': 'hwc8'})


@pytest.mark.parametrize(
    ('setting', 'settings', 'said'),
    [
        ('workspace', {'workspace_mb': 16}, 'did not take workspace_mb'),
        ('tactics', {'tactic_sources': ('jit_convolutions',)}, 'did not take tactic_sources'),
        ('level', {'opt_level': 5}, 'did not take opt_level: it has 3'),
        ('core', {'device': 'dla0'}, 'did not take DLA core 0: it has -1'),
        ('device', {'device': 'dla0'}, 'did not take the DLA as device'),
    ],
)
def test_settings_that_are_only_logged(
    fake: Any, conv: Path, setting: str, settings: Any, said: str
) -> None:
    trt = fake('full_10_3')
    trt.dla_cores = 2
    trt.deaf[setting] = f'{setting} is no good'
    with pytest.raises(EngineError, match=said):
        built(conv, **settings)
    assert not conv.with_suffix('.engine').exists()


def test_settings_reach_the_builder(fake: Any, conv: Path) -> None:
    trt = fake('full_8_6')
    manifest = built(
        conv,
        workspace_mb=16,
        opt_level=2,
        tactic_sources=('jit_convolutions',),
        version_compatible=True,
        hardware_compatible='ampere_plus',
    )
    assert trt.told['workspace'] == 16 << 20
    assert trt.told['level'] == 2
    assert trt.told['tactics'] == 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)
    assert trt.told['hardware'].name == 'AMPERE_PLUS'
    assert trt.told['VERSION_COMPATIBLE'] is True
    assert manifest.version_compatible
    assert manifest.host_code
    assert manifest.hardware_compatible == 'ampere_plus'
    assert manifest.options == (
        '--precision', 'fp16', '--device', 'gpu', '--io-precision', 'fp32',
        '--workspace-mb', '16', '--opt-level', '2',
        '--hardware-compatible', 'ampere_plus', '--tactic-sources', 'jit_convolutions',
        '--version-compatible',
    )  # fmt: skip


@pytest.mark.parametrize(
    'settings',
    [{'opt_level': 2}, {'version_compatible': True}, {'hardware_compatible': 'ampere_plus'}],
)
def test_settings_that_a_version_lacks(fake: Any, conv: Path, settings: Any) -> None:
    fake('full_8_5')
    with pytest.raises(EngineError, match=r'TensorRT 8\.5\.\S+ does not have it'):
        built(conv, **settings)


def test_errors_while_it_builds(fake: Any, conv: Path) -> None:
    trt = fake('full_8_6')
    trt.build_logs = ['[a.cpp::b::1] Error Code 2: OutOfMemory (no tactic 7)']
    assert 'no tactic 7' in built(conv).notes[0]  # it took another
    trt.build_logs = ['[a.cpp::b::1] Error Code 3: API Usage Error (Parameter check failed)']
    with pytest.raises(EngineError, match=r'cannot build it: .*Parameter check failed'):
        built(conv)
    trt.build_logs, trt.build_fails = ['Could not find any implementation for node /up'], True
    with pytest.raises(EngineError, match='cannot build it: Could not find any implementation'):
        built(conv)
    trt.build_logs = []
    with pytest.raises(EngineError, match='it says not why'):
        built(conv)


def test_a_tensorrt_that_does_not_start_or_parse(fake: Any, conv: Path) -> None:
    trt = fake('full_8_6')
    trt.parse_error = 'no importer for Foo'
    with pytest.raises(EngineError, match=r"cannot parse it: node '/relu' \(Relu\): no importer"):
        built(conv)
    trt.start_errors = ['CUDA initialization failure with error: 35']
    with pytest.raises(EngineError, match='while starting: CUDA initialization failure'):
        built(conv)


def test_without_a_gpu_only_rtx_builds(fake: Any, cuda: Any, conv: Path, monkeypatch: Any) -> None:
    fake('full_10_3')
    monkeypatch.setattr(cuda, 'reason', 'no CUDA GPU: nothing there')
    with pytest.raises(DeviceError, match='builds on the GPU that the engine is for: no CUDA GPU'):
        built(conv)


# --- DLA ---


DLA = '{ForeignNode[/conv.../relu]}'
UP = {'Name': '/up', 'LayerType': 'CaskDeconvolutionV2'}


@pytest.mark.parametrize(
    ('name', 'number'),
    [('full_8_5', 8502), ('full_8_6', 8600), ('full_10_3', 100300), ('full_10_7', 100700)],
)
def test_dla_int8_is_calibrated(
    fake: Any, conv: Path, calibration: Path, name: str, number: int
) -> None:
    trt = fake(name)
    trt.dla_cores, trt.layers = 2, [{'Name': DLA, 'LayerType': 'DLA'}, UP]
    manifest = built(conv, precision='int8', device='dla1', calibration=calibration)
    told = trt.told
    assert told['cache'].splitlines()[1:] == [b'x: 3ca3d70a', b'r: 3c23d70a', b'y: 3cf5c28f']
    assert told['cache'].startswith(f'TRT-{number}-EntropyCalibration2\n'.encode())
    assert told['batch'] == (1, None)
    assert operators(told['model']) == ['Conv', 'Relu', 'ConvTranspose']
    assert told.flags() == {'FP16', 'INT8', 'GPU_FALLBACK'}
    assert 'STRONGLY_TYPED' not in told['creation']
    assert (told['device'], told['core']) == ('DLA', 1)
    assert manifest.dla_core == 1
    assert manifest.dla_layer_pct == pytest.approx(100 * 2 / 3)
    assert manifest.not_on_dla == ('/up',)
    assert manifest.calibration_sha256 == sha256_of(calibration)


def test_dla_int8_of_a_network_with_qdq(fake: Any, conv: Path, tmp_path: Path) -> None:
    """Up to 10.7 the nodes go and their scales stay; from 11 on they stay."""
    path = quantized(conv, tmp_path)
    trt = fake('full_10_7')
    trt.dla_cores, trt.layers = 1, [DLA]
    built(path, precision='int8', device='dla0')
    assert operators(trt.told['model']) == ['Conv', 'Relu', 'ConvTranspose']
    assert trt.told['cache'].splitlines()[1].startswith(b'x: ')
    trt = fake('full_11_4')
    trt.dla_cores, trt.layers = 1, [DLA]
    manifest = built(path, precision='int8', device='dla0')
    assert 'QuantizeLinear' in operators(trt.told['model'])
    assert 'cache' not in trt.told
    assert HALF in kinds(trt.told['model'])
    assert manifest.dla_layer_pct == 100.0


def test_dla_fp16_by_flags_as_long_as_there_are_any(fake: Any, conv: Path) -> None:
    for name, typed in (('full_8_6', False), ('full_10_3', False), ('full_11_4', True)):
        trt = fake(name)
        trt.dla_cores, trt.layers = 2, [DLA]
        assert built(conv, device='dla0').dla_layer_pct == 100.0
        assert ('STRONGLY_TYPED' in trt.told['creation']) == typed
        assert ('FP16' in trt.told.flags()) != typed


@pytest.mark.parametrize('name', BUILDERS)
def test_dla_that_is_not_there_is_never_a_gpu_engine(fake: Any, conv: Path, name: str) -> None:
    trt = fake(name)
    with pytest.raises(EngineError, match=r'device dla0 is asked for, .*no DLA core on this mach'):
        built(conv, device='dla0')
    assert 'creation' not in trt.told  # nothing was begun
    trt.dla_cores = 1
    with pytest.raises(EngineError, match=r'device dla1 is asked for, .* finds 1 DLA core on'):
        built(conv, device='dla1')
    trt.dla_cores, trt.layers = 1, [{'Name': '/conv + /relu', 'LayerType': 'CaskConv'}, UP]
    with pytest.raises(EngineError, match='no layer of the engine is on DLA core 0: it would be'):
        built(conv, device='dla0')
    assert not conv.with_suffix('.engine').exists()


def test_dla_strict(fake: Any, conv: Path) -> None:
    trt = fake('full_10_3')
    trt.dla_cores, trt.layers = 2, [DLA]
    assert built(conv, device='dla0', dla_strict=True).dla_layer_pct == 100.0
    assert 'GPU_FALLBACK' not in trt.told.flags()
    trt.layers = [DLA, UP]
    with pytest.raises(EngineError, match=r'66\.7 % of the layers are on DLA core 0; /up are on'):
        built(conv, device='dla0', dla_strict=True)
    trt.not_on_dla = {'/up', '/relu'}
    with pytest.raises(EngineError, match=r'2 layers cannot run on a DLA core \(/relu, /up\)'):
        built(conv, device='dla0', dla_strict=True)


def test_dla_has_one_shape(fake: Any, dynamic: Path) -> None:
    trt = fake('full_10_3')
    trt.dla_cores, trt.layers = 1, ['{ForeignNode[/conv]}']
    with pytest.raises(ConfigError, match='a DLA core has one shape only'):
        built(dynamic, device='dla0', profiles=(read_profile('x:1x3x8x8:1x3x8x8:4x3x8x8'),))
    built(dynamic, device='dla0', profiles=(read_profile('x:1x3x8x8:1x3x8x8:1x3x8x8'),))
    assert trt.told['profiles'] == [{'x': ((1, 3, 8, 8),) * 3}]


@pytest.mark.parametrize(
    ('layers', 'pct', 'left'),
    [
        ([DLA], 100.0, ()),
        (['x to nvm', DLA, 'y from nvm', 'x copy finish'], 100.0, ()),
        ([DLA, 'Reformatting CopyNode for Input Tensor 0 to /conv'], 100.0, ()),
        ([DLA, '/up'], 200 / 3, ('/up',)),
        ([DLA, {'Name': 'PWN(/relu)', 'LayerType': 'PointWiseV2'}, '/up'], 100 / 3,
         ('/relu', '/up')),
        ([DLA, {'Name': 'k', 'LayerType': 'gemm', 'Metadata': '[ONNX Layer: /up]'}], 200 / 3,
         ('/up',)),
        ([DLA, '/up/other', '/upper'], 100.0, ()),
        ([{'Name': DLA, 'LayerType': 'Myelin'}], 0.0, ('/conv', '/relu', '/up')),
        (['/conv + /relu', '/up'], 0.0, ('/conv', '/relu', '/up')),
        ([], 0.0, ('/conv', '/relu', '/up')),
    ],
)  # fmt: skip
def test_placement(layers: Any, pct: float, left: tuple[str, ...]) -> None:
    found = placement(json.dumps({'Layers': layers}), ['/conv', '/relu', '/up'])
    assert found.dla_pct == pytest.approx(pct)
    assert found.on_gpu == left


def test_an_inspector_that_writes_control_characters() -> None:
    """TensorRT 8.6 does; what a build writes down is JSON for everyone."""
    text = '{"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}'
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    found = read_information(text)
    assert found['Layers'][0]['Metadata'] == '[ONNX Layer: a]\x1e[ONNX Layer: b]'
    assert json.loads(json.dumps(found)) == found
    assert placement(text, ['a']).dla_pct == 0.0


# --- progress and timings ---


def test_progress_of_phases_within_phases(fake: Any, conv: Path) -> None:
    trt = fake('full_10_3')
    trt.shares = [
        ('phase_start', 'all', None, 4),
        ('phase_start', 'part', 'all', 2),
        ('step_complete', 'part', 0),
        ('step_complete', 'part', 1),
        ('phase_finish', 'part'),
        ('step_complete', 'all', 0),
        ('step_complete', 'all', 3),
        ('phase_finish', 'all'),
    ]
    told: list[float] = []
    build_engine(
        conv,
        conv.with_suffix('.engine'),
        BuildSettings(),
        lambda step, share: told.append(share) if step == 'building' else None,
    )
    expected = [0.0, 1 / 8, 1 / 4, 1 / 4, 1.0]
    assert [(share - 0.05) / 0.9 for share in told] == pytest.approx(expected)


def test_progress_where_tensorrt_does_not_tell(fake: Any, conv: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(build_module, 'TICK', 0.001)
    trt = fake('full_8_6')
    ticked = threading.Event()
    told: list[tuple[str, float]] = []

    def progress(step: str, share: float) -> None:
        told.append((step, share))
        if len([item for item in told if item[0] == 'building']) > 3:
            ticked.set()

    trt.during_build = lambda: ticked.wait(30)
    build_engine(conv, conv.with_suffix('.engine'), BuildSettings(), progress)
    assert ticked.is_set()
    assert {share for step, share in told if step == 'building'} == {0.05}
    assert threading.active_count() < 10

    def fails(step: str, share: float) -> None:
        if step == 'building':
            raise ValueError('enough')

    trt.during_build = None
    conv.with_suffix('.engine').unlink()
    with pytest.raises(ValueError, match='enough'):
        build_engine(conv, conv.with_suffix('.engine'), BuildSettings(), fails)
    assert not conv.with_suffix('.engine').exists()


def test_timings_are_kept_and_combined(fake: Any, conv: Path, tmp_path: Path) -> None:
    trt = fake('full_8_6')
    cache = tmp_path / 'deep' / 'a.cache'
    assert built(conv, timing_cache=cache).notes == ()
    assert trt.caches == [('create', b'')]
    assert cache.read_bytes() == b'timings'
    trt.caches.clear()
    built(conv, timing_cache=str(cache))
    # read before the build, and again to keep what others have written meanwhile
    assert trt.caches == [('create', b'timings'), ('create', b'timings'), ('combine', b'timings')]
    cache.write_bytes(b'other GPU')
    notes = built(conv, timing_cache=cache).notes
    assert 'timings of another GPU or TensorRT: not used' in notes[0]
    (tmp_path / 'file').write_text('')
    assert 'timings cannot be kept' in built(conv, timing_cache=tmp_path / 'file' / 'x').notes[0]


def test_timings_have_a_file_for_every_gpu_and_version(
    fake: Any, conv: Path, tmp_path: Path
) -> None:
    fake('full_8_6')
    built(conv)
    fake('full_10_3')
    built(conv)
    names = sorted(path.name for path in (tmp_path / 'cache' / 'timing').glob('*.cache'))
    assert len(names) == 2
    assert names[1].startswith('tensorrt_8_6_')
    assert names[1].endswith('_fake_gpu.cache')
    fake('full_11_4')
    built(conv, timing_cache='')
    assert len(list((tmp_path / 'cache' / 'timing').glob('*.cache'))) == 2


def test_the_manifest_says_how_to_build_it_again(fake: Any, conv: Path) -> None:
    fake('full_8_6')
    manifest = built(conv, io_formats={'x': 'hwc8'}, timing_cache='')
    assert manifest.onnx == 'net.onnx'
    options = ('--precision', 'fp16', '--device', 'gpu', '--io-format', 'x:hwc8',
               '--timing-cache', '')  # fmt: skip
    assert manifest.options == options
    assert MappingProxyType(dict(manifest.settings))['io_formats'] == {'x': 'hwc8'}
    assert manifest.built.endswith('+00:00')
    assert manifest.build_seconds >= 0.0
