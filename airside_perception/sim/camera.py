"""Cameras: a shaded picture of a scene through any lens model, and what is visible in it.

One ray a pixel through its centre. Faces are lit flat by the sun and by the sky; the ground has
a fine random texture; a second ray a pixel finds the sun's shadows. Colours are blue, green, red.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from airside_perception.projection import CameraModel
from airside_perception.sim.caster import Caster
from airside_perception.sim.lidar import GROUND, Hits, normals, with_ground
from airside_perception.sim.scene import Scene
from airside_perception.types import Boxes2D, Float32, Float64

Int32 = NDArray[np.int32]

TEXTURE = 512
"""Side of the repeating ground texture, samples; a power of 2."""
GRAIN = 0.04
"""Size of a sample of the ground texture, metres."""
ROUGH, SHADOWS = 60.0, 200.0
"""Distances, metres, beyond which the ground is smooth and nothing has a shadow."""
NOISE = 1 << 21
"""Stored samples of sensor noise."""


@dataclass(frozen=True)
class Light:
    """Sun and sky.

    Attributes:
        azimuth, elevation: of the sun in the world, radians.
        sun, sky: brightness of the light from each.
        visibility: distance in metres at which contrast falls to 37 %.
        shadows: whether to cast them: doubles the time of a picture.
    """

    azimuth: float = 2.2
    elevation: float = 0.8
    sun: float = 0.75
    sky: float = 0.45
    visibility: float = 900.0
    shadows: bool = True

    def direction(self, base2world: Float64) -> Float64:
        """Unit vector [3] towards the sun in base_link."""
        flat = np.cos(self.elevation)
        towards = [
            flat * np.cos(self.azimuth),
            flat * np.sin(self.azimuth),
            np.sin(self.elevation),
        ]
        return np.asarray(base2world[:3, :3].T @ np.array(towards))


@dataclass(frozen=True)
class Picture:
    """A picture with what each pixel shows.

    Attributes:
        image: uint8 [H, W, 3], blue, green, red.
        instance: int32 [H, W], row of the scene's objects, -1 for anything else.
    """

    image: NDArray[np.uint8]
    instance: Int32


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
    rows, columns = np.mgrid[: lens.model.height, : lens.model.width]
    rays = lens.model.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    rays = np.nan_to_num(rays / np.linalg.norm(rays, axis=1, keepdims=True), nan=0.0)
    return np.asarray(rays @ lens.camera2base[:3, :3].T, dtype=np.float32)


def render(
    lens: Lens,
    scene: Scene,
    caster: Caster,
    light: Light,
    rng: np.random.Generator,
    directions: Float32 | None = None,
) -> Picture:
    """What a camera sees of a scene; `directions` may be kept from `look`."""
    shape = lens.model.height, lens.model.width
    rays = look(lens) if directions is None else directions
    origin = lens.camera2base[:3, 3]
    hits = with_ground(Hits(*caster.cast(origin, rays)), origin, rays, scene.slope, 2000.0)
    seen = np.flatnonzero(np.isfinite(hits.distance))
    colour = _surface(scene, caster, light, origin, rays[seen], hits.at(seen))
    clear = np.exp(hits.distance[seen] * np.float32(-1 / light.visibility))[:, None]
    sky = np.flatnonzero(~np.isfinite(hits.distance))
    picture = np.empty((len(rays), 3), np.float32)
    picture[sky] = _sky(rays[sky, 2:], light)
    picture[seen] = colour * clear + _sky(np.zeros((1, 1), np.float32), light) * (1 - clear)
    instance = np.where(hits.triangle >= 0, scene.instance[np.maximum(hits.triangle, 0)], -1)
    image = _expose(picture.reshape(*shape, 3), lens, rng)
    return Picture(image, instance.reshape(shape).astype(np.int32))


def visible(
    picture: Picture, scene: Scene, stamp_ns: int, frame_id: str, least: int = 20
) -> Boxes2D:
    """The boxes around what a picture shows of each object, of at least `least` pixels."""
    pixels = np.bincount(picture.instance.ravel() + 1, minlength=len(scene.objects) + 1)[1:]
    spans = ndimage.find_objects(picture.instance + 1, max_label=len(scene.objects))
    rows = [i for i, span in enumerate(spans) if span is not None and pixels[i] >= least]
    xyxy = [
        (spans[i][1].start, spans[i][0].start, spans[i][1].stop, spans[i][0].stop) for i in rows
    ]
    names = tuple(scene.objects.classes[i] for i in rows)
    return Boxes2D(
        stamp_ns, frame_id, np.array(xyxy, np.float64).reshape(-1, 4), np.ones(len(rows)), names
    )


def _surface(
    scene: Scene, caster: Caster, light: Light, origin: Float64, rays: Float32, hits: Hits
) -> Float32:
    """Colours [R, 3] of what the rays meet; all of them meet something."""
    count = len(scene.triangles)
    table = _lit(scene, light)  # rows of the triangles and the ground in the sun, then in shadow
    row = np.where(hits.triangle >= 0, hits.triangle, np.int32(count))
    points = rays * (hits.distance * np.float32(0.9995))[:, None] + origin.astype(np.float32)
    if light.shadows:
        near = np.flatnonzero(hits.distance < SHADOWS)
        lifted = points[near] + np.array([0.0, 0.0, 0.01], np.float32)
        shade = caster.shaded(lifted, light.direction(scene.base2world))
        row[near] += shade.astype(np.int32) * np.int32(count + 1)
    colour = table.take(row, axis=0)
    rough = np.flatnonzero((hits.triangle == GROUND) & (hits.distance < ROUGH))
    colour[rough] *= _grain(scene, points[rough, :2], hits.distance[rough])[:, None]
    return colour


def _lit(scene: Scene, light: Light) -> Float32:
    """Colours [2 (T + 1), 3] of the triangles and the ground, in the sun, then in shadow."""
    up = np.array([[-scene.slope[0], -scene.slope[1], 1.0]], np.float32)
    normal = np.concatenate([normals(scene.triangles), up])
    colour = scene.materials.colour[np.append(scene.material, scene.ground)]
    facing = np.maximum(normal @ light.direction(scene.base2world).astype(np.float32), 0.0)[
        :, None
    ]
    dark = colour * (light.sky * (0.75 + 0.25 * normal[:, 2:]))
    return np.concatenate([dark + colour * (light.sun * facing), dark]).astype(np.float32)


def _grain(scene: Scene, points: Float32, distance: Float32) -> Float32:
    """Gain [R] of the ground at points [R, 2]: fixed to the world, fading with distance."""
    turn, shift = scene.base2world[:2, :2], scene.base2world[:2, 3]
    world = points @ turn.T.astype(np.float32) + shift.astype(np.float32)
    fine = (world * np.float32(1 / GRAIN)).astype(np.int32) & (TEXTURE - 1)
    coarse = (world * np.float32(1 / (23 * GRAIN))).astype(np.int32) & (TEXTURE - 1)
    texture = _texture()
    near = texture.take(fine[:, 0] * TEXTURE + fine[:, 1])
    far = texture.take(coarse[:, 0] * TEXTURE + coarse[:, 1])
    depth = np.float32(0.22) * np.exp(distance * np.float32(-1 / 12))
    return np.asarray(1 + depth * near + np.float32(0.07) * far, dtype=np.float32)


@lru_cache(maxsize=1)
def _texture() -> Float32:
    """Noise [TEXTURE * TEXTURE] around 0, the same in every picture: the ground does not boil."""
    return np.random.default_rng(7).uniform(-1, 1, TEXTURE * TEXTURE).astype(np.float32)


def _sky(up: Float32, light: Light) -> Float32:
    """The sky in directions of z `up` [R, 1], whiter towards the horizon, [R, 3]."""
    height = np.clip(up * np.float32(2.5), 0.0, 1.0)
    horizon = np.array([0.92, 0.88, 0.84], np.float32)
    zenith = np.array([0.85, 0.62, 0.42], np.float32)
    bright = np.float32(min(1.0, light.sky + 0.6 * light.sun))
    return np.asarray((horizon + (zenith - horizon) * height) * bright, dtype=np.float32)


@lru_cache(maxsize=1)
def _noise() -> Float32:
    """Normal noise [NOISE]; a picture takes a stretch of it from a random start."""
    return np.random.default_rng(11).standard_normal(NOISE, dtype=np.float32)


def _expose(picture: Float32, lens: Lens, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma of 2, lens blur, sensor noise, 8 bits; `picture` [H, W, 3] is used up."""
    np.clip(picture, 0, 1 / lens.exposure, out=picture)
    np.sqrt(picture, out=picture)
    levels: Float32 = np.asarray(cv2.GaussianBlur(picture, (3, 3), 0.55), dtype=np.float32)
    levels *= np.float32(255 * np.sqrt(lens.exposure))
    start = int(rng.integers(NOISE))
    noise = np.take(_noise(), np.arange(start, start + levels.size), mode='wrap')
    levels += noise.reshape(levels.shape) * np.float32(lens.noise) + np.float32(0.5)
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)
