"""`replay play`: what a bag holds reaches subscribers as it was recorded, with the clock."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airside_perception.messages import image_message, point_cloud_message, transform_message
from airside_perception.replay.bag import BagWriter
from airside_perception.types import Image, PointCloud

START_NS = 1_317_000_000_000_000_000
STEP_NS = 100_000_000
FRAMES = 5
POINTS = 120_000
IMAGES, CLOUDS = '/sensing/camera/front/image', '/sensing/lidar/points'


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames at 10 Hz: a small image and a cloud of 1.9 MB."""
    path = tmp_path_factory.mktemp('play') / 'bag'
    with BagWriter(path) as writer:
        types = writer.types
        mount = transform_message('base_link', 'lidar', START_NS, np.eye(4), types)
        message = types('tf2_msgs/msg/TFMessage')(transforms=[mount])
        writer.write('/tf_static', message, START_NS - 1_000_000)
        for index in range(FRAMES):
            stamp_ns = START_NS + index * STEP_NS
            image = Image(stamp_ns, 'camera', np.full((4, 6, 3), index, np.uint8))
            points = np.full((POINTS, 4), index, np.float32)
            writer.write(IMAGES, image_message(image, types), stamp_ns)
            cloud = PointCloud(stamp_ns, 'lidar', points)
            writer.write(CLOUDS, point_cloud_message(cloud, types), stamp_ns)
    return path


class Listener:
    """A node that keeps what it hears: (topic, stamp, first byte of data, arrival)."""

    def __init__(self, rclpy: Any) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import Image as ImageMessage
        from sensor_msgs.msg import PointCloud2
        from tf2_msgs.msg import TFMessage

        self.heard: list[tuple[str, int, int, float]] = []
        self.clock: list[int] = []
        self.static: list[str] = []
        self._rclpy = rclpy
        self.node = rclpy.create_node('listener')
        self.node.create_subscription(
            ImageMessage, IMAGES, lambda m: self._take(IMAGES, m), qos_profile_sensor_data
        )
        self.node.create_subscription(PointCloud2, CLOUDS, lambda m: self._take(CLOUDS, m), 10)
        self.node.create_subscription(Clock, '/clock', self._tick, 100)
        late = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(TFMessage, '/tf_static', self._mount, late)

    def _take(self, topic: str, message: Any) -> None:
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        self.heard.append((topic, stamp_ns, message.data[0], time.monotonic()))

    def _tick(self, message: Any) -> None:
        self.clock.append(message.clock.sec * 10**9 + message.clock.nanosec)

    def _mount(self, message: Any) -> None:
        self.static += [item.child_frame_id for item in message.transforms]

    def until(self, condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition() and time.monotonic() < deadline:
            self._rclpy.spin_once(self.node, timeout_sec=0.05)
        return condition()


@pytest.fixture
def listener(rclpy_context: Any) -> Iterator[Listener]:
    found = Listener(rclpy_context)
    yield found
    found.node.destroy_node()


@pytest.fixture
def play(bag: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, '-m', 'airside_perception.replay', 'play', '--bag', str(bag)]
        running.append(subprocess.Popen([*command, *arguments], text=True, stderr=subprocess.PIPE))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_everything_arrives_in_order_and_unchanged(
    listener: Listener, play: Callable[..., subprocess.Popen[str]]
) -> None:
    process = play('--wait-for-subscribers', '20')
    end_ns = START_NS + (FRAMES - 1) * STEP_NS

    def is_whole() -> bool:
        # on a busy machine clock and transforms are read later than the images
        clock_ends = bool(listener.clock) and end_ns - listener.clock[-1] < 10_000_000
        return len(listener.heard) >= 2 * FRAMES and bool(listener.static) and clock_ends

    assert listener.until(is_whole), [
        *((n, s - START_NS) for n, s, *_ in listener.heard), *listener.static, *listener.clock[-1:]
    ]  # fmt: skip
    assert process.wait(timeout=20) == 0
    stamps = [START_NS + index * STEP_NS for index in range(FRAMES)]
    for topic in (IMAGES, CLOUDS):
        assert [stamp for name, stamp, _, _ in listener.heard if name == topic] == stamps
    assert [byte for name, _, byte, _ in listener.heard if name == IMAGES] == [0, 1, 2, 3, 4]
    assert listener.static == ['lidar']
    assert listener.clock == sorted(listener.clock)
    assert listener.clock[0] == START_NS - 1_000_000
    assert end_ns - listener.clock[-1] < 10_000_000


def test_chosen_topics_at_another_rate_in_a_loop(
    listener: Listener, play: Callable[..., subprocess.Popen[str]]
) -> None:
    process = play('--topics', IMAGES, '--rate', '4', '--loop')
    assert listener.until(lambda: len(listener.heard) >= 3 * FRAMES)
    assert {name for name, *_ in listener.heard} == {IMAGES}
    # on a busy machine the clock is read later than the images
    assert listener.until(
        lambda: any(after < before for before, after in pairwise(listener.clock))
    )
    process.send_signal(2)
    assert process.wait(timeout=5) == 0


def test_an_unknown_topic_is_refused(play: Callable[..., subprocess.Popen[str]]) -> None:
    process = play('--topics', '/none')
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "no topic '/none'" in errors


def test_a_type_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """The bag knows the type; this machine's ROS does not."""
    with BagWriter(tmp_path / 'bag') as writer:
        name = 'actionlib_msgs/msg/GoalID'
        time_type = writer.types('builtin_interfaces/msg/Time')
        message = writer.types(name)(stamp=time_type(sec=0, nanosec=0), id='x')
        writer.write('/goal', message, 1)
    metadata = tmp_path / 'bag' / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(name, 'airside_none_msgs/msg/GoalID'))
    command = [sys.executable, '-m', 'airside_perception.replay', 'play', '--bag']
    result = subprocess.run(
        [*command, str(tmp_path / 'bag')], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    assert 'airside_none_msgs/msg/GoalID is not installed' in result.stderr
