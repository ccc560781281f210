"""EmulatorQueue: what cuda.queue.DeviceQueue offers, on NumPy memory and emulated kernels.

It shows what a GPU might only do now and then: memory starts as 0xff bytes (NaN), writes beyond an
array are found, and a branch runs at once or as late as its merge, by the seed.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emulate import SOURCES, EmulationError, emulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import DTypeLike

GUARD = 1024  # bytes before and behind each array
ALIGNMENT = 256


class EmulatedArray(np.ndarray):  # type: ignore[type-arg]  # of any dtype
    """Memory of the emulated device: an array that also answers like a DeviceArray."""

    @property
    def address(self) -> int:
        return self.ctypes.data

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The plain array, as PinnedArray has it."""
        return self.view(np.ndarray)

    def part(self, offset: int, shape: Sequence[int], dtype: DTypeLike) -> EmulatedArray:
        """An array within this one, `offset` bytes from its start."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if offset < 0 or offset + size > self.nbytes:
            raise ValueError(f'bytes {offset} to {offset + size} of an array of {self.nbytes}')
        raw = self.reshape(-1).view(np.uint8)
        return raw[offset : offset + size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Free nothing: the queue holds the memory."""


class EmulatorQueue:
    """Runs launches at once, or as often as their recording is launched."""

    def __init__(self, seed: int = 0, *, contract: bool = False, folder: Path = SOURCES) -> None:
        self.seed = seed
        self.launches: list[str] = []
        """Kernels run so far, 'file.cu:kernel'."""
        self.sources: set[tuple[str, tuple[str, ...]]] = set()
        """Files and options of the kernels asked for: what to compile ahead for a GPU."""
        self._contract, self._folder = contract, folder
        self._memory: list[np.ndarray[Any, Any]] = []
        self._recording: list[tuple[str, Callable[[], None]]] | None = None
        self._branch: list[tuple[str, Callable[[], None]]] | None = None
        self._unmerged = False
        self._closed = False

    # -- memory

    def alloc(self, shape: int | Sequence[int], dtype: DTypeLike) -> EmulatedArray:
        """Memory that holds 0xff bytes."""
        self._refuse_in_capture('memory is allocated')
        self._check_open()
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + 2 * GUARD + ALIGNMENT, 0xFF, np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % ALIGNMENT
        guarded = raw[start - GUARD : start + size + GUARD]
        self._memory.append(guarded)
        return guarded[GUARD : GUARD + size].view(dtype).reshape(shape).view(EmulatedArray)

    pinned = alloc

    def upload(self, host: np.ndarray[Any, Any]) -> EmulatedArray:
        """A copy of a host array on the device."""
        device = self.alloc(host.shape, host.dtype)
        device[...] = host
        return device

    def download(self, device: EmulatedArray) -> np.ndarray[Any, Any]:
        """A copy on the host, after everything before has run."""
        self.synchronize()
        return np.array(device.view(np.ndarray))

    def clear(self, device: EmulatedArray) -> None:
        self._do('clear', lambda: device.reshape(-1).view(np.uint8).fill(0))

    def copy_in(self, device: Any, pinned: Any, nbytes: int | None = None) -> None:
        """Host to device."""
        size = [_size(device, pinned, nbytes)]
        copy = _Copy(device.address, pinned.address, size[0], (device, pinned))
        self._do('copy_in', copy)

    def copy_out(self, pinned: Any, device: Any, nbytes: int | None = None) -> None:
        """Device to host."""
        size = _size(pinned, device, nbytes)
        self._do('copy_out', _Copy(pinned.address, device.address, size, (device, pinned)))

    def copy(self, target: Any, source: Any, nbytes: int | None = None) -> None:
        """Device to device."""
        size = _size(target, source, nbytes)
        self._do('copy', _Copy(target.address, source.address, size, (target, source)))

    # -- work

    def launch(
        self,
        module: str,
        options: Sequence[str],
        kernel: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *arguments: Any,
        shared: int = 0,
    ) -> None:
        self._check_open()
        self.sources.add((module, tuple(options)))
        run = emulate(module, tuple(options), contract=self._contract, folder=self._folder).kernel(
            kernel
        )

        def action() -> None:
            seed = self.seed + 7919 * len(self.launches)
            self.launches.append(f'{module}:{kernel}')
            run(grid, block, *arguments, shared=shared, seed=seed)
            self._check_guards(run.name)

        self._do('kernel', action)

    def call(self, action: Callable[[Any], None]) -> None:
        """Other work of the device, such as a network: action(None) runs in its turn."""
        self._do('call', lambda: action(None))

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """What is enclosed may run at any time between here and merge(); at once if it fails."""
        if self._branch is not None or self._unmerged:
            raise EmulationError('a branch within a branch, or before the last one was merged')
        self._branch = []
        try:
            yield
        except BaseException:
            self._late, self._branch = self._branch, None
            self._flush()
            raise
        self._late, self._branch = self._branch, None
        self._unmerged = True
        if self.seed % 2 == 0:
            self._flush()

    def merge(self) -> None:
        """What follows comes after the branch."""
        if not self._unmerged:
            raise EmulationError('there is no branch to merge')
        self._flush()
        self._unmerged = False

    def synchronize(self) -> None:
        self._refuse_in_capture('the queue is synchronised')
        self._check_open()
        if self._unmerged:
            raise EmulationError('a branch was never merged')

    def capture(self, record: Callable[[], None]) -> Recording:
        """Runs `record` once, then notes what it enqueues without running it."""
        record()
        self.synchronize()
        self._recording = []
        try:
            record()
            if self._unmerged:
                raise EmulationError('a branch was never merged')
        finally:
            recorded, self._recording = self._recording, None
        return Recording(recorded)

    def close(self) -> None:
        self._memory.clear()
        self._closed = True

    def __enter__(self) -> EmulatorQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, kind: str, action: Callable[[], None]) -> None:
        self._check_open()
        if self._branch is not None:
            self._branch.append((kind, action))
        elif self._recording is not None:
            self._recording.append((kind, action))
        else:
            action()

    def _flush(self) -> None:
        late, self._late = self._late, []
        for kind, action in late:
            self._do(kind, action)

    def _check_open(self) -> None:
        if self._closed:
            raise EmulationError('the queue is closed')

    def _refuse_in_capture(self, what: str) -> None:
        if self._recording is not None:
            raise EmulationError(f'{what} while launches are captured')

    def _check_guards(self, name: str) -> None:
        for memory in self._memory:
            if memory[:GUARD].min() < 0xFF or memory[-GUARD:].min() < 0xFF:
                size = memory.size - 2 * GUARD
                raise EmulationError(f'{name} wrote outside an array of {size} bytes')


