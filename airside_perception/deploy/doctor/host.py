"""How the doctor looks at a machine: small functions, each of which a test can replace."""

from __future__ import annotations

import ctypes
import glob
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from airside_perception.cuda import runtime
from airside_perception.cuda.kernels import cache_folder
from airside_perception.cuda.runtime import Device
from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.engine.trt_log import collect, logger
from airside_perception.errors import DeviceError, EngineError

TIMEOUT_S = 10.0
NVRTC = ('cuda.bindings.nvrtc', 'cuda.nvrtc')


def _read(path: str) -> str:
    """Text of a file; OSError where it cannot be read."""
    return Path(path).read_text(encoding='utf-8', errors='replace')


def _run(words: Sequence[str]) -> str:
    """What a program prints; OSError where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors='replace', timeout=TIMEOUT_S, check=True
        )
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    return done.stdout


def _installed(module: str) -> str:
    """Version of a module; ImportError, or whatever it raises, where it cannot be used."""
    found = importlib.import_module(module)
    return str(getattr(found, '__version__', 'unknown version'))


def _free(path: str) -> int:
    """Bytes that are free on the disk of a path, or of the nearest folder that exists."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _nvrtc() -> tuple[int, int]:
    """Version of the CUDA compiler.

    Raises:
        DeviceError: none that works.
    """
    for name in NVRTC:
        try:
            error, major, minor = importlib.import_module(name).nvrtcVersion()
        except ImportError:
            continue
        except (RuntimeError, OSError) as failure:  # its library is missing
            raise DeviceError(' '.join(str(failure).split())) from failure
        if int(error):
            raise DeviceError(f'nvrtcVersion: {error}')
        return int(major), int(minor)
    raise DeviceError('the Python package cuda-bindings is missing')


def _dla_cores(tensorrt: TensorRT) -> int:
    """DLA cores that TensorRT sees; a GPU must be there.

    Raises:
        EngineError: TensorRT does not start.
    """
    runtime.use_device()
    with collect() as said:
        started = tensorrt.module.Runtime(logger(tensorrt))
        if said.errors:  # an empty shell: to destroy it would end the process
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(started))
            raise EngineError(f'{tensorrt} does not start: {said.reason()}')
    return int(started.num_DLA_cores)


@dataclass(frozen=True)
class Host:
    """A machine, as functions.

    Attributes:
        read: text of a file; raises OSError.
        run: output of a program; raises OSError.
        glob: paths that match a pattern.
        installed: version of a Python module; raises what its import raises.
        free_disk: free bytes on the disk of a path; raises OSError.
        no_gpu: why there is no GPU; empty: there is one.
        gpu: the GPU; raises DeviceError.
        nvrtc: (major, minor) of the CUDA compiler; raises DeviceError.
        tensorrt: the one that is used; raises EngineError.
        dla_cores: how many it sees; raises EngineError.
        environment: variables.
        cache: folder of kernels and timings.
    """

    read: Callable[[str], str] = _read
    run: Callable[[Sequence[str]], str] = _run
    glob: Callable[[str], list[str]] = glob.glob
    installed: Callable[[str], str] = _installed
    free_disk: Callable[[str], int] = _free
    no_gpu: Callable[[], str] = runtime.unavailable
    gpu: Callable[[], Device] = runtime.use_device
    nvrtc: Callable[[], tuple[int, int]] = _nvrtc
    tensorrt: Callable[[], TensorRT] = load_tensorrt
    dla_cores: Callable[[TensorRT], int] = _dla_cores
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cache: str = field(default_factory=lambda: str(cache_folder()))

    def text(self, path: str) -> str:
        """Text of a file, without the line's end; empty where there is none."""
        try:
            return self.read(path).strip('\0\n ')
        except OSError:
            return ''
