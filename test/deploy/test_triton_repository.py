"""`engine triton`: what it writes is what Triton's own protobuf takes, and what it refuses."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from airside_perception.deploy.__main__ import _parser, main
from airside_perception.deploy.triton import repository as api
from airside_perception.deploy.triton.check import CONFIG, parse, problems
from airside_perception.deploy.triton.pbtxt import Map, Symbol, text_of
from airside_perception.deploy.triton.repository import Request, make_repository
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.errors import CardError, ConfigError, EngineError, RefusalError

Capture = pytest.CaptureFixture[str]
GPU, CPU = 1, 2
"""ModelInstanceGroup.Kind of model_config.proto."""
FP16, FP32, FP64, STRING = 10, 11, 12, 13
"""DataType of model_config.proto."""


@pytest.fixture
def networks(tiny_models: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Camera and lidar, .onnx with cards."""
    return tiny_models.tiny_camera_model(tmp_path), tiny_models.tiny_lidar_model(tmp_path)


def engine_of(network: Path, name: str, core: int = -1, **changes: Any) -> Path:
    """A file with the manifest of an engine for a vehicle; its bytes are nobody's plan."""
    engine = network.with_name(name)
    engine.write_bytes(b'plan of ' + name.encode())
    model = onnx.load(str(network))

    def ports(tensors: Any) -> tuple[dict[str, Any], ...]:
        return tuple(
            {
                'name': tensor.name,
                'dtype': 'float16',
                'shape': [d.dim_value or -1 for d in tensor.type.tensor_type.shape.dim],
                'layout': 'linear',
            }
            for tensor in tensors
        )

    manifest = Manifest(
        onnx=network.name,
        onnx_sha256=sha256_of(network),
        engine_sha256=sha256_of(engine),
        tensorrt='10.3.0',
        flavor='full',
        cuda='12.6',
        gpu='Orin',
        sm='sm_87',
        precision='fp16',
        dla_core=core,
        dla_layer_pct=None if core < 0 else 97.5,
        inputs=ports(model.graph.input),
        outputs=ports(model.graph.output),
        options=('--precision', 'fp16', '--device', 'gpu' if core < 0 else f'dla{core}'),
    )
    replace(manifest, **changes).write(engine)
    return engine


def read(repository: Path) -> dict[str, Any]:
    """{model: ModelConfig} of a repository, by Triton's own protobuf."""
    pytest.importorskip('tritonclient', reason="Triton's protobuf is not installed")
    return {path.parent.name: parse(path.read_text()) for path in repository.glob(f'*/{CONFIG}')}


def dims(port: Any) -> tuple[str, int, list[int]]:
    return port.name, port.data_type, list(port.dims)


def test_networks_as_they_are(networks: tuple[Path, Path], tmp_path: Path) -> None:
    camera, lidar = networks
    out = tmp_path / 'repo'
    found = make_repository(Request(out, lidar, camera, cameras=('front', 'rear')))
    assert found.validated
    assert found.cameras == {'front': 'camera', 'rear': 'camera'}
    models = read(out)
    assert set(models) == {'camera', 'lidar', 'postprocess', 'perception'}
    net = models['camera']
    assert (net.name, net.platform, net.max_batch_size) == ('camera', 'onnxruntime_onnx', 0)
    assert [dims(port) for port in net.input] == [('images', FP32, [1, 3, 64, 96])]
    assert [dims(port) for port in net.output] == [('output', FP32, [1, 6, 7])]
    (group,) = net.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (GPU, 1, [0])
    assert not net.HasField('dynamic_batching')
    assert net.version_policy.latest.num_versions == 1
    (warm,) = net.model_warmup
    assert (warm.batch_size, list(warm.inputs)) == (1, ['images'])
    assert list(warm.inputs['images'].dims) == [1, 3, 64, 96]
    assert warm.inputs['images'].zero_data
    last = models['postprocess']
    assert (last.backend, last.platform, last.instance_group[0].kind) == ('python', '', CPU)
    assert last.parameters['FORCE_CPU_ONLY_INPUT_TENSORS'].string_value == 'yes'
    assert [dims(port) for port in last.input] == [
        ('camera_front', FP32, [1, 6, 7]),
        ('camera_rear', FP32, [1, 6, 7]),
        ('lidar_scores', FP32, [1, 4, 40, 40]),
        ('lidar_boxes', FP32, [1, 14, 40, 40]),
        ('lidar_directions', FP32, [1, 4, 40, 40]),
        ('calibration', STRING, [1]),
    ]
    whole = models['perception']
    assert whole.platform == 'ensemble'
    assert dims(whole.output[0]) == ('boxes', FP64, [-1, 7])
    steps = whole.ensemble_scheduling.step
    assert [step.model_name for step in steps] == ['camera', 'camera', 'lidar', 'postprocess']
    assert dict(steps[1].input_map) == {'images': 'image_rear'}
    assert dict(steps[1].output_map) == {'output': 'camera_rear'}
    assert (out / 'camera' / '1' / 'model.onnx').read_bytes() == camera.read_bytes()
    assert list((out / 'perception' / '1').iterdir()) == []
    assert not [path for path in out.iterdir() if path.name.startswith('.')]


