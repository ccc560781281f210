"""What TensorRT calls while it builds. Their base classes are found at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cache_reader(module: Any, cache: bytes) -> Any:
    """A calibrator that has nothing but the scales: no calibration takes place."""
    base: Any = module.IInt8EntropyCalibrator2

    class CacheReader(base):  # type: ignore[misc]  # a class of a module found at run time
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, text: object) -> None:
            """What is known need not be kept."""

    return CacheReader()


def progress_monitor(module: Any, progress: Callable[[float], bool]) -> Any:
    """TensorRT's progress: phases within phases, each with a number of steps."""
    base: Any = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]  # a class of a module found at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.open: dict[str, list[int]] = {}  # in order, outermost first: steps done, of all

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.open[name] = [0, max(1, steps)]

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.open:
                self.open[name][0] = step + 1
            share, part = 0.0, 1.0
            for done, steps in self.open.values():
                share += part * min(done, steps) / steps
                part /= steps
            return progress(min(share, 1.0))

        def phase_finish(self, name: str) -> None:
            self.open.pop(name, None)

    return Monitor()
