"""Incoming: ROS messages but clouds, read by their fields, to the types of the core."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from airside_perception.errors import MessageError, TransformError
from airside_perception.geometry import from_quaternion, transform, yaw_of
from airside_perception.messages.fields import data_bytes, header_stamp_ns, stamp_ns
from airside_perception.projection import CameraModel
from airside_perception.types import Boxes2D, Boxes3D, Float64, Image

CHANNELS = {
    'bgr8': 3, 'rgb8': 3, 'bgra8': 4, 'rgba8': 4, 'mono8': 1,
    'yuv422': 2, 'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2, 'nv12': 1, 'nv21': 1,
}  # fmt: skip
"""Bytes a pixel (of the first plane) of the image encodings that are read."""
PLANAR = ('nv12', 'nv21')
"""Those with half a plane of colours below."""

RECTIFIED = re.compile(r'[_/]rect(ified)?(_|/|$)')
"""In the name of a topic: what image_proc and drivers call rectified images."""

XYZ_YAW = np.array([0, 1, 2, 5])
"""Rows of a ROS pose covariance (x, y, z, roll, pitch, yaw) that `Boxes3D.covariances` holds."""


def image(message: Any) -> Image:
    """sensor_msgs/Image, rows without their padding (not copied where there is none).

    Raises:
        MessageError: unknown encoding, no pixels, a step too small for the width, too few bytes,
            or no stamp.
    """
    rows, columns, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in CHANNELS:
        raise MessageError(f'image encoding {encoding!r} is not one of {", ".join(CHANNELS)}')
    if rows == 0 or columns == 0:
        raise MessageError(f'image of {columns} x {rows} pixels')
    if encoding in PLANAR:
        rows += rows // 2
    channels = CHANNELS[encoding]
    if step < columns * channels:
        raise MessageError(
            f'image step is {step}, but {columns} {encoding} pixels take '
            f'{columns * channels} bytes'
        )
    data = data_bytes(message.data)
    if len(data) < step * (rows - 1) + columns * channels:
        raise MessageError(
            f'image has {len(data)} bytes, but {rows} rows of {step} bytes were announced'
        )
    pixels = np.lib.stride_tricks.as_strided(
        data, (rows, columns * channels), (step, 1), writeable=False
    )
    shape = (rows, columns) if channels == 1 else (rows, columns, channels)
    return Image(
        header_stamp_ns(message), message.header.frame_id, pixels.reshape(shape), encoding
    )


def compressed_image(message: Any) -> Image:
    """sensor_msgs/CompressedImage (JPEG, PNG, ...) as bgr8.

    Raises:
        MessageError: empty, truncated, not an image, or no stamp.
    """
    data = data_bytes(message.data)
    if len(data) == 0:
        raise MessageError(f'compressed image ({message.format!r}) is empty')
    raw = data.tobytes()
    if raw.startswith(b'\xff\xd8') and b'\xff\xd9' not in raw.rstrip(b'\x00')[-64:]:
        # libjpeg fills what is missing with grey and only warns: half a picture is not a picture.
        # Some cameras pad the data with zeros behind the end marker.
        raise MessageError(
            f'compressed image ({message.format!r}) is a truncated JPEG of {len(data)} bytes'
        )
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MessageError(
            f'compressed image ({message.format!r}) cannot be decoded: {error.err}'
        ) from error
    if pixels is None:
        raise MessageError(
            f'compressed image ({message.format!r}) of {len(data)} bytes cannot be decoded'
        )
    return Image(
        header_stamp_ns(message),
        message.header.frame_id,
        np.asarray(pixels, np.uint8),
        'bgr8',
    )


def camera_model(message: Any, rectified: bool = False) -> CameraModel:
    """sensor_msgs/CameraInfo: of the image as the lens makes it, or of the rectified one.

    Both have one camera_info, and its frame is the optical frame of the lens. K and D say where
    the lens shows a point; P[:3, :3] says where a point that R has turned is in the rectified
    image, which has no distortion. The fourth column of P is left out: it moves the origin from
    the first camera of a stereo pair to the second, and the frame is that of the camera itself.

    Raises:
        MessageError: an uncalibrated camera (K, or where it is rectified P, of zeros), or values
            that are no calibration.
    """
    if rectified:
        return _rectified(message)
    distortion, model = tuple(float(value) for value in message.d), message.distortion_model
    if not model and not any(distortion):  # many drivers leave it open for a perfect lens
        distortion, model = (), 'plumb_bob'
    return CameraModel(
        message.header.frame_id,
        int(message.width),
        int(message.height),
        np.array(message.k, dtype=np.float64).reshape(3, 3),
        distortion,
        model,
    )


def named_rectified(topic: str) -> bool:
    """Whether a topic is named like one of rectified images: image_rect, image_rect_color, ..."""
    return RECTIFIED.search(topic) is not None


def _rectified(message: Any) -> CameraModel:
    matrix = np.array(message.p, dtype=np.float64).reshape(3, 4)[:, :3]
    if matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0:
        raise MessageError(
            f'camera_info has P with fx = {matrix[0, 0]:g}, fy = {matrix[1, 1]:g}: it describes '
            'no rectified image'
        )
    return CameraModel(
        message.header.frame_id,
        int(message.width),
        int(message.height),
        matrix,
        rotation=np.array(message.r, dtype=np.float64).reshape(3, 3),
    )


def rigid_transform(message: Any) -> tuple[str, str, int, Float64]:
    """geometry_msgs/TransformStamped: parent frame, child frame, stamp in ns, child2parent [4, 4].

    Raises:
        TransformError: the quaternion is not a rotation, or the translation not finite.
    """
    parent, child = message.header.frame_id, message.child_frame_id
    move, turn = message.transform.translation, message.transform.rotation
    offset = np.array([move.x, move.y, move.z], dtype=np.float64)
    if not np.isfinite(offset).all():
        raise TransformError(f'{child!r} -> {parent!r}: translation {offset.tolist()}')
    try:
        rotation = from_quaternion(turn.x, turn.y, turn.z, turn.w)
    except TransformError as error:
        raise TransformError(f'{child!r} -> {parent!r}: {error}') from error
    return parent, child, stamp_ns(message.header.stamp), transform(rotation, offset)


def boxes3d(message: Any) -> Boxes3D:
    """vision_msgs/Detection3DArray; of several hypotheses the first, which is the best, counts.

    Raises:
        MessageError: no stamp, a detection without hypothesis, in another frame than the array, or
            with values that are not finite, not a rotation or not a box.
    """
    frame = message.header.frame_id
    boxes, scores, classes, covariances, ids = [], [], [], [], []
    for index, item in enumerate(message.detections):
        if not item.results:
            raise MessageError(f'detection {index} has no hypothesis')
        if item.header.frame_id not in ('', frame):
            raise MessageError(
                f'detection {index} is in frame {item.header.frame_id!r}, its array in {frame!r}'
            )
        best, center, size = item.results[0], item.bbox.center, item.bbox.size
        turn = center.orientation
        try:
            yaw = yaw_of(from_quaternion(turn.x, turn.y, turn.z, turn.w))
        except TransformError as error:
            raise MessageError(f'detection {index}: {error}') from error
        boxes.append(
            (center.position.x, center.position.y, center.position.z, size.x, size.y, size.z, yaw)
        )
        scores.append(best.hypothesis.score)
        classes.append(best.hypothesis.class_id)
        covariance = np.asarray(best.pose.covariance, dtype=np.float64).reshape(6, 6)
        covariances.append(covariance[np.ix_(XYZ_YAW, XYZ_YAW)])
        ids.append(item.id)
    _check_finite(boxes, scores, 7)
    return Boxes3D(
        header_stamp_ns(message), frame, np.array(boxes), np.array(scores), tuple(classes),
        np.array(covariances), tuple(ids),
    )  # fmt: skip


def boxes2d(message: Any) -> Boxes2D:
    """vision_msgs/Detection2DArray; of several hypotheses the first, which is the best, counts.

    Raises:
        MessageError: no stamp, a detection without hypothesis, or with values that are not a
            finite box.
    """
    boxes, scores, classes = [], [], []
    for index, item in enumerate(message.detections):
        if not item.results:
            raise MessageError(f'detection {index} has no hypothesis')
        center, best = item.bbox.center.position, item.results[0].hypothesis
        half_x, half_y = item.bbox.size_x / 2, item.bbox.size_y / 2
        boxes.append((center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y))
        scores.append(best.score)
        classes.append(best.class_id)
    _check_finite(boxes, scores, 4)
    return Boxes2D(
        header_stamp_ns(message),
        message.header.frame_id,
        np.array(boxes),
        np.array(scores),
        tuple(classes),
    )


def _check_finite(boxes: Sequence[Any], scores: list[float], columns: int) -> None:
    values = np.array(boxes, dtype=np.float64).reshape(-1, columns)
    for index, (box, score) in enumerate(zip(values, scores, strict=True)):
        sizes = box[3:6] if columns == 7 else box[2:] - box[:2]
        if not (np.isfinite(box).all() and (sizes >= 0).all() and 0.0 <= score <= 1.0):
            raise MessageError(f'detection {index} is no box: {box.tolist()}, score {score}')
