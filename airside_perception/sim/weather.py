"""What light and weather put between the scene and the film: glare, rain streaks, drops."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.projection import CameraModel
from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.rows import lay_over, merged
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64

FALL = 8.0
"""Speed of raindrops, m/s."""
GLARE = 60
"""Largest radius of glare, pixels."""
FAINTEST = 2e-3
"""Brightness below which glare is left out."""


def glare(
    picture: Float32,
    ground: NDArray[np.bool_],
    model: CameraModel,
    camera2base: Float64,
    scene: Scene,
    caster: Caster,
    conditions: Conditions,
) -> None:
    """Adds the lamps that the camera looks into, and their images in wet ground, in place.

    Args:
        picture: linear, float32 [H, W, 3 or 4]; ground: bool [H, W], where the ground is seen.
        model, camera2base: the camera.
        scene: with its lamps; caster: over its triangles.
        conditions: of the air and the ground.
    """
    lamps = scene.lamps.near(150.0)
    if not conditions.lamps or not len(lamps):
        return
    eye = camera2base[:3, 3]
    _splash(picture, None, model, camera2base, lamps.position.astype(np.float64), eye, scene,
            caster, conditions)  # fmt: skip
    if conditions.wetness > 0.3:
        slope = np.array(scene.slope)
        below = lamps.position.astype(np.float64)
        below[:, 2] = 2 * (below[:, :2] @ slope) - below[:, 2]
        _splash(picture, ground, model, camera2base, below, eye, scene, None, conditions)


def _splash(
    picture: Float32,
    only: NDArray[np.bool_] | None,
    model: CameraModel,
    camera2base: Float64,
    places: Float64,
    eye: Float64,
    scene: Scene,
    caster: Caster | None,
    conditions: Conditions,
) -> None:
    lamps = scene.lamps.near(150.0)
    pixels, valid = model.project((places - eye) @ camera2base[:3, :3])
    away = lamps.position - eye.astype(np.float32)
    reach = np.linalg.norm(away, axis=1)
    lobe = np.maximum(-np.einsum('ij,ij->i', away, lamps.axis) / reach, 0) ** lamps.focus
    # A flood-light also glows off its axis; what is bright is its glass, seen as size / distance.
    shine = lamps.power * (lobe + np.float32(0.06)) * np.float32(0.25)
    shine *= np.exp(-reach * np.float32(conditions.extinction)) * (lamps.size > 0)
    seen = valid & (shine / np.maximum(reach, 4) > FAINTEST)
    height, width = picture.shape[:2]
    inside = np.nan_to_num(pixels, nan=-1e4)
    seen &= (inside > -GLARE).all(axis=1)
    seen &= (inside[:, 0] < width + GLARE) & (inside[:, 1] < height + GLARE)
    rows = np.flatnonzero(seen)
    if caster is not None and len(rows):
        start = np.broadcast_to(eye.astype(np.float32), (len(rows), 3))
        rows = rows[~caster.shaded(np.ascontiguousarray(start), away[rows], 0.96)]
    focal = float(model.matrix[0, 0])
    halo = 1.0 + (1.5 if conditions.weather != 'clear' else 0.0)
    for number in rows:
        core = max(focal * float(lamps.size[number]) / float(reach[number]), 0.7)
        peak = float(shine[number]) / (float(lamps.size[number]) ** 2 + 0.01) * 0.05
        peak = min(peak, 4.0)
        stretch = 1.0
        if only is not None:
            peak, stretch = peak * 0.2 * conditions.wetness, 5.0
        _blob(picture, only, inside[number], core * halo, peak, lamps.colour[number], stretch)


def _blob(
    picture: Float32,
    only: NDArray[np.bool_] | None,
    at: Float64,
    core: float,
    peak: float,
    colour: Float32,
    stretch: float,
) -> None:
    """Adds a spot with a wide skirt: (1 + (d / core)^2)^-1.5 down to where it cannot be seen."""
    radius = int(min(GLARE, np.ceil(core * max((peak / 1e-3) ** (1 / 3), 2.0))))
    height, width = picture.shape[:2]
    x0, x1 = max(int(at[0]) - radius, 0), min(int(at[0]) + radius + 1, width)
    tall = int(radius * stretch)
    y0, y1 = max(int(at[1]) - tall, 0), min(int(at[1]) + tall + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(at[0])) / np.float32(core)
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(at[1])) / np.float32(core * stretch)
    square = dx * dx + (dy * dy)[:, None]
    edge = (radius / core) ** 2
    spot = np.float32(peak) * ((1 + square) ** np.float32(-1.5) - np.float32((1 + edge) ** -1.5))
    np.maximum(spot, 0, out=spot)
    if only is not None:
        spot *= only[y0:y1, x0:x1]
    for channel in range(3):
        picture[y0:y1, x0:x1, channel] += spot * colour[channel]


def streaks(
    picture: Float32, focal: float, rate: float, shutter: float, speed: Float64,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Adds falling rain to a linear picture [H, W, 4], in place.

    Args:
        picture: linear light, contiguous in memory.
        focal: pixels; rate: mm/h; shutter: seconds.
        speed: (right, forward) of the camera, m/s.
        rng: where the drops are.
    """
    height, width = picture.shape[:2]
    count = int(min(2200, 22 * rate**0.8 * (height * width) / (384 * 640)))
    depth = rng.uniform(0.5, 1.0, count) ** 2 * 9.0 + 0.8
    start = rng.uniform(-0.05, 1.05, (count, 2)) * [width, height]
    # Rain that the vehicle drives into spreads from the middle of the picture.
    spread = (start - [width / 2, height / 2]) / depth[:, None] * speed[1]
    motion = np.column_stack([-focal * speed[0] / depth, focal * FALL / depth]) + spread
    motion[:, 0] += 0.06 * focal * FALL / depth  # a little wind
    # Streaks as film shows them: at least as long as a shutter of 4 ms makes them.
    end = start + motion * max(shutter, 0.004)
    overlay = np.zeros((height, width), np.float32)
    ends = (np.concatenate([start, end], axis=1) * 8).astype(np.int64).tolist()
    for (x0, y0, x1, y1), away in zip(ends, depth.tolist(), strict=True):
        thick = 2 if away < 1.8 else 1
        cv2.line(overlay, (x0, y0), (x1, y1), min(0.8, 0.8 / away), thick, cv2.LINE_8, 3)
    veil = np.asarray(cv2.GaussianBlur(overlay, (3, 3), 0.7), np.float32).ravel()
    streaked = np.flatnonzero(veil)
    share = veil.take(streaked) * np.float32(0.6)
    sky = np.percentile(picture[::8, ::8].reshape(-1, 4), 80, axis=0).astype(np.float32)
    light = merged(tuple(share * level for level in sky))
    lay_over(picture.reshape(-1, 4), streaked, share, light)


