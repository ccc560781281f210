"""A GPU for NVIDIA's bindings where there is none: driver.cpp as libcuda.so.1.

    AIRSIDE_EMULATED_GPU=1 pytest test/gpu

runs the tests of the GPU through the real bindings and the package's real runtime on a CPU.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from emulate import HERE, EmulationError, emulate, unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = 'libcuda.so.1'
DEVICE = 'emulated GPU'


def wanted() -> bool:
    """Whether this run asks for it."""
    return os.environ.get('AIRSIDE_EMULATED_GPU') == '1'


def install() -> None:
    """Loads the driver and lets the emulator compile kernels, for the rest of this process.

    Raises:
        EmulationError: g++ is missing, or the driver does not compile.
    """
    if unavailable():
        raise EmulationError(unavailable())
    ctypes.CDLL(str(_driver()), ctypes.RTLD_GLOBAL)  # by its name, the bindings find this one
    cache = tempfile.mkdtemp(prefix='emulated-kernels-')  # these are no kernels for a GPU
    os.environ['AIRSIDE_PERCEPTION_CACHE'] = cache
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    from airside_perception.cuda import kernels

    def compiled(name: str, options: Sequence[str], *_: str) -> tuple[bytes, str]:
        library = emulate(name, tuple(options), folder=kernels.SOURCES).path
        return library.read_bytes(), ''

    kernels._compile = compiled


def _driver() -> Path:
    source = HERE / 'driver.cpp'
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f'airside-perception-emulator-{os.getuid()}', digest)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = folder / NAME
    if not library.exists():
        part = folder / f'part-{os.getpid()}'
        done = subprocess.run(
            ['g++', '-std=c++17', '-O1', '-shared', '-fPIC', f'-Wl,-soname,{NAME}', str(source),
             '-o', str(part), '-ldl'],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise EmulationError(f'driver.cpp does not compile:\n{done.stderr[:8000]}')
        os.replace(part, library)
    return library
