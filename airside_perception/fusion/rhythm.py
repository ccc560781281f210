"""When one source speaks, and until when its next message is waited for."""

from __future__ import annotations

from collections import deque

GAPS = 8
"""Arrivals that tell how long a source may take: the longest time between two of the last ones."""


class Rhythm:
    """Stamps of one source and their arrivals; only a newer stamp is a sign of life.

    Attributes:
        newest: the newest stamp, ns; None until the first message.
        period: ns from the stamp before it to the newest; 0 until the second.
        heard: arrival of the newest stamp, ns of the collector's clock; until the first message
            the time at which everything started, so that the first set can wait.
        arrived: arrival of the last message.
    """

    def __init__(self, now_ns: int) -> None:
        self.newest: int | None = None
        self.period = 0
        self.heard = self.arrived = now_ns
        self._gaps: deque[int] = deque(maxlen=GAPS)

    @property
    def still_ns(self) -> int:
        """For how long messages have come whose stamps do not advance; 0 if the last one did."""
        return self.arrived - self.heard

    def hear(self, stamp_ns: int, now_ns: int, silence_ns: int) -> bool:
        """Notes a message; what came after more than `silence_ns` is a return, not a rhythm.

        Returns:
            Whether its stamp is another one than the newest: the same stamp twice is no message.
        """
        self.arrived = now_ns
        if self.newest is None or stamp_ns > self.newest:
            if self.newest is not None:
                self.period = stamp_ns - self.newest
                if now_ns - self.heard <= silence_ns:
                    self._gaps.append(now_ns - self.heard)
            self.newest, self.heard = stamp_ns, now_ns
            return True
        return stamp_ns != self.newest

    def awaited_until(self, stamp_ns: int, patience_ns: int, silence_ns: int) -> int:
        """When to give up a message of about `stamp_ns`, on the collector's clock.

        A source speaks again after the longest of its last `GAPS` at the latest, and what is as
        much newer than its newest stamp comes as much later: plus `patience_ns`. Before its second
        message, and at most, it is waited for `silence_ns`.
        """
        silent = self.heard + silence_ns + 1
        if self.newest is None or not self._gaps:
            return silent
        ahead = max(max(self._gaps), stamp_ns - self.newest)
        return min(self.heard + ahead + patience_ns, silent)
