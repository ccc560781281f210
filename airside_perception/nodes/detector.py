"""What the two detector nodes share: network, worker, transforms, and the way of one message."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from airside_perception.card import ModelCard
from airside_perception.config import EngineConfig
from airside_perception.engine import Engine
from airside_perception.errors import PerceptionError
from airside_perception.nodes.base import RELIABLE_SENSOR, SENSOR, PerceptionNode
from airside_perception.nodes.diagnostics import SILENCE_S, STALE, WARN, Report
from airside_perception.nodes.opening import BUSY, CancelledError, NotReadyError, Opening, Say
from airside_perception.nodes.serving import Serving
from airside_perception.nodes.swap import Swap
from airside_perception.nodes.tf import TfSource
from airside_perception.parameter import flat_values

Config = TypeVar('Config', bound=EngineConfig)


class DetectorNode(PerceptionNode[Config], ABC):
    """A node that runs one network on the newest message of one topic.

    An engine that must be built first is built in a thread of its own: the node is inactive
    meanwhile, and refuses to be activated. How a network is replaced in service: `nodes.swap`.
    """

    card_type: type[ModelCard]
    input_name: str
    """Name of the sensor input in diagnostics."""

    def __init__(self, name: str, config: type[Config], **kwargs: Any) -> None:
        super().__init__(name, config, **kwargs)
        self.kind = config
        self.serving: Serving | None = None
        self.tf: TfSource | None = None
        self.topic = ''
        self.swap = Swap(self)
        self._building: Opening[Serving] | None = None
        self._replacing = threading.Lock()  # between two frames: `serving` and `config` as a pair
        self._worker = self.make_worker(self._work, self._failed)
        self._inputs: list[Any] = []

    @property
    def engine(self) -> Engine | None:
        """The opened network; None where there is none."""
        serving = self.serving
        return None if serving is None else serving.engine

    @property
    def pipeline(self) -> Any:
        """What runs on it; None where there is none."""
        serving = self.serving
        return None if serving is None else serving.pipeline

    @abstractmethod
    def make_pipeline(self, network: Any, engine: Engine) -> Any:
        """The core's pipeline, its network checked against the card; it closes the engine."""

    @abstractmethod
    def warm_up(self, pipeline: Any) -> None:
        """Runs the detector once on an input of no meaning."""

    @abstractmethod
    def subscribe(self) -> list[Any]:
        """Makes the subscriptions; sets `topic` to that of the sensor."""

    @abstractmethod
    def detect(self, message: Any, pipeline: Any) -> int:
        """From message to publication; the stamp of what was published, in nanoseconds."""

    def find_network(self, config: Config) -> Any:
        """The network that a configuration names; its classes' thresholds are those of the card.

        Raises:
            ConfigError: as `network.find_network`.
        """
        from airside_perception.network import find_network  # brings what only detectors need

        plain = {name: value for name, value in flat_values(config).items() if '.' not in name}
        return find_network(self.kind, self.card_type, plain)

    def open_network(self, network: Any, say: Say, reason: str = '') -> Serving:
        """Builds the network if it must be, opens it, warms it up; in any thread.

        Args:
            network: of `find_network`.
            say: takes the stage that begins.
            reason: why it must be built; empty: it need not.

        Raises:
            PerceptionError: it cannot be; nothing is left open.
        """
        began = time.perf_counter()
        if reason:
            self.get_logger().info(f'{network.path} {reason}: building it')
            say('building')
            network.build(lambda step, part: say(_stage(step, part)))
        say('opening')
        with contextlib.ExitStack() as undo:
            engine = network.open()
            undo.callback(engine.close)
            pipeline = self.make_pipeline(network, engine)
            undo.callback(pipeline.close)
            say('warming')
            self.warm_up(pipeline)
            undo.pop_all()
        for note in engine.info.notes:
            self.get_logger().warning(note)
        info, spent = engine.info, time.perf_counter() - began
        self.get_logger().info(
            f'{info.path} on {info.backend} {info.version}, {info.device}, {info.precision}: '
            f'ready in {spent:.2f} s'
        )
        return Serving(network, engine, pipeline)

    def on_open(self) -> None:
        """Opens network and card, declares the thresholds of its classes, warms up.

        Where the engine must be built that goes on in the background, and this returns.
        """
        self.on_free()  # a frame that would not end may have kept the network from before open
        network = self.find_network(self.config)
        thresholds = {'score_thresholds': network.config.score_thresholds}
        network = replace(network, config=self.parameters.configure(thresholds))
        if reason := network.why_build():
            self._building = Opening(
                str(network.path), lambda say: self._build(network, say, reason)
            )
            self._building.start()
        else:
            self.serving = self.open_network(network, lambda stage: None)

    @property
    def input_qos(self) -> QoSProfile:
        """QoS of the sensor's subscription, by the parameter of that name."""
        return RELIABLE_SENSOR if self.config.input_qos == 'reliable' else SENSOR

    def on_start(self) -> None:
        """Subscribes to the sensor and to transforms.

        Raises:
            NotReadyError: the engine is being built.
            PerceptionError: it could not be built.
        """
        building = self._adopt()
        if building is not None:
            if building.error is not None:
                raise PerceptionError(f'{building.error} (cleanup and configure try again)')
            raise NotReadyError(f'{building.what} {BUSY}: {building.stage}')
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
        building, self._building = self._adopt(), None
        if building is not None:
            building.cancel('the node was cleaned up')
            self._take_built(building)  # it may have ended just before
        self.swap.cancel()
        self._worker.stop()
        serving, self.serving = self.serving, None
        if serving is not None:
            serving.close()

    async def set_values(self, items: list[Parameter]) -> SetParametersResult:
        """Sets parameters; those of a network in service come with that network."""
        return await self.swap.set(items)

    def replace_serving(self, fresh: Serving, apply: Any) -> Serving | None:
        """Puts another network in service between two frames.

        Args:
            fresh: opened and warm.
            apply: sets the parameters that belong to it; false where it could not.

        Returns:
            The network from before, which a frame may still be using; None where nothing changed.
        """
        with self._replacing:
            if not apply():
                return None
            before, self.serving = self.serving, fresh
        return before

    def take(self, message: Any) -> None:
        """The sensor's callback: hands the message to the worker."""
        self.diagnostics.received(self.input_name)
        if self._worker.put(message):
            self.diagnostics.overrun()

    def report(self, report: Report) -> None:
        """Adds the network, and whether the sensor speaks."""
        building = self._adopt()
        report.add('engine/state', self._state(building))
        if building is not None and building.error is None:
            report.find(WARN, f'engine/state {building.stage}: {building.what} {BUSY}')
        report.add('engine/swap', self.swap.state)
        serving = self.serving
        if serving is not None:
            self._report_engine(report, serving)
        if self.active:
            for name, age in self.diagnostics.silent_inputs():
                report.find(
                    STALE,
                    f'input/{name}/age_ms {age * 1e3:.0f}, limit {SILENCE_S * 1e3:.0f}: '
                    f'nothing on {self.topic}',
                )
            if self.tf is not None and self.tf.jumps:
                report.add('time_jumps', self.tf.jumps)

    def _state(self, building: Opening[Serving] | None) -> str:
        if building is not None:
            return 'failed' if building.error is not None else building.stage
        if self.serving is None:
            return 'closed'
        return 'swapping' if self.swap.running else 'ready'

    def _report_engine(self, report: Report, serving: Serving) -> None:
        info = serving.engine.info
        report.add('engine/path', info.path)
        report.add('engine/precision', info.precision)
        report.add('engine/device', info.device)
        report.add('engine/backend', f'{info.backend} {info.version}')
        share = info.dla_layer_pct
        report.add('engine/dla_layer_pct', 'not applicable' if share is None else share)
        report.add('engine/trt_version', info.trt_version or 'not applicable')
        report.add('engine/graph', _graph(serving.pipeline.detector))
        if share is not None and share < 100.0:
            report.find(
                WARN, f'engine/dla_layer_pct {share:.1f}, limit 100: the rest runs on the GPU'
            )

    def _build(self, network: Any, say: Say, reason: str) -> Serving:
        try:
            return self.open_network(network, say, reason)
        except CancelledError:
            raise
        except Exception as error:
            self.get_logger().error(f'{network.path}: {error}')
            raise

    def _adopt(self) -> Opening[Serving] | None:
        """Takes what was built into service, in the thread of the executor.

        Returns:
            The build that still runs or has failed.
        """
        building = self._building
        if building is not None:
            self._take_built(building)
            if building.error is not None and not self.diagnostics.problem:
                self.diagnostics.problem = str(building.error) or repr(building.error)
                self.check_lost(building.error)
        return self._building

    def _take_built(self, building: Opening[Serving]) -> None:
        if building.made is not None:
            self.serving, self._building = building.made, None

    @contextlib.contextmanager
    def _in_work(self) -> Iterator[tuple[Serving, Config]]:
        """The network for one frame, which is not closed meanwhile, and the newest settings."""
        with self._replacing:
            serving, config = self.serving, self.config
            if serving is None:
                raise PerceptionError('the network is closed')
            serving.in_work.acquire()  # free: this is the only thread that works
        try:
            yield serving, config
        finally:
            serving.in_work.release()

    def _work(self, message: Any) -> None:
        started = time.perf_counter()
        with self._in_work() as (serving, config):
            serving.pipeline.detector.config = config
            if self.tf is not None:
                self.tf.timeout_ms = config.tf_timeout_ms
            stamp_ns = self.detect(message, serving.pipeline)
        self.diagnostics.processed(
            stamp_ns, (time.perf_counter() - started) * 1e3, config.expected_time_ms
        )

    def _failed(self, message: Any, error: Exception) -> None:
        self.failed(self.topic, error)


def _stage(step: str, share: float) -> str:
    """What `engine/state` says of a build."""
    return 'waiting for another build' if step == 'waiting' else f'building {share * 100:.0f} %'


def _graph(detector: Any) -> str:
    """Whether the GPU's work is one launch, or why not."""
    reason = getattr(detector, 'no_graph', None)
    return 'not applicable' if reason is None else f'no: {reason}' if reason else 'yes'
