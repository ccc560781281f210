"""Boxes in images beside what is visible there: COCO's average precision, recall, calibration.

A box in an image is held as a flat box in space, (x and y of its centre, 0, width, height, 0, 0)
in pixels, so that `matching` serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.calibration import expected_calibration_error
from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.matching import Matches, match
from airside_perception.evaluate.precision import coco_ap
from airside_perception.evaluate.question import Counts, Question, counts_of, mean
from airside_perception.overlap import iou_2d
from airside_perception.types import Float64

IOU = 0.5
STRICTER = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's ten overlaps, from 0.5 to 0.95."""


@dataclass(frozen=True)
class ImageClass:
    """One class in the images of one camera.

    Attributes:
        name: of the class.
        counts: at its threshold and an overlap of 0.5.
        ap50, ap: at 0.5, and the mean over 0.5 to 0.95.
        calibration_error: at 0.5.
    """

    name: str
    counts: Counts
    ap50: float
    ap: float
    calibration_error: float


@dataclass(frozen=True)
class ImageFigures:
    """All classes in the images of one camera.

    Attributes:
        frames: how many.
        classes: those that are asked for somewhere.
        counts: of all classes of the question.
        ap50, ap: means over `classes`.
        calibration_error: of all detections together.
    """

    frames: int
    classes: tuple[ImageClass, ...]
    counts: Counts
    ap50: float
    ap: float
    calibration_error: float


def flat(xyxy: Float64) -> Float64:
    """Corners [N, 4] in pixels as flat boxes [N, 7]."""
    corners = np.asarray(xyxy, np.float64).reshape(-1, 4)
    boxes = np.zeros((len(corners), 7))
    boxes[:, :2] = (corners[:, :2] + corners[:, 2:]) / 2
    boxes[:, 3:5] = corners[:, 2:] - corners[:, :2]
    return boxes


def image_iou(found: Float64, truth: Float64) -> Float64:
    """Intersection over union of flat boxes, [N, M]."""
    a, b = (
        np.hstack([i[:, :2] - i[:, 3:5] / 2, i[:, :2] + i[:, 3:5] / 2]) for i in (found, truth)
    )
    return iou_2d(a, b)


def in_images(frames: Sequence[Frame], name: str, iou: float = IOU) -> Matches:
    """Matches of one class of flat boxes by their overlap."""
    return match(frames, name, image_iou, iou)


def evaluate_images(frames: Sequence[Frame], question: Question) -> ImageFigures:
    """Every figure of flat boxes; ranges do not count here."""
    found = {name: in_images(frames, name) for name in question.classes}
    counts = {name: counts_of(item, question.threshold(name)) for name, item in found.items()}
    classes = []
    for name in question.classes:
        if found[name].asked:
            aps = [coco_ap(in_images(frames, name, iou)) for iou in STRICTER]
            error = expected_calibration_error(found[name].scores, found[name].hits)
            classes.append(ImageClass(name, counts[name], aps[0], mean(aps), error))
    scores = np.concatenate([np.empty(0), *(item.scores for item in found.values())])
    hits = np.concatenate([np.empty(0, bool), *(item.hits for item in found.values())])
    return ImageFigures(
        len(frames),
        tuple(classes),
        sum(counts.values(), Counts()),
        mean(item.ap50 for item in classes),
        mean(item.ap for item in classes),
        expected_calibration_error(scores, hits),
    )
