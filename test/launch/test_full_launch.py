"""The launched graph: to active in order, through the death of a node, and to a clean end."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from lifecycle_msgs.srv import GetState
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

NODES = ('lidar_detector', 'camera_front', 'camera_rear', 'bev_fusion')
WARN, ERROR = b'\x01', b'\x02'


class Drive:
    """Publishes all sensors ten times a second, and listens to the results."""

    def __init__(self, harness, sensors):
        self.harness, self.sensors = harness, sensors
        sensors.lidar_mount()
        sensors.camera_mount()
        self.clouds = self.publisher(PointCloud2, '/sensing/lidar/points')
        self.images = {
            name: self.publisher(Image, f'/sensing/camera/{name}/image')
            for name in ('front', 'rear')
        }
        self.infos = {
            name: self.publisher(CameraInfo, f'/sensing/camera/{name}/camera_info')
            for name in ('front', 'rear')
        }
        self.objects = harness.listen(Detection3DArray, '/perception/objects')
        self.markers = harness.listen(MarkerArray, '/perception/markers')
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def publisher(self, kind, topic):
        return self.harness.node.create_publisher(kind, topic, qos_profile_sensor_data)

    def _run(self):
        while not self._ended.wait(0.1):
            now = self.harness.node.get_clock().now().nanoseconds
            self.clouds.publish(self.sensors.cloud(stamp=now, points=[(4.2, 0.5, 0.0, 0.9)]))
            for name in self.images:
                info = self.sensors.info(stamp=now)
                info.header.stamp = self.sensors.types('std_msgs/msg/Header')().stamp
                self.infos[name].publish(info)
                self.images[name].publish(self.sensors.image(stamp=now))

    def sources(self):
        """The sensors that the newest objects name."""
        labels = (
            [m.text for m in self.markers[-1].markers if m.ns == 'label'] if self.markers else []
        )
        return {name for text in labels for name in text.split('\n')[1].split('+')}

    def close(self):
        self._ended.set()
        self._thread.join()


def state(harness, name):
    return harness.call(GetState, f'/{name}/get_state').current_state.label


def test_a_camera_that_is_killed_is_missed_started_again_and_used(
    launch, networks, harness, sensors
):
    graph = launch(f'params_file:={networks}/params.yaml')
    for name in NODES:
        graph.said(f'/{name}: active')
        assert state(harness, name) == 'active'
    order = [line.split()[2] for line in graph.lines if line.endswith(': active')]
    assert order == [f'/{name}:' for name in NODES]

    drive = Drive(harness, sensors)
    try:
        harness.until(
            lambda: drive.sources() >= {'lidar', 'front', 'rear'}, 'objects of all sensors'
        )

        os.kill(graph.pid('camera_front'), signal.SIGKILL)
        harness.until(lambda: 'front' not in drive.sources(), 'objects without the camera')
        before = len(drive.objects)
        harness.until(lambda: len(drive.objects) > before + 2, 'more objects without the camera')
        assert drive.sources() >= {'lidar', 'rear'}

        graph.said('/camera_front: active', times=2)
        harness.until(
            lambda: drive.sources() >= {'lidar', 'front', 'rear'}, 'objects of all sensors again'
        )
    finally:
        drive.close()
    assert graph.interrupt() == 0, graph.lines
    # after 5 s without an end, launch would have sent SIGTERM and said so
    assert not [line for line in graph.lines if 'escalating' in line]
    ends = [line for line in graph.lines if 'process has finished cleanly' in line]
    assert len(ends) == len(NODES), graph.lines


def test_a_camera_that_stays_dead_is_named_in_diagnostics(launch, networks, harness, sensors):
    graph = launch(f'params_file:={networks}/params.yaml', 'respawn:=false')
    graph.said('/bev_fusion: active')
    drive = Drive(harness, sensors)
    try:
        harness.until(
            lambda: drive.sources() >= {'lidar', 'front', 'rear'}, 'objects of all sensors'
        )
        os.kill(graph.pid('camera_front'), signal.SIGKILL)
        status, values = harness.diagnosis_of(
            'bev_fusion', lambda status, values: 'input/front/age_ms' in status.message
        )
        assert status.level == WARN
        assert 'nothing on /perception/camera/front/detections' in status.message
        assert float(values['input/front/age_ms']) > 1000
        assert float(values['input/lidar/age_ms']) < 1000
        before = len(drive.objects)
        harness.until(lambda: len(drive.objects) > before, 'objects without the camera')
    finally:
        drive.close()
    assert graph.interrupt() == 0


def test_a_node_that_cannot_is_named_with_its_reason_and_the_others_go_on(launch, networks):
    (networks / 'params.yaml').write_text(
        (networks / 'params.yaml').read_text()
        + 'camera_rear: {ros__parameters: {engine_path: /nowhere/net.onnx}}\n'
    )
    graph = launch(f'params_file:={networks}/params.yaml')
    for name in NODES:
        if name != 'camera_rear':
            graph.said(f'/{name}: active')
    line = graph.said('cannot be brought to active', timeout=60.0)
    assert len(line) == 1
    assert '/camera_rear: cannot be brought to active: configure failed: /nowhere/net.' in line[0]
    assert len(graph.said('try 1 of 5')) == 1
    assert not [line for line in graph.lines if 'try 2 of 5' in line]  # it would not help
    assert graph.interrupt() == 0


def test_a_second_interrupt_does_not_keep_the_launch_from_its_end(launch, networks):
    graph = launch(f'params_file:={networks}/params.yaml')
    for name in NODES:
        graph.said(f'/{name}: active')
    graph.process.send_signal(signal.SIGINT)
    graph.said('user interrupted')
    for _ in range(10):  # while launch closes its own ROS node
        time.sleep(0.02)
        graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(30.0) == 0


def test_without_autostart_nodes_wait(launch, networks, harness):
    graph = launch(f'params_file:={networks}/params.yaml', 'autostart:=false', 'use_camera:=false')
    for name in ('lidar_detector', 'bev_fusion'):
        assert state(harness, name) == 'unconfigured'
    assert graph.interrupt() == 0


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (
            'camera_frnt: {ros__parameters: {nms_iou: 0.5}}',
            "no node reads the section '/camera_frnt'",
        ),
        ('bev_fusion: {ros__parameters: {cameras: [Front]}}', "'Front' cannot be part of a topic"),
        ('bev_fusion: [', 'not readable as YAML'),
    ],
)
def test_a_wrong_parameter_file_ends_the_launch_in_one_line(launch, tmp_path, text, said):
    path = tmp_path / 'wrong.yaml'
    path.write_text(text)
    graph = launch(f'params_file:={path}')
    assert graph.process.wait(15.0) == 1
    lines = [line for line in graph.lines if 'ERROR' in line]
    assert len(lines) == 1
    assert said in lines[0]
