"""How long the steps of a frame take on the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from airside_perception.cuda.queue import DeviceQueue, Queue
from airside_perception.cuda.stream import Event

MARGIN = 2.0
"""The GPU waits so many times as long as the host needed to enqueue everything."""
LEAST_WAIT_S = 0.5e-3


def step_times(
    queue: Queue, steps: Mapping[str, Callable[[], None]], repeats: int
) -> dict[str, float]:
    """Median time of each step in microseconds, from event to event on the queue's stream.

    The GPU is kept waiting until the host has enqueued all steps, so that the time that Python
    takes between two launches is not in the figures; the GPU's own pause between two launches is.
    A queue that emulates the GPU is timed by the host's clock.

    Raises:
        DeviceError: a step failed.
    """
    measured = [_device_times(queue, steps) if isinstance(queue, DeviceQueue)
                else _host_times(steps) for _ in range(repeats)]  # fmt: skip
    return dict(zip(steps, np.median(measured, axis=0).tolist(), strict=True))


def _device_times(queue: DeviceQueue, steps: Mapping[str, Callable[[], None]]) -> list[float]:
    began = time.perf_counter()
    _enqueue(steps)
    wait = max(LEAST_WAIT_S, MARGIN * (time.perf_counter() - began))
    queue.synchronize()
    marks = [Event() for _ in range(len(steps) + 1)]
    try:
        queue.launch('profile.cu', (), 'wait', 1, 1, np.uint64(round(wait * 1e9)))
        marks[0].record(queue.stream)
        for mark, step in zip(marks[1:], steps.values(), strict=True):
            step()
            mark.record(queue.stream)
        queue.synchronize()
        pairs = zip(marks[1:], marks[:-1], strict=True)
        return [1e3 * mark.elapsed_ms(before) for mark, before in pairs]
    finally:
        for mark in marks:
            mark.close()


def _host_times(steps: Mapping[str, Callable[[], None]]) -> list[float]:
    marks = [time.perf_counter()]
    for step in steps.values():
        step()
        marks.append(time.perf_counter())
    return [1e6 * duration for duration in np.diff(marks)]


def _enqueue(steps: Mapping[str, Callable[[], None]]) -> None:
    for step in steps.values():
        step()
