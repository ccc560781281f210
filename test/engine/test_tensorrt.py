"""TensorRT engines on fakes that have the names of each version's bindings, and no GPU."""

from __future__ import annotations

import gc
import hashlib
import itertools
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from airside_perception.engine import Engine, TensorSpec, open_engine, require
from airside_perception.engine.capabilities import choose
from airside_perception.engine.manifest import Manifest
from airside_perception.engine.plan import load_plan
from airside_perception.engine.trt_log import collect, logger
from airside_perception.errors import DeviceError, EngineError

X = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
FULL = 'full_10_3'


@pytest.fixture
def write(tmp_path):
    """Function: an engine file with a manifest that belongs to the fake machine."""

    def put(data: bytes, module, **changes) -> str:
        path = tmp_path / 'net.engine'
        path.write_bytes(data)
        kind = module.surface['package']
        values = {
            'onnx': 'net.onnx', 'onnx_sha256': '', 'tensorrt': module.__version__,
            'engine_sha256': hashlib.sha256(data).hexdigest(),
            'flavor': 'rtx' if 'rtx' in kind else 'full', 'cuda': '', 'gpu': 'Fake GPU',
            'sm': 'sm_90', 'precision': 'fp16',
            'version_compatible': 'lean' in kind or 'dispatch' in kind,
        }  # fmt: skip
        Manifest(**{**values, **changes}).write(path)
        return path

    return put


@pytest.fixture
def dynamic(fakes):
    """A plan with x [-1, 3, 2, 4], batch 1 to 2 (best 1) and 3 to 8 (best 4)."""
    ranges = [[[n, 3, 2, 4] for n in bounds] for bounds in ((1, 1, 2), (3, 4, 8))]
    x = fakes.tensor('x', 'INPUT', [-1, 3, 2, 4], profiles=ranges)
    return fakes.plan(x, fakes.tensor('y', 'OUTPUT', [-1, 3, 2, 4]), profiles=2)


def opened(cuda) -> int:
    gc.collect()
    return cuda.open


def test_every_flavor_and_version(fakes, install, write, cuda):
    for name in fakes.NAMES:
        module = install(name)
        with open_engine(write(fakes.plan(), module)) as engine:
            assert engine.inputs == (TensorSpec('x', (1, 3, 2, 4), np.dtype(np.float32)),)
            assert engine.outputs[0].name == 'y'
            for _ in range(4):
                found = engine.infer({'x': X})
                assert_array_equal(found['y'], 2 * X)
            assert engine.info.version == module.__version__
            assert engine.info.device_bytes > 2 * X.nbytes
            assert engine.info.notes == ()
            assert engine.capturable
        assert cuda.open == 0
        assert cuda.live_bytes() == 0


@pytest.mark.parametrize(
    ('name', 'backend'),
    [
        ('full_8_5', 'tensorrt'),
        ('rtx_1_7', 'tensorrt-rtx'),
        ('lean_10_16', 'tensorrt-lean'),
        ('dispatch_10_3', 'tensorrt-dispatch'),
    ],
)
def test_what_runs_where_is_told(fakes, install, write, name, backend):
    module = install(name)
    path = write(fakes.plan(), module)
    with open_engine(path, precision='fp16') as engine:
        assert engine.info.backend == backend
        assert engine.info.device == 'Fake GPU (sm_90)'
        assert engine.info.precision == 'fp16'
        assert engine.info.trt_version == module.__version__
        assert engine.info.manifest == f'{path}.json'
        assert engine.info.dla_layer_pct is None
        assert require(engine, 'input', 'x', (1, 3, -1, -1)).name == 'x'


