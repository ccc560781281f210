"""A drawn picture in which a camera network sees something, and how its answers are compared."""

from __future__ import annotations

import cv2
import numpy as np

from airside_perception.types import Boxes2D, Image


def picture(height: int, width: int) -> Image:
    """A street with figures: enough that a network takes some for objects."""
    rng = np.random.default_rng(height)
    pixels = np.full((height, width, 3), (200, 180, 150), np.uint8)
    pixels[height // 2 :] = 90
    for i in range(12):
        x, y = rng.integers(0, width), height // 2 + rng.integers(0, height // 3)
        size = int(20 + rng.integers(0, 40))
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        if i % 2:
            cv2.rectangle(pixels, (x, y - size), (x + 2 * size, y), colour, -1)
            cv2.circle(pixels, (x + size // 2, y), size // 5, (20, 20, 20), -1)
        else:
            cv2.ellipse(pixels, (x, y - size), (size // 4, size), 0, 0, 360, colour, -1)
            cv2.circle(pixels, (x, y - 2 * size), size // 5, (140, 170, 220), -1)
    noise = rng.normal(0, 3, pixels.shape)
    return Image(5, 'camera', np.clip(pixels + noise, 0, 255).astype(np.uint8))


def near_all(
    found: Boxes2D, expected: Boxes2D, threshold: float, pixels: float = 1.0, score: float = 0.02
) -> None:
    """Asserts that each box clearly above the threshold has its counterpart: where an engine
    rounds."""
    for mine, other in ((found, expected), (expected, found)):
        for xyxy, value, name in zip(mine.xyxy, mine.scores, mine.classes, strict=True):
            if value < threshold + score:
                continue
            near = np.abs(other.xyxy - xyxy).max(axis=1) < pixels
            near &= np.abs(other.scores - value) < score
            alike = [other.classes[i] == name for i in np.flatnonzero(near)]
            assert any(alike), (xyxy, value, name)
