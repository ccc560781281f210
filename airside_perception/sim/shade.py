"""Colours of what a camera sees: sun and sky, lamps at night, wet ground, haze. Linear light.

Faces are lit flat. Lamps light the ground through a map from above, so that their pools have no
edges, and every other face by how it is turned to them. Colours are blue, green, red.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Conditions, Light
from airside_perception.sim.lidar import GROUND, Hits, with_ground
from airside_perception.sim.materials import row as material_row
from airside_perception.sim.pixels import SMALLEST, coarse, shadowed, spread
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64, Int64

Mask = NDArray[np.bool_]

TEXTURE = 512
"""Side of the repeating ground texture, samples; a power of 2."""
GRAIN = 0.04
"""Size of a sample of the ground texture, metres."""
ROUGH, SHADOWS = 60.0, 200.0
"""Distances, metres, beyond which the ground is smooth and nothing has a shadow."""
MIRROR = 60.0
"""Distance up to which wet ground mirrors, metres."""
LIT, CELL = 90.0, 1.0
"""The map of lamp light: half its side and a cell's, metres."""
PAVED = ('asphalt', 'concrete', 'pavement', 'line_white', 'line_yellow', 'line_red')
GLOWING = {'pane': (0.010, 0.014, 0.017)}
"""Materials that shine at night and how bright: lit windows."""


