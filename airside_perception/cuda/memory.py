"""Memory of the GPU and page-locked memory of the host, held until closed; copies between them."""

from __future__ import annotations

import ctypes
import math
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from airside_perception.closing import Closing
from airside_perception.cuda import driver
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray

    from airside_perception.cuda.stream import Stream

_PORTABLE_AND_MAPPED = 1 | 2  # CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP

_lock = threading.Lock()
_live = 0
_thread = threading.local()


def live_bytes() -> int:
    """Bytes of the GPU and of page-locked memory that are open in this process."""
    return _live


def _count(nbytes: int) -> None:
    global _live
    with _lock:
        _live += nbytes


class Memory(Protocol):
    """What has an address and a size."""

    @property
    def address(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


class DeviceMemory:
    """A typed part of the GPU's memory that something else holds.

    Copies are asynchronous where the host's memory is page-locked; other memory may be changed or
    read once the call returns.
    """

    def __init__(self, address: int, shape: Sequence[int] | int, dtype: DTypeLike) -> None:
        self._address = address
        self.shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    @property
    def address(self) -> int:
        """Where it starts, for kernels and engines."""
        return self._address

    def part(self, offset: int, shape: Sequence[int] | int, dtype: DTypeLike) -> DeviceMemory:
        """An array within this one, `offset` bytes from its start; it holds nothing itself.

        Raises:
            DeviceError: it would reach beyond the end.
        """
        part = DeviceMemory(self.address + offset, shape, dtype)
        if offset < 0 or offset + part.nbytes > self.nbytes:
            raise DeviceError(f'bytes {offset} to {offset + part.nbytes} of {self.nbytes}')
        return part

    def copy_from(self, host: NDArray[Any], stream: Stream) -> None:
        """Enqueues a copy of a host array of the same shape and dtype."""
        self._check(host)
        copy_to_device(self.address, host.ctypes.data, self.nbytes, stream)

    def copy_to(self, host: NDArray[Any], stream: Stream) -> None:
        """Enqueues a copy into a host array of the same shape and dtype."""
        self._check(host)
        copy_to_host(host.ctypes.data, self.address, self.nbytes, stream)

    def clear(self, stream: Stream) -> None:
        """Enqueues zero bytes for all of it."""
        if self.nbytes:
            driver.call('cuMemsetD8Async', self.address, 0, self.nbytes, stream.handle)

    def _check(self, host: NDArray[Any]) -> None:
        if host.shape != self.shape or host.dtype != self.dtype or not host.flags.c_contiguous:
            raise DeviceError(
                f'a host array {host.dtype} {list(host.shape)} (contiguous: '
                f'{host.flags.c_contiguous}) for one of the GPU, {self.dtype} {list(self.shape)}'
            )


class DeviceArray(Closing, DeviceMemory):
    """Memory of the GPU, held until closed. Its content is undefined at first.

    Raises:
        DeviceError: the GPU has too little memory; what was allocated before stays usable.
    """

    def __init__(self, shape: Sequence[int] | int, dtype: DTypeLike) -> None:
        super().__init__(0, shape, dtype)
        self._device = driver.current_device()
        try:
            self._handle = driver.call('cuMemAlloc', max(1, self.nbytes))
        except DeviceError as error:
            free = self._device.free_memory()
            raise DeviceError(
                f'{error}: {self.nbytes:,} bytes asked for, {free:,} of '
                f'{self._device.total_memory:,} free on {self._device.name}'
            ) from error
        self._address = int(self._handle)
        self._open = True
        _count(self.nbytes)

    @property
    def address(self) -> int:
        if not self._open:
            raise DeviceError('an array of the GPU is used after it was closed')
        return self._address

    def close(self) -> None:
        """Frees the memory; may be called again. Work that uses it must have ended."""
        if self._open:
            self._open = False
            _count(-self.nbytes)
            self._device.use()
            driver.call('cuMemFree', self._handle)


class PinnedArray(Closing):
    """Page-locked memory of the host, held until closed; zero at first.

    Views of `array` must not be used after close: their memory is gone.
    """

    def __init__(self, shape: Sequence[int] | int, dtype: DTypeLike) -> None:
        self.shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._device = driver.current_device()
        size = max(1, self.nbytes)
        self._address = int(driver.call('cuMemHostAlloc', size, _PORTABLE_AND_MAPPED))
        _count(self.nbytes)
        raw = np.frombuffer((ctypes.c_uint8 * size).from_address(self._address), np.uint8)
        raw.fill(0)
        self._array: NDArray[Any] | None = raw[: self.nbytes].view(self.dtype).reshape(self.shape)

    @property
    def array(self) -> NDArray[Any]:
        """The memory as a NumPy array."""
        if self._array is None:
            raise DeviceError('page-locked memory is used after it was closed')
        return self._array

    @property
    def address(self) -> int:
        """Where it starts."""
        if self._array is None:
            raise DeviceError('page-locked memory is used after it was closed')
        return self._address

    def close(self) -> None:
        """Frees the memory; may be called again. Copies that use it must have ended."""
        if self._array is not None:
            self._array = None
            _count(-self.nbytes)
            self._device.use()
            driver.call('cuMemFreeHost', self._address)


def copy_to_device(target: int, source: int, nbytes: int, stream: Stream) -> None:
    """Enqueues a copy from the host to an address of the GPU; a capture may record it."""
    if nbytes:
        driver.call('cuMemcpyHtoDAsync', target, source, nbytes, stream.handle)
    note = getattr(_thread, 'copies', None)
    if note is not None:
        note.append((target, source, nbytes))


def copy_to_host(target: int, source: int, nbytes: int, stream: Stream) -> None:
    """Enqueues a copy from an address of the GPU to the host; a capture may record it."""
    if nbytes:
        driver.call('cuMemcpyDtoHAsync', target, source, nbytes, stream.handle)


def copy_device(target: int, source: int, nbytes: int, stream: Stream) -> None:
    """Enqueues a copy within the GPU's memory; a capture may record it."""
    if nbytes:
        driver.call('cuMemcpyDtoDAsync', target, source, nbytes, stream.handle)


class noted_copies:  # noqa: N801  used like a function, in a with statement
    """Notes the (target, source, bytes) of copies to the GPU that this thread enqueues within."""

    def __enter__(self) -> list[tuple[int, int, int]]:
        _thread.copies = []
        return _thread.copies  # type: ignore[no-any-return]  # thread-locals have no types

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _thread.copies = None
