"""`engine bench`: turns, percentiles, inputs and sensors; time is a clock that the test moves."""

from __future__ import annotations

import json
import math
import stat
import statistics
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.bench import nvml, tegrastats
from airside_perception.deploy.bench.feeds import load_data, make_feeds, resolve_shapes
from airside_perception.deploy.bench.figures import figures, ratio
from airside_perception.deploy.bench.report import describe
from airside_perception.deploy.bench.run import bench
from airside_perception.deploy.bench.sensors import Reading, Sampler, summarize
from airside_perception.deploy.bench.settings import BenchSettings, InputSettings
from airside_perception.deploy.bench.turns import MS, Sample, take_turns
from airside_perception.deploy.doctor import jetson
from airside_perception.deploy.shapes import read_shapes
from airside_perception.engine import TensorSpec
from airside_perception.errors import ConfigError, EngineError

Capture = pytest.CaptureFixture[str]


class FakeClock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def wait(self, ms: float) -> None:
        self.now += round(ms * MS)


class FakeWork:
    """A network whose inferences take as long as told, on a device that runs them in a row."""

    def __init__(self, name: str, clock: FakeClock, ms: float, log: list[str], slots: int = 1):
        self.name, self.clock, self.ms, self.log, self.slots = name, clock, ms, log, slots
        self.begun: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.free_at = 0
        self.most = 0

    def submit(self, slot: int) -> None:
        assert slot not in self.begun
        self.begun[slot] = self.clock()
        self.free_at = max(self.free_at, self.clock()) + round(self.ms * MS)
        self.ends[slot] = self.free_at
        self.most = max(self.most, len(self.begun))
        self.log.append(self.name)

    def finish(self, slot: int) -> Sample:
        self.clock.now = max(self.clock.now, self.ends.pop(slot))
        return Sample((self.clock() - self.begun.pop(slot)) / MS)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def by_turn(log: list[str]) -> list[tuple[str, int]]:
    """Runs of equal names with their lengths."""
    runs: list[tuple[str, int]] = []
    for name in log:
        last, count = runs[-1] if runs else ('', 0)
        if name == last:
            runs[-1] = (name, count + 1)
        else:
            runs.append((name, 1))
    return runs


def test_several_take_turns_in_their_order(clock: FakeClock) -> None:
    log: list[str] = []
    works = [FakeWork(name, clock, ms, log) for name, ms in (('a', 10), ('b', 25), ('c', 300))]
    settings = BenchSettings(warm_up_ms=0, duration_s=1.0, turn_ms=100, iterations=1)
    times = take_turns(works, settings, clock)
    turns = by_turn(log)
    assert turns[:3] == [('a', 1), ('b', 1), ('c', 1)]  # warm-up: one of each at least
    # 100 ms each are ten, four and one inference; c is slower than its turn. Ten rounds are 1 s.
    assert turns[3:] == [('a', 10), ('b', 4), ('c', 1)] * 10
    assert [len(one.rounds) for one in times] == [10, 10, 10]
    assert [one.busy_ns for one in times] == [1000 * MS, 1000 * MS, 3000 * MS]
    assert [one.count for one in times] == [100, 40, 10]
    assert [one.throughput for one in times] == pytest.approx([100.0, 40.0, 1000 / 300])
    assert {sample.latency for part in times[1].rounds for sample in part} == {25.0}


def test_one_alone_has_no_breaks(clock: FakeClock) -> None:
    log: list[str] = []
    work = FakeWork('a', clock, 7, log)
    (times,) = take_turns([work], BenchSettings(warm_up_ms=70, duration_s=0.7), clock)
    assert len(times.rounds) == 1
    assert times.count == 100
    assert len(log) == 110


@pytest.mark.parametrize('names', ['a', 'ab'])
def test_as_many_iterations_as_asked_for(clock: FakeClock, names: str) -> None:
    log: list[str] = []
    works = [FakeWork(name, clock, 50, log) for name in names]
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=17)
    times = take_turns(works, settings, clock)
    assert [one.count for one in times] == [17] * len(names)


