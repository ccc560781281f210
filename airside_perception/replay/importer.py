"""Folders of other data sets written as bags with this package's topics and frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from airside_perception.messages import (
    camera_info_message,
    detections2d,
    detections3d,
    image_message,
    point_cloud_message,
    transform_message,
)
from airside_perception.projection import CameraModel
from airside_perception.replay import kitti
from airside_perception.replay.bag import BagWriter
from airside_perception.types import Float64

IMAGE_TOPIC = '/sensing/camera/front/image'
CAMERA_INFO_TOPIC = '/sensing/camera/front/camera_info'
POINTS_TOPIC = '/sensing/lidar/points'
OBJECTS_TOPIC = '/ground_truth/objects'
OBJECTS_2D_TOPIC = '/ground_truth/camera/front/objects'

TF_LEAD_NS = 1_000_000
"""Transforms are recorded 1 ms before the sensor data of their stamp: players send them first."""


def import_kitti(
    folder: str | Path,
    out: str | Path,
    storage: str = 'mcap',
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Writes a KITTI folder (see `kitti.read_folder`) as a bag.

    Where all frames share one calibration the place of the camera is static; otherwise it is a
    transform by stamp, one for every frame.

    Args:
        folder: to read.
        out: bag to make.
        storage: `mcap` or `sqlite3`.
        overwrite: whether a bag of that name is replaced.
        progress: called with the number of frames written and of all.

    Returns:
        Number of messages by topic.

    Raises:
        BagError: the folder or one of its files cannot be used, or the bag cannot be written.
    """
    frames = kitti.read_folder(folder)
    first = frames[0].calibration
    fixed = all(frame.calibration.same(first) for frame in frames)
    with BagWriter(out, storage, overwrite) as writer:
        types, counts = writer.types, dict[str, int]()

        def write(topic: str, message: Any, stamp_ns: int) -> None:
            writer.write(topic, message, stamp_ns)
            counts[topic] = counts.get(topic, 0) + 1

        def transforms(
            topic: str, edges: Iterable[tuple[str, str, Float64]], stamp_ns: int
        ) -> None:
            items = [transform_message(*edge[:2], stamp_ns, edge[2], types) for edge in edges]
            message = types('tf2_msgs/msg/TFMessage')(transforms=items)
            write(topic, message, stamp_ns - TF_LEAD_NS)

        mount = (kitti.BASE, kitti.CAMERA, first.camera2base)
        static = [
            (kitti.BASE, kitti.LIDAR, first.lidar2base),
            (kitti.CAMERA, kitti.OPTICAL, kitti.OPTICAL2CAMERA),
        ]
        transforms('/tf_static', [*static, mount] if fixed else static, frames[0].stamp_ns)
        for done, frame in enumerate(frames, 1):
            if not fixed:
                mount = (kitti.BASE, kitti.CAMERA, frame.calibration.camera2base)
                transforms('/tf', [mount], frame.stamp_ns)
            image = frame.read_image()
            height, width = image.data.shape[:2]
            camera = CameraModel(
                kitti.OPTICAL, width, height, frame.calibration.matrix, (0.0,) * 5, 'plumb_bob'
            )
            stamp_ns = frame.stamp_ns
            write(CAMERA_INFO_TOPIC, camera_info_message(camera, stamp_ns, types), stamp_ns)
            write(IMAGE_TOPIC, image_message(image, types), stamp_ns)
            write(POINTS_TOPIC, point_cloud_message(frame.read_cloud(), types), stamp_ns)
            if frame.labels is not None:
                solid, flat = kitti.read_labels(frame)
                write(OBJECTS_TOPIC, detections3d(solid, types), stamp_ns)
                write(OBJECTS_2D_TOPIC, detections2d(flat, types), stamp_ns)
            progress(done, len(frames))
    return counts
