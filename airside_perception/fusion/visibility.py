"""Which lidar boxes a camera should have seen: only there is its silence evidence."""

from __future__ import annotations

import numpy as np

from airside_perception.config import FusionConfig
from airside_perception.fusion.viewport import Mask, Seen
from airside_perception.types import Float64, Int64

BORDER = 1.0
"""Pixels from the border of the image; a box nearer than this is cut off."""


def should_see(seen: Seen, asked: Mask, config: FusionConfig) -> Mask:
    """Lidar boxes [N] that a healthy camera should see: whole, near, large and not hidden.

    Args:
        seen: the boxes in this image.
        asked: [N], of which boxes to tell; False for the others, which hide those all the same.
        config: `penalty_range`, `penalty_height`, `penalty_occlusion`.
    """
    left, top, right, bottom = seen.xyxy.T
    width, height = seen.size
    clear = asked & seen.visible & (seen.distance <= config.penalty_range) & (seen.depth > 0.0)
    clear &= bottom - top >= config.penalty_height
    clear &= (left >= BORDER) & (top >= BORDER)
    clear &= (right <= width - BORDER) & (bottom <= height - BORDER)
    rows = np.flatnonzero(clear)
    clear[rows] = hidden_part(seen, rows) <= config.penalty_occlusion
    return clear


def hidden_part(seen: Seen, rows: Int64) -> Float64:
    """Part [P] in 0..1 of the rectangles of the boxes `rows` that nearer boxes of `seen` cover.

    The sum over the nearer boxes: what two of them cover counts twice, so that a box is rather
    called hidden than missed.
    """
    near = np.flatnonzero(seen.visible)
    target, cover = seen.xyxy[rows][:, None], seen.xyxy[near][None]
    size = np.minimum(target[..., 2:], cover[..., 2:]) - np.maximum(
        target[..., :2], cover[..., :2]
    )
    shared = np.maximum(size[..., 0], 0.0) * np.maximum(size[..., 1], 0.0)
    shared *= seen.depth[near] < seen.depth[rows][:, None]
    area = (target[..., 2] - target[..., 0]) * (target[..., 3] - target[..., 1])
    part: Float64 = np.minimum(shared.sum(axis=1) / area[:, 0], 1.0)
    return part
