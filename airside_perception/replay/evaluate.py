"""`replay evaluate`: runs bags that have ground truth, or reads results, and judges both.

The shipped configuration runs as it is, so that average precision ends where its thresholds cut
the detections off; with a `floor`, detectors answer from that score up and the curves are whole,
while recall and precision stay those at the thresholds. `uncalibrated` leaves that choice as it
is and gives what was chosen the scores of the networks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airside_perception.card import ModelCard, load_card
from airside_perception.card.scores import network_threshold
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.errors import BagError, CardError, ConfigError
from airside_perception.evaluate.evaluation import Figures, evaluate
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.images import ImageFigures, evaluate_images
from airside_perception.evaluate.question import RANGES, Question
from airside_perception.network import Network
from airside_perception.params import read_parameters
from airside_perception.replay.bag import BagReader
from airside_perception.replay.judge import Judged, aliases_of, judge, judge_images, rank
from airside_perception.replay.report import thresholds
from airside_perception.replay.runner import (
    OBJECTS_TOPIC,
    Runner,
    Summary,
    read_transforms,
)
from airside_perception.replay.settings import (
    THREADS,
    Settings,
    load_settings,
    rectified_cameras,
)
from airside_perception.replay.truth import Moment, read_image_truth, read_labelled, read_truth
from airside_perception.replay.view import lenses
from airside_perception.results import Result, meta_path, read_results

Progress = Callable[[int, int], None]
AnyNetwork = Network[Any, Any]


@dataclass(frozen=True)
class Options:
    """What is run and what is asked; see `replay evaluate --help`."""

    bags: tuple[Path, ...]
    results: Path | None = None
    topics: tuple[str, ...] = ()
    params: Path | None = None
    classes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    max_range: float = 80.0
    ranges: tuple[float, ...] = RANGES
    floor: float | None = None
    uncalibrated: bool = False
    threads: int = THREADS


@dataclass(frozen=True)
class Place:
    """Where a frame is."""

    bag: Path
    moment: Moment


@dataclass
class Evaluation:
    """What came out.

    Attributes:
        figures, frames, questions: by topic.
        images: {topic of boxes in images: figures}, where the truth of images is known.
        places: of the frames, by topic too.
        times: {stage: milliseconds of every call}; empty where results were read.
        silent, strays: {topic: moments without a message, messages without a truth}.
        unlabelled: {topic: detections where nobody labelled what there is}.
        unknown: {class of the truth: objects} of classes that nobody asks for.
        calibrated: classes whose scores a card turns into probabilities, by card.
    """

    figures: dict[str, Figures] = field(default_factory=dict)
    images: dict[str, ImageFigures] = field(default_factory=dict)
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    silent: Counter[str] = field(default_factory=Counter)
    strays: Counter[str] = field(default_factory=Counter)
    unlabelled: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    calibrated: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """Results of one bag and what its detectors say about themselves.

    Attributes:
        detectors: {topic: {class: lowest score that is published}}; every class is in it.
        fused: the same of fused objects.
        values_of: the parameters of a node, by its name.
    """

    results: Sequence[Result]
    cards: tuple[ModelCard, ...] = ()
    detectors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fused: Mapping[str, float] = field(default_factory=dict)
    times: Mapping[str, list[float]] = field(default_factory=dict)
    values_of: Callable[[str], Mapping[str, Any]] = lambda node: {}

    @property
    def thresholds(self) -> dict[str, Mapping[str, float]]:
        return {**self.detectors, OBJECTS_TOPIC: self.fused}

    def classes(self, topic: str) -> tuple[str, ...]:
        """What the topic can hold; empty where that is not known."""
        if topic != OBJECTS_TOPIC:
            return tuple(self.detectors.get(topic, ()))
        return tuple(dict.fromkeys(name for own in self.detectors.values() for name in own))


def evaluate_bags(options: Options, progress: Progress = lambda done, of: None) -> Evaluation:
    """Runs and judges every bag.

    Raises:
        BagError: a bag or result file that is not readable, has no ground truth, or no detections
            on the topics asked for.
        ConfigError: nothing to run, or results together with several bags.
    """
    if options.results is not None and len(options.bags) != 1:
        raise ConfigError('--results is of one bag; name that bag alone')
    found = Evaluation()
    asked: dict[str, dict[str, None]] = {}
    lowest: dict[str, dict[str, float]] = {}
    flats: dict[str, list[Frame]] = {}
    for path in options.bags:
        with BagReader(path) as reader:
            moments = read_truth(reader)
            transforms = read_transforms(reader)
            run = _results(reader, options, progress)
            aliases = {**aliases_of(run.cards), **options.aliases}
            views = lenses(reader, transforms, rectified_cameras(reader.topics, run.values_of))
            judged = judge(moments, run.results, transforms, aliases, views, path.name)
            for topic, item in _in_images(reader, run, aliases, path.name).items():
                if options.topics and topic not in options.topics:
                    continue
                flats.setdefault(topic, []).extend(item.frames)
                found.silent[topic] += item.silent
                found.strays[topic] += item.strays
                found.unlabelled[topic] += item.unlabelled
                asked.setdefault(topic, {}).update(dict.fromkeys(_classes(run, topic, item)))
                lowest.setdefault(topic, {}).update(run.thresholds.get(topic, {}))
        for topic, item in judged.items():
            if options.topics and topic not in options.topics:
                continue
            found.frames.setdefault(topic, []).extend(item.frames)
            found.places.setdefault(topic, []).extend(Place(path, moment) for moment in moments)
            found.silent[topic] += item.silent
            found.strays[topic] += item.strays
            found.unlabelled[topic] += item.unlabelled
            asked.setdefault(topic, {}).update(dict.fromkeys(_classes(run, topic, item)))
            lowest.setdefault(topic, {}).update(run.thresholds.get(topic, {}))
        for stage, values in run.times.items():
            found.times.setdefault(stage, []).extend(values)
        for card in run.cards:
            if card.calibration:
                found.calibrated[card.name] = tuple(card.calibration)
        known = options.classes or {name for names in asked.values() for name in names}
        called = (aliases.get(n, n) for moment in moments for n in moment.truth.classes)
        found.unknown.update(name for name in called if name not in known)
    if not found.frames and not flats:
        wanted = ', '.join(options.topics) or 'any topic'
        raise BagError(f'{options.bags[0]}: no detections on {wanted}')
    for topic in sorted(found.frames, key=rank):
        classes = options.classes or tuple(asked[topic])
        question = Question(classes, lowest[topic], options.max_range, options.ranges)
        found.questions[topic] = question
        found.figures[topic] = evaluate(found.frames[topic], question)
    for topic in sorted(flats):
        question = Question(options.classes or tuple(asked[topic]), lowest[topic])
        found.images[topic] = evaluate_images(flats[topic], question)
    return found


def run_detectors(
    reader: BagReader, settings: Settings, progress: Progress = lambda done, of: None
) -> tuple[list[Result], Summary]:
    """All results of a bag.

    Raises:
        BagError: no message gave a result.
    """
    results: list[Result] = []
    with Runner(reader, settings, results.append) as runner:
        summary = runner.run(progress)
    if not results:
        causes = '; '.join(summary.causes.values())
        raise BagError(f'{reader.path}: no message gave a result: {causes or "none came"}')
    return results, summary


def every_network(settings: Settings, change: Callable[[AnyNetwork], AnyNetwork]) -> Settings:
    """The settings with another network in the place of each."""
    cameras = tuple(replace(item, network=change(item.network)) for item in settings.cameras)
    lidar = None if settings.lidar is None else change(settings.lidar)
    return replace(settings, cameras=cameras, lidar=lidar)


def with_floor(network: AnyNetwork, floor: float) -> AnyNetwork:
    """A network that answers with every score from `floor` up."""
    own = dict.fromkeys(network.card.published, 0.0)
    config = replace(network.config, score_threshold=floor, score_thresholds=own)
    return replace(network, config=config)


def without_curves(network: AnyNetwork) -> AnyNetwork:
    """The same detections with the scores of the network: thresholds are taken back.

    What is chosen by a probability is chosen by the score that has it: both answer with the same
    boxes.
    """
    config: CameraConfig | LidarConfig = network.config
    card = network.card
    own = {**card.thresholds, **config.score_thresholds}
    lowest = {
        name: min(
            network_threshold(card, name, max(config.score_threshold, own.get(name, 0.0))), 1.0
        )
        for name in card.published
    }
    plain = replace(config, score_threshold=0.0, score_thresholds=lowest)
    return replace(network, config=plain, card=replace(card, calibration={}))


def _results(reader: BagReader, options: Options, progress: Progress) -> _Run:
    if options.results is not None:
        return _read(options.results, options.params)
    settings = load_settings(reader.topics, options.params, options.threads)
    plain = every_network(settings, without_curves) if options.uncalibrated else settings
    own = thresholds(plain)
    fused: dict[str, float] = {}
    if options.floor is not None:
        floor = options.floor
        settings = every_network(settings, lambda network: with_floor(network, floor))
        for table in own.values():  # what one sensor would publish is published
            fused.update({n: min(value, fused.get(n, value)) for n, value in table.items()})
    if options.uncalibrated:  # the floor, too, is one of probabilities: it chooses the same
        settings = every_network(settings, without_curves)
    results, summary = run_detectors(reader, settings, progress)
    networks: list[Any] = [camera.network for camera in settings.cameras]
    networks += [settings.lidar] if settings.lidar is not None else []
    cards = {network.card.path: network.card for network in networks}
    values_of = settings.parameters.for_node
    return _Run(results, tuple(cards.values()), own, fused, summary.times, values_of)


def _read(path: Path, params: Path | None) -> _Run:
    """Results of an earlier run, and what they say of their cards where these are still there.

    Args:
        params: what they were made with, where nothing beside them says so.
    """
    run = _Run(read_results(path))
    if params is not None:
        run = replace(run, values_of=read_parameters(params).for_node)
    try:
        meta: Any = json.loads(meta_path(path).read_text(encoding='utf-8'))
        values = dict(meta['parameters']['values'])
        run = replace(run, values_of=lambda node: values.get(node, {}))
        cards = tuple(load_card(item['path']) for item in meta['cards'])
        return replace(run, cards=cards, detectors=dict(meta['thresholds']))
    except (OSError, ValueError, KeyError, TypeError, CardError):
        return run


def _in_images(
    reader: BagReader, run: _Run, aliases: Mapping[str, str], name: str
) -> dict[str, Judged]:
    """Frames of every topic with boxes in images, of cameras whose truth the bag holds."""
    by_topic: dict[str, list[Result]] = {}
    for result in run.results:
        by_topic.setdefault(result.topic, []).append(result)
    found = {}
    for topic, results in sorted(by_topic.items()):
        if topic.endswith('_2d'):
            camera = topic.split('/')[-2]
            visible = read_image_truth(reader, camera)
            if visible:
                where = read_labelled(reader, camera)
                found[topic] = judge_images(visible, results, aliases, name, where)
    return found


def _classes(run: _Run, topic: str, judged: Judged) -> tuple[str, ...]:
    """What a topic can hold: what its network publishes, or else what is in it anywhere."""
    seen = {name for frame in judged.frames for name in frame.found.classes}
    return run.classes(topic) or tuple(sorted(seen))
