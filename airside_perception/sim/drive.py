"""Writes a simulated drive as a bag: sensors, /tf, /tf_static, /odometry, /clock, ground truth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.geometry import to_quaternion
from airside_perception.messages import (
    camera_info_message,
    detections2d,
    detections3d,
    image_message,
    point_cloud_message,
    transform_message,
)
from airside_perception.messages.outgoing import header, time_message
from airside_perception.replay.bag import BagWriter
from airside_perception.sim import processes as side_by_side
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.frames import RATE, START_NS, Frame, drive
from airside_perception.sim.rig import BASE, ODOM, Rig
from airside_perception.sim.scene import Scenario
from airside_perception.sim.truth import DETAILS
from airside_perception.types import Float64

__all__ = ['RATE', 'START_NS', 'Frame', 'drive', 'write_drive']

ODOMETRY = 5
"""Odometry messages, transforms and clock messages a frame."""
TF_LEAD_NS = 1_000_000
"""Transforms are recorded 1 ms before the sensor data of their stamp: players send them first."""


def write_drive(
    scenario: Scenario,
    rig: Rig,
    seconds: float,
    seed: int,
    out: Path,
    storage: str = 'mcap',
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
    conditions: Conditions | None = None,
    processes: int | None = 1,
) -> dict[str, int]:
    """Writes a drive as a bag.

    Args:
        scenario: the world; rig: the sensors.
        seconds: of the drive; seed: of the sensors' noise.
        out: folder to make; storage: mcap or sqlite3; overwrite: replace a bag of that name.
        progress: called with the number of frames done and of all.
        conditions: light and weather; None: a clear day.
        processes: see `processes.drive`, also for what more than 1 asks of the caller.

    Returns:
        Number of messages by topic.

    Raises:
        BagError: the bag cannot be written.
        PerceptionError: a process died.
    """
    with BagWriter(out, storage, overwrite) as writer:
        recorder = _Recorder(writer, rig, scenario)
        recorder.tf('/tf_static', rig.static_transforms(), START_NS)
        made = side_by_side.drive(scenario, rig, seconds, seed, conditions, processes)
        with closing(made):
            for number, frame in enumerate(made, 1):
                recorder.frame(frame)
                progress(number, round(seconds * RATE))
    return recorder.counts


class _Recorder:
    """Turns frames into messages."""

    def __init__(self, writer: BagWriter, rig: Rig, scenario: Scenario) -> None:
        self._writer, self._rig, self._scenario = writer, rig, scenario
        self._types = writer.types
        self.counts: dict[str, int] = {}

    def frame(self, frame: Frame) -> None:
        """All messages from one stamp up to the next."""
        types, stamp_ns = self._types, frame.stamp_ns
        self._moved(frame, 0)
        for name, image in frame.images.items():
            info = camera_info_message(self._rig.lenses[name].model, stamp_ns, types)
            self._write(f'/sensing/camera/{name}/camera_info', info, stamp_ns)
            self._write(f'/sensing/camera/{name}/image', image_message(image, types), stamp_ns)
            flat = detections2d(frame.objects2d[name], types)
            self._write(f'/ground_truth/camera/{name}/objects', flat, stamp_ns)
        cloud = point_cloud_message(frame.cloud, types)
        self._write('/sensing/lidar/points', cloud, stamp_ns)
        self._write('/ground_truth/objects', detections3d(frame.seen, types), stamp_ns)
        self._write('/ground_truth/small_objects', detections3d(frame.small, types), stamp_ns)
        text = types('std_msgs/msg/String')(data=frame.details)
        self._write(DETAILS, text, stamp_ns)
        for step in range(1, ODOMETRY):
            self._moved(frame, step)

    def tf(self, topic: str, edges: list[tuple[str, str, Float64]], stamp_ns: int) -> None:
        """Transforms (parent, child, child2parent)."""
        types = self._types
        items = [transform_message(up, down, stamp_ns, pose, types) for up, down, pose in edges]
        message = types('tf2_msgs/msg/TFMessage')(transforms=items)
        self._write(topic, message, stamp_ns - TF_LEAD_NS)

    def _moved(self, frame: Frame, step: int) -> None:
        """Clock, transform and odometry of one moment."""
        types = self._types
        later_ns = round(step * 1e9 / (RATE * ODOMETRY))
        stamp_ns = frame.stamp_ns + later_ns
        pose = self._scenario.pose((stamp_ns - START_NS) * 1e-9) if step else frame.base2odom
        clock = types('rosgraph_msgs/msg/Clock')(clock=time_message(stamp_ns, types))
        self._write('/clock', clock, stamp_ns - TF_LEAD_NS)
        self.tf('/tf', [(ODOM, BASE, pose)], stamp_ns)
        self._write(
            '/odometry', self._odometry(pose, frame.twist, stamp_ns), stamp_ns - TF_LEAD_NS
        )

    def _odometry(self, pose: Float64, twist: tuple[float, float], stamp_ns: int) -> Any:
        """nav_msgs/Odometry: exact, as the simulator knows it."""
        types = self._types
        vector = types('geometry_msgs/msg/Vector3')
        x, y, z, w = to_quaternion(pose[:3, :3])
        px, py, pz = (float(value) for value in pose[:3, 3])
        here = types('geometry_msgs/msg/Pose')(
            position=types('geometry_msgs/msg/Point')(x=px, y=py, z=pz),
            orientation=types('geometry_msgs/msg/Quaternion')(x=x, y=y, z=z, w=w),
        )
        speed = types('geometry_msgs/msg/Twist')(
            linear=vector(x=float(twist[0]), y=0.0, z=0.0),
            angular=vector(x=0.0, y=0.0, z=float(twist[1])),
        )
        return types('nav_msgs/msg/Odometry')(
            header=header(stamp_ns, ODOM, types),
            child_frame_id=BASE,
            pose=types('geometry_msgs/msg/PoseWithCovariance')(pose=here, covariance=np.zeros(36)),
            twist=types('geometry_msgs/msg/TwistWithCovariance')(
                twist=speed, covariance=np.zeros(36)
            ),
        )

    def _write(self, topic: str, message: Any, log_ns: int) -> None:
        self._writer.write(topic, message, log_ns)
        self.counts[topic] = self.counts.get(topic, 0) + 1
