"""Cameras: a shaded picture of a scene through any lens model, and what is visible in it.

One ray a pixel through its centre, or its neighbours' answer where they agree (`pixels`). Faces
are lit flat by the sun, the sky and lamps (`shade`); rain and glare lie in front of them
(`weather`); the film blurs what moves, and adds noise (`film`). Colours are blue, green, red.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.projection import CameraModel
from airside_perception.sim import film, weather
from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Light
from airside_perception.sim.lidar import GROUND, Hits
from airside_perception.sim.pixels import first_hits
from airside_perception.sim.rows import turned
from airside_perception.sim.scene import Scene
from airside_perception.sim.shade import Lighting, surfaces
from airside_perception.types import Boxes2D, Float32, Float64, Int64

__all__ = ['Lens', 'Light', 'Picture', 'look', 'render', 'take', 'visible']

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Picture:
    """A picture with what each pixel shows.

    Attributes:
        image: uint8 [H, W, 3], blue, green, red.
        instance: int32 [H, W], row of the scene's objects, -1 for anything else.
        triangle: int32 [H, W], -1: sky, GROUND.
        exposure: how it was taken.
    """

    image: NDArray[np.uint8]
    instance: Int32
    triangle: Int32 = field(repr=False)
    exposure: film.Exposure = field(default_factory=film.Exposure)

    def shown(self, scene: Scene) -> Int64:
        """Pixels of each of the scene's triangles, int64 [T]."""
        met = self.triangle[self.triangle >= 0]
        return np.bincount(met, minlength=len(scene.triangles))


@dataclass(frozen=True)
class Lens:
    """A camera with its mounting: `model`, and `camera2base` [4, 4] from its optical frame.

    Attributes:
        noise: of a pixel, grey levels.
        exposure: gain of the picture.
    """

    model: CameraModel
    camera2base: Float64
    noise: float = 2.0
    exposure: float = 1.0


def look(lens: Lens) -> Float32:
    """Unit viewing directions float32 [H * W, 3] of a camera's pixels in base_link, row by row."""
    model = lens.model
    rays = _viewing(
        model.width,
        model.height,
        tuple(model.matrix.ravel().tolist()),
        model.distortion,
        model.model,
    )
    return np.asarray(turned(rays, lens.camera2base[:3, :3].T), dtype=np.float32)


@lru_cache(maxsize=4)
def _viewing(
    width: int, height: int, matrix: tuple[float, ...], distortion: tuple[float, ...], kind: str
) -> Float64:
    """Unit viewing directions [H * W, 3] in the optical frame: cameras of a kind share them."""
    model = CameraModel('', width, height, np.reshape(matrix, (3, 3)), distortion, kind)
    rows, columns = np.mgrid[:height, :width]
    rays = model.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    return np.nan_to_num(rays / np.linalg.norm(rays, axis=1, keepdims=True), nan=0.0)


def render(
    lens: Lens,
    scene: Scene,
    caster: Caster,
    light: Light,
    rng: np.random.Generator,
    directions: Float32 | None = None,
) -> Picture:
    """What a camera sees of a scene in clear weather, nothing moving, the exposure fixed.

    `directions` may be kept from `look`.
    """
    rays = look(lens) if directions is None else directions
    shape = lens.model.height, lens.model.width
    lighting = Lighting.of(scene, light)
    picture, hits = _light_of(lens, scene, caster, lighting, rays)
    picture = picture.reshape(*shape, 4)
    image = film.developed(picture, lens.exposure, lens.noise, rng)
    return _picture(image, scene, hits, film.Exposure(lens.exposure))


def take(
    lens: Lens,
    scene: Scene,
    caster: Caster,
    lighting: Lighting,
    rng: np.random.Generator,
    directions: Float32,
    sticky: np.random.Generator | None = None,
    near: NDArray[np.bool_] | None = None,
) -> Picture:
    """What a camera sees of a scene in its light and weather: exposed automatically, blurred.

    Args:
        lens: the camera; scene: with its lamps and its motion.
        caster: over the scene's triangles.
        lighting: of the scene, made with conditions.
        rng: source of noise and falling rain; sticky: of the drops on the lens.
        directions: from `look`; near: see `pixels.first_hits`.

    Raises:
        ConfigError: `lighting` was made without conditions.
    """
    conditions = lighting.conditions
    if conditions is None:
        raise ConfigError(
            'lighting without conditions: use render, or Lighting.of(..., conditions)'
        )
    shape = lens.model.height, lens.model.width
    flat, hits = _light_of(lens, scene, caster, lighting, directions, near)
    picture = flat.reshape(*shape, 4)
    ground = (hits.triangle == GROUND).reshape(shape)
    weather.glare(picture, ground, lens.model, lens.camera2base, scene, caster, conditions)
    exposure = film.metered(picture)
    flow = _flow(lens, scene, directions, hits)
    picture = film.smeared(picture, flow, exposure.shutter)
    if conditions.rain:
        speed = lens.camera2base[:2, [0, 2]].T @ np.array([scene.twist[0], 0.0])
        focal = float(lens.model.matrix[0, 0])
        weather.streaks(picture, focal, conditions.rain, exposure.shutter, speed, rng)
    noise = lens.noise * float(np.sqrt(exposure.amplified))
    image = film.developed(picture, exposure.gain * lens.exposure, noise, rng)
    if conditions.rain and sticky is not None:
        weather.drops(image, conditions.rain, sticky)
    return _picture(image, scene, hits, exposure)


