"""Writes detections of a running graph to a result file, and how long they took to come.

    python -m airside_perception.nodes.recorder --out live.jsonl /perception/objects ...

The file is that of `replay run`, so `replay compare` takes it; velocities of `.../detections` are
those of `.../velocities` beside it, where a network has them. With `--inputs`, a file
`OUT.latency.json` holds, for every topic, the milliseconds of steady time from the first input of
a stamp to the result of that stamp, both as this process received them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import MarkerArray

from airside_perception import messages
from airside_perception.errors import PerceptionError
from airside_perception.nodes.base import RESULT, SENSOR, message_type
from airside_perception.results import Result, ResultWriter, result_of
from airside_perception.types import Boxes2D, Boxes3D, Float64

DISCOVERY_S = 0.2
DETECTIONS, VELOCITIES = '/detections', '/velocities'
CDR_STAMP = struct.Struct('<4xiI')
"""Seconds and nanoseconds of a header that opens a little-endian CDR message."""


class Recorder(Node):
    """Keeps what comes on result topics until `write`.

    Attributes:
        failures: messages that could not be read, by topic.
    """

    def __init__(
        self,
        topics: Sequence[str],
        inputs: Sequence[str] = (),
        markers: str = '',
        **kwargs: Any,
    ) -> None:
        super().__init__('perception_recorder', **kwargs)
        self.failures: dict[str, int] = {}
        self._boxes: dict[tuple[int, str], Boxes2D | Boxes3D] = {}
        self._velocities: dict[tuple[int, str], Float64] = {}
        self._sources: dict[int, dict[int, tuple[str, ...]]] = {}
        self._latencies: dict[str, list[float]] = {topic: [] for topic in topics}
        self._arrivals: dict[int, float] = {}
        for topic in topics:
            flat = topic.endswith('_2d')
            kind = Detection2DArray if flat else Detection3DArray
            read = messages.boxes2d if flat else messages.boxes3d
            self.create_subscription(
                kind, topic, lambda m, t=topic, r=read: self._on_result(t, r, m), RESULT
            )
            if topic.endswith(DETECTIONS):
                self.create_subscription(
                    PointCloud2,
                    topic[: -len(DETECTIONS)] + VELOCITIES,
                    lambda m, t=topic: self._on_velocities(t, m),
                    RESULT,
                )
        if markers:
            self.create_subscription(MarkerArray, markers, self._on_markers, RESULT)
        self._waiting = set(inputs)
        self._finder = self.create_timer(DISCOVERY_S, self._find_inputs)

    def write(self, path: Path) -> None:
        """Writes everything by stamp and topic, whole or not at all.

        Raises:
            BagError: it cannot be written.
        """
        with ResultWriter(path) as writer:
            for (stamp, topic), boxes in sorted(self._boxes.items(), key=lambda item: item[0]):
                known = self._velocities.get((stamp, topic))
                if isinstance(boxes, Boxes3D) and known is not None and len(known) == len(boxes):
                    boxes = dataclasses.replace(boxes, velocities=known)
                result = result_of(topic, boxes)
                writer.write(self._with_sources(result, self._sources.get(stamp, {})))
        text = json.dumps(self._latencies, indent=0, sort_keys=True)
        path.with_name(f'{path.name}.latency.json').write_text(text + '\n', encoding='utf-8')

    def _on_result(self, topic: str, read: Any, message: Any) -> None:
        now = time.monotonic()
        try:
            boxes = read(message)
        except PerceptionError as error:
            self._failed(topic, error)
            return
        self._boxes[boxes.stamp_ns, topic] = boxes
        if boxes.stamp_ns in self._arrivals:
            self._latencies[topic].append(round((now - self._arrivals[boxes.stamp_ns]) * 1e3, 3))

    def _on_velocities(self, topic: str, message: PointCloud2) -> None:
        try:
            stamp = messages.header_stamp_ns(message)
            self._velocities[stamp, topic] = messages.velocities(message)
        except PerceptionError as error:
            self._failed(topic, error)

    def _failed(self, topic: str, error: PerceptionError) -> None:
        self.failures[topic] = self.failures.get(topic, 0) + 1
        self.get_logger().error(f'{topic}: {error}', throttle_duration_sec=1.0)

    def _on_markers(self, message: MarkerArray) -> None:
        """The evidence of fused objects is in the labels for RViz, not in vision_msgs."""
        for marker in message.markers:
            if marker.ns == 'label':
                stamp = messages.stamp_ns(marker.header.stamp)
                names = tuple(marker.text.partition('\n')[2].split('+'))
                self._sources.setdefault(stamp, {})[marker.id] = names

    def _find_inputs(self) -> None:
        """Subscribes to inputs once their type is known; as bytes, as only the stamp is read."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self._waiting:
                self._waiting.discard(topic)
                kind = message_type(kinds[0])
                self.create_subscription(kind, topic, self._on_input, SENSOR, raw=True)
        if not self._waiting:
            self._finder.cancel()

    def _on_input(self, data: bytes) -> None:
        seconds, nanoseconds = CDR_STAMP.unpack_from(data)
        self._arrivals.setdefault(seconds * 1_000_000_000 + nanoseconds, time.monotonic())

    @staticmethod
    def _with_sources(result: Result, sources: dict[int, tuple[str, ...]]) -> Result:
        if not result.topic.endswith('/objects') or not sources:
            return result
        items = tuple(
            {**item, 'sources': list(sources[row])} if row in sources else item
            for row, item in enumerate(result.detections)
        )
        return dataclasses.replace(result, detections=items)


def main(args: Sequence[str] | None = None) -> int:
    """Records until SIGINT or SIGTERM; the exit status is 1 where nothing came."""
    parser = argparse.ArgumentParser(prog='recorder', description=__doc__.partition('\n')[0])
    parser.add_argument(
        'topics', nargs='+', help='Detection3DArray, or Detection2DArray if named *_2d'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.jsonl')
    parser.add_argument('--inputs', nargs='*', default=(), metavar='TOPIC', help='sensors to time')
    parser.add_argument(
        '--markers', default='/perception/markers', help='for the evidence of objects'
    )
    options = parser.parse_args(args)
    stop = threading.Event()
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = Recorder(options.topics, options.inputs, options.markers)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
        node.write(options.out)
    except ExternalShutdownException:
        return 1
    except PerceptionError as error:
        print(f'recorder: {error}', file=sys.stderr)  # noqa: T201  # a command line
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
