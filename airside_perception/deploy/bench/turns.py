"""Networks take turns: each for a while, then the next, so that a busy machine slows all alike."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from airside_perception.deploy.bench.settings import BenchSettings

Clock = Callable[[], int]
"""Nanoseconds of a clock that never jumps."""
MS, S = 1_000_000, 1_000_000_000


class Sample(NamedTuple):
    """Times of one inference in milliseconds; NaN: not measured.

    Attributes:
        latency: on the host, from before anything is enqueued until the outputs are there.
        enqueue: of it, until everything is enqueued.
        h2d, compute, d2h: on the GPU: inputs to it, the network, outputs back.
    """

    latency: float
    enqueue: float = math.nan
    h2d: float = math.nan
    compute: float = math.nan
    d2h: float = math.nan


class Work(Protocol):
    """A network that is timed. It has slots, each for one inference in flight."""

    @property
    def slots(self) -> int: ...

    def submit(self, slot: int) -> None:
        """Starts an inference in a free slot."""
        ...

    def finish(self, slot: int) -> Sample:
        """Waits for the inference of a slot, which is free then."""
        ...


@dataclass
class Times:
    """What was measured of one network.

    Attributes:
        rounds: the samples of each turn.
        busy_ns: how long its turns took together.
    """

    rounds: list[list[Sample]] = field(default_factory=list)
    busy_ns: int = 0

    @property
    def count(self) -> int:
        """Inferences."""
        return sum(map(len, self.rounds))

    @property
    def throughput(self) -> float:
        """Inferences per second of its own time."""
        return self.count * S / max(1, self.busy_ns)


def take_turns(
    works: Sequence[Work],
    settings: BenchSettings,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> list[Times]:
    """Times networks: one alone without a break, several round robin, all of them in every round.

    Returns:
        What was measured of each, in their order. All have the same number of rounds.

    Raises:
        EngineError: a network fails.
    """
    for work in works:
        _turn(work, int(settings.warm_up_ms * MS), 1, clock, lambda: progress('warm-up', 0.0))
    duration = int(settings.duration_s * S)
    length, least = duration, settings.iterations
    if len(works) > 1:
        length, least = min(duration, int(settings.turn_ms * MS)), 1
    times = [Times() for _ in works]
    begun = clock()

    def tell() -> None:
        share = (clock() - begun) / max(1, duration * len(works))
        progress('timing', min(share, 1.0))

    while not all(one.busy_ns >= duration and one.count >= settings.iterations for one in times):
        for work, one in zip(works, times, strict=True):
            samples, took = _turn(work, length, least, clock, tell)
            one.rounds.append(samples)
            one.busy_ns += took
    return times


def _turn(
    work: Work, length_ns: int, least: int, clock: Clock, tell: Callable[[], None]
) -> tuple[list[Sample], int]:
    """Keeps all slots busy for a while, then waits for what is in flight."""
    free, busy = deque(range(work.slots)), deque[int]()
    samples: list[Sample] = []
    submitted = 0
    began = clock()
    while True:
        if not free:  # the oldest: inferences of one network end in the order in which they began
            samples.append(work.finish(busy[0]))
            free.append(busy.popleft())
        if submitted >= least and clock() - began >= length_ns:
            break
        tell()
        work.submit(free[0])
        busy.append(free.popleft())
        submitted += 1
    while busy:
        samples.append(work.finish(busy.popleft()))
    return samples, clock() - began
