"""What an evaluation asks, and counts that answer it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from airside_perception.evaluate.errors import REACH
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches, centre_nearness, match, volume_iou
from airside_perception.evaluate.precision import ap40, nuscenes_ap

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Metres; those of nuScenes."""
IOU: Mapping[str, float] = {'car': 0.7, 'van': 0.7, 'truck': 0.7, 'bus': 0.7}
OTHER_IOU = 0.5
"""AP40 asks for this intersection over union in space: KITTI's for cars and for people."""
RANGES = (0.0, 15.0, 30.0, 50.0, 80.0)
NAN = float('nan')


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        classes: those that count, in the order of the tables.
        thresholds: {class: lowest score} of recall and precision; missing: 0.
        max_range: objects and detections farther from the origin are left out, metres.
        ranges: edges of the bins, metres, ascending.
    """

    classes: tuple[str, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    max_range: float = 80.0
    ranges: tuple[float, ...] = RANGES

    def threshold(self, name: str) -> float:
        """Lowest score of a class that counts as found."""
        return self.thresholds.get(name, 0.0)

    def bins(self) -> list[tuple[float, float]]:
        """Nearest and farthest of every range, metres."""
        pairs = pairwise(self.ranges)
        return [(low, min(high, self.max_range)) for low, high in pairs if low < self.max_range]


@dataclass(frozen=True)
class Counts:
    """Objects that are asked for, those that are found, and false alarms (-1: of no meaning)."""

    asked: int = 0
    hits: int = 0
    alarms: int = 0

    @property
    def recall(self) -> float:
        """NaN where nothing is asked for."""
        return self.hits / self.asked if self.asked else NAN

    @property
    def precision(self) -> float:
        """NaN where nothing is found."""
        found = self.hits + self.alarms
        return self.hits / found if found and self.alarms >= 0 else NAN

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.asked + other.asked, self.hits + other.hits, self.alarms + other.alarms)


@dataclass(frozen=True)
class Cell:
    """A class, or all of them, in one bin: counts at the thresholds, and AP where there is one."""

    name: str
    counts: Counts
    ap: float = NAN
    ap40: float = NAN


def reached(frames: Sequence[Frame], name: str, reach: float = REACH) -> Matches:
    """Matches of one class by the distance of the centres; at `reach` itself there is none."""
    return match(frames, name, centre_nearness, -reach, inclusive=False)


def counts_of(found: Matches, threshold: float) -> Counts:
    """What is found with scores from a threshold up."""
    strong = found.scores >= threshold
    hits = int((strong & found.hits).sum())
    return Counts(found.asked, hits, int(strong.sum()) - hits)


def average_precisions(frames: Sequence[Frame], name: str) -> dict[float, float]:
    """{distance: nuScenes' AP} of one class; NaN where nothing is asked for."""
    return {reach: nuscenes_ap(reached(frames, name, reach)) for reach in DISTANCES}


def mean(values: Iterable[float]) -> float:
    """Of those that are not NaN; NaN without any."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else NAN


def kitti_ap(frames: Sequence[Frame], name: str) -> float:
    """KITTI's AP40 of one class, at its overlap in space; NaN where nothing is asked for."""
    return ap40(match(frames, name, volume_iou, IOU.get(name, OTHER_IOU)))
