"""Labelled frames in KITTI's layout as truth for a detector, in its own classes.

A folder with `label_2/NAME.txt` and, for cameras, `image_2/NAME.png`; for lidars
`velodyne/NAME.bin` and `calib/NAME.txt`. The format is that of the development kit of KITTI's
object benchmark.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import CameraCard, ModelCard
from airside_perception.deploy.compare.average_precision import Truth
from airside_perception.errors import ConfigError
from airside_perception.geometry import apply, invert, points_inside, transform
from airside_perception.types import Float64, Image, PointCloud

NAMES = {
    'Car': ('car',),
    'Van': ('car', 'truck'),
    'Truck': ('truck', 'bus'),
    'Tram': ('bus', 'truck'),
    'Misc': (),
    'Pedestrian': ('person',),
    'Person_sitting': ('person',),
    'Cyclist': ('cyclist', 'person'),
}
"""What detectors may call them, the first name counts; COCO boxes the rider as a person."""
UNLABELLED = 'DontCare'
COLUMNS = 15
LEAST_POINTS = 5
"""Objects with fewer lidar points are not asked for."""
LEAST_HEIGHT = 25.0
"""Pixels; KITTI's own limit for what counts as moderate or hard."""
INSIDE = 0.5
"""A detection with this part of its area in an unlabelled region is not judged."""
NEAREST = 1.0
"""Metres in front of the camera: what is nearer, nobody labelled."""


def frames_of(folder: str | Path, card: ModelCard) -> Path:
    """The folder of images or clouds of a labelled data set.

    Raises:
        ConfigError: it is not laid out like KITTI's.
    """
    folder = Path(folder)
    part = 'image_2' if isinstance(card, CameraCard) else 'velodyne'
    for name in (part, 'label_2', *(() if part == 'image_2' else ('calib',))):
        if not (folder / name).is_dir():
            raise ConfigError(
                f'{folder}: no {name} in it; labels need {part} and label_2'
                + ('' if part == 'image_2' else ' and calib')
                + " in KITTI's layout"
            )
    return folder / part


def read_truth(
    folder: str | Path, name: str, raw: Image | PointCloud, card: ModelCard, height: float
) -> Truth:
    """The objects of one frame, for a detector with this card.

    Args:
        folder: of the data set.
        name: of the frame, without ending.
        raw: the frame.
        height: of the lidar above the ground, metres; clouds are that much higher than the lidar.

    Raises:
        ConfigError: the labels or the calibration are missing or malformed.
    """
    folder = Path(folder)
    rows = read_objects(folder / 'label_2' / f'{name}.txt')
    published = set(card.published)
    names = [tuple(n for n in NAMES.get(row[0], ()) if n in published) for row in rows]
    objects = [i for i, row in enumerate(rows) if row[0] != UNLABELLED]
    regions = np.array([rows[i][1][3:7] for i in range(len(rows)) if i not in objects])
    regions = regions.reshape(-1, 4)
    kept = tuple(names[i] for i in objects)
    values = np.array([rows[i][1] for i in objects]).reshape(-1, COLUMNS - 1)
    if isinstance(raw, Image):
        boxes = values[:, 3:7]
        asked = boxes[:, 3] - boxes[:, 1] >= LEAST_HEIGHT
        return Truth(kept, boxes, asked, lambda found: ~_within(found, regions))
    projection, lidar2camera = _calibration(folder / 'calib' / f'{name}.txt')
    base2camera = lidar2camera @ transform(np.eye(3), np.array([0.0, 0.0, -height]))
    boxes = _boxes(values, base2camera)
    asked = points_inside(raw.points, boxes) >= LEAST_POINTS

    def judged(found: Float64) -> NDArray[np.bool_]:
        return _seen(found, base2camera, projection, regions)

    return Truth(kept, boxes, asked, judged)


def read_objects(path: Path) -> list[tuple[str, Float64]]:
    """[(kind, 14 numbers)] of a label file of KITTI.

    The numbers: truncated, occluded, alpha, box x1 y1 x2 y2 (pixels), height, width, length,
    place x y z of the bottom in the camera's frame (metres), angle about y (radians).

    Raises:
        ConfigError: not readable, or a line without a class and its numbers.
    """
    found = []
    for number, line in enumerate(_lines(path), 1):
        kind, *words = line.split()
        try:
            values = np.array(words[: COLUMNS - 1], np.float64)
        except ValueError:
            values = np.empty(0)
        if len(values) != COLUMNS - 1 or not np.isfinite(values).all():
            raise ConfigError(
                f'{path}: line {number}: expected a class and {COLUMNS - 1} numbers, as KITTI has '
                f'them, not {line[:60]!r}'
            )
        found.append((kind, values))
    return found


def _calibration(path: Path) -> tuple[Float64, Float64]:
    """Projection [3, 4] of camera 2, and lidar2camera [4, 4] of the rectified cameras."""
    parts = {key: text.split() for key, _, text in (line.partition(':') for line in _lines(path))}
    try:
        projection = np.array(parts['P2'], np.float64).reshape(3, 4)
        rectify = np.array(parts['R0_rect'], np.float64).reshape(3, 3)
        lidar2camera = np.array(parts['Tr_velo_to_cam'], np.float64).reshape(3, 4)
    except (KeyError, ValueError) as error:
        raise ConfigError(f'{path}: not a calibration of KITTI: {error}') from error
    lidar2camera = np.vstack([lidar2camera, [0.0, 0.0, 0.0, 1.0]])
    return projection, transform(rectify, np.zeros(3)) @ lidar2camera


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'no text'
        raise ConfigError(f'{path}: cannot be read: {reason}') from error
    return [line for line in text.splitlines() if line.strip()]


def _boxes(values: Float64, base2camera: Float64) -> Float64:
    """Boxes [N, 7] in base: KITTI gives the middle of the underside, x right, y down, z ahead."""
    height, width, length = values[:, 7], values[:, 8], values[:, 9]
    centre = apply(invert(base2camera), values[:, 10:13])
    centre[:, 2] += height / 2
    yaw = -values[:, 13] - np.pi / 2
    return np.column_stack([centre, length, width, height, yaw])


def _within(boxes: Float64, regions: Float64) -> NDArray[np.bool_]:
    """Which image boxes lie mostly in one of the regions."""
    low = np.maximum(boxes[:, None, :2], regions[:, :2])
    high = np.minimum(boxes[:, None, 2:], regions[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=1)
    return np.asarray((shared >= INSIDE * area[:, None]).any(axis=1))


def _seen(
    boxes: Float64, base2camera: Float64, projection: Float64, regions: Float64
) -> NDArray[np.bool_]:
    """Which boxes [N, 7] have their centre in the labelled image, and in no unlabelled region."""
    camera = apply(base2camera, boxes[:, :3])
    pixels = np.column_stack([camera, np.ones(len(camera))]) @ projection.T
    with np.errstate(divide='ignore', invalid='ignore'):
        u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    # the principal point lies in the middle to some pixels, and no file has the size of the image
    width, height = 2 * projection[0, 2], 2 * projection[1, 2]
    seen = (camera[:, 2] > NEAREST) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    for x1, y1, x2, y2 in regions:
        seen &= ~((u >= x1) & (u <= x2) & (v >= y1) & (v <= y2))
    return np.asarray(seen)
