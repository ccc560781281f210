"""lidar_detector: point clouds to 3D detections."""

from __future__ import annotations

import sys
from typing import Any

from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import messages
from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.engine import Engine
from airside_perception.nodes.base import RESULT, message_type, run
from airside_perception.nodes.detector import DetectorNode
from airside_perception.nodes.diagnostics import WARN, Report

ALONE = 3
"""Clouds in a row without a past sweep that are no accident, as the first one is."""


class LidarDetectorNode(DetectorNode[LidarConfig]):
    """Publishes `~/output/detections` for every cloud whose transform is known.

    And `~/output/velocities` right after, where the network has velocities.
    """

    card_type = LidarCard
    input_name = 'points'

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('lidar_detector', LidarConfig, **kwargs)
        self._boxes = self.create_lifecycle_publisher(
            Detection3DArray, '~/output/detections', RESULT
        )
        self._velocities = self.create_lifecycle_publisher(
            PointCloud2, '~/output/velocities', RESULT
        )
        self._points: tuple[int, int] | None = None
        self._sweeps: tuple[int, str, bool] | None = None

    def make_pipeline(self, network: Any, engine: Engine) -> Any:
        """The core's way of a cloud; ONNX Runtime loads only now."""
        from airside_perception.pipeline import LidarPipeline

        return LidarPipeline(network, engine)

    def warm_up(self, pipeline: Any) -> None:
        """Runs the network on a cloud of one point."""
        import numpy as np

        from airside_perception.types import PointCloud

        x0, y0, z0, x1, y1, z1 = pipeline.detector.card.limits
        point = np.array([[(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2, 0.0]], np.float32)
        pipeline.detector.detect(PointCloud(0, 'warm_up', point))

    def subscribe(self) -> list[Any]:
        """The point cloud."""
        subscription = self.create_subscription(
            PointCloud2, '~/input/points', self.take, self.input_qos
        )
        self.topic = subscription.topic_name
        self._points = self._sweeps = None
        return [subscription]

    def detect(self, message: Any, pipeline: Any) -> int:
        """Takes the cloud to the target frame at its stamp, and detects there."""
        cloud = messages.point_cloud(message, need=pipeline.needed_fields)
        with self.tf.one_wait():
            boxes = pipeline.detect(cloud, self.tf)
        detector, sweeps = pipeline.detector, pipeline.sweeps
        self._points = cloud.received, detector.last_usable
        if sweeps is not None:
            unmoved = sweeps.last_error is not None and not sweeps.last_sweeps
            lasting = unmoved or sweeps.alone >= ALONE
            self._sweeps = sweeps.last_sweeps, sweeps.last_missing, lasting
        self._boxes.publish(messages.detections3d(boxes, message_type))
        if detector.card.centers is not None and detector.card.centers.velocity:
            self._velocities.publish(messages.velocities_message(boxes, message_type))
        return boxes.stamp_ns

    def report(self, report: Report) -> None:
        """Adds what the last cloud was good for, and whether the network can take all pillars."""
        super().report(report)
        pipeline = self.pipeline
        if pipeline is None or self._points is None:
            return
        received, usable = self._points
        detector = pipeline.detector
        pillars, most = detector.last_pillars, detector.card.max_pillars
        report.add('points/received', received)
        report.add('points/usable', usable)
        report.add('num_pillars', pillars)
        report.add('is_num_pillars_within_range', pillars <= most)
        if self._sweeps is not None and pipeline.sweeps is not None:
            count, missing, lasting = self._sweeps
            report.add('sweeps/past', count)
            report.add('sweeps/missing', missing or 'none')
            if lasting:
                report.find(WARN, f'sweeps/past 0, the network wants past sweeps: {missing}')
        left_out = getattr(detector, 'last_dropped_points', 0)  # the CPU's takes any number
        if left_out:
            report.add('points/left_out', left_out)
            report.find(WARN, f'points/left_out {left_out}: more points than the GPU has room for')
        if received and not usable:
            report.find(
                WARN,
                f'points/usable 0 of {received}: all are NaN, nearer than min_range, in ego_box, '
                'or beyond the range of the network',
            )
        if pillars > most:
            report.find(WARN, f'num_pillars {pillars}, limit {most}: the surplus is left out')


def main() -> None:
    """Runs the node."""
    sys.exit(run(LidarDetectorNode))
