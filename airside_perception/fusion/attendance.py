"""Which sources take part in the sets, and how far those that do not are from them."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

SETS = 20
"""Sets that are looked back on."""
MESSAGES = 512
"""Messages of each source that are remembered: those of 20 sets of 4 Hz at 100 Hz."""


@dataclass(frozen=True)
class Attendance:
    """How one source took part in the last sets.

    Attributes:
        sets: how many sets are looked at.
        taken: those that it is in.
        expected: those that it could be in: as many as it sent messages meanwhile, or all.
        offset_ns: median of its stamp, where it is nearest, less the stamp of the set.
        delay_ns: median of the arrival of that message less that of the one that paces the set.
    """

    sets: int
    taken: int
    expected: int
    offset_ns: float
    delay_ns: float

    @property
    def share(self) -> float:
        """Part of the sets that it could be in that it is in, 0 to 1."""
        return min(self.taken / self.expected, 1.0) if self.expected else 1.0


class Register:
    """The last messages of every source, and the last sets."""

    def __init__(self, sources: Iterable[str]) -> None:
        self._messages: dict[str, deque[tuple[int, int]]] = {
            name: deque(maxlen=MESSAGES) for name in sources
        }
        self._sets: deque[tuple[int, int, frozenset[str]]] = deque(maxlen=SETS)

    def heard(self, source: str, stamp_ns: int, now_ns: int) -> None:
        """A message of `source` arrived, whatever becomes of it."""
        self._messages[source].append((stamp_ns, now_ns))

    def made(self, stamp_ns: int, pacing: str, members: Iterable[str]) -> None:
        """A set was made of messages of `members`, at the stamp of the one of `pacing`."""
        own = (at for stamp, at in reversed(self._messages[pacing]) if stamp == stamp_ns)
        arrival = next(own, None)
        if arrival is not None:  # else so many came since that the register has forgotten it
            self._sets.append((stamp_ns, arrival, frozenset(members)))

    def attendance(self, source: str) -> Attendance | None:
        """Of the last sets; None before the first set and the first message of the source."""
        own = sorted(self._messages[source])
        if not own or not self._sets:
            return None
        stamps = [stamp for stamp, _ in own]
        offsets, delays = [], []
        for stamp, arrival, _ in self._sets:
            after = bisect_left(stamps, stamp)
            near = min(own[max(after - 1, 0) : after + 1], key=lambda one: abs(one[0] - stamp))
            offsets.append(near[0] - stamp)
            delays.append(near[1] - arrival)
        first, last = self._sets[0][1], self._sets[-1][1]
        sent = sum(first <= arrival <= last for _, arrival in own)
        taken = sum(source in members for *_, members in self._sets)
        count = len(self._sets)
        return Attendance(count, taken, min(sent, count), median(offsets), median(delays))