def visible(
    picture: Picture,
    scene: Scene,
    stamp_ns: int,
    frame_id: str,
    least: int = 20,
    barely: int | None = None,
) -> Boxes2D:
    """The boxes around what a picture shows of each object.

    Args:
        picture: of the scene.
        stamp_ns, frame_id: of the boxes.
        least: pixels of an object that must be found: its score is 1.
        barely: pixels of an object that need not be found, and may be: its score is 0. None: there
            are no such boxes.
    """
    barely = least if barely is None else barely
    width = picture.instance.shape[1]
    pixels = np.flatnonzero(picture.instance >= 0).astype(np.int32)
    owner = picture.instance.ravel().take(pixels)
    y = pixels // np.int32(width)
    x = pixels - y * np.int32(width)
    count = len(scene.objects)
    shown = np.bincount(owner, minlength=count)
    left, right, top, bottom = np.zeros((4, count), np.int32)
    left += width
    np.minimum.at(left, owner, x)
    np.maximum.at(right, owner, x)
    top[owner[::-1]], bottom[owner] = y[::-1], y  # row by row: what is written last stays
    rows = np.flatnonzero(shown >= max(min(least, barely), 1))
    xyxy = np.stack([left, top, right + 1, bottom + 1], axis=1)[rows].astype(np.float64)
    scores = (shown[rows] >= least).astype(np.float64)
    names = tuple(scene.objects.classes[i] for i in rows)
    return Boxes2D(stamp_ns, frame_id, xyxy, scores, names)


def _light_of(
    lens: Lens,
    scene: Scene,
    caster: Caster,
    lighting: Lighting,
    rays: Float32,
    near: NDArray[np.bool_] | None = None,
) -> tuple[Float32, Hits]:
    """Linear light [H * W, 4] at each pixel, the fourth empty, and what the pixels see."""
    shape = lens.model.height, lens.model.width
    origin = lens.camera2base[:3, 3]
    hits = first_hits(scene, caster, origin, rays, shape, near=near)
    colour = surfaces(scene, caster, lighting, origin, rays, hits, shape)
    return colour, hits


def _picture(
    image: NDArray[np.uint8], scene: Scene, hits: Hits, exposure: film.Exposure
) -> Picture:
    shape = image.shape[:2]
    instance = np.append(scene.instance, np.int32(-1)).take(np.maximum(hits.triangle, -1))
    return Picture(image, instance.reshape(shape), hits.triangle.reshape(shape), exposure)


def _flow(lens: Lens, scene: Scene, rays: Float32, hits: Hits) -> Float32:
    """Motion float32 [h, w, 2] of what every fourth pixel of every fourth row shows, pixels / s.

    By the derivative of the pinhole projection; the lens's distortion hardly changes it.
    """
    height, width = lens.model.height, lens.model.width
    some = (slice(None, None, 4), slice(None, None, 4))
    far = np.minimum(hits.distance.reshape(height, width)[some], np.float32(1e4))
    triangle = hits.triangle.reshape(height, width)[some]
    x, y, z = (rays[:, axis].reshape(height, width)[some] * far for axis in range(3))
    rates = np.append(scene.speeds, np.zeros((1, 2), np.float32), axis=0)  # the last stands still
    actor = (
        np.append(scene.actor, np.int32(-1)).take(np.maximum(triangle, -1))
        if len(scene.actor)
        else np.full(triangle.shape, -1)
    )
    forward, spin = scene.twist
    ox, oy = lens.camera2base[:2, 3]
    # Velocity in base_link less that of base_link itself, which is forward + spin x place.
    vx = rates[:, 0].take(actor) - np.float32(forward) + np.float32(spin) * (y + np.float32(oy))
    vy = rates[:, 1].take(actor) - np.float32(spin) * (x + np.float32(ox))
    right, down, ahead = lens.camera2base[:3, :3].T.astype(np.float32)
    depth = np.maximum(x * ahead[0] + y * ahead[1] + z * ahead[2], np.float32(0.2))
    nearing = (vx * ahead[0] + vy * ahead[1]) / depth
    focal = np.float32(lens.model.matrix[0, 0])
    flow = [
        focal
        / depth
        * (vx * axis[0] + vy * axis[1] - (x * axis[0] + y * axis[1] + z * axis[2]) * nearing)
        for axis in (right, down)
    ]
    return np.stack(flow, axis=2).astype(np.float32)
