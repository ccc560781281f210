"""What tidy simulated scenes lack and real scans are full of: loose leaves, posts, odd solids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from airside_perception.sim.materials import row
from airside_perception.sim.mesh import Mesh, box, cylinder, ellipsoid, merge
from airside_perception.types import Float32, Float64


def foliage(rng: np.random.Generator, at: Float64) -> Mesh:
    """A bush, hedge, crown or tuft around `at` (x, y): loose leaves that let beams pass."""
    kind = rng.choice(4, p=[0.4, 0.2, 0.25, 0.15])
    if kind == 0:
        half, z = rng.uniform((0.4, 0.4, 0.4), (2.0, 2.0, 1.6)), 0.8
    elif kind == 1:
        half, z = rng.uniform((1.5, 0.3, 0.5), (6.0, 0.8, 1.3)), 0.9
    elif kind == 2:
        half, z = rng.uniform((1.0, 1.0, 1.0), (3.0, 3.0, 3.0)), rng.uniform(1.5, 6.0)
    else:
        half, z = rng.uniform((1.0, 1.0, 0.1), (4.0, 3.0, 0.35)), 0.1
    count = int(np.clip(30 * half[0] * half[1] * half[2] ** 0.5, 25, 160))
    places = rng.normal(size=(count, 3))
    places *= (rng.random(count) ** 0.4 / np.linalg.norm(places, axis=1))[:, None] * half
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    places = places @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [*at, z]
    size = rng.uniform(0.1, 0.35) * np.exp(rng.normal(0, 0.3, (count, 1, 1)))
    triangles = places[:, None] + rng.normal(size=(count, 3, 3)) * size
    return Mesh(_above_ground(triangles), np.full(count, row('leaves'), np.int32))


def post(rng: np.random.Generator, at: Float64) -> Mesh:
    """A pole, trunk, traffic light or bollard on `at` (x, y): easily taken for a person."""
    material = row(str(rng.choice(['concrete', 'steel', 'bark', 'grey', 'white'])))
    low = rng.random() < 0.35
    height = rng.uniform(0.5, 1.5) if low else rng.uniform(1.8, 8.0)
    radius = rng.uniform(0.04, 0.2) if low else rng.uniform(0.04, 0.35)
    parts = [
        cylinder(
            (radius, radius * rng.uniform(0.6, 1.0)), (-0.2, height), (0.0, 0.0), material, sides=6
        )
    ]
    if rng.random() < 0.35:  # a mound or a foot
        size = (*rng.uniform(0.4, 1.6, 2), rng.uniform(0.1, 0.7))
        parts.append(ellipsoid(size, (0, 0, 0), row('grass'), sides=7, rings=5))
    if rng.random() < 0.4:  # a board, box or lamp
        size = rng.uniform((0.05, 0.2, 0.2), (0.5, 0.8, 1.0))
        parts.append(box(size, (0.0, 0.0, rng.uniform(0.4, max(0.5, height - 0.3))), row('steel')))
    lean = rng.normal(0, 0.04, 2)
    return merge(parts).moved((*at, 0.0), rng.uniform(0, 6), *lean)


def solid(rng: np.random.Generator, at: Float64) -> Mesh:
    """A bin, a wall, a corner of walls, a shed or a heap of earth on `at` (x, y)."""
    kind = rng.choice(5, p=[0.35, 0.2, 0.15, 0.1, 0.2])
    material = row(str(rng.choice(['concrete', 'steel', 'brick', 'grey', 'facade', 'tarpaulin'])))
    yaw = rng.uniform(0, np.pi)
    if kind == 0:
        parts = [box(rng.uniform((0.2, 0.2, 0.3), (1.3, 1.0, 1.6)), (0, 0, 0), material)]
    elif kind in (1, 2):
        height, length = rng.uniform(0.4, 4.0), rng.uniform(2.0, 14.0)
        parts = [box((length, rng.uniform(0.1, 0.5), height), (0, 0, 0), material)]
        if kind == 2:
            depth = rng.uniform(1.0, 6.0)
            parts.append(
                box((rng.uniform(0.1, 0.5), depth, height), (length / 2, depth / 2, 0), material)
            )
    elif kind == 3:
        parts = [box(rng.uniform((0.8, 0.8, 0.5), (5.0, 3.0, 3.2)), (0, 0, 0), material)]
    else:
        size = (*rng.uniform(0.8, 6.0, 2), rng.uniform(0.3, 2.2))
        parts = [ellipsoid(size, (0, 0, 0), row('grass'), sides=9, rings=7)]
    return merge(parts).moved((*at, 0.0), yaw)


Element = Callable[[np.random.Generator, Float64], Mesh]


def row_of(rng: np.random.Generator) -> tuple[list[Element], Float64]:
    """A row of barriers, hedges, or a guard rail, of pieces that all look alike, and their places.

    Rows stand along roads, as high and long as cars: real scans are full of them.
    """
    kind = rng.choice(3, p=[0.45, 0.35, 0.2])
    material = row(str(rng.choice(['concrete', 'white', 'livery_red', 'grey', 'brick'])))
    length, yaw = rng.uniform(1.0, 2.6), rng.normal(0, 0.15) + rng.choice([0.0, np.pi / 2])
    if kind == 0:  # a broad foot below a narrow wall
        foot, wall = rng.uniform((0.4, 0.1), (0.8, 0.4)), rng.uniform((0.12, 0.5), (0.4, 0.9))
        low = box((length, *foot), (0, 0, 0), material)
        piece = merge([low, box((length, *wall), (0, 0, foot[1]), material)])
    elif kind == 1:  # a hedge, perhaps in a trough
        wide, high = rng.uniform(0.5, 1.8), rng.uniform(0.5, 1.3)
        trough = rng.uniform(0.2, 0.6) if rng.random() < 0.4 else 0.02
        below = box((length, wide, trough), (0, 0, 0), material)
        leaves = box((length, 0.9 * wide, high), (0, 0, trough), row('leaves'))
        piece = merge([below, leaves])
    else:
        high = rng.uniform(0.55, 1.0)
        rail = box((length, 0.1, 0.3), (0, 0, high - 0.3), row('steel'))
        piece = merge([rail, cylinder(0.06, (0.0, high), (0.0, 0.0), row('steel'), sides=6)])
    count = int(rng.integers(2, 16))
    gap = rng.choice([0.0, rng.uniform(0.05, 0.5), rng.uniform(0.5, 3.0)])
    along = (np.arange(count) - count / 2) * (length + gap)
    middle = rng.uniform((-40, 3), (50, 20)) * [1, rng.choice([-1, 1])]
    places = middle + along[:, None] * [np.cos(yaw), np.sin(yaw)]

    def one(rng: np.random.Generator, at: Float64) -> Mesh:
        return piece.moved((*at, 0.0), yaw + rng.normal(0, 0.03))

    pieces: list[Element] = [one] * count
    return pieces, np.where(np.hypot(*places.T)[:, None] > 4.0, places, places + 60.0)


def clutter(rng: np.random.Generator, boxes: Float64, leafy: bool) -> Mesh | None:
    """Clutter around the vehicle, its middle in none of `boxes` [N, 7]; None if none is drawn."""
    plants = int(rng.integers(15, 130)) if leafy else int(rng.integers(0, 8))
    posts = int(rng.integers(0, 45)) if leafy else int(rng.integers(0, 15))
    solids = int(rng.integers(0, 20)) if leafy else int(rng.integers(0, 8))
    makers: list[Element] = [*[foliage] * plants, *[post] * posts, *[solid] * solids]
    spots = _spots(rng, len(makers))
    for _ in range(int(rng.integers(0, 4))):
        pieces, places = row_of(rng)
        makers, spots = makers + pieces, np.concatenate([spots, places])
    free = np.ones(len(spots), bool)
    for x, y, _, length, width, _, yaw in boxes:
        c, s = np.cos(yaw), np.sin(yaw)
        along = (spots[:, 0] - x) * c + (spots[:, 1] - y) * s
        across = (spots[:, 1] - y) * c - (spots[:, 0] - x) * s
        free &= (np.abs(along) > length / 2 + 1.3) | (np.abs(across) > width / 2 + 1.3)
    made = [
        maker(rng, spot) for maker, spot, clear in zip(makers, spots, free, strict=True) if clear
    ]
    return merge(made) if made else None


def _spots(rng: np.random.Generator, count: int) -> Float64:
    """Places [count, 2]: some along lines as hedgerows grow, some anywhere."""
    lines = rng.uniform(-1, 1, (3, 2)) * [10, 15]
    slope = rng.normal(0, 0.12, 3)
    which = rng.integers(0, 3, count)
    x = rng.uniform(-50, 60, count)
    y = lines[which, 1] + slope[which] * x + rng.normal(0, 1.2, count)
    loose = rng.random(count) < 0.4
    anywhere = rng.uniform(-1, 1, (count, 2)) * [45, 28]
    spots = np.where(loose[:, None], anywhere, np.stack([x, y], 1))
    return np.where(np.hypot(*spots.T)[:, None] > 4.0, spots, spots + 60.0)


def _above_ground(triangles: Float64) -> Float32:
    triangles[..., 2] = np.abs(triangles[..., 2])
    return triangles.astype(np.float32)
