"""A queue of work for the GPU: memory, kernels and copies, run at once or captured as a graph.

Launchers of kernels take a queue, so that they also run where kernels are emulated.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from airside_perception.closing import Closing
from airside_perception.cuda import kernels, memory
from airside_perception.cuda.graph import Graph
from airside_perception.cuda.memory import DeviceArray, DeviceMemory, PinnedArray
from airside_perception.cuda.stream import Event, Stream
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray


class Array(memory.Memory, Protocol):
    """Memory of a queue's device."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def part(self, offset: int, shape: Sequence[int] | int, dtype: DTypeLike) -> Any:
        """An array within this one, `offset` bytes from its start."""
        ...


class Pinned(memory.Memory, Protocol):
    """Memory of the host from which and to which a device copies."""

    @property
    def array(self) -> NDArray[Any]: ...


class Recording(Protocol):
    """Captured work: launched whole, as often as wished."""

    nodes: int
    kernels: int

    def launch(self) -> None: ...

    def set_copy_bytes(self, nbytes: int) -> None: ...

    def close(self) -> None: ...


class Queue(Protocol):
    """What a launcher of kernels needs. Everything but memory and waiting may be captured."""

    def alloc(self, shape: Sequence[int] | int, dtype: DTypeLike) -> Array:
        """Memory of undefined content, freed with the queue."""
        ...

    def pinned(self, shape: Sequence[int] | int, dtype: DTypeLike) -> Pinned:
        """Page-locked memory of the host, freed with the queue."""
        ...

    def upload(self, host: NDArray[Any]) -> Array:
        """A copy of a host array on the device; waits for it."""
        ...

    def download(self, device: Any) -> NDArray[Any]:
        """A copy on the host, after all work so far."""
        ...

    def clear(self, device: Any) -> None:
        """Zero bytes for a whole array."""
        ...

    def copy_in(self, device: Any, pinned: Any, nbytes: int | None = None) -> None:
        """Host to device: the first `nbytes`, else all of arrays that are equally long."""
        ...

    def copy_out(self, pinned: Any, device: Any, nbytes: int | None = None) -> None:
        """Device to host, likewise."""
        ...

    def copy(self, target: Any, source: Any, nbytes: int | None = None) -> None:
        """Device to device, likewise."""
        ...

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
        """Enqueues a kernel: arguments are arrays and NumPy scalars."""
        ...

    def call(self, action: Callable[[Any], None]) -> None:
        """Enqueues other work: calls `action` with the stream (None where there is none)."""
        ...

    def branch(self) -> contextlib.AbstractContextManager[None]:
        """What is enclosed runs beside what follows, until merge(); at once if it fails."""
        ...

    def merge(self) -> None:
        """What follows comes after the last branch too."""
        ...

    def synchronize(self) -> None:
        """Waits for all work."""
        ...

    def capture(self, record: Callable[[], None]) -> Recording:
        """Runs `record` once, then captures it; `record` neither allocates nor waits."""
        ...

    def close(self) -> None:
        """Frees what the queue allocated."""
        ...


