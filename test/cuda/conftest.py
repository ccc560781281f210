"""A driver that is none: it keeps the rules of the CUDA driver and does its work on the host."""

# ruff: noqa: N802, N815  the names are the driver's

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from airside_perception.cuda import driver, kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

SUCCESS = 0


class Code(int):
    """An error code with the name that the bindings give it."""

    name: str


def code(number: int, name: str) -> Code:
    made = Code(number)
    made.name = name
    return made


OUT_OF_MEMORY = code(2, 'CUDA_ERROR_OUT_OF_MEMORY')
INVALID_VALUE = code(1, 'CUDA_ERROR_INVALID_VALUE')
INVALIDATED = code(901, 'CUDA_ERROR_STREAM_CAPTURE_INVALIDATED')
UNSUPPORTED = code(900, 'CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED')


class FakeDriver:
    """Functions of cuda.bindings.driver that the package uses; `calls` holds their names."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR='major',
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR='minor',
        CU_DEVICE_ATTRIBUTE_INTEGRATED='integrated',
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN='shared',
    )
    CUfunction_attribute = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES='dynamic',
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES='static',
    )
    CUgraphNodeType = SimpleNamespace(
        CU_GRAPH_NODE_TYPE_KERNEL='kernel', CU_GRAPH_NODE_TYPE_MEMCPY='memcpy'
    )
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL='thread')
    parameters: tuple[int, ...] = (8, 4)
    """Bytes of the parameters of every kernel."""
    attributes: ClassVar = {'major': 8, 'minor': 7, 'integrated': 1, 'shared': 166912}

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, Code] = {}
        """Functions that fail, with the error."""
        self.memory: dict[int, Any] = {}
        self.handles: set[int] = set()
        self.launches: list[dict[str, Any]] = []
        self.captured: list[SimpleNamespace] | None = None
        self.broken = False
        self.graphs: dict[int, list[SimpleNamespace]] = {}
        self.context = threading.local()
        self._next = 1000

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith('cu') or not name[2].isupper():
            return super().__getattribute__(name)
        function = super().__getattribute__(name)

        def recorded(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name in self.fails:
                return self.fails[name], None
            result = function(*arguments)
            return result if isinstance(result, tuple) else (SUCCESS, result)

        return recorded

    def new(self) -> int:
        self._next += 1
        self.handles.add(self._next)
        return self._next

    def needs_context(self) -> None:
        assert getattr(self.context, 'now', None) == 'context', 'no context in this thread'

    # -- device
    def cuInit(self, flags):
        assert flags == 0
        return (SUCCESS,)

    def cuDeviceGetCount(self):
        return 1

    def cuDeviceGet(self, index):
        return index

    def cuDriverGetVersion(self):
        return 12060

    def cuDeviceGetName(self, length, device):
        return b'Orin'.ljust(length, b'\0')

    def cuDeviceGetAttribute(self, attribute, device):
        return self.attributes[attribute]

    def cuDeviceTotalMem(self, device):
        return 8 << 30

    def cuDevicePrimaryCtxRetain(self, device):
        return 'context'

    def cuCtxSetCurrent(self, context):
        self.context.now = context
        return (SUCCESS,)

    def cuMemGetInfo(self):
        self.needs_context()
        return SUCCESS, 1 << 20, 8 << 30

    def cuGetErrorString(self, error):
        return SUCCESS, f'described {int(error)}'.encode()

    # -- memory
    def _allocate(self, size):
        self.needs_context()
        assert size > 0
        if self.captured is not None:
            self.broken = True
            return UNSUPPORTED, None
        block = ctypes.create_string_buffer(b'\xff' * size, size)
        address = ctypes.addressof(block)
        self.memory[address] = block
        return address

    def cuMemAlloc(self, size):
        return self._allocate(size)

    def cuMemHostAlloc(self, size, flags):
        assert flags == 3
        return self._allocate(size)

    def cuMemFree(self, address):
        self.needs_context()
        del self.memory[int(address)]
        return (SUCCESS,)

    cuMemFreeHost = cuMemFree

    def _move(self, kind, target, source, size, stream):
        assert stream in self.handles
        assert size > 0
        if self.captured is None:
            ctypes.memmove(target, source, size)
        else:
            host = kind == 'in'
            self.captured.append(
                SimpleNamespace(
                    kind='memcpy',
                    dstDevice=target,
                    dstHost=None,
                    srcHost=source if host else None,
                    srcDevice=0 if host else source,
                    WidthInBytes=size,
                    Height=1,
                    Depth=1,
                )
            )
        return (SUCCESS,)

    def cuMemcpyHtoDAsync(self, *arguments):
        return self._move('in', *arguments)

    def cuMemcpyDtoHAsync(self, *arguments):
        return self._move('out', *arguments)

    def cuMemcpyDtoDAsync(self, *arguments):
        return self._move('within', *arguments)

    def cuMemsetD8Async(self, address, value, size, stream):
        assert stream in self.handles
        ctypes.memset(address, value, size)
        return (SUCCESS,)

    # -- streams and events
    def cuStreamCreate(self, flags):
        assert flags == 1
        self.needs_context()
        return self.new()

    def cuEventCreate(self, flags):
        assert flags in (0, 2)
        return self.new()

    def _destroy(self, handle):
        self.needs_context()
        self.handles.remove(handle)
        return (SUCCESS,)

    cuStreamDestroy = cuEventDestroy = cuGraphExecDestroy = cuGraphDestroy = _destroy

    def cuStreamSynchronize(self, stream):
        assert stream in self.handles
        if self.captured is not None:
            self.broken = True
            return (UNSUPPORTED,)
        return (SUCCESS,)

    def cuStreamWaitEvent(self, stream, event, flags):
        assert {stream, event} <= self.handles
        return (SUCCESS,)

    def cuEventRecord(self, event, stream):
        assert {stream, event} <= self.handles
        return (SUCCESS,)

    def cuEventSynchronize(self, event):
        return (SUCCESS,)

    def cuEventElapsedTime(self, start, end):
        return float(end - start)

    # -- graphs
    def cuStreamBeginCapture(self, stream, mode):
        assert mode == 'thread'
        assert self.captured is None
        self.captured, self.broken = [], False
        return (SUCCESS,)

    def cuStreamEndCapture(self, stream):
        captured, self.captured = self.captured, None
        assert captured is not None
        if self.broken:
            return INVALIDATED, None
        graph = self.new()
        self.graphs[graph] = captured
        return graph

    def cuGraphInstantiate(self, graph, flags):
        assert flags == 0
        made = self.new()
        self.graphs[made] = self.graphs[graph]
        return made

    def cuGraphGetNodes(self, graph, count=0):
        nodes = self.graphs[graph]
        return SUCCESS, list(range(len(nodes)))[:count], len(nodes)

    def cuGraphNodeGetType(self, node):
        return next(iter(self.graphs.values()))[node].kind

    def cuGraphMemcpyNodeGetParams(self, node):
        return SimpleNamespace(**vars(next(iter(self.graphs.values()))[node]))

    def cuGraphExecMemcpyNodeSetParams(self, executable, node, parameters, context):
        assert context == 'context'
        self.graphs[executable][node] = parameters
        return (SUCCESS,)

    def cuGraphUpload(self, executable, stream):
        assert executable in self.handles
        return (SUCCESS,)

    def cuGraphLaunch(self, executable, stream):
        assert {executable, stream} <= self.handles
        for node in self.graphs[executable]:
            if node.kind == 'memcpy':
                source, target = node.srcHost or node.srcDevice, node.dstDevice
                ctypes.memmove(target, source, node.WidthInBytes)
        return (SUCCESS,)

    # -- kernels
    def cuModuleLoadData(self, image):
        assert image.startswith(b'\x7fELF')
        return self.new()

    def cuModuleGetFunction(self, module, name):
        return (SUCCESS, name) if name != b'nothing' else (INVALID_VALUE, None)

    def cuFuncGetParamInfo(self, function, index):
        if index >= len(self.parameters):
            return INVALID_VALUE, None, None
        return SUCCESS, 0, self.parameters[index]

    def cuFuncGetAttribute(self, attribute, function):
        return {'static': 1024}[attribute]

    def cuFuncSetAttribute(self, function, attribute, value):
        assert attribute == 'dynamic'
        return (SUCCESS,)

    def cuLaunchKernel(self, function, *arguments):
        *sizes, shared, stream, pointers, extra = arguments
        assert stream in self.handles
        assert extra == 0
        assert all(isinstance(n, int) and n > 0 for n in sizes)
        array = (ctypes.c_void_p * len(self.parameters)).from_address(pointers)
        values = [
            ctypes.string_at(where, n) for where, n in zip(array, self.parameters, strict=True)
        ]
        launch = {'kernel': function, 'sizes': tuple(sizes), 'shared': shared, 'values': values}
        self.launches.append(launch)
        if self.captured is not None:
            self.captured.append(SimpleNamespace(kind='kernel'))
        return (SUCCESS,)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """The package's driver is replaced by one without a GPU."""
    fake = FakeDriver()
    monkeypatch.setattr(driver, 'bindings', lambda: fake)
    monkeypatch.setattr(driver, '_devices', {})
    monkeypatch.setattr(driver, '_thread', threading.local())
    monkeypatch.setattr(kernels, '_modules', {})
    driver.unavailable.cache_clear()
    yield fake
    driver.unavailable.cache_clear()
