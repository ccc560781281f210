"""Fused objects as markers for RViz."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from airside_perception.messages import header
from airside_perception.nodes.base import message_type
from airside_perception.types import HEIGHT, LENGTH, WIDTH, YAW, Boxes3D

COLORS = {'lidar+camera': (0.25, 0.85, 0.35), 'lidar': (0.3, 0.65, 1.0), 'camera': (1.0, 0.6, 0.2)}
"""RGB of a box by its evidence, which is also its namespace."""

SIGMAS = 2.0
"""Half axes of the ellipses, in standard deviations."""

LONGEST = 60.0
"""Ellipses end here, in metres: beyond about 30 m one camera knows a bearing more than a place."""


def markers(boxes: Boxes3D, lifetime_ms: float) -> MarkerArray:
    """Boxes, labels and covariance ellipses; the first marker deletes those of the message before.

    Namespaces `lidar+camera`, `lidar` and `camera` hold the boxes by their evidence, `label` the
    class, score and sources, `covariance` ellipses of two standard deviations of the position.
    Ids follow the order of the boxes, best first.
    """
    lifetime = Duration(nanoseconds=round(lifetime_ms * 1e6)).to_msg()
    found = [
        Marker(
            header=header(boxes.stamp_ns, boxes.frame_id, message_type), action=Marker.DELETEALL
        )
    ]

    def add(
        namespace: str, number: int, kind: int, pose: Pose, scale: Vector3, color: ColorRGBA
    ) -> Marker:
        marker = Marker(
            header=header(boxes.stamp_ns, boxes.frame_id, message_type),
            ns=namespace, id=number, type=kind, action=Marker.ADD,
            pose=pose, scale=scale, color=color, lifetime=lifetime,
        )  # fmt: skip
        found.append(marker)
        return marker

    for number, row in enumerate(boxes.boxes.tolist()):
        x, y, z = row[:3]
        sources, score = boxes.sources[number], float(boxes.scores[number])
        name = evidence(sources)
        red, green, blue = COLORS[name]
        size = Vector3(x=row[LENGTH], y=row[WIDTH], z=row[HEIGHT])
        # weak objects are fainter, but never invisible
        add(
            name,
            number,
            Marker.CUBE,
            _pose(x, y, z, row[YAW]),
            size,
            _color(red, green, blue, 0.25 + 0.5 * score),
        )
        text = add(
            'label', number, Marker.TEXT_VIEW_FACING, _pose(x, y, z + row[HEIGHT] / 2 + 0.6, 0.0),
            Vector3(x=0.0, y=0.0, z=0.8), _color(1.0, 1.0, 1.0, 1.0),
        )  # fmt: skip
        text.text = f'{boxes.classes[number]} {score:.2f}\n{"+".join(sources)}'
        long, short, angle = _ellipse(boxes.covariances[number, :2, :2])
        flat = Vector3(x=long, y=short, z=0.05)
        ground = z - row[HEIGHT] / 2
        add(
            'covariance',
            number,
            Marker.CYLINDER,
            _pose(x, y, ground, angle),
            flat,
            _color(red, green, blue, 0.2),
        )
    return MarkerArray(markers=found)


def evidence(sources: Sequence[str]) -> str:
    """What kinds of sensors speak for an object: `lidar+camera`, `lidar` or `camera`."""
    if 'lidar' not in sources:
        return 'camera'
    return 'lidar+camera' if len(sources) > 1 else 'lidar'


def _ellipse(covariance: np.ndarray) -> tuple[float, float, float]:
    """Full axes in metres and the direction of the longer one."""
    variances, axes = np.linalg.eigh(covariance)
    short, long = np.minimum(2 * SIGMAS * np.sqrt(np.maximum(variances, 0.0)), LONGEST)
    return float(long), float(short), float(np.arctan2(axes[1, 1], axes[0, 1]))


def _pose(x: float, y: float, z: float, yaw: float) -> Pose:
    turn = Quaternion(x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2)))
    return Pose(position=Point(x=x, y=y, z=z), orientation=turn)


def _color(red: float, green: float, blue: float, alpha: float) -> ColorRGBA:
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)
