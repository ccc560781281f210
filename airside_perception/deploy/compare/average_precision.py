"""Average precision of detections, in the image or in bird's-eye view, against boxes as truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.overlap import bev_iou, iou_2d
from airside_perception.types import Float64, by_score

Judge = Callable[[Float64], NDArray[np.bool_]]
HIT, MISS, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class Found:
    """Detections of one frame.

    Attributes:
        classes: N names.
        scores: float64 [N].
        boxes: float64 [N, 4] (x1, y1, x2, y2) in pixels, or [N, 7] (x, y, z, l, w, h, yaw).
    """

    classes: tuple[str, ...]
    scores: Float64
    boxes: Float64

    def select(self, rows: Any) -> Found:
        """Those at `rows`, indices or a mask."""
        index = np.arange(len(self.classes))[rows]
        names = tuple(self.classes[row] for row in index)
        return Found(names, self.scores[index], self.boxes[index])


@dataclass(frozen=True)
class Truth:
    """What is in one frame.

    Attributes:
        classes: for each of N objects the names that a detection of it may have. It counts as an
            object of the first one; under the others it is neither asked for nor a false alarm.
            No name at all: found or not, it does not count.
        boxes: as those of `Found`.
        asked: bool [N]; False: an object that is not asked for, as one that is hardly visible.
        judged: which boxes [M, ...] lie where everything is labelled; None: all of them.
    """

    classes: tuple[tuple[str, ...], ...]
    boxes: Float64
    asked: NDArray[np.bool_]
    judged: Judge | None = None


@dataclass(frozen=True)
class Precision:
    """Average precision of one class, or of all.

    Attributes:
        ap: 0..1; NaN where there is no object.
        objects: how many there are.
        found: how many of them were detected with any score.
        alarms: detections of no object, with any score.
    """

    ap: float
    objects: int
    found: int
    alarms: int


def overlaps(a: Float64, b: Float64) -> Float64:
    """IoU [N, M]: in the image for boxes of 4 numbers, of the footprints for those of 7."""
    return iou_2d(a, b) if a.shape[1] == 4 else bev_iou(a, b)


def average_precision(scores: Float64, hits: NDArray[np.bool_], objects: int) -> float:
    """The area under the curve of precision over recall, made monotone.

    For every recall the best precision at that recall or more counts, over all recalls (the
    definition of PASCAL VOC 2010 and later, section 3.4.1 of its development kit). Detections of
    equal scores come together, so the result does not depend on their order.

    Args:
        scores: [N]; hits: [N], whether each found an object; objects: how many there are.

    Returns:
        0..1; NaN without objects.
    """
    if not objects:
        return float('nan')
    if not len(scores):
        return 0.0
    order = by_score(scores)
    right, values = np.cumsum(np.asarray(hits, np.int64)[order]), np.asarray(scores)[order]
    last = np.append(values[1:] != values[:-1], True)  # of each group of equal scores
    count = np.arange(1, len(order) + 1)[last]
    recall, precision = right[last] / objects, right[last] / count
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def judge(found: Found, truth: Truth, name: str, iou: float) -> tuple[NDArray[np.int64], int]:
    """What became of the detections of one class in one frame: HIT, MISS or IGNORED each.

    The best score chooses first, the object of most overlap among those that are free; one that
    overlaps only what is not asked for is ignored.

    Args:
        name: of the class.
        iou: least overlap of a hit.

    Returns:
        For the detections of that class in the order of `found`, and the number of objects.
    """
    rows = np.flatnonzero([item == name for item in found.classes])
    first = np.array([bool(names) and names[0] == name for names in truth.classes], bool)
    also = np.array([not names or name in names for names in truth.classes], bool)
    wanted = first & truth.asked
    verdict = np.full(len(rows), MISS, np.int64)
    if len(rows) and len(truth.classes):
        overlap = overlaps(found.boxes[rows], truth.boxes)
        free = wanted.copy()
        for row in by_score(found.scores[rows]):
            best = int(np.argmax(np.where(free, overlap[row], -1.0)))
            if free[best] and overlap[row, best] >= iou:
                verdict[row], free[best] = HIT, False
            elif (overlap[row, also & ~wanted] >= iou).any():
                verdict[row] = IGNORED
    if len(rows) and truth.judged is not None:
        outside = ~truth.judged(found.boxes[rows])
        verdict[outside & (verdict == MISS)] = IGNORED
    return verdict, int(wanted.sum())


def precisions(frames: Sequence[tuple[Found, Truth]], iou: float = 0.5) -> dict[str, Precision]:
    """{class: average precision} over all frames; '' is all classes in one curve.

    Args:
        frames: detections and truth of each.
        iou: least overlap of a hit, in the image or of the footprints.
    """
    names = _names(frames)
    table: dict[str, Precision] = {}
    scores: list[Float64] = []
    hits: list[NDArray[np.bool_]] = []
    objects = 0
    for name in names:
        own_scores, own_hits, own_objects = [], [], 0
        for found, truth in frames:
            verdict, count = judge(found, truth, name, iou)
            of_class = found.scores[[item == name for item in found.classes]]
            own_scores.append(of_class[verdict != IGNORED])
            own_hits.append(verdict[verdict != IGNORED] == HIT)
            own_objects += count
        table[name] = _precision(own_scores, own_hits, own_objects)
        scores, hits, objects = scores + own_scores, hits + own_hits, objects + own_objects
    return {'': _precision(scores, hits, objects), **table}


def mean_precision(table: Mapping[str, Precision]) -> float:
    """Mean over the classes that there are objects of; NaN without any."""
    known = [item.ap for name, item in table.items() if name and item.objects]
    return float(np.mean(known)) if known else float('nan')


def weighted_precision(table: Mapping[str, Precision]) -> float:
    """Mean over the classes, weighted by their objects; NaN without any."""
    known = [(item.ap, item.objects) for name, item in table.items() if name and item.objects]
    total = sum(objects for _, objects in known)
    return sum(ap * objects for ap, objects in known) / total if total else float('nan')


def drop(first: Mapping[str, Precision], second: Mapping[str, Precision]) -> float:
    """How much lower the average precision of the second is: the larger of two ways to count.

    All classes in one curve sees false alarms of classes without objects, and the mean over the
    classes by their objects sees what one class loses where another one gains ranks.
    """
    by_class = weighted_precision(first) - weighted_precision(second)
    return max(first[''].ap - second[''].ap, by_class)


def _precision(
    scores: Iterable[Float64], hits: Iterable[NDArray[np.bool_]], objects: int
) -> Precision:
    values = np.concatenate([np.empty(0), *scores])
    right = np.concatenate([np.empty(0, bool), *hits])
    ap = average_precision(values, right, objects)
    return Precision(ap, objects, int(right.sum()), int((~right).sum()))


def _names(frames: Sequence[tuple[Found, Truth]]) -> list[str]:
    names: set[str] = set()
    for found, truth in frames:
        names |= set(found.classes)
        names |= {item[0] for item in truth.classes if item}
    return sorted(names)
