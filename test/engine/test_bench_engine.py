"""`engine bench` and `engine profile` of engines, on fakes: a GPU whose time the test moves."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from airside_perception.deploy.__main__ import main
from airside_perception.deploy.bench.gpu_work import GpuWork
from airside_perception.deploy.bench.opening import open_timed
from airside_perception.deploy.bench.run import bench
from airside_perception.deploy.bench.settings import BenchSettings, InputSettings
from airside_perception.deploy.profile.run import WAITS, profile
from airside_perception.engine.manifest import Manifest
from airside_perception.errors import ConfigError, EngineError, RefusalError

FULL = 'full_8_6'
COPY_MS, RUN_MS = 0.25, 4.0
"""Of one tensor to or from the fake GPU, and of its network."""
SOME = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=6)


@pytest.fixture
def clock(cuda):
    """The host's clock: as the GPU's, as the fake GPU works at once."""
    return lambda: round(cuda.now_ms * 1e6)


@pytest.fixture
def timed(install, cuda, monkeypatch):
    """Function: the TensorRT of a surface, whose work takes time; copies do so too."""

    def put(name: str):
        module = install(name)
        context = module.IExecutionContext
        execute = context.execute_async_v3

        def slow(self, stream_handle: int) -> bool:
            def pass_time() -> None:
                cuda.now_ms += RUN_MS

            if cuda.recording is not None:
                cuda.recording.append(pass_time)
            else:
                pass_time()
            return execute(self, stream_handle)

        context.execute_async_v3 = slow
        for way in ('copy_to_device', 'copy_to_host'):
            copy = getattr(cuda, way)

            def copied(*values, copy=copy):
                cuda.now_ms += COPY_MS
                copy(*values)

            monkeypatch.setattr(cuda, way, copied)
        return module

    return put


@pytest.fixture
def write(tmp_path):
    """Function: an engine file, with a manifest if asked for."""

    def put(data: bytes, module=None, **changes) -> str:
        path = tmp_path / 'net.engine'
        path.write_bytes(data)
        if module is not None:
            values = {
                'onnx': 'net.onnx', 'onnx_sha256': '', 'tensorrt': module.__version__,
                'engine_sha256': hashlib.sha256(data).hexdigest(), 'flavor': 'full', 'cuda': '',
                'gpu': 'Fake GPU', 'sm': 'sm_90', 'precision': 'int8',
            }  # fmt: skip
            Manifest(**{**values, **changes}).write(path)
        return str(path)

    return put


def no_sensors(on_gpu: bool) -> None:
    return None


@pytest.mark.parametrize('name', [FULL, 'full_8_5', 'full_10_3', 'full_11_4', 'lean_8_6'])
@pytest.mark.parametrize('graph', [False, True])
def test_every_part_has_its_time(fakes, timed, write, cuda, clock, name, graph):
    timed(name)
    settings = BenchSettings(warm_up_ms=0, duration_s=0.05, iterations=6, cuda_graph=graph)
    found = bench([write(fakes.plan())], settings, clock=clock, sensors=no_sensors)
    (timing,) = found.timings
    assert timing.cuda_graph is graph
    assert timing.transfers
    assert (timing.h2d.min, timing.h2d.max) == (COPY_MS, COPY_MS)
    assert (timing.d2h.min, timing.d2h.max) == (COPY_MS, COPY_MS)
    assert (timing.compute.min, timing.compute.max) == (RUN_MS, RUN_MS)
    assert timing.latency.p99 == RUN_MS + 2 * COPY_MS
    assert timing.runs == math.ceil(50 / (RUN_MS + 2 * COPY_MS))
    assert timing.throughput == pytest.approx(1000 / (RUN_MS + 2 * COPY_MS))
    assert cuda.captures == int(graph)
    assert cuda.launches == (timing.runs + 1 if graph else 0)  # one to warm up
    assert cuda.open == 0
    assert cuda.live_bytes() == 0


def test_without_transfers(fakes, timed, write, clock):
    timed(FULL)
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=5, transfers=False)
    (timing,) = bench([write(fakes.plan())], settings, clock=clock, sensors=no_sensors).timings
    assert not timing.transfers
    assert timing.h2d is None
    assert timing.d2h is None
    assert (timing.compute.p50, timing.latency.p50) == (RUN_MS, RUN_MS)


@pytest.mark.parametrize(('spin', 'said'), [(True, 'event asked'), (False, 'event waited for')])
def test_how_the_host_waits(fakes, timed, write, cuda, clock, spin, said):
    timed(FULL)
    blocking = []
    event = cuda.Event
    cuda.Event = lambda **options: blocking.append(options['blocking']) or event(**options)
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=3, spin_wait=spin)
    bench([write(fakes.plan())], settings, clock=clock, sensors=no_sensors)
    waits = [line for line in cuda.journal if line.startswith('event')]
    assert waits == [said] * 4
    assert blocking == [not spin] * 4


def test_each_stream_has_its_own_context(fakes, timed, write, cuda, clock):
    module = timed(FULL)
    path = write(fakes.plan())
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=9, streams=3)
    found = bench([path], settings, clock=clock, sensors=no_sensors)
    assert found.timings[0].runs == 9
    assert module.journal.count('deserialize core -1') == 3
    assert cuda.open == 0


def test_what_is_transferred_is_what_is_fed(fakes, timed, write, cuda, clock, tmp_path):
    timed(FULL)
    values = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    np.savez(tmp_path / 'x.npz', x=values)
    inputs = InputSettings(data=str(tmp_path / 'x.npz'))
    opened = open_timed(write(fakes.plan()), inputs)
    with GpuWork(opened.engines, opened.feeds, SOME, clock) as work:
        work.submit(0)
        work.finish(0)
        (engine,) = opened.engines
        tensor = engine.tensor('y')
        out = cuda.at(tensor.address, tensor.nbytes).view(np.float32).reshape(tensor.shape)
        np.testing.assert_array_equal(out, 2 * values)


def test_a_graph_that_cannot_be_recorded(fakes, timed, write, cuda, clock):
    timed(FULL)
    cuda.refuse_capture = 'cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED'
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=3, cuda_graph=True)
    (timing,) = bench([write(fakes.plan())], settings, clock=clock, sensors=no_sensors).timings
    assert not timing.cuda_graph
    assert any('runs without a CUDA graph: cuStreamEndCapture' in note for note in timing.notes)
    assert timing.runs == 3


def test_a_dla_engine_by_its_manifest(fakes, timed, write, clock):
    module = timed('full_8_6')
    module.dla_cores = 2
    path = write(fakes.plan(), module, dla_core=1, dla_layer_pct=90.0)
    settings = BenchSettings(warm_up_ms=0, duration_s=0.0, iterations=3, cuda_graph=True)
    (timing,) = bench([path], settings, clock=clock, sensors=no_sensors).timings
    assert 'deserialize core 1' in module.journal
    assert 'DLA 1' in timing.runs_on
    assert 'runs without a CUDA graph: its work cannot be recorded' in timing.notes
    inputs = InputSettings(dla_core=0)
    bench([path], settings, inputs, clock=clock, sensors=no_sensors)
    assert 'deserialize core 0' in module.journal
    with pytest.raises(EngineError, match='DLA core 7 is asked for, this machine has 2'):
        bench([path], settings, InputSettings(dla_core=7), clock=clock, sensors=no_sensors)


@pytest.fixture
def dynamic(fakes):
    """A plan with x [-1, 3, 2, 4], batch 1 to 4 (best 1) and 1 to 8 (best 6)."""
    ranges = [[[n, 3, 2, 4] for n in bounds] for bounds in ((1, 1, 4), (1, 6, 8))]
    x = fakes.tensor('x', 'INPUT', [-1, 3, 2, 4], profiles=ranges)
    return fakes.plan(x, fakes.tensor('y', 'OUTPUT', [-1, 3, 2, 4]), profiles=2)


@pytest.mark.parametrize(
    ('inputs', 'profile_run', 'batch'),
    [
        (InputSettings(), 0, 1),
        (InputSettings(profile_index=1), 1, 6),
        (InputSettings({'x': (3, 3, 2, 4)}), 0, 3),
        (InputSettings({'x': (3, 3, 2, 4)}, profile_index=1), 1, 3),
        (InputSettings({'x': (7, 3, 2, 4)}), 1, 7),
    ],
)
def test_profiles(timed, write, clock, dynamic, inputs, profile_run, batch):
    module = timed(FULL)
    (timing,) = bench([write(dynamic)], SOME, inputs, clock=clock, sensors=no_sensors).timings
    assert module.ran[-1] == (profile_run, (batch, 3, 2, 4))
    assert timing.inputs == (f'x: float32 [{batch}, 3, 2, 4]',)


@pytest.mark.parametrize(
    'inputs', [InputSettings({'x': (9, 3, 2, 4)}), InputSettings({'x': (7, 3, 2, 4)}, 0)]
)
def test_shapes_that_no_profile_has(timed, write, cuda, clock, dynamic, inputs):
    timed(FULL)
    with pytest.raises(ConfigError, match=r'\[[79], 3, 2, 4\]'):
        bench([write(dynamic)], SOME, inputs, clock=clock, sensors=no_sensors)
    fifth = InputSettings(profile_index=5)
    with pytest.raises(EngineError, match='no profile 5; it has 2'):
        bench([write(dynamic)], SOME, fifth, clock=clock, sensors=no_sensors)
    assert cuda.open == 0


def test_a_gpu_that_fails_leaves_nothing(fakes, timed, write, cuda, clock):
    module = timed(FULL)
    path = write(fakes.plan())
    opened = open_timed(path, InputSettings())
    module.fails = 'it burns'
    with pytest.raises(EngineError, match='it burns'):
        GpuWork(opened.engines, opened.feeds, SOME, clock)
    assert cuda.open == 0


def test_the_verb(fakes, timed, write, capsys):
    """By the command line; the host's clock is the true one, the GPU's is not."""
    timed(FULL)
    words = ['--warm-up', '0', '--duration', '0', '--iterations', '4', '--cuda-graph']
    assert main(['bench', write(fakes.plan()), *words]) == 0
    text = capsys.readouterr().out
    assert 'with transfers, CUDA graph' in text
    assert 'GPU compute     4.000     4.000' in text
    assert 'H2D             0.250' in text
    assert main(['bench', write(fakes.plan()), *words, '--no-transfers', '--json']) == 0
    (found,) = json.loads(capsys.readouterr().out)['timings']
    assert found['compute']['mean'] == RUN_MS
    assert found['d2h'] is None


def test_no_tensorrt(fakes, timed, write, monkeypatch, capsys):
    timed(FULL)
    path = write(fakes.plan())
    monkeypatch.setenv('AIRSIDE_TENSORRT', 'tensorrt_lean')  # which is not there
    for verb in ('bench', 'profile'):
        assert main([verb, path]) == 1
        assert 'no TensorRT here' in capsys.readouterr().err


# --- layers --------------------------------------------------------------------------------------

LAYERS = {'Reformatting CopyNode for Input Tensor 0 to conv': 0.5, 'conv': 3.0, 'soft': 0.5}
INFORMATION = {
    'Layers': [
        {'Name': 'Reformatting CopyNode for Input Tensor 0 to conv', 'LayerType': 'Reformat',
         'Outputs': [{'Format/Datatype': 'Channel major FP16 format where channel % 8 == 0'}]},
        {'Name': 'conv', 'LayerType': 'CaskConvolution', 'Weights': {'Type': 'Half', 'Count': 9}},
        {'Name': 'soft', 'LayerType': 'SoftMax', 'Outputs': [{'Format/Datatype': 'Float'}]},
    ]
}  # fmt: skip


@pytest.fixture
def profiled(timed):
    """Function: a TensorRT with layers, whose profiler works as TensorRT's documentation says.

    With `enqueue_emits_profile`, which is set at first, `enqueue` reports; else
    `report_to_profiler` does so, of the last run. `asks`: whether it does that at all.
    """

    def put(name: str, layers=LAYERS, information=INFORMATION, asks: bool = True):
        module = timed(name)
        context, execute = module.IExecutionContext, module.IExecutionContext.execute_async_v3
        context.profiler, context.enqueue_emits_profile = None, True

        def report(self) -> None:
            for layer, ms in layers.items():
                self.profiler.report_layer_time(layer, ms)

        def run(self, stream_handle: int) -> bool:
            done = execute(self, stream_handle)
            if self.profiler is not None and self.enqueue_emits_profile:
                report(self)
            return done

        def report_to_profiler(self) -> bool:
            if self.profiler is not None and not self.enqueue_emits_profile and asks:
                report(self)
            return asks

        context.execute_async_v3, context.report_to_profiler = run, report_to_profiler
        module.asked = []

        class Inspector:
            execution_context = None

            def get_engine_information(self, kind) -> str:
                assert kind == module.LayerInformationFormat.JSON
                module.asked.append(self.execution_context is not None)
                return json.dumps(information)

        module.ICudaEngine.create_engine_inspector = lambda self: Inspector()
        return module

    return put


@pytest.mark.parametrize(
    'name', [FULL, 'full_8_5', 'full_10_7', 'full_11_4', 'lean_8_6', 'lean_11_4']
)
@pytest.mark.parametrize('asks', [True, False])
def test_layers_of_every_version(fakes, profiled, write, cuda, name, asks):
    module = profiled(name, asks=asks)
    found = profile(write(fakes.plan()), iterations=3)
    assert {layer.name: layer.ms for layer in found.layers} == LAYERS
    assert found.layers[0].name == 'conv'
    assert found.layers[0].share == 0.75
    assert found.share('reformat') == 0.125
    assert found.run is None
    kinds = {layer.name: (layer.kind, layer.device, layer.precision) for layer in found.layers}
    if 'lean' in name:  # no inspector
        assert set(kinds.values()) == {('', 'gpu', '')}
    else:
        assert kinds == {
            'Reformatting CopyNode for Input Tensor 0 to conv': ('Reformat', 'gpu', 'fp16'),
            'conv': ('CaskConvolution', 'gpu', 'fp16'),
            'soft': ('SoftMax', 'gpu', 'fp32'),
        }
        assert module.asked == [True]
    assert cuda.open == 0


def test_the_time_of_a_dla_is_where_the_gpu_waits(fakes, profiled, write):
    layers = {'images to nvm': 0.1, '{ForeignNode[a...b]}': 0.01, 'out from nvm': 7.6}
    module = profiled(FULL, layers, {'Layers': list(layers)})
    module.dla_cores = 1
    path = write(fakes.plan(), module, dla_core=0, dla_layer_pct=100.0)
    found = profile(path, iterations=2)
    assert found.share('dla') == pytest.approx(7.6 / 7.71)
    assert WAITS in found.notes
    devices = {layer.name: layer.device for layer in found.layers}
    assert devices['{ForeignNode[a...b]}'] == 'dla'
    assert devices['images to nvm'] == 'gpu'


def test_no_layers_at_all(fakes, profiled, write, cuda, capsys):
    profiled(FULL, layers={})
    path = write(fakes.plan())
    with pytest.raises(RefusalError, match='reports no times of layers'):
        profile(path)
    assert main(['profile', path]) == 1
    assert 'profiling verbosity none' in capsys.readouterr().err
    assert cuda.open == 0


def test_an_inspector_that_says_no_json(fakes, profiled, write, cuda):
    module = profiled(FULL)
    engine = module.ICudaEngine.create_engine_inspector(None)
    type(engine).get_engine_information = lambda self, kind: 'Layer(Conv): conv'
    module.ICudaEngine.create_engine_inspector = lambda self: engine
    with pytest.raises(EngineError, match='the inspector says no JSON'):
        profile(write(fakes.plan()))
    assert cuda.open == 0


def test_the_verb_profiles(fakes, profiled, write, tmp_path, capsys):
    profiled(FULL)
    html = tmp_path / 'layers.html'
    assert main(['profile', write(fakes.plan()), '--html', str(html)]) == 0
    text = capsys.readouterr().out
    assert ' 75.0 %' in text
    assert 'CaskConvolution' in text
    assert 'fp16' in html.read_text()
