"""The vehicle's perception run over a bag: in process, in order of stamps, the same every time.

There is no clock, no queue that overflows and no second thread: every image and every cloud is
processed, and the fusion's time is the stamp of the message at hand. Transforms are read from the
whole bag first, as if none were ever late.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from airside_perception import messages
from airside_perception.closing import Closing
from airside_perception.engine import Engine
from airside_perception.errors import MessageError, PerceptionError, TransformError
from airside_perception.fusion.collect import Collector, Gathered
from airside_perception.network import Network
from airside_perception.pipeline import CameraPipeline, FusionPipeline, LidarPipeline
from airside_perception.projection import CameraModel
from airside_perception.replay.bag import BagReader, Record
from airside_perception.replay.order import by_stamp
from airside_perception.replay.settings import POINTS_TOPIC, Camera, Settings
from airside_perception.results import Result, result_of
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D, Boxes3D, Float64

OBJECTS_TOPIC = '/perception/objects'
LIDAR_TOPIC = '/perception/lidar/detections'
CAMERA_TOPIC = '/perception/camera/{}/detections'
CAMERA_2D_TOPIC = '/perception/camera/{}/detections_2d'
TF_TOPICS = ('/tf', '/tf_static')
Pipeline = TypeVar('Pipeline', CameraPipeline, LidarPipeline)
NS_PER_MS = 1_000_000


@dataclass
class Summary:
    """What happened in a run.

    Attributes:
        messages: {topic: results written}.
        detections: {topic: detections in them}.
        times: {stage: milliseconds of every call}.
        drops: {(topic, kind of error): messages without their result}.
        partial: {(topic and what is missing, kind of error): results with less than they should
            have: past sweeps, or one of several sources}.
        causes: the first cause of each of these.
        sets: the counts of the fusion's collector.
        fused: matched, lidar_only, camera_only, penalised: sums over all sets.
    """

    messages: Counter[str] = field(default_factory=Counter)
    detections: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=dict)
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    partial: Counter[tuple[str, str]] = field(default_factory=Counter)
    causes: dict[tuple[str, str], str] = field(default_factory=dict)
    sets: Counter[str] = field(default_factory=Counter)
    fused: Counter[str] = field(default_factory=Counter)

    @property
    def tf_drops(self) -> int:
        """How many of the drops are for transforms."""
        return _of_transforms(self.drops)

    @property
    def tf_failures(self) -> int:
        """How many of the drops and of the results with less than they should have are."""
        return self.tf_drops + _of_transforms(self.partial)

    def failed(self, topic: str, error: PerceptionError) -> None:
        """Counts a message that has no result."""
        self._count(self.drops, topic, error)

    def lacks(self, topic: str, part: str, error: PerceptionError) -> None:
        """Counts a result that has less than it should have."""
        self._count(self.partial, f'{topic} ({part})', error)

    def _count(self, counts: Counter[tuple[str, str]], topic: str, error: PerceptionError) -> None:
        key = topic, type(error).__name__
        counts[key] += 1
        self.causes.setdefault(key, str(error))

    def took(self, stage: str, started_ns: int, steps: dict[str, float]) -> None:
        """Adds the time since `started_ns`, and that of the steps in it, in milliseconds."""
        total = (time.perf_counter_ns() - started_ns) / NS_PER_MS
        for name, value in {stage: total, **{f'{stage}.{k}': v for k, v in steps.items()}}.items():
            self.times.setdefault(name, []).append(value)


def _of_transforms(counts: Mapping[tuple[str, str], int]) -> int:
    return sum(count for (_, kind), count in counts.items() if kind == TransformError.__name__)


class Runner(Closing):
    """Networks opened for one replay. A context manager.

    Args:
        reader: the bag.
        settings: what to run on it.
        write: takes every result, in order.

    Raises:
        EngineError: a network cannot be opened or is not that of its card.
        TransformError: the transforms of the bag contradict each other.
    """

    def __init__(
        self, reader: BagReader, settings: Settings, write: Callable[[Result], None]
    ) -> None:
        self.summary = Summary()
        self._reader = reader
        self._settings = settings
        self._write = write
        self._stack = ExitStack()
        self._engines: dict[tuple[Any, ...], Engine] = {}
        self._transforms = read_transforms(reader, self.summary.failed)
        try:
            self._cameras = [
                (camera, self._closing(CameraPipeline, camera.network))
                for camera in settings.cameras
            ]
            network = settings.lidar
            self._lidar = self._closing(LidarPipeline, network) if network else None
        except PerceptionError:
            self.close()
            raise
        self._calibrations = {
            camera.name: Calibration(camera.info_topic, camera.network.config.rectified)
            for camera in settings.cameras
        }
        fusion = settings.fusion
        self._fusion = FusionPipeline(fusion)
        self._collector: Collector[Boxes3D] = Collector(
            fusion.sources,
            deadline_ns=round(fusion.deadline_ms * NS_PER_MS),
            slop_ns=round(fusion.sync_slop_ms * NS_PER_MS),
            silence_ns=round(fusion.silence_ms * NS_PER_MS),
            queue_size=fusion.queue_size,
            queue_ns=round(fusion.queue_ms * NS_PER_MS),
            complete_sets=True,
        )

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The opened networks, each once."""
        return tuple(self._engines.values())

    def run(self, progress: Callable[[int, int], None] = lambda done, of: None) -> Summary:
        """Processes the whole bag.

        Args:
            progress: called with the number of records read and of all.

        Raises:
            BagError: the bag is damaged.
        """
        steps: dict[str, Callable[[Record], None]] = {}
        for camera, pipeline in self._cameras:
            steps[camera.info_topic] = self._calibration_step(camera)
            steps[camera.image_topic] = self._camera_step(camera, pipeline)
        if self._lidar is not None:
            steps[POINTS_TOPIC] = self._lidar_step(self._lidar)
        topics = self._reader.topics
        count = sum(topics[name].count for name in steps if name in topics)
        records = by_stamp(self._reader.records(steps))
        done = 0
        for stamp_ns, moment in groupby(records, key=lambda record: record.stamp_ns):
            for record in moment:  # all of one stamp before the fusion asks who is silent
                try:
                    steps[record.topic](record)
                except PerceptionError as error:
                    self.summary.failed(record.topic, error)
                done += 1
                progress(done, count)
            self._fuse(self._collector.flush(stamp_ns))
        self._fuse(self._collector.drain())
        self.summary.sets = self._collector.counts
        return self.summary

    def close(self) -> None:
        """Closes the networks; may be called again."""
        self._stack.close()

    def _engine(self, network: Network[Any, Any]) -> Engine:
        """The opened network; cameras with equal settings share one."""
        config = network.config
        key = (
            Path(network.path).resolve(), config.dla_core, config.precision, config.threads,
            config.dla_strict, config.allow_host_code,
        )  # fmt: skip
        if key not in self._engines:
            self._engines[key] = self._stack.enter_context(network.open())
        return self._engines[key]

    def _closing(
        self, kind: Callable[[Network[Any, Any], Engine], Pipeline], network: Network[Any, Any]
    ) -> Pipeline:
        """A pipeline whose detector is closed before the engine, which others may share."""
        pipeline = kind(network, self._engine(network))
        self._stack.callback(pipeline.detector.close)
        return pipeline

    def _calibration_step(self, camera: Camera) -> Callable[[Record], None]:
        def step(record: Record) -> None:
            self._calibrations[camera.name].take(record.data, self._reader.message(record))

        return step

    def _camera_step(self, camera: Camera, pipeline: CameraPipeline) -> Callable[[Record], None]:
        stage = f'camera {camera.name}'
        read = messages.compressed_image if camera.compressed else messages.image

        def step(record: Record) -> None:
            started = time.perf_counter_ns()
            image = read(self._reader.message(record))
            boxes = pipeline.detect(image)
            self._emit(CAMERA_2D_TOPIC.format(camera.name), boxes)
            calibration = self._calibrations[camera.name].read()
            lifted = pipeline.lift(boxes, image, calibration, self._transforms)
            self._emit(CAMERA_TOPIC.format(camera.name), lifted)
            self.summary.took(stage, started, pipeline.detector.timings)
            self._collector.add(camera.name, lifted.stamp_ns, lifted, record.stamp_ns)

        return step

    def _lidar_step(self, pipeline: LidarPipeline) -> Callable[[Record], None]:
        def step(record: Record) -> None:
            started = time.perf_counter_ns()
            message = self._reader.message(record)
            cloud = messages.point_cloud(message, need=pipeline.needed_fields)
            boxes = pipeline.detect(cloud, self._transforms)
            if pipeline.sweeps is not None and pipeline.sweeps.last_error is not None:
                self.summary.lacks(LIDAR_TOPIC, 'past sweeps', pipeline.sweeps.last_error)
            self._emit(LIDAR_TOPIC, boxes)
            self.summary.took('lidar', started, pipeline.detector.timings)
            self._collector.add('lidar', boxes.stamp_ns, boxes, record.stamp_ns)

        return step

    def _fuse(self, sets: Iterable[Gathered[Boxes3D]]) -> None:
        for gathered in sets:
            started = time.perf_counter_ns()
            try:
                result, failures = self._fusion.fuse(
                    gathered.messages, self._lenses(), self._transforms, gathered.stamp_ns
                )
            except PerceptionError as error:
                self.summary.failed(OBJECTS_TOPIC, error)
                continue
            for name, failure in failures.items():
                self.summary.lacks(OBJECTS_TOPIC, name, failure)
            self._emit(OBJECTS_TOPIC, result.boxes)
            self.summary.took('fusion', started, self._fusion.fusion.timings)
            for name in ('matched', 'lidar_only', 'camera_only', 'penalised'):
                self.summary.fused[name] += getattr(result, name)

    def _lenses(self) -> dict[str, CameraModel]:
        known = ((name, item.camera) for name, item in self._calibrations.items())
        return {name: camera for name, camera in known if camera is not None}

    def _emit(self, topic: str, boxes: Boxes2D | Boxes3D) -> None:
        self.summary.messages[topic] += 1
        self.summary.detections[topic] += len(boxes)
        self._write(result_of(topic, boxes))