def test_streams_keep_several_in_flight(clock: FakeClock) -> None:
    """A device that runs them in a row: with three in flight each waits for two others."""
    log: list[str] = []
    work = FakeWork('a', clock, 10, log, slots=3)
    settings = BenchSettings(warm_up_ms=0, duration_s=1.0)
    (times,) = take_turns([work], settings, clock)
    assert work.most == 3
    assert not work.begun  # nothing is left in flight
    assert times.count == len(log) - 1
    assert times.throughput == pytest.approx(100.0)
    latencies = [sample.latency for sample in times.rounds[0]]
    assert latencies[:3] == [10.0, 20.0, 30.0]
    assert set(latencies[2:]) == {30.0}


def test_progress_goes_from_warm_up_to_the_end(clock: FakeClock) -> None:
    told: list[tuple[str, float]] = []
    works = [FakeWork(name, clock, 10, []) for name in 'ab']
    settings = BenchSettings(warm_up_ms=20, duration_s=0.2)
    take_turns(works, settings, clock, lambda *step: told.append(step))
    assert told[0] == ('warm-up', 0.0)
    shares = [share for step, share in told if step == 'timing']
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert 0.9 < shares[-1] <= 1.0


def test_percentiles_by_sorting() -> None:
    times = np.random.default_rng(1).gamma(2.0, 3.0, 1237).tolist()
    found = figures([*times, math.nan])
    assert found is not None
    cuts = statistics.quantiles(times, n=100, method='inclusive')
    for percent, value in ((50, found.p50), (90, found.p90), (95, found.p95), (99, found.p99)):
        assert value == pytest.approx(cuts[percent - 1], rel=1e-12)
        assert value == pytest.approx(np.percentile(times, percent), rel=1e-12)
    assert (found.count, found.min, found.max) == (1237, min(times), max(times))
    assert found.mean == pytest.approx(statistics.fmean(times))
    assert found.std == pytest.approx(statistics.pstdev(times))
    assert figures([math.nan]) is None


def test_the_ratio_outlives_a_machine_that_becomes_slow() -> None:
    """Four rounds, each slower than the last for both alike: every round says twice."""
    first = [[1.0 * slow, 1.2 * slow, 5.0 * slow] for slow in (1, 2, 4, 8)]
    other = [[2.0 * slow, 2.4 * slow, 2.5 * slow] for slow in (1, 2, 4, 8)]
    found = ratio(other, first, 30.0, 60.0)
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))
    assert found.throughput == 0.5
    assert found.rounds == 4
    everything = [[time for times in part for time in times] for part in (other, first)]
    assert found.latency == statistics.median(everything[0]) / statistics.median(everything[1])


# --- what is fed ---------------------------------------------------------------------------------

SPECS = (
    TensorSpec('images', (-1, 3, 4, 6), np.dtype(np.float16)),
    TensorSpec('ids', (5,), np.dtype(np.int64)),
    TensorSpec('mask', (2, 2), np.dtype(np.bool_)),
    TensorSpec('pixels', (3,), np.dtype(np.uint8)),
)


def test_shapes() -> None:
    texts = ['images:2x3x4x6,a:b:1', 'c:7']
    assert read_shapes(texts) == {'images': (2, 3, 4, 6), 'a:b': (1,), 'c': (7,)}
    assert read_shapes([]) == {}
    for text in ('images', '1x2', ':1x2', 'images:1xA', 'a:1,a:2'):
        with pytest.raises(ConfigError, match='shape'):
            read_shapes([text])
    shapes = resolve_shapes(SPECS, {'other': (1,)})
    assert shapes == {'images': (1, 3, 4, 6), 'ids': (5,), 'mask': (2, 2), 'pixels': (3,)}
    best = {'images': (4, 3, 4, 6)}
    assert resolve_shapes(SPECS, {}, best)['images'] == (4, 3, 4, 6)
    assert resolve_shapes(SPECS, {'images': (2, 3, 4, 6)}, best)['images'] == (2, 3, 4, 6)
    with pytest.raises(ConfigError, match=r'shape \[1, 3, 4\] does not fit input images: float16'):
        resolve_shapes(SPECS, {'images': (1, 3, 4)})
    free = TensorSpec('x', (-1, 3, -1, -1), np.dtype(np.float32))
    with pytest.raises(ConfigError, match='--shape x:1x3xNxN'):
        resolve_shapes([free], {})


