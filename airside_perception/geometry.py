"""Rigid transforms and boxes. A transform `a2b` is float64 [4, 4] and maps points of a into b."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from airside_perception.errors import TransformError
from airside_perception.types import YAW, Boxes3D, Float32, Float64, Int64, PointCloud

BLOCK = 8192
"""Points moved at a time: so many stay in the cache, and no large memory is asked for between."""


def transform(rotation: Float64, translation: Float64) -> Float64:
    """A [4, 4] from a rotation [3, 3] and a translation [3] in metres."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def from_quaternion(x: float, y: float, z: float, w: float) -> Float64:
    """Rotation [3, 3] of a quaternion in ROS order (x, y, z, w), normalised first.

    Raises:
        TransformError: the norm is zero or not finite.
    """
    norm = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not np.isfinite(norm) or norm < 1e-6:
        raise TransformError(f'quaternion ({x}, {y}, {z}, {w}) is not a rotation')
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def to_quaternion(rotation: Float64) -> tuple[float, float, float, float]:
    """Quaternion (x, y, z, w), w >= 0, of a rotation [3, 3].

    Shepperd's method: divides by the largest term.
    """
    m = np.asarray(rotation, dtype=np.float64)
    diagonal = np.array([m[0, 0], m[1, 1], m[2, 2], np.trace(m)])
    choice = int(np.argmax(diagonal))
    if choice == 3:
        q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + diagonal[3]])
    else:
        i, j, k = choice, (choice + 1) % 3, (choice + 2) % 3
        q = np.empty(4)
        q[i] = 1 + 2 * m[i, i] - diagonal[3]
        q[j] = m[j, i] + m[i, j]
        q[k] = m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q *= np.sign(q[3]) / np.linalg.norm(q) if q[3] else 1 / np.linalg.norm(q)
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def rotation_z(yaw: float) -> Float64:
    """Rotation [3, 3] about z by `yaw` radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def yaw_of(rotation: Float64) -> float:
    """Heading of the x axis of a rotation [3, 3] in the xy plane, radians."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def invert(a2b: Float64) -> Float64:
    """`b2a` of a rigid transform."""
    rotation = a2b[:3, :3].T
    return transform(rotation, -rotation @ a2b[:3, 3])


def apply(a2b: Float64, points: Float64) -> Float64:
    """Points [N, 3] of frame a, in frame b."""
    return np.asarray(points, dtype=np.float64) @ a2b[:3, :3].T + a2b[:3, 3]


def wrap_angle(angle: Float64) -> Float64:
    """Angles brought into [-pi, pi)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def move_boxes(
    boxes: Boxes3D, a2b: Float64, frame_id: str, stamp_ns: int | None = None
) -> Boxes3D:
    """Boxes of frame a in frame b: centres, yaw, covariances and velocities turn; sizes stay.

    Yaw and velocity turn by the heading of the rotation: boxes stay upright, and as fast as they
    are, in a rolled or pitched frame.
    """
    moved = boxes.boxes.copy()
    moved[:, :3] = apply(a2b, boxes.boxes[:, :3])
    turn = yaw_of(a2b[:3, :3])
    moved[:, YAW] = wrap_angle(boxes.boxes[:, YAW] + turn)
    jacobian = np.eye(4)
    jacobian[:3, :3] = a2b[:3, :3]
    return replace(
        boxes,
        boxes=moved,
        covariances=jacobian @ boxes.covariances @ jacobian.T,
        velocities=boxes.velocities @ rotation_z(turn)[:2, :2].T,
        frame_id=frame_id,
        stamp_ns=boxes.stamp_ns if stamp_ns is None else stamp_ns,
    )


def move_cloud(cloud: PointCloud, a2b: Float64, frame_id: str) -> PointCloud:
    """A cloud of frame a in frame b; columns beyond x, y, z stay. Computed in float32."""
    points = np.empty(cloud.points.shape, np.float32)
    matrix = a2b.astype(np.float32)
    for start in range(0, len(points), BLOCK):
        block = cloud.points[start : start + BLOCK]
        moved = points[start : start + BLOCK]
        x, y, z = (np.ascontiguousarray(block[:, axis]) for axis in range(3))
        for axis, (along_x, along_y, along_z, shift) in enumerate(matrix[:3]):
            moved[:, axis] = x * along_x + y * along_y + z * along_z + shift
        moved[:, 3:] = block[:, 3:]
    return replace(cloud, points=points, frame_id=frame_id)


def points_inside(points: Float32, boxes: Float64) -> Int64:
    """How many of the points [M, 3 or more] lie in each box [N, 7] of one frame, int64 [N]."""
    counts = []
    for box in boxes:
        local = np.abs((points[:, :3] - box[:3]) @ rotation_z(box[6]))
        counts.append(int((local <= box[3:6] / 2).all(axis=1).sum()))
    return np.array(counts, np.int64)


def bev_corners(boxes: Float64) -> Float64:
    """Footprints [N, 4, 2] of boxes [N, 7], counter-clockwise.

    Front left, rear left, rear right, front right.
    """
    signs = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = signs * boxes[:, None, 3:5]
    c, s = np.cos(boxes[:, YAW])[:, None], np.sin(boxes[:, YAW])[:, None]
    x = boxes[:, 0, None] + local[..., 0] * c - local[..., 1] * s
    y = boxes[:, 1, None] + local[..., 0] * s + local[..., 1] * c
    return np.stack([x, y], axis=-1)


def corners(boxes: Float64) -> Float64:
    """Corners [N, 8, 3] of boxes [N, 7]: `bev_corners` at the bottom, then at the top."""
    footprint = bev_corners(boxes)
    found = np.empty((len(boxes), 8, 3))
    found[:, :4, :2] = found[:, 4:, :2] = footprint
    found[:, :4, 2] = (boxes[:, 2] - boxes[:, 5] / 2)[:, None]
    found[:, 4:, 2] = (boxes[:, 2] + boxes[:, 5] / 2)[:, None]
    return found
