"""Medians of alternatives that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CALLS = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: what we do, what a user would otherwise write.

    Attributes:
        task: what is measured.
        goal_ms: the most that the median should be.
        ours_ms: median, milliseconds.
        others_ms: {name: median in milliseconds}.
    """

    task: str
    goal_ms: float
    ours_ms: float
    others_ms: Mapping[str, float]


def compare(
    task: str,
    goal_ms: float,
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    rounds: int = 15,
) -> Row:
    """Runs everybody in turn for `rounds` rounds after one round to warm up.

    A turn is `CALLS` calls in a row, and all count: what the neighbours left in the caches weighs
    on the first of them, as the rest of a vehicle's software does, but does not hide the others.
    """
    everybody = {'': ours, **others}
    times: dict[str, list[float]] = {name: [] for name in everybody}
    for turn in range(rounds + 1):
        for name, work in everybody.items():
            for _ in range(CALLS):
                start = time.perf_counter_ns()
                work()
                if turn:
                    times[name].append((time.perf_counter_ns() - start) / 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Row(task, goal_ms, medians.pop(''), medians)


def table(rows: list[Row]) -> str:
    """Aligned text: task, ours, goal, and every alternative with its ratio to ours."""
    lines = [f'{"task":<58}{"ours":>10}{"goal":>10}   otherwise (times slower)']
    for row in rows:
        others = ', '.join(
            f'{name} {value:.2f} ms ({value / row.ours_ms:.1f}x)'
            for name, value in row.others_ms.items()
        )
        mark = ' ' if row.ours_ms <= row.goal_ms else '!'
        lines.append(f'{row.task:<58}{row.ours_ms:>7.2f} ms{row.goal_ms:>7.1f} ms {mark} {others}')
    return '\n'.join(lines)
