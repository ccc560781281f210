"""What every verb of `engine` is: options, a run that gives an answer, and progress on the way."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

GOOD, SAYS_NO, BAD_INPUT = 0, 1, 2
"""Exit statuses: fine; the check says no; input or usage that cannot be used."""
PERIOD_S = 0.1


@dataclass(frozen=True)
class Answer:
    """What a verb found.

    Attributes:
        text: for people.
        table: the same for JSON.
        good: False where a check says no.
    """

    text: str
    table: Mapping[str, Any]
    good: bool = True

    def shown(self, as_json: bool) -> str:
        """What is printed."""
        return json.dumps(self.table, indent=2, default=str) if as_json else self.text


class Verb(Protocol):
    """A module below `deploy.verbs`."""

    DESCRIPTION: str
    EXAMPLES: str
    """Command lines, one a line, without indentation, beginning with `engine`."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds arguments and options; `--json` is there already."""

    def run(self, options: argparse.Namespace) -> Answer:
        """Does what the options say.

        Raises:
            PerceptionError: the input cannot be used: exit status 2.
            RefusalError: well-formed, and still not to be had here: exit status 1.
        """


class Bar:
    """Progress on a terminal, nothing elsewhere: call it with a step and its share, 0 to 1.

    The share is a bar with its percentage; while it stays the same, because nobody says how far
    the work is, a block wanders along the bar. The seconds run on in both cases.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on = stream.isatty()
        self._started = self._shown = time.monotonic()
        self._moved = self._started
        self._share = -1.0
        self._beat = 0

    def __call__(self, step: str, share: float) -> None:
        now = time.monotonic()
        if share != self._share:
            self._share, self._moved = share, now
        if not self._on or (now - self._shown < PERIOD_S and share < 1.0):
            return
        self._shown = now
        width = max(10, min(40, shutil.get_terminal_size().columns - 36))
        filled = int(width * share)
        if now - self._moved > 1.0:
            self._beat = (self._beat + 1) % (width - 2)
            cells, said = ' ' * self._beat + '===', '   '
        else:
            cells, said = '=' * filled, f'{100 * share:2.0f} %'
        line = f'{step:9} [{cells:{width}}] {said}  {now - self._started:.0f} s '
        self._stream.write(f'\r{line}\033[K')
        self._stream.flush()

    def close(self) -> None:
        """Leaves the line; may be called again."""
        if self._on:
            self._stream.write('\r\033[K')
            self._stream.flush()
            self._on = False


@contextmanager
def progress() -> Iterator[Bar]:
    """A bar on standard error for as long as the block takes."""
    bar = Bar(sys.stderr)
    try:
        yield bar
    finally:
        bar.close()
