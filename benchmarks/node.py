"""What the nodes cost beside their networks: from the message to the published result."""

from __future__ import annotations

import importlib.util
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from airside_perception import messages
from airside_perception.params import LIDAR_NODE, read_parameters
from airside_perception.projection import CameraModel
from airside_perception.replay.settings import SHIPPED
from airside_perception.resources import model_file, resource
from airside_perception.types import Image, PointCloud
from benchmarks.measure import Row
from benchmarks.sensors import message_types, sweep

TURNS = 30
OPTICAL = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]])
ROOF = np.eye(4)
"""Places of the sensors in base_link; `sweep` is above the ground already."""
CAMERA = 'camera node, callback to publish, outside the engine'
LIDAR = 'lidar node, likewise, outside pillars, features and engine'
NODES = {CAMERA: 'camera_front', LIDAR: LIDAR_NODE}
"""Whose parameters in the shipped configuration name the network."""


def rows(only: str, networks: Mapping[str, str] | None = None, turns: int = TURNS) -> list[Row]:
    """Both detector nodes, in process; needs a sourced ROS 2.

    Args:
        only: tasks that hold this text.
        networks: {task: engine_path}, instead of those of the shipped configuration.
        turns: messages to each node; the median counts.
    """
    if importlib.util.find_spec('rclpy') is None:
        print('no ROS 2 sourced: the nodes are not measured')
        return []
    networks = {**shipped_networks(), **(networks or {})}
    tasks = {CAMERA: _camera, LIDAR: _lidar}
    found = []
    for name, task in tasks.items():
        if only in name:
            print(f'{name.partition(",")[0]}: {networks[name]}')
            found.append(task(str(model_file(networks[name])), turns))
    return found


def shipped_networks() -> dict[str, str]:
    """{task: engine_path} of the shipped configuration."""
    parameters = read_parameters(resource(*SHIPPED))
    return {task: parameters.for_node(node)['engine_path'] for task, node in NODES.items()}


@contextmanager
def _running(
    make: Callable[..., Any], network: str, child: str, mount: np.ndarray
) -> Iterator[Any]:
    """An active node that knows where its sensor is mounted."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    rclpy.init()
    node = make(parameter_overrides=[Parameter('engine_path', value=network)])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = node.create_publisher(TFMessage, '/tf_static', latched)
    edge = messages.transform_message('base_link', child, 1, mount, message_types())
    publisher.publish(TFMessage(transforms=[edge]))
    spinning = threading.Thread(target=executor.spin, daemon=True)
    try:
        node.trigger_configure()
        node.trigger_activate()
        spinning.start()
        time.sleep(1.0)  # discovery of the node's own transform
        yield node
    finally:
        executor.shutdown()
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
        spinning.join()


def _outside(node: Any, message: Any, inside: Callable[[], float], turns: int) -> float:
    """Median ms of `node.detect` less what `inside` reports for the same turn."""
    spent = []
    for _ in range(turns):
        start = time.perf_counter_ns()
        node.detect(message, node.pipeline)
        spent.append((time.perf_counter_ns() - start) / 1e6 - inside())
    return statistics.median(spent)


def _camera(network: str, turns: int) -> Row:
    from airside_perception.nodes.camera_detector import CameraDetectorNode

    with _running(CameraDetectorNode, network, 'optical', OPTICAL) as node:
        pixels = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
        matrix = np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]])
        lens = CameraModel('optical', 1280, 720, matrix, (), 'plumb_bob')
        node.calibration.take(messages.camera_info_message(lens, 1, message_types()))
        message = messages.image_message(Image(1, 'optical', pixels), message_types())
        timings = node.pipeline.detector
        spent = _outside(node, message, lambda: timings.timings['engine'], turns)
        return Row(CAMERA, 3.0, spent, {})


def _lidar(network: str, turns: int) -> Row:
    from airside_perception.nodes.lidar_detector import LidarDetectorNode

    with _running(LidarDetectorNode, network, 'lidar', ROOF) as node:
        cloud = PointCloud(1, 'lidar', sweep())
        message = messages.point_cloud_message(cloud, message_types())
        detector = node.pipeline.detector

        def inside() -> float:
            return sum(detector.timings[stage] for stage in ('pillars', 'encoder', 'engine'))

        return Row(LIDAR, 3.0, _outside(node, message, inside, turns), {})
