"""camera_detector over DDS: what it publishes, and what it does with what it cannot use."""

from __future__ import annotations

import array
import threading

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64
from vision_msgs.msg import Detection2DArray, Detection3DArray

from airside_perception import messages
from airside_perception.nodes import lifting
from airside_perception.nodes.camera_detector import CameraDetectorNode

NAME = '/camera_detector'
T0 = 1_700_000_000_000_000_000
MS = 1_000_000


class Camera:
    """An active camera_detector with publishers for its inputs and lists of its outputs."""

    def __init__(self, harness, sensors, networks, calibrated=True, **parameters):
        self.harness, self.sensors = harness, sensors
        self.node = harness.add(
            CameraDetectorNode, engine_path=str(networks / 'tiny_camera.onnx'), **parameters
        )
        self.flat = harness.listen(Detection2DArray, f'{NAME}/output/detections_2d')
        self.solid = harness.listen(Detection3DArray, f'{NAME}/output/detections')
        harness.activate(self.node)
        self.images = harness.publisher(Image, f'{NAME}/input/image', qos_profile_sensor_data)
        self.infos = harness.publisher(
            CameraInfo, f'{NAME}/input/camera_info', qos_profile_sensor_data
        )
        self.stamp = T0
        if calibrated:
            sensors.camera_mount()
            self.calibrate(sensors.info())
            self.see()

    def calibrate(self, info):
        self.infos.publish(info)
        self.harness.until(lambda: self.node.calibration._newest == info, 'the calibration')

    def see(self, image=None, **keys):
        """Publishes an image and waits for its 3D detections."""
        self.stamp += 100 * MS
        before = len(self.solid)
        self.images.publish(image or self.sensors.image(stamp=self.stamp, **keys))
        self.harness.until(lambda: len(self.solid) > before, '3D detections')
        return self.flat[-1], self.solid[-1]

    def flat_ones(self, count):
        """Waits for that many 2D messages: diagnostics may come before them."""
        self.harness.until(lambda: len(self.flat) >= count, f'{count} 2D detections')
        assert len(self.flat) == count

    def refuse(self, publisher, message, said):
        """Publishes what must be dropped, and returns once diagnostics say so."""
        dropped = self.node.diagnostics.dropped_error
        self.harness.forget_diagnostics()
        publisher.publish(message)
        status, values = self.harness.diagnosis(
            self.node, lambda status, values: said in status.message, fresh=False
        )
        assert int(values['dropped/error']) == dropped + 1
        return status, values


@pytest.fixture
def camera(harness, sensors, networks):
    return Camera(harness, sensors, networks)


def test_detections_keep_stamp_and_frames(camera):
    flat, solid = camera.see(brightness=255)
    assert (
        messages.stamp_ns(flat.header.stamp)
        == messages.stamp_ns(solid.header.stamp)
        == camera.stamp
    )
    assert (flat.header.frame_id, solid.header.frame_id) == ('optical', 'base_link')
    assert len(flat.detections) == 6  # every cell of 32 x 32 pixels of a white image
    centers = [
        (item.bbox.center.position.x, item.bbox.center.position.y) for item in flat.detections
    ]
    assert sorted(centers) == [(x, y) for x in (16.0, 48.0, 80.0) for y in (16.0, 48.0)]
    found = flat.detections[0]
    assert found.bbox.size_x == found.bbox.size_y == pytest.approx(32.0, abs=1e-4)
    assert found.results[0].hypothesis.class_id == 'car'
    assert found.results[0].hypothesis.score == pytest.approx(1.0, abs=1e-5)
    # The lower row ends 44 px below the principal point, the upper one 12 px, less the half pixel
    # from the edge of a pixel to its centre. With a focal length of 60 px and the camera 2 m up
    # and 1 m forward, the fronts of the cars in the middle stand at 1 + 2 * 60 / 43.5 m and
    # 1 + 2 * 60 / 11.5 m; their middles half a length (4 m) behind that.
    assert ahead(solid) == pytest.approx([1 + 120 / 43.5 + 2.0, 1 + 120 / 11.5 + 2.0], abs=1e-3)
    box = messages.boxes3d(solid)
    middle = np.flatnonzero(abs(box.boxes[:, 1]) < 0.5)
    assert (box.covariances[middle, 0, 0] > box.covariances[middle, 1, 1]).all()


