"""How good a network is on the frames of `benchmarks.precision_frames`, whatever runs it.

Before and after the network everything is the package's own detector on the CPU, so that two
precisions differ by the network alone. Lidar: mean over classes and centre distances of 0.5, 1, 2
and 4 m of nuScenes' average precision, of all objects that returned a point, within 80 m. Camera:
mean over classes of COCO's average precision at an overlap of 0.5, of all objects of 20 visible
pixels or more. Both in points, 100 is perfect, on whole curves: detections from `FLOOR` up, with
the scores of the network, since curves of calibration belong to one set of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, LidarCard, ModelCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.engine import Engine
from airside_perception.errors import ConfigError
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.images import flat, in_images
from airside_perception.evaluate.precision import coco_ap
from airside_perception.evaluate.question import average_precisions, mean
from airside_perception.lidar.detector import LidarDetector
from airside_perception.replay.judge import aliases_of
from benchmarks.precision_frames import Shot, load

FLOOR = 0.02
WITHIN = 80.0
"""Metres."""
MOST = 500
"""Detections in a frame."""
FOLDS = 10


@dataclass(frozen=True)
class Answers:
    """What one network made of the frames.

    Attributes:
        seeds: of each frame; a seed has a frame for every camera.
        frames: detections beside the truth; of images flat boxes (`evaluate.images`).
        classes: that are published.
        images: whether they are of images.
    """

    seeds: tuple[int, ...]
    frames: tuple[Frame, ...]
    classes: tuple[str, ...]
    images: bool

    @cached_property
    def by_class(self) -> dict[str, float]:
        """{class: average precision}, points; NaN where nothing is asked for."""
        return precisions(self.frames, self.classes, self.images)

    @property
    def points(self) -> float:
        """Mean over the classes."""
        return mean(self.by_class.values())

    @cached_property
    def folds(self) -> tuple[float, ...]:
        """`points` without the seeds of one fold, fold by fold."""
        return tuple(map(self._without, range(FOLDS)))

    def _without(self, fold: int) -> float:
        pairs = zip(self.frames, self.seeds, strict=True)
        kept = [frame for frame, seed in pairs if seed % FOLDS != fold]
        return mean(precisions(kept, self.classes, self.images).values())


def precisions(frames: Sequence[Frame], classes: Sequence[str], images: bool) -> dict[str, float]:
    """{class: average precision}, points."""
    if images:
        found = {name: in_images(frames, name) for name in classes}
        return {
            name: 100 * coco_ap(item) if item.asked else float('nan')
            for name, item in found.items()
        }
    near = [frame.in_range(0.0, WITHIN) for frame in frames]
    return {name: 100 * mean(average_precisions(near, name).values()) for name in classes}


def difference(one: Answers, base: Answers) -> tuple[float, float]:
    """How many points `one` has more than `base`, and the standard error of that.

    The error is by the delete-a-group jackknife over seeds (B. Efron, 1982): both looked at the
    same frames, so what is hard in them is hard for both.
    """
    apart = np.array(one.folds) - base.folds
    error = np.sqrt((FOLDS - 1) / FOLDS * ((apart - apart.mean()) ** 2).sum())
    return one.points - base.points, float(error)


def answers(engine: Engine, card: ModelCard, paths: Sequence[Path]) -> Answers:
    """What an engine finds in frames.

    Raises:
        ConfigError: the card is not that of a detector.
        EngineError: engine and card do not fit, or the engine fails.
    """
    if isinstance(card, LidarCard):
        return _lidar(engine, card, paths)
    if isinstance(card, CameraCard):
        return _camera(engine, card, paths)
    raise ConfigError(f'{card.path}: {card.architecture} is no detector of images or clouds')


def _lidar(engine: Engine, card: LidarCard, paths: Sequence[Path]) -> Answers:
    plain = replace(card, thresholds={}, calibration={})
    config = LidarConfig(score_threshold=FLOOR, max_detections=MOST)
    detector, aliases = LidarDetector(engine, plain, config), aliases_of([card])
    seeds, frames = [], []
    for path in paths:
        shot = load(path)
        boxes = detector.detect(shot.cloud)
        truth = _named(shot.objects, aliases)
        asked = np.asarray(truth.points) > 0
        found = Found(boxes.classes, boxes.boxes, boxes.scores)
        frames.append(Frame(replace(truth, asked=asked), found, shot.name))
        seeds.append(shot.seed)
    return Answers(tuple(seeds), tuple(frames), card.published, images=False)


def _camera(engine: Engine, card: CameraCard, paths: Sequence[Path]) -> Answers:
    plain = replace(card, thresholds={}, calibration={})
    config = CameraConfig(score_threshold=FLOOR, max_detections=MOST)
    detector, aliases = CameraDetector(engine, plain, config), aliases_of([card])
    seeds, frames = [], []
    for path in paths:
        shot: Shot = load(path)
        for camera, image in shot.images.items():
            boxes = detector.detect(image)
            found = Found(boxes.classes, flat(boxes.xyxy), boxes.scores)
            truth = _named(shot.visible[camera], aliases)
            frames.append(Frame(truth, found, f'{shot.name} {camera}'))
            seeds.append(shot.seed)
    return Answers(tuple(seeds), tuple(frames), card.published, images=True)


def _named(truth: Truth, aliases: Mapping[str, str]) -> Truth:
    """The objects by the names that the networks publish."""
    return replace(truth, classes=tuple(aliases.get(name, name) for name in truth.classes))