@pytest.mark.parametrize(
    ('layout', 'dtype', 'channels', 'padded'),
    [
        ('HWC8', 'HALF', 3, 8),
        ('HWC8', 'HALF', 8, 8),
        ('CHW4', 'INT8', 3, 4),
        ('CHW4', 'FLOAT', 5, 8),
    ],
)
@pytest.mark.parametrize('name', ['full_8_6', 'lean_8_6'])
def test_layouts(fakes, install, write, name, layout, dtype, channels, padded):
    module = install(name)
    shape = [2, channels, 3, 4]
    x = fakes.tensor('x', 'INPUT', shape, format=layout, dtype=dtype)
    y = fakes.tensor('y', 'OUTPUT', shape, format=layout, dtype=dtype)
    z = fakes.tensor('z', 'OUTPUT', shape)
    with open_engine(write(fakes.plan(x, y, z), module)) as engine:
        value = np.random.default_rng(0).integers(-30, 30, shape)
        value = value.astype(engine.inputs[0].dtype)
        for _ in range(3):
            found = engine.infer({'x': value})
        assert_array_equal(found['y'], 2 * value)
        assert_array_equal(found['z'], 2 * value.astype(np.float32))
        tensor = engine.tensor('x')
        assert tensor.layout == layout.lower()
        assert tensor.channels == padded
        assert tensor.nbytes == 2 * padded * 3 * 4 * value.dtype.itemsize
        assert engine.tensor('z').channels == channels


def test_a_graph_from_the_second_run_on(fakes, install, write, cuda):
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        engine.infer({'x': X})  # warmed up: recorded at once
        enqueued = module.enqueued
        for factor in (1, 2, 3):
            assert_array_equal(engine.infer({'x': factor * X})['y'], 2 * factor * X)
        assert module.enqueued == enqueued
        assert (cuda.captures, cuda.launches) == (1, 4)


def test_results_belong_to_the_caller(fakes, install, write):
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        first = engine.infer({'x': X})['y']
        engine.infer({'x': 5 * X})
        assert_array_equal(first, 2 * X)


def test_dynamic_shapes(install, write, cuda, dynamic):
    module = install('full_8_5')
    with open_engine(write(dynamic, module)) as engine:
        assert engine.inputs[0].shape == (-1, 3, 2, 4)
        assert [run for run, _ in itertools.groupby(module.ran)] == [
            (1, (4, 3, 2, 4)),
            (0, (1, 3, 2, 4)),
        ]
        address = engine.tensor('x').address
        for batch in (1, 1, 2, 2, 8, 8, 3, 3, 2, 1, 1):
            x = np.random.default_rng(batch).normal(size=(batch, 3, 2, 4)).astype(np.float32)
            assert_array_equal(engine.infer({'x': x})['y'], 2 * x)
            assert module.ran[-1] == (int(batch > 2), x.shape)
            assert engine.tensor('y').shape == x.shape
            assert engine.tensor('y').nbytes == x.nbytes
        assert engine.tensor('x').address == address
        assert cuda.captures == 5  # the first after every change of shape runs without
        with pytest.raises(EngineError, match=r"'x' is \[9, 3, 2, 4\], its profiles allow") as e:
            engine.infer({'x': np.zeros((9, 3, 2, 4), np.float32)})
        assert '[1, 3, 2, 4] to [2, 3, 2, 4], [3, 3, 2, 4] to [8, 3, 2, 4]' in str(e.value)
        engine.set_shapes({'x': (7, 3, 2, 4)})
        assert engine.tensor('y').shape == (7, 3, 2, 4)
        with pytest.raises(EngineError, match='shapes of all inputs are needed: x'):
            engine.set_shapes({})
    assert cuda.live_bytes() == 0


def test_two_inputs_need_one_profile(fakes, install, write):
    module = install(FULL)
    x = fakes.tensor('x', 'INPUT', [-1], profiles=[[[1], [1], [2]], [[3], [3], [4]]])
    k = fakes.tensor('k', 'INPUT', [-1], profiles=[[[5], [5], [5]], [[6], [6], [6]]])
    data = fakes.plan(x, k, fakes.tensor('y', 'OUTPUT', [-1]), profiles=2)
    with open_engine(write(data, module)) as engine:
        engine.set_shapes({'x': (4,), 'k': (6,)})
        with pytest.raises(EngineError, match='no profile has all of these shapes together'):
            engine.set_shapes({'x': (1,), 'k': (6,)})
        assert (
            engine.infer({'x': np.ones(2, np.float32), 'k': np.ones(5, np.float32)})['y'][1] == 2
        )


