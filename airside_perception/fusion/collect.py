"""Which messages make one set, when some are late or never come.

On a vehicle a synchroniser puts complete sets together and tells the collector (`complete`); the
collector makes those that the synchroniser does not find, and sets of what there is when a source
stays away. In replay, which has no synchroniser, it makes all sets. It has no clock of its own and
no thread: the same calls give the same sets.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from airside_perception.errors import ConfigError, MessageError
from airside_perception.fusion.attendance import Attendance, Register
from airside_perception.fusion.rhythm import Rhythm

Message = TypeVar('Message')

JUMP_NS = 1_000_000_000
"""Stamps, or a clock, that go back further than this have jumped; less is disorder."""
MOST = 10
"""So many times its size a queue may hold for the sake of its duration."""


class Added(enum.Enum):
    """What became of a message: it waits for its set, came too late, or first after a jump."""

    KEPT = 'kept'
    STALE = 'stale'
    RESET = 'reset'


@dataclass(frozen=True)
class Gathered(Generic[Message]):
    """Messages to fuse together.

    Attributes:
        stamp_ns: of the message that paces the set.
        messages: {source: message}, by rank.
        missing: the sources that are not in it, by rank.
    """

    stamp_ns: int
    messages: Mapping[str, Message]
    missing: tuple[str, ...]


class Collector(Generic[Message]):
    """Puts messages of several sources into sets, each message at most once.

    The first live source by rank paces the output: each of its messages makes one set, with the
    message of every other source that is nearest in stamp, within the slop. Where it is later than
    it has been lately by more than the deadline, the next in rank stands in for it: each of its
    messages makes a set when the one that it waits for is overdue (`Rhythm.awaited_until`), until
    the first source is heard again. A set is due
    - at the deadline after the arrival of its pacing message, whatever is missing;
    - before that, once nothing better can come: every source has its message, was passed over (a
      newer message of it is there), or is silent. Complete sets are left to the synchroniser
      then, unless `complete_sets`.
    Sets have rising stamps; what belongs to a set that was made is stale. Messages wait until
    there are more than `queue_size` of their source, and as many more as came in the last
    `queue_ns`, up to `MOST` times as many. Only stamps that advance count: a source whose stamp
    stands still is silent, and so is one whose stamps are further behind the last set than the
    time after which a source is silent: it would hold up the others for as long as it is behind.
    Not thread-safe.

    Attributes:
        sources: names by rank.
        deadline_ns, silence_ns: may be changed between calls.
        counts: `complete` and `incomplete` sets, `resets`, `stale.SOURCE` (messages after their
            set), `repeated.SOURCE` (messages with the stamp of the one before), `unused.SOURCE`
            (messages that no set took: of a faster source, or overtaken), `missing.SOURCE` (sets
            without it).
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        deadline_ns: int,
        slop_ns: int,
        silence_ns: int,
        queue_size: int = 10,
        queue_ns: int = 0,
        complete_sets: bool = False,
    ) -> None:
        if not sources or len(set(sources)) != len(sources):
            raise ConfigError(f'sources {list(sources)}: at least one, and none twice')
        self.sources = tuple(sources)
        self.deadline_ns, self.silence_ns = deadline_ns, silence_ns
        self.counts: Counter[str] = Counter()
        self._slop_ns, self._complete_sets = slop_ns, complete_sets
        self._queue_size, self._queue_ns = queue_size, queue_ns
        self.clear()

    def clear(self) -> None:
        """Forgets everything but the counts."""
        # {source: {stamp: (message, arrival)}}
        self._waiting: dict[str, dict[int, tuple[Message, int]]] = {n: {} for n in self.sources}
        self._now: int | None = None
        self._rhythms = {name: Rhythm(0) for name in self.sources}
        self._register = Register(self.sources)
        self._used: dict[str, int] = {}
        self._last: Gathered[Message] | None = None

    def add(self, source: str, stamp_ns: int, message: Message, now_ns: int) -> Added:
        """Takes a message that arrived at `now_ns`; `flush` tells what can be fused now.

        Returns:
            KEPT. STALE: its set was made without it, or its stamp is that of the message before
            it; it is not kept, and a synchroniser needs not see it. RESET: stamps or clock jumped
            back; it is kept, all else was forgotten, and a synchroniser must be cleared too.

        Raises:
            MessageError: a source that is not in `sources`.
        """
        if source not in self._waiting:
            raise MessageError(f'message from {source!r}; the sources are {list(self.sources)}')
        jumped = self._jumped(source, stamp_ns, now_ns)
        if jumped:
            self.clear()
            self.counts['resets'] += 1
        if not self._hear(source, stamp_ns, now_ns):
            self.counts[f'repeated.{source}'] += 1
            return Added.STALE
        if self._late(source, stamp_ns):
            self.counts[f'stale.{source}'] += 1
            return Added.STALE
        queue = self._waiting[source]
        queue[stamp_ns] = (message, now_ns)
        self._trim(source, now_ns)
        return Added.RESET if jumped else Added.KEPT

    def complete(self, messages: Mapping[str, tuple[int, Message]]) -> Gathered[Message] | None:
        """A synchroniser put these together: {source: (stamp, message)} of every source.

        Returns:
            The set to fuse; None if one of its messages was in a set before, or if a newer set
            was made: then there is nothing to do.

        Raises:
            MessageError: not one message of every source.
        """
        if set(messages) != set(self.sources):
            raise MessageError(f'a set of {sorted(messages)}, expected {list(self.sources)}')
        stamps = {name: messages[name][0] for name in self.sources}
        stamp = stamps[self.sources[0]]
        again = any(stamps[name] <= used for name, used in self._used.items())
        if again or (self._last is not None and stamp <= self._last.stamp_ns):
            return None
        return self._close(stamp, stamps, {name: messages[name][1] for name in self.sources})

    def flush(self, now_ns: int) -> list[Gathered[Message]]:
        """The sets that are due at `now_ns`, oldest first."""
        ready = []
        while (due := self._due(now_ns)) is not None:
            ready.append(self._take(due))
        return ready

    def next_deadline_ns(self, now_ns: int) -> int | None:
        """When a message that waits is due next, after `now_ns`; None: there is none."""
        deadlines = [
            arrival + self.deadline_ns
            for queue in self._waiting.values()
            for _, arrival in queue.values()
        ]
        for rank, queue in enumerate(self._waiting.values()):
            if queue:  # the oldest is the first that those above it are given up for
                oldest = min(queue)
                deadlines += [self._awaited_until(n, oldest) for n in self.sources[:rank]]
        return min((at for at in deadlines if at > now_ns), default=None)

    def drain(self) -> list[Gathered[Message]]:
        """Sets of all that waits, oldest first: no more messages will come."""
        ready = []
        for source in self.sources:
            for stamp in sorted(self._waiting[source]):
                if stamp in self._waiting[source]:
                    ready.append(self._take(stamp))
        return ready

    def holds(self) -> bool:
        """Whether messages wait, for others or for their deadline."""
        return any(self._waiting.values())

    def still_ns(self, source: str) -> int:
        """For how long messages of `source` have come whose stamps do not advance."""
        return self._rhythms[source].still_ns

    def attendance(self, source: str) -> Attendance | None:
        """How `source` takes part in the last sets; None while there is nothing to tell from."""
        return self._register.attendance(source)

    def _jumped(self, source: str, stamp_ns: int, now_ns: int) -> bool:
        now = now_ns if self._now is None else self._now
        return max(self._newest(source, stamp_ns) - stamp_ns, now - now_ns) > JUMP_NS

    def _newest(self, source: str, default: int) -> int:
        newest = self._rhythms[source].newest
        return default if newest is None else newest

    def _hear(self, source: str, stamp_ns: int, now_ns: int) -> bool:
        """Notes when a source spoke, and how far its stamps are apart; whether this one is new."""
        if self._now is None:  # at the start all count as live, so that the first set can wait
            self._rhythms = {name: Rhythm(now_ns) for name in self.sources}
        self._now = now_ns if self._now is None else max(now_ns, self._now)
        new = self._rhythms[source].hear(stamp_ns, self._now, self.silence_ns)
        if new:
            self._register.heard(source, stamp_ns, self._now)
        return new

    def _trim(self, source: str, now_ns: int) -> None:
        """Drops the oldest messages of a queue that is full."""
        queue = self._waiting[source]
        while len(queue) > self._queue_size:
            oldest = min(queue)
            young = now_ns - queue[oldest][1] < self._queue_ns
            if young and len(queue) <= MOST * self._queue_size:
                return
            del queue[oldest]
            self.counts[f'unused.{source}'] += 1

    def _late(self, source: str, stamp_ns: int) -> bool:
        """Whether the set that a message belongs to was made, with or without it."""
        if self._last is None:
            return False
        after = stamp_ns - self._last.stamp_ns
        if after <= 0 or stamp_ns <= self._used.get(source, stamp_ns - 1):
            return True
        # a little newer than a set that lacks it: nearer to that set than to the next?
        reach = min(self._slop_ns, self._rhythms[source].period // 2)
        return source in self._last.missing and after <= reach

    def _live(self, source: str, now_ns: int) -> bool:
        silent = now_ns - self._rhythms[source].heard > self.silence_ns
        return not silent and not self._behind(source)

    def _behind(self, source: str) -> bool:
        """Whether the stamps of a source are too far behind the last set to wait for them."""
        if self._last is None:
            return False
        return self._last.stamp_ns - self._newest(source, self._last.stamp_ns) > self.silence_ns

    def _due(self, now_ns: int) -> int | None:
        """The stamp of the oldest message whose set is due, of the first source by rank."""
        for rank, pace in enumerate(self.sources):
            others = [n for n in self.sources[rank + 1 :] if self._live(n, now_ns)]
            for stamp in sorted(self._waiting[pace]):
                if any(now_ns < self._awaited_until(n, stamp) for n in self.sources[:rank]):
                    break
                if now_ns - self._waiting[pace][stamp][1] >= self.deadline_ns:
                    return stamp
                whole = len(self._near(stamp)) == len(self.sources)
                if (self._complete_sets or not whole) and all(
                    self._settled(name, stamp) for name in others
                ):
                    return stamp
        return None

    def _awaited_until(self, source: str, stamp: int) -> int:
        """When a source no longer keeps those below it from making a set at `stamp`."""
        rhythm = self._rhythms[source]
        if self._behind(source):
            return rhythm.heard
        return rhythm.awaited_until(stamp, self.deadline_ns, self.silence_ns)

    def _near(self, stamp: int) -> dict[str, int]:
        """{source: stamp of its message nearest to `stamp`}, if there is one within the slop."""
        near = {}
        for name, queue in self._waiting.items():
            best = min(queue, key=lambda own: (abs(own - stamp), own), default=None)
            if best is not None and abs(best - stamp) <= self._slop_ns:
                near[name] = best
        return near

    def _settled(self, source: str, stamp: int) -> bool:
        """Whether no message of `source` can come that fits `stamp` better than what it has."""
        if self._newest(source, stamp - 1) >= stamp:
            return True
        best = self._near(stamp).get(source)
        return best is not None and stamp - best <= self._rhythms[source].period // 2

    def _take(self, stamp: int) -> Gathered[Message]:
        stamps = self._near(stamp)
        messages = {n: self._waiting[n][stamps[n]][0] for n in self.sources if n in stamps}
        return self._close(stamp, stamps, messages)

    def _close(
        self, stamp: int, stamps: Mapping[str, int], messages: Mapping[str, Message]
    ) -> Gathered[Message]:
        """Makes a set, and drops what can be in no later one."""
        missing = tuple(name for name in self.sources if name not in stamps)
        self._used.update(stamps)
        pacing = next(name for name in self.sources if stamps.get(name) == stamp)
        self._register.made(stamp, pacing, stamps)
        for name, queue in self._waiting.items():
            limit = max(stamp, stamps.get(name, stamp))
            old = [own for own in queue if own <= limit]
            self.counts[f'unused.{name}'] += len(old) - (stamps.get(name) in queue)
            for own in old:
                del queue[own]
        self.counts['incomplete' if missing else 'complete'] += 1
        self.counts.update({f'missing.{name}': 1 for name in missing})
        self._last = Gathered(stamp, messages, missing)
        return self._last
