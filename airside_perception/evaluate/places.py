"""How far what is found lies from what is there: standard deviations of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches
from airside_perception.geometry import wrap_angle
from airside_perception.types import YAW, Float64

LEAST, MOST = 0.02, 10.0
"""Smallest and largest deviation that is believed, metres and radians."""
HALVINGS = 40
ANY_YAW = np.pi / np.sqrt(3)
"""Deviation of a yaw of which nothing is known."""


@dataclass(frozen=True)
class Deviations:
    """Standard deviations beside the sensor: along and across the object, metres; yaw, radians."""

    along: float
    across: float
    yaw: float


def deviations(frames: Sequence[Frame], matches: Matches, growth: float) -> Deviations:
    """Of the hits of one class: those that make the mean of (error / deviation)^2 one.

    That is what filters and gates take covariances for (the normalised estimation error squared of
    Y. Bar-Shalom et al., Estimation with Applications to Tracking and Navigation, 2001), so gross
    errors count. The deviation of a place at range r is s + `growth` r.

    Args:
        frames: that were matched, boxes in the frame of the vehicle.
        matches: of one class, with one hit at least.
        growth: of the deviation of places with range, metres a metre.
    """
    hits = np.flatnonzero(matches.hits)
    pairs = [(frames[matches.frames[n]], matches.rows[n], matches.objects[n]) for n in hits]
    found: Float64 = np.array([frame.found.boxes[row] for frame, row, _ in pairs])
    truth: Float64 = np.array([frame.truth.boxes[row] for frame, _, row in pairs])
    dx, dy = (found[:, :2] - truth[:, :2]).T
    c, s = np.cos(found[:, YAW]), np.sin(found[:, YAW])
    grown = growth * np.hypot(found[:, 0], found[:, 1])
    turned = wrap_angle(found[:, YAW] - truth[:, YAW])
    return Deviations(
        _consistent(c * dx + s * dy, grown),
        _consistent(c * dy - s * dx, grown),
        min(_consistent(turned, np.zeros(len(turned))), float(ANY_YAW)),
    )


def _consistent(errors: Float64, grown: Float64) -> float:
    """The s for which the mean of (errors / (s + grown))^2 is one, by halving."""
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float(np.mean((errors / (middle + grown)) ** 2)) > 1.0:
            low = middle
        else:
            high = middle
    return low