def test_engines_on_both_dla_cores(networks: tuple[Path, Path], tmp_path: Path) -> None:
    camera, lidar = networks
    cores = [engine_of(camera, f'tiny_camera.fp16.dla{n}.engine', n) for n in (0, 1)]
    spare = engine_of(camera, 'tiny_camera.fp16.gpu.engine')
    pillars = engine_of(lidar, 'tiny_lidar.fp16.gpu.engine')
    out = tmp_path / 'repo'
    found = make_repository(
        Request(out, pillars, spare, *cores, cameras=('a', 'b', 'c'), prefix='v1_', link=True)
    )
    assert found.cameras == {'a': 'v1_camera_dla0', 'b': 'v1_camera_dla1', 'c': 'v1_camera_dla0'}
    models = read(out)
    for core in (0, 1):
        net = models[f'v1_camera_dla{core}']
        assert (net.platform, net.max_batch_size) == ('tensorrt_plan', 0)
        (group,) = net.instance_group
        assert group.kind == GPU
        (device,) = group.secondary_devices
        kind = device.DESCRIPTOR.fields_by_name['kind'].enum_type
        assert kind.values_by_number[device.kind].name == 'KIND_NVDLA'
        assert device.device_id == core
        assert not net.optimization.cuda.graphs
        assert not net.HasField('dynamic_batching')
        plan = out / f'v1_camera_dla{core}' / '1' / 'model.plan'
        assert plan.is_symlink()
        assert plan.resolve() == cores[core]
    net = models['v1_lidar']
    assert [port.data_type for port in net.input] == [FP16]
    assert len(net.instance_group[0].secondary_devices) == 0
    assert net.optimization.cuda.graphs
    assert 'v1_camera' in models
    said = '; '.join(found.notes)
    assert 'v1_camera is in the repository and not in the ensemble' in said
    assert '97.5 % of its layers are on the DLA' in said
    assert 'TensorRT 10.3.0 only' in said


def dynamic(network: Path) -> Path:
    """The same network with a batch that varies."""
    model = onnx.load(str(network))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = 'batch'
    for tensor in model.graph.initializer:
        if tensor.name == 'shape':
            tensor.CopyFrom(helper.make_tensor('shape', TensorProto.INT64, [3], [0, 7, 6]))
    path = network.with_name('dynamic.onnx')
    onnx.save(model, str(path))
    path.with_suffix('.yaml').write_text(network.with_suffix('.yaml').read_text())
    return path


def test_a_batch_that_varies(networks: tuple[Path, Path], tmp_path: Path) -> None:
    camera, lidar = networks
    out = tmp_path / 'repo'
    request = Request(out, lidar, dynamic(camera), cameras=('front',), on_cpu=True, most_batch=6)
    make_repository(request)
    models = read(out)
    net = models['camera']
    assert net.max_batch_size == 6
    assert [list(port.dims) for port in (*net.input, *net.output)] == [[3, 64, 96], [6, 7]]
    assert list(net.dynamic_batching.preferred_batch_size) == [4]
    assert net.dynamic_batching.max_queue_delay_microseconds > 0
    assert net.model_warmup[0].batch_size == 4
    assert list(net.model_warmup[0].inputs['images'].dims) == [3, 64, 96]
    assert net.instance_group[0].kind == CPU
    assert list(models['perception'].input[0].dims) == [1, 3, 64, 96]
    assert list(models['postprocess'].input[0].dims) == [1, 6, 7]


