"""The figures of an error analysis: what every kind of mistake costs, and what it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from airside_perception.evaluate.breakdown import (
    PEOPLE,
    PEOPLE_ALARMS,
    PEOPLE_RANGE,
    PEOPLE_REACH,
    POINTS,
    VISIBILITIES,
    people,
)
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.precision import recall_at_alarms
from airside_perception.evaluate.question import DISTANCES, RANGES, reached
from airside_perception.types import LENGTH, WIDTH, YAW, Float64, by_score
from benchmarks.oracle import (
    KINDS,
    MISSED,
    Mistakes,
    Ruler,
    by_distance,
    by_overlap,
    centre_inside,
    mistakes,
    precisions,
    repaired,
)

BACKGROUND = 'background'
LARGE = ('aircraft', 'bus', 'truck', 'stairs', 'belt_loader', 'pushback_tug')
LARGE_REACH, GOAL = 4.0, 0.3
"""Large things count as found with the centre within so many metres; the goal of its error."""
CONFUSED = 2.0
"""Metres between centres of a detection and what it is taken for; or its centre is in the box."""
POINT_EDGES = (0.0, *POINTS, 1e9)
HEIGHTS = (0.0, 12.0, 24.0, 48.0, 96.0, 1e4)
"""Edges of the bins of objects in images, pixels."""
NOTHING = 'nothing'
Judged = Sequence[tuple[Ruler, Mapping[str, Mistakes]]]


def analysed(
    frames: Sequence[Frame],
    causes: Sequence[Mapping[int, str]],
    lowest: Mapping[str, float],
    flat: bool = False,
) -> dict[str, Any]:
    """All figures of one network; average precisions and what they lose are shares of 1.

    Args:
        frames: whole curves beside the truth.
        causes: {row of a detection: what stands there} of every frame.
        lowest: {class: threshold}.
        flat: whether boxes are those of images.
    """
    names = tuple(lowest)
    rulers = [by_overlap()] if flat else [by_distance(reach) for reach in DISTANCES]
    judged = [(ruler, mistakes(frames, names, ruler)) for ruler in rulers]
    losses = Losses(judged)
    published = [above(frame, lowest) for frame in frames]
    cut = Losses([(ruler, mistakes(published, names, ruler)) for ruler in rulers])
    figures: dict[str, Any] = {
        'map': losses.whole,
        'at the thresholds': cut.whole,
        'alone': {kind: losses.gain([kind]) for kind in KINDS},
        'in turn': losses.in_turn(),
        'classes': losses.by_class(),
        'background': losses.background(causes),
        'missed': missed_by_bin(losses, frames, flat),
        'confused': confusion(published, names, flat),
    }
    if not flat:
        figures['people to 30 m'] = {key: asdict(item) for key, item in people(frames).items()}
        if not set(PEOPLE).isdisjoint(names):
            figures['people'] = people_mistakes(frames, causes, names)
        figures['large'] = {
            name: found for name in LARGE if (found := centre_errors(published, name))
        }
    return figures


class Losses:
    """What average precision gains where mistakes are taken away, as means over rulers.

    Args:
        judged: mistakes by class under every ruler.
    """

    def __init__(self, judged: Judged) -> None:
        self._judged = judged
        self._asked = {name: item.found.asked for name, item in judged[0][1].items()}
        self.names = tuple(name for name, count in self._asked.items() if count)
        self.plain = self._values(())
        self.whole = float(self.plain.mean()) if len(self.plain) else float('nan')

    def gain(self, kinds: Collection[str], **chosen: Callable[[int, int], bool]) -> float:
        """Mean gain over the classes; `chosen` as in `oracle.repaired`."""
        return float((self._values(kinds, **chosen) - self.plain).mean())

    def in_turn(self) -> dict[str, float]:
        """What each kind adds where those before it are gone; sums to 1 - mAP."""
        values = [self.whole, *(self.whole + self.gain(KINDS[: n + 1]) for n in range(len(KINDS)))]
        return {kind: after - before for kind, (before, after) in zip(KINDS, pairwise(values),
                                                                     strict=True)}  # fmt: skip

    def by_class(self) -> dict[str, dict[str, Any]]:
        """AP of every class, objects, and what each kind costs it alone."""
        gains = {kind: self._values([kind]) - self.plain for kind in KINDS}
        return {
            name: {
                'objects': self._asked[name],
                'ap': float(self.plain[row]),
                'alone': {kind: float(values[row]) for kind, values in gains.items()},
            }
            for row, name in enumerate(self.names)
        }

    def background(self, causes: Sequence[Mapping[int, str]]) -> dict[str, dict[str, float]]:
        """{what stands there: what such false alarms cost alone, and their number}."""
        count: Counter[str] = Counter()
        for item in self._judged[-1][1].values():  # the widest ruler: what is really nothing
            for place in np.flatnonzero(np.array(item.kinds, object) == BACKGROUND).tolist():
                frame, row = int(item.found.frames[place]), int(item.found.rows[place])
                count[causes[frame].get(row, 'not known')] += 1

        def of(cause: str) -> Callable[[int, int], bool]:
            return lambda frame, row: causes[frame].get(row, 'not known') == cause

        found = {
            cause: {'cost': self.gain([BACKGROUND], detections=of(cause)), 'alarms': float(number)}
            for cause, number in count.items()
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1]['cost'], item[0])))

    def missed(self, objects: Callable[[int, int], bool]) -> tuple[float, int]:
        """What missing some objects costs alone, and how many of them are missed on average."""
        numbers = [
            sum(objects(*key) for item in judged.values() for key in item.missed)
            for _, judged in self._judged
        ]
        return self.gain([MISSED], objects=objects), round(float(np.mean(numbers)))

    def _values(self, kinds: Collection[str], **chosen: Callable[[int, int], bool]) -> Float64:
        """Average precision of every class [C]."""
        values = [
            precisions(repaired(judged, kinds, **chosen), self._asked, ruler)
            for ruler, judged in self._judged
        ]
        return np.asarray(np.mean(values, axis=0), np.float64)


def missed_by_bin(
    losses: Losses, frames: Sequence[Frame], flat: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """{by what: {bin: cost of what is missed there, missed, and all that are asked for}}."""
    tables: dict[str, list[list[str]]] = {}
    for frame in frames:
        truth = frame.truth
        if flat:
            size = _bins(truth.boxes[:, WIDTH], HEIGHTS, 'px')
            tables.setdefault('height', []).append(size)
            continue
        far = np.hypot(truth.boxes[:, 0], truth.boxes[:, 1])
        count = np.asarray(truth.points, np.float64)
        visible = np.asarray(truth.visibility, np.float64)
        tables.setdefault('range', []).append(_bins(far, RANGES, 'm'))
        tables.setdefault('points', []).append(_bins(count, POINT_EDGES, 'points'))
        tables.setdefault('visibility', []).append(_bins(visible, VISIBILITIES, 'visible'))
    answer: dict[str, dict[str, dict[str, float]]] = {}
    for key, table in tables.items():
        asked: Counter[str] = Counter()
        for frame, labels in zip(frames, table, strict=True):
            wanted = np.asarray(frame.truth.asked) & np.isin(frame.truth.classes, losses.names)
            asked.update(labels[row] for row in np.flatnonzero(wanted))
        answer[key] = {}
        for label in sorted(asked, key=_edge):
            cost, missed = losses.missed(_in(table, label))
            answer[key][label] = {'cost': cost, 'missed': missed, 'asked': asked[label]}
    return answer


def confusion(
    frames: Sequence[Frame], names: Sequence[str], flat: bool = False
) -> dict[str, dict[str, int]]:
    """{class of the truth: {what it is called: how often}}; rows and columns `nothing` as well.

    The best score chooses first, of all classes together: the nearest object that is free, within
    2 m or with the detection's centre in its box; in images with an overlap of a half.
    """
    table = {name: Counter[str]() for name in (*names, NOTHING)}
    ruler = by_overlap() if flat else by_distance(CONFUSED)
    for frame in frames:
        found, truth = frame.found, frame.truth
        free = np.isin(truth.classes, names) if len(truth) else np.zeros(0, bool)
        near = ruler.nearness(found.boxes, truth.boxes)
        fits = ruler.hits(near)
        if not flat:
            fits |= centre_inside(found.boxes, truth.boxes)
        for row in by_score(found.scores).tolist():
            able = fits[row] & free
            if not able.any():
                table[NOTHING][found.classes[row]] += 1
                continue
            best = int(np.where(able, near[row], -np.inf).argmax())
            free[best] = False
            if np.asarray(truth.asked)[best]:
                table[truth.classes[best]][found.classes[row]] += 1
        for row in np.flatnonzero(free & np.asarray(truth.asked)).tolist():
            table[truth.classes[row]][NOTHING] += 1
    return {name: dict(row) for name, row in table.items()}


def centre_errors(frames: Sequence[Frame], name: str) -> dict[str, float]:
    """How far off what is found of a class is, in its own axes; empty where nothing is."""
    found = reached(frames, name, LARGE_REACH)
    rows = []
    for place in np.flatnonzero(found.hits).tolist():
        frame = frames[int(found.frames[place])]
        box = frame.found.boxes[int(found.rows[place])]
        true = frame.truth.boxes[int(found.objects[place])]
        c, s = np.cos(true[YAW]), np.sin(true[YAW])
        x, y = box[:2] - true[:2]
        turn = abs((box[YAW] - true[YAW] + np.pi) % (2 * np.pi) - np.pi)
        rows.append((x * c + y * s, y * c - x * s, box[LENGTH] - true[LENGTH], turn))
    if not rows:
        return {}
    along, across, length, turn = np.array(rows).T
    off = np.hypot(along, across)
    return {
        'objects': found.asked,
        'found': len(rows),
        'centre': float(off.mean()),
        'centre, median': float(np.median(off)),
        'within the goal': float((off <= GOAL).mean()),
        'forward': float(along.mean()),
        'along': float(np.abs(along).mean()),
        'across': float(np.abs(across).mean()),
        'length': float(length.mean()),
        'wrong way': float((turn > np.pi / 2).mean()),
    }


def people_mistakes(
    frames: Sequence[Frame], causes: Sequence[Mapping[int, str]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """What keeps the recall of people to 30 m, at one false alarm in ten frames, from 1.

    Returns:
        `alarms`: the false alarms above the score at which there are three times as many, by
        kind and, of what is nothing, by what stands there; `found` and `asked`: people by the
        number of their points, at the score of the recall.
    """
    near = [frame.in_range(0.0, PEOPLE_RANGE) for frame in frames]
    rows = [
        np.flatnonzero(np.hypot(*frame.found.boxes[:, :2].T) < PEOPLE_RANGE) for frame in frames
    ]
    judged = mistakes(near, names, by_distance(PEOPLE_REACH))
    item = max((judged[name] for name in PEOPLE if name in judged), key=lambda m: m.found.asked)
    wrong = np.flatnonzero(~item.found.hits)
    first = wrong[: round(3 * PEOPLE_ALARMS * len(frames))]
    alarms: Counter[str] = Counter()
    for place in first.tolist():
        number, kind = int(item.found.frames[place]), item.kinds[place]
        row = int(rows[number][int(item.found.rows[place])])
        alarms[causes[number].get(row, 'not known') if kind == BACKGROUND else kind] += 1
    score = recall_at_alarms(item.found, len(frames), PEOPLE_ALARMS)[1]
    hit = item.found.hits & (item.found.scores >= score)
    pairs = zip(item.found.frames[hit].tolist(), item.found.objects[hit].tolist(), strict=True)
    found_rows = set(pairs)
    asked: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for number, frame in enumerate(near):
        labels = _bins(np.asarray(frame.truth.points, np.float64), POINT_EDGES, 'points')
        wanted = np.asarray(frame.truth.asked) & np.isin(frame.truth.classes, PEOPLE)
        for row in np.flatnonzero(wanted).tolist():
            asked[labels[row]] += 1
            found[labels[row]] += (number, row) in found_rows
    order = sorted(asked, key=_edge)
    return {
        'alarms': dict(alarms.most_common()),
        'found': {label: found[label] for label in order},
        'asked': {label: asked[label] for label in order},
    }


def above(frame: Frame, lowest: Mapping[str, float]) -> Frame:
    """The frame with the detections that reach the threshold of their class."""
    least = np.array([lowest.get(name, 0.0) for name in frame.found.classes], np.float64)
    kept = frame.found.select(np.asarray(frame.found.scores) >= least)
    return Frame(frame.truth, kept, frame.name, frame.conditions)


def _bins(values: Float64, edges: Sequence[float], unit: str) -> list[str]:
    """The name of the bin of every value."""
    if unit == 'points':  # whole numbers: the upper edge belongs to the next bin
        names = [
            '0 points',
            *(f'{low:g} to {high - 1:g} {unit}' for low, high in pairwise(edges[1:-1])),
            f'{edges[-2]:g} {unit} or more',
        ]
    elif unit == 'visible':
        names = [f'{low:.0%} to {high:.0%} {unit}' for low, high in pairwise(edges)]
    else:
        names = [
            f'{low:g} {unit} or more' if high >= 1e4 else f'{low:g} to {high:g} {unit}'
            for low, high in pairwise(edges)
        ]
    place = np.searchsorted(edges[1:-1], np.nan_to_num(values), side='right')
    known = np.isfinite(values) & (values >= 0)
    return [names[p] if k else f'{unit}: not known' for p, k in zip(place, known, strict=True)]


def _edge(name: str) -> float:
    """The lower edge that a bin's name begins with."""
    word = name.split()[0].rstrip('%')
    return float(word) if word.replace('.', '').isdigit() else float('inf')


def _in(table: Sequence[Sequence[str]], label: str) -> Callable[[int, int], bool]:
    return lambda frame, row: table[frame][row] == label