def test_without_a_graph_where_it_cannot_be_recorded(fakes, install, write, cuda):
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        cuda.refuse_capture = 'cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: x'
        for _ in range(3):
            assert_array_equal(engine.infer({'x': X})['y'], 2 * X)
        assert (cuda.captures, cuda.launches) == (1, 0)
        assert not engine.capturable
        assert engine.info.notes == (f'runs without a CUDA graph: {cuda.refuse_capture}',)


def test_a_context_that_forbids_recording(fakes, install, write, cuda):
    module = install('rtx_1_7')
    module.capturable = False
    with open_engine(write(fakes.plan(), module)) as engine:
        for _ in range(3):
            assert_array_equal(engine.infer({'x': X})['y'], 2 * X)
        assert cuda.captures == 0
        assert not engine.capturable
        assert 'does not allow its work to be recorded' in engine.info.notes[0]


@pytest.mark.parametrize('name', ['full_8_5', FULL, 'full_11_4'])
def test_dla(fakes, install, write, cuda, name):
    module = install(name)
    module.dla_cores = 2
    path = write(fakes.plan(), module, dla_core=1, dla_layer_pct=62.5)
    with open_engine(path, dla_core=1) as engine:
        assert module.journal[0] == 'deserialize core 1'
        assert not engine.capturable
        for _ in range(3):
            assert_array_equal(engine.infer({'x': X})['y'], 2 * X)
        assert cuda.captures == 0
        assert engine.info.device == 'Fake GPU (sm_90), DLA 1'
        assert engine.info.dla_layer_pct == 62.5
    with pytest.raises(EngineError, match=r'built for DLA core 1, asked for DLA core 0.*dla0'):
        open_engine(path, dla_core=0)
    with pytest.raises(EngineError, match='built for DLA core 1, asked for the GPU'):
        open_engine(path)
    module.dla_cores = 0
    with pytest.raises(EngineError, match='DLA core 1 is asked for, this machine has 0; a cont'):
        open_engine(path, dla_core=1)
    assert opened(cuda) == 0


def test_the_manifest_is_checked_first(fakes, install, write):
    module = install(FULL)
    path = write(fakes.plan(), module, sm='sm_87', gpu='Orin')
    with pytest.raises(EngineError, match=r'built for Orin \(sm_87\).* build .*net\.onnx'):
        open_engine(path)
    assert module.journal == []
    with open_engine(path, check_manifest=False, precision='int8') as engine:
        assert engine.info.notes == ('precision int8: not checked, as the manifest is not',)
    path.write_bytes(fakes.plan(profiles=1) + b' ')
    with pytest.raises(EngineError, match='its bytes are not those that were built'):
        open_engine(path)
    path.with_name('net.engine.json').unlink()
    with pytest.raises(EngineError, match='no manifest'):
        open_engine(path)
    with open_engine(path, check_manifest=False) as engine:
        assert engine.info.precision == 'unknown'
        assert engine.info.manifest == ''


def test_host_code(fakes, install, write):
    module = install('lean_8_6')
    path = write(fakes.plan(host_code=True), module, host_code=True)
    with pytest.raises(EngineError, match='allow_host_code allows it'):
        open_engine(path)
    with open_engine(path, allow_host_code=True) as engine:
        assert_array_equal(engine.infer({'x': X})['y'], 2 * X)
    # a manifest that does not know these bytes allows nothing
    path.write_bytes(path.read_bytes() + b' ')
    with pytest.raises(EngineError, match=r'engine_host_code_allowed is false \(the plan carr'):
        open_engine(path, allow_host_code=True, check_manifest=False)
    # and one that hides the host code neither
    path = write(fakes.plan(host_code=True), module, host_code=False)
    with pytest.raises(EngineError, match='allow it with allow_host_code'):
        open_engine(path)


