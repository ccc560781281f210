"""How far off what was found is: the true-positive errors of nuScenes, and a score of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches
from airside_perception.evaluate.precision import LEAST
from airside_perception.types import HEIGHT, LENGTH, WIDTH, YAW, Float64

REACH = 2.0
"""Farthest centre of a true positive whose errors count, metres."""
AP_WEIGHT = 5.0
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Errors:
    """Mean errors of the true positives of one class, or of several.

    Attributes:
        translation: distance of the centres seen from above, metres.
        scale: 1 - IoU of the two sizes with centre and yaw aligned.
        orientation: smallest difference of the yaws, radians.
        velocity: m/s; NaN where the detector gives none, or the truth has none.
    """

    translation: float
    scale: float
    orientation: float
    velocity: float = float('nan')

    def known(self) -> dict[str, float]:
        """Those that are not NaN, by name."""
        return {name: value for name, value in vars(self).items() if np.isfinite(value)}


def box_errors(frames: Sequence[Frame], found: Matches, period: float = 2 * np.pi) -> Float64:
    """Errors [H, 4] of the H hits, best score first: translation, scale, orientation, velocity.

    Args:
        period: of the yaw: pi where front and back look alike.
    """
    rows = []
    for place in np.flatnonzero(found.hits).tolist():
        frame = frames[int(found.frames[place])]
        row, item = int(found.rows[place]), int(found.objects[place])
        a, b = frame.found.boxes[row], frame.truth.boxes[item]
        smaller = np.minimum(a[LENGTH : HEIGHT + 1], b[LENGTH : HEIGHT + 1]).prod()
        both = a[LENGTH] * a[WIDTH] * a[HEIGHT] + b[LENGTH] * b[WIDTH] * b[HEIGHT]
        turn = (a[YAW] - b[YAW] + period / 2) % period - period / 2
        speed = np.asarray(frame.found.velocities)[row] - np.asarray(frame.truth.velocities)[item]
        rows.append(
            (
                np.hypot(a[0] - b[0], a[1] - b[1]),
                1.0 - smaller / (both - smaller),
                abs(turn),
                np.hypot(*speed),
            )
        )
    return np.array(rows, np.float64).reshape(-1, 4)


def class_errors(frames: Sequence[Frame], found: Matches, period: float = 2 * np.pi) -> Errors:
    """Mean errors of one class, over all recalls above 10 % that are reached.

    As nuScenes' development kit computes them: the running mean over the hits, interpolated at 101
    recalls by their scores. A class of which less is found has errors of 1, that of the velocity
    only where the frames have velocities, found and true. Where the best hits have no velocity
    the kit counts errors of 0, which flatters; here the first one that is known stands for them.
    """
    values = box_errors(frames, found, period)
    if not len(values):
        return _unfound(frames)
    recall = np.cumsum(found.hits) / found.asked
    scores = np.interp(RECALLS, recall, found.scores, right=0.0)
    reached = np.flatnonzero(scores)
    last = int(reached[-1]) if len(reached) else 0
    first = round(100 * LEAST) + 1
    if last < first:
        return _unfound(frames)
    hit_scores = found.scores[found.hits]
    means = []
    for column in values.T:
        if not np.isfinite(column).any():
            means.append(float('nan'))
            continue
        running = _running_mean(column)
        at = np.interp(scores[::-1], hit_scores[::-1], running[::-1])[::-1]
        means.append(float(at[first : last + 1].mean()))
    return Errors(*means)


def _unfound(frames: Sequence[Frame]) -> Errors:
    """Errors of a class of which nearly nothing is found."""
    given = any(np.isfinite(np.asarray(item.found.velocities)).any() for item in frames)
    known = any(np.isfinite(np.asarray(item.truth.velocities)).any() for item in frames)
    return Errors(1.0, 1.0, 1.0, 1.0 if given and known else float('nan'))


def mean_errors(by_class: Mapping[str, Errors]) -> Errors:
    """The mean of each error over the classes that have it."""

    def mean(name: str) -> float:
        values = [getattr(item, name) for item in by_class.values()]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else float('nan')

    return Errors(*(mean(name) for name in ('translation', 'scale', 'orientation', 'velocity')))


def apron_score(mean_ap: float, errors: Errors) -> float:
    """One number from mAP and errors, 0..1: nuScenes' formula without attributes.

    (5 mAP + sum of max(0, 1 - error)) / (5 + number of errors). It is no NDS, which has five
    errors, of which attributes are one; velocities count where the detector gives them.
    """
    known = errors.known().values()
    good = sum(max(0.0, 1.0 - value) for value in known)
    return (AP_WEIGHT * mean_ap + good) / (AP_WEIGHT + len(known))


def _running_mean(values: Float64) -> Float64:
    """Mean of the first 1, 2, ... values, NaN left out; before the first number that number."""
    there = np.isfinite(values)
    first = values[np.argmax(there)]
    total = np.cumsum(np.where(there, values, 0.0))
    count = np.cumsum(there)
    mean: Float64 = np.divide(total, count, out=np.full(len(values), first), where=count > 0)
    return mean
