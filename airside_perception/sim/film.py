"""From linear light to 8 bits: exposure, motion blur, lens blur, noise.

An exposure of gain 1 takes `SHUTTER` seconds; automatic exposure first lets the shutter open to
`LONGEST`, then amplifies. Noise of a pixel has the lens's deviation at gain 1 and grows with the
square root of the amplification, as that of a signal of fewer photons does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.types import Float32

NOISE = 1 << 21
"""Stored samples of sensor noise."""
SHUTTER, LONGEST = 0.0015, 0.012
"""Exposure times, seconds."""
GREY, MOST = 0.11, 60.0
"""What automatic exposure makes of the mean, and its largest gain."""
BLUR, TAPS, SMEAR = 1.0, 5, 40.0
"""Motion, pixels, that is too little to blur; samples along it; the longest motion, pixels."""


@dataclass(frozen=True)
class Exposure:
    """How a picture was taken: gain of the light, of which `amplified`; seconds of `shutter`."""

    gain: float = 1.0
    amplified: float = 1.0
    shutter: float = SHUTTER


def metered(picture: Float32) -> Exposure:
    """Automatic exposure of a linear picture [H, W, 3]: lamps and sky hardly count."""
    some = picture[::8, ::8].mean(axis=2)
    limit = 4 * float(np.median(some)) + 1e-4
    mean = float(np.minimum(some, limit).mean())
    gain = float(np.clip(GREY / max(mean, 1e-6), 1.0, MOST))
    shutter = min(SHUTTER * gain, LONGEST)
    return Exposure(gain, gain * SHUTTER / shutter, shutter)


def smeared(picture: Float32, flow: Float32, shutter: float) -> Float32:
    """A linear picture [H, W, 3] blurred along the motion of what it shows.

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
    wide = cv2.resize(cv2.blur(way, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
    right, down = np.moveaxis(np.asarray(wide, np.float32), 2, 0)
    x, y = _grid(height, width)
    total = np.zeros_like(picture)
    for share in np.linspace(-0.5, 0.5, TAPS):
        total += cv2.remap(
            picture,
            x + right * np.float32(share),
            y + down * np.float32(share),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    total *= np.float32(1 / TAPS)
    return total


def developed(
    picture: Float32, gain: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Gamma of 2, lens blur, sensor noise, 8 bits; `picture` [H, W, 3] is used up."""
    np.clip(picture, 0, 1 / gain, out=picture)
    cv2.sqrt(picture, picture)
    levels: Float32 = np.asarray(cv2.GaussianBlur(picture, (3, 3), 0.55), dtype=np.float32)
    levels *= np.float32(255 * np.sqrt(gain))
    start = int(rng.integers(NOISE))
    stored = _noise()
    grain = stored[start : start + levels.size]
    if len(grain) < levels.size:
        grain = np.take(stored, np.arange(start, start + levels.size), mode='wrap')
    levels += grain.reshape(levels.shape) * np.float32(noise)
    levels += np.float32(0.5)
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[Float32, Float32]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


@lru_cache(maxsize=1)
def _noise() -> Float32:
    """Normal noise [NOISE]; a picture takes a stretch of it from a random start."""
    return np.random.default_rng(11).standard_normal(NOISE, dtype=np.float32)
