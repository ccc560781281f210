"""`engine bench` and `engine profile` on a GPU.

The engines come from `python test/gpu/plans.py FOLDER`; AIRSIDE_TEST_PLANS names the folder.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from airside_perception.cuda import runtime
from airside_perception.deploy.__main__ import main
from airside_perception.deploy.bench.gpu_work import GpuWork
from airside_perception.deploy.bench.run import bench
from airside_perception.deploy.bench.settings import BenchSettings, InputSettings
from airside_perception.deploy.bench.turns import take_turns
from airside_perception.deploy.profile.run import profile
from airside_perception.engine.capabilities import family_of, load_tensorrt
from airside_perception.engine.manifest import Manifest
from airside_perception.errors import EngineError

Capture = pytest.CaptureFixture[str]
OPEN = InputSettings(allow_host_code=True)
QUICK = BenchSettings(warm_up_ms=20, duration_s=0.2)


def test_an_event_is_asked_without_waiting() -> None:
    with runtime.Stream() as stream:
        for blocking in (False, True):
            with runtime.Event(blocking=blocking) as first, runtime.Event() as second:
                first.record(stream)
                second.record(stream)
                second.synchronize()
                assert first.reached()
                assert second.reached()
                assert second.elapsed_ms(first) >= 0.0


@pytest.mark.parametrize('streams', [1, 2])
@pytest.mark.parametrize('transfers', [True, False])
@pytest.mark.parametrize('spin_wait', [True, False])
def test_lanes(
    tiny_models: ModuleType,
    tmp_path: Path,
    resources: ExitStack,
    streams: int,
    transfers: bool,
    spin_wait: bool,
) -> None:
    """A network on the host between true copies and events; it cannot be recorded."""
    pytest.importorskip('onnxruntime')
    from fake_engine import FakeEngine

    from airside_perception.cuda.queue import DeviceQueue

    network = tiny_models.tiny_camera_model(tmp_path).with_suffix('.onnx')
    engines = [
        FakeEngine(network, resources.enter_context(DeviceQueue()), {'images': 'hwc8'}, ['images'])
        for _ in range(streams)
    ]
    image = np.full((1, 3, 64, 96), 51, np.float16)
    settings = BenchSettings(
        warm_up_ms=0, duration_s=0, iterations=8, streams=streams, transfers=transfers,
        spin_wait=spin_wait, cuda_graph=True,
    )  # fmt: skip
    with GpuWork(engines, {'images': image}, settings) as work:
        assert work.notes == ('runs without a CUDA graph: its work cannot be recorded',)
        (times,) = take_turns([work], settings)
        assert engines[0].read('output')[0, 0, 4] == pytest.approx(51 / 255, abs=1e-3)
    (samples,) = times.rounds
    assert len(samples) == 8
    assert sum(engine.runs for engine in engines) == 8 + 1 + streams
    for sample in samples:
        assert 0.0 < sample.enqueue <= sample.latency
        assert sample.compute > 0.0
        assert math.isnan(sample.h2d) is math.isnan(sample.d2h) is not transfers
        assert not transfers or min(sample.h2d, sample.d2h) > 0.0


@pytest.fixture(scope='session')
def plans() -> Path:
    """Folder of engines."""
    if runtime.unavailable():
        pytest.skip(runtime.unavailable())
    folder = os.environ.get('AIRSIDE_TEST_PLANS', '')
    if not folder:
        pytest.skip('AIRSIDE_TEST_PLANS names no folder of engines (test/gpu/plans.py builds one)')
    try:
        load_tensorrt(family_of(Manifest.read(Path(folder) / 'tiny.engine').flavor))
    except EngineError as error:
        pytest.skip(str(error))
    return Path(folder)


@pytest.mark.usefixtures('resources')
@pytest.mark.parametrize('graph', [False, True])
def test_engines_take_turns(plans: Path, graph: bool) -> None:
    settings = BenchSettings(warm_up_ms=20, duration_s=0.3, turn_ms=50, cuda_graph=graph)
    names = ('fp32', 'fp16', 'hwc8')
    found = bench([plans / f'{name}.engine' for name in names], settings, OPEN)
    assert found.rounds >= 6
    for timing in found.timings:
        assert timing.cuda_graph is graph, timing.notes
        assert timing.seconds >= 0.3
        for figures in (timing.h2d, timing.compute, timing.d2h, timing.enqueue):
            assert figures is not None
            assert figures.count == timing.runs
            assert 0.0 < figures.p50 <= figures.p99 <= figures.max
        # what the host waits for contains what the GPU does
        parts = timing.h2d.mean + timing.compute.mean + timing.d2h.mean
        assert timing.latency.mean > 0.9 * parts
        assert (timing.ratio is None) == (timing is found.timings[0])


@pytest.mark.usefixtures('resources')
def test_ways_to_run(plans: Path) -> None:
    for changes in ({'transfers': False}, {'spin_wait': True}, {'streams': 3}):
        settings = BenchSettings(warm_up_ms=20, duration_s=0.2, **changes)
        (timing,) = bench([plans / 'fp16.engine'], settings, OPEN).timings
        assert timing.runs >= 10
        assert timing.streams == settings.streams
        assert (timing.h2d is not None) == settings.transfers


@pytest.mark.usefixtures('resources')
def test_optimisation_profiles(plans: Path) -> None:
    engine = plans / 'batch.engine'
    for changes, batch in (
        ({}, 1),
        ({'profile_index': 1}, 4),
        ({'shapes': {'x': (8, 3, 32, 48)}}, 8),
        ({'shapes': {'x': (2, 3, 32, 48)}, 'profile_index': 0}, 2),
    ):
        inputs = InputSettings(allow_host_code=True, **changes)
        (timing,) = bench([engine], QUICK, inputs).timings
        assert timing.inputs == (f'x: float32 [{batch}, 3, 32, 48]',)
        found = profile(engine, 3, inputs)
        assert found.inputs == timing.inputs
        assert found.sum_ms > 0.0


@pytest.mark.usefixtures('resources')
def test_sensors_and_command(plans: Path, capsys: Capture) -> None:
    words = ['--duration', '1', '--allow-host-code', '--json']
    assert main(['bench', str(plans / 'fp16.engine'), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    sensors = found['sensors']
    assert sensors['source'] in ('', 'NVML', 'tegrastats')
    if sensors['samples']:
        values = sensors['values']
        assert all(math.isfinite(value['mean']) for value in values.values())
        temperatures = [name for name in values if name.startswith('temperature_')]
        assert all(0.0 < values[name]['mean'] < 150.0 for name in temperatures)
    if 'power_w' in sensors['values']:
        assert found['timings'][0]['joules'] > 0.0


@pytest.mark.usefixtures('resources')
@pytest.mark.parametrize('name', ['fp32', 'fp16', 'hwc8', 'camera_fp16', 'lidar_hwc8'])
def test_layers(plans: Path, name: str) -> None:
    path = plans / f'{name}.engine'
    if not path.is_file():
        pytest.skip(f'{path.name} was not built')
    flavor = Manifest.read(path).flavor
    found = profile(path, 20, OPEN)
    assert len(found.layers) >= 3
    assert found.sum_ms > 0.0
    assert found.layers[0].cumulative == pytest.approx(found.layers[0].share)
    assert found.layers[-1].cumulative == pytest.approx(1.0)
    assert {layer.device for layer in found.layers} == {'gpu'}
    if not load_tensorrt(family_of(flavor)).can.inspector:
        return
    # built with detailed verbosity, the inspector knows every layer of the profiler by its name
    assert [layer.name for layer in found.layers if not layer.kind] == []
    computing = [layer for layer in found.layers if layer.category == 'compute']
    assert computing
    if name == 'fp32':
        assert {layer.precision for layer in computing} <= {'fp32', ''}
    if name in ('camera_fp16', 'lidar_hwc8'):  # in small networks fp32 may be as fast
        assert 'fp16' in {layer.precision for layer in computing}


@pytest.mark.usefixtures('resources')
def test_an_input_that_is_turned_round(plans: Path) -> None:
    """A linear fp32 input of an fp16 engine must be brought into its layout and type."""
    path = plans / 'camera_fp16.engine'
    if not path.is_file():
        pytest.skip(f'{path.name} was not built')
    found = profile(path, 20, OPEN)
    assert 0.0 < found.share('reformat') < 1.0, [layer.name for layer in found.layers]


@pytest.mark.usefixtures('resources')
def test_the_verb_profiles(plans: Path, tmp_path: Path, capsys: Capture) -> None:
    html = tmp_path / 'layers.html'
    words = ['--allow-host-code', '--html', str(html)]
    assert main(['profile', str(plans / 'fp16.engine'), *words]) == 0
    assert 'what layers do' in capsys.readouterr().out
    assert '<svg class="strip"' in html.read_text(encoding='utf-8')
