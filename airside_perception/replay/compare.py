"""Two result files, matched detection by detection: what was lost, added, or moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from airside_perception.results import IMAGE, VELOCITY, Detection, Result
from airside_perception.types import Float64

Thresholds = Mapping[str, Mapping[str, float]]
"""{topic: {class: lowest score that is reported}}."""

CENTER, SIZE = ('x', 'y', 'z'), ('l', 'w', 'h')
ROUNDING = 1e-9
"""Values in the files are decimals: 0.52 - 0.50 is more than 0.02 in binary."""
SCORE_WEIGHT = 0.01


@dataclass(frozen=True)
class Tolerances:
    """What still counts as the same.

    Attributes:
        position: metres between the centres.
        size: metres, largest difference of length, width and height.
        yaw_deg: degrees.
        score: difference.
        pixels: largest difference of the edges of a box in an image.
        velocity: m/s, length of the difference. One that only one file has is a difference.
        margin: a detection that is in one file only is forgiven where its score is below its
            threshold plus this.
        symmetric: classes whose front cannot be told from the rear: yaw modulo pi.
        reach: metres; detections farther apart are never one object.
        reach_pixels: the same in an image.
    """

    position: float = 0.05
    size: float = 0.05
    yaw_deg: float = 1.0
    score: float = 0.02
    pixels: float = 1.0
    velocity: float = 0.1
    margin: float = 0.02
    symmetric: tuple[str, ...] = ('person', 'pedestrian')
    reach: float = 2.0
    reach_pixels: float = 40.0


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        kind: `lost`, `added` (detections), `moved`, `message lost`, `message added`, `frame`.
        detail: in words.
    """

    kind: str
    topic: str
    stamp_ns: int
    detail: str


