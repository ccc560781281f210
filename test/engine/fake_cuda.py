"""A `cuda.runtime` in host memory, for tests: strict about threads, closing and memory."""

from __future__ import annotations

import threading
import types
from dataclasses import dataclass

import numpy as np

from airside_perception.errors import DeviceError


@dataclass(frozen=True)
class Device:
    index: int = 0
    name: str = 'Fake GPU'
    sm: str = 'sm_90'
    total_memory: int = 1 << 30
    driver_version: str = '12.6'


class FakeCuda(types.ModuleType):
    """The module; one a test."""

    def __init__(self, capacity: int = 1 << 30) -> None:
        super().__init__('airside_perception.cuda.runtime')
        self.capacity = capacity
        self.memory: dict[int, np.ndarray] = {}
        self.open = 0
        self.captures = 0
        self.launches = 0
        self.refuse_capture = ''
        self.synchronize_error = ''
        self.reason = ''
        self.recording: list | None = None
        self.journal: list[str] = []
        self.now_ms = 0.0  # of the GPU: tests let it go on
        self._next = 0x1000
        self._threads = threading.local()
        cuda = self

        class Closing:
            def __init__(self) -> None:
                cuda.need_device()
                cuda.open += 1
                self.closed = False

            def close(self) -> None:
                if not self.closed:
                    cuda.open -= 1
                    cuda.journal.append(f'close {type(self).__name__}')
                    self.closed = True
                    if cuda.synchronize_error:  # a broken device frees nothing
                        raise DeviceError(cuda.synchronize_error)

        class Stream(Closing):
            handle = 77

            def synchronize(self) -> None:
                cuda.need_device()
                if cuda.recording is not None:
                    raise DeviceError('a recording stream cannot be waited for')
                if cuda.synchronize_error:
                    raise DeviceError(cuda.synchronize_error)

        class Array(Closing):
            def __init__(self, shape: tuple[int, ...], dtype: object) -> None:
                kind = np.dtype(dtype)
                size = int(np.prod(shape)) * kind.itemsize
                if cuda.live_bytes() + size > cuda.capacity:
                    raise DeviceError('cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory')
                super().__init__()
                self.shape, self.dtype, self.nbytes = shape, kind, size
                self.address = cuda.take(size)
                self.array = cuda.memory[self.address].view(kind).reshape(shape)

            def close(self) -> None:
                cuda.memory.pop(self.address, None)
                super().close()

        class DeviceArray(Array):
            def clear(self, stream: Stream) -> None:
                cuda.do(stream, lambda: self.array.fill(0))

        class PinnedArray(Array):
            pass

        class Graph(Closing):
            def __init__(self, steps: list) -> None:
                super().__init__()
                self.steps = steps

            @classmethod
            def capture(cls, stream: Stream, record: object) -> Graph:
                cuda.recording = []
                cuda.captures += 1
                try:
                    record()
                    steps = cuda.recording
                finally:
                    cuda.recording = None
                if cuda.refuse_capture:
                    raise DeviceError(cuda.refuse_capture)
                return cls(steps)

            def launch(self, stream: Stream) -> None:
                cuda.need_device()
                if self.closed:
                    raise DeviceError('the graph is closed')
                cuda.launches += 1
                for step in self.steps:
                    step()

        class Event(Closing):
            def __init__(self, timing: bool = True, blocking: bool = False) -> None:
                super().__init__()
                self.blocking, self.at_ms = blocking, None

            def record(self, stream: Stream) -> None:
                cuda.need_device()
                if stream.closed or self.closed:
                    raise DeviceError('the stream or the event is closed')
                self.at_ms = cuda.now_ms

            def synchronize(self) -> None:
                cuda.journal.append('event waited for')

            def reached(self) -> bool:
                cuda.journal.append('event asked')
                return True

            def elapsed_ms(self, earlier: Event) -> float:
                if self.at_ms is None or earlier.at_ms is None:
                    raise DeviceError('an event that was not recorded')
                return self.at_ms - earlier.at_ms

        self.Event = Event
        self.Stream, self.DeviceArray, self.PinnedArray = Stream, DeviceArray, PinnedArray
        self.Graph, self.Device = Graph, Device

    def unavailable(self) -> str:
        return self.reason

    def use_device(self, index: int = 0) -> Device:
        self._threads.ready = True
        return Device()

    def need_device(self) -> None:
        if not getattr(self._threads, 'ready', False):
            raise DeviceError('no current context in this thread: call use_device first')

    def take(self, size: int) -> int:
        address = self._next
        self._next += size + 256
        # what is never written must not pass for an answer
        self.memory[address] = np.full(size, 0xA5, np.uint8)
        return address

    def at(self, address: int, size: int) -> np.ndarray:
        if address not in self.memory or self.memory[address].size < size:
            raise DeviceError(f'{address:#x}: {size} bytes that nobody owns')
        return self.memory[address][:size]

    def do(self, stream: object, step: object) -> None:
        self.need_device()
        if stream.closed:
            raise DeviceError('the stream is closed')
        if self.recording is not None:
            self.recording.append(step)
        else:
            step()

    def copy_to_device(self, to: int, source: int, size: int, stream: object) -> None:
        self.do(stream, lambda: np.copyto(self.at(to, size), self.at(source, size)))

    copy_to_host = copy_to_device

    def live_bytes(self) -> int:
        return sum(array.size for array in self.memory.values())
