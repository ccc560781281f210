"""Colours of what a camera sees: sun and sky, lamps at night, wet ground. Linear light.

Faces are lit flat. Lamps light the ground through a map from above, so that their pools have no
edges, and every other face by how it is turned to them. Colours are rows of four (`rows`): blue,
green, red, and an empty one.
"""

from __future__ import annotations

from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.caster import Caster
from airside_perception.sim.lamplight import LampLight
from airside_perception.sim.lidar import GROUND, Hits
from airside_perception.sim.lighting import Lighting
from airside_perception.sim.pixels import SMALLEST, coarse, shadowed
from airside_perception.sim.rows import wide
from airside_perception.sim.scene import Scene
from airside_perception.sim.view import View, in_world
from airside_perception.sim.wet import mirrored
from airside_perception.types import Float32, Float64, Int64

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
    """Linear colours float32 [H * W, 4] of what the rays meet; those of the sky mean nothing."""
    light, count = lighting.light, len(scene.triangles)
    view = View(origin.astype(np.float32), rays, hits, shape)
    ground = hits.triangle == GROUND
    row = np.where(hits.triangle >= 0, hits.triangle, np.int32(count))
    table_row = row
    if light.shadows:
        towards = light.direction(scene.base2world).astype(np.float32)
        asked = (hits.distance < SHADOWS) & lighting.facing.take(row)
        dark = shadowed(caster, partial(view.at, lift=LIFT), lambda _: towards, asked, hits, shape)
        table_row = row + dark * np.int32(count + 1)
    colour = lighting.table.take(table_row, axis=0)
    if lighting.lamps:
        colour += _lamplit(caster, lighting, lighting.lamps, view, row)
    rough = np.flatnonzero(ground & (hits.distance < ROUGH))
    grain = np.ones(len(rays), np.float32)
    grain[rough] = _grain(scene, view.at(rough), hits.distance.take(rough))
    colour *= wide(grain)
    if lighting.conditions and lighting.conditions.wetness > 0.15:
        mirrored(scene, caster, lighting, lighting.conditions.wetness, view, colour)
    return colour


def _lamplit(
    caster: Caster, lighting: Lighting, lamps: LampLight, view: View, row: NDArray[np.int32]
) -> Float32:
    """What lamps add [R, 4]. One of them casts shadows: the one that gives most at a place."""
    hits, (height, width) = view.hits, view.shape
    known = coarse(height, width) if min(view.shape) >= SMALLEST else np.arange(height * width)
    light = lamps.at(lamps.pools, view.at(known, LIFT))
    if min(view.shape) >= SMALLEST:  # pools have no edges: every second pixel is enough
        half = light.reshape((height + 1) // 2, (width + 1) // 2, 4)
        full = cv2.resize(half, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        light = np.ascontiguousarray(full[:height, :width], np.float32).reshape(-1, 4)
    asked = (hits.distance < LAMP_SHADOWS) & (light[:, 1] > np.float32(3e-3))

    def towards(index: Int64) -> Float32:
        points = view.at(index, LIFT)
        return lamps.at(lamps.nearest, points, sharp=True)[:, :3] - points

    # A lamp stands in its own housing: look to just before it.
    lifted = partial(view.at, lift=LIFT)
    dark = shadowed(caster, lifted, towards, asked, hits, view.shape, 0.96)
    light *= lighting.lamplit.take(row, axis=0)
    light *= wide(1 - np.float32(0.7) * dark)
    return light


def _grain(scene: Scene, points: Float32, distance: Float32) -> Float32:
    """Gain [R] of the ground at points [R, 3]: fixed to the world, fading with distance."""
    x, y = in_world(scene, points)

    def sampled(size: float) -> Float32:
        u = (x * np.float32(1 / size)).astype(np.int32) & (TEXTURE - 1)
        v = (y * np.float32(1 / size)).astype(np.int32) & (TEXTURE - 1)
        return _texture().take(u * TEXTURE + v)

    near, far = sampled(GRAIN), sampled(23 * GRAIN)
    depth = np.float32(0.22) * np.exp(distance * np.float32(-1 / 12))
    return np.asarray(1 + depth * near + np.float32(0.07) * far, dtype=np.float32)


@lru_cache(maxsize=1)
def _texture() -> Float32:
    """Noise [TEXTURE * TEXTURE] around 0, the same in every picture: the ground does not boil."""
    return np.random.default_rng(7).uniform(-1, 1, TEXTURE * TEXTURE).astype(np.float32)