@dataclass(frozen=True)
class LampLight:
    """Light of lamps around base_link.

    Attributes:
        pools: float32 [S, S, 3], irradiance of level ground, by y, then x.
        nearest: float32 [S, S, 3], place of the lamp that gives most of it.
        turned: float32 [T + 1], what a face gets of the level ground's irradiance.
    """

    pools: Float32
    nearest: Float32
    turned: Float32

    def at(self, table: Float32, points: Float32, sharp: bool = False) -> Float32:
        """Values [R, 3] of one of the maps at points [R, 2 or more] in base_link."""
        if not len(points):
            return np.empty((0, 3), np.float32)
        place = (points[:, :2] + np.float32(LIT)) * np.float32(1 / CELL) - np.float32(0.5)
        rows = -(-len(place) // 512)
        padded = np.full((rows * 512, 2), -9, np.float32)
        padded[: len(place)] = place
        grid = padded.reshape(rows, 512, 2)
        how = cv2.INTER_NEAREST if sharp else cv2.INTER_LINEAR
        x, y = np.ascontiguousarray(grid[..., 0]), np.ascontiguousarray(grid[..., 1])
        found = np.asarray(cv2.remap(table, x, y, how, borderMode=cv2.BORDER_CONSTANT))
        return np.asarray(found.reshape(-1, 3)[: len(place)], dtype=np.float32)


def lamp_light(scene: Scene, conditions: Conditions) -> LampLight | None:
    """The light of the scene's lamps; None where none is lit, or by day, when it is lost."""
    lamps = scene.lamps.near(LIT + 60.0)
    if not conditions.lamps or conditions.light == 'day' or not len(lamps):
        return None
    side = round(2 * LIT / CELL)
    axis = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(CELL) - np.float32(LIT)
    x, y = np.meshgrid(axis, axis)
    flat = np.stack([x, y, x * scene.slope[0] + y * scene.slope[1]], 2).reshape(-1, 3)
    flat = flat.astype(np.float32)
    up = np.broadcast_to(scene.up, flat.shape)
    each = lamps.irradiance(flat, up)
    pools = np.zeros((side * side, 3), np.float32)
    for light, colour in zip(each.T, lamps.colour, strict=True):
        pools += light[:, None] * colour
    nearest = lamps.position[each.argmax(axis=1)].reshape(side, side, 3)
    middles = np.append(scene.triangles.mean(axis=1), np.zeros((1, 3), np.float32), axis=0)
    face = lamps.irradiance(middles, scene.normals).sum(axis=1)
    place = np.clip((middles[:, :2] + np.float32(LIT)) / np.float32(CELL), 0, side - 1)
    u, v = place.astype(np.int64).T
    level = each.sum(axis=1).reshape(side, side)[v, u]
    turned = np.clip(face / np.maximum(level, np.float32(1e-4)), 0.0, 4.0)
    turned[-1] = 1.0
    # Light that the ground throws back reaches what is turned away from every lamp.
    turned += np.float32(0.15) * (1 - scene.normals[:, 2]) / 2 + np.float32(0.05)
    return LampLight(
        pools.reshape(side, side, 3),
        np.ascontiguousarray(nearest, dtype=np.float32),
        turned.astype(np.float32),
    )


def albedo(scene: Scene, wetness: float) -> Float32:
    """Colours [T + 1, 3] of the triangles and the ground: wet pavement is darker."""
    colour = scene.materials.colour
    if wetness:
        colour = colour.copy()
        colour[[material_row(name) for name in PAVED]] *= np.float32(1 - 0.5 * wetness)
    return colour.take(scene.materials_of, axis=0)


def lit(scene: Scene, light: Light, colour: Float32, glow: bool = False) -> Float32:
    """Colours [2 (T + 1), 3] of the triangles and the ground, in the sun, then in shadow."""
    normal = scene.normals
    towards = light.direction(scene.base2world).astype(np.float32)
    facing = np.maximum(normal @ towards, 0.0)[:, None]
    sky = np.array(light.sky_tint, np.float32) * np.float32(light.sky)
    dark = colour * (sky * (0.75 + 0.25 * normal[:, 2:]))
    if glow:
        for name, shine in GLOWING.items():
            dark[scene.materials_of == material_row(name)] += np.array(shine, np.float32)
    sun = np.array(light.sun_tint, np.float32) * np.float32(light.sun)
    return np.concatenate([dark + colour * (sun * facing), dark]).astype(np.float32)


@dataclass(frozen=True)
class Lighting:
    """What of the shading all cameras of one scene share: make it once a scene.

    Attributes:
        table: float32 [2 (T + 1), 3], as of `lit`.
        colour: float32 [T + 1, 3].
        facing: bool [T + 1], whether the sun can reach a face.
    """

    light: Light
    conditions: Conditions | None
    table: Float32
    colour: Float32
    facing: Mask
    lamps: LampLight | None

    @staticmethod
    def of(scene: Scene, light: Light, conditions: Conditions | None = None) -> Lighting:
        """For one scene; `light` counts only without `conditions`."""
        light = conditions.sky() if conditions else light
        colour = albedo(scene, conditions.wetness if conditions else 0.0)
        lamps = lamp_light(scene, conditions) if conditions else None
        towards = light.direction(scene.base2world).astype(np.float32)
        table = lit(scene, light, colour, lamps is not None)
        return Lighting(light, conditions, table, colour, (scene.normals @ towards) > 0, lamps)


def surfaces(
    scene: Scene,
    caster: Caster,
    lighting: Lighting,
    origin: Float64,
    rays: Float32,
    hits: Hits,
    shape: tuple[int, int],
) -> Float32:
    """Linear colours float32 [H * W, 3] of what the rays meet; 0 where that is the sky."""
    light, count = lighting.light, len(scene.triangles)
    sky = hits.triangle == -1
    row = np.where(hits.triangle >= 0, hits.triangle, np.int32(count))
    near = hits.distance < SHADOWS
    reach = np.where(sky, np.float32(0), hits.distance * np.float32(0.9995))
    points = _flat(rays, reach, origin.astype(np.float32))
    ground = hits.triangle == GROUND
    lifted = None
    if light.shadows or lighting.lamps:
        lifted = points.copy()
        lifted[:, 2] += np.float32(0.01)
    table_row = row
    if light.shadows and lifted is not None:
        towards = light.direction(scene.base2world).astype(np.float32)
        asked = near & ~sky & lighting.facing.take(row)
        dark = shadowed(caster, lifted, lambda _: towards, asked, hits, shape)
        table_row = row + dark * np.int32(count + 1)
    colour = lighting.table.take(table_row, axis=0)
    if lighting.lamps and lifted is not None:
        colour += _lamplit(caster, lighting, lighting.lamps, lifted, row, hits, shape)
    rough = np.flatnonzero(ground & (hits.distance < ROUGH))
    grain = np.ones(len(rays), np.float32)
    grain[rough] = _grain(scene, points[rough], hits.distance[rough])
    colour.reshape(-1)[:] *= np.repeat(grain, 3)
    if lighting.conditions and lighting.conditions.wetness > 0.15:
        wet = np.flatnonzero(ground & (hits.distance < MIRROR))
        _mirrored(scene, caster, lighting, lighting.conditions, points, rays, wet, shape, colour)
    colour[sky] = 0.0
    return colour


def _flat(vectors: Float32, lengths: Float32, offset: Float32) -> Float32:
    """vectors [R, 3] * lengths [R, 1] + offset [3]: four times as fast in one dimension."""
    found = vectors.reshape(-1) * np.repeat(lengths, 3)
    found += np.tile(offset, len(lengths))
    return np.asarray(found.reshape(-1, 3), dtype=np.float32)


def _lamplit(
    caster: Caster,
    lighting: Lighting,
    lamps: LampLight,
    points: Float32,
    row: NDArray[np.int32],
    hits: Hits,
    shape: tuple[int, int],
) -> Float32:
    """What lamps add [R, 3]. One of them casts shadows: the one that gives most at a place."""
    if min(shape) < SMALLEST:
        light = lamps.at(lamps.pools, points)
    else:  # pools have no edges: every second pixel is enough
        index = coarse(*shape)
        light = lamps.at(lamps.pools, points[index]).take(_nearest(*shape), axis=0)
    asked = (hits.distance < 45.0) & (light[:, 1] > np.float32(3e-3))

    def towards(index: Int64) -> Float32:
        return lamps.at(lamps.nearest, points[index], sharp=True) - points[index]

    # A lamp stands in its own housing: look to just before it.
    dark = shadowed(caster, points, towards, asked, hits, shape, 0.96)
    share = lamps.turned.take(row) * (1 - np.float32(0.7) * dark)
    light = light.reshape(-1) * np.repeat(share.astype(np.float32), 3)
    light *= lighting.colour.take(row, axis=0).reshape(-1)
    return np.asarray(light.reshape(-1, 3), dtype=np.float32)


@lru_cache(maxsize=8)
def _nearest(height: int, width: int) -> Int64:
    """For each pixel, the place in `coarse` of the one above or left of it, or its own."""
    index = np.arange(((height + 1) // 2) * ((width + 1) // 2), dtype=np.int64)
    return spread(index, (height, width))


def _mirrored(
    scene: Scene,
    caster: Caster,
    lighting: Lighting,
    conditions: Conditions,
    points: Float32,
    rays: Float32,
    wet: NDArray[np.int64],
    shape: tuple[int, int],
    colour: Float32,
) -> None:
    """Adds what wet ground at pixels `wet` mirrors to `colour`, from every fourth pixel."""
    step = 4 if min(shape) >= SMALLEST else 1
    index = np.arange(len(rays)).reshape(shape)[::step, ::step].ravel()
    mask = np.zeros(len(rays), bool)
    mask[wet] = True
    some = index[mask[index]]
    if not len(some):
        return
    # A film of water is never still: the mirror image is blurred, most along the line of sight.
    up = scene.up
    facing = -np.einsum('ij,j->i', rays[some], up)
    way = rays[some] + np.float32(2) * facing[:, None] * up
    start = points[some] + np.array([0, 0, 0.02], np.float32)
    hits = with_ground(Hits(*caster.cast(start, way)), start, way, scene.slope, 500.0)
    seen = hits.triangle >= 0
    found = sky(way[:, 2:], lighting.light)
    found[seen] = lighting.table.take(hits.triangle[seen], axis=0)
    if lighting.lamps:
        place = points[some[seen]] + way[seen] * hits.distance[seen, None]
        glow = lighting.lamps.at(lighting.lamps.pools, place)
        glow *= lighting.lamps.turned.take(hits.triangle[seen])[:, None]
        found[seen] += glow * lighting.colour.take(hits.triangle[seen], axis=0)
    steep = np.clip(facing, 0, 1)
    fresnel = np.float32(0.03) + np.float32(0.97) * (1 - steep) ** np.float32(5)  # Schlick, 1994
    share = fresnel * np.float32(0.75 * conditions.wetness) * _puddles(scene, points[some])
    half = np.zeros((len(index), 4), np.float32)
    at = np.searchsorted(index, some)
    half[at, :3] = found * share[:, None]
    half[at, 3] = share
    grid = half.reshape(-(-shape[0] // step), -(-shape[1] // step), 4)
    soft = cv2.GaussianBlur(grid, (0, 0), sigmaX=1.6 / step, sigmaY=6.0 / step)
    whole = np.asarray(cv2.resize(soft, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    full = whole.reshape(-1, 4)[wet]
    colour[wet] = colour[wet] * (1 - full[:, 3:]) + full[:, :3]


def _puddles(scene: Scene, points: Float32) -> Float32:
    """How much water stands at points [R, 3]: 0.35 to 1, fixed to the world."""
    x, y = _in_world(scene, points)
    wave = np.sin(x * np.float32(0.9) + np.sin(y * np.float32(0.43)) * 2)
    wave += np.sin(y * np.float32(0.71) + np.sin(x * np.float32(0.29)) * 2)
    return np.asarray(np.clip(0.65 + 0.3 * wave, 0.35, 1.0), dtype=np.float32)


def _in_world(scene: Scene, points: Float32) -> tuple[Float32, Float32]:
    """World x and y [R] of points [R, 3] in base_link."""
    (xx, xy, _, x0), (yx, yy, _, y0) = scene.base2world[:2].astype(np.float32)
    x, y = points[:, 0], points[:, 1]
    return xx * x + xy * y + x0, yx * x + yy * y + y0


def _grain(scene: Scene, points: Float32, distance: Float32) -> Float32:
    """Gain [R] of the ground at points [R, 3]: fixed to the world, fading with distance."""
    x, y = _in_world(scene, points)

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


def sky(up: Float32, light: Light) -> Float32:
    """The sky in directions of z `up` [R, 1], whiter towards the horizon, [R, 3]."""
    height = np.clip(up * np.float32(2.5), 0.0, 1.0)
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    bright = np.float32(light.above or min(1.0, light.sky + 0.6 * light.sun))
    return np.asarray((horizon + (zenith - horizon) * height) * bright, dtype=np.float32)


def hazy(colour: Float32, distance: Float32, rays: Float32, light: Light) -> None:
    """Puts the sky behind `colour` [R, 3] and the haze in front of it, in place."""
    clear = np.exp(distance * np.float32(-1 / light.visibility))
    haze = np.tile(sky(np.zeros((1, 1), np.float32), light)[0], len(colour))
    flat = colour.reshape(-1)
    flat -= haze
    flat *= np.repeat(clear, 3)
    flat += haze
    above = np.flatnonzero(~np.isfinite(distance))
    colour[above] = sky(rays[above, 2:], light)
