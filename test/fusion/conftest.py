"""A small rig: cameras on a vehicle, boxes in base_link, and what a camera reports of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from airside_perception.camera.lift import EDGE, lift
from airside_perception.config import CameraConfig
from airside_perception.fusion import CameraView
from airside_perception.fusion.viewport import Viewport, see
from airside_perception.geometry import invert, rotation_z, transform
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Boxes3D

STAMP, FRAME = 5_000_000_000, 'base_link'
SIZES = {
    'car': (4.4, 1.8, 1.5), 'person': (0.6, 0.6, 1.75), 'truck': (8.0, 2.5, 3.2),
    'belt_loader': (6.0, 2.5, 3.5), 'aircraft': (37.0, 4.0, 4.0),
}  # fmt: skip
OPTICAL = transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))


def lens(distortion: tuple[float, ...] = (), width: int = 1280, height: int = 720) -> CameraModel:
    matrix = np.array([[700.0, 0, width / 2], [0, 700.0, height / 2], [0, 0, 1]])
    return CameraModel('camera_optical', width, height, matrix, distortion)


def camera2base(yaw: float = 0.0, pitch: float = 0.0, at=(1.5, 0.0, 2.0)) -> np.ndarray:
    """A camera that looks along `yaw`, `pitch` radians downwards."""
    c, s = np.cos(pitch), np.sin(pitch)
    down = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return transform(rotation_z(yaw) @ down, np.array(at, dtype=float)) @ OPTICAL


def boxes(*rows, stamp: int = STAMP, frame: str = FRAME, sigma: float = 0.2, **fields) -> Boxes3D:
    """Boxes on the ground from (class, x, y[, yaw[, score]])."""
    full = [(*row, *(0.0, 0.6)[len(row) - 3 :]) for row in rows]
    sizes = np.array([SIZES.get(row[0], (4.0, 2.0, 1.5)) for row in full]).reshape(-1, 3)
    values = np.array([row[1:4] for row in full], dtype=float).reshape(-1, 3)
    table = np.column_stack([values[:, :2], sizes[:, 2] / 2, sizes, values[:, 2]])
    spread = np.tile(np.diag([sigma**2, sigma**2, 0.01, 0.01]), (len(full), 1, 1))
    return Boxes3D(
        stamp, frame, table, [row[4] for row in full], tuple(row[0] for row in full), spread,
        **fields,
    )  # fmt: skip


def rectangles(lidar: Boxes3D, camera: CameraModel, pose: np.ndarray) -> np.ndarray:
    (seen,) = see([Viewport.of(camera)], [invert(pose)], lidar.boxes, [np.empty((0, 7))])
    return seen.xyxy


def seen_by(
    objects: Boxes3D, pose: np.ndarray, camera: CameraModel | None = None, jitter=0.0, score=0.7
) -> CameraView:
    """What a camera at `pose` reports of objects: 2D boxes around them, lifted to the ground."""
    camera = camera or lens()
    xyxy = rectangles(objects, camera, pose) + EDGE + jitter
    flat = Boxes2D(STAMP, 'camera_optical', xyxy, np.full(len(objects), score), objects.classes)
    config = CameraConfig(ground_frame=FRAME, pixel_sigma=2.0, side_sigma=0.0)
    lifted = lift(flat, camera, pose, SIZES, config)
    assert len(lifted) == len(objects), 'an object of the test cannot be lifted'
    return CameraView(lifted, camera, invert(pose))


def nothing_seen(pose: np.ndarray, camera: CameraModel | None = None) -> CameraView:
    """A camera that looked and found nothing."""
    return CameraView(Boxes3D.empty(STAMP, FRAME), camera or lens(), invert(pose))


@pytest.fixture(scope='session')
def rig() -> SimpleNamespace:
    """The builders of this file."""
    return SimpleNamespace(
        STAMP=STAMP, FRAME=FRAME, SIZES=SIZES, lens=lens, camera2base=camera2base, boxes=boxes,
        rectangles=rectangles, seen_by=seen_by, nothing_seen=nothing_seen,
    )  # fmt: skip