class DeviceQueue(Closing):
    """A queue on the calling thread's GPU.

    Args:
        stream: where work goes; None for one of its own. A stream that is given stays open.
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self._resources = contextlib.ExitStack()
        self._kernels: dict[tuple[str, tuple[str, ...], str], kernels.Kernel] = {}
        self._side: Stream | None = None
        self._marks: tuple[Event, Event] | None = None
        self._in_branch = self._unmerged = False
        self._open = True
        self.stream = self._resources.enter_context(Stream()) if stream is None else stream

    def alloc(self, shape: Sequence[int] | int, dtype: DTypeLike) -> DeviceArray:
        return self._resources.enter_context(DeviceArray(shape, dtype))

    def pinned(self, shape: Sequence[int] | int, dtype: DTypeLike) -> PinnedArray:
        return self._resources.enter_context(PinnedArray(shape, dtype))

    def upload(self, host: NDArray[Any]) -> DeviceArray:
        device = self.alloc(host.shape, host.dtype)
        device.copy_from(np.ascontiguousarray(host), self.stream)
        self.synchronize()
        return device

    def download(self, device: DeviceMemory) -> NDArray[Any]:
        host: NDArray[Any] = np.empty(device.shape, device.dtype)
        device.copy_to(host, self.stream)
        self.synchronize()
        return host

    def clear(self, device: DeviceMemory) -> None:
        device.clear(self._here())

    def copy_in(self, device: Any, pinned: Any, nbytes: int | None = None) -> None:
        size = _size(device, pinned, nbytes)
        memory.copy_to_device(device.address, pinned.address, size, self._here())

    def copy_out(self, pinned: Any, device: Any, nbytes: int | None = None) -> None:
        size = _size(pinned, device, nbytes)
        memory.copy_to_host(pinned.address, device.address, size, self._here())

    def copy(self, target: Any, source: Any, nbytes: int | None = None) -> None:
        size = _size(target, source, nbytes)
        memory.copy_device(target.address, source.address, size, self._here())

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
        key = (module, tuple(options), kernel)
        if key not in self._kernels:
            self._kernels[key] = kernels.load(module, options).kernel(kernel)
        self._kernels[key](self._here(), grid, block, *arguments, shared=shared)

    def call(self, action: Callable[[Any], None]) -> None:
        action(self._here())

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Work enqueued within goes to a second stream, which starts from here.

        If it fails, the branch is merged at once, so that the queue can be used as before.
        """
        if self._in_branch or self._unmerged:
            raise DeviceError('a branch within a branch, or before the last one was merged')
        side, (start, _) = self._prepare_branch()
        start.record(self.stream)
        side.wait(start)
        self._in_branch = self._unmerged = True
        try:
            yield
        except BaseException:
            self._in_branch = False
            with contextlib.suppress(DeviceError):  # what is being raised says more
                self.merge()
            raise
        self._in_branch = False

    def merge(self) -> None:
        if not self._unmerged or self._in_branch:
            raise DeviceError('there is no branch to merge')
        self._unmerged = False
        side, (_, end) = self._prepare_branch()
        end.record(side)
        self.stream.wait(end)

    def synchronize(self) -> None:
        if self._unmerged:
            raise DeviceError('a branch was never merged')
        self.stream.synchronize()

    def capture(self, record: Callable[[], None]) -> DeviceRecording:
        """Runs `record` once, then captures it.

        Raises:
            DeviceError: it did what a capture forbids; the queue can be used as before.
        """
        record()
        self.synchronize()
        try:
            graph = Graph.capture(self.stream, record)
        finally:
            self._unmerged = False
        self._resources.callback(graph.close)
        graph.upload(self.stream)
        return DeviceRecording(graph, self.stream)

    def close(self) -> None:
        """Waits for all work and frees everything, the last allocation first; may be repeated."""
        if self._open:
            self._open = False
            try:
                self.stream.synchronize()
            finally:
                self._resources.close()

    def _here(self) -> Stream:
        return self._side if self._in_branch and self._side is not None else self.stream

    def _prepare_branch(self) -> tuple[Stream, tuple[Event, Event]]:
        if self._side is None or self._marks is None:
            self._side = self._resources.enter_context(Stream())
            first = self._resources.enter_context(Event(timing=False))
            self._marks = first, self._resources.enter_context(Event(timing=False))
        return self._side, self._marks


class DeviceRecording:
    """A graph bound to the stream of its queue, which frees it."""

    def __init__(self, graph: Graph, stream: Stream) -> None:
        self._graph, self._stream = graph, stream
        self.nodes, self.kernels, self.copies = graph.nodes, graph.kernels, graph.copies

    def launch(self) -> None:
        self._graph.launch(self._stream)

    def set_copy_bytes(self, nbytes: int) -> None:
        """Changes the size of the copy from the host that was recorded first."""
        self._graph.set_copy_bytes(nbytes)

    def close(self) -> None:
        self._graph.close()


def _size(target: memory.Memory, source: memory.Memory, nbytes: int | None) -> int:
    if nbytes is None and target.nbytes != source.nbytes:
        raise DeviceError(f'{source.nbytes} bytes to memory of {target.nbytes}')
    size = target.nbytes if nbytes is None else nbytes
    if not 0 <= size <= min(target.nbytes, source.nbytes):
        raise DeviceError(f'{size} bytes from {source.nbytes} to {target.nbytes}')
    return size
