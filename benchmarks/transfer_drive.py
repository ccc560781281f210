"""Lidar networks on a real drive that nobody labelled, beside what an image network sees in it.

The truth are YOLOX-nano's answers in every third image: agreement, not accuracy. Boxes of the
lidar are drawn into the image; one that overlaps an answer by `IOU` has found it (boxes around
hidden parts are larger than what is seen, hence so little). Asked for are sure answers, as high in
the image as their class is at 30 m or nearer and not cut by its sides; a car may be called a truck
and the reverse. The same few vehicles are there again and again, so the standard error is too
small. Its cameras see a quarter of what the lidar does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.images import in_images
from airside_perception.evaluate.precision import coco_ap
from airside_perception.geometry import apply, corners, transform
from airside_perception.types import Float64
from benchmarks.lidar_frames import Found
from benchmarks.spread import standard_error
from benchmarks.transfer import NAMES, WITHIN
from benchmarks.transfer_camera import EVERY, Seen, Sight, agreed, frame, reference

IOU = 0.3
HEIGHTS: Mapping[str, float] = {'car': 1.5, 'truck': 3.0, 'person': 1.7}
"""Metres."""
BORDER = 4.0
"""Pixels from a side of the image at which a box is taken as cut off."""
NEAREST = 0.5
"""Depth in metres below which a corner has no place in the image."""
TITLE = 'agreement with YOLOX-nano, a drive'


@dataclass(frozen=True)
class Moment:
    """A scan float32 [N, 4] in base_link, and what the image network answers."""

    points: NDArray[np.float32]
    sight: Sight


@dataclass(frozen=True)
class Drive:
    """Moments of one camera: focal lengths and principal point [3, 3], pose float64 [4, 4]."""

    moments: Sequence[Moment]
    matrix: Float64
    base2camera: Float64


def load(data: Path) -> Drive:
    """The drive in a folder of recordings."""
    folder = data / 'drive'
    values = yaml.safe_load((folder / 'calibration.yaml').read_text(encoding='utf-8'))
    height = float(values['lidar_height'])
    rectify = transform(np.array(values['rect_rotation'], np.float64), np.zeros(3))
    base2lidar = transform(np.eye(3), np.array([0.0, 0.0, -height]))
    base2camera = rectify @ np.array(values['lidar2camera'], np.float64) @ base2lidar
    matrix = np.array(values['K'], np.float64)
    network, moments = reference(data), []
    for image in sorted((folder / 'image_02').glob('*.png'))[::EVERY]:
        points = np.fromfile(folder / 'velodyne' / f'{image.stem}.bin', np.float32).reshape(-1, 4)
        points[:, 2] += np.float32(height)
        moments.append(Moment(points, near(agreed(network, image), float(matrix[1, 1]))))
    return Drive(moments, matrix, base2camera)


def near(sight: Sight, focal: float) -> Sight:
    """Answers of which only those that are whole and as high as at 30 m are asked for."""
    least = np.array([HEIGHTS[names[0]] * focal / WITHIN for names in sight.names])
    tall = sight.boxes[:, 3] - sight.boxes[:, 1] >= least.reshape(-1)
    width = sight.pixels.shape[1]
    inside = (sight.boxes[:, 0] > BORDER) & (sight.boxes[:, 2] < width - BORDER)
    either = tuple(
        names if names[0] == 'person' else (names[0], 'truck' if names[0] == 'car' else 'car')
        for names in sight.names
    )
    return replace(sight, names=either, asked=sight.asked & tall & inside)


def seen(drive: Drive, found: Found, size: tuple[int, int]) -> Seen:
    """Boxes of a lidar within 30 m as an image of `size` (width, height) would show them."""
    rows, boxes = [], []
    for row, box in enumerate(found.boxes):
        camera = apply(drive.base2camera, corners(box[None])[0])
        if np.hypot(*box[:2]) >= WITHIN or camera[:, 2].min() < NEAREST:
            continue
        pixels = camera @ drive.matrix.T
        places = pixels[:, :2] / pixels[:, 2:]
        whole = np.concatenate([places.min(axis=0), places.max(axis=0)])
        cut = np.clip(whole, 0.0, np.tile(np.array(size, np.float64), 2))
        area, all_of_it = np.prod(cut[2:] - cut[:2]), np.prod(whole[2:] - whole[:2])
        if area >= 0.5 * all_of_it:
            rows.append(row)
            boxes.append(cut)
    names = tuple(found.names[row] for row in rows)
    return Seen(names, found.scores[rows], np.array(boxes, np.float64).reshape(-1, 4))


def frames(drive: Drive, found: Sequence[Found]) -> list[judged.Frame]:
    """Moments and detections as an evaluation takes them."""
    return [
        frame(moment.sight, seen(drive, item, moment.sight.pixels.shape[1::-1]))
        for moment, item in zip(drive.moments, found, strict=True)
    ]


def figures(taken: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """{class: objects, AP at `IOU`, its standard error}."""
    table = {}
    for name in NAMES:
        found = in_images(taken, name, IOU)
        error = standard_error(taken, name, [found], coco_ap)
        table[name] = {'objects': found.asked, 'ap': coco_ap(found), 'se': error}
    return table
