"""Records in order of their header stamps, as far as a recording allows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from airside_perception.replay.bag import Record

HORIZON_NS = 500_000_000
"""How much later than its stamp, against the other topics, a message may have been recorded."""


def by_stamp(records: Iterable[Record], horizon_ns: int = HORIZON_NS) -> Iterator[Record]:
    """Sorts records by header stamp, then topic, holding back no more than the horizon.

    A record waits until one is read whose stamp is later by `horizon_ns`. What is later still, and
    everything after a jump of the stamps backwards by more than that, comes in its turn.
    """
    waiting: list[tuple[int, str, int, Record]] = []
    newest: int | None = None
    for number, record in enumerate(records):
        if newest is not None and record.stamp_ns < newest - horizon_ns:
            yield from _all(waiting)
            newest = None
        newest = record.stamp_ns if newest is None else max(newest, record.stamp_ns)
        heapq.heappush(waiting, (record.stamp_ns, record.topic, number, record))
        while waiting[0][0] <= newest - horizon_ns:
            yield heapq.heappop(waiting)[3]
    yield from _all(waiting)


def _all(waiting: list[tuple[int, str, int, Record]]) -> Iterator[Record]:
    while waiting:
        yield heapq.heappop(waiting)[3]
