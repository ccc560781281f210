"""All figures of one list of detections beside the truth: what `replay evaluate` prints.

A detection finds an object of its class whose centre, seen from above, is nearer than a distance;
the best score chooses first (`matching`). Average precision is the mean over four distances, as
in nuScenes but for objects that need not be found (see there); what needs one distance (recall
and precision at the thresholds, errors, calibration, visibility) takes 2 m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.breakdown import (
    People,
    by_condition,
    by_points,
    by_range,
    by_visibility,
    people,
    together,
)
from airside_perception.evaluate.calibration import (
    Reliability,
    expected_calibration_error,
    reliability,
)
from airside_perception.evaluate.errors import (
    Errors,
    apron_score,
    class_errors,
    mean_errors,
)
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches
from airside_perception.evaluate.precision import curve
from airside_perception.evaluate.question import (
    IOU,
    OTHER_IOU,
    Cell,
    Counts,
    Question,
    average_precisions,
    counts_of,
    kitti_ap,
    mean,
    reached,
)
from airside_perception.types import Float64

SYMMETRIC = ('baggage_cart', 'cone', 'chock', 'fod')
"""Front and back look alike: their yaw counts modulo half a turn."""


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Attributes:
        name: of the class.
        counts: at its threshold.
        threshold: lowest score in `counts`.
        aps: {distance: AP as in nuScenes}.
        ap40: KITTI's, at an overlap of `iou`.
        errors: of what is found within 2 m.
        calibration_error: of its scores.
        ranges: one cell a bin.
        recall, precision: float64 [D], the curve at 2 m, from the best score on.
    """

    name: str
    counts: Counts
    threshold: float
    aps: Mapping[float, float]
    ap40: float
    iou: float
    errors: Errors
    calibration_error: float
    ranges: tuple[Cell, ...]
    recall: Float64
    precision: Float64

    @property
    def ap(self) -> float:
        """Mean over the distances."""
        return mean(self.aps.values())


@dataclass(frozen=True)
class Figures:
    """One list of detections.

    Attributes:
        frames: how many.
        classes: those that are asked for somewhere, in the order of the question.
        counts: of all classes of the question, false alarms of those not asked for included.
        mean_ap, mean_ap40: over `classes`; NaN without any.
        errors, score: their means, and `errors.apron_score`.
        calibration_error, calibration: of all detections together.
        ranges, visibility, points: all classes together; the last two are empty where the truth
            does not say.
        conditions: {kind: cells}, all classes together.
        people: see `breakdown.people`.
    """

    frames: int
    classes: tuple[ClassFigures, ...]
    counts: Counts
    mean_ap: float
    mean_ap40: float
    errors: Errors
    score: float
    calibration_error: float
    calibration: Reliability
    ranges: tuple[Cell, ...]
    visibility: tuple[Cell, ...]
    points: tuple[Cell, ...]
    conditions: Mapping[str, tuple[Cell, ...]]
    people: Mapping[str, People]


def evaluate(frames: Sequence[Frame], question: Question) -> Figures:
    """Every figure of the detections in `frames`."""
    near = [frame.in_range(0.0, question.max_range) for frame in frames]
    found = {name: reached(near, name) for name in question.classes}
    ranges = {name: by_range(near, name, question) for name in question.classes}
    classes = tuple(
        _of_class(near, name, found[name], ranges[name], question)
        for name in question.classes
        if found[name].asked
    )
    mean_ap = mean(item.ap for item in classes)
    errors = mean_errors({item.name: item.errors for item in classes})
    counts = [counts_of(item, question.threshold(name)) for name, item in found.items()]
    scores = np.concatenate([np.empty(0), *(item.scores for item in found.values())])
    hits = np.concatenate([np.empty(0, bool), *(item.hits for item in found.values())])
    return Figures(
        frames=len(frames),
        classes=classes,
        counts=sum(counts, Counts()),
        mean_ap=mean_ap,
        mean_ap40=mean(item.ap40 for item in classes),
        errors=errors,
        score=apron_score(mean_ap, errors) if classes else float('nan'),
        calibration_error=expected_calibration_error(scores, hits),
        calibration=reliability(scores, hits),
        ranges=together(list(ranges.values())),
        visibility=by_visibility(near, found, question),
        points=by_points(near, found, question),
        conditions=by_condition(near, question),
        people=people(frames),
    )


def _of_class(
    frames: Sequence[Frame],
    name: str,
    found: Matches,
    ranges: tuple[Cell, ...],
    question: Question,
) -> ClassFigures:
    recall, precision, _ = curve(found)
    return ClassFigures(
        name=name,
        counts=counts_of(found, question.threshold(name)),
        threshold=question.threshold(name),
        aps=average_precisions(frames, name),
        ap40=kitti_ap(frames, name),
        iou=IOU.get(name, OTHER_IOU),
        errors=class_errors(frames, found, np.pi if name in SYMMETRIC else 2 * np.pi),
        calibration_error=expected_calibration_error(found.scores, found.hits),
        ranges=ranges,
        recall=recall,
        precision=precision,
    )
