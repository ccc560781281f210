"""Fusion of eight cameras and a lidar, beside the same steps written as loops."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

from airside_perception.camera.lift import EDGE, lift
from airside_perception.config import CameraConfig, FusionConfig
from airside_perception.fusion import CameraView, Fusion
from airside_perception.fusion.viewport import Viewport, front_faces, see
from airside_perception.geometry import apply, corners, invert, rotation_z, transform
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Boxes3D
from benchmarks.measure import Row, compare

CAMERAS, LIDAR_BOXES, CAMERA_BOXES = 8, 200, 50
STAMP, FRAME = 1_000_000_000, 'base_link'
SIZES = {'car': (4.5, 1.9, 1.6), 'person': (0.6, 0.6, 1.75), 'truck': (8.0, 2.5, 3.2)}
LENS = CameraModel(
    'camera',
    1280,
    720,
    np.array([[760.0, 0, 640], [0, 760.0, 360], [0, 0, 1]]),
    (-0.3, 0.09, 0.0005, -0.0003, -0.01),
)
OPTICAL = transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))


def rows(only: str) -> list[Row]:
    """Fusion of one set."""
    return [_fusion()] if only in FUSION else []


def rig(seed: int = 0) -> tuple[Boxes3D, dict[str, CameraView]]:
    """A full set: objects all around, each camera's noisy boxes of them, and false ones."""
    rng = np.random.default_rng(seed)
    classes = tuple(rng.choice(list(SIZES), LIDAR_BOXES, p=(0.6, 0.3, 0.1)))
    bearing = rng.uniform(-np.pi, np.pi, LIDAR_BOXES)
    reach = rng.uniform(6.0, 70.0, LIDAR_BOXES)
    sizes = np.array([SIZES[name] for name in classes]) * rng.uniform(0.9, 1.1, (LIDAR_BOXES, 1))
    place = [reach * np.cos(bearing), reach * np.sin(bearing), sizes[:, 2] / 2]
    boxes = np.column_stack([*place, sizes, rng.uniform(-np.pi, np.pi, LIDAR_BOXES)])
    spread = np.einsum('n,ij->nij', (0.15 + 0.005 * reach) ** 2, np.diag([1.0, 1, 1, 0.2]))
    scores = rng.uniform(0.1, 0.95, LIDAR_BOXES)
    lidar = Boxes3D(STAMP, FRAME, boxes, scores, classes, spread)
    views = {}
    for k in range(CAMERAS):
        turn = rotation_z(2 * np.pi * k / CAMERAS)
        camera2base = transform(turn, turn @ np.array([1.5, 0, 1.8])) @ OPTICAL
        views[f'camera_{k}'] = CameraView(
            _seen(lidar, camera2base, rng), LENS, invert(camera2base)
        )
    return lidar, views


def _seen(lidar: Boxes3D, camera2base: np.ndarray, rng: np.random.Generator) -> Boxes3D:
    """Boxes that one camera reports: those in view, jittered, filled up with false ones."""
    (seen,) = see([Viewport.of(LENS)], [invert(camera2base)], lidar.boxes, [np.empty((0, 7))])
    found = np.flatnonzero(seen.visible)
    xyxy = seen.xyxy[found] + EDGE + rng.normal(0, 1.0, (len(found), 4))
    names = [lidar.classes[i] for i in found]
    false = 3 * CAMERA_BOXES
    corner = rng.uniform([100, 370], [1100, 420], (false, 2))
    size = rng.uniform([15, 15], [120, 200], (false, 2))
    xyxy = np.concatenate([xyxy, np.column_stack([corner, corner + size])])
    names += list(rng.choice(list(SIZES), false))
    flat = Boxes2D(STAMP, 'camera', xyxy, rng.uniform(0.3, 0.9, len(names)), tuple(names))
    return lift(flat, LENS, camera2base, SIZES, CameraConfig()).select(slice(CAMERA_BOXES))


def loops(lidar: Boxes3D, views: dict[str, CameraView], config: FusionConfig) -> list[np.ndarray]:
    """Projection, gates, costs, assignment and intersection, one box and one pair at a time."""
    states = [
        (box[:2], cov[:2, :2]) for box, cov in zip(lidar.boxes, lidar.covariances, strict=True)
    ]
    places, groups = list(states), config.groups
    for view in views.values():
        seen = [_rectangle(corners(box[None])[0], view) for box in lidar.boxes]
        faces = [_rectangle(front_faces(box[None])[0], view) for box in view.boxes.boxes]
        cost = np.full((len(lidar), len(view.boxes)), 1e6)
        for i, j in itertools.product(range(len(lidar)), range(len(view.boxes))):
            if seen[i] is None or faces[j] is None:
                continue
            if groups[lidar.classes[i]] != groups[view.boxes.classes[j]]:
                continue
            gap = places[i][0] - view.boxes.boxes[j, :2]
            spread = places[i][1] + view.boxes.covariances[j, :2, :2]
            squared = gap @ np.linalg.inv(spread) @ gap
            overlap = _giou(seen[i], faces[j])
            if squared > config.gate_chi2 or overlap < config.gate_giou:
                continue
            cost[i, j] = config.image_cost * (1 - overlap)
            cost[i, j] += config.distance_cost * np.sqrt(squared)
            cost[i, j] += config.class_cost * (lidar.classes[i] != view.boxes.classes[j])
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, j] < config.gate_cost:
                other = view.boxes.boxes[j, :2], view.boxes.covariances[j, :2, :2]
                states[i] = _intersect(*states[i], *other)
    return [place for place, _ in states]


def _rectangle(points: np.ndarray, view: CameraView) -> tuple[float, float, float, float] | None:
    local = apply(view.fusion2camera, points)
    if (local[:, 2] < 0.1).any():
        return None
    pixels, valid = view.camera.project(local)
    if not valid.all():
        return None
    left, top = np.maximum(pixels.min(axis=0), 0.0)
    right, bottom = np.minimum(pixels.max(axis=0), (view.camera.width, view.camera.height))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _giou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(tall, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union - (hull - union) / hull


def _intersect(
    a: np.ndarray, cov_a: np.ndarray, b: np.ndarray, cov_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weight by trying twenty."""
    inverse_a, inverse_b = np.linalg.inv(cov_a), np.linalg.inv(cov_b)
    tried = []
    for w in np.linspace(0.0, 1.0, 20):
        cov = np.linalg.inv(w * inverse_a + (1 - w) * inverse_b)
        state = cov @ (w * inverse_a @ a + (1 - w) * inverse_b @ b)
        tried.append((np.linalg.det(cov), state, cov))
    _, state, cov = min(tried, key=lambda item: item[0])
    return state, cov


def _fusion() -> Row:
    lidar, views = rig()
    config = FusionConfig(cameras=tuple(views))
    fusion = Fusion(config)
    return compare(
        FUSION,
        10.0,
        lambda: fusion.fuse(lidar, views, STAMP, FRAME),
        {'the same in loops': lambda: loops(lidar, views, config)},
        15,
    )


FUSION = f'fusion of {CAMERAS} cameras x {CAMERA_BOXES} and {LIDAR_BOXES} lidar boxes'
