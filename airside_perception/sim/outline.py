"""Which rays may meet anything, or a labelled object: the others need not be cast.

Directions are told by azimuth and by z of the unit vector. Each triangle gets a rectangle around
what it covers of that map; long ones are halved before (`Scene.pieces`). No point of a triangle
beside the axis is nearer to it than its nearest corner times the cosine of half the angle that it
spans: so far may the middle of an edge come nearer.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64, Int64

AZIMUTHS, RISES = 720, 256
"""Cells of the map."""
MARGIN = np.float32(0.02)
"""Cells around each triangle, for rounding: a hundred times what float32 leaves open."""
HALF_TURN = np.float32(np.pi)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Covered:
    """Cells of the map, bool [RISES * AZIMUTHS], in which anything is, and labelled objects."""

    anything: Mask
    objects: Mask

    @staticmethod
    def everywhere(*_: object) -> Covered:
        """In place of `covered`, where every ray is to be cast: a check."""
        return Covered(np.ones(RISES * AZIMUTHS, bool), np.ones(RISES * AZIMUTHS, bool))


def cells(directions: Float32) -> Int64:
    """Cells int64 [R] of the map that unit rays [R, 3] go through."""
    x, y, z = (directions[:, axis] for axis in range(3))
    column = _column(np.arctan2(y, x)).astype(np.int64)
    column[column == AZIMUTHS] = 0
    row = np.clip(_row(z), 0, RISES - 1).astype(np.int64)
    return row * AZIMUTHS + column


def covered(scene: Scene, origin: Float64, shift: float = 0.0, lift: float = 0.0) -> Covered:
    """What a scene covers, seen from `origin` [3], or from any place near it.

    Args:
        scene: with its triangles.
        origin: in base_link.
        shift, lift: how far such places are away, metres, horizontally and vertically.
    """
    pieces, labelled = scene.pieces
    found = _rectangles(pieces, origin, shift, lift)
    return Covered(_filled(found), _filled(found.compress(labelled, axis=1)))


def _rectangles(triangles: Float32, origin: Float64, shift: float, lift: float) -> Int64:
    """First row, that after the last, first column, that after the last [4, N] of each triangle.

    Columns may go on behind the last one of the map: there it starts again.
    """
    x, y, height = (
        np.ascontiguousarray(triangles[..., axis].T) - np.float32(origin[axis])
        for axis in range(3)
    )
    azimuth, reach = np.arctan2(y, x), _hypot(x, y)
    turn = azimuth - azimuth[0]
    turn -= 2 * HALF_TURN * np.rint(turn * (np.float32(0.5) / HALF_TURN))
    left, right = turn.min(axis=0), turn.max(axis=0)
    near = reach.min(axis=0) * np.cos(np.minimum((right - left) / 2, HALF_TURN / 2))
    near = np.maximum(near - np.float32(shift), np.float32(1e-6))
    far = reach.max(axis=0) + np.float32(shift)
    low, high = height.min(axis=0) - np.float32(lift), height.max(axis=0) + np.float32(lift)
    if shift:
        wide = np.arcsin(np.minimum(np.float32(shift) / near, np.float32(1)))
        left, right = left - wide, right + wide
    bottom = _row(low / _hypot(low, np.where(low < 0, near, far))) - MARGIN
    top = _row(high / _hypot(high, np.where(high > 0, near, far))) + MARGIN
    begin = np.floor(_column(azimuth[0] + left) - MARGIN)
    end = np.floor(_column(azimuth[0] + right) + MARGIN) + 1
    turns = np.floor(begin / np.float32(AZIMUTHS)) * np.float32(AZIMUTHS)
    # The axis may be inside, or it is so near that any place may be beside it.
    around = (right - left > 0.9 * HALF_TURN) | (end - begin >= AZIMUTHS)
    begin, end = np.where(around, 0, begin - turns), np.where(around, AZIMUTHS, end - turns)
    last = np.minimum(np.floor(top) + 1, RISES)
    return np.stack([np.maximum(np.floor(bottom), 0), last, begin, end]).astype(np.int64)


def _filled(rectangles: Int64) -> Mask:
    """Cells of the map that are in any of the rectangles, by the sums of their corners."""
    over = rectangles[:, rectangles[3] > AZIMUTHS]
    over = np.stack([over[0], over[1], np.zeros_like(over[2]), over[3] - AZIMUTHS])
    bottom, top, begin, end = np.concatenate([rectangles, over], axis=1)
    np.minimum(end, AZIMUTHS, out=end)
    bottom, top = bottom * (AZIMUTHS + 1), top * (AZIMUTHS + 1)
    corners = np.zeros((RISES + 1) * (AZIMUTHS + 1), np.float32)
    for row, column in ((bottom, begin), (top, end)):
        np.add.at(corners, row + column, np.float32(1))
    for row, column in ((bottom, end), (top, begin)):
        np.add.at(corners, row + column, np.float32(-1))
    # Whole numbers, far below where float32 would round them.
    count = cv2.integral(corners.reshape(RISES + 1, AZIMUTHS + 1), sdepth=cv2.CV_32F)
    return np.asarray(count[1 : RISES + 1, 1 : AZIMUTHS + 1] > 0).ravel()


def _hypot(a: Float32, b: Float32) -> Float32:
    """`np.hypot` at a tenth of its cost, for numbers whose squares float32 holds."""
    return np.sqrt(a * a + b * b)


def _column(azimuth: Float32) -> Float32:
    """Cells from that which looks backwards."""
    return (azimuth + HALF_TURN) * np.float32(AZIMUTHS / (2 * np.pi))


def _row(rise: Float32) -> Float32:
    """Cells from straight down, of z of a unit vector."""
    return (rise + 1) * np.float32(RISES / 2)
