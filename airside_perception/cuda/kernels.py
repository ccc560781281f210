"""The package's CUDA kernels: compiled by NVRTC for the GPU at hand, kept on disk, launched.

A compiled kernel (cubin) is found by its sources, options and architecture alone: one that was
compiled elsewhere runs where no compiler is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from airside_perception.cuda import driver
from airside_perception.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from airside_perception.cuda.runtime import Stream

SOURCES = Path(__file__).resolve().parent
INSTALL = 'install nvidia-cuda-nvrtc (13.x) or nvidia-cuda-nvrtc-cu12 (12.x) beside cuda-bindings'
_ELF = b'\x7fELF'  # how a cubin begins
_DEFAULT_SHARED = 48 * 1024  # bytes a block may have unless it asks for more
_STANDARD = '--std=c++17'

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_modules: dict[tuple[int, str, tuple[str, ...]], Module] = {}


def cache_folder() -> Path:
    """Where compiled kernels are kept; the folder may not exist yet."""
    for variable, below in (
        ('AIRSIDE_PERCEPTION_CACHE', ''),
        ('XDG_CACHE_HOME', 'airside_perception'),
    ):
        if os.environ.get(variable):
            return Path(os.environ[variable], below, 'kernels')
    return Path(os.path.expanduser('~'), '.cache', 'airside_perception', 'kernels')


def compile_source(name: str, options: Sequence[str] = (), arch: str = 'sm_90') -> bytes:
    """The cubin of one .cu file of this package, from the cache if it is there.

    Args:
        options: of the compiler, such as '-DCHANNELS=64'.
        arch: the GPU's architecture; none needs to be present.

    Raises:
        DeviceError: the file does not exist or does not compile (with the compiler's words), or
            it is not in the cache and no compiler is installed.
    """
    path = cached_path(name, options, arch)
    with contextlib.suppress(OSError):
        cubin = path.read_bytes()
        if cubin.startswith(_ELF):
            return cubin
    cubin = _compile(name, options, arch)[0]
    _keep(path, cubin)
    return cubin


def cached_path(name: str, options: Sequence[str] = (), arch: str = 'sm_90') -> Path:
    """The file that holds this cubin once it is compiled.

    Raises:
        DeviceError: there is no such source, or the architecture is no name like 'sm_87'.
    """
    if not re.fullmatch(r'sm_\d+[a-z]?', arch):
        raise DeviceError(f'{arch!r} is no architecture: they are named like sm_87')
    digest = hashlib.sha256()
    texts = {name: _source(name), **_headers()}
    words = [word for item in sorted(texts.items()) for word in item]
    for part in (arch, _STANDARD, *options, *words):
        digest.update(part.encode() + b'\0')
    return cache_folder() / f'{Path(name).stem}-{arch}-{digest.hexdigest()[:32]}.cubin'


def resources(name: str, options: Sequence[str] = (), arch: str = 'sm_90') -> str:
    """What the assembler says of a file's kernels: registers, shared memory, spills."""
    return _compile(name, options, arch, '--ptxas-options=--verbose')[1]


def load(name: str, options: Sequence[str] = ()) -> Module:
    """The kernels of one .cu file on the calling thread's GPU; loaded once a process.

    What the driver refuses is compiled once more: the file that was kept may be damaged.

    Raises:
        DeviceError: see compile_source; or the driver refuses the cubin.
    """
    device = driver.current_device()
    key = (device.index, name, tuple(options))
    with _lock:
        if key not in _modules:
            cubin = compile_source(name, options, device.sm)
            try:
                _modules[key] = Module(name, cubin, device)
            except DeviceError as error:
                _modules[key] = _compiled_again(name, options, device, error)
        return _modules[key]


def _compiled_again(
    name: str, options: Sequence[str], device: driver.Device, refused: DeviceError
) -> Module:
    path = cached_path(name, options, device.sm)
    if refused.lost or not path.is_file():
        raise refused
    try:
        cubin = _compile(name, options, device.sm)[0]
    except DeviceError as error:
        raise DeviceError(f'{path}: {refused}; {error}') from refused
    module = Module(name, cubin, device)
    _log.warning('%s was damaged and is replaced: %s', path, refused)
    _keep(path, cubin)
    return module


class Module:
    """One .cu file, loaded on one GPU for as long as the process lives."""

    def __init__(self, name: str, cubin: bytes, device: driver.Device) -> None:
        self.name = name
        self._device = device
        self._handle = driver.call('cuModuleLoadData', cubin)
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name.

        Raises:
            DeviceError: the file has none.
        """
        if name not in self._kernels:
            try:
                handle = driver.call('cuModuleGetFunction', self._handle, name.encode())
            except DeviceError as error:
                raise DeviceError(f'{self.name} has no kernel {name!r}: {error}') from error
            self._kernels[name] = Kernel(f'{self.name}:{name}', handle, self._device)
        return self._kernels[name]


class Kernel:
    """Called to launch: kernel(stream, grid, block, *arguments)."""

    def __init__(self, name: str, handle: Any, device: driver.Device) -> None:
        self.name = name
        self._handle = handle
        self._device = device
        self._sizes = _parameter_sizes(handle)
        attributes = driver.bindings().CUfunction_attribute
        self._shared_attribute = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        static = attributes.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
        self._most_shared = _DEFAULT_SHARED - driver.call('cuFuncGetAttribute', static, handle)

    def __call__(
        self,
        stream: Stream,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *arguments: Any,
        shared: int = 0,
    ) -> None:
        """Launches the kernel; the arguments are read before this returns.

        Args:
            grid: blocks, along x or along (x, y).
            block: threads of a block, likewise.
            arguments: objects with an `address`, or NumPy scalars of the parameter's type.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: an argument is a Python number, whose size the kernel could not know.
            DeviceError: the number or sizes of the arguments are wrong, or the launch failed.
        """
        sizes, values = _packed(self.name, arguments)
        if self._sizes is not None and self._sizes != sizes:
            raise DeviceError(
                f'{self.name} takes arguments of {self._sizes} bytes, given were {sizes}'
            )
        if shared > self._most_shared:
            driver.call('cuFuncSetAttribute', self._handle, self._shared_attribute, shared)
            self._most_shared = shared
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(map(ctypes.addressof, values)))
        try:
            driver.call(
                'cuLaunchKernel', self._handle, *_three(grid), *_three(block), shared,
                stream.handle, ctypes.addressof(pointers), 0,
            )  # fmt: skip
        except DeviceError as error:
            raise DeviceError(f'{self.name}, grid {grid} of blocks {block}: {error}') from error


def _packed(name: str, arguments: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """Sizes in bytes of the arguments, and their values in memory."""
    sizes: list[int] = []
    values: list[Any] = []
    for i, argument in enumerate(arguments):
        if isinstance(argument, np.generic):
            raw = argument.tobytes()
            sizes.append(len(raw))
            values.append(ctypes.create_string_buffer(raw, max(8, len(raw))))
        elif hasattr(argument, 'address'):
            sizes.append(8)
            values.append(ctypes.c_uint64(argument.address))
        else:
            raise TypeError(
                f'{name}, argument {i}: {argument!r} has no address and is no NumPy scalar '
                '(np.int32(...), np.uint64(address))'
            )
    return tuple(sizes), values


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    given = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    x, y, z = (*given, 1, 1)[:3]
    return int(x), int(y), int(z)


def _parameter_sizes(handle: Any) -> tuple[int, ...] | None:
    """Bytes of each parameter of a kernel; None where the driver cannot say (before CUDA 12.4)."""
    ask = getattr(driver.bindings(), 'cuFuncGetParamInfo', None)
    sizes: list[int] = []
    while ask is not None and len(sizes) < 128:
        try:
            code, _, size = ask(handle, len(sizes))
        except (RuntimeError, OSError, KeyError):  # the driver lacks the function
            return None
        if int(code) != 0:  # no parameter of that number; the driver has no count to ask for
            break
        sizes.append(int(size))
    return tuple(sizes) or None


def _source(name: str) -> str:
    try:
        return (SOURCES / name).read_text(encoding='utf-8')
    except OSError as error:
        have = ', '.join(sorted(path.name for path in SOURCES.glob('*.cu')))
        raise DeviceError(f'there are no kernels {name!r}; there are {have or "none"}') from error


def _headers() -> dict[str, str]:
    return {path.name: path.read_text(encoding='utf-8') for path in SOURCES.glob('*.cuh')}


def _compile(name: str, options: Sequence[str], arch: str, *more: str) -> tuple[bytes, str]:
    """The cubin and what the compiler said."""
    nvrtc = _nvrtc()
    headers = _headers()
    flags = [f'--gpu-architecture={arch}', _STANDARD, *options, *more]
    created = nvrtc.nvrtcCreateProgram(
        _source(name).encode(), name.encode(), len(headers),
        [text.encode() for text in headers.values()], [file.encode() for file in headers],
    )  # fmt: skip
    program = _checked(nvrtc, created, f'{name}: nvrtcCreateProgram')
    try:
        done = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        size = _checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program), name)
        log = bytes(size + 16)  # long enough to be an object of its own, which is written to
        _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log), name)
        words = log.rstrip(b'\0\n').decode(errors='replace')
        if int(done[0]) != 0:
            raise DeviceError(f'{name} does not compile for {arch} with {list(options)}:\n{words}')
        size = _checked(nvrtc, nvrtc.nvrtcGetCUBINSize(program), name)
        cubin = bytes(size)
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN(program, cubin), name)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin, words


@functools.lru_cache(maxsize=1)
def _nvrtc() -> ModuleType:
    """The bindings of the compiler, whose library really is there."""
    for name in ('cuda.bindings.nvrtc', 'cuda.nvrtc'):
        try:
            module = __import__(name, fromlist=['nvrtc'])
        except ImportError:
            continue
        try:
            _checked(module, module.nvrtcVersion(), 'nvrtcVersion')
        except (RuntimeError, OSError) as error:
            why = ' '.join(str(error).split())
            raise DeviceError(f'kernels cannot be compiled here ({why}): {INSTALL}') from error
        return module
    raise DeviceError(f'kernels cannot be compiled here, cuda-bindings is missing: {INSTALL}')


def _checked(nvrtc: ModuleType, result: tuple[Any, ...], where: str) -> Any:
    if int(result[0]) != 0:
        raise DeviceError(f'{where}: {nvrtc.nvrtcGetErrorString(result[0])[1]!r}')
    return result[1] if len(result) == 2 else result[1:]


def _keep(path: Path, cubin: bytes) -> None:
    """Writes the cubin whole or not at all; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(cubin)
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
    except OSError as error:
        _log.warning('compiled kernels are not kept in %s: %s', path.parent, error)
