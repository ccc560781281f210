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
"""Side of the repeating ground texture, samples."""
GRAIN = 0.04
"""Size of a sample of the ground texture, metres."""


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
        towards = [flat * np.cos(self.azimuth), flat * np.sin(self.azimuth), np.sin(self.elevation)]
        return np.asarray(base2world[:3, :3].T @ np.array(towards))


@dataclass(frozen=True)
class Picture:
    """A picture, uint8 [H, W, 3] blue green red, with the object that each pixel shows, int32 [H, W] (-1)."""

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
    sunny, dark = _lit(scene, light)
    row = np.where(hits.triangle >= 0, hits.triangle, len(scene.triangles))
    shadow = _shadow(scene, caster, light, origin, rays, hits) if light.shadows else None
    colour = sunny[row] if shadow is None else np.where(shadow[:, None], dark[row], sunny[row])
    _grain(colour, scene, origin, rays, hits)
    seen = np.isfinite(hits.distance)
    haze = np.exp(-np.where(seen, hits.distance, 0.0) / np.float32(light.visibility))[:, None]
    sky = _sky(rays, light)
    picture = np.where(seen[:, None], colour * haze + sky * (1 - haze), sky).reshape(*shape, 3)
    instance = np.where(hits.triangle >= 0, scene.instance[np.maximum(hits.triangle, 0)], -1)
    return Picture(_expose(picture, lens, rng), instance.reshape(shape).astype(np.int32))


def visible(picture: Picture, scene: Scene, stamp_ns: int, frame_id: str, least: int = 20) -> Boxes2D:
    """The boxes around what a picture shows of each object, of at least `least` pixels."""
    pixels = np.bincount(picture.instance.ravel() + 1, minlength=len(scene.objects) + 1)[1:]
    spans = ndimage.find_objects(picture.instance + 1, max_label=len(scene.objects))
    rows = [i for i, span in enumerate(spans) if span is not None and pixels[i] >= least]
    xyxy = [(spans[i][1].start, spans[i][0].start, spans[i][1].stop, spans[i][0].stop) for i in rows]
    names = tuple(scene.objects.classes[i] for i in rows)
    return Boxes2D(stamp_ns, frame_id, np.array(xyxy, np.float64).reshape(-1, 4), np.ones(len(rows)), names)


def _lit(scene: Scene, light: Light) -> tuple[Float32, Float32]:
    """Colours [T + 1, 3] of all triangles, and of the ground last, in the sun and in its shadow."""
    up = np.array([[-scene.slope[0], -scene.slope[1], 1.0]], np.float32)
    normal = np.concatenate([normals(scene.triangles), up])
    colour = scene.materials.colour[np.append(scene.material, scene.ground)]
    facing = np.maximum(normal @ light.direction(scene.base2world).astype(np.float32), 0.0)[:, None]
    dark = colour * (light.sky * (0.75 + 0.25 * normal[:, 2:]))
    return (dark + colour * (light.sun * facing)).astype(np.float32), dark.astype(np.float32)


def _shadow(
    scene: Scene, caster: Caster, light: Light, origin: Float64, rays: Float32, hits: Hits
) -> NDArray[np.bool_]:
    """Whether the sun is hidden from what each ray meets, bool [R]."""
    seen = np.flatnonzero(np.isfinite(hits.distance) & (hits.distance < 250.0))
    points = origin.astype(np.float32) + rays[seen] * (hits.distance[seen, None] * np.float32(0.9995))
    points[:, 2] += 0.01
    shadow = np.zeros(len(rays), np.bool_)
    shadow[seen] = caster.shaded(points, light.direction(scene.base2world))
    return shadow


def _grain(colour: Float32, scene: Scene, origin: Float64, rays: Float32, hits: Hits) -> None:
    """Roughens the ground in place, as far as a sample of the texture is larger than a pixel."""
    ground = np.flatnonzero((hits.triangle == GROUND) & (hits.distance < 60.0))
    distance = hits.distance[ground]
    flat = rays[ground, :2] * distance[:, None] + origin[:2].astype(np.float32)
    turn = scene.base2world[:2, :2].astype(np.float32)
    world = flat @ turn.T + scene.base2world[:2, 3].astype(np.float32)
    fine = (world / np.float32(GRAIN)).astype(np.int32) % TEXTURE
    coarse = (world / np.float32(GRAIN * 23)).astype(np.int32) % TEXTURE
    texture = _texture()
    depth = 0.22 * np.exp(-distance / 12)
    gain = 1 + depth * texture[fine[:, 0], fine[:, 1]] + 0.07 * texture[coarse[:, 0], coarse[:, 1]]
    colour[ground] *= gain[:, None].astype(np.float32)


@lru_cache(maxsize=1)
def _texture() -> Float32:
    """Noise [TEXTURE, TEXTURE] around 0, the same in every picture: the ground does not boil."""
    return np.random.default_rng(7).uniform(-1, 1, (TEXTURE, TEXTURE)).astype(np.float32)


def _sky(rays: Float32, light: Light) -> Float32:
    """A sky that is whiter towards the horizon, [R, 3]."""
    height = np.clip(rays[:, 2:] * 2.5, 0.0, 1.0)
    horizon, zenith = np.array([0.92, 0.88, 0.84], np.float32), np.array([0.85, 0.62, 0.42], np.float32)
    bright = np.float32(min(1.0, light.sky + 0.6 * light.sun))
    return np.asarray((horizon + (zenith - horizon) * height) * bright, dtype=np.float32)


def _expose(picture: Float32, lens: Lens, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma of 2.2 in the mid-tones, lens blur, sensor noise, 8 bits."""
    levels = np.sqrt(np.clip(picture * np.float32(lens.exposure), 0, 1)) * np.float32(255)
    blurred = cv2.GaussianBlur(levels.astype(np.float32), (3, 3), 0.55)
    noise = rng.standard_normal(blurred.shape, dtype=np.float32) * np.float32(lens.noise)
    return np.asarray(np.clip(blurred + noise + np.float32(0.5), 0, 255).astype(np.uint8))
