"""What the two detector nodes share: network, worker, transforms, and the way of one message."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, TypeVar

from rclpy.qos import QoSProfile

from airside_perception.card import ModelCard
from airside_perception.config import EngineConfig
from airside_perception.engine import Engine
from airside_perception.nodes.base import RELIABLE_SENSOR, SENSOR, PerceptionNode
from airside_perception.nodes.diagnostics import SILENCE_S, STALE, Report
from airside_perception.nodes.tf import TfSource
from airside_perception.nodes.worker import Worker
from airside_perception.parameter import flat_values

Config = TypeVar('Config', bound=EngineConfig)


class DetectorNode(PerceptionNode[Config], ABC):
    """A node that runs one network on the newest message of one topic."""

    card_type: type[ModelCard]
    input_name: str
    """Name of the sensor input in diagnostics."""

    def __init__(self, name: str, config: type[Config], **kwargs: Any) -> None:
        super().__init__(name, config, **kwargs)
        self._kind = config
        self.engine: Engine | None = None
        self.pipeline: Any = None
        self.tf: TfSource | None = None
        self.topic = ''
        self._worker: Worker[Any] = Worker(name, self._work, self._failed)
        self._inputs: list[Any] = []

    @abstractmethod
    def make_pipeline(self, network: Any, engine: Engine) -> Any:
        """The core's pipeline, its network checked against the card."""

    @abstractmethod
    def warm_up(self) -> None:
        """Runs the detector once on an input of no meaning."""

    @abstractmethod
    def subscribe(self) -> list[Any]:
        """Makes the subscriptions; sets `topic` to that of the sensor."""

    @abstractmethod
    def detect(self, message: Any) -> int:
        """From message to publication; the stamp of what was published, in nanoseconds."""

    def on_open(self) -> None:
        """Opens network and card, declares the thresholds of its classes, warms up."""
        from airside_perception.pipeline import find_network  # brings what only detectors need

        self.on_free()  # a frame that would not end may have kept the network from before open
        network = find_network(self._kind, self.card_type, flat_values(self.config))
        config = self.parameters.configure({'score_thresholds': network.config.score_thresholds})
        began = time.perf_counter()
        network = replace(network, config=config)
        self.engine = network.open()
        for note in self.engine.info.notes:
            self.get_logger().warning(note)
        self.pipeline = self.make_pipeline(network, self.engine)
        self.warm_up()
        info, spent = self.engine.info, time.perf_counter() - began
        self.get_logger().info(
            f'{info.path} on {info.backend} {info.version}, {info.device}, {info.precision}: '
            f'ready in {spent:.2f} s'
        )

    @property
    def input_qos(self) -> QoSProfile:
        """QoS of the sensor's subscription, by the parameter of that name."""
        return RELIABLE_SENSOR if self.config.input_qos == 'reliable' else SENSOR

    def on_start(self) -> None:
        """Subscribes to the sensor and to transforms."""
        self.tf = TfSource(self, self.config.tf_timeout_ms)
        self.diagnostics.watch(self.input_name)
        self._worker.start()
        self._inputs = self.subscribe()

    def on_stop(self) -> None:
        """Ends the subscriptions and the work."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self.tf is not None:
            self.tf.close()  # ends a wait of the worker, which still has it
        self._worker.stop()
        self.tf = None

    def on_free(self) -> None:
        """Closes the network, but never one that still runs."""
        self._worker.stop()
        self.pipeline = None
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def take(self, message: Any) -> None:
        """The sensor's callback: hands the message to the worker."""
        self.diagnostics.received(self.input_name)
        if self._worker.put(message):
            self.diagnostics.overrun()

    def report(self, report: Report) -> None:
        """Adds the network, and whether the sensor speaks."""
        report.add('engine/state', 'closed' if self.pipeline is None else 'ready')
        if self.engine is not None:
            info = self.engine.info
            report.add('engine/path', info.path)
            report.add('engine/precision', info.precision)
            report.add('engine/device', info.device)
            report.add('engine/backend', f'{info.backend} {info.version}')
            report.add('engine/dla_layer_pct', 'not applicable')
            report.add('engine/trt_version', 'not applicable')
        if self.active:
            for name, age in self.diagnostics.silent_inputs():
                report.find(
                    STALE,
                    f'input/{name}/age_ms {age * 1e3:.0f}, limit {SILENCE_S * 1e3:.0f}: '
                    f'nothing on {self.topic}',
                )
            if self.tf is not None and self.tf.jumps:
                report.add('time_jumps', self.tf.jumps)

    def _work(self, message: Any) -> None:
        started = time.perf_counter()
        config = self.pipeline.detector.config = self.config
        if self.tf is not None:
            self.tf.timeout_ms = config.tf_timeout_ms
        stamp_ns = self.detect(message)
        self.diagnostics.processed(
            stamp_ns, (time.perf_counter() - started) * 1e3, config.expected_time_ms
        )

    def _failed(self, message: Any, error: Exception) -> None:
        self.failed(self.topic, error)
