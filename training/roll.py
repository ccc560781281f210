"""Processes that take pictures with the simulator's camera while the accelerator learns."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

import cv2

from training.photos import Photo, Shooting, photos

MOST = 500
"""Pictures that wait before the processes have to."""


class Roll:
    """Pictures as they are taken. A context manager.

    Worker w of W takes those of the scenes first + w, first + w + W, ... Before that, all take
    the plain pictures of the `kept` scenes, which `held_out` gives.

    Args:
        shooting: how they are taken.
        first: seed of the first scene.
        workers: processes.
        kept: seeds of scenes that are never learnt from.
    """

    def __init__(
        self, shooting: Shooting, first: int, workers: int, kept: range = range(0)
    ) -> None:
        context = multiprocessing.get_context('spawn')
        self._queue: Any = context.Queue(maxsize=2 * workers)
        self._stop = context.Event()
        self._processes = [
            context.Process(
                target=_work,
                args=(self._queue, self._stop, shooting, first + w, workers, kept[w::workers]),
                daemon=True,
            )
            for w in range(workers)
        ]
        self._kept: dict[int, list[Photo]] = {}
        self._wanted = len(kept)
        self._waiting: list[Photo] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Roll:
        for process in self._processes:
            process.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        for process in self._processes:
            process.terminate()
            process.join()

    def take(self, most: int, wait: bool = False) -> Sequence[Photo]:
        """Up to `most` new pictures; with `wait` at least one."""
        while wait and not self._waiting:
            self._wait()
        with self._lock:
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def held_out(self) -> Sequence[Photo]:
        """The pictures of the scenes that were to be kept, by seed; waits for them."""
        while len(self._kept) < self._wanted:
            self._wait()
        return [photo for seed in sorted(self._kept) for photo in self._kept[seed]]

    def _wait(self) -> None:
        if not any(process.is_alive() for process in self._processes):
            raise RuntimeError(
                'every process that takes pictures has died; its traceback is above'
            )
        self._stop.wait(0.05)

    def _receive(self) -> None:
        """Pictures are large: a thread of its own takes them off the queue."""
        while not self._stop.is_set():
            if len(self._waiting) > MOST:
                self._stop.wait(0.05)
                continue
            try:
                seed, taken = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            with self._lock:
                if seed < 0:
                    self._waiting += taken
                else:
                    self._kept[seed] = taken


def _work(out: Any, stop: Any, shooting: Shooting, seed: int, step: int, kept: range) -> None:
    cv2.setNumThreads(1)
    parent = os.getppid()  # another one once it has been killed: then nobody sets `stop`
    for number in itertools.chain(kept, itertools.count(seed, step)):
        held = number in kept
        item = (number if held else -1, photos(number, shooting, plain=held))
        while not stop.is_set() and os.getppid() == parent:
            try:
                out.put(item, timeout=0.5)
                break
            except queue.Full:
                continue
        if stop.is_set() or os.getppid() != parent:
            break
    out.cancel_join_thread()