class Recording:
    """What a capture recorded: launched as often as wished."""

    def __init__(self, actions: list[tuple[str, Callable[[], None]]]) -> None:
        self._actions = actions
        self.nodes = len(actions)
        self.kernels = sum(kind == 'kernel' for kind, _ in actions)
        self.copies = sum(kind.startswith('copy') for kind, _ in actions)

    def launch(self) -> None:
        for _, action in self._actions:
            action()

    def set_copy_bytes(self, nbytes: int) -> None:
        """Changes the size of the host-to-device copy recorded first."""
        copies = [action for kind, action in self._actions if kind == 'copy_in']
        if not copies:
            raise EmulationError('no copy to the device was recorded')
        copies[0].resize(nbytes)  # type: ignore[attr-defined]  # a copy_in is a _Copy

    def close(self) -> None:
        self._actions = []


class _Copy:
    """A copy whose size may be lowered later."""

    def __init__(self, target: int, source: int, size: int, kept: object) -> None:
        self._target, self._source, self._size, self._most = target, source, size, size
        self._kept = kept

    def resize(self, size: int) -> None:
        if not 0 < size <= self._most:
            raise EmulationError(f'{size} bytes where {self._most} were recorded')
        self._size = size

    def __call__(self) -> None:
        ctypes.memmove(self._target, self._source, self._size)


def _size(target: Any, source: Any, nbytes: int | None) -> int:
    size = min(target.nbytes, source.nbytes) if nbytes is None else nbytes
    if nbytes is None and target.nbytes != source.nbytes:
        raise ValueError(f'{source.nbytes} bytes to an array of {target.nbytes}')
    if size > target.nbytes or size > source.nbytes:
        raise ValueError(f'{size} bytes from {source.nbytes} to {target.nbytes}')
    return int(size)
