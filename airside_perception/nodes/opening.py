"""Slow steps in threads of their own: networks are built, opened, warmed beside the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from airside_perception.errors import PerceptionError

BUSY = 'is not ready yet'
"""In every refusal that says: nothing is wrong, ask again later."""


class NotReadyError(PerceptionError):
    """A transition that is too early: it will go through later, and nothing need be mended."""


class CancelledError(PerceptionError):
    """What was being made is no longer wanted."""


class Closable(Protocol):
    """What an opening makes."""

    def close(self) -> None: ...


Made = TypeVar('Made', bound=Closable)
Say = Callable[[str], None]


class Opening(threading.Thread, Generic[Made]):
    """Makes one thing that takes long. It ends once: with it, with an error, or cancelled.

    The thread is a daemon. What comes after a cancellation is closed there and then, unseen.

    Args:
        what: is made, for people.
        make: called in the thread with `say`, which takes the stage that begins (`building 40 %`)
            and raises `CancelledError` where nobody waits any more.

    Attributes:
        done: called once when it has ended, in this thread or in that of `cancel`; set it before
            the start.
        stage: the newest.
        made: once it has ended well.
        error: once it has ended otherwise.
    """

    def __init__(self, what: str, make: Callable[[Say], Made]) -> None:
        super().__init__(name=f'opening {what}', daemon=True)
        self.what = what
        self.stage = 'opening'
        self.made: Made | None = None
        self.error: Exception | None = None
        self.done: Callable[[], None] = lambda: None
        self._make = make
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._over.is_set()

    def say(self, stage: str) -> None:
        """Tells the stage that begins.

        Raises:
            CancelledError: `cancel` was called.
        """
        if self.over:
            raise CancelledError(f'{self.what}: no longer wanted')
        self.stage = stage

    def cancel(self, reason: str) -> None:
        """Ends it, if it has not ended: nothing waits for the thread, which may take a while."""
        self._end(None, CancelledError(reason))

    def run(self) -> None:
        """The thread."""
        made: Any = None
        try:
            made = self._make(self.say)
        except Exception as error:  # noqa: BLE001  # it is told where `error` is read
            self._end(None, error)
            return
        if not self._end(made, None):
            made.close()

    def _end(self, made: Made | None, error: Exception | None) -> bool:
        with self._lock:
            if self.over:
                return False
            self.made, self.error = made, error
            self._over.set()
        self.done()
        return True


def lingering() -> bool:
    """Whether a thread of this module still runs, such as a build that cannot be stopped."""
    return any(isinstance(thread, Opening) for thread in threading.enumerate())
