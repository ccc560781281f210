"""Pillars, their features, and rotated suppression."""

from __future__ import annotations

import cv2
import numpy as np

from airside_perception.card import LidarCard
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.pillars import Grid
from airside_perception.overlap import nms_bev
from benchmarks.measure import Row, compare
from benchmarks.sensors import sweep

FEATURES = ('x', 'y', 'z', 'intensity', 'xc', 'yc', 'zc', 'xp', 'yp')


def rows(only: str) -> list[Row]:
    """The stages of the lidar detector around its network."""
    return [row() for task, row in TASKS.items() if only in task]


def card() -> LidarCard:
    """An apron-size PointPillars without its network."""
    rng = np.random.default_rng(0)
    return LidarCard(
        '', 'bench', 'pointpillars', ('car',), {}, {},
        limits=(-76.8, -76.8, -1.0, 76.8, 76.8, 7.0), pillar=(0.32, 0.32),
        max_points=32, max_pillars=40_000,
        features=FEATURES, weight=rng.normal(size=(9, 32)).astype(np.float32),
        bias=rng.normal(size=32).astype(np.float32),
    )  # fmt: skip


def cloud() -> np.ndarray:
    """A sweep without NaN, float32 [N, 4], in base_link."""
    points = sweep()
    return points[np.isfinite(points).all(axis=1)]


def dense_voxels(points: np.ndarray, grid: Grid) -> np.ndarray:
    """The usual NumPy way: np.unique, then a dense [P, 32, 4] buffer."""
    at = np.floor((points[:, :2] - grid.low[:2]) * grid.scale).astype(np.int64)
    inside = ((at >= 0) & (at < (grid.columns, grid.rows))).all(axis=1)
    inside &= (points[:, 2] >= grid.low[2]) & (points[:, 2] < grid.top)
    points, at = points[inside], at[inside]
    _, pillar, counts = np.unique(
        at[:, 1] * grid.columns + at[:, 0], return_inverse=True, return_counts=True
    )
    order = np.argsort(pillar, kind='stable')
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[rank < grid.max_points]
    voxels = np.zeros((len(counts), grid.max_points, 4), np.float32)
    voxels[pillar[kept], rank[rank < grid.max_points]] = points[kept]
    return voxels


def _pillars() -> Row:
    grid, points = Grid.of(card()), cloud()
    others = {'np.unique and a dense buffer': lambda: dense_voxels(points, grid)}
    return compare(PILLARS, 25.0, lambda: grid.fill(points), others)


def _encoder() -> Row:
    model, points = card(), cloud()
    encoder, grid = Encoder(model), Grid.of(model)
    pillars = grid.fill(points)

    def naive() -> object:
        voxels = dense_voxels(points, grid)
        features = np.concatenate([voxels, voxels[..., :3], voxels[..., :2]], axis=-1)
        return np.maximum((features @ model.weight + model.bias).max(axis=1), 0.0)

    return compare(
        ENCODER,
        25.0,
        lambda: encoder.encode(points, pillars),
        {'dense [P, 32, 9] in NumPy': naive},
        10,
    )


def _suppression() -> Row:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-60, 60, (120, 2))
    boxes = np.zeros((1000, 7))
    boxes[:, :2] = centres[rng.integers(0, 120, 1000)] + rng.normal(0, 0.4, (1000, 2))
    boxes[:, 3:6] = (4.2, 1.8, 1.6) * rng.uniform(0.8, 1.2, (1000, 3))
    boxes[:, 6] = rng.uniform(-np.pi, np.pi, 1000)
    scores = rng.uniform(0.1, 1.0, 1000)
    rotated = [
        ((float(x), float(y)), (float(length), float(width)), float(np.degrees(yaw)))
        for x, y, _, length, width, _, yaw in boxes
    ]
    values = scores.tolist()
    others = {
        'cv2.dnn.NMSBoxesRotated': lambda: cv2.dnn.NMSBoxesRotated(rotated, values, 0.0, 0.1)
    }
    return compare(SUPPRESSION, 10.0, lambda: nms_bev(boxes, scores, 0.1), others)


PILLARS = 'pillars, 120,000 points, 480 x 480 grid'
ENCODER = 'pillar features, 32 channels, and scatter'
SUPPRESSION = 'rotated suppression of 1,000 boxes'
TASKS = {PILLARS: _pillars, ENCODER: _encoder, SUPPRESSION: _suppression}
