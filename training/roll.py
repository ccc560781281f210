"""Pictures that processes take with the simulator's camera while the accelerator learns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from training.crew import Crew
from training.photos import Photo, Shooting, photos

MOST = 500
"""Pictures that wait before the processes have to."""


class Roll:
    """Pictures as they are taken. A context manager.

    Args:
        shooting: how they are taken.
        first: seed of the first scene; see `Crew`, as for the others.
        workers: processes.
        kept: seeds of scenes that are never learnt from.
    """

    def __init__(
        self, shooting: Shooting, first: int, workers: int, kept: range = range(0)
    ) -> None:
        self._waiting: list[Photo] = []
        self._lock = threading.Lock()
        make = partial(_taken, shooting)
        self._crew = Crew(make, self._add, first, workers, kept, lambda: len(self._waiting) > MOST)

    def __enter__(self) -> Roll:
        self._crew.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._crew.__exit__(*error)

    def take(self, most: int, wait: bool = False) -> Sequence[Photo]:
        """Up to `most` new pictures; with `wait` at least one."""
        while wait and not self._waiting:
            self._crew.wait()
        with self._lock:
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def held_out(self) -> Sequence[Photo]:
        """The pictures of the scenes that were to be kept, by seed; waits for them."""
        return [photo for taken in self._crew.wait_for_held() for photo in taken]

    def _add(self, taken: list[Photo]) -> None:
        with self._lock:
            self._waiting += taken


def _taken(shooting: Shooting, seed: int, plain: bool) -> list[Photo]:
    return photos(seed, shooting, plain)