def test_host_code_where_there_is_no_switch(fakes, install, write):
    module = install('full_8_5')
    with open_engine(write(fakes.plan(), module), allow_host_code=True) as engine:
        assert_array_equal(engine.infer({'x': X})['y'], 2 * X)


@pytest.mark.parametrize(
    ('fault', 'said'),
    [
        (
            {'errors': ['6: The engine plan file is generated on an incompatible device, '
                        'expecting compute 8.7 got compute 9.0, please rebuild.']},
            r'The engine plan file is .* please rebuild\. \(built for another GPU\)',
        ),
        (
            {'errors': ['[a.cpp::f::1] Error Code 4: Engine deserialization failed.',
                        '2: [b.cpp::g::2] Error Code 2: OutOfMemory (no further information)']},
            r'Error Code 2: OutOfMemory .*\(out of GPU memory\)',
        ),
        (
            {'no_runtime': '[r.cpp::f::1] CUDA initialization failure with error: 35'},
            'TensorRT 10.3.0 does not start: CUDA initialization failure with error: 35',
        ),
        ({'raises': RuntimeError('broken')}, 'cannot load it: RuntimeError: broken'),
        ({'no_context': True}, r'cannot make it ready to run: .*OutOfMemory .*out of GPU memory'),
        ({'errors': ['something odd'], 'goes_on': True}, 'reports while loading: something odd'),
    ],
)  # fmt: skip
def test_what_tensorrt_refuses(fakes, install, write, cuda, fault, said):
    module = install(FULL)
    for name, value in fault.items():
        setattr(module, name, value)
    with pytest.raises(EngineError, match=said):
        open_engine(write(fakes.plan(), module))
    assert opened(cuda) == 0
    assert cuda.live_bytes() == 0


def test_bytes_that_are_no_plan(fakes, install, write):
    module = install(FULL)
    with pytest.raises(EngineError, match=r'cannot load it: Error Code 1: Serial.*not a plan of'):
        open_engine(write(b'nonsense', module))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'dtype': 'INT4'}, 'y has dtype INT4, which NumPy does not have'),
        ({'shape_io': True}, 'y is a shape, not data'),
        ({'format': 'DLA_HWC4'}, 'y: layout dla_hwc4 is not supported'),
        ({'format': 'HWC8', 'shape': [3, 4]}, 'y: layout hwc8 needs channel, row and column'),
        ({'shape': [1, 3, 2, -2]}, r'y \[1, 3, 2, -2\] depends on the data'),
    ],
)
def test_tensors_that_are_not_supported(fakes, install, write, cuda, change, said):
    module = install(FULL)
    x, y = fakes.tensor('x', 'INPUT', [1, 3, 2, 4]), fakes.tensor('y', 'OUTPUT', [1, 3, 2, 4])
    with pytest.raises(EngineError, match=said):
        open_engine(write(fakes.plan(x, {**y, **change}), module))
    assert opened(cuda) == 0


def test_an_inference_that_fails(fakes, install, write, cuda):
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        module.fails = 'Error Code 1: Cuda Runtime (an illegal memory access)'
        with pytest.raises(EngineError, match=r'inference failed: Error Code 1: Cuda Runtime \('):
            engine.infer({'x': X})
        module.fails = ''
        assert_array_equal(engine.infer({'x': X})['y'], 2 * X)
    assert opened(cuda) == 0
    module.fails = 'no reason'
    with pytest.raises(EngineError, match='inference failed: no reason'):
        open_engine(write(fakes.plan(), module))
    assert opened(cuda) == 0


