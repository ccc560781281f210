"""Recorded detections of other programs: parsed right, and messages leave them unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from airside_perception import messages
from airside_perception.errors import BagError
from airside_perception.geometry import move_boxes, wrap_angle
from airside_perception.replay import kitti
from airside_perception.replay.definitions import make_typestore, message_class
from airside_perception.replay.recorded import read_nvidia, read_zhulf
from airside_perception.types import Boxes3D, by_score

TYPE = 'vision_msgs/msg/Detection3DArray'


def through_bytes(boxes: Boxes3D) -> Boxes3D:
    """To a message, to CDR, and back."""
    store = make_typestore()
    message = messages.detections3d(boxes, lambda name: message_class(store, name))
    data = bytes(store.serialize_cdr(message, TYPE))
    return messages.boxes3d(store.deserialize_cdr(data, TYPE))


def assert_unchanged(before: Boxes3D, after: Boxes3D) -> None:
    before = before.select(by_score(before.scores))
    assert after.classes == before.classes
    assert (after.stamp_ns, after.frame_id) == (before.stamp_ns, before.frame_id)
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.boxes[:, :6], before.boxes[:, :6])
    np.testing.assert_allclose(wrap_angle(after.boxes[:, 6] - before.boxes[:, 6]), 0.0, atol=1e-12)


def test_columns_of_nvidia(tmp_path: Path) -> None:
    file = tmp_path / 'a.txt'
    file.write_text('10 2 -0.7 3.9 1.6 1.5 3.5 0 0.5\n5 1 -0.6 0.8 0.6 1.7 0.1 1 0.25 \n')
    boxes = read_nvidia(file, 7)
    assert boxes.classes == ('car', 'pedestrian')
    assert (boxes.stamp_ns, boxes.frame_id) == (7, 'lidar')
    np.testing.assert_allclose(boxes.scores, [0.5, 0.25])
    np.testing.assert_allclose(boxes.boxes[0], [10, 2, -0.7, 3.9, 1.6, 1.5, 3.5 - 2 * np.pi])


def test_columns_of_zhulf(tmp_path: Path) -> None:
    file = tmp_path / 'a.txt'
    file.write_text('10 2 -1.7 1.6 3.9 1.5 -1.5707963 0.5 2.0000\n')
    boxes = read_zhulf(file, 7)
    assert boxes.classes == ('car',)
    np.testing.assert_allclose(boxes.boxes[0], [10, 2, -0.95, 3.9, 1.6, 1.5, 0.0], atol=1e-6)


def test_no_detections_are_no_error(tmp_path: Path) -> None:
    (tmp_path / 'a.txt').write_text('\n')
    assert len(read_nvidia(tmp_path / 'a.txt', 1)) == 0


@pytest.mark.parametrize('read', [read_nvidia, read_zhulf])
@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('1 2 3', 'detection 1 is'),
        ('1 2 3 4 5 6 7 nan 0', 'expected nine numbers'),
        ('1 2 3 4 5 6 7 8 x', 'not readable'),
        ('1 2 3 4 5 6 7 9 9', 'class 9 is not one of 0 .. 2'),
        (None, 'not readable'),
    ],
)
def test_what_is_no_detection_is_named(
    tmp_path: Path, read: Callable[[Path, int], Boxes3D], text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / 'a.txt').write_text(text)
    with pytest.raises(BagError, match=problem):
        read(tmp_path / 'a.txt', 1)


def test_vision_msgs_of_humble_and_jazzy_are_the_same_bytes() -> None:
    """The parts of a detection are packed alike: a bag of one reads in the other."""
    humble, jazzy = get_typestore(Stores.ROS2_HUMBLE), make_typestore()
    for name in ('std_msgs/msg/Header', 'geometry_msgs/msg/PoseWithCovariance'):
        assert humble.fielddefs[name][1] == jazzy.fielddefs[name][1]


@pytest.mark.parametrize('name', ['000001', '000002', '000004', '000005', '000006', '000008'])
def test_nvidias_detections_pass_through_messages_unchanged(shared_data: Path, name: str) -> None:
    file = shared_data / 'reference/nvidia_pointpillars/pred_velo' / f'{name}.txt'
    boxes = read_nvidia(file, 1_317_000_000_123_456_789)
    assert len(boxes) == len(file.read_text().split('\n')) - 1
    assert_unchanged(boxes, through_bytes(boxes))


@pytest.mark.parametrize('name', ['pytorch', 'onnx', 'trt', 'trt-fp16'])
def test_zhulfs_detections_pass_through_messages_unchanged(shared_data: Path, name: str) -> None:
    boxes = read_zhulf(shared_data / 'reference/zhulf_000134' / f'{name}.txt', 5)
    assert len(boxes) >= 15
    assert_unchanged(boxes, through_bytes(boxes))


def test_nvidias_cars_are_where_the_labels_are(shared_data: Path) -> None:
    """Conventions of both readers agree: every labelled car has a detection on it."""
    found = total = 0
    for frame in kitti.read_folder(shared_data / 'labelled'):
        labels = kitti.read_labels(frame).objects
        path = shared_data / 'reference/nvidia_pointpillars/pred_velo' / f'{frame.name}.txt'
        boxes = move_boxes(
            read_nvidia(path, frame.stamp_ns), frame.calibration.lidar2base, 'base_link'
        )
        for row in range(len(labels)):
            if labels.classes[row] != 'car' or np.hypot(*labels.boxes[row, :2]) > 40:
                continue
            total += 1
            apart = np.linalg.norm(boxes.boxes[:, :3] - labels.boxes[row, :3], axis=1)
            near = int(np.argmin(apart))
            turn = wrap_angle(2 * (boxes.boxes[near, 6] - labels.boxes[row, 6])) / 2
            size = np.abs(boxes.boxes[near, 3:6] - labels.boxes[row, 3:6])
            found += bool(apart[near] < 0.5 and abs(turn) < 0.15 and size.max() < 0.6)
    assert (found, total) == (9, 9)


def test_zhulfs_car_is_where_its_label_is(shared_data: Path) -> None:
    """Frame 134: the label gives the car at 12.65 m with rotation_y -1.57, so it looks ahead."""
    boxes = read_zhulf(shared_data / 'reference/zhulf_000134/pytorch.txt', 0)
    car = boxes.boxes[boxes.classes.index('car')]
    np.testing.assert_allclose(car[3:], [3.69, 1.78, 1.50, 0.0], atol=0.25)


@pytest.mark.ros
def test_detections_pass_through_messages_of_ros_unchanged(shared_data: Path) -> None:
    """The same with the classes and the serialiser of rclpy, and from one to the other."""
    serialization = pytest.importorskip('rclpy.serialization', reason='ROS 2 is not sourced')
    kind = pytest.importorskip('vision_msgs.msg').Detection3DArray
    from airside_perception.nodes.base import message_type

    boxes = read_nvidia(shared_data / 'reference/nvidia_pointpillars/pred_velo/000008.txt', 5)
    message = messages.detections3d(boxes, message_type)
    data = serialization.serialize_message(message)
    assert_unchanged(boxes, messages.boxes3d(serialization.deserialize_message(data, kind)))
    assert_unchanged(boxes, messages.boxes3d(make_typestore().deserialize_cdr(data, TYPE)))
    store = make_typestore()
    ours = messages.detections3d(boxes, lambda name: message_class(store, name))
    data = bytes(store.serialize_cdr(ours, TYPE))
    assert_unchanged(boxes, messages.boxes3d(serialization.deserialize_message(data, kind)))
