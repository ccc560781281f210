"""How long the steps of an algorithm take."""

from __future__ import annotations

import time


class Laps:
    """A stopwatch on the steady clock: `laps('decode')` ends the step of that name.

    Attributes:
        ms: {step: milliseconds}.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._last = time.perf_counter_ns()

    def __call__(self, step: str) -> None:
        now = time.perf_counter_ns()
        self.ms[step] = (now - self._last) / 1e6
        self._last = now
