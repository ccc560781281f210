"""Colours of what a camera sees: sun and sky, lamps at night, wet ground. Linear light.

Faces are lit flat. Lamps light the ground through a map from above, so that their pools have no
edges, and every other face by how it is turned to them. Colours are rows of four (`rows`): blue,
green, red, and an empty one; while they are mixed, three planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.air import hazy, heaven
from airside_perception.sim.caster import Caster
from airside_perception.sim.lamplight import LampLight
from airside_perception.sim.lidar import GROUND, Hits
from airside_perception.sim.lighting import Lighting
from airside_perception.sim.pixels import SMALLEST, every, shadowed, spread
from airside_perception.sim.rows import bands, planes
from airside_perception.sim.scene import Scene
from airside_perception.sim.view import View, in_world
from airside_perception.sim.wet import mirrored
from airside_perception.types import Float32, Float64

__all__ = ['Lighting', 'surfaces']

TEXTURE = 512
"""Side of the repeating ground texture, samples; a power of 2."""
GRAIN = 0.04
"""Size of a sample of the ground texture, metres."""
ROUGH, SHADOWS, LAMP_SHADOWS = 60.0, 200.0, 45.0
"""Distances, metres, beyond which the ground is smooth and nothing has a shadow."""
LIFT = 0.01
"""How far above its surface a point looks for the light, metres."""


def surfaces(
    scene: Scene,
    caster: Caster,
    lighting: Lighting,
    origin: Float64,
    rays: Float32,
    hits: Hits,
    shape: tuple[int, int],
) -> Float32:
    """Linear light float32 [H * W, 4] of what the rays meet, haze and sky included."""
    light, count = lighting.light, len(scene.triangles)
    view = View(origin.astype(np.float32), rays, hits, shape)
    row = np.where(hits.triangle >= 0, hits.triangle, np.int32(count))
    table_row = row
    if light.shadows:
        towards = light.direction(scene.base2world).astype(np.float32)
        asked = (hits.distance < SHADOWS) & lighting.facing.take(row)
        lifted = partial(view.at, lift=LIFT)
        dark = shadowed(caster, lifted, lambda _: towards, asked, hits, shape)
        table_row = row + dark * np.int32(count + 1)
    pools = _pools(caster, lighting.lamps, view) if lighting.lamps else None
    horizon, more = heaven(light)
    wetness = lighting.conditions.wetness if lighting.conditions else 0.0
    film = mirrored(scene, caster, lighting, wetness, view) if wetness > 0.15 else None
    table, lamplit = (planes(colours) for colours in (lighting.table, lighting.lamplit))
    colour = np.zeros((len(rays), 4), np.float32)
    for band in bands(*shape):
        part = table.take(table_row[band], axis=1)
        if pools:
            glow = pools.at(band, shape[1])
            glow *= lamplit.take(row[band], axis=1)
            part += glow
        _roughen(part, scene, view, band)
        if film:
            film.over(part, band)
        hazy(part, hits.distance[band], rays[band, 2], light.visibility, horizon, more)
        for channel, plane in enumerate(part):
            colour[band, channel] = plane
    return colour


@dataclass(frozen=True)
class _Pools:
    """Light of lamps: `grid` float32 [3, h, w], of every `step` pixels; `dark` bool [H * W]."""

    grid: Float32
    step: int
    dark: NDArray[np.bool_]

    def at(self, band: slice, width: int) -> Float32:
        """Of the pixels [N] of a band, float32 [3, N], the shadows in it."""
        rows = slice(band.start // width // self.step, -(-band.stop // width // self.step))
        height = (band.stop - band.start) // width
        parts = (grid[rows].ravel() for grid in self.grid)
        if self.step == 2:
            parts = (spread(part, (height, width)) for part in parts)
        light = np.stack(list(parts))
        light *= 1 - np.float32(0.7) * self.dark[band]
        return light


def _pools(caster: Caster, lamps: LampLight, view: View) -> _Pools:
    """What lamps give to the ground. One of them casts shadows: the one that gives most there."""
    hits, (height, width) = view.hits, view.shape
    step = 2 if min(view.shape) >= SMALLEST else 1  # pools have no edges
    grid = lamps.at(lamps.pools, view.at(every(height, width, step), LIFT))
    asked = grid[:, 1] > np.float32(3e-3)
    asked = spread(asked, view.shape) if step == 2 else asked
    asked &= hits.distance < LAMP_SHADOWS

    def towards(points: Float32) -> Float32:
        return lamps.at(lamps.nearest, points, sharp=True)[:, :3] - points

    # A lamp stands in its own housing: look to just before it.
    lifted = partial(view.at, lift=LIFT)
    dark = shadowed(caster, lifted, towards, asked, hits, view.shape, 0.96)
    grid = grid.reshape(-(-height // step), -(-width // step), 4)
    return _Pools(planes(grid), step, dark)


def _roughen(colour: Float32, scene: Scene, view: View, band: slice) -> None:
    """Gives the ground in a band its grain, fixed to the world and fading with distance."""
    distance = view.hits.distance[band]
    rough = np.flatnonzero((view.hits.triangle[band] == GROUND) & (distance < ROUGH))
    if not len(rough):
        return
    away = distance.take(rough)
    x, y = in_world(scene, *view.ground(rough + band.start, away))

    def sampled(size: float) -> Float32:
        u = (x * np.float32(1 / size)).astype(np.int32)
        u &= TEXTURE - 1
        u *= TEXTURE
        v = (y * np.float32(1 / size)).astype(np.int32)
        v &= TEXTURE - 1
        u += v
        return _texture().take(u)

    near, far = sampled(GRAIN), sampled(23 * GRAIN)
    near *= np.float32(0.22) * np.exp(away * np.float32(-1 / 12))
    near += 1
    far *= np.float32(0.07)
    near += far
    gain = np.ones(len(distance), np.float32)
    gain[rough] = near
    colour *= gain


@lru_cache(maxsize=1)
def _texture() -> Float32:
    """Noise [TEXTURE * TEXTURE] around 0, the same in every picture: the ground does not boil."""
    return np.random.default_rng(7).uniform(-1, 1, TEXTURE * TEXTURE).astype(np.float32)
