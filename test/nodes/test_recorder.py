"""The recorder writes what a graph published, as `replay run` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no ROS 2 sourced: rclpy is not there')

from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import messages
from airside_perception.nodes.base import RESULT, message_type
from airside_perception.nodes.recorder import Recorder
from airside_perception.results import read_results, result_of
from airside_perception.types import Boxes3D

pytestmark = pytest.mark.ros
STAMP = 1_700_000_000_000_000_000
TOPIC = '/perception/lidar/detections'


@pytest.fixture
def recorder(harness: Any) -> Iterator[Recorder]:
    node = Recorder([TOPIC], context=harness.context)
    harness.executor.add_node(node)
    harness.executor.wake()
    yield node
    harness.executor.remove_node(node)
    node.destroy_node()


def boxes(count: int, stamp: int) -> Boxes3D:
    """Some boxes, the best first; the velocity of the second is not known."""
    rng = np.random.default_rng(count)
    values = np.abs(rng.normal(size=(count, 7))) + 0.5
    velocities = rng.normal(size=(count, 2)).astype(np.float32).astype(np.float64)
    velocities[1:2] = np.nan
    return Boxes3D(
        stamp, 'base_link', values, np.linspace(0.9, 0.3, count), ('car',) * count,
        np.zeros((count, 4, 4)), velocities=velocities,
    )  # fmt: skip


def test_velocities_are_written_with_their_detections(
    recorder: Recorder, harness: Any, tmp_path: Path
) -> None:
    found = harness.publisher(Detection3DArray, TOPIC, RESULT)
    speeds = harness.publisher(PointCloud2, '/perception/lidar/velocities', RESULT)
    alone = boxes(2, STAMP)  # of a network without velocities
    found.publish(messages.detections3d(alone, message_type))
    other = boxes(2, STAMP + 1)  # with velocities of something else
    found.publish(messages.detections3d(other, message_type))
    speeds.publish(messages.velocities_message(boxes(5, STAMP + 1), message_type))
    sent = [boxes(3, STAMP + 2), boxes(0, STAMP + 3), boxes(4, STAMP + 4)]
    for item in sent:
        found.publish(messages.detections3d(item, message_type))
        speeds.publish(messages.velocities_message(item, message_type))
    path = tmp_path / 'live.jsonl'

    def whole() -> bool:
        recorder.write(path)
        lines = path.read_text(encoding='utf-8').splitlines()
        return len(lines) == 5 and '"vx"' in lines[2] and '"vx"' in lines[4]

    harness.until(whole, 'all messages')
    without = [replace(item, velocities=np.full((2, 2), np.nan)) for item in (alone, other)]
    assert read_results(path) == [result_of(TOPIC, item) for item in (*without, *sent)]
    assert recorder.failures == {}


def test_velocities_that_cannot_be_read_are_counted(recorder: Recorder, harness: Any) -> None:
    speeds = harness.publisher(PointCloud2, '/perception/lidar/velocities', RESULT)
    message = messages.velocities_message(boxes(3, STAMP), message_type)
    message.fields[3].name = 'speed'
    speeds.publish(message)
    harness.until(lambda: recorder.failures, 'a failure')
    assert recorder.failures == {TOPIC: 1}
