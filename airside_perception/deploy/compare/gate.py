"""The accuracy gate: average precision of one network against that of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import ModelCard
from airside_perception.deploy.compare.average_precision import (
    Found,
    Precision,
    Truth,
    drop,
    mean_precision,
    precisions,
    weighted_precision,
)
from airside_perception.deploy.compare.boxes import (
    Change,
    Detect,
    changes,
    counted,
    detector,
    strong,
    thresholds,
)
from airside_perception.deploy.compare.labels import read_truth
from airside_perception.deploy.feeds import Feeds
from airside_perception.engine import Engine
from airside_perception.errors import ConfigError

MAX_DROP, IOU = 0.02, 0.5
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Gate:
    """What the gate says about B.

    Attributes:
        truth: `boxes of A` or `labels`.
        frames: how many were looked at.
        a, b: {class: average precision} of both; '' is all classes in one curve. Against boxes of
            A that of A is 1 by definition.
        drop: how much lower the average precision of B is, see `average_precision.drop`.
        max_drop: more is a failure.
        iou: least overlap of a hit.
        changes: boxes above the thresholds of the card that only one of the two has.
        kept: boxes that A reports on these frames.
    """

    truth: str
    frames: int
    a: Mapping[str, Precision]
    b: Mapping[str, Precision]
    drop: float
    max_drop: float
    iou: float
    changes: tuple[Change, ...]
    kept: int

    @property
    def good(self) -> bool:
        """Whether B passes."""
        return self.drop <= self.max_drop

    @property
    def lost(self) -> int:
        """Boxes that A has and B has not."""
        return sum(item.lost for item in self.changes)

    @property
    def added(self) -> int:
        """Boxes that B has and A has not."""
        return len(self.changes) - self.lost

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'truth': self.truth,
            'frames': self.frames,
            'good': self.good,
            'drop': self.drop,
            'max_drop': self.max_drop,
            'iou': self.iou,
            'ap': {'a': self.a[''].ap, 'b': self.b[''].ap},
            'weighted_ap': {
                'a': _number(weighted_precision(self.a)),
                'b': _number(weighted_precision(self.b)),
            },
            'mean_ap': {
                'a': _number(mean_precision(self.a)),
                'b': _number(mean_precision(self.b)),
            },
            'classes': {
                name: {'a': _precision(self.a[name]), 'b': _precision(self.b[name])}
                for name in sorted(self.a)
                if name
            },
            'boxes': self.kept,
            'lost': self.lost,
            'added': self.added,
            'changes': [vars(item) for item in self.changes],
        }


def gate_on_boxes(
    a: Engine,
    b: Engine,
    card: ModelCard,
    feeds: Feeds,
    max_drop: float = MAX_DROP,
    iou: float = IOU,
    progress: Progress = lambda step, share: None,
) -> Gate:
    """B against the boxes that A reports.

    Truth are the boxes of A at the thresholds of its card. What A has below them is neither asked
    for nor a false alarm of B. Of B counts what reaches the threshold but for `boxes.SLACK`.

    Raises:
        ConfigError: A reports nothing on these frames, or `iou` or `max_drop` are out of range.
        EngineError: a network does not fit the card, or fails.
    """
    _check(max_drop, iou)
    pairs, names = _detections(a, b, card, feeds, progress)
    lowest = thresholds(card)
    truths = [boxes_as_truth(first, lowest) for first, _ in pairs]
    if not any(truth.asked.any() for truth in truths):
        raise ConfigError(
            f'A reports nothing on these {len(pairs)} frames, so there is nothing to compare '
            'with; give frames with objects'
        )
    return _gate('boxes of A', pairs, truths, names, card, max_drop, iou)


def gate_on_labels(
    a: Engine,
    b: Engine,
    card: ModelCard,
    feeds: Feeds,
    labels: str | Path,
    height: float = 0.0,
    max_drop: float = MAX_DROP,
    iou: float = IOU,
    progress: Progress = lambda step, share: None,
) -> Gate:
    """Both against labels; of both counts what reaches the threshold but for `boxes.SLACK`.

    Args:
        feeds: frames of `labels.frames_of`.
        labels: folder of the data set.
        height: of the lidar above the ground, metres.

    Raises:
        ConfigError: labels are missing or malformed, or hold no object of a class of the card.
        EngineError: a network does not fit the card, or fails.
    """
    _check(max_drop, iou)
    pairs, names = _detections(a, b, card, feeds, progress)
    truths = [
        read_truth(labels, Path(feeds.name(i)).stem, feeds.raw(i), card, height)
        for i in range(len(feeds))
    ]
    if not any(_objects(truth) for truth in truths):
        raise ConfigError(f'{labels}: no labelled object of {", ".join(card.published)}')
    return _gate('labels', pairs, truths, names, card, max_drop, iou)


def _objects(truth: Truth) -> int:
    pairs = zip(truth.classes, truth.asked, strict=True)
    return sum(bool(names and asked) for names, asked in pairs)


def boxes_as_truth(found: Found, lowest: dict[str, float]) -> Truth:
    """Detections as truth: asked for are those at or above the thresholds."""
    rows = zip(found.classes, found.scores, strict=True)
    asked = np.array([score >= lowest.get(name, 0.0) for name, score in rows], bool)
    return Truth(tuple((name,) for name in found.classes), found.boxes, asked)


def _gate(
    title: str,
    pairs: Sequence[tuple[Found, Found]],
    truths: Sequence[Truth],
    names: Sequence[str],
    card: ModelCard,
    max_drop: float,
    iou: float,
) -> Gate:
    lowest, least = thresholds(card), counted(card)
    both = list(zip(pairs, truths, strict=True))
    a, b = (
        precisions([(strong(pair[side], least), truth) for pair, truth in both], iou)
        for side in (0, 1)
    )
    nothing = {name: Precision(math.nan, 0, 0, 0) for name in (*a, *b)}
    different = [
        item
        for name, (first, second) in zip(names, pairs, strict=True)
        for item in changes(name, first, second, lowest, iou)
    ]
    return Gate(
        truth=title,
        frames=len(pairs),
        a={**nothing, **a},
        b={**nothing, **b},
        drop=drop(a, b),
        max_drop=max_drop,
        iou=iou,
        changes=tuple(different),
        kept=sum(len(strong(first, lowest).classes) for first, _ in pairs),
    )


def _detections(
    a: Engine, b: Engine, card: ModelCard, feeds: Feeds, progress: Progress
) -> tuple[list[tuple[Found, Found]], list[str]]:
    both: tuple[Detect, Detect] = (detector(a, card), detector(b, card))
    pairs, names = [], []
    for index in range(len(feeds)):
        progress('boxes', index / len(feeds))
        raw = feeds.raw(index)
        pairs.append((both[0](raw), both[1](raw)))
        names.append(Path(feeds.name(index)).name)
    progress('boxes', 1.0)
    return pairs, names


def _precision(item: Precision) -> dict[str, Any]:
    return {**vars(item), 'ap': _number(item.ap)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON knows no NaN


def _check(max_drop: float, iou: float) -> None:
    if not 0.0 <= max_drop <= 1.0:
        raise ConfigError(f'max drop {max_drop}: expected 0 to 1, of average precision')
    if not 0.0 < iou <= 1.0:
        raise ConfigError(f'IoU {iou}: expected more than 0, at most 1')
