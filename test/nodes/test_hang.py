"""A network, or a fusion, that never answers: the node lives, and its diagnostics say so."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle.publisher import LifecyclePublisher
from sensor_msgs.msg import Image, PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import messages
from airside_perception.nodes import diagnostics
from airside_perception.nodes.base import message_type
from airside_perception.nodes.bev_fusion import BevFusionNode
from airside_perception.nodes.camera_detector import CameraDetectorNode
from airside_perception.nodes.lidar_detector import LidarDetectorNode
from airside_perception.types import Boxes3D


class Hanging:
    """An active node, its topics, and a step in its work that can be made to wait."""

    def __init__(self, harness, kind):
        self.harness, self.kind = harness, kind
        self.entered, self.free = threading.Event(), threading.Event()
        self.free.set()

    def start(self, sensors, networks):
        add = self.harness.add
        if self.kind == 'lidar':
            path = str(networks / 'tiny_lidar.onnx')
            self.node = add(LidarDetectorNode, engine_path=path, target_frame='')
            self.topic, self.type, self.message = 'points', PointCloud2, sensors.cloud()
        elif self.kind == 'camera':
            self.node = add(CameraDetectorNode, engine_path=str(networks / 'tiny_camera.onnx'))
            self.topic, self.type, self.message = 'image', Image, sensors.image()
        else:
            self.node = add(BevFusionNode, cameras=[''], fixed_frame='base_link')
            none = Boxes3D(0, 'base_link', np.zeros((0, 7)), np.zeros(0), (), np.zeros((0, 4, 4)))
            self.message = messages.detections3d(none, message_type)
            self.topic, self.type = 'lidar/detections', Detection3DArray
        self.harness.activate(self.node)
        self.outputs = {
            name: item
            for name, item in vars(self.node).items()
            if isinstance(item, LifecyclePublisher)
        }
        owner, name = (
            (self.node._pipeline, 'fuse')
            if self.kind == 'fusion'
            else (self.node.pipeline.detector, 'detect')
        )
        step = getattr(owner, name)

        def slow(*arguments):
            self.entered.set()
            assert self.free.wait(30.0)
            return step(*arguments)

        setattr(owner, name, slow)
        topic = f'{self.node.get_fully_qualified_name()}/input/{self.topic}'
        self.publisher = self.harness.node.create_publisher(self.type, topic, 10)
        self.stamp = 0
        self.harness.node.create_timer(0.05, self.send)
        self.harness.until(lambda: self.node.diagnostics.processed_count, 'the first result')
        return self.node

    def send(self):
        self.stamp += 100_000_000
        self.message.header.stamp = messages.time_message(self.stamp, message_type)
        self.publisher.publish(self.message)

    def hang(self):
        self.free.clear()
        self.entered.clear()
        self.harness.until(self.entered.is_set, 'the message that hangs')


@pytest.fixture(params=['lidar', 'camera', 'fusion'])
def hanging(harness, request):
    made = Hanging(harness, request.param)
    yield made
    made.free.set()  # or closing the node would wait for it


def test_a_message_that_hangs_in_work_is_an_error_until_it_ends(
    hanging, harness, sensors, networks, monkeypatch
):
    monkeypatch.setattr(diagnostics, 'HANG_LEAST_MS', 300.0)
    node = hanging.start(sensors, networks)
    assert harness.set(node, expected_time_ms=40.0, tf_timeout_ms=0.0).successful
    hanging.hang()
    status, values = harness.diagnosis(node, lambda status, _: 'in_work_ms' in status.message)
    assert status.level == DiagnosticStatus.ERROR
    assert float(values['in_work_ms']) > 400.0
    assert ', limit 400: a message is still in work, nothing comes out' in status.message
    assert values['is_processing_time_ms_in_expected_range'] == 'False'
    assert harness.state(node) == 'active'
    hanging.free.set()
    status, _ = harness.diagnosis(
        node,
        lambda status, values: 'in_work_ms' not in status.message and values['in_work_ms'] == '0',
    )


def test_a_worker_that_most_messages_overrun_is_a_warning(
    hanging, harness, sensors, networks, monkeypatch
):
    monkeypatch.setattr(diagnostics, 'OVERRUN_WINDOW_S', 0.5)
    monkeypatch.setattr(diagnostics, 'OVERRUN_LEAST', 2)
    node = hanging.start(sensors, networks)
    hanging.hang()
    status, values = harness.diagnosis(
        node, lambda status, _: 'dropped/overrun_pct' in status.message
    )
    assert status.level >= DiagnosticStatus.WARN
    assert float(values['dropped/overrun_pct']) > 50.0
    assert 'limit 50' in status.message


def test_a_node_that_hangs_is_taken_out_of_service_with_one_wait(
    hanging, harness, sensors, networks
):
    node = hanging.start(sensors, networks)
    outputs = hanging.outputs
    assert outputs
    assert all(item.is_activated for item in outputs.values())
    hanging.hang()
    waits, thread = [], node._worker._thread
    join = thread.join

    def short(timeout):
        waits.append([item.is_activated for item in outputs.values()])
        join(0.05)

    thread.join = short
    assert not harness.change(node, 'deactivate')
    assert harness.state(node) == 'unconfigured'
    # the fusion, with nothing to open, refuses only with the second transition
    assert not (harness.change(node, 'configure') and harness.change(node, 'activate'))
    assert waits == [[False] * len(outputs)]  # nothing may be published while it waits
    assert not any(item.is_activated for item in outputs.values())
    harness.diagnosis(
        node, lambda status, _: 'a frame from before is still in work' in status.message
    )
    hanging.free.set()
    join(30.0)
    processed = node.diagnostics.processed_count
    if hanging.kind != 'fusion':
        assert harness.change(node, 'configure')
    assert harness.change(node, 'activate')
    harness.until(lambda: node.diagnostics.processed_count > processed, 'results again')
