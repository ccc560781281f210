"""When one source speaks: its newest stamp, and when that and its last message came."""

from __future__ import annotations


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

    @property
    def still_ns(self) -> int:
        """For how long messages have come whose stamps do not advance; 0 if the last one did."""
        return self.arrived - self.heard

    def hear(self, stamp_ns: int, now_ns: int) -> bool:
        """Notes a message.

        Returns:
            Whether its stamp is another one than the newest: the same stamp twice is no message.
        """
        self.arrived = now_ns
        if self.newest is None or stamp_ns > self.newest:
            self.period = 0 if self.newest is None else stamp_ns - self.newest
            self.newest, self.heard = stamp_ns, now_ns
            return True
        return stamp_ns != self.newest
