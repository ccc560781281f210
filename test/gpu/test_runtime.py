"""The runtime on a real GPU: what the driver accepts, refuses, and gives back."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from airside_perception.cuda import kernels, runtime
from airside_perception.cuda.queue import DeviceQueue
from airside_perception.errors import DeviceError


@pytest.fixture(autouse=True)
def _nothing_leaks():
    before = runtime.live_bytes()
    yield
    assert runtime.live_bytes() == before


def test_the_device(device):
    assert device.sm.startswith('sm_')
    assert device.name
    assert 0 < device.free_memory() <= device.total_memory
    assert device.most_shared_memory() >= 100_000
    assert int(device.driver_version.split('.')[0]) >= 11
    with pytest.raises(DeviceError, match='there is no GPU 99'):
        runtime.use_device(99)


@pytest.mark.parametrize('page_locked', [False, True])
def test_arrays_go_there_and_back(page_locked):
    values = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    with (
        runtime.Stream() as stream,
        runtime.DeviceArray(values.shape, values.dtype) as device,
        runtime.DeviceArray(values.shape, values.dtype) as other,
        runtime.PinnedArray(values.shape, values.dtype) as pinned,
        runtime.PinnedArray(values.shape, values.dtype) as back,
    ):
        assert device.address % 256 == 0
        assert runtime.live_bytes() >= 4 * values.nbytes
        pinned.array[:] = values
        target = back.array if page_locked else np.zeros_like(values)
        device.copy_from(pinned.array if page_locked else values, stream)
        runtime.copy_device(other.address, device.address, values.nbytes, stream)
        other.part(28, (3, 7), np.float32).clear(stream)
        other.copy_to(target, stream)
        stream.synchronize()
        np.testing.assert_array_equal(target[4:], values[4:])
        np.testing.assert_array_equal(target[0], values[0])
        assert not target[1:4].any()


def test_events_time_and_order_streams():
    with (
        runtime.Stream() as first,
        runtime.Stream() as second,
        runtime.Event() as start,
        runtime.Event() as end,
        runtime.DeviceArray(1 << 24, np.uint8) as array,
    ):
        start.record(first)
        array.clear(first)
        end.record(first)
        second.wait(end)
        second.synchronize()
        assert 0 < end.elapsed_ms(start) < 1000


def test_a_graph(selftest_sources):
    with DeviceQueue() as queue:
        stream = queue.stream
        pinned, device = queue.pinned(128, np.int32), queue.alloc(128, np.int32)
        pinned.array[:] = np.arange(128)

        def record() -> None:
            queue.copy_in(device, pinned)
            queue.launch('selftest.cu', (), 'reverse_blocks', 1, 128, device, shared=512)

        record()
        queue.clear(device)
        with runtime.Graph.capture(stream, record) as graph:
            assert (graph.nodes, graph.kernels, graph.copies) == (2, 1, 1)
            assert not queue.download(device).any()  # recorded, not run
            graph.upload(stream)
            graph.launch(stream)
            np.testing.assert_array_equal(queue.download(device), np.arange(128)[::-1])
            pinned.array[:] = 7
            graph.set_copy_bytes(4)
            graph.launch(stream)
            expected = np.append(np.arange(127), 7)
            np.testing.assert_array_equal(queue.download(device), expected)
            with pytest.raises(DeviceError, match='where 512 were recorded'):
                graph.set_copy_bytes(513)


@pytest.mark.parametrize('kind', ['forbidden', 'swallowed', 'raises', 'unmerged'])
def test_a_capture_that_fails_leaves_the_stream_usable(kind):
    with DeviceQueue() as queue:
        values = queue.upload(np.arange(10))

        def record() -> None:
            queue.clear(values)
            if kind == 'raises':
                raise ValueError('refused')
            if kind == 'unmerged':
                with queue.branch():
                    queue.clear(values)
                return
            try:
                queue.stream.synchronize()
            except DeviceError:
                if kind == 'forbidden':
                    raise

        with pytest.raises(DeviceError):
            runtime.Graph.capture(queue.stream, record)
        queue.stream.synchronize()
        queue._unmerged = False
        np.testing.assert_array_equal(queue.download(values), np.arange(10))
        graph = runtime.Graph.capture(queue.stream, lambda: queue.clear(values))
        graph.launch(queue.stream)
        assert not queue.download(values).any()
        graph.close()


def test_too_much_memory_is_refused_and_harms_nothing(device):
    with pytest.raises(DeviceError, match=r'OUT_OF_MEMORY.* bytes asked for'):
        runtime.DeviceArray(2 * device.total_memory, np.uint8)
    with DeviceQueue() as queue:
        np.testing.assert_array_equal(queue.download(queue.upload(np.arange(9))), np.arange(9))


def test_opening_and_closing_leaks_nothing(device):
    def once() -> None:
        with DeviceQueue() as queue:
            array = queue.alloc(1 << 20, np.uint8)
            queue.pinned(1 << 16, np.uint8)
            with queue.branch():
                queue.clear(array)
            queue.merge()
            queue.capture(lambda: queue.clear(array)).launch()

    for _ in range(10):
        once()
    free = device.free_memory()
    for _ in range(200):
        once()
    assert device.free_memory() >= free - (32 << 20)


def test_threads(device):
    results = []

    def work(choose: bool) -> None:
        try:
            if choose:
                runtime.use_device()
            with DeviceQueue() as queue:
                results.append(int(queue.download(queue.upload(np.arange(5))).sum()))
        except DeviceError as error:
            results.append(str(error))

    for choose in (False, True):
        thread = threading.Thread(target=work, args=(choose,))
        thread.start()
        thread.join()
    assert 'use_device()' in results[0]
    assert results[1] == 10


def test_what_one_thread_opened_another_closes():
    opened = [runtime.DeviceArray(4, np.int32), runtime.PinnedArray(4, np.int32)]
    opened += [runtime.Stream(), runtime.Event()]
    failed = []

    def close() -> None:
        try:
            for item in opened:
                item.close()
        except DeviceError as error:
            failed.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert not failed


def test_kernels_are_checked_before_they_run(selftest_sources):
    with DeviceQueue() as queue:
        out = queue.alloc(16, np.uint32)
        with pytest.raises(DeviceError, match="has no kernel 'nothing'"):
            queue.launch('selftest.cu', (), 'nothing', 1, 1, out)
        with pytest.raises(
            DeviceError, match='coordinates, grid 1 of blocks 2000: cuLaunchKernel'
        ):
            queue.launch('selftest.cu', (), 'coordinates', 1, 2000, out)
        with pytest.raises(TypeError, match='no NumPy scalar'):
            queue.launch('selftest.cu', (), 'beyond', 1, 1, out, 3)
        if kernels.load('selftest.cu').kernel('beyond')._sizes is not None:  # CUDA 12.4 tells them
            with pytest.raises(DeviceError, match=r'arguments of \(8, 4\) bytes, given were \(8,'):
                queue.launch('selftest.cu', (), 'beyond', 1, 1, out, np.int64(3))
        queue.launch('selftest.cu', (), 'coordinates', 4, 4, out)
        np.testing.assert_array_equal(queue.download(out), np.arange(16))


def test_a_kernel_that_breaks_the_gpu_is_an_error(device, selftest_sources):
    if device.name == 'emulated GPU':
        pytest.skip('there is no GPU to break')
    code = f"""
from pathlib import Path
import numpy as np
from airside_perception.cuda import kernels, runtime
from airside_perception.errors import DeviceError
kernels.SOURCES = Path({str(selftest_sources)!r})
runtime.use_device()
stream = runtime.Stream()
kernels.load('selftest.cu').kernel('beyond')(stream, 1, 1, np.uint64(16), np.int32(0))
try:
    stream.synchronize()
except DeviceError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert 'cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS' in done.stdout, done.stderr