def test_an_engine_with_profiles(networks: tuple[Path, Path], tmp_path: Path) -> None:
    camera, lidar = networks
    shapes = [[n, 3, 64, 96] for n in (1, 2, 5)]
    engine = engine_of(dynamic(camera), 'dynamic.fp16.gpu.engine', profiles=({'images': shapes},))
    make_repository(Request(tmp_path / 'repo', lidar, engine, cameras=('front',)))
    net = read(tmp_path / 'repo')['camera']
    assert net.max_batch_size == 5
    assert list(net.dynamic_batching.preferred_batch_size) == [2]


def layouts(engine: Path, layout: str) -> None:
    manifest = Manifest.read(engine)
    ins = tuple({**item, 'layout': layout} for item in manifest.inputs)
    options = (*manifest.options, '--io-format', 'canvas:hwc8')
    replace(manifest, inputs=ins, options=options).write(engine)


def test_what_triton_could_not_serve_is_refused(
    networks: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    camera, lidar = networks
    out = tmp_path / 'repo'
    rtx = engine_of(lidar, 'rtx.engine', flavor='rtx')
    packed = engine_of(lidar, 'tiny_lidar.fp16.gpu.engine')
    layouts(packed, 'hwc8')
    other = engine_of(camera, 'tiny_camera.fp16.dla1.engine', 1)
    cases = [
        (Request(out, rtx, camera), RefusalError, 'TensorRT-RTX'),
        (Request(out, packed, camera), RefusalError, 'canvas has the layout hwc8'),
        (Request(out, lidar, other), RefusalError, 'built for DLA core 1, asked for the GPU'),
        (Request(out, lidar, camera_dla0=other), RefusalError, 'asked for DLA core 0'),
        (Request(out, lidar, camera_dla0=camera), RefusalError, 'ONNX Runtime does not run on'),
        (Request(out, camera, camera), ConfigError, 'is no LidarCard'),
        (Request(out, lidar), ConfigError, 'no camera network'),
        (Request(out, lidar, tmp_path / 'none.onnx'), EngineError, 'no such network'),
        (Request(out, lidar, camera.with_suffix('.yaml')), ConfigError, 'expected .onnx'),
        (Request(out, lidar, camera, camera_card=str(tmp_path / 'x.yaml')), CardError, 'x.yaml'),
    ]
    for request, kind, says in cases:
        with pytest.raises(kind, match=says):
            make_repository(request)
        assert not out.exists()
    assert (
        main(['triton', '--camera', str(camera), '--lidar', str(packed), '--out', str(out)]) == 1
    )
    line = capsys.readouterr().err
    words = shlex.split(line[line.index(' build ') :])
    assert '--io-format' not in words
    assert _parser(words).parse_args(words).io_precision == 'fp16'


def test_models_that_are_there_stay(
    networks: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    camera, lidar = networks
    out = tmp_path / 'repo'
    (out / 'other').mkdir(parents=True)
    (out / 'camera').mkdir()
    (out / 'camera' / 'old').write_text('old')
    words = ['triton', '--camera', str(camera), '--lidar', str(lidar), '--out', str(out)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f'engine: {out / "camera"}: is there already; --force replaces camera, lidar, '
        'postprocess, perception\n'
    )
    assert sorted(path.name for path in out.iterdir()) == ['camera', 'other']
    assert main([*words, '--force', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['validated'] in (True, False)
    assert set(found['models']) == {'camera', 'lidar', 'postprocess', 'perception'}
    assert not (out / 'camera' / 'old').exists()
    assert (out / 'other').is_dir()


def test_nothing_is_left_where_it_fails(
    networks: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    camera, lidar = networks
    out = tmp_path / 'repo'
    request = Request(out, lidar, camera, cameras=('front',))
    make_repository(request)
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}

    def full(source: Any, target: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(api.shutil, 'copyfile', full)
    with pytest.raises(ConfigError, match='No space left on device'):
        make_repository(replace(request, force=True))
    monkeypatch.undo()
    rename, count = Path.rename, []

    def interrupted(self: Path, target: Any) -> Any:
        count.append(self)
        if len(count) == 4:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_repository(replace(request, force=True))
    monkeypatch.undo()
    after = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    assert after == before


def test_text_format_is_read_back() -> None:
    pytest.importorskip('tritonclient', reason="Triton's protobuf is not installed")
    text = text_of({
        'name': 'a "quoted"\\ name\n\tä',
        'max_batch_size': 3,
        'platform': None,
        'input': [{'name': 'x', 'data_type': Symbol('TYPE_INT8'), 'dims': [-1, 4]}],
        'optimization': {'cuda': {'graphs': True, 'busy_wait_events': False}},
        'parameters': Map({'k"1': {'string_value': 'v'}, 'k2': {'string_value': ''}}),
    })  # fmt: skip
    config = parse(text)
    assert config.name == 'a "quoted"\\ name\n\tä'
    assert dims(config.input[0]) == ('x', 6, [-1, 4])
    assert config.optimization.cuda.graphs
    assert config.optimization.cuda.HasField
    assert {k: v.string_value for k, v in config.parameters.items()} == {'k"1': 'v', 'k2': ''}
    with pytest.raises(ConfigError, match='no field named "nme"'):
        parse('nme: "x"')
    with pytest.raises(ConfigError, match='has no place'):
        text_of({'x': 1.5})


def change(config: Any, *path: Any, to: Any = None) -> None:
    """Sets or, without `to`, deletes what a path of keys leads to."""
    *steps, last = path
    for step in steps:
        config = config[step]
    if to is None:
        del config[last]
    else:
        config[last] = to


STEP = ('perception', 'ensemble_scheduling', 'step')


@pytest.mark.parametrize(
    ('path', 'to', 'says'),
    [
        (('camera', 'name'), 'kamera', "its name is 'kamera'"),
        (('camera', 'output', 0, 'data_type'), 'TYPE_FP16', "'camera_front' is TYPE_FP16, taken"),
        (('lidar', 'output', 0, 'dims'), [1, 4, 40, 41], 'is [1, 4, 40, 41], taken as [1, 4, 40'),
        (('lidar', 'output', 0, 'dims'), [4, 40, 40], 'taken as'),
        ((*STEP, 0, 'model_name'), 'nobody', "there is no model 'nobody'"),
        ((*STEP, 0, 'input_map'), Map({'pictures': 'image_front'}), "has no input 'pictures'"),
        ((*STEP, 0, 'input_map'), Map({'images': 'image_back'}), 'is not made before camera'),
        ((*STEP, 0, 'output_map'), Map({'output': 'image_front'}), 'is made twice'),
        ((*STEP, 0, 'output_map'), Map({'out': 'camera_front'}), "has no output 'out'"),
        (
            (*STEP, 2, 'input_map', 'calibration'),
            None,
            "'calibration' of postprocess gets nothing",
        ),
        ((*STEP, 2, 'output_map', 'boxes'), None, "its output 'boxes' is not made"),
        (('perception', 'input', 0, 'name'), 'unused', "'unused' is used by no model"),
        (('camera', 'dynamic_batching'), {'preferred_batch_size': [3]}, 'batches of 3 are'),
        (('camera', 'model_warmup', 0, 'inputs'), Map({}), 'has not all inputs'),
        (('camera', 'input', 0, 'dims'), [1, 3, 64, 90], 'warm-up of'),
        (('camera', 'output'), [], 'it has no output'),
    ],
)
def test_inconsistencies_are_found(
    path: tuple[Any, ...], to: Any, says: str, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    camera, lidar = networks
    found = make_repository(Request(tmp_path / 'repo', lidar, camera, cameras=('front',)))
    configs: Any = dict(found.configs)
    assert problems(configs) == ()
    change(configs, *path, to=to)
    assert any(says in problem for problem in problems(configs)), problems(configs)
