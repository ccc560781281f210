"""From linear light to 8 bits: exposure, motion blur, lens blur, noise.

An exposure of gain 1 takes `SHUTTER` seconds; automatic exposure first lets the shutter open to
`LONGEST`, then amplifies. Noise of a pixel has the lens's deviation at gain 1 and grows with the
square root of the amplification, as that of a signal of fewer photons does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.rows import bands
from airside_perception.types import Float32

NOISE = 1 << 21
"""Stored samples of sensor noise."""
SHUTTER, LONGEST = 0.0015, 0.012
"""Exposure times, seconds."""
GREY, MOST = 0.11, 60.0
"""What automatic exposure makes of the mean, and its largest gain."""
BLUR, SMEAR = 1.0, 40.0
"""Motion, pixels, that is too little to blur; the longest motion, pixels."""
SHARES = (-0.5, -0.25, 0.25, 0.5)
"""Where samples of the motion are taken beside that in its middle."""
NO_MAP: Any = None
"""In place of a second map: the stub of `cv2.remap` asks for it where the first has both axes."""
STILL = 1 / 32
"""Motion, pixels, that does not reach a sample's neighbour: `cv2.remap` counts in 1 / 32 pixel."""


@dataclass(frozen=True)
class Exposure:
    """How a picture was taken: gain of the light, of which `amplified`; seconds of `shutter`."""

    gain: float = 1.0
    amplified: float = 1.0
    shutter: float = SHUTTER


def metered(picture: Float32) -> Exposure:
    """Automatic exposure of a linear picture [H, W, 3 or 4]: lamps and sky hardly count."""
    some = picture[::8, ::8, :3].mean(axis=2)
    limit = 4 * float(np.median(some)) + 1e-4
    mean = float(np.minimum(some, limit).mean())
    gain = float(np.clip(GREY / max(mean, 1e-6), 1.0, MOST))
    shutter = min(SHUTTER * gain, LONGEST)
    return Exposure(gain, gain * SHUTTER / shutter, shutter)


def smeared(picture: Float32, flow: Float32, shutter: float) -> Float32:
    """A linear picture [H, W, 3 or 4] blurred along the motion of what it shows.

    Args:
        picture: as it would be at one moment.
        flow: float32 [h, w, 2], motion in pixels a second, of fewer pixels.
        shutter: seconds.
    """
    height, width = picture.shape[:2]
    way = flow * np.float32(shutter)
    length = np.sqrt(np.einsum('ijk,ijk->ij', way, way))
    if float(np.percentile(length, 99)) < BLUR:
        return picture
    way *= np.minimum(1, np.float32(SMEAR) / np.maximum(length, np.float32(1e-6)))[..., None]
    # Motion of a near thing smears over what lies beside it.
    large = cv2.resize(cv2.blur(way, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    blurred = picture.copy()
    grid = _grid(height, width)
    for band in bands(height):
        moved = large[band]
        if max(moved.max(), -moved.min()) < STILL:  # mostly the sky
            continue
        total, places = blurred[band], np.empty_like(moved, np.float32)
        for share in SHARES:
            np.multiply(moved, np.float32(share), out=places)
            places += grid[band]
            total += cv2.remap(
                picture, places, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        total *= np.float32(1 / (1 + len(SHARES)))
    return blurred


def developed(
    picture: Float32, gain: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Gamma of 2, lens blur, sensor noise, 8 bits [H, W, 3].

    Args:
        picture: linear [H, W, 3 or 4]; used up.
        gain: of the light; noise: grey levels.
        rng: of the noise.
    """
    if picture.shape[2] == 4:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), dtype=np.float32)
    np.clip(picture, 0, 1 / gain, out=picture)
    cv2.sqrt(picture, picture)
    levels = cv2.GaussianBlur(picture, (3, 3), 0.55)
    start = int(rng.integers(NOISE))
    stored = _noise()
    grain = stored[start : start + picture.size]
    while len(grain) < picture.size:
        grain = np.concatenate([grain, stored[: picture.size - len(grain)]])
    # Rounds and saturates to 8 bits, too.
    image = cv2.addWeighted(
        levels, 255 * float(np.sqrt(gain)), grain.reshape(picture.shape), noise, 0, dtype=cv2.CV_8U
    )
    return np.asarray(image, dtype=np.uint8)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Float32:
    """Column and row of each pixel, [H, W, 2]."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=2).astype(np.float32)


@lru_cache(maxsize=1)
def _noise() -> Float32:
    """Normal noise [NOISE]; a picture takes a stretch of it from a random start."""
    return np.random.default_rng(11).standard_normal(NOISE, dtype=np.float32)