def test_no_memory_anywhere(fakes, install, write, cuda):
    """Whatever allocation fails, in opening or in the first run, nothing stays behind."""
    module = install(FULL)
    path = write(fakes.plan(), module)
    size = X.nbytes
    for whole in range(4):
        cuda.capacity = whole * size + size // 2
        with pytest.raises(DeviceError, match='OUT_OF_MEMORY'), open_engine(path) as engine:
            engine.infer({'x': X})
        assert opened(cuda) == 0
        assert cuda.live_bytes() == 0
    cuda.capacity = 4 * size
    with open_engine(path) as engine:
        assert_array_equal(engine.infer({'x': X})['y'], 2 * X)


def test_a_failed_first_run_can_be_repeated(fakes, install, write, cuda):
    module = install(FULL)
    cuda.capacity = 2 * X.nbytes
    with open_engine(write(fakes.plan(), module)) as engine:
        with pytest.raises(DeviceError, match='OUT_OF_MEMORY'):
            engine.infer({'x': X})
        assert cuda.live_bytes() == 2 * X.nbytes
        cuda.capacity *= 2
        assert_array_equal(engine.infer({'x': X})['y'], 2 * X)


def test_freed_in_order(fakes, install, write, cuda):
    module = install(FULL)
    engine = open_engine(write(fakes.plan(), module))
    engine.infer({'x': X})
    engine.infer({'x': X})
    module.journal.clear()
    cuda.journal.clear()
    engine.close()
    engine.close()
    assert module.journal == ['free IExecutionContext', 'free ICudaEngine', 'free Runtime']
    assert cuda.journal[0] == 'close Graph'
    assert cuda.journal[-1] == 'close Stream'
    assert sorted(cuda.journal[1:-1]) == ['close DeviceArray'] * 2 + ['close PinnedArray'] * 2
    assert (cuda.open, cuda.live_bytes()) == (0, 0)


def test_used_after_close(fakes, install, write):
    module = install(FULL)
    engine = open_engine(write(fakes.plan(), module))
    stream = engine.stream
    engine.close()
    uses = (
        lambda: engine.infer({'x': X}),
        lambda: engine.tensor('x'),
        lambda: engine.enqueue(stream),
        lambda: engine.set_shapes({'x': X.shape}),
        lambda: engine.stream,
    )
    for use in uses:
        with pytest.raises(EngineError, match='the engine is closed'):
            use()


def test_closed_on_a_broken_device(fakes, install, write, cuda):
    module = install(FULL)
    engine = open_engine(write(fakes.plan(), module))
    engine.infer({'x': X})
    cuda.synchronize_error = 'cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: x'
    with pytest.raises(DeviceError, match='ILLEGAL_ADDRESS'):
        engine.infer({'x': X})
    engine.close()
    assert (cuda.open, cuda.live_bytes()) == (0, 0)


def test_many_openings_leave_nothing(fakes, install, write, cuda):
    module = install(FULL)
    path = write(fakes.plan(), module)
    for _ in range(50):
        with open_engine(path) as engine:
            engine.infer({'x': X})
        assert (cuda.open, cuda.live_bytes()) == (0, 0)
    freed = module.journal.count('free Runtime')
    assert freed == module.journal.count('free ICudaEngine') == 50


def test_from_several_threads(fakes, install, write):
    module = install(FULL)
    wrong = []
    with open_engine(write(fakes.plan(), module)) as engine:

        def work(factor):
            try:
                for _ in range(30):
                    assert_array_equal(engine.infer({'x': factor * X})['y'], 2 * factor * X)
            except (AssertionError, EngineError) as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(factor,)) for factor in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ('feeds', 'said'),
    [
        ({}, "input 'x' is missing"),
        ({'x': X, 'z': X}, "no input 'z'"),
        ({'x': X.astype(np.float64)}, "'x' is float64"),
        ({'x': X[0]}, r"'x' is float32 \[3, 2, 4\]"),
    ],
)
def test_wrong_feeds_are_named(fakes, install, write, feeds, said):
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        with pytest.raises(EngineError, match=said):
            engine.infer(feeds)
        with pytest.raises(EngineError, match="no input or output 'z'; it has x, y"):
            engine.tensor('z')


