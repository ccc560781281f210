"""The same figures by range, by what is known of the objects, by conditions; and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from airside_perception.evaluate.frames import Frame, Mask, Truth
from airside_perception.evaluate.matching import Matches
from airside_perception.evaluate.precision import recall_at_alarms
from airside_perception.evaluate.question import (
    Cell,
    Counts,
    Question,
    average_precisions,
    counts_of,
    kitti_ap,
    mean,
    reached,
)
from airside_perception.types import Int64

VISIBILITIES = (0.0, 0.4, 0.6, 0.8, 1.0)
"""Edges of the bins of visibility; those of nuScenes."""
POINTS = (1, 5, 20, 100)
"""First numbers of lidar points of the bins."""
ENOUGH_POINTS = 5
PEOPLE = ('person', 'pedestrian')
PEOPLE_RANGE, PEOPLE_REACH, PEOPLE_ALARMS = 30.0, 1.0, 0.1
"""People within 30 m: recall with the centre within 1 m at one false alarm in ten frames."""
UNKNOWN = 'not known'


@dataclass(frozen=True)
class People:
    """Recall of people at a rate of false alarms.

    Attributes:
        asked: people of all frames.
        recall, score: at that rate, and the score it is reached at.
    """

    asked: int
    recall: float
    score: float


def by_range(frames: Sequence[Frame], name: str, question: Question) -> tuple[Cell, ...]:
    """One class in each range; its AP there is the mean over the distances, beside it AP40."""
    cells = []
    for low, high in question.bins():
        part = [frame.in_range(low, high) for frame in frames]
        counts = counts_of(reached(part, name), question.threshold(name))
        ap = mean(average_precisions(part, name).values()) if counts.asked else float('nan')
        cells.append(Cell(f'{low:g}-{high:g} m', counts, ap, kitti_ap(part, name)))
    return tuple(cells)


def together(rows: Sequence[Sequence[Cell]]) -> tuple[Cell, ...]:
    """Cells of several classes, bin by bin: counts summed, AP averaged over those that have it."""
    return tuple(
        Cell(
            cells[0].name,
            sum((cell.counts for cell in cells), Counts()),
            mean(cell.ap for cell in cells),
            mean(cell.ap40 for cell in cells),
        )
        for cells in zip(*rows, strict=True)
    )


def by_condition(frames: Sequence[Frame], question: Question) -> dict[str, tuple[Cell, ...]]:
    """{kind of condition: a cell for each value}, all classes together."""
    table: dict[str, tuple[Cell, ...]] = {}
    for key in sorted({key for frame in frames for key in frame.conditions}):
        cells = []
        for value in sorted({frame.conditions.get(key, UNKNOWN) for frame in frames}):
            part = [frame for frame in frames if frame.conditions.get(key, UNKNOWN) == value]
            found = {name: reached(part, name) for name in question.classes}
            counts = [counts_of(item, question.threshold(name)) for name, item in found.items()]
            asked = [name for name, item in found.items() if item.asked]
            ap = mean(mean(average_precisions(part, name).values()) for name in asked)
            label = f'{value} ({len(part)} frames)'
            cells.append(Cell(label, sum(counts, Counts()), ap))
        table[key] = tuple(cells)
    return table


def by_visibility(
    frames: Sequence[Frame], found: Mapping[str, Matches], question: Question
) -> tuple[Cell, ...]:
    """Recall by the share of an object that no other hides; empty where nothing is known."""

    def bins(truth: Truth) -> Int64:
        visible = np.asarray(truth.visibility, np.float64)
        place = np.searchsorted(VISIBILITIES[1:-1], np.nan_to_num(visible), side='right')
        return np.where(np.isnan(visible), len(VISIBILITIES) - 1, place)

    pairs = pairwise(VISIBILITIES)
    return _by_object(frames, found, question, bins, [f'{a:.0%} to {b:.0%}' for a, b in pairs])


def by_points(
    frames: Sequence[Frame], found: Mapping[str, Matches], question: Question
) -> tuple[Cell, ...]:
    """Recall by the number of lidar points on an object; empty where nothing is known."""

    def bins(truth: Truth) -> Int64:
        count = np.asarray(truth.points)
        place = np.searchsorted(POINTS, count, side='right')
        return np.where(count < 0, len(POINTS) + 1, place)

    pairs = pairwise(POINTS)
    labels = ['none', *(f'{a} to {b - 1}' for a, b in pairs), f'{POINTS[-1]} or more']
    return _by_object(frames, found, question, bins, labels)


def people(frames: Sequence[Frame]) -> dict[str, People]:
    """`all` people within `PEOPLE_RANGE`, and those with `enough` lidar points, where known."""
    near = [frame.in_range(0.0, PEOPLE_RANGE) for frame in frames]

    def enough(truth: Truth) -> Mask:
        return np.asarray(np.asarray(truth.points) >= ENOUGH_POINTS)

    groups = {'all': near}
    if any((np.asarray(frame.truth.points) >= 0).any() for frame in near):
        keep = [frame.within(enough, lambda found: np.ones(len(found), bool)) for frame in near]
        groups['enough'] = keep
    answers = {}
    for label, part in groups.items():
        found = max((reached(part, name, PEOPLE_REACH) for name in PEOPLE), key=lambda m: m.asked)
        if found.asked:
            at = recall_at_alarms(found, len(part), PEOPLE_ALARMS)
            answers[label] = People(found.asked, *at)
    return answers


def hit_objects(frames: Sequence[Frame], found: Mapping[str, Matches], question: Question) -> list[
    Mask
]:  # fmt: skip
    """For every frame, which of its objects are found at the thresholds, bool [N]."""
    hit = [np.zeros(len(frame.truth), bool) for frame in frames]
    for name, item in found.items():
        strong = item.hits & (item.scores >= question.threshold(name))
        for number, row in zip(item.frames[strong], item.objects[strong], strict=True):
            hit[int(number)][int(row)] = True
    return hit


def asked_objects(frame: Frame, question: Question) -> Mask:
    """Which objects of a frame must be found, bool [N]."""
    counted = np.array([name in question.classes for name in frame.truth.classes], bool)
    return np.asarray(np.asarray(frame.truth.asked) & counted)


def _by_object(
    frames: Sequence[Frame],
    found: Mapping[str, Matches],
    question: Question,
    bins: Callable[[Truth], Int64],
    labels: Sequence[str],
) -> tuple[Cell, ...]:
    """Objects that are asked for and found, by their bin; the last one holds what is unknown."""
    count = len(labels) + 1
    asked, hits = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for frame, hit in zip(frames, hit_objects(frames, found, question), strict=True):
        place, wanted = bins(frame.truth), asked_objects(frame, question)
        asked += np.bincount(place[wanted], minlength=count)
        hits += np.bincount(place[wanted & hit], minlength=count)
    if not asked[:-1].any():
        return ()
    rows = zip((*labels, UNKNOWN), asked.tolist(), hits.tolist(), strict=True)
    return tuple(Cell(label, Counts(a, h, -1)) for label, a, h in rows if a)