@dataclass
class TopicSummary:
    """Counts of one topic, and the largest differences among the detections that were matched.

    Attributes:
        messages: in the one and in the other file.
        forgiven: detections in one file only, near their threshold.
        worst: {position, size, yaw_deg, score, pixels, velocity: largest difference}.
    """

    messages: list[int] = field(default_factory=lambda: [0, 0])
    matched: int = 0
    lost: int = 0
    added: int = 0
    moved: int = 0
    forgiven: int = 0
    worst: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The outcome: by topic, and every difference in order of topic and stamp."""

    topics: Mapping[str, TopicSummary]
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {'same': self.same, **asdict(self)}


def compare(
    before: Sequence[Result],
    after: Sequence[Result],
    tolerances: Tolerances | None = None,
    thresholds: Thresholds | None = None,
) -> Comparison:
    """Matches detections of equal topic, stamp and class, and lists what differs.

    Within a class detections are assigned so that the sum of their distances is least (Hungarian).

    Args:
        before, after: the messages of the two files.
        tolerances: default: those of `Tolerances`.
        thresholds: of the detectors; where none is given nothing is forgiven.
    """
    return _Comparer(tolerances or Tolerances(), thresholds or {}).run(before, after)


class _Comparer:
    def __init__(self, tolerances: Tolerances, thresholds: Thresholds) -> None:
        self._limits = tolerances
        self._thresholds = thresholds
        self._topics: dict[str, TopicSummary] = {}
        self._found: list[Difference] = []

    def run(self, before: Sequence[Result], after: Sequence[Result]) -> Comparison:
        ours, theirs = _messages(before), _messages(after)
        for key in sorted({*ours, *theirs}):
            self._messages(ours.get(key), theirs.get(key))
        return Comparison(self._topics, tuple(self._found))

    def _messages(self, one: Result | None, other: Result | None) -> None:
        there = one or other
        if there is None:
            return
        summary = self._topics.setdefault(there.topic, TopicSummary())
        summary.messages[0] += one is not None
        summary.messages[1] += other is not None
        if one is None or other is None:
            kind = 'message added' if one is None else 'message lost'
            self._differs(kind, there, f'with {len(there.detections)} detections')
        elif one.frame_id != other.frame_id:
            self._differs('frame', one, f'{one.frame_id!r} is now {other.frame_id!r}')
        else:
            for name in sorted({item['class'] for item in (*one.detections, *other.detections)}):
                self._detections(
                    one,
                    [item for item in one.detections if item['class'] == name],
                    [item for item in other.detections if item['class'] == name],
                    summary,
                )

    def _detections(
        self,
        message: Result,
        before: list[Detection],
        after: list[Detection],
        summary: TopicSummary,
    ) -> None:
        """The detections of one class."""
        pairs = _match(before, after, self._limits)
        for i, j in pairs:
            apart = _apart(before[i], after[j], self._limits.symmetric)
            for quantity, value in apart.items():
                summary.worst[quantity] = max(summary.worst.get(quantity, 0.0), value)
            changes = self._changes(before[i], after[j], apart)
            summary.matched += 1
            if changes:
                summary.moved += 1
                self._differs('moved', message, f'{_words(before[i])}: {", ".join(changes)}')
        ours, theirs = {i for i, _ in pairs}, {j for _, j in pairs}
        lost = [item for i, item in enumerate(before) if i not in ours]
        added = [item for j, item in enumerate(after) if j not in theirs]
        kept_lost = [item for item in lost if not self._forgiven(message.topic, item)]
        kept_added = [item for item in added if not self._forgiven(message.topic, item)]
        summary.lost += len(kept_lost)
        summary.added += len(kept_added)
        summary.forgiven += len(lost) + len(added) - len(kept_lost) - len(kept_added)
        for item in kept_lost:
            self._differs('lost', message, _words(item))
        for item in kept_added:
            self._differs('added', message, _words(item))

    def _changes(self, one: Detection, other: Detection, apart: Mapping[str, float]) -> list[str]:
        limits = {
            'position': self._limits.position,
            'size': self._limits.size,
            'yaw_deg': self._limits.yaw_deg,
            'score': self._limits.score,
            'pixels': self._limits.pixels,
            'velocity': self._limits.velocity,
        }
        changes = [
            f'{quantity} by {value:.4g}'
            for quantity, value in apart.items()
            if value > limits[quantity] + ROUNDING
        ]
        if one.get('sources') != other.get('sources'):
            changes.append(f'sources {one.get("sources", [])} are now {other.get("sources", [])}')
        if ('vx' in one) != ('vx' in other):
            changes.append(f'the velocity is {"lost" if "vx" in one else "new"}')
        return changes

    def _forgiven(self, topic: str, item: Detection) -> bool:
        lowest = self._thresholds.get(topic, {}).get(item['class'])
        return lowest is not None and item['score'] < lowest + self._limits.margin

    def _differs(self, kind: str, message: Result, detail: str) -> None:
        self._found.append(Difference(kind, message.topic, message.stamp_ns, detail))


def _messages(results: Sequence[Result]) -> dict[tuple[str, int, int], Result]:
    """By topic, stamp and, where both repeat, how often they came before."""
    found: dict[tuple[str, int, int], Result] = {}
    seen: dict[tuple[str, int], int] = {}
    for result in results:
        key = result.topic, result.stamp_ns
        seen[key] = seen.get(key, 0) + 1
        found[(*key, seen[key])] = result
    return found


def _match(
    before: list[Detection], after: list[Detection], limits: Tolerances
) -> list[tuple[int, int]]:
    """Rows of both that are one object: least sum of distances, those beyond reach left out.

    Distances are capped at the reach, so that a pair out of reach never decides about another.
    Among equal distances the nearer score wins.
    """
    if not before or not after or ('x1' in before[0]) != ('x1' in after[0]):
        return []
    keys, reach = (IMAGE, limits.reach_pixels) if 'x1' in before[0] else (CENTER, limits.reach)
    ours, theirs = _values(before, keys), _values(after, keys)
    apart = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    scores = np.abs(_values(before, ('score',)) - _values(after, ('score',)).T)
    cost = np.minimum(apart, reach) + SCORE_WEIGHT * reach * scores
    rows, columns = linear_sum_assignment(cost)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if apart[i, j] < reach]


def _apart(one: Detection, other: Detection, symmetric: tuple[str, ...]) -> dict[str, float]:
    """Differences by quantity: metres, degrees, pixels, m/s."""
    score = abs(one['score'] - other['score'])
    if 'x1' in one:
        return {'pixels': max(abs(one[key] - other[key]) for key in IMAGE), 'score': score}
    turn = math.pi if one['class'] in symmetric else 2 * math.pi
    yaw = (one['yaw'] - other['yaw']) % turn
    known = VELOCITY if 'vx' in one and 'vx' in other else ()
    speeds = {'velocity': math.dist(*([item[key] for key in known] for item in (one, other)))}
    return {
        'position': math.dist([one[key] for key in CENTER], [other[key] for key in CENTER]),
        'size': max(abs(one[key] - other[key]) for key in SIZE),
        'yaw_deg': math.degrees(min(yaw, turn - yaw)),
        'score': score,
        **(speeds if known else {}),
    }


def _values(items: list[Detection], keys: tuple[str, ...]) -> Float64:
    return np.array([[item[key] for key in keys] for item in items], dtype=np.float64)


def _words(item: Detection) -> str:
    keys = IMAGE if 'x1' in item else CENTER
    place = ', '.join(f'{item[key]:.2f}' for key in keys)
    return f'{item["class"]} {item["score"]:.3f} at ({place})'
