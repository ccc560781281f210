"""A thread that works on the newest message: the executor stays free while a network runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from airside_perception.errors import PerceptionError

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """One thread and one slot: what is put while the slot is taken replaces what lies there.

    Args:
        name: of the thread.
        work: called with the newest item; an exception from it ends this item, not the thread.
        failed: called with the item and the exception that `work` raised.
        begun: called before `work`.
        ended: called after it, and after `failed`. If that raised, it is not called: the thread
            has died, and what was begun stays begun for everybody to see.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Item], None],
        failed: Callable[[Item, Exception], None],
        begun: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._work = work
        self._failed = failed
        self._begun = begun
        self._ended = ended
        self._slot: Item | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._hangs = False

    def start(self) -> None:
        """Begins to work; what lay in the slot from before is gone.

        Raises:
            PerceptionError: an item that `stop` did not see finish is still in work.
        """
        if self._thread is not None and self._thread.is_alive():
            raise PerceptionError(f'{self._name}: a frame from before is still in work')
        self._stopping, self._slot, self._hangs = False, None, False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hands over the newest item.

        Returns:
            Whether an older item was waiting, and is dropped for this one.
        """
        with self._changed:
            replaced = self._slot is not None
            self._slot = item
            self._changed.notify()
        return replaced

    def stop(self, timeout: float = 5.0) -> None:
        """Lets the item in work finish, drops the waiting one and joins; may be called again.

        An item that did not finish once is not waited for a second time: the transitions of a
        node stop its worker one after the other, and the executor waits with them.

        Raises:
            PerceptionError: the item in work did not finish within `timeout` seconds.
        """
        with self._changed:
            self._stopping, self._slot = True, None
            self._changed.notify()
        if self._thread is None:
            return
        if self._hangs and self._thread.is_alive():
            raise PerceptionError(f'{self._name}: a frame from before is still in work')
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._hangs = True
            raise PerceptionError(
                f'{self._name}: the frame in work did not finish within {timeout:g} s'
            )
        self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._slot is not None)
                if self._stopping:
                    return
                item, self._slot = self._slot, None
            self._begun()
            try:
                self._work(item)  # type: ignore[arg-type]  # not None: wait_for has seen to that
            except Exception as error:  # noqa: BLE001  # whatever it is, the next frame may be good
                self._failed(item, error)  # type: ignore[arg-type]  # as above
            self._ended()
