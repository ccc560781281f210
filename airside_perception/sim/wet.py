"""What wet ground mirrors."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.air import sky
from airside_perception.sim.caster import Caster
from airside_perception.sim.lidar import GROUND, Hits, with_ground
from airside_perception.sim.lighting import Lighting
from airside_perception.sim.pixels import SMALLEST, every
from airside_perception.sim.rows import picked, put
from airside_perception.sim.scene import Scene
from airside_perception.sim.view import View, in_world
from airside_perception.types import Float32, Int64

MIRROR = 60.0
"""Distance up to which wet ground mirrors, metres."""


@dataclass(frozen=True)
class Film:
    """The mirror image in the water of a picture.

    Attributes:
        image: four planes, float32 [H * W], of the light that it adds, and of the share of the
            rest that it takes.
        wet: bool [H * W], where it is.
    """

    image: tuple[Float32, ...]
    wet: NDArray[np.bool_]

    def over(self, colour: Float32, band: slice) -> None:
        """Puts the film of a band over its `colour` [3, N], in place."""
        if not self.wet[band].any():
            return
        wet = self.wet[band].astype(np.float32)
        *light, share = self.image
        rest = 1 - share[band] * wet
        for plane, added in zip(colour, light, strict=True):
            plane *= rest
            plane += added[band] * wet


def mirrored(
    scene: Scene, caster: Caster, lighting: Lighting, wetness: float, view: View
) -> Film | None:
    """What ground of a `wetness` mirrors, from every fourth pixel; None without such ground."""
    height, width = view.shape
    step = 4 if min(view.shape) >= SMALLEST else 1
    wet = (view.hits.triangle == GROUND) & (view.hits.distance < MIRROR)
    index = every(height, width, step)
    at = np.flatnonzero(wet.take(index))
    if not len(at):
        return None
    light, share = _images(scene, caster, lighting, wetness, view, index.take(at))
    film = np.zeros((len(index), 4), np.float32)
    film[at, :3], film[at, 3] = light[:, :3] * share[:, None], share
    # A film of water is never still: the mirror image is blurred, most along the line of sight.
    grid = film.reshape(-(-height // step), -(-width // step), 4)
    soft = cv2.GaussianBlur(grid, (0, 0), sigmaX=1.6 / step, sigmaY=6.0 / step)
    full = (
        np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        for plane in cv2.split(soft)
    )
    return Film(tuple(plane.ravel() for plane in full), wet)


def _images(
    scene: Scene, caster: Caster, lighting: Lighting, wetness: float, view: View, pixels: Int64
) -> tuple[Float32, Float32]:
    """Light [N, 4] that pixels [N] of wet ground mirror, and their share [N] of it."""
    up = scene.up
    rays, ground = picked(view.rays, pixels), view.at(pixels)
    facing = -np.einsum('ij,j->i', rays, up)
    way = rays + np.float32(2) * facing[:, None] * up
    start = ground + np.array([0, 0, 0.02], np.float32)
    hits = with_ground(Hits(*caster.cast(start, way)), start, way, scene.slope, 500.0)
    seen = np.flatnonzero(hits.triangle >= 0)
    triangle = hits.triangle.take(seen)
    found = lighting.table.take(triangle, axis=0)
    if lighting.lamps:
        place = ground[seen] + way[seen] * hits.distance[seen, None]
        irradiance = lighting.lamps.at(lighting.lamps.pools, place)
        found += irradiance * lighting.lamplit.take(triangle, axis=0)
    light = sky(way[:, 2], lighting.light)
    put(light, seen, found)
    steep = np.clip(facing, 0, 1)
    fresnel = np.float32(0.03) + np.float32(0.97) * (1 - steep) ** np.float32(5)  # Schlick, 1994
    return light, fresnel * np.float32(0.75 * wetness) * _puddles(scene, ground)


def _puddles(scene: Scene, points: Float32) -> Float32:
    """How much water stands at points [R, 3]: 0.35 to 1, fixed to the world."""
    x, y = in_world(scene, points[:, 0], points[:, 1])
    wave = np.sin(x * np.float32(0.9) + np.sin(y * np.float32(0.43)) * 2)
    wave += np.sin(y * np.float32(0.71) + np.sin(x * np.float32(0.29)) * 2)
    return np.asarray(np.clip(0.65 + 0.3 * wave, 0.35, 1.0), dtype=np.float32)
