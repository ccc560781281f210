"""Frames of a drive made side by side: one process for each frame that is at work.

A frame is a hundred short NumPy calls, between which threads wait for each other: two of them make
hardly more frames than one. Processes do not wait, but take seconds to start and 0.4 GiB each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait

from airside_perception.errors import PerceptionError
from airside_perception.sim import frames
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.frames import ONE_THREAD, RATE, Frame, Open, Rigged
from airside_perception.sim.rig import Rig
from airside_perception.sim.scene import Scenario

WORTHWHILE = 8
"""Frames that a process must have to make: fewer are made sooner than it has started."""
MOST = 8
"""Processes, unless more are asked for: they take memory, and a container may have no share of all
CPUs that are counted."""


def drive(
    scenario: Scenario,
    rig: Rig,
    seconds: float,
    seed: int,
    conditions: Conditions | None = None,
    processes: int | None = None,
    open_caster: Open = ONE_THREAD,
) -> Generator[Frame, None, None]:
    """The frames of `frames.drive`, byte for byte.

    Processes are spawned: a script that calls this needs `if __name__ == '__main__':`. They end
    with the last frame, or when this is closed.

    Args:
        scenario, rig, seconds, seed, conditions, open_caster: as there; they are pickled.
        processes: how many; None: one a core, fewer where each would have less than WORTHWHILE
            frames to make; 1: threads of this process.

    Raises:
        PerceptionError: a process died.
    """
    count = round(seconds * RATE)
    if processes is None:
        processes = min(len(os.sched_getaffinity(0)), MOST, count // WORTHWHILE)
    if processes <= 1:
        yield from frames.drive(scenario, rig, seconds, seed, conditions, open_caster)
        return
    given = (scenario, rig, seed, conditions or Conditions(), open_caster)
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(processes, context, _begin, given)
    waiting: deque[Future[Frame]] = deque()
    try:
        for number in range(count):
            with _sigint_later():  # this may start a process
                waiting.append(pool.submit(_frame, number))
            if len(waiting) > processes:  # they are at work while this one is used
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise PerceptionError(
            'a process of the simulator ended before its frame was done: it may have run out of '
            'memory, see dmesg; fewer processes need less'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _sigint_later() -> Iterator[None]:
    """Blocks SIGINT, also for processes that start meanwhile: a terminal sends it to all of them,
    and before `_begin` one would answer with a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_rigged: Rigged
_thread: ThreadPoolExecutor


def _begin(scenario: Scenario, rig: Rig, seed: int, conditions: Conditions, opened: Open) -> None:
    """Runs in a new process."""
    global _rigged, _thread
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked for frames ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    frames.without_cv2_threads().__enter__()
    _rigged = Rigged(scenario, rig, seed, conditions, opened)
    _thread = ThreadPoolExecutor(1)


def _frame(number: int) -> Frame:
    return _rigged.frame(number, _thread)


def _end_with_parent() -> None:
    """Nobody ends a process whose parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