class Calibration:
    """The camera model of the newest camera_info; one object for as long as nothing changes.

    Args:
        rectified: whether the image is; see `messages.camera_model`.
    """

    def __init__(self, topic: str, rectified: bool = False) -> None:
        self.topic = topic
        self._rectified = rectified
        self.camera: CameraModel | None = None
        self._content = b''

    def take(self, data: bytes, message: Any) -> None:
        """Takes a CameraInfo and its bytes, of which the first 12 are encapsulation and stamp.

        Raises:
            MessageError: it is no calibration; the one before it is not used any longer.
        """
        if self.camera is None or data[12:] != self._content:
            self.camera, self._content = None, data[12:]
            self.camera = messages.camera_model(message, self._rectified)

    def read(self) -> CameraModel:
        """The model.

        Raises:
            MessageError: there is none yet.
        """
        if self.camera is None:
            raise MessageError(f'no calibration yet on {self.topic}')
        return self.camera


Failed = Callable[[str, PerceptionError], None]


def read_transforms(
    reader: BagReader, failed: Failed = lambda topic, error: None
) -> TransformBuffer:
    """All transforms of a bag that are transforms; see `transforms_in`.

    Raises:
        TransformError: they contradict each other.
        BagError: the bag is damaged.
    """
    buffer = TransformBuffer()
    for topic, parent, child, stamp_ns, child2parent in transforms_in(reader, TF_TOPICS, failed):
        if topic == '/tf_static':
            buffer.set_static(parent, child, child2parent)
        else:
            buffer.add(parent, child, stamp_ns, child2parent)
    return buffer


def transforms_in(
    reader: BagReader, topics: Collection[str], failed: Failed = lambda topic, error: None
) -> Iterator[tuple[str, str, str, int, Float64]]:
    """Topic, parent, child, stamp in ns and child2parent [4, 4] of every transform.

    One that is no rotation or not finite is left out, as tf2 does, and told to `failed`.

    Raises:
        BagError: the bag is damaged.
    """
    for record in reader.records(topics):
        for item in reader.message(record).transforms:
            try:
                yield (record.topic, *messages.rigid_transform(item))
            except TransformError as error:
                failed(record.topic, error)