def test_recorded_by_a_detector(fakes, install, write, cuda):
    """As the device path uses it: own stream, own graph, no staging memory."""
    module = install(FULL)
    with open_engine(write(fakes.plan(), module)) as engine:
        stream = cuda.Stream()
        assert engine.capturable
        graph = cuda.Graph.capture(stream, lambda: engine.enqueue(stream))
        x, y = engine.tensor('x'), engine.tensor('y')
        cuda.at(x.address, x.nbytes).view(np.float32)[:] = X.ravel()
        graph.launch(stream)
        assert_array_equal(cuda.at(y.address, y.nbytes).view(np.float32), 2 * X.ravel())
        assert cuda.live_bytes() == 2 * X.nbytes
        graph.close()
        stream.close()


def test_warnings_become_notes(fakes, install, write):
    module = install(FULL)
    module.warnings = [f'[x.cpp::f::1] be careful {n}\nmore' for n in range(9)]
    with open_engine(write(fakes.plan(), module)) as engine:
        assert engine.info.notes == tuple(f'be careful {n}' for n in range(5))


def test_without_a_gpu_or_without_tensorrt(fakes, install, write, cuda, monkeypatch):
    module = install(FULL)
    path = write(fakes.plan(), module)
    cuda.reason = 'no NVIDIA driver'
    with pytest.raises(DeviceError, match=r'net\.engine: an engine runs on a GPU: no NVIDIA dr'):
        open_engine(path)
    path = write(fakes.plan(), module, flavor='rtx')
    with pytest.raises(EngineError, match=r'no TensorRT here.*tensorrt: runs no plans of the fam'):
        open_engine(path)


def test_messages_go_to_who_listens_in_the_thread(fakes, install):
    install(FULL)
    from airside_perception.engine.capabilities import load_tensorrt

    tensorrt = load_tensorrt()
    log = logger(tensorrt)
    assert log is logger(load_tensorrt('tensorrt'))  # TensorRT knows one logger a process
    error = tensorrt.module.ILogger.ERROR
    with collect(others=True) as mine, collect() as serving:
        log.log(error, 'a\nb')
        with collect() as inner:
            log.log(error, 'c')

        def other():
            with collect() as theirs:
                log.log(error, 'd')
            log.log(error, 'from a worker of the builder')
            assert theirs.errors == ['d']

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    log.log(error, 'nobody listens')
    assert inner.errors == ['c']
    assert mine.errors == ['a', 'c', 'from a worker of the builder']
    assert serving.errors == ['a', 'c']  # an engine in service is not to blame


def test_the_true_rtx_says_what_is_wrong(tmp_path):
    """TensorRT-RTX reads plans without a GPU as far as their headers."""
    pytest.importorskip('tensorrt_rtx_bindings')
    found = choose('tensorrt_rtx_bindings', 'rtx', True, __import__)
    trt = found.module
    builder = trt.Builder(logger(found))
    network = builder.create_network(found.creation_flags(True))
    x = network.add_input('x', trt.float32, (1, 3))
    network.mark_output(network.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0))
    config = builder.create_builder_config()
    data = bytes(builder.build_serialized_network(network, config))
    with pytest.raises(EngineError, match='not a plan of this TensorRT'):
        load_plan(found, 'net', b'1234' * 200, -1, False)
    with pytest.raises(EngineError, match='the file is cut short'):
        load_plan(found, 'net', data[: len(data) // 2], -1, False)
    with pytest.raises(EngineError, match='DLA core 0 is asked for, this machine has 0'):
        load_plan(found, 'net', data, 0, False)


def test_the_contract(fakes, install, write):
    module = install(FULL)
    engine: Engine = open_engine(write(fakes.plan(), module))
    with engine as entered:
        assert entered is engine