def test_feeds(tmp_path: Path) -> None:
    shapes = resolve_shapes(SPECS, {})
    feeds = make_feeds(SPECS, shapes, 'random', seed=3)
    for spec in SPECS:
        assert feeds[spec.name].dtype == spec.dtype
        assert feeds[spec.name].shape == shapes[spec.name]
        np.testing.assert_array_equal(
            feeds[spec.name], make_feeds(SPECS, shapes, 'random', seed=3)[spec.name]
        )
    assert len(np.unique(feeds['images'])) > 50
    assert set(feeds['ids'].tolist()) <= {0, 1, 2, 3}
    assert not any(value.any() for value in make_feeds(SPECS, shapes, 'zeros').values())

    stored = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / 'all.npz', **stored)

    def read(name: str) -> dict[str, Any]:
        data = str(tmp_path / name)
        return make_feeds(SPECS, shapes, data, load_data(InputSettings(data=data), 'net.onnx')[0])

    found = read('all.npz')
    assert [found[spec.name].dtype for spec in SPECS] == [spec.dtype for spec in SPECS]
    assert all(value.all() for value in found.values())
    assert load_data(InputSettings(data='zeros'), 'net.onnx') == (None, '')
    (tmp_path / 'bad.npz').write_bytes(b'nothing of NumPy')
    (tmp_path / 'cut.npz').write_bytes((tmp_path / 'all.npz').read_bytes()[:200])
    np.savez(tmp_path / 'less.npz', images=stored['images'])
    np.savez(tmp_path / 'other.npz', **{**stored, 'ids': np.ones(6)})
    for name, said in {
        'bad.npz': 'cannot be read: not an array file',
        'cut.npz': 'cannot be read: not an array file',
        'none.npz': 'cannot be read: No such file',
        'less.npz': "no array 'ids'; there are images",
        'other.npz': r"'ids' is \[6\], not \[5\]",
        'frames': 'expected random, zeros, a .npz file, images',
    }.items():
        with pytest.raises(ConfigError, match=said):
            read(name)


def test_real_images(camera: str, tmp_path: Path, capsys: Capture) -> None:
    """The first image of a folder, as the camera node preprocesses it for the card."""
    import cv2

    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / '0.png'), np.full((32, 48, 3), 90, np.uint8))
    data = str(tmp_path / 'images')
    loaded, _ = load_data(InputSettings(data=data), camera)
    assert loaded is not None
    assert loaded['images'].shape == (1, 3, 64, 96)
    assert set(np.unique(loaded['images'])) == {90.0}
    assert main(['bench', camera, *QUICK, '--data', data]) == 0
    assert f'images: float32 [1, 3, 64, 96], {data}' in capsys.readouterr().out
    card = (tmp_path / 'tiny_camera.yaml').rename(tmp_path / 'elsewhere.yaml')
    assert main(['bench', camera, *QUICK, '--data', data]) == 2
    assert 'need a model card' in capsys.readouterr().err
    assert main(['bench', camera, *QUICK, '--data', data, '--card', str(card)]) == 0
    (tmp_path / 'empty').mkdir()
    assert main(['bench', camera, *QUICK, '--data', str(tmp_path / 'empty')]) == 2


def test_clouds_of_a_lidar_above_the_ground(lidar: str, tmp_path: Path) -> None:
    """Height and intensity are those of the options, as in the other verbs."""
    points = np.zeros((64, 4), np.float32)
    points[:, 0], points[:, 1] = np.linspace(1.0, 5.0, 64), np.linspace(-2.0, 2.0, 64)
    points[:, 3] = 0.5
    (tmp_path / 'clouds').mkdir()
    np.save(tmp_path / 'clouds' / '0.npy', points)
    plain = InputSettings(data=str(tmp_path / 'clouds'))
    seen = [
        load_data(settings, lidar)[0]
        for settings in (plain, replace(plain, height=1000.0), replace(plain, intensity_scale=0.1))
    ]
    canvases = [item['canvas'] for item in seen if item is not None]
    assert len(canvases) == 3
    assert canvases[0].any()
    assert not canvases[1].any()  # above all that the network sees
    assert not np.array_equal(canvases[0], canvases[2])


