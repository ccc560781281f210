"""`engine doctor`: what it says of machines, this one and others that are put together here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.doctor import jetson
from airside_perception.deploy.doctor.check import OK, PROBLEM, WARNING, Check
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.machine import describe_examination, examine
from airside_perception.deploy.doctor.needs import Needs, Use, read_needs
from airside_perception.engine.capabilities import TensorRT
from airside_perception.errors import ConfigError, DeviceError, EngineError

Capture = pytest.CaptureFixture[str]
MIB = 1024
ORIN = {
    '/etc/nv_tegra_release': '# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, '
    'EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025',
    '/proc/device-tree/model': 'NVIDIA Jetson AGX Orin Developer Kit\0',
    '/proc/meminfo': 'MemTotal:       32013580 kB\nMemFree:  900 kB\nMemAvailable:   20000000 kB\n'
    'SwapTotal:      8388604 kB\nSwapFree:       8388604 kB\n',
    '/sys/class/devfreq/17000000.gpu/min_freq': '306000000\n',
    '/sys/class/devfreq/17000000.gpu/max_freq': '1300500000\n',
    '/sys/class/thermal/thermal_zone0/temp': '51500\n',
    '/sys/class/thermal/thermal_zone1/temp': '-256000\n',
}
NVPMODEL = 'NV Power Mode: MODE_30W\n2\n'
ENGINE = Use('camera_front', '/opt/a.fp16.dla0.engine', tensorrt=True, dla_core=0)
NETWORK = Use('camera_front', '/opt/a.onnx')


def tensorrt(flavor: Any = 'full', can_build: bool = True) -> TensorRT:
    can: Any = SimpleNamespace(can_build=can_build)
    return TensorRT(None, 'tensorrt', flavor, (10, 3, 0), can, ('tensorrt: TensorRT 10.3.0',))


def raising(error: Exception) -> Any:
    def call(*arguments: Any) -> Any:
        raise error

    return call


def device() -> Any:
    return SimpleNamespace(
        name='Orin', sm='sm_87', total_memory=30 << 30, driver_version='12.6', integrated=True
    )


def host(files: dict[str, str] | None = None, **changes: Any) -> Host:
    """An Orin that can do everything, with `changes`."""
    texts = dict(ORIN if files is None else files)

    def read(path: str) -> str:
        if path not in texts:
            raise FileNotFoundError(2, 'No such file or directory')
        return texts[path]

    def run(words: Sequence[str]) -> str:
        if tuple(words) != ('nvpmodel', '-q'):
            raise FileNotFoundError(2, 'No such file or directory')
        return NVPMODEL

    values = {
        'read': read,
        'run': run,
        'glob': lambda pattern: [path for path in texts if 'thermal_zone' in path],
        'installed': lambda module: '1.2.3',
        'free_disk': lambda path: 100 << 30,
        'no_gpu': lambda: '',
        'gpu': device,
        'nvrtc': lambda: (12, 6),
        'tensorrt': tensorrt,
        'dla_cores': lambda found: 2,
        'environment': {'ROS_DISTRO': 'humble'},
        'cache': '/home/av/.cache',
    }
    return Host(**{**values, **changes})


def look(name: str, used: Host, *uses: Use) -> Check:
    found = examine(Needs('p.yaml', uses or (NETWORK,)), used)
    (check,) = [check for check in found.checks if check.name == name]
    return check


def test_an_orin_that_can_do_everything() -> None:
    found = examine(Needs('p.yaml', (ENGINE,)), host())
    assert found.good
    states = {check.name: (check.state, check.found) for check in found.checks}
    assert states['JetPack'] == (
        OK, 'NVIDIA Jetson AGX Orin Developer Kit, JetPack 6.2 (L4T 36.4.3)',
    )  # fmt: skip
    assert states['GPU'][1] == 'Orin (sm_87), 30.0 GiB (shared), driver for CUDA 12.6'
    assert states['TensorRT'] == (OK, 'TensorRT 10.3.0 (tensorrt)')
    assert states['DLA'] == (OK, '2 cores')
    assert states['power mode'] == (OK, 'MODE_30W')
    assert states['clocks'] == (WARNING, 'GPU from 306 to 1300 MHz, as load asks')
    assert states['temperature'] == (OK, '52 °C at the hottest place')
    assert states['memory'] == (OK, '19.1 of 30.5 GiB available')
    assert states['swap'] == (OK, '8.0 of 8.0 GiB free')
    assert states['ROS 2'][1].startswith('humble')
    assert '-> for steady latencies: sudo jetson_clocks' in describe_examination(found)


@pytest.mark.parametrize(
    ('line', 'version'),
    [
        ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19', '535.129.03'),
        ('NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build',
         '580.159.04'),
        ('NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release', '540.4.0'),
    ],
)  # fmt: skip
def test_the_version_of_the_driver(line: str, version: str) -> None:
    files = {**ORIN, '/proc/driver/nvidia/version': line}
    found = examine(Needs('p.yaml', (ENGINE,)), host(files))
    (gpu,) = [check for check in found.checks if check.name == 'GPU']
    assert f', driver {version} for CUDA 12.6' in gpu.found


@pytest.mark.parametrize(
    ('name', 'changes', 'says'),
    [
        ('GPU', {'no_gpu': lambda: 'no CUDA GPU: cuInit'}, 'camera_front need one'),
        ('GPU', {'gpu': raising(DeviceError('cuDeviceGet: broken'))}, 'cuDeviceGet: broken'),
        ('TensorRT', {'tensorrt': raising(EngineError('no TensorRT here (a: x; b: y): do'))},
         'camera_front need it'),
        ('NVRTC', {'nvrtc': raising(DeviceError('no library'))}, 'no library'),
        ('NVRTC', {'nvrtc': lambda: (13, 0)}, 'newer than that of the driver: 12.6'),
        ('DLA', {'dla_cores': lambda found: 0}, '0 cores (TensorRT sees none)'),
        ('DLA', {'dla_cores': raising(EngineError('no start'))}, '0 cores (no start)'),
        ('OpenCV', {'installed': raising(ImportError('libGL.so.1'))}, 'libGL.so.1'),
    ],
)  # fmt: skip
def test_what_an_engine_needs_is_a_problem(name: str, changes: Any, says: str) -> None:
    check = look(name, host(**changes), ENGINE)
    assert check.state == PROBLEM
    assert says in check.found
    assert check.fix


@pytest.mark.parametrize('name', ['GPU', 'TensorRT', 'NVRTC', 'DLA'])
def test_what_no_network_needs_is_none(name: str) -> None:
    """A machine without a GPU, for networks that run on the CPU."""
    bare = host(
        {},
        no_gpu=lambda: 'no CUDA GPU',
        gpu=raising(DeviceError('none')),
        tensorrt=raising(EngineError('no TensorRT here (a: not installed; b: old): install')),
        nvrtc=raising(DeviceError('none')),
    )
    check = look(name, bare)
    assert check.state == OK
    assert check.found.startswith('no')
    assert check.fix == ''
    assert examine(Needs('p.yaml', (NETWORK,)), bare).good


def test_order_in_which_tensorrt_was_tried_is_told() -> None:
    none = raising(EngineError('no TensorRT here (a: not installed; b: too old): install it'))
    check = look('TensorRT', host(tensorrt=none), ENGINE)
    assert check.details == ('a: not installed', 'b: too old')


def test_engines_of_the_other_family_and_missing_builder() -> None:
    other = Use('lidar_detector', '/a.engine', tensorrt=True, family='rtx')
    assert look('TensorRT', host(), other).state == PROBLEM
    builds = Use('lidar_detector', '/a.engine', tensorrt=True, builds=True)
    lean = host(tensorrt=lambda: tensorrt('lean', can_build=False))
    assert 'builds no engines' in look('TensorRT', lean, builds).found


@pytest.mark.parametrize(
    ('first', 'jetpack'),
    [
        ('# R35 (release), REVISION: 4.1, GCID: 1', '5.1'),
        ('# R36 (release), REVISION: 3.0, GCID: 1', '6.0'),
        ('# R36 (release), REVISION: 4.0, GCID: 1', '6.1'),
        ('# R36 (release), REVISION: 4.7, GCID: 1', '6.2'),
        ('# R39 (release), REVISION: 2.0, GCID: 1', '7.2'),
        ('# R39 (release), REVISION: 2.3, GCID: 1', '7.2.2 or later'),
    ],
)
def test_releases(first: str, jetpack: str) -> None:
    found = jetson.read_release(host({'/etc/nv_tegra_release': first}))
    assert found is not None
    assert found.jetpack == jetpack


def test_releases_that_lack_something() -> None:
    old = {**ORIN, '/etc/nv_tegra_release': '# R35 (release), REVISION: 4.1, GCID: 1'}
    assert look('JetPack', host(old)).state == WARNING
    without_dla = {**ORIN, '/etc/nv_tegra_release': '# R39 (release), REVISION: 2.0, GCID: 1'}
    assert look('JetPack', host(without_dla), ENGINE).state == PROBLEM
    assert look('JetPack', host(without_dla)).state == OK


def test_power_modes_are_read() -> None:
    assert jetson.power_mode('NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n') == 'MAXN'
    assert jetson.power_mode('') == ''
    listed = 'NVPM VERB: POWER_MODEL: ID=0 NAME=MAXN\nNVPM VERB: POWER_MODEL: ID=1 NAME=MODE_15W\n'
    assert jetson.power_modes(listed) == ('MAXN', 'MODE_15W')


def test_power_that_cannot_be_read() -> None:
    assert look('power mode', host(run=raising(OSError('missing')))).state == WARNING
    fixed = {**ORIN, '/sys/class/devfreq/17000000.gpu/min_freq': '1300500000'}
    assert look('clocks', host(fixed)).found == 'GPU fixed at 1300 MHz'


@pytest.mark.parametrize(
    ('available', 'state'), [(20_000_000, OK), (1_000_000, WARNING), (100_000, PROBLEM)]
)
def test_memory(available: int, state: str) -> None:
    text = f'MemTotal: 32013580 kB\nMemAvailable: {available} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB'
    used = host({**ORIN, '/proc/meminfo': text})
    assert look('memory', used).state == state
    swap = look('swap', used)
    assert swap.state == WARNING  # a Jetson without
    assert 'swapon' in swap.fix
    elsewhere = look('swap', host({'/proc/meminfo': text}))
    assert (elsewhere.state, elsewhere.fix) == (OK, '')


def test_disk_and_heat() -> None:
    builder = Use('lidar_detector', '/opt/a.engine', tensorrt=True, builds=True)
    full = examine(Needs('p', (builder,)), host(free_disk=lambda path: 1 << 20))
    states = [check.state for check in full.checks if check.name == 'disk']
    assert states == [PROBLEM, WARNING]  # models folder, cache
    hot = {**ORIN, '/sys/class/thermal/thermal_zone0/temp': '86000'}
    assert look('temperature', host(hot)).state == WARNING


def test_ros_that_is_not_sourced() -> None:
    def installed(module: str) -> str:
        if module == 'rclpy':
            raise ImportError("No module named 'rclpy'")
        return '1'

    check = look('ROS 2', host(installed=installed, environment={}))
    assert check.state == WARNING
    assert check.found.startswith('no ROS 2 is sourced')


def write_parameters(folder: Path, network: Path, **values: Any) -> Path:
    path = folder / 'p.yaml'
    own = {'engine_path': str(network), **values}
    sections = {'bev_fusion': {'cameras': ['front'], 'lidar': False}, 'camera_front': own}
    path.write_text(json.dumps({k: {'ros__parameters': v} for k, v in sections.items()}))
    return path


def test_needs_of_parameters(tiny_models: Any, tmp_path: Path) -> None:
    network = Path(tiny_models.tiny_camera_model(tmp_path))
    needs = read_needs(write_parameters(tmp_path, network))
    assert needs.onnxruntime == ('camera_front',)
    assert (needs.tensorrt, needs.dla_cores, needs.builders) == ((), (), ())
    engine = network.with_name('tiny_camera.fp16.dla1.engine')
    needs = read_needs(write_parameters(tmp_path, engine, dla_core=1, engine_build='missing'))
    assert (needs.tensorrt, needs.dla_cores) == (('camera_front',), (1,))
    assert needs.builders == ('camera_front',)
    (use,) = read_needs(write_parameters(tmp_path, engine, dla_core=1)).uses
    assert 'no such engine' in use.problem


def test_parameters_that_name_what_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    params = write_parameters(tmp_path, tmp_path / 'none.onnx')
    assert main(['doctor', '--params', str(params)]) == 1
    assert 'PROBLEM  parameters     camera_front: ' in capsys.readouterr().out
    with pytest.raises(ConfigError):
        read_needs(tmp_path / 'missing.yaml')
    assert main(['doctor', '--params', str(tmp_path / 'missing.yaml')]) == 2


def test_this_machine_with_the_shipped_parameters(capsys: Capture) -> None:
    status = main(['doctor', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert status == (0 if found['good'] else 1)
    assert found['parameters'].endswith('config/perception.yaml')
    checked = {check['name'] for check in found['checks']}
    assert {'GPU', 'TensorRT', 'DLA', 'memory', 'disk', 'ONNX Runtime', 'OpenCV'} <= checked
    assert found['nodes'][0]['node'] == 'lidar_detector'
    assert found['good']  # the shipped parameters need no GPU
