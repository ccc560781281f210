"""How far what is found lies from what is there: standard deviations of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches
from airside_perception.geometry import wrap_angle
from airside_perception.types import YAW, Float64

INSIDE = 0.6827
"""Share of normally distributed errors within one standard deviation."""
LEAST = 0.02
"""Smallest deviation that is believed, metres and radians."""
ANY_YAW = np.pi / np.sqrt(3)
"""Deviation of a yaw of which nothing is known."""


@dataclass(frozen=True)
class Deviations:
    """Standard deviations beside the sensor: along and across the object, metres; yaw, radians."""

    along: float
    across: float
    yaw: float


def deviations(frames: Sequence[Frame], matches: Matches, growth: float) -> Deviations:
    """Of the hits of one class, by the share of errors that lie within them.

    The deviation of a place at range r is s + `growth` r; s is chosen so that 68.27 % of the
    errors lie within it, which a few gross ones do not change as they would a mean square.

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
    reach = growth * np.hypot(found[:, 0], found[:, 1])

    def within(errors: Float64) -> float:
        return max(float(np.quantile(errors, INSIDE)), LEAST)

    turned = np.abs(wrap_angle(found[:, YAW] - truth[:, YAW]))
    return Deviations(
        within(np.abs(c * dx + s * dy) - reach),
        within(np.abs(c * dy - s * dx) - reach),
        min(within(turned), float(ANY_YAW)),
    )