# --- sensors -------------------------------------------------------------------------------------

ORIN_5 = (  # JetPack 5, AGX Orin, DLA 0 at work; the tail as without load: parts have no power
    '11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) '
    'CPU [90%@2201,off,100%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 115 '
    'NVDLA0_FREQ @1600 APE 174 CV0@-256C CPU@77.281C Tboard@62C SOC2@70C GPU@69.125C '
    'tj@77.281C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW '
    'NC 0mW/0mW VDDQ_VDD2_1V8AO 1091mW/1091mW NC 0mW/0mW'
)
NANO_6 = (  # JetPack 6, Orin Nano
    '10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) '
    'CPU [38%@1497,2%@729] EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] NVDEC off NVJPG off VIC off '
    'OFA off NVDLA0 35%@1164 NVDLA1 off APE 200 cpu@57.125C soc2@55.093C gpu@58.625C '
    'tj@58.312C VDD_IN 16321mW/11204mW VDD_CPU_GPU_CV 7104mW/4944mW VDD_SOC 3120mW/3659mW'
)
XAVIER_5 = (  # JetPack 5.1.2, Xavier NX
    'RAM 3168/6851MB (lfb 2x4MB) CPU [23%@1397] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 '
    'APE 150 AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C '
    'VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW'
)


def test_tegrastats_of_an_agx_orin() -> None:
    values = tegrastats.parse_line(ORIN_5).values
    rails = {name: watts for name, watts in values.items() if name.startswith('power_')}
    assert rails == {
        'power_w': pytest.approx(3.150 + 14.312 + 4.968),  # the fourth is fed by the third
        'power_vdd_gpu_soc_w': 3.15,
        'power_vdd_cpu_cv_w': 14.312,
        'power_vin_sys_5v0_w': 4.968,
        'power_vddq_vdd2_1v8ao_w': 1.091,
    }
    assert values['temperature_gpu_c'] == 69.125
    assert values['temperature_tj_c'] == 77.281
    assert 'temperature_cv0_c' not in values
    assert (values['gpu_load_pct'], values['gpu_clock_mhz']) == (14.0, 407.0)
    assert (values['memory_load_pct'], values['memory_clock_mhz']) == (1.0, 2133.0)
    assert values['dla0_clock_mhz'] == 1600.0
    assert 'dla0_load_pct' not in values
    assert values['ram_mb'] == 13983.0


def test_tegrastats_of_other_jetsons() -> None:
    values = tegrastats.parse_line(NANO_6).values
    assert (values['power_w'], values['power_vdd_cpu_gpu_cv_w']) == (16.321, 7.104)
    assert (values['gpu_load_pct'], values['gpu_clock_mhz']) == (99.0, 612.0)
    assert (values['dla0_load_pct'], values['dla0_clock_mhz']) == (35.0, 1164.0)
    assert 'dla1_clock_mhz' not in values
    assert values['temperature_gpu_c'] == 58.625
    values = tegrastats.parse_line(XAVIER_5).values
    assert (values['power_w'], values['temperature_gpu_c']) == (2.763, 45.5)
    assert tegrastats.parse_line('GR3D_FREQ 7%').values == {'gpu_load_pct': 7.0}
    assert tegrastats.parse_line('nothing that is known').values == {}


