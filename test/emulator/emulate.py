"""Runs the package's CUDA kernels on the CPU: compiled by g++ against emulator.hpp.

    bin_points = emulate('pillars.cu', ('-DCHANNELS=64',)).kernel('bin_points')
    bin_points(grid, block, points, np.int32(n))

NumPy arrays stand for pointers, NumPy scalars for values. The order of blocks and threads is drawn
from `seed`: a result that depends on it is a race.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / 'airside_perception' / 'cuda'
SHARED_LIMIT = 163 * 1024  # bytes of shared memory a block may have on sm_87
# What a GPU does differently, or stops at, where C++ only calls the behaviour undefined
CHECKS = '-fsanitize=alignment,bounds,shift-exponent,float-cast-overflow'

_KERNEL = re.compile(r'__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
_MACRO_KERNEL = re.compile(r'^\s*KERNEL\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(', re.M)
_DYNAMIC = re.compile(
    r'extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;'
)
_lock = threading.Lock()


class EmulationError(Exception):
    """A kernel that does not compile, or did what a GPU forbids."""


def unavailable() -> str:
    """Why nothing can be emulated here; '' if it can."""
    return '' if shutil.which('g++') else 'g++ is not installed: kernels cannot be emulated'


def emulate(
    name: str,
    options: Sequence[str] = (),
    *,
    contract: bool = False,
    folder: Path = SOURCES,
) -> Emulation:
    """The kernels of one .cu file.

    Args:
        options: as given to the CUDA compiler; only -D is understood.
        contract: a * b + c is rounded once where the compiler sees one, as the CUDA compiler does
            (on a CPU without FMA: has no effect).
    """
    return _emulate(name, tuple(options), contract, folder)


@functools.cache
def _emulate(name: str, options: tuple[str, ...], contract: bool, folder: Path) -> Emulation:
    return Emulation(name, options, contract, folder)


class Emulation:
    """One .cu file, compiled and loaded."""

    def __init__(self, name: str, options: tuple[str, ...], contract: bool, folder: Path) -> None:
        self.name = name
        source = (folder / name).read_text(encoding='utf-8')
        headers = {
            path.name: path.read_text(encoding='utf-8')
            for path in (*SOURCES.glob('*.cuh'), *folder.glob('*.cuh'))
        }
        self.kernels = tuple(_KERNEL.findall(source) + _MACRO_KERNEL.findall(source))
        self.path = _compiled(name, source, headers, options, contract, self.kernels)
        """The shared library."""
        self._library = ctypes.CDLL(str(self.path))

    def kernel(self, name: str) -> EmulatedKernel:
        """The kernel of that name.

        Raises:
            EmulationError: there is none.
        """
        if name not in self.kernels:
            raise EmulationError(f'{self.name}: no kernel {name!r}; it has {self.kernels}')
        return EmulatedKernel(f'{self.name}:{name}', self._library, name)


class EmulatedKernel:
    """Called as the launcher of the real kernel is, without its stream."""

    def __init__(self, name: str, library: ctypes.CDLL, symbol: str) -> None:
        self.name = name
        signature = library[f'emulated_signature_{symbol}']
        signature.restype = ctypes.c_char_p
        self.parameters = tuple(signature().decode().split(',')[:-1])
        self._run = library[f'emulated_{symbol}']
        self._run.restype = ctypes.c_char_p
        self._run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_uint, ctypes.c_ulonglong]

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *arguments: Any,
        shared: int = 0,
        seed: int = 0,
    ) -> None:
        """Runs the whole grid.

        Raises:
            TypeError: wrong number or type of arguments.
            EmulationError: the kernel did what a GPU forbids; names block and thread.
        """
        grid, block = _dimensions(grid), _dimensions(block)
        threads = block[0] * block[1] * block[2]
        if min(*grid, *block) < 1 or threads > 1024 or max(grid[1:]) > 65535:
            raise EmulationError(f'{self.name}: grid {grid} of blocks {block} cannot be launched')
        if not 0 <= shared <= SHARED_LIMIT:
            raise EmulationError(
                f'{self.name}: {shared} bytes of shared memory, most {SHARED_LIMIT}'
            )
        if len(arguments) != len(self.parameters):
            raise TypeError(
                f'{self.name} takes {len(self.parameters)} arguments, {len(arguments)} given'
            )
        values = [
            _value(f'{self.name}, argument {i}', code, argument)
            for i, (code, argument) in enumerate(zip(self.parameters, arguments, strict=True))
        ]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        three = ctypes.c_uint * 3
        with _lock:  # the threads of a block are state of the library
            error = self._run(pointers, three(*grid), three(*block), shared, seed)
        if error:
            raise EmulationError(f'{self.name}: {error.decode()}')


def _dimensions(size: int | Sequence[int]) -> tuple[int, ...]:
    given = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    return tuple(int(n) for n in (*given, 1, 1)[:3])


def _value(where: str, code: str, argument: Any) -> np.ndarray[Any, Any]:
    """The argument as an array of one element whose address the kernel gets."""
    if isinstance(argument, np.ndarray):
        if not code.startswith('p'):
            raise TypeError(f'{where} is an array, the kernel takes {code} by value')
        if not argument.flags.c_contiguous:
            raise TypeError(f'{where}: the array is not contiguous')
        if not _points_to(code[1:], argument.dtype):
            raise TypeError(f'{where}: array of {argument.dtype}, the kernel points to {code[1:]}')
        return np.array([argument.ctypes.data], np.uint64)
    if hasattr(argument, 'address') and not isinstance(argument, np.generic):
        argument = np.uint64(argument.address)
    if not isinstance(argument, np.generic):
        raise TypeError(f'{where}: {argument!r} is no array and no NumPy scalar (np.int32(...))')
    kind = {'b': 'u', 'V': 's'}.get(argument.dtype.kind, argument.dtype.kind)
    given = f'{kind}{argument.dtype.itemsize}'
    if given != code and not (code.startswith('p') and given == 'u8'):
        raise TypeError(f'{where} is {given}, the kernel takes {code}')
    return np.array([argument])


def _points_to(code: str, dtype: np.dtype[Any]) -> bool:
    """Whether memory of this dtype may be read through a pointer of that code."""
    if code[0] in 'svp' or dtype.itemsize == 1 or dtype.kind == 'V':
        return True
    same_kind = (code[0] == 'f') == (dtype.kind == 'f') or dtype == np.float16
    return same_kind and int(code[1:]) == dtype.itemsize


def _compiled(
    name: str,
    source: str,
    headers: dict[str, str],
    options: tuple[str, ...],
    contract: bool,
    kernels: tuple[str, ...],
) -> Path:
    """The shared library of one source and its options, compiled unless it is there already."""
    if unavailable():
        raise EmulationError(unavailable())
    flags = ['-std=c++17', '-O1', '-fPIC', '-w', '-fno-strict-aliasing', '-fwrapv', CHECKS]
    flags += ['-DEMULATED', *(option for option in options if option.startswith(('-D', '-U')))]
    if contract and platform.machine() == 'x86_64':
        contract = ' fma ' in Path('/proc/cpuinfo').read_text(encoding='utf-8')
        flags += ['-mfma'] * contract
    flags.append('-ffp-contract=fast' if contract else '-ffp-contract=off')
    unit = '\n'.join(
        [
            '#include "emulator.hpp"',
            f'namespace device {{ namespace {{\n#include "{name}"\n}} }}',
            *(_entry(kernel) for kernel in kernels),
        ]
    )
    emulator = (HERE / 'emulator.hpp').read_text(encoding='utf-8')
    texts = {**headers, name: source, 'unit.cpp': unit, 'emulator.hpp': emulator}
    digest = hashlib.sha256(repr((sorted(texts.items()), flags)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir(), f'airside-perception-emulator-{os.getuid()}')
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f'{Path(name).stem}-{digest}.so'
    if library.exists():
        return library
    with open(library.with_suffix('.lock'), 'w', encoding='utf-8') as lock:
        # Where two processes run the same tests, one compiles and the other waits for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        with tempfile.TemporaryDirectory(dir=folder) as work:
            for file, text in texts.items():
                Path(work, file).write_text(_plain(text) if file != 'emulator.hpp' else text)
            _run_compiler([*flags, '-c', 'unit.cpp', '-o', 'unit.o'], work, name)
            _run_compiler(['-shared', 'unit.o', '-o', 'unit.so'], work, name)
            os.replace(Path(work, 'unit.so'), library)
    return library


def _entry(kernel: str) -> str:
    entry = f'emulator::Entry<&device::{kernel}>'
    return f"""
extern "C" const char* emulated_signature_{kernel}() {{ return {entry}::signature(); }}
extern "C" const char* emulated_{kernel}(void** values, const unsigned* grid,
                                         const unsigned* block, unsigned shared,
                                         unsigned long long seed) {{
  return emulator::launch({entry}::call, values, grid, block, shared, seed);
}}"""


def _plain(text: str) -> str:
    """CUDA C++ without what g++ cannot be taught by macros; lines keep their numbers."""
    text = text.replace('#pragma unroll', '// unroll')
    text = re.sub(r'extern\s+"C"\s*\{', 'namespace {', text)
    text = re.sub(r'extern\s+"C"\s+(?=__global__|void|__launch)', '', text)
    text = re.sub(r'static\s+__shared__', '__shared__', text)
    return _DYNAMIC.sub(r'\1* \2 = reinterpret_cast<\1*>(emulator::dynamic_shared());', text)


def _run_compiler(arguments: list[str], work: str, name: str) -> None:
    done = subprocess.run(
        ['g++', *arguments], cwd=work, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EmulationError(f'{name} does not compile:\n{done.stderr[:8000]}')
