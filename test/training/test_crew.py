"""Processes that make data: numbers, what dies, what cannot be taken in."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from training.crew import Crew

MAKERS = """
def made(fatal, number, plain):
    if number == fatal:
        raise ValueError(f'no {number}')
    return number, plain
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bool]]:
    """A function that the processes can import: they know no module of the tests."""
    tmp_path.joinpath('crew_makers.py').write_text(MAKERS, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'crew_makers', raising=False)
    return importlib.import_module('crew_makers').made


def wait_until(crew: Crew, there: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not there():
        crew.wait()
        assert time.monotonic() < end


def test_every_number_once_and_the_kept_ones_apart(made):
    taken: list[tuple[int, bool]] = []
    with Crew(partial(made, -1), taken.append, 100, 2, range(5, 8)) as crew:
        assert crew.wait_for_held() == [(5, True), (6, True), (7, True)]
        wait_until(crew, lambda: len(taken) >= 20)
    numbers = [number for number, _ in taken]
    assert len(set(numbers)) == len(numbers)
    assert not any(plain for _, plain in taken)
    for worker in (0, 1):  # each makes every second one, without a gap
        own = [number for number in numbers if number % 2 == worker]
        assert own == list(range(100 + worker, 100 + worker + 2 * len(own), 2))


def test_processes_wait_while_nobody_has_room(made):
    taken: list[tuple[int, bool]] = []
    with Crew(partial(made, -1), taken.append, 0, 1, full=lambda: len(taken) >= 3) as crew:
        wait_until(crew, lambda: len(taken) >= 3)
        for _ in range(10):
            crew.wait()
        assert len(taken) == 3


def test_a_dead_worker_is_told_of(made):
    with (
        Crew(partial(made, 6), lambda _: None, 100, 2, range(5, 8)) as crew,
        pytest.raises(RuntimeError, match='has died'),
    ):
        crew.wait_for_held()


def test_what_cannot_be_taken_in_is_told_of(made):
    def refuse(_: object) -> None:
        raise MemoryError('none left')

    with (
        Crew(partial(made, -1), refuse, 100, 1) as crew,
        pytest.raises(RuntimeError, match='none left'),
    ):
        wait_until(crew, lambda: False)


def test_processes_send_until_nobody_reads(made, monkeypatch):
    """Else the thread would wait for ever for the rest of what one was sending as it ended."""
    taken: list[tuple[int, bool]] = []
    crew = Crew(partial(made, -1), taken.append, 0, 2)
    ended, join = [], crew._thread.join

    def joined(patience):
        ended.extend(process.exitcode for process in crew._processes)
        ended.append(crew._stop.is_set())
        join(patience)

    monkeypatch.setattr(crew._thread, 'join', joined)
    with crew:
        wait_until(crew, lambda: len(taken) >= 2)
    assert ended == [None, None, False]
    assert not crew._thread.is_alive()
    assert all(process.exitcode is not None for process in crew._processes)
