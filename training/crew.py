"""Processes that make numbered things while the accelerator learns from those that exist."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import cv2

Make = Callable[[int, bool], Any]
PATIENCE = 10.0
"""Seconds that the end waits for what is under way."""


class Crew:
    """Workers, and a thread that takes in what they make. A context manager.

    Worker w of W makes numbers first + w, first + w + W, ... Before that, all make the `kept`
    numbers, plain ones, which are `held`.

    Attributes:
        held: {number: thing} of the kept numbers, complete when `wait_for_held` returns.

    Args:
        make: (number, plain) -> thing; must be picklable.
        take: gets every other thing, in the thread.
        first: first number; workers: processes; kept: numbers that are never learnt from.
        full: whether the processes had better wait.
    """

    def __init__(
        self,
        make: Make,
        take: Callable[[Any], None],
        first: int,
        workers: int,
        kept: range = range(0),
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._queue: Any = context.Queue(maxsize=4 * workers)
        self._stop = context.Event()
        self._processes = [
            context.Process(
                target=_work,
                args=(self._queue, self._stop, make, first + w, workers, kept[w::workers]),
                daemon=True,
            )
            for w in range(workers)
        ]
        self.held: dict[int, Any] = {}
        self._wanted = len(kept)
        self._error: Exception | None = None
        self._take, self._full = take, full
        self._enough = threading.Event()  # for the thread, before `_stop` for the processes
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Crew:
        for process in self._processes:
            process.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # The thread first: of what a process was still sending when it ended it would wait for the
        # rest for ever. So it does where one was killed; it is left behind then.
        self._enough.set()
        self._thread.join(PATIENCE)
        self._stop.set()
        for process in self._processes:
            process.terminate()
            process.join()

    def wait(self) -> None:
        """For a moment.

        Raises:
            RuntimeError: a process has died, or what it made could not be taken in.
        """
        if self._error is not None:
            raise RuntimeError(f'data could not be taken in: {self._error}') from self._error
        if any(process.exitcode is not None for process in self._processes):
            raise RuntimeError('a process that makes data has died; its traceback is above')
        self._enough.wait(0.05)

    def wait_for_held(self) -> list[Any]:
        """The kept things, by number."""
        while len(self.held) < self._wanted:
            self.wait()
        return [self.held[number] for number in sorted(self.held)]

    def _receive(self) -> None:
        try:
            self._take_in()
        except Exception as error:  # noqa: BLE001  (handed over to whoever waits)
            self._error = error

    def _take_in(self) -> None:
        while not self._enough.is_set():
            if self._full():
                self._enough.wait(0.05)
                continue
            try:
                number, plain, thing = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if plain:
                self.held[number] = thing
            else:
                self._take(thing)


def _work(out: Any, stop: Any, make: Make, first: int, step: int, kept: range) -> None:
    cv2.setNumThreads(1)
    if 'torch' in sys.modules:  # pictures are taken without it
        sys.modules['torch'].set_num_threads(1)
    parent = os.getppid()  # another one once it has been killed: then nobody sets `stop`
    for number in itertools.chain(kept, itertools.count(first, step)):
        plain = number in kept
        item = (number, plain, make(number, plain))
        while not stop.is_set() and os.getppid() == parent:
            try:
                out.put(item, timeout=0.5)
                break
            except queue.Full:
                continue
        if stop.is_set() or os.getppid() != parent:
            break
    out.cancel_join_thread()