def test_power_mode() -> None:
    said = 'NVPM VERB: Current mode: NV Power Mode: MODE_15W_6CORE\n2\n'
    assert jetson.power_mode(said) == 'MODE_15W_6CORE'
    assert jetson.power_mode('NV Power Mode: MAXN\n0\n') == 'MAXN'
    assert jetson.power_mode('NVPM ERROR: no such device') == ''


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_tegrastats_as_a_program(tmp_path: Path, monkeypatch: Any) -> None:
    """Two lines come, then none: closing does not wait for a third."""
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    lines = f"echo '{ORIN_5}'\necho '{NANO_6}'\nexec sleep 600"
    program(tmp_path, 'tegrastats', f'[ "$1 $2" = "--interval 100" ] || exit 1\n{lines}')
    program(tmp_path, 'nvpmodel', "echo 'NV Power Mode: MAXN'; echo 0")
    source = tegrastats.open_source()
    assert source is not None
    seen = threading.Event()
    read = source.read

    def reading(stop: threading.Event) -> Reading | None:
        found = read(stop)
        if found is not None and 'dla0_load_pct' in found.values:
            seen.set()
        return found

    source.read = reading  # type: ignore[method-assign]  # to know when both are there
    with Sampler(source) as sampler:
        assert seen.wait(60)
    summary = sampler.summary(tegrastats.power_mode())
    assert (summary.source, summary.samples, summary.power_mode) == ('tegrastats', 2, 'MAXN')
    assert summary.values['gpu_load_pct'].mean == pytest.approx((14 + 99) / 2)
    assert summary.values['gpu_load_pct'].max == 99.0
    assert summary.values['power_vdd_in_w'].mean == 16.321  # over the readings that have it
    sampler.close()


class FakeNvml:
    """A module like pynvml, with one card that has no clocks of its memory."""

    class NVMLError(Exception):
        pass

    def __init__(self, reasons: int = 0) -> None:
        self.open = 0
        self.reasons = reasons
        self.asked: list[Any] = []

    def nvmlInit(self) -> None:  # noqa: N802  NVML's names
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f'card {index}'

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:  # noqa: N802
        if bus != b'0000:65:00.0':
            raise self.NVMLError('not found')
        return 'card at 65'

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:  # noqa: N802
        self.asked.append(device)
        return 123456

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:  # noqa: N802
        assert sensor == 0
        return 61

    def nvmlDeviceGetUtilizationRates(self, device: str) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=97, memory=12)

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:  # noqa: N802
        if kind == 2:
            raise self.NVMLError('not supported')
        return 1980

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:  # noqa: N802
        return self.reasons


