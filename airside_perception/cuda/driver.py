"""The CUDA driver as Python calls: found late, every failure a DeviceError that names the call."""

from __future__ import annotations

import functools
import importlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from types import ModuleType

INSTALL = (
    "install NVIDIA's driver and the Python package cuda-bindings (12.x or 13.x), "
    "no newer than the driver's CUDA"
)
_MODULES = ('cuda.bindings.driver', 'cuda.cuda')  # the second: cuda-python up to 12.5

_lock = threading.Lock()
_devices: dict[int, Device] = {}
_thread = threading.local()


@functools.lru_cache(maxsize=1)
def bindings() -> ModuleType:
    """The module of driver functions.

    Raises:
        DeviceError: no CUDA bindings are installed.
    """
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DeviceError(f'no CUDA bindings for Python are installed: {INSTALL}')


def call(name: str, *arguments: Any) -> Any:
    """Calls a driver function and returns its value, a tuple of values, or None.

    Raises:
        DeviceError: no driver is installed, or the call failed; names call, error and meaning.
    """
    try:
        result = getattr(bindings(), name)(*arguments)
    except (RuntimeError, OSError) as error:  # the library of the driver cannot be loaded
        raise DeviceError(f'{name}: {error}: {INSTALL}') from error
    except (KeyError, ValueError) as error:  # a driver newer than the bindings
        raise DeviceError(
            f'{name} failed with an error unknown to the bindings: {error}'
        ) from error
    return check(result, name)


def check(result: tuple[Any, ...], name: str = 'CUDA') -> Any:
    """The value, values or None of what a driver function returned.

    Raises:
        DeviceError: '<cuXxx>: CUDA_ERROR_NAME: description'.
    """
    code, values = result[0], result[1:]
    if int(code) != 0:
        _, text = bindings().cuGetErrorString(code)
        described = text.decode(errors='replace') if text else 'no description'
        raise DeviceError(f'{name}: {getattr(code, "name", int(code))}: {described}')
    if not values:
        return None
    return values[0] if len(values) == 1 else values


@functools.lru_cache(maxsize=1)
def unavailable() -> str:
    """Why no GPU can be used here, in plain words; '' if one can."""
    try:
        call('cuInit', 0)
        count = call('cuDeviceGetCount')
    except DeviceError as error:
        return f'no CUDA GPU: {error}'
    return '' if count else 'no CUDA GPU: the driver finds none'


@dataclass(frozen=True)
class Device:
    """A GPU whose primary context is held until the process ends."""

    index: int
    name: str
    sm: str
    """Architecture as compilers name it, such as 'sm_87'."""
    total_memory: int
    driver_version: str
    """CUDA version that the driver serves, such as '13.0'."""
    integrated: bool
    """Whether it shares the host's memory (Jetson)."""
    context: Any = field(repr=False, compare=False)

    def use(self) -> None:
        """Makes it current in the calling thread."""
        call('cuCtxSetCurrent', self.context)
        _thread.device = self

    def free_memory(self) -> int:
        """Bytes that can be allocated now."""
        self.use()
        free, _ = call('cuMemGetInfo')
        return int(free)

    def most_shared_memory(self) -> int:
        """Bytes of shared memory that a block may ask for."""
        return _attribute(self.index, 'MAX_SHARED_MEMORY_PER_BLOCK_OPTIN')


def use_device(index: int = 0) -> Device:
    """Makes a GPU current in the calling thread: each thread that touches CUDA calls it first.

    Raises:
        DeviceError: there is no such GPU, or it cannot be used.
    """
    with _lock:
        if index not in _devices:
            _devices[index] = _open(index)
        device = _devices[index]
    device.use()
    return device


def current_device() -> Device:
    """The GPU that the calling thread uses.

    Raises:
        DeviceError: the thread has chosen none.
    """
    device = getattr(_thread, 'device', None)
    if device is None:
        raise DeviceError('this thread uses no GPU yet: call use_device() first')
    return device  # type: ignore[no-any-return]  # thread-locals have no types


def _open(index: int) -> Device:
    if unavailable():
        raise DeviceError(unavailable())
    count = call('cuDeviceGetCount')
    if not 0 <= index < count:
        raise DeviceError(f'there is no GPU {index}: the driver finds {count}')
    handle = call('cuDeviceGet', index)
    version = call('cuDriverGetVersion')
    name = call('cuDeviceGetName', 128, handle)
    major = _attribute(index, 'COMPUTE_CAPABILITY_MAJOR')
    minor = _attribute(index, 'COMPUTE_CAPABILITY_MINOR')
    return Device(
        index=index,
        name=name.split(b'\0', 1)[0].decode(errors='replace'),
        sm=f'sm_{major}{minor}',
        total_memory=int(call('cuDeviceTotalMem', handle)),
        driver_version=f'{version // 1000}.{version % 1000 // 10}',
        integrated=bool(_attribute(index, 'INTEGRATED')),
        context=call('cuDevicePrimaryCtxRetain', handle),
    )


def _attribute(index: int, name: str) -> int:
    attribute = getattr(bindings().CUdevice_attribute, f'CU_DEVICE_ATTRIBUTE_{name}')
    return int(call('cuDeviceGetAttribute', attribute, call('cuDeviceGet', index)))
