"""Detections that other programs printed: reference input for messages, fusion and comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from airside_perception.errors import BagError
from airside_perception.geometry import wrap_angle
from airside_perception.types import HEIGHT, YAW, Boxes3D, Float64, Z

NVIDIA_CLASSES = ('car', 'pedestrian', 'cyclist')
ZHULF_CLASSES = ('pedestrian', 'cyclist', 'car')


def read_nvidia(path: str | Path, stamp_ns: int, frame_id: str = 'lidar') -> Boxes3D:
    """Detections of NVIDIA's CUDA-PointPillars.

    Columns: x y z of the centre, length width height, yaw, class, score; frame of the lidar.

    Raises:
        BagError: unreadable, or a row that is no detection.
    """
    rows = _read(path)
    boxes = rows[:, :7].copy()
    return _boxes(path, stamp_ns, frame_id, boxes, rows[:, 8], rows[:, 7], NVIDIA_CLASSES)


def read_zhulf(path: str | Path, stamp_ns: int, frame_id: str = 'lidar') -> Boxes3D:
    """Detections of zhulf's PointPillars.

    Columns: x y z of the bottom face, width length height, angle, score, class; lidar frame. The
    angle is KITTI's rotation_y, about the camera's downward axis: yaw = -angle - pi / 2.

    Raises:
        BagError: unreadable, or a row that is no detection.
    """
    rows = _read(path)
    boxes = rows[:, [0, 1, 2, 4, 3, 5, 6]]
    boxes[:, Z] += boxes[:, HEIGHT] / 2
    boxes[:, YAW] = -boxes[:, YAW] - np.pi / 2
    return _boxes(path, stamp_ns, frame_id, boxes, rows[:, 7], rows[:, 8], ZHULF_CLASSES)


def _read(path: str | Path) -> Float64:
    """Rows of nine numbers, float64 [N, 9]."""
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise BagError(f'{path}: not readable as recorded detections: {error}') from error
    for number, row in enumerate(rows, 1):
        if len(row) != 9 or not np.isfinite(row).all():
            raise BagError(f'{path}: detection {number} is {row}; expected nine numbers')
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def _boxes(
    path: str | Path,
    stamp_ns: int,
    frame_id: str,
    boxes: Float64,
    scores: Float64,
    labels: Float64,
    classes: tuple[str, ...],
) -> Boxes3D:
    wrong = [label for label in labels.tolist() if label not in range(len(classes))]
    if wrong:
        raise BagError(f'{path}: class {wrong[0]:g} is not one of 0 .. {len(classes) - 1}')
    boxes[:, YAW] = wrap_angle(boxes[:, YAW])
    names = tuple(classes[int(label)] for label in labels)
    return Boxes3D(stamp_ns, frame_id, boxes, scores, names, np.zeros((len(boxes), 4, 4)))
