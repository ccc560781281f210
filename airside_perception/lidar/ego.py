"""The vehicle's own body: a box whose points belong to no object.

A lidar on the roof sees roof, mirrors and load. Whoever walks beside the vehicle is half a metre
from them, so that no distance from the origin keeps the one and drops the other.

A point is in the box if low <= p < high along all three axes: as with pillars, one exactly on a
lower side is inside, on an upper side outside. All values are float32, in the frame of the
network. The kernel `bin_points` (pillars.cu) has the same rule.

Boxes that a network finds are left as they are, wherever their centre is: without its points the
vehicle is not found, and whoever leans on it must be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from airside_perception.config import LidarConfig
from airside_perception.types import Float32


def ego_box(config: LidarConfig) -> tuple[Float32, Float32]:
    """Lowest and highest corner of the body, float32 [3] each, metres; equal where it is off."""
    corners = np.zeros((2, 3), np.float32)
    if config.ego_box:
        corners[:] = np.reshape(config.ego_box, (2, 3))
    return corners[0], corners[1]


def without_ego(points: Float32, config: LidarConfig) -> Float32:
    """Points [N, 3 or more] that are neither nearer than `min_range` nor in the box."""
    if config.min_range > 0.0:
        near2 = np.float32(config.min_range**2)
        points = points[~(np.square(points[:, 0]) + np.square(points[:, 1]) < near2)]
    if any(config.ego_box):
        points = points[~on_ego(points, *ego_box(config))]
    return points


def on_ego(points: Float32, low: Float32, high: Float32) -> NDArray[np.bool_]:
    """Which of the points [N, 3 or more] (x, y, z, ...) are in the box from `low` to `high`."""
    inside = np.ones(len(points), dtype=bool)
    for axis in range(3):
        along = points[:, axis]
        inside &= (along >= low[axis]) & (along < high[axis])
    return inside