def ahead(solid):
    """Where the boxes in the middle of the image stand, nearest first."""
    box = messages.boxes3d(solid)
    return sorted(box.boxes[abs(box.boxes[:, 1]) < 0.5, 0])


def test_a_rectified_image_is_lifted_with_the_rectified_camera(harness, sensors, networks):
    camera = Camera(harness, sensors, networks, calibrated=False, rectified=True)
    sensors.camera_mount()
    info = sensors.info(focal=60.0)
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    info.p = np.array([50.0, 0, 48, 0, 0, 50.0, 24, 0, 0, 0, 1, 0])
    info.r = np.eye(3).reshape(9)
    camera.calibrate(info)
    # as in the test above, with P for K and D: the rows end 39.5 and 7.5 px below its centre
    found = ahead(camera.see()[1])
    assert found == pytest.approx([1 + 100 / 39.5 + 2.0, 1 + 100 / 7.5 + 2.0], abs=0.02)
    info.p = np.zeros(12)
    camera.calibrate(info)
    camera.refuse(camera.images, sensors.image(), 'it describes no rectified image')


def test_a_topic_that_is_named_like_a_rectified_image_is_asked_about(
    harness, sensors, networks, capfd
):
    node = harness.add(CameraDetectorNode, engine_path=str(networks / 'tiny_camera.onnx'))
    for topic, rectified, asked in (
        ('/front/image_rect', False, True),
        ('/front/image_rect_color', False, True),
        ('/front/image_rect', True, False),
        ('/front/image_raw', False, False),
    ):
        assert harness.set(node, rectified=rectified).successful
        node.resolve_topic_name = lambda name, topic=topic: topic
        harness.activate(node)
        assert harness.change(node, 'deactivate')
        assert harness.change(node, 'cleanup')
        said = 'is named like a rectified image' in capfd.readouterr().err
        assert said == asked, topic


def test_nothing_seen_is_an_empty_array(camera):
    flat, solid = camera.see(brightness=0)
    assert len(flat.detections) == len(solid.detections) == 0
    assert messages.stamp_ns(solid.header.stamp) == camera.stamp


def test_a_threshold_counts_from_the_next_frame_on(camera, harness):
    assert len(camera.see(brightness=128)[0].detections) == 6
    assert harness.set(camera.node, score_thresholds__car=0.6).successful
    assert len(camera.see(brightness=128)[0].detections) == 0
    assert harness.set(camera.node, score_thresholds__car=0.4).successful
    assert len(camera.see(brightness=128)[0].detections) == 6


def test_without_calibration_2d_goes_on_and_3d_is_missed_aloud(harness, sensors, networks):
    camera = Camera(harness, sensors, networks, calibrated=False)
    sensors.camera_mount()
    status, _ = camera.refuse(
        camera.images, sensors.image(), 'no calibration yet on /camera_detector/input/camera_info'
    )
    assert status.level == b'\x01'
    camera.flat_ones(1)
    assert not camera.solid
    camera.calibrate(sensors.info(focal=0.0))
    camera.refuse(camera.images, sensors.image(), 'camera_info')
    camera.calibrate(sensors.info(width=1920))
    camera.refuse(
        camera.images, sensors.image(), 'image of 96 x 64 pixels, but camera_info is for 1920 x 64'
    )
    camera.calibrate(sensors.info(frame='other'))
    camera.refuse(camera.images, sensors.image(), "is for 'other'")
    camera.flat_ones(4)
    assert not camera.solid
    camera.calibrate(sensors.info())
    camera.see()


def test_without_transform_2d_goes_on_and_3d_is_missed_aloud(harness, sensors, networks, capfd):
    camera = Camera(harness, sensors, networks, calibrated=False)
    camera.calibrate(sensors.info())
    camera.refuse(
        camera.images, sensors.image(), 'no transform optical -> base_link (waited 50 ms)'
    )
    camera.flat_ones(1)
    assert not camera.solid
    for _ in range(5):
        camera.refuse(camera.images, sensors.image(), 'no transform')
    said = [line for line in capfd.readouterr().err.splitlines() if 'no transform' in line]
    assert 1 <= len(said) <= 7  # once a second, not once a frame
    assert '/camera_detector/input/image: dropped: 2D only' in said[0]
    sensors.camera_mount()
    camera.see()


