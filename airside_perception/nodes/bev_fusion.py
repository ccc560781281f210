"""bev_fusion: detections of one lidar and several cameras to fused objects."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping
from typing import Any

from message_filters import ApproximateTimeSynchronizer, Subscriber
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from airside_perception import messages
from airside_perception.config import FusionConfig, fusion_priors
from airside_perception.errors import MessageError, PerceptionError
from airside_perception.fusion.collect import Added, Collector, Gathered
from airside_perception.nodes.base import RESULT, SENSOR, PerceptionNode, message_type, run
from airside_perception.nodes.calibration import Calibration
from airside_perception.nodes.diagnostics import Report
from airside_perception.nodes.fusion_findings import FusionFindings
from airside_perception.nodes.tf import TfSource
from airside_perception.nodes.worker import Worker
from airside_perception.projection import CameraModel

NS_PER_MS = 1_000_000


class BevFusionNode(PerceptionNode[FusionConfig]):
    """Publishes `~/output/objects`: complete sets at once, at the deadline what there is.

    The synchroniser finds the complete sets whose stamps are all within the slop of each other,
    the collector makes all others: those on both sides of the pacing stamp, those with messages
    that the synchroniser's queues no longer hold, and the incomplete ones. Both live on the
    executor's thread; transforms and fusion are the worker's.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('bev_fusion', FusionConfig, **kwargs)
        self._objects = self.create_lifecycle_publisher(
            Detection3DArray, '~/output/objects', RESULT
        )
        self._markers = self.create_lifecycle_publisher(MarkerArray, '~/debug/markers', RESULT)
        self._pipeline: Any = None
        self._result: Any = None
        self._collector: Collector[Detection3DArray] | None = None
        self._synchronizer: Any = None
        self._worker: Worker[Gathered[Detection3DArray]] = self.make_worker(
            self._work, self._failed
        )
        self._inputs: list[Any] = []
        self._topics: dict[str, str] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._findings: FusionFindings | None = None
        self._tf: TfSource | None = None
        self._deadline = self.create_timer(
            1.0, self._flush, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._deadline.cancel()

    def on_open(self) -> None:
        """Declares the priors that the parameter file gives to single classes, and warms up."""
        from airside_perception.pipeline import FusionPipeline

        # not those of every class: a prior of its own takes a class out of the reach of `prior`
        given = [name.partition('.')[2] for name in self.parameters.given('priors.')]
        classes = [name for name in given if name.casefold() in self.config.groups]
        config = self.parameters.configure(fusion_priors(classes, self.config.prior))
        self._pipeline = FusionPipeline(config)
        self._pipeline.fusion.fuse(None, {}, 0, config.fusion_frame)

    def on_start(self) -> None:
        """Subscribes to every source, to calibrations and to transforms."""
        config = self.config
        self._result = None
        self._collector = Collector(
            config.sources,
            deadline_ns=round(config.deadline_ms * NS_PER_MS),
            slop_ns=round(config.sync_slop_ms * NS_PER_MS),
            silence_ns=round(config.silence_ms * NS_PER_MS),
            queue_size=config.queue_size,
            queue_ns=round(config.queue_ms * NS_PER_MS),
            complete_sets=True,
        )
        self._tf = TfSource(self, config.tf_timeout_ms, on_jump=self._forget)
        self.diagnostics.watch(*config.sources)
        self._findings = FusionFindings(self._topics, self._calibrations)
        self._worker.start()
        self._subscribe(config)

    def _subscribe(self, config: FusionConfig) -> None:
        filters = []
        for name in config.sources:
            topic = f'~/input/{name}/detections'
            filters.append(Subscriber(self, Detection3DArray, topic, qos_profile=RESULT))
            self._inputs.append(filters[-1].sub)
            self._topics[name] = topic = filters[-1].sub.topic_name
            # first the collector: it tells the synchroniser when stamps have jumped back
            collect = functools.partial(self._on_detections, name)
            filters[-1].registerCallback(self.guarded(topic, collect))
        # it asks for less than the slop, the collector for no more than the slop
        slop_s = config.sync_slop_ms / 1e3 + 1e-9
        self._synchronizer = ApproximateTimeSynchronizer(filters, config.queue_size, slop_s)
        self._synchronizer.registerCallback(self._on_set)
        for item in filters:  # and last what the synchroniser has not taken
            item.registerCallback(lambda _: self._flush())
        for name in config.cameras:
            topic = f'~/input/{name}/camera_info'
            rectified = name in config.rectified_cameras
            calibration = Calibration(self.resolve_topic_name(topic), rectified)
            self._calibrations[name] = calibration
            self._inputs.append(
                self.create_subscription(CameraInfo, topic, calibration.take, SENSOR)
            )

    def on_stop(self) -> None:
        """Ends the subscriptions and the work."""
        self._deadline.cancel()
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs, self._synchronizer = [], None
        if self._tf is not None:
            self._tf.close()  # ends a wait of the worker
        self._worker.stop()
        self._topics, self._calibrations, self._findings = {}, {}, None

    def on_free(self) -> None:
        """Forgets views and sets."""
        self._worker.stop()
        self._pipeline = self._result = self._collector = self._tf = None

    def report(self, report: Report) -> None:
        """Adds what the last set held, and what keeps sources out of the sets."""
        if self._collector is not None:
            for name, count in sorted(self._collector.counts.items()):
                report.add(f'sets/{name.replace(".", "/")}', count)
        if self._result is not None:
            for name in ('matched', 'lidar_only', 'camera_only', 'penalised'):
                report.add(f'fusion/{name}', getattr(self._result, name))
        if not self.active:
            return
        if self._findings is not None and self._collector is not None:
            self._findings.find(report, self._collector, self.diagnostics, self.config)
        if self._tf is not None and self._tf.jumps:
            report.add('time_jumps', self._tf.jumps)

    def _on_detections(self, name: str, message: Detection3DArray) -> None:
        self.diagnostics.received(name)
        self._findings.arrived(name, self._collector)
        stamp = messages.header_stamp_ns(message)
        added = self._collector.add(name, stamp, message, time.monotonic_ns())
        if added is Added.RESET:
            self.get_logger().warning(
                f'{self._topics[name]}: stamps jumped back; what waited is forgotten'
            )
            self._forget_queues()
        elif added is Added.STALE:
            self.diagnostics.late()

    def _on_set(self, *found: Detection3DArray) -> None:
        """One message of every source. The synchroniser holds its lock: no exception may leave."""
        try:
            stamped = ((messages.stamp_ns(item.header.stamp), item) for item in found)
            gathered = self._collector.complete(
                dict(zip(self.config.sources, stamped, strict=True))
            )
            if gathered is not None:
                self._put(gathered)
        except Exception as error:  # noqa: BLE001  # with its lock held it would take no more
            self.failed('sets', error)

    def _flush(self) -> None:
        """Hands over the sets that are due, and sets the alarm for the next deadline."""
        try:
            self._flush_collector()
        except Exception as error:  # noqa: BLE001  # an exception in a timer would end the executor
            self.failed('sets', error)

    def _flush_collector(self) -> None:
        collector, now = self._collector, time.monotonic_ns()
        if collector is None or not self.active:
            return
        collector.deadline_ns = round(self.config.deadline_ms * NS_PER_MS)
        collector.silence_ns = round(self.config.silence_ms * NS_PER_MS)
        for gathered in collector.flush(now):
            self._put(gathered)
        wake = collector.next_deadline_ns(now)
        if wake is None:
            self._deadline.cancel()
        else:
            self._deadline.timer_period_ns = max(wake - now, NS_PER_MS)
            self._deadline.reset()

    def _put(self, gathered: Gathered[Detection3DArray]) -> None:
        if self._worker.put(gathered):
            self.diagnostics.overrun()

    def _forget(self) -> None:
        """After a jump of time that the transforms have shown."""
        if self._collector is not None:
            self._collector.clear()
        self._forget_queues()

    def _forget_queues(self) -> None:
        if self._synchronizer is not None:
            for queue in self._synchronizer.queues:
                queue.clear()

    def _work(self, gathered: Gathered[Detection3DArray]) -> None:
        started = time.perf_counter()
        config = self._pipeline.fusion.config = self.config
        self._tf.timeout_ms = config.tf_timeout_ms
        detections = {}
        for name, message in gathered.messages.items():
            try:
                detections[name] = messages.boxes3d(message)
            except PerceptionError as error:
                self.failed(self._topics[name], error)
        if not detections:
            return  # each was named above: no answer is not the same as no objects
        cameras = self._cameras(detections)
        with self._tf.one_wait():
            result, failures = self._pipeline.fuse(
                detections, cameras, self._tf, gathered.stamp_ns
            )
        for name, failure in failures.items():
            self.failed(self._topics[name], failure)
        self._objects.publish(messages.detections3d(result.boxes, message_type))
        self._findings.published()
        if self._markers.get_subscription_count():
            from airside_perception.nodes.markers import markers

            self._markers.publish(markers(result.boxes, config.marker_lifetime_ms))
        self._result = result
        spent_ms = (time.perf_counter() - started) * 1e3
        self.diagnostics.processed(gathered.stamp_ns, spent_ms, config.expected_time_ms)

    def _cameras(self, detections: Mapping[str, Any]) -> dict[str, CameraModel]:
        """The lenses that are known; without one, the places of a camera's boxes still count."""
        cameras = {}
        for name, calibration in self._calibrations.items():
            if name in detections and calibration.known:
                try:
                    cameras[name] = calibration.read()
                except MessageError as error:
                    self.failed(calibration.topic, error)
        return cameras

    def _failed(self, gathered: Gathered[Detection3DArray], error: Exception) -> None:
        self.failed('fusion', error)


def main() -> None:
    """Runs the node."""
    sys.exit(run(BevFusionNode))
