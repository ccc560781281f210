"""What a camera's pixels see, as the parts of its shading ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airside_perception.sim.lidar import Hits
from airside_perception.sim.rows import picked
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Int64

NEARER = np.float32(0.9995)
"""How much nearer than what a pixel shows its point is taken to be."""


@dataclass(frozen=True)
class View:
    """What the pixels of a camera see.

    Attributes:
        origin: float32 [3], of the camera in base_link.
        rays: float32 [H * W, 3]; hits: what they meet; shape: (H, W).
    """

    origin: Float32
    rays: Float32
    hits: Hits
    shape: tuple[int, int]

    def at(self, pixels: Int64, lift: float = 0.0) -> Float32:
        """Points [N, 3] just before what pixels [N] show, `lift` higher; for sky at the camera."""
        reach = self.hits.distance.take(pixels) * NEARER
        reach[np.isinf(reach)] = 0
        points = picked(self.rays, pixels)
        for axis, start in enumerate(self.origin + np.array([0, 0, lift], np.float32)):
            points[:, axis] *= reach
            points[:, axis] += start
        return points

    def ground(self, pixels: Int64, distance: Float32) -> tuple[Float32, Float32]:
        """x and y [N] of what `at` gives, for pixels [N] that show something at `distance` [N]."""
        reach = distance * NEARER
        x, y = (self.rays[:, axis].take(pixels) for axis in (0, 1))
        for plane, start in ((x, self.origin[0]), (y, self.origin[1])):
            plane *= reach
            plane += start
        return x, y


def in_world(scene: Scene, x: Float32, y: Float32) -> tuple[Float32, Float32]:
    """World x and y [R] of points at `x`, `y` [R] in base_link."""
    (xx, xy, _, x0), (yx, yy, _, y0) = scene.base2world[:2].astype(np.float32)
    return xx * x + xy * y + x0, yx * x + yy * y + y0
