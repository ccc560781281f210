"""The runtime on a driver that keeps the rules: what is freed and refused, which error shows."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from airside_perception.cuda import runtime
from airside_perception.cuda.queue import DeviceQueue
from airside_perception.errors import DeviceError


@pytest.fixture
def device(fake):
    return runtime.use_device()


@pytest.fixture(autouse=True)
def _nothing_leaks():
    before = runtime.live_bytes()
    yield
    assert runtime.live_bytes() == before


def test_the_device_is_described(fake, device):
    assert (device.name, device.sm, device.driver_version) == ('Orin', 'sm_87', '12.6')
    assert device.integrated
    assert device.free_memory() == 1 << 20
    assert device.most_shared_memory() == 166912
    assert runtime.use_device() is device
    assert fake.calls.count('cuDevicePrimaryCtxRetain') == 1


def test_a_missing_device_is_named(fake):
    with pytest.raises(DeviceError, match='no GPU 1: the driver finds 1'):
        runtime.use_device(1)


def test_a_driver_without_gpu_is_a_reason(fake, monkeypatch):
    monkeypatch.setattr(type(fake), 'cuDeviceGetCount', lambda self: 0)
    assert 'finds none' in runtime.unavailable()
    with pytest.raises(DeviceError, match='finds none'):
        runtime.use_device()


def test_a_missing_library_is_a_reason(fake, monkeypatch):
    def missing(self, flags):
        raise RuntimeError('Failed to dlopen libcuda.so.1')

    monkeypatch.setattr(type(fake), 'cuInit', missing)
    assert 'libcuda.so.1' in runtime.unavailable()
    assert 'cuda-bindings' in runtime.unavailable()


def test_each_thread_chooses_its_device(fake, device):
    errors = []

    def work(choose: bool) -> None:
        try:
            if choose:
                runtime.use_device()
            runtime.DeviceArray(4, np.int32).close()
        except DeviceError as error:
            errors.append(str(error))

    for choose in (False, True):
        thread = threading.Thread(target=work, args=(choose,))
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert 'use_device()' in errors[0]


def test_what_one_thread_opened_another_closes(fake, device):
    opened = [runtime.DeviceArray(4, np.int32), runtime.PinnedArray(4, np.int32), runtime.Stream()]
    thread = threading.Thread(target=lambda: [item.close() for item in opened])
    thread.start()
    thread.join()
    assert not fake.memory
    assert not fake.handles


def test_errors_name_call_and_cause(fake, device):
    fake.fails['cuStreamCreate'] = _out_of_memory()
    with pytest.raises(
        DeviceError, match=r'^cuStreamCreate: CUDA_ERROR_OUT_OF_MEMORY: described 2'
    ):
        runtime.Stream()


def test_codes_that_the_bindings_do_not_know(fake, device, monkeypatch):
    def unknown(self, flags):
        raise KeyError(1234)

    monkeypatch.setattr(type(fake), 'cuStreamCreate', unknown)
    with pytest.raises(DeviceError, match=r'cuStreamCreate .*unknown to the bindings: 1234'):
        runtime.Stream()


def test_no_memory_says_how_much_there_is(fake, device):
    fake.fails['cuMemAlloc'] = _out_of_memory()
    with pytest.raises(DeviceError, match=r'4,000 bytes asked for, 1,048,576 of .* free on Orin'):
        runtime.DeviceArray(1000, np.float32)
    fake.fails.clear()
    runtime.DeviceArray(1000, np.float32).close()


def test_arrays_go_there_and_back(fake, device):
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    back = np.zeros_like(host)
    with runtime.Stream() as stream, runtime.DeviceArray((3, 4), np.float32) as array:
        assert runtime.live_bytes() == 48
        array.copy_from(host, stream)
        array.copy_to(back, stream)
        np.testing.assert_array_equal(back, host)
        part = array.part(16, (4,), np.float32)
        row = np.zeros(4, np.float32)
        part.copy_to(row, stream)
        np.testing.assert_array_equal(row, host[1])
        part.clear(stream)
        array.copy_to(back, stream)
        assert not back[1].any()
        assert back[2].all()
        with pytest.raises(DeviceError, match='bytes 40 to 56 of 48'):
            array.part(40, 4, np.float32)
        with pytest.raises(DeviceError, match='float64'):
            array.copy_from(host.astype(np.float64), stream)
        with pytest.raises(DeviceError, match='contiguous: False'):
            array.copy_to(np.zeros((4, 3), np.float32).T, stream)
    assert not fake.memory
    with pytest.raises(DeviceError, match='after it was closed'):
        array.address  # noqa: B018  the access is what fails
    array.close()
    assert fake.calls.count('cuMemFree') == 1


def test_pinned_memory_starts_as_zero_and_ends_once(fake, device):
    with runtime.PinnedArray((2, 3), np.int16) as pinned:
        assert pinned.array.shape == (2, 3)
        assert not pinned.array.any()
        assert pinned.array.ctypes.data == pinned.address
        assert runtime.live_bytes() == 12
    pinned.close()
    assert fake.calls.count('cuMemFreeHost') == 1
    with pytest.raises(DeviceError, match='after it was closed'):
        pinned.array  # noqa: B018  the access is what fails


def test_empty_arrays_are_arrays(fake, device):
    with runtime.Stream() as stream, runtime.DeviceArray((0, 4), np.float32) as array:
        array.copy_from(np.zeros((0, 4), np.float32), stream)
        array.clear(stream)
        assert array.nbytes == 0
    assert 'cuMemcpyHtoDAsync' not in fake.calls


def test_streams_and_events_end(fake, device):
    with runtime.Stream() as stream, runtime.Event() as first, runtime.Event() as last:
        first.record(stream)
        last.record(stream)
        stream.wait(last)
        last.synchronize()
        assert last.elapsed_ms(first) == last.handle - first.handle
    assert not fake.handles
    with pytest.raises(DeviceError, match='a stream is used after it was closed'):
        stream.synchronize()


def test_a_graph_repeats_its_copy_with_another_size(fake, device):
    with (
        runtime.Stream() as stream,
        runtime.PinnedArray(64, np.uint8) as pinned,
        runtime.DeviceArray(64, np.uint8) as array,
        runtime.DeviceArray(64, np.uint8) as other,
    ):

        def record() -> None:
            runtime.copy_device(other.address, array.address, 64, stream)
            runtime.copy_to_device(array.address, pinned.address, 64, stream)

        with runtime.Graph.capture(stream, record) as graph:
            assert (graph.nodes, graph.kernels, graph.copies) == (2, 0, 2)
            pinned.array[:] = 7
            graph.set_copy_bytes(16)
            graph.set_copy_bytes(16)
            assert fake.calls.count('cuGraphExecMemcpyNodeSetParams') == 1
            graph.launch(stream)
            back = np.zeros(64, np.uint8)
            array.copy_to(back, stream)
            assert (back[:16] == 7).all()
            assert (back[16:] == 255).all()
            for size in (0, 65):
                with pytest.raises(DeviceError, match='where 64 were recorded'):
                    graph.set_copy_bytes(size)
        graph.close()
        with pytest.raises(DeviceError, match='after it was closed'):
            graph.launch(stream)
    assert not fake.handles


def test_a_graph_without_copy_has_no_size(fake, device):
    with (
        runtime.Stream() as stream,
        runtime.Graph.capture(stream, lambda: None) as graph,
        pytest.raises(DeviceError, match='no copy from the host'),
    ):
        graph.set_copy_bytes(1)


@pytest.mark.parametrize('kind', ['forbidden', 'raises', 'swallowed'])
def test_a_capture_that_fails_is_over(fake, device, kind):
    with runtime.Stream() as stream:

        def record() -> None:
            if kind == 'raises':
                raise ValueError('enqueue refused')
            if kind == 'forbidden':
                stream.synchronize()
            with contextlib.suppress(DeviceError):
                stream.synchronize()

        with pytest.raises(DeviceError):
            runtime.Graph.capture(stream, record)
        assert fake.captured is None
        stream.synchronize()
        runtime.Graph.capture(stream, lambda: None).close()
    assert not fake.handles


def test_an_interrupt_within_a_capture_stays_one(fake, device):
    def record() -> None:
        raise KeyboardInterrupt

    with runtime.Stream() as stream:
        with pytest.raises(KeyboardInterrupt):
            runtime.Graph.capture(stream, record)
        assert fake.captured is None


def test_a_graph_that_cannot_be_instantiated_is_freed(fake, device):
    with runtime.Stream() as stream:
        fake.fails['cuGraphInstantiate'] = _out_of_memory()
        with pytest.raises(DeviceError, match='cuGraphInstantiate'):
            runtime.Graph.capture(stream, lambda: None)
        fake.fails.clear()
        fake.fails['cuGraphNodeGetType'] = _out_of_memory()
        with pytest.raises(DeviceError, match='cuGraphNodeGetType'):
            runtime.Graph.capture(stream, lambda: runtime.copy_device(8, 16, 4, stream))
    assert not fake.handles


def test_a_queue_frees_everything_once(fake, device):
    with DeviceQueue() as queue:
        values = queue.upload(np.arange(5))
        pinned = queue.pinned(5, np.int64)
        queue.copy_out(pinned, values)
        np.testing.assert_array_equal(pinned.array, np.arange(5))
        queue.clear(values)
        assert not queue.download(values).any()
        queue.copy_in(values, pinned, 16)
        assert queue.download(values).tolist() == [0, 1, 0, 0, 0]
        recording = queue.capture(lambda: queue.copy_in(values, pinned))
        recording.set_copy_bytes(8)
        recording.launch()
        with pytest.raises(DeviceError, match='48 bytes from 40 to 40'):
            queue.copy_in(values, pinned, 48)
    queue.close()
    recording.close()
    assert not fake.memory
    assert not fake.handles


def test_a_stream_that_is_given_stays_open(fake, device):
    with runtime.Stream() as stream:
        DeviceQueue(stream).close()
        stream.synchronize()


def test_a_branch_is_a_second_stream(fake, device):
    with DeviceQueue() as queue:
        streams = []
        with queue.branch():
            queue.call(streams.append)
            with pytest.raises(DeviceError, match='within a branch'), queue.branch():
                pass
        queue.call(streams.append)
        with pytest.raises(DeviceError, match='never merged'):
            queue.synchronize()
        queue.merge()
        queue.synchronize()
        assert streams[0] is not streams[1]
        assert streams[1] is queue.stream
        with pytest.raises(DeviceError, match='no branch to merge'):
            queue.merge()
    assert fake.calls.count('cuStreamWaitEvent') == 2


def test_a_branch_that_fails_is_merged(fake, device):
    with DeviceQueue() as queue:
        with pytest.raises(ValueError, match='refused'), queue.branch():
            raise ValueError('refused')
        queue.synchronize()
        with queue.branch():
            pass
        queue.merge()
        queue.synchronize()
    assert fake.calls.count('cuStreamWaitEvent') == 4


def _out_of_memory():
    error = type('Code', (int,), {'name': 'CUDA_ERROR_OUT_OF_MEMORY'})
    return error(2)
