"""Which rays may meet a labelled object: the others need not be asked what they pass through.

Directions are told by azimuth and rise, height over horizontal distance. Each object gets a
rectangle around what it covers of that map. No point of it is nearer to the axis than its nearest
corner times the cosine of the angle that it spans: so far may the middle of an edge come nearer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64

AZIMUTHS, RISES = 720, 256
"""Cells of the map."""
STEEP = 1.6
"""Rise at the last cells, which hold all that is steeper."""


def cells(directions: Float32) -> NDArray[np.int32]:
    """Cells int32 [R] of the map that rays [R, 3] go through."""
    x, y, z = (directions[:, axis] for axis in range(3))
    column = _column(np.arctan2(y, x)).astype(np.int32) % AZIMUTHS
    row = _row(z / np.maximum(np.hypot(x, y), np.float32(1e-9))).astype(np.int32)
    return row * AZIMUTHS + column


def near_objects(scene: Scene, origin: Float64, where: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether rays [R] from `origin` [3] through cells [R] may meet any object; most do not."""
    covered = np.zeros((RISES, AZIMUTHS), bool)
    for rows, columns in _rectangles(scene, origin):
        covered[rows, columns] = True
    return covered.ravel().take(where)


def _rectangles(scene: Scene, origin: Float64) -> list[tuple[slice, slice]]:
    """Rows and columns of the map that objects cover."""
    order = np.flatnonzero(scene.instance >= 0)
    owner = scene.instance.take(order)
    if (np.diff(owner) < 0).any():
        order = order[np.argsort(owner, kind='stable')]
        owner = scene.instance.take(order)
    if not len(order):
        return []
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    points = scene.triangles.take(order, axis=0).reshape(-1, 3)
    x, y, height = (points[:, axis] - np.float32(origin[axis]) for axis in range(3))
    azimuth, reach = np.arctan2(y, x), np.hypot(x, y)
    start = azimuth[3 * first]
    turn = azimuth - np.repeat(start, 3 * np.diff(first, append=len(order)))
    turn -= np.float32(2 * np.pi) * np.rint(turn * np.float32(0.5 / np.pi))
    low, high, left, right, near, far = (
        how.reduceat(values, 3 * first)
        for values in (height, turn, reach)
        for how in (np.minimum, np.maximum)
    )
    near = np.maximum(near * np.cos(np.minimum(right - left, np.float32(np.pi / 2))), 1e-6)
    bottom = _row(low / np.where(low < 0, near, far)).astype(int).tolist()
    top = _row(high / np.where(high > 0, near, far)).astype(int).tolist()
    around = (right - left > 0.9 * np.pi).tolist()  # the axis may be inside
    begin, end = (np.floor(_column(start + side)).astype(int).tolist() for side in (left, right))
    found = []
    for number in range(len(first)):
        rows = slice(max(bottom[number] - 1, 0), top[number] + 2)
        from_, to = begin[number] - 1, end[number] + 2
        if around[number] or to - from_ >= AZIMUTHS:
            found.append((rows, slice(0, AZIMUTHS)))
            continue
        # Columns go on behind either end of the map.
        shift = from_ // AZIMUTHS * AZIMUTHS
        found.append((rows, slice(from_ - shift, to - shift)))
        found.append((rows, slice(0, max(to - shift - AZIMUTHS, 0))))
    return found


def _column(azimuth: Float32) -> Float32:
    """Cells from that which looks backwards."""
    return (azimuth + np.float32(np.pi)) * np.float32(AZIMUTHS / (2 * np.pi))


def _row(rise: NDArray[Any]) -> Float32:
    """Cells from the lowest; what is steeper than STEEP in the last ones."""
    cell = rise * np.float32(RISES / (2 * STEEP)) + np.float32(RISES / 2)
    return np.asarray(np.clip(cell, 0, RISES - 1), dtype=np.float32)
