"""What a camera, and what the lidar, should have seen: only there is its silence evidence."""

from __future__ import annotations

import numpy as np

from airside_perception.config import FusionConfig
from airside_perception.fusion.viewport import Mask, Seen
from airside_perception.types import LENGTH, WIDTH, YAW, Float64, Int64, X, Y

BORDER = 1.0
"""Pixels from the border of the image; a box nearer than this is cut off."""
SHADOWED = 0.5
"""Part of a box behind nearer ones from which on the lidar need not see it."""
STEPS = np.linspace(-0.8, 0.8, 5)
"""The middles of five equal parts across a box, from -1 to 1."""


def should_see(seen: Seen, asked: Mask, config: FusionConfig) -> Mask:
    """Lidar boxes [N] that a camera should see: whole, near, large and not hidden.

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


def lidar_should_see(
    boxes: Float64, lidar: Float64, origin: Float64 | None, config: FusionConfig
) -> Mask:
    """Boxes [N, 7] of cameras that a lidar that answers should see: in reach and not in a shadow.

    Args:
        boxes: in the fusion frame.
        lidar: [M, 7], what the lidar sees, in the fusion frame.
        origin: [2], where the lidar is, in the fusion frame; None: not known, nor are shadows.
        config: `lidar_min_range`, `lidar_range`, `lidar_shadow`.
    """
    distance = np.hypot(boxes[:, X], boxes[:, Y])
    expected = (distance >= config.lidar_min_range) & (distance <= config.lidar_range)
    if config.lidar_shadow and origin is not None:
        rows = np.flatnonzero(expected)
        expected[rows] = shadowed_part(boxes[rows], lidar, origin) < SHADOWED
    return expected


def shadowed_part(boxes: Float64, walls: Float64, origin: Float64) -> Float64:
    """Part [N] in 0..1 of boxes [N, 7] behind `walls` [M, 7], from `origin` [2], from above.

    Looked at are points across each box, at right angles to the line of sight to its centre. A
    point is behind a wall if the line of sight crosses its footprint, and is beyond the middle of
    the crossing: what stands before a wall is not hidden by it if its place is somewhat wrong. A
    wall around the origin hides nothing. Heights are left out.
    """
    centres, middles = boxes[:, :2] - origin, walls[:, :2] - origin
    distance = np.maximum(np.hypot(*centres.T), 1e-9)
    ahead = centres / distance[:, None]
    aside = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    turn = np.arctan2(aside[:, 1], aside[:, 0]) - boxes[:, YAW]
    half = (np.abs(np.cos(turn)) * boxes[:, LENGTH] + np.abs(np.sin(turn)) * boxes[:, WIDTH]) / 2
    radius = np.hypot(walls[:, LENGTH], walls[:, WIDTH]) / 2
    near = np.abs(aside @ middles.T) <= half[:, None] + radius  # few pairs need a closer look
    near &= ahead @ middles.T > -radius
    near &= np.hypot(*middles.T) - radius < np.hypot(distance, half)[:, None]
    row, wall = np.nonzero(near)
    points = centres[row, None] + aside[row, None] * (half[row, None] * STEPS)[..., None]
    c, s = np.cos(walls[wall, YAW]), np.sin(walls[wall, YAW])
    upright = np.stack([c, -s, s, c], axis=-1).reshape(-1, 2, 2)
    start = -(middles[wall, None] @ upright)
    step = points @ upright
    step = np.where(np.abs(step) < 1e-12, 1e-12, step)
    size = walls[wall, None][..., [LENGTH, WIDTH]] / 2
    first, last = (-size - start) / step, (size - start) / step
    enter, leave = np.minimum(first, last).max(axis=-1), np.maximum(first, last).min(axis=-1)
    pair, point = np.nonzero((enter > 0.0) & (enter <= leave) & (enter + leave < 2.0))
    covered = np.zeros((len(boxes), len(STEPS)), dtype=bool)
    covered[row[pair], point] = True
    part: Float64 = covered.mean(axis=1)
    return part
