"""What every pixel of a camera sees, with a ray for only about a third of the pixels.

Every second pixel of every second row is cast. Where four neighbours meet the same triangle, that
triangle fills the pixels between them: its plane gives their distances exactly. Only where they
differ is the rest cast. Missed is what is narrower than two pixels and lies between those rays:
about 2 in 10,000 pixels. Shadows are found in the same way, from every fourth pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.caster import Caster
from airside_perception.sim.lidar import GROUND, Hits, cast, with_ground
from airside_perception.sim.rows import bands, picked
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64, Int64

T = TypeVar('T', bound=np.generic)

Mask = NDArray[np.bool_]

SMALLEST = 48
"""Pictures with a side below this, pixels, are cast whole."""
DEPTH = 2
"""How often the picture is halved for shadows: narrower ones than 2^DEPTH pixels may be missed."""
HORIZON = 2000.0
"""Distance up to which there is ground, metres."""


def first_hits(
    scene: Scene,
    caster: Caster,
    origin: Float64,
    rays: Float32,
    shape: tuple[int, int],
    whole: bool = False,
    near: Mask | None = None,
) -> Hits:
    """What the rays [H * W] of a picture of `shape` meet first, the ground included.

    Args:
        scene: what is seen; caster: over its triangles.
        origin: float64 [3]; rays: float32 [H * W, 3], row by row, in base_link (see `rows`).
        shape: (H, W).
        whole: cast every ray.
        near: bool [H * W], the rays that may meet a triangle, if known (`outline.covered`): the
            others are not cast.
    """

    def first(pixels: Int64) -> Hits:
        directions = picked(rays, pixels)
        asked = None if near is None else near.take(pixels)
        hits = cast(caster, origin, directions, asked)
        return with_ground(hits, origin, directions, scene.slope, HORIZON)

    if whole or min(shape) < SMALLEST:
        hits = cast(caster, origin, rays)
        return with_ground(hits, origin, rays, scene.slope, HORIZON)
    index = coarse(*shape)
    known = first(index)
    rest = between(agreeing(known.triangle, shape), shape)
    more = first(rest)
    triangle = spread(known.triangle, shape)
    triangle[rest] = more.triangle
    filled = triangle != -1
    filled.reshape(shape)[::2, ::2] = False
    filled[rest] = False
    distance = np.full(len(rays), np.inf, np.float32)
    distance[index], distance[rest] = known.distance, more.distance
    ground = triangle == GROUND
    ground &= filled
    height = np.float32(-np.dot(scene.up, origin))
    for band in bands(*shape):
        if ground[band].any():
            np.copyto(distance[band], _planes(scene.up, height, rays[band]), where=ground[band])
    filled &= triangle >= 0
    rest = np.flatnonzero(filled)
    met = triangle.take(rest)
    corner = scene.triangles[:, 0] - origin.astype(np.float32)
    away = np.einsum('ij,ij->i', corner, scene.normals[:-1])
    normals = np.ascontiguousarray(scene.normals.T)
    distance[rest] = _planes(normals.take(met, axis=1), away.take(met), picked(rays, rest))
    return Hits(distance, triangle)


def shadowed(
    caster: Caster,
    points: Callable[[Int64], Float32],
    towards: Callable[[Float32], Float32],
    asked: Mask,
    hits: Hits,
    shape: tuple[int, int],
    until: float = np.inf,
) -> Mask:
    """Whether what each pixel shows, [H * W], is in the shadow of a light.

    Args:
        caster: over the triangles that cast shadows.
        points: gives what pixels int64 [N] show, float32 [N, 3], lifted off its surface.
        towards: gives the direction of the light, [3] or [N, 3], at points float32 [N, 3].
        asked: bool [H * W], where it matters; False elsewhere.
        hits: what the pixels see.
        shape: (H, W).
        until: see `Caster.shaded`.
    """

    def test(index: Int64) -> Mask:
        places = points(index)
        return caster.shaded(places, towards(places), until)

    return _shadowed(test, np.arange(len(asked)), asked, hits.triangle, shape, DEPTH)


def _shadowed(
    test: Callable[[Int64], Mask],
    pixels: Int64,
    asked: Mask,
    triangle: NDArray[np.int32],
    shape: tuple[int, int],
    depth: int,
) -> Mask:
    """`shadowed` for the picture of `shape` that consists of `pixels` of the whole one."""
    dark = np.zeros(len(pixels), bool)
    if min(shape) < SMALLEST or not depth:
        rows = np.flatnonzero(asked)
        dark[rows] = test(pixels.take(rows))
        return dark
    index = coarse(*shape)
    half = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    seen = triangle.take(index)
    known = _shadowed(test, pixels.take(index), asked.take(index), seen, half, depth - 1)
    rest = between(agreeing(seen * 2 + known, shape), shape)
    rest = rest[asked.take(rest)]
    dark = spread(known, shape)
    dark[rest] = test(pixels.take(rest))
    return np.asarray(dark & asked)


def coarse(height: int, width: int) -> Int64:
    """Pixels of every second column of every second row, ascending."""
    return every(height, width, 2)


@lru_cache(maxsize=16)
def every(height: int, width: int, step: int) -> Int64:
    """Pixels of one in `step` columns of one in `step` rows, ascending; for reading only."""
    found = (
        np.arange(height * width, dtype=np.int64).reshape(height, width)[::step, ::step].ravel()
    )
    found.setflags(write=False)
    return found


def agreeing(values: NDArray[np.int32], shape: tuple[int, int]) -> Mask:
    """Of the coarse pixels, [h, w]: whether the next ones right and below have the same value."""
    grid = values.reshape((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    same = np.ones(grid.shape, bool)
    same[:, :-1] &= grid[:, :-1] == grid[:, 1:]
    same[:-1] &= grid[:-1] == grid[1:]
    same[:-1, :-1] &= grid[:-1, :-1] == grid[1:, 1:]
    return same


def between(same: Mask, shape: tuple[int, int]) -> Int64:
    """Pixels that are neither coarse nor between coarse ones that agree, ascending."""
    open_ = spread(~same, shape).reshape(shape)
    open_[::2, ::2] = False
    return np.flatnonzero(open_)


def spread(values: NDArray[T], shape: tuple[int, int]) -> NDArray[T]:
    """Values of coarse pixels, repeated for the pixels right and below, [H * W]."""
    height, width = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    full = np.empty(shape, values.dtype)
    grid = values.reshape(height, width)
    full[::2, ::2] = grid
    full[::2, 1::2] = grid[:, : shape[1] // 2]
    full[1::2, ::2] = grid[: shape[0] // 2]
    full[1::2, 1::2] = grid[: shape[0] // 2, : shape[1] // 2]
    return full.ravel()


def _planes(normal: Float32, away: Float32 | np.float32, rays: Float32) -> Float32:
    """Distance [R] that rays [R, 3] go to planes, or to one plane; inf: beside or behind them.

    Args:
        normal: float32 [3, R] or [3]; away: float32 [R] or a number, from where the rays start to
            the planes, along the normal, metres.
    """
    along = normal[0] * rays[:, 0]
    along += normal[1] * rays[:, 1]
    along += normal[2] * rays[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = away / along
    return np.where(distance > 0, distance, np.float32(np.inf)).astype(np.float32, copy=False)