def test_a_frame_that_is_no_optical_one_is_asked_about(harness, sensors, networks, monkeypatch):
    monkeypatch.setattr(lifting, 'LIMIT_S', 1.0)
    camera = Camera(harness, sensors, networks, calibrated=False)
    mount = np.eye(4)
    mount[:3, 3] = (1.0, 0.0, 2.0)  # x forward, as of the camera's body
    sensors.static('optical', mount)
    camera.calibrate(sensors.info())
    found = []

    def told():
        _, solid = camera.see(brightness=255)
        assert not solid.detections
        found[:] = harness.diagnosis(camera.node, lambda status, values: 'not_lifted_s' in values)
        return 'not_lifted_s' in found[0].message

    harness.until(told, 'the finding')
    status, values = found
    assert status.level == b'\x01'
    assert "is frame_id 'optical' an optical frame (z forward)?" in status.message
    assert values['not_lifted'] == '6'
    sensors.camera_mount()
    harness.until(lambda: camera.see(brightness=255)[1].detections, 'boxes on the ground')
    status, _ = harness.diagnosis(
        camera.node, lambda status, values: values['not_lifted_s'] == '0'
    )
    assert 'not_lifted_s' not in status.message


def broken(sensors, name):
    image = sensors.image()
    if name == 'unknown encoding':
        image.encoding = 'bayer_rggb12'
    elif name == 'wrong step':
        image.step = 10
    elif name == '0 x 0':
        image.width = image.height = 0
        image.data = array.array('B')
    elif name == 'truncated':
        image.data = image.data[:100]
    return image


def test_an_image_without_a_stamp_is_dropped_and_named(camera, sensors):
    flat = len(camera.flat)
    _, values = camera.refuse(camera.images, sensors.image(stamp=0), 'header.stamp is 0')
    assert values['last_error'].startswith('/camera_detector/input/image: ')
    assert len(camera.flat) == flat


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('unknown encoding', "'bayer_rggb12' is not one of"),
        ('wrong step', 'step is 10'),
        ('0 x 0', 'image of 0 x 0'),
        ('truncated', '100 bytes'),
    ],
)
def test_a_bad_image_is_dropped_and_named(camera, sensors, name, said):
    status, values = camera.refuse(camera.images, broken(sensors, name), said)
    assert status.level in (b'\x01', b'\x02')
    assert values['last_error'].startswith('/camera_detector/input/image: ')
    camera.see()