@pytest.mark.parametrize(('bus', 'card'), [('', 'card 0'), ('0000:65:00.0', 'card at 65')])
def test_nvml(bus: str, card: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(nvml, 'INTERVAL_S', 0.0)
    module = FakeNvml(reasons=0x04 | 0x01)  # 1: idle, which is no fault
    source = nvml.NvmlSource(module, bus)
    found = source.read(threading.Event())
    assert found is not None
    assert dict(found.values) == {
        'power_w': 123.456, 'temperature_gpu_c': 61.0, 'gpu_load_pct': 97.0,
        'gpu_clock_mhz': 1980.0,
    }  # fmt: skip
    assert found.slowed == ('power cap',)
    assert module.asked == [card]
    stopped = threading.Event()
    stopped.set()
    assert source.read(stopped) is None
    source.close()
    source.close()
    assert module.open == 0


def test_nvml_without_the_card() -> None:
    module = FakeNvml()
    with pytest.raises(FakeNvml.NVMLError):
        nvml.NvmlSource(module, '0000:01:00.0')
    assert module.open == 0


def test_the_names_that_are_used_are_those_of_pynvml() -> None:
    pynvml = pytest.importorskip('pynvml')
    for name in (name for name in dir(FakeNvml) if name.lower().startswith('nvml')):
        assert hasattr(pynvml, name)
    assert nvml.GPU_TEMPERATURE == pynvml.NVML_TEMPERATURE_GPU
    assert (nvml.SM_CLOCK, nvml.MEMORY_CLOCK) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    named = {
        'power cap': pynvml.nvmlClocksThrottleReasonSwPowerCap,
        'hardware slowdown': pynvml.nvmlClocksThrottleReasonHwSlowdown,
        'temperature (software)': pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        'temperature (hardware)': pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        'power brake': pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    }
    assert {name: bit for bit, name in nvml.REASONS.items()} == named


def test_readings_together() -> None:
    found = summarize(
        'NVML',
        [Reading({'power_w': 10.0}, ('power cap',)), Reading({'power_w': 30.0, 'gpu_c': 5.0})],
    )
    assert found.values['power_w'] == (found.values['power_w'].__class__)(20.0, 10.0, 30.0)
    assert found.values['gpu_c'].mean == 5.0
    assert found.slowed == {'power cap': 0.5}
    with Sampler(None) as sampler:
        assert sampler.summary().samples == 0


# --- the verb ------------------------------------------------------------------------------------


@pytest.fixture
def camera(tiny_models: Any, tmp_path: Path) -> str:
    return str(tiny_models.tiny_camera_model(tmp_path).with_suffix('.onnx'))


@pytest.fixture
def lidar(tiny_models: Any, tmp_path: Path) -> str:
    return str(tiny_models.tiny_lidar_model(tmp_path).with_suffix('.onnx'))


QUICK = ['--warm-up', '0', '--duration', '0', '--iterations', '3']


def test_networks_by_onnx_runtime(camera: str, lidar: str, capsys: Capture) -> None:
    assert main(['bench', camera, lidar, camera, *QUICK, '--json', '--threads', '1']) == 0
    found = json.loads(capsys.readouterr().out)
    first, second, third = found['timings']
    assert [one['path'] for one in found['timings']] == [camera, lidar, camera]
    assert first['runs'] == second['runs'] == third['runs'] == found['rounds'] == 3
    assert first['inputs'] == ['images: float32 [1, 3, 64, 96]']
    assert first['runs_on'].startswith('onnxruntime ')
    assert first['enqueue'] is first['compute'] is first['h2d'] is first['ratio'] is None
    latency = second['latency']
    assert 0 < latency['min'] <= latency['p50'] <= latency['p99'] <= latency['max']
    assert second['ratio']['latency'] == pytest.approx(latency['p50'] / first['latency']['p50'])
    assert second['ratio']['throughput'] == pytest.approx(
        second['throughput'] / first['throughput']
    )
    assert main(['bench', camera, lidar, *QUICK]) == 0
    text = capsys.readouterr().out
    for words in ('p50       p90       p95       p99', 'x: by ', '3 rounds', '1 stream'):
        assert words in text


@pytest.mark.parametrize('streams', [1, 3])
def test_a_clock_that_the_test_moves(
    lidar: str, clock: FakeClock, streams: int, monkeypatch: Any
) -> None:
    """Each call takes 4 ms of that clock, whatever it takes here."""
    from airside_perception.engine.onnx import OnnxEngine

    infer, lock = OnnxEngine.infer, threading.Lock()

    def slow(self: OnnxEngine, feeds: Any) -> Any:
        with lock:
            clock.wait(4)
            return infer(self, feeds)

    monkeypatch.setattr(OnnxEngine, 'infer', slow)
    settings = BenchSettings(warm_up_ms=0, duration_s=0.4, streams=streams)
    found = bench([lidar], settings, clock=clock, sensors=lambda on_gpu: None)
    (timing,) = found.timings
    assert timing.streams == streams
    assert timing.latency.min >= 4.0
    assert timing.throughput == pytest.approx(250.0)
    assert 100 <= timing.runs <= 100 + streams
    if streams == 1:
        assert timing.latency.max == 4.0
        assert timing.seconds == 0.4


class Steady:
    """Sensors that say the same each time."""

    name = 'steady'

    def read(self, stop: threading.Event) -> Reading | None:
        stop.wait(0.001)
        return Reading({'power_w': 20.0, 'temperature_gpu_c': 50.0}, ('power cap',))

    def close(self) -> None:
        pass


def test_power_and_energy(lidar: str, camera: str) -> None:
    asked: list[bool] = []

    def sensors(on_gpu: bool) -> Steady:
        asked.append(on_gpu)
        return Steady()

    settings = BenchSettings(warm_up_ms=0, duration_s=0.05)
    one = bench([lidar], settings, sensors=sensors)
    assert one.sensors.values['power_w'].mean == 20.0
    assert one.timings[0].joules == pytest.approx(20.0 / one.timings[0].throughput)
    two = bench([lidar, camera], settings, sensors=sensors)
    assert [timing.joules for timing in two.timings] == [None, None]  # whose power it is
    assert asked == [False, False]
    text = describe(one)
    assert 'power (W)' in text
    assert 'temperature gpu (C)' in text
    assert 'J for one inference' in text
    assert 'clocks were lowered in 100 % of the readings: power cap' in text


def test_what_is_for_engines_only_is_said(lidar: str, capsys: Capture) -> None:
    words = ['--cuda-graph', '--spin-wait', '--no-transfers']
    assert main(['bench', lidar, *QUICK, *words]) == 0
    text = capsys.readouterr().out
    for word in words:
        assert f'note        {word[2:]}: for engines only' in text


def test_shapes_and_data_of_several(camera: str, lidar: str, tmp_path: Path) -> None:
    np.savez(tmp_path / 'x.npz', images=np.ones((1, 3, 64, 96)), canvas=np.ones((1, 4, 80, 80)))
    inputs = InputSettings({'canvas': (1, 4, 80, 80)}, data=str(tmp_path / 'x.npz'))
    settings = BenchSettings(warm_up_ms=0, duration_s=0, iterations=1)
    found = bench([camera, lidar], settings, inputs, sensors=lambda on_gpu: None)
    assert [timing.runs for timing in found.timings] == [1, 1]


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--iterations', '0'], 'iterations = 0: expected 1 or more'),
        (['--streams', '0'], 'streams = 0: expected 1 or more'),
        (['--duration', '-1'], 'duration_s = -1.0: expected 0 or more'),
        (['--duration', 'nan'], 'duration_s = nan: expected 0 or more'),
        (['--threads', '-1'], 'threads = -1: expected 0 or more'),
        (['--shape', 'images'], "--shape 'images': expected INPUT:SHAPE"),
        (['--shape', 'images:0x3'], "--shape 'images:0x3': expected INPUT:SHAPE"),
        (['--shape', 'images:?x3'], "shape of 'images': [-1, 3]: expected sizes of 1 or more"),
        (['--shape', 'pixels:1x3x64x96'], "shape of 'pixels': no such input; there are images"),
        (['--shape', 'images:1x3x64x32'], 'shape [1, 3, 64, 32] does not fit input images'),
        (['--data', 'nothing.npz'], 'nothing.npz: cannot be read: No such file or directory'),
    ],
)
def test_bad_input_is_one_line(camera: str, words: list[str], said: str, capsys: Capture) -> None:
    assert main(['bench', camera, *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count('\n') == 1
    assert out == ''


def test_no_such_network(tmp_path: Path, capsys: Capture) -> None:
    for name in ('none.onnx', 'none.engine'):
        assert main(['bench', str(tmp_path / name)]) == 2
        assert 'no such network' in capsys.readouterr().err
    (tmp_path / 'bad.onnx').write_bytes(b'no network')
    assert main(['bench', str(tmp_path / 'bad.onnx')]) == 2
    with pytest.raises(ConfigError, match='no network to time'):
        bench([])


def test_an_engine_needs_a_gpu(tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    from airside_perception.cuda import runtime

    monkeypatch.setattr(runtime, 'unavailable', lambda: 'no CUDA GPU: nothing here')
    (tmp_path / 'some.engine').write_bytes(b'a plan')
    for verb in ('bench', 'profile'):
        assert main([verb, str(tmp_path / 'some.engine')]) == 1
        err = capsys.readouterr().err
        assert 'some.engine: an engine runs on a GPU: no CUDA GPU: nothing here' in err
        assert err.count('\n') == 1


def test_a_network_that_fails_is_closed(lidar: str, monkeypatch: Any) -> None:
    from airside_perception.engine.onnx import OnnxEngine

    closed: list[str] = []
    close = OnnxEngine.close

    def noted(self: OnnxEngine) -> None:
        closed.append(self.info.path)
        close(self)

    def fails(self: OnnxEngine, feeds: Any) -> Any:
        raise EngineError('it fails')

    monkeypatch.setattr(OnnxEngine, 'close', noted)
    monkeypatch.setattr(OnnxEngine, 'infer', fails)
    for streams in (1, 2):
        with pytest.raises(EngineError, match='it fails'):
            bench([lidar], BenchSettings(streams=streams), sensors=lambda on_gpu: None)
    assert lidar in closed
