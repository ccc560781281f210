"""Folders of other data sets written as bags with this package's topics and frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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
from airside_perception.replay.truth import DETAILS_TOPIC, IMAGE_TRUTH_TOPIC, TRUTH_TOPIC
from airside_perception.types import Boxes2D, Float64

CAMERA = 'front'
IMAGE_TOPIC = f'/sensing/camera/{CAMERA}/image'
CAMERA_INFO_TOPIC = f'/sensing/camera/{CAMERA}/camera_info'
POINTS_TOPIC = '/sensing/lidar/points'

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
    transform by stamp, one for every frame. The ground truth says that only what is in the image
    is labelled, and where in it nobody labelled anything (see `truth`).

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
                labels = kitti.read_labels(frame)
                write(TRUTH_TOPIC, detections3d(labels.objects, types), stamp_ns)
                flat = detections2d(_in_image(labels), types)
                write(IMAGE_TRUTH_TOPIC.format(CAMERA), flat, stamp_ns)
                text = types('std_msgs/msg/String')(data=_details(labels))
                write(DETAILS_TOPIC, text, stamp_ns)
            progress(done, len(frames))
    return counts


def _in_image(labels: kitti.Labels) -> Boxes2D:
    """Every object by its first name; with score 0 by those that a detection may give it, too."""
    rows = [(row, name, name == own[0]) for row, own in enumerate(labels.names) for name in own]
    return replace(
        labels.in_image.select([row for row, _, _ in rows]),
        scores=np.array([asked for _, _, asked in rows], np.float64),
        classes=tuple(name for _, name, _ in rows),
    )


def _details(labels: kitti.Labels) -> str:
    """The JSON of `truth`."""
    boxes = labels.objects.boxes.tolist()
    objects = [
        {'class': name, 'box': box, 'asked': name == own[0]}
        for own, box in zip(labels.names, boxes, strict=True)
        for name in own
    ]
    labelled = {'camera': CAMERA, 'ignored': labels.ignored.tolist()}
    return json.dumps(
        {'stamp_ns': labels.objects.stamp_ns, 'objects': objects, 'labelled': labelled}
    )
