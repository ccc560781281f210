"""Power, temperatures and clocks while something runs, sampled in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from airside_perception.closing import Closing

INTERVAL_S = 0.1
PATIENCE_S = 1.0
"""With the last reading."""


@dataclass(frozen=True)
class Reading:
    """What sensors said at one time.

    Attributes:
        values: {quantity with its unit: number}, e.g. `power_w`, `temperature_gpu_c`,
            `gpu_load_pct`, `gpu_clock_mhz`. What a machine does not have is left out.
        slowed: why clocks were lowered, e.g. `power cap`.
    """

    values: Mapping[str, float]
    slowed: tuple[str, ...] = ()


class Source(Protocol):
    """Where readings come from."""

    name: str

    def read(self, stop: threading.Event) -> Reading | None:
        """The next reading, about `INTERVAL_S` after the last; None where there are no more."""
        ...

    def close(self) -> None:
        """Ends it, and a `read` that waits in another thread; may be called again."""
        ...


@dataclass(frozen=True)
class Spread:
    """Of one quantity over a run."""

    mean: float
    min: float
    max: float


@dataclass(frozen=True)
class SensorSummary:
    """What sensors said over a run.

    Attributes:
        source: whose sensors; empty: there are none.
        samples: readings.
        values: {quantity: its spread}.
        slowed: {why clocks were lowered: share of the readings, 0 to 1}.
        power_mode: of a Jetson, e.g. `MAXN`; empty: not known.
    """

    source: str = ''
    samples: int = 0
    values: Mapping[str, Spread] = field(default_factory=dict)
    slowed: Mapping[str, float] = field(default_factory=dict)
    power_mode: str = ''


class Sampler(Closing):
    """Collects readings from its making until it is closed.

    Args:
        source: closed with this; None: there is nothing to collect.
    """

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._stop = threading.Event()
        self._readings: list[Reading] = []
        self._thread: threading.Thread | None = None
        if source is not None:
            self._thread = threading.Thread(target=self._collect, args=(source,), daemon=True)
            self._thread.start()

    def _collect(self, source: Source) -> None:
        while not self._stop.is_set():
            reading = source.read(self._stop)
            if reading is None:
                return
            if reading.values:
                self._readings.append(reading)

    def close(self) -> None:
        """Ends the collection; may be called again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
        if self._source is not None:
            self._source.close()  # ends a reading that does not come
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def summary(self, power_mode: str = '') -> SensorSummary:
        """Of the readings so far."""
        name = self._source.name if self._source is not None else ''
        return summarize(name, list(self._readings), power_mode)


def summarize(source: str, readings: Sequence[Reading], power_mode: str = '') -> SensorSummary:
    """Means and extremes of every quantity, over the readings that have it."""
    names = dict.fromkeys(name for reading in readings for name in reading.values)
    values = {}
    for name in names:
        found = [reading.values[name] for reading in readings if name in reading.values]
        values[name] = Spread(sum(found) / len(found), min(found), max(found))
    reasons = dict.fromkeys(reason for reading in readings for reason in reading.slowed)
    slowed = {
        reason: sum(reason in reading.slowed for reading in readings) / len(readings)
        for reason in reasons
    }
    return SensorSummary(source, len(readings), values, slowed, power_mode)


def find_source(on_gpu: bool) -> Source | None:
    """The sensors of this machine: tegrastats on a Jetson, else NVML where a GPU is measured.

    Args:
        on_gpu: whether anything that is measured runs on a GPU.
    """
    from airside_perception.deploy.bench import nvml, tegrastats

    return tegrastats.open_source() or (nvml.open_source() if on_gpu else None)
