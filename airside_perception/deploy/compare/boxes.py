"""Detections of a network on frames, by the whole detector that its card describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, LidarCard, ModelCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.deploy.compare.average_precision import Found, overlaps
from airside_perception.engine import Engine
from airside_perception.errors import ConfigError
from airside_perception.lidar.detector import LidarDetector
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud, by_score

FAINT = 0.05
"""Lowest score that is looked at, to say what became of a box."""
SLACK = 0.05
"""Scores that are so far below the threshold count as if they reached it: a box at 0.299 hangs by
a thread in any precision. One that fell farther is lost to the vehicle, however well all boxes of
a network are ranked among themselves."""

Detect = Callable[[Image | PointCloud], Found]


@dataclass(frozen=True)
class Change:
    """A box that only one of two networks reports.

    Attributes:
        frame: name of the frame.
        lost: the first has it and the second not; False: the other way round.
        name: class.
        score: of the box.
        other: best score of the class at that place in the other network, below its threshold;
            0: nothing there.
        box: as in `Found`.
    """

    frame: str
    lost: bool
    name: str
    score: float
    other: float
    box: tuple[float, ...]

    def __str__(self) -> str:
        word, who = ('lost ', 'B') if self.lost else ('added', 'A')
        there = f'score {self.other:.2f} there' if self.other else 'none there'
        return f'{word} {self.frame}: {self.name} {self.score:.2f} at {self.place}; {who}: {there}'

    @property
    def place(self) -> str:
        """Corners in pixels, or the centre seen from above in metres."""
        if len(self.box) == 7:
            return f'({self.box[0]:.1f}, {self.box[1]:.1f}) m'
        left, top, right, bottom = (round(value) for value in self.box)
        return f'({left}, {top})-({right}, {bottom}) px'


def detector(engine: Engine, card: ModelCard, intensity_scale: float = 1.0) -> Detect:
    """The detector of a card on an engine, which answers with all from `FAINT` up.

    Before and after the network both sides run the same code, that of the CPU.

    Raises:
        EngineError: engine and card do not fit.
        ConfigError: the card is not that of a detector.
    """
    low = dict.fromkeys(card.published, 0.0)
    if isinstance(card, CameraCard):
        card = replace(card, thresholds={})
        camera = CameraDetector(
            engine, card, CameraConfig(score_threshold=FAINT, score_thresholds=low)
        )
        return lambda raw: found_of(camera.detect(_image(raw)))
    if isinstance(card, LidarCard):
        card = replace(card, thresholds={})
        lidar = LidarDetector(
            engine,
            card,
            LidarConfig(
                score_threshold=FAINT, score_thresholds=low, intensity_scale=intensity_scale
            ),
        )
        return lambda raw: found_of(lidar.detect(_cloud(raw)))
    raise ConfigError(f'{card.path}: {card.architecture} is no detector of images or clouds')


def found_of(boxes: Boxes2D | Boxes3D) -> Found:
    """Detections as average precision takes them."""
    places = boxes.xyxy if isinstance(boxes, Boxes2D) else boxes.boxes
    return Found(boxes.classes, np.asarray(boxes.scores), np.asarray(places))


def thresholds(card: ModelCard) -> dict[str, float]:
    """{class: lowest score that is published} with the defaults of the node and the card."""
    plain = CameraConfig() if isinstance(card, CameraCard) else LidarConfig()
    lowest = plain.score_threshold
    return {name: max(lowest, card.thresholds.get(name, 0.0)) for name in card.published}


def counted(card: ModelCard) -> dict[str, float]:
    """{class: lowest score that counts}."""
    return {name: score - SLACK for name, score in thresholds(card).items()}


def strong(found: Found, lowest: dict[str, float]) -> Found:
    """What would be published."""
    rows = zip(found.classes, found.scores, strict=True)
    return found.select(np.array([score >= lowest.get(name, 0.0) for name, score in rows], bool))


def changes(
    frame: str, first: Found, second: Found, lowest: dict[str, float], iou: float
) -> list[Change]:
    """Boxes above the thresholds that only one of two networks has, lost ones first."""
    a, b = strong(first, lowest), strong(second, lowest)
    pairs = _pairs(a, b, iou)
    lost = [row for row in range(len(a.classes)) if row not in pairs]
    added = [row for row in range(len(b.classes)) if row not in pairs.values()]
    return [
        *(_change(frame, True, a, row, second, iou) for row in lost),
        *(_change(frame, False, b, row, first, iou) for row in added),
    ]


def _change(frame: str, lost: bool, found: Found, row: int, other: Found, iou: float) -> Change:
    there = other.select(np.array([name == found.classes[row] for name in other.classes], bool))
    best = 0.0
    if len(there.classes):
        near = overlaps(found.boxes[row : row + 1], there.boxes)[0] >= iou
        best = float(there.scores[near].max(initial=0.0))
    box = tuple(map(float, found.boxes[row]))
    return Change(frame, lost, found.classes[row], float(found.scores[row]), best, box)


def _pairs(a: Found, b: Found, iou: float) -> dict[int, int]:
    """Boxes of one class that are the same object, best scores first, one to one."""
    if not len(a.classes) or not len(b.classes):
        return {}
    overlap = overlaps(a.boxes, b.boxes)
    overlap[np.array([[x != y for y in b.classes] for x in a.classes], bool)] = 0.0
    pairs: dict[int, int] = {}
    for row in by_score(a.scores):
        best = int(np.argmax(overlap[row]))
        if overlap[row, best] >= iou:
            pairs[int(row)] = best
            overlap[:, best] = 0.0
    return pairs


def _image(raw: Image | PointCloud) -> Image:
    if not isinstance(raw, Image):
        raise ConfigError('the card is that of a camera network, and the frames are clouds')
    return raw


def _cloud(raw: Image | PointCloud) -> PointCloud:
    if not isinstance(raw, PointCloud):
        raise ConfigError('the card is that of a lidar network, and the frames are images')
    return raw