def test_compressed_images_and_a_truncated_one(harness, sensors, networks):
    node = harness.add(
        CameraDetectorNode, engine_path=str(networks / 'tiny_camera.onnx'), compressed=True
    )
    flat = harness.listen(Detection2DArray, f'{NAME}/output/detections_2d')
    harness.activate(node)
    images = harness.publisher(
        CompressedImage, f'{NAME}/input/image/compressed', qos_profile_sensor_data
    )
    jpeg = cv2.imencode('.jpg', np.full((64, 96, 3), 255, np.uint8))[1].tobytes()
    message = CompressedImage(format='jpeg', data=array.array('B', jpeg[: len(jpeg) // 2]))
    message.header.stamp.sec = T0 // 10**9
    images.publish(message)
    harness.diagnosis(
        node, lambda status, values: 'truncated JPEG' in values.get('last_error', '')
    )
    assert not flat
    message.data = array.array('B', jpeg)
    images.publish(message)
    harness.until(lambda: flat, 'detections')
    assert len(flat[0].detections) == 6


def test_the_newest_image_wins_while_the_network_runs(camera, harness):
    entered, free = threading.Event(), threading.Event()
    detect = camera.node.pipeline.detector.detect

    def slow(image):
        entered.set()
        assert free.wait(10.0)
        return detect(image)

    camera.node.pipeline.detector.detect = slow
    camera.flat.clear()
    stamps = [T0 + i * 1000 * MS for i in range(1, 6)]
    camera.images.publish(camera.sensors.image(stamp=stamps[0]))
    harness.until(entered.is_set, 'the first image to be taken')
    for stamp in stamps[1:]:
        received = camera.node.diagnostics._inputs['image'].arrivals
        before = len(received)
        camera.images.publish(camera.sensors.image(stamp=stamp))
        harness.until(lambda: len(received) > before, 'the image')  # noqa: B023  called at once
    # the executor answers while the worker is busy
    assert harness.set(camera.node, score_threshold=0.2).successful
    assert harness.state(camera.node) == 'active'
    free.set()
    harness.until(lambda: len(camera.flat) == 2, 'two results')
    assert [messages.stamp_ns(item.header.stamp) for item in camera.flat] == [
        stamps[0],
        stamps[-1],
    ]
    assert camera.node.diagnostics.dropped_overrun == 3


def test_an_error_in_the_network_does_not_end_the_node(camera, harness, capfd):
    detect = camera.node.pipeline.detector.detect

    def fail(image):
        raise ZeroDivisionError('a bug')

    camera.node.pipeline.detector.detect = fail
    camera.refuse(camera.images, camera.sensors.image(), 'ZeroDivisionError: a bug')
    assert 'Traceback' in capfd.readouterr().err
    camera.node.pipeline.detector.detect = detect
    camera.see()


def test_diagnostics_and_debug_topics_tell_times(camera, harness):
    times = {
        name: harness.listen(Float64, f'{NAME}/debug/{name}')
        for name in ('cyclic_time_ms', 'processing_time_ms', 'pipeline_latency_ms')
    }
    harness.until(
        lambda: harness.node.count_publishers(f'{NAME}/debug/cyclic_time_ms'), 'the debug topics'
    )
    now = harness.node.get_clock().now().nanoseconds

    def heard():
        camera.see(camera.sensors.image(stamp=now))
        return all(times.values())

    harness.until(heard, 'debug messages')
    assert times['processing_time_ms'][-1].data > 0
    assert 0 < times['pipeline_latency_ms'][-1].data < 60_000
    status, values = harness.diagnosis(
        camera.node, lambda status, values: 'processing_time_ms' in values
    )
    assert values['is_processing_time_ms_in_expected_range'] == 'True'
    assert values['consecutive_processing_delay_ms'] == '0'
    assert values['engine/device'] == 'cpu'
    assert float(values['input/image/age_ms']) >= 0
    assert harness.set(camera.node, expected_time_ms=1.0).successful
    detect = camera.node.pipeline.detector.detect

    def slow(image):
        threading.Event().wait(0.02)
        return detect(image)

    camera.node.pipeline.detector.detect = slow
    camera.see()
    status, values = harness.diagnosis(
        camera.node,
        lambda status, values: values.get('is_processing_time_ms_in_expected_range') == 'False',
    )
    assert status.level in (b'\x01', b'\x02')
    assert 'limit 1.0' in status.message
    status, _ = harness.diagnosis(camera.node, lambda status, values: status.level == b'\x03')
    assert 'limit 1000: nothing on /camera_detector/input/image' in status.message


def test_the_debug_image_is_made_only_while_somebody_looks(camera, harness):
    camera.see()
    pictures = harness.listen(Image, f'{NAME}/debug/image')
    harness.until(camera.node._picture.get_subscription_count, 'a spectator')
    camera.see(brightness=255)
    picture = harness.until(lambda: pictures, 'a picture')[0]
    drawn = np.frombuffer(picture.data, np.uint8).reshape(64, 96, 3)
    assert (drawn[32, 40] != 255).any()  # the border of two boxes
    assert (drawn[50, 45] == 255).all()


def test_stamps_that_jump_back_are_only_as_good_as_their_transforms(camera, harness, sensors):
    camera.see(camera.sensors.image(stamp=T0 - 3600 * 10**9))
    assert messages.stamp_ns(camera.solid[-1].header.stamp) == T0 - 3600 * 10**9


def test_nothing_is_heard_or_said_while_inactive(camera, harness):
    assert harness.change(camera.node, 'deactivate')
    harness.until(lambda: not camera.images.get_subscription_count(), 'the subscription to end')
    status, _ = harness.diagnosis(
        camera.node, lambda status, values: status.message == 'not active'
    )
    assert status.level == b'\x03'
    assert harness.change(camera.node, 'activate')
    harness.until(camera.images.get_subscription_count, 'the subscription')
    harness.until(camera.infos.get_subscription_count, 'the subscription')
    camera.calibrate(camera.sensors.info())
    camera.see()
