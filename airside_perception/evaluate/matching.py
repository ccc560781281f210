"""Which detection found which object: the best score chooses first.

As in nuScenes' development kit but for objects that need not be found: the kit takes those out of
range and those without a lidar or radar point out of the truth, so that what finds one is a false
alarm. Here each of them excuses one detection, the best, as an ignored object does in COCO's
evaluation and in KITTI's development kit; further ones are false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.evaluate.frames import Frame
from airside_perception.overlap import bev_iou
from airside_perception.types import HEIGHT, LENGTH, WIDTH, Float64, Int64, Z, by_score

Nearness = Callable[[Float64, Float64], Float64]
"""Boxes [N, 7] and [M, 7] to [N, M]: the larger the better."""


@dataclass(frozen=True)
class Matches:
    """Detections of one class in all frames, best score first, and what became of each.

    Attributes:
        scores: float64 [D].
        hits: bool [D], whether it found an object of its own.
        frames: int64 [D], number of its frame.
        rows: int64 [D], its row in `Frame.found`.
        objects: int64 [D], row of the object in `Frame.truth`, -1 for a false alarm.
        asked: number of objects that are asked for.
    """

    scores: Float64
    hits: NDArray[np.bool_]
    frames: Int64
    rows: Int64
    objects: Int64
    asked: int


def centre_nearness(found: Float64, truth: Float64) -> Float64:
    """Minus the distance of the centres, seen from above, metres."""
    apart: Float64 = np.hypot(
        found[:, None, 0] - truth[None, :, 0], found[:, None, 1] - truth[None, :, 1]
    )
    return -apart


def volume_iou(found: Float64, truth: Float64) -> Float64:
    """Intersection over union of upright boxes in space."""
    footprint = bev_iou(found, truth)
    area_a, area_b = (item[:, LENGTH] * item[:, WIDTH] for item in (found, truth))
    shared = footprint * (area_a[:, None] + area_b[None]) / (1.0 + footprint)
    low_a, low_b = (item[:, Z] - item[:, HEIGHT] / 2 for item in (found, truth))
    high_a, high_b = (item[:, Z] + item[:, HEIGHT] / 2 for item in (found, truth))
    tall = np.minimum(high_a[:, None], high_b[None]) - np.maximum(low_a[:, None], low_b[None])
    shared = shared * np.maximum(tall, 0.0)
    union = (area_a * found[:, HEIGHT])[:, None] + (area_b * truth[:, HEIGHT])[None] - shared
    iou: Float64 = np.divide(shared, union, out=np.zeros_like(union), where=union > 0.0)
    return iou


def match(
    frames: Sequence[Frame], name: str, nearness: Nearness, least: float, inclusive: bool = True
) -> Matches:
    """Matches of the detections of one class.

    Over all frames together the best score chooses first, equal scores in the order of frames and
    rows; it takes the nearest object of its class that is asked for and still free. Without one it
    takes the nearest free one that is not asked for, and is left out, as is one that finds nothing
    where nobody labelled what there is.

    Args:
        nearness: of boxes; least: what a hit must reach.
        inclusive: whether `least` itself is a hit.
    """
    columns: list[tuple[float, int, int]] = []
    tables: list[tuple[Int64, Int64, Float64]] = []
    asked = 0
    for number, frame in enumerate(frames):
        rows = _rows(frame.found.classes, name)
        objects = _rows(frame.truth.classes, name)
        near = nearness(frame.found.boxes[rows], frame.truth.boxes[objects])
        tables.append((rows, objects, near))
        asked += int(np.asarray(frame.truth.asked)[objects].sum())
        columns += [(float(frame.found.scores[row]), number, i) for i, row in enumerate(rows)]
    taken = [np.zeros(len(objects), dtype=bool) for _, objects, _ in tables]
    kept: list[tuple[float, bool, int, int, int]] = []
    for place in by_score([score for score, _, _ in columns]).tolist():
        score, number, i = columns[place]
        rows, objects, near = tables[number]
        reach = near[i] >= least if inclusive else near[i] > least
        able = reach & ~taken[number]
        wanted = np.asarray(frames[number].truth.asked)[objects]
        if able.any():
            first = able & wanted if (able & wanted).any() else able
            best = int(np.where(first, near[i], -np.inf).argmax())
            taken[number][best] = True
            if wanted[best]:
                kept.append((score, True, number, int(rows[i]), int(objects[best])))
        elif np.asarray(frames[number].found.labelled)[rows[i]]:
            kept.append((score, False, number, int(rows[i]), -1))
    return Matches(
        np.array([item[0] for item in kept], np.float64),
        np.array([item[1] for item in kept], bool),
        np.array([item[2] for item in kept], np.int64),
        np.array([item[3] for item in kept], np.int64),
        np.array([item[4] for item in kept], np.int64),
        asked,
    )


def _rows(classes: Sequence[str], name: str) -> Int64:
    return np.array([row for row, item in enumerate(classes) if item == name], np.int64)
