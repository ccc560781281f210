"""Animated GIFs by OpenCV, with colours chosen here: one palette for all frames, no dithering.

OpenCV's own choice of colours is coarse. Its encoder keeps up to 256 colours as they are if their
components are even, since its octree looks at seven bits of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import PerceptionError
from airside_perception.replay.pictures import Color, Picture

SAMPLE = 50_000
"""Pixels that the palette is made from."""
BITS = 6
"""Of each component by which a colour's entry of the palette is looked up."""
NO_DITHERING = 3
"""OpenCV's number for it; others, 0 among them, are kinds of dithering."""


def can_write() -> bool:
    """Whether the installed OpenCV writes animated GIFs (4.12 and later do)."""
    return hasattr(cv2, 'imwriteanimation') and cv2.haveImageWriter('any.gif')


def write_gif(
    path: Path,
    frames: Sequence[Picture],
    durations_ms: Sequence[int],
    colors: int = 56,
    kept: Sequence[Color] = (),
) -> Path:
    """Writes an animation that is shown again and again.

    Args:
        path: ends in .gif.
        frames: uint8 BGR [H, W, 3], all of one size.
        durations_ms: how long each is shown, in steps of 10 ms.
        colors: number of them in the palette, 256 at most.
        kept: colours, BGR, that must be among them.

    Raises:
        PerceptionError: it cannot be written.
    """
    table = palette(frames, colors, kept)
    animation = cv2.Animation()
    animation.frames = quantised(frames, table)
    animation.durations = list(durations_ms)
    animation.loop_count = 0
    settings = {
        cv2.IMWRITE_GIF_QUALITY: 8,  # bits of the palette's index
        cv2.IMWRITE_GIF_DITHER: NO_DITHERING,
        cv2.IMWRITE_GIF_TRANSPARENCY: 0,
    }
    flat = [value for pair in settings.items() for value in pair]
    if not cv2.imwriteanimation(str(path), animation, flat):
        raise PerceptionError(f'{path}: the animation cannot be written')
    return path


def palette(
    frames: Sequence[Picture], colors: int, kept: Sequence[Color] = ()
) -> NDArray[np.uint8]:
    """`kept` and centres of clusters of pixels: uint8 BGR [colors or fewer, 3], even, distinct."""
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames[::5]])
    some = np.random.default_rng(0).integers(len(pixels), size=SAMPLE)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 15, 0.5)
    sample = pixels[some].astype(np.float32)
    count, labels = colors - len(kept), np.empty((SAMPLE, 1), np.int32)
    clusters = cv2.kmeans(sample, count, labels, stop, 1, cv2.KMEANS_PP_CENTERS)[2]
    table = np.concatenate([np.reshape(kept, (-1, 3)), clusters]).clip(0, 254) / 2
    return np.unique(table.round().astype(np.uint8) * 2, axis=0)


def quantised(frames: Sequence[Picture], table: NDArray[np.uint8]) -> list[Picture]:
    """The frames in the nearest colours of `table` [C, 3]."""
    step = 1 << 8 - BITS
    levels = np.arange(step // 2, 256, step, dtype=np.float32)
    cells = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), axis=-1).reshape(-1, 3)
    gap = ((cells[:, None] - table.astype(np.float32)) ** 2).sum(axis=2)
    nearest = table[gap.argmin(axis=1)]
    found = []
    for frame in frames:
        b, g, r = np.moveaxis(frame.astype(np.int32) // step, 2, 0)
        found.append(nearest[(b << 2 * BITS) + (g << BITS) + r])
    return found
