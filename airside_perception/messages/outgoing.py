"""Outgoing: the types of the core to ROS messages of whichever classes `types` names."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import to_quaternion
from airside_perception.messages.fields import NANOSECONDS
from airside_perception.messages.incoming import PLANAR, XYZ_YAW
from airside_perception.projection import CameraModel
from airside_perception.types import (
    Boxes2D,
    Boxes3D,
    Float32,
    Float64,
    Image,
    PointCloud,
    by_score,
)

MessageTypes = Callable[[str], Any]
"""From a type name such as `std_msgs/msg/Header` to the message class of the caller."""


def time_message(stamp: int, types: MessageTypes) -> Any:
    """builtin_interfaces/Time of integer nanoseconds."""
    return types('builtin_interfaces/msg/Time')(
        sec=stamp // NANOSECONDS, nanosec=stamp % NANOSECONDS
    )


def header(stamp: int, frame_id: str, types: MessageTypes) -> Any:
    """std_msgs/Header."""
    return types('std_msgs/msg/Header')(stamp=time_message(stamp, types), frame_id=frame_id)


def transform_message(
    parent: str, child: str, stamp: int, child2parent: Float64, types: MessageTypes
) -> Any:
    """geometry_msgs/TransformStamped of a [4, 4]."""
    x, y, z = (float(value) for value in child2parent[:3, 3])
    return types('geometry_msgs/msg/TransformStamped')(
        header=header(stamp, parent, types),
        child_frame_id=child,
        transform=types('geometry_msgs/msg/Transform')(
            translation=types('geometry_msgs/msg/Vector3')(x=x, y=y, z=z),
            rotation=_quaternion(child2parent[:3, :3], types),
        ),
    )


def detections3d(boxes: Boxes3D, types: MessageTypes) -> Any:
    """vision_msgs/Detection3DArray, sorted by score; a hypothesis has the pose of its box."""
    hypothesis = types('vision_msgs/msg/ObjectHypothesis')
    hypothesis_with_pose = types('vision_msgs/msg/ObjectHypothesisWithPose')
    pose_with_covariance = types('geometry_msgs/msg/PoseWithCovariance')
    pose, point = types('geometry_msgs/msg/Pose'), types('geometry_msgs/msg/Point')
    vector, box_type = types('geometry_msgs/msg/Vector3'), types('vision_msgs/msg/BoundingBox3D')
    detection = types('vision_msgs/msg/Detection3D')
    covariances = np.zeros((len(boxes), 6, 6))
    covariances[:, XYZ_YAW[:, None], XYZ_YAW] = boxes.covariances
    flat = covariances.reshape(-1, 36)
    detections = []
    for row in by_score(boxes.scores):
        x, y, z, length, width, height, yaw = boxes.boxes[row].tolist()
        half = yaw / 2
        turn = types('geometry_msgs/msg/Quaternion')(
            x=0.0, y=0.0, z=float(np.sin(half)), w=float(np.cos(half))
        )
        center = pose(position=point(x=x, y=y, z=z), orientation=turn)
        detections.append(
            detection(
                header=header(boxes.stamp_ns, boxes.frame_id, types),
                results=[
                    hypothesis_with_pose(
                        hypothesis=hypothesis(
                            class_id=boxes.classes[row], score=float(boxes.scores[row])
                        ),
                        pose=pose_with_covariance(pose=center, covariance=flat[row]),
                    )
                ],
                bbox=box_type(center=center, size=vector(x=length, y=width, z=height)),
                id=boxes.ids[row],
            )
        )
    result = types('vision_msgs/msg/Detection3DArray')
    return result(header=header(boxes.stamp_ns, boxes.frame_id, types), detections=detections)


def velocities_message(boxes: Boxes3D, types: MessageTypes) -> Any:
    """sensor_msgs/PointCloud2 with a point x, y, z, vx, vy a box, in the order of `detections3d`.

    `vision_msgs` has no field for a velocity. What is not known is NaN; `is_dense` is false then.
    """
    rows = by_score(boxes.scores)
    points = np.concatenate([boxes.boxes[rows, :3], boxes.velocities[rows]], axis=1)
    names = ('x', 'y', 'z', 'vx', 'vy')
    at = header(boxes.stamp_ns, boxes.frame_id, types)
    return _cloud(at, points.astype(np.float32), names, bool(np.isfinite(points).all()), types)


def detections2d(boxes: Boxes2D, types: MessageTypes) -> Any:
    """vision_msgs/Detection2DArray, sorted by score; the pose of a hypothesis says nothing."""
    detections = []
    for row in by_score(boxes.scores):
        left, top, right, bottom = boxes.xyxy[row].tolist()
        position = types('vision_msgs/msg/Point2D')(x=(left + right) / 2, y=(top + bottom) / 2)
        detections.append(
            types('vision_msgs/msg/Detection2D')(
                header=header(boxes.stamp_ns, boxes.frame_id, types),
                results=[
                    types('vision_msgs/msg/ObjectHypothesisWithPose')(
                        hypothesis=types('vision_msgs/msg/ObjectHypothesis')(
                            class_id=boxes.classes[row], score=float(boxes.scores[row])
                        ),
                        pose=_no_pose(types),
                    )
                ],
                bbox=types('vision_msgs/msg/BoundingBox2D')(
                    center=types('vision_msgs/msg/Pose2D')(position=position, theta=0.0),
                    size_x=right - left,
                    size_y=bottom - top,
                ),
                id='',
            )
        )
    result = types('vision_msgs/msg/Detection2DArray')
    return result(header=header(boxes.stamp_ns, boxes.frame_id, types), detections=detections)


def _no_pose(types: MessageTypes) -> Any:
    pose = types('geometry_msgs/msg/Pose')(
        position=types('geometry_msgs/msg/Point')(x=0.0, y=0.0, z=0.0),
        orientation=types('geometry_msgs/msg/Quaternion')(x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return types('geometry_msgs/msg/PoseWithCovariance')(pose=pose, covariance=np.zeros(36))


def _quaternion(rotation: Float64, types: MessageTypes) -> Any:
    x, y, z, w = to_quaternion(rotation)
    return types('geometry_msgs/msg/Quaternion')(x=x, y=y, z=z, w=w)


def image_message(frame: Image, types: MessageTypes) -> Any:
    """sensor_msgs/Image of the pixels as they are."""
    rows, columns = frame.data.shape[:2]
    step = columns * (frame.data.shape[2] if frame.data.ndim == 3 else 1)
    return types('sensor_msgs/msg/Image')(
        header=header(frame.stamp_ns, frame.frame_id, types),
        height=rows * 2 // 3 if frame.encoding in PLANAR else rows,
        width=columns,
        encoding=frame.encoding,
        is_bigendian=0,
        step=step,
        data=_data(frame.data, types),
    )


def point_cloud_message(cloud: PointCloud, types: MessageTypes) -> Any:
    """sensor_msgs/PointCloud2: every column as FLOAT32, unorganised, without padding."""
    at = header(cloud.stamp_ns, cloud.frame_id, types)
    return _cloud(at, np.ascontiguousarray(cloud.points), cloud.fields, True, types)


def _cloud(
    at: Any, points: Float32, names: tuple[str, ...], dense: bool, types: MessageTypes
) -> Any:
    field = types('sensor_msgs/msg/PointField')
    step = 4 * len(names)
    return types('sensor_msgs/msg/PointCloud2')(
        header=at,
        height=1,
        width=len(points),
        fields=[field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(names)],
        is_bigendian=False,
        point_step=step,
        row_step=step * len(points),
        data=_data(points, types),
        is_dense=dense,
    )


def camera_info_message(camera: CameraModel, stamp: int, types: MessageTypes) -> Any:
    """sensor_msgs/CameraInfo; its rectified projection is the same camera, undistorted."""
    k = camera.matrix
    projection = np.zeros((3, 4))
    projection[:, :3] = k
    return types('sensor_msgs/msg/CameraInfo')(
        header=header(stamp, camera.frame_id, types),
        height=camera.height,
        width=camera.width,
        distortion_model=camera.model,
        d=_float64s(camera.distortion, types),
        k=np.asarray(k, dtype=np.float64).reshape(9),
        r=camera.rotation.reshape(9),
        p=projection.reshape(12),
        binning_x=0,
        binning_y=0,
        roi=types('sensor_msgs/msg/RegionOfInterest')(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def _data(values: NDArray[Any], types: MessageTypes) -> Any:
    """Bytes for a uint8[] field: array.array for rclpy (fast on every distro), else an ndarray."""
    raw = np.frombuffer(np.ascontiguousarray(values).tobytes(), dtype=np.uint8)
    if types('sensor_msgs/msg/Image').__module__.startswith('sensor_msgs'):
        return array.array('B', raw.tobytes())
    return raw


def _float64s(values: tuple[float, ...], types: MessageTypes) -> Any:
    if types('sensor_msgs/msg/Image').__module__.startswith('sensor_msgs'):
        return array.array('d', values)
    return np.array(values, dtype=np.float64)
