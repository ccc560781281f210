"""Work recorded once and launched whole: a CUDA graph."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from airside_perception.closing import Closing
from airside_perception.cuda import driver, memory
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airside_perception.cuda.stream import Stream


class Graph(Closing):
    """What `record` enqueued, launched as one; made by Graph.capture, held until closed."""

    def __init__(self, graph: Any, copies: list[tuple[int, int, int]]) -> None:
        self._device = driver.current_device()
        self._graph = graph
        self._executable: Any = None
        kinds = driver.bindings().CUgraphNodeType
        nodes = _nodes(graph)
        of_kind = {node: driver.call('cuGraphNodeGetType', node) for node in nodes}
        self.nodes = len(nodes)
        """Pieces of work in it."""
        self.kernels = list(of_kind.values()).count(kinds.CU_GRAPH_NODE_TYPE_KERNEL)
        self.copies = list(of_kind.values()).count(kinds.CU_GRAPH_NODE_TYPE_MEMCPY)
        moves = [n for n in nodes if of_kind[n] == kinds.CU_GRAPH_NODE_TYPE_MEMCPY]
        self._copy = _find_copy(moves, copies[0]) if copies else None
        self._most = self._now = copies[0][2] if copies else 0
        self._executable = driver.call('cuGraphInstantiate', graph, 0)

    @classmethod
    def capture(cls, stream: Stream, record: Callable[[], None]) -> Graph:
        """Records what `record` enqueues to `stream`, and to streams joined to it, without a run.

        Run the same work once before: kernels must be loaded and engines warm, since a capture
        refuses to allocate memory.

        Raises:
            DeviceError: `record` failed or did what a capture forbids. The capture is over then
                and the stream can be used as before.
        """
        mode = driver.bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        driver.call('cuStreamBeginCapture', stream.handle, mode)
        try:
            with memory.noted_copies() as copies:
                record()
        except BaseException as error:
            _abandon(stream)
            if isinstance(error, Exception):
                raise DeviceError(f'work cannot be captured as a graph: {error}') from error
            raise
        graph = driver.call('cuStreamEndCapture', stream.handle)
        try:
            return cls(graph, copies)
        except DeviceError:
            driver.call('cuGraphDestroy', graph)
            raise

    def launch(self, stream: Stream) -> None:
        """Enqueues all of it."""
        driver.call('cuGraphLaunch', self._opened(), stream.handle)

    def upload(self, stream: Stream) -> None:
        """Brings it to the GPU ahead of the first launch."""
        driver.call('cuGraphUpload', self._opened(), stream.handle)

    def set_copy_bytes(self, nbytes: int) -> None:
        """Changes the size of the host-to-device copy recorded first, from the next launch on.

        Args:
            nbytes: more than 0, at most what was recorded.

        Raises:
            DeviceError: the size is out of range, or no such copy was recorded.
        """
        executable = self._opened()
        if nbytes == self._now:
            return
        if self._copy is None:
            raise DeviceError('no copy from the host was recorded, whose size could change')
        if not 0 < nbytes <= self._most:
            raise DeviceError(f'a copy of {nbytes} bytes where {self._most} were recorded')
        node, parameters = self._copy
        parameters.WidthInBytes = nbytes
        driver.call(
            'cuGraphExecMemcpyNodeSetParams', executable, node, parameters, self._device.context
        )
        self._now = nbytes

    def close(self) -> None:
        """Frees it; may be called again. Its launches must have ended."""
        if self._executable is not None:
            executable, self._executable = self._executable, None
            self._device.use()
            driver.call('cuGraphExecDestroy', executable)
            driver.call('cuGraphDestroy', self._graph)

    def _opened(self) -> Any:
        if self._executable is None:
            raise DeviceError('a graph is used after it was closed')
        return self._executable


def _abandon(stream: Stream) -> None:
    """Ends a capture that went wrong; the driver reports again what is already being raised."""
    with contextlib.suppress(DeviceError):
        graph = driver.call('cuStreamEndCapture', stream.handle)
        if graph is not None and int(graph):
            driver.call('cuGraphDestroy', graph)


def _nodes(graph: Any) -> list[Any]:
    _, count = driver.call('cuGraphGetNodes', graph)
    nodes, _ = driver.call('cuGraphGetNodes', graph, count)
    return list(nodes)


def _find_copy(nodes: list[Any], copy: tuple[int, int, int]) -> tuple[Any, Any] | None:
    """The node of a (target, source, bytes) copy and its parameters."""
    target, source, nbytes = copy
    found = []
    for node in nodes:
        parameters = driver.call('cuGraphMemcpyNodeGetParams', node)
        rows = math.prod(max(1, n) for n in (parameters.Height, parameters.Depth))
        if parameters.WidthInBytes * rows != nbytes or rows > 1:
            continue
        to = (int(parameters.dstDevice), int(parameters.dstHost or 0))
        since = (int(parameters.srcHost or 0), int(parameters.srcDevice))
        if target in to and source in since:
            return node, parameters
        found.append((node, parameters))
    return found[0] if len(found) == 1 else None
