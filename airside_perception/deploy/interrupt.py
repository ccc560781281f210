"""Ctrl-C while TensorRT works, which swallows what is raised in its callbacks."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from airside_perception.errors import INTERRUPTED

Progress = Callable[[str, float], None]
HINT = (
    'engine: interrupted: it ends at the next step of TensorRT (before version 10: after the '
    'build); again to end it at once'
)


@dataclass(frozen=True)
class Interruption:
    """Progress that ends the work once somebody has asked for that.

    Attributes:
        progress: is told of every step, and raises at the next one after the interrupt: the
            callers of the library carry that past it. The last step, share 1, is told in any case.
        asked: whether somebody has.
    """

    progress: Progress
    asked: threading.Event = field(default_factory=threading.Event)

    def __call__(self, step: str, share: float) -> None:
        if share < 1.0:
            self.check()
        self.progress(step, share)

    def check(self) -> None:
        """Ends the work if somebody has asked for that.

        Raises:
            KeyboardInterrupt: somebody has.
        """
        if self.asked.is_set():
            raise KeyboardInterrupt


@contextmanager
def interruptible(progress: Progress) -> Iterator[Interruption]:
    """Turns Ctrl-C into an end at the next step, and a second one into one at once.

    Python's own way raises in whatever code runs just then. That is often a callback of TensorRT,
    which reports an error of its logger and goes on. A thread reads of the signal instead, so it
    is heard while the main thread is inside the library. Outside the main thread nothing changes.
    """
    interruption = Interruption(progress)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    told, heard = socket.socketpair()
    told.setblocking(False)  # as set_wakeup_fd wants it
    reader = threading.Thread(target=_read, args=(heard, interruption.asked), daemon=True)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    reader.start()
    try:
        yield interruption
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, before)
        told.close()
        reader.join()
        heard.close()


def _read(heard: socket.socket, asked: threading.Event) -> None:
    while numbers := heard.recv(16):
        for number in numbers:
            if number != signal.SIGINT:
                continue
            if asked.is_set():
                # Nothing is half written: files are renamed when they are whole.
                os._exit(INTERRUPTED)
            asked.set()
            sys.stderr.write(f'\n{HINT}\n')
            sys.stderr.flush()