def drops(image: NDArray[np.uint8], rate: float, rng: np.random.Generator) -> None:
    """Puts raindrops on the lens of an image [H, W, 3], in place.

    Each shows the scene upside down. The same state of `rng` gives the same drops: they stay where
    they are from frame to frame.
    """
    height, width = image.shape[:2]
    for _ in range(int(rng.poisson(3 + 0.35 * rate))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = float(min(rng.gamma(3.0, 2.6) + 3.0, 26.0)) * width / 640
        size = int(np.ceil(radius)) + 1
        x0, x1 = max(int(x) - size, 0), min(int(x) + size + 1, width)
        y0, y1 = max(int(y) - size, 0), min(int(y) + size + 1, height)
        if x1 - x0 < 4 or y1 - y0 < 4:
            continue
        # A drop is a strong lens out of focus: a wide view, upside down, blurred.
        wide = image[max(y0 - 3 * size, 0) : y1 + 3 * size, max(x0 - 3 * size, 0) : x1 + 3 * size]
        small = cv2.resize(wide, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small[::-1], (0, 0), max(radius / 5, 0.8))
        dx = (np.arange(x0, x1) - x) / radius
        dy = (np.arange(y0, y1) - y) / (radius * 1.15)
        inside = np.clip(2.5 * (1 - np.sqrt(dx**2 + dy[:, None] ** 2)), 0, 0.85)[..., None]
        shade = 0.92 + 0.16 * np.clip(dy, -1, 1)[:, None, None]
        patch = image[y0:y1, x0:x1]
        mixed = patch * (1 - inside) + small * shade * inside
        image[y0:y1, x0:x1] = np.clip(mixed, 0, 255).astype(np.uint8)
