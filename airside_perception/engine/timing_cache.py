"""Kernel timings kept from build to build: the second one of a network is quicker."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from airside_perception.cuda.kernels import cache_folder
from airside_perception.engine.capabilities import TensorRT


class TimingCache:
    """The timing cache of one build. A cache that cannot be read or kept costs time, no more.

    Args:
        file: `auto`, empty: none, or a path.
        gpu: its name, part of the name of an `auto` file: timings of one GPU are none of another.

    Attributes:
        notes: what went wrong.
    """

    def __init__(self, tensorrt: TensorRT, file: str | Path, gpu: str) -> None:
        self.notes: list[str] = []
        self._path: Path | None = None
        if not file or not tensorrt.can.timing_cache or tensorrt.flavor == 'rtx':
            return  # TensorRT-RTX has the calls and measures nothing
        name = re.sub(r'\W+', '_', f'{tensorrt}_{gpu}'.lower())
        auto = cache_folder().with_name('timing') / f'{name}.cache'
        self._path = auto if str(file) == 'auto' else Path(file)

    def load(self, config: Any) -> None:
        """Gives the builder what is known; timings of another GPU or TensorRT are left out."""
        if self._path is None:
            return
        cache = config.create_timing_cache(self._read())
        if cache is None or not config.set_timing_cache(cache, False):
            self.notes.append(f'{self._path}: timings of another GPU or TensorRT: not used')
            config.set_timing_cache(config.create_timing_cache(b''), False)

    def save(self, config: Any) -> None:
        """Keeps what is known now, with what other builds have kept meanwhile."""
        if self._path is None:
            return
        cache = config.get_timing_cache()
        if cache is None:
            return
        try:
            with _locked(self._path):
                kept = self._read()
                if kept:
                    cache.combine(config.create_timing_cache(kept), False)
                partial = self._path.with_name(f'.{self._path.name}.{os.getpid()}')
                partial.write_bytes(bytes(cache.serialize()))
                partial.replace(self._path)
        except OSError as error:
            self.notes.append(f'{self._path}: timings cannot be kept: {error.strerror}')

    def _read(self) -> bytes:
        if self._path is not None:
            with suppress(OSError):
                return self._path.read_bytes()
        return b''


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process keeps timings in the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f'{path.name}.lock').open('a') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
