"""KITTI folders as bags: the object layout with labels, and a drive with one calibration.

Frames of the bag: `base_link` (on the ground under the lidar, z up), `lidar` (1.73 m above it),
`camera_front` and `camera_front_optical`. The image of camera 2 is described by P2 = K [I | t],
that is P2 X = K (X + t) with t = K^-1 P2[:, 3]: a plain camera K whose optical frame is the
rectified frame of camera 0 shifted by t. So lidar2optical = [I | t] R0_rect Tr_velo_to_cam, and
projecting with K and this transform is projecting with P2. The rotations of the files are
orthonormal to about 1e-7: written as quaternions they move a point at 80 m by less than 0.1 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from airside_perception.errors import BagError
from airside_perception.geometry import apply, invert, transform
from airside_perception.types import Boxes2D, Boxes3D, Float64, Image, PointCloud

START_NS = 1_317_000_000_000_000_000
"""Stamp of the first frame: no stamps survive in these folders."""
DRIVE_STEP_NS = 100_000_000
SCENE_STEP_NS = 1_000_000_000
"""Frames of the object layout have nothing to do with one another."""

LIDAR_HEIGHT = 1.73
BASE, LIDAR, CAMERA, OPTICAL = 'base_link', 'lidar', 'camera_front', 'camera_front_optical'
OPTICAL2CAMERA = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""z forward, x right, y down to x forward, y left, z up."""
NAMES = {
    'car': ('car',),
    'van': ('car', 'truck'),
    'truck': ('truck', 'bus'),
    'tram': ('bus', 'truck'),
    'misc': ('misc',),
    'pedestrian': ('person',),
    'person_sitting': ('person',),
    'cyclist': ('cyclist', 'person'),
}
"""What this package calls KITTI's kinds. An object is asked for by the first name; a detection may
give it another, as the development kit lets a car be found where a van is."""
DONT_CARE = 'dontcare'
LABEL_COLUMNS = 15


@dataclass(frozen=True)
class Calibration:
    """Where lidar and camera are.

    Attributes:
        matrix: K of the image, float64 [3, 3].
        lidar2rect: lidar to the rectified frame of camera 0, float64 [4, 4].
        offset: t of the image's camera in that frame (see the module), float64 [3], metres.
        lidar_height: metres above the ground.
    """

    matrix: Float64
    lidar2rect: Float64
    offset: Float64
    lidar_height: float = LIDAR_HEIGHT

    @property
    def lidar2base(self) -> Float64:
        return transform(np.eye(3), np.array([0.0, 0.0, self.lidar_height]))

    @property
    def rect2base(self) -> Float64:
        return self.lidar2base @ invert(self.lidar2rect)

    @property
    def camera2base(self) -> Float64:
        """Body frame of the image's camera (x forward) to base_link."""
        rect2optical = transform(np.eye(3), self.offset)
        return self.rect2base @ invert(rect2optical) @ invert(OPTICAL2CAMERA)

    def same(self, other: Calibration) -> bool:
        """Whether both put lidar and camera at the same place."""
        return bool(
            np.array_equal(self.camera2base, other.camera2base)
            and self.lidar_height == other.lidar_height
        )


@dataclass(frozen=True)
class Frame:
    """One moment of a recording, by its files; `labels` is None where there are none."""

    name: str
    stamp_ns: int
    image: Path
    points: Path
    labels: Path | None
    calibration: Calibration

    def read_image(self) -> Image:
        """The image as bgr8.

        Raises:
            BagError: not readable as an image.
        """
        pixels = cv2.imread(str(self.image), cv2.IMREAD_COLOR)
        if pixels is None:
            raise BagError(f'{self.image}: not readable as an image')
        return Image(self.stamp_ns, OPTICAL, np.asarray(pixels, dtype=np.uint8), 'bgr8')

    def read_cloud(self) -> PointCloud:
        """The sweep: x, y, z in metres and reflectance in 0..1, frame of the lidar.

        Raises:
            BagError: not a whole number of points.
        """
        data = self.points.read_bytes()
        if len(data) % 16:
            raise BagError(
                f'{self.points}: {len(data)} bytes are no whole number of 16-byte points'
            )
        return PointCloud(self.stamp_ns, LIDAR, np.frombuffer(data, '<f4').reshape(-1, 4))


@dataclass(frozen=True)
class Labels:
    """What is labelled in a frame: N objects, whose rows agree.

    Attributes:
        objects: in base_link, by the first of their names, scores 1.
        in_image: the same objects as boxes in the image.
        names: N times all names that a detection may give, see `NAMES`.
        ignored: float64 [M, 4], regions of the image (`DontCare`) that hold what nobody labelled,
            pixels: left, top, right, bottom.
    """

    objects: Boxes3D
    in_image: Boxes2D
    names: tuple[tuple[str, ...], ...]
    ignored: Float64


def read_folder(folder: str | Path) -> list[Frame]:
    """The frames of a folder in either layout, in order of their names.

    Raises:
        BagError: neither layout, a frame without its scan or calibration, or a broken calibration.
    """
    folder = Path(folder)
    if (folder / 'image_2').is_dir() and (folder / 'calib').is_dir():
        return _read_object(folder)
    if (folder / 'image_02').is_dir() and (folder / 'calibration.yaml').is_file():
        return _read_drive(folder)
    raise BagError(
        f'{folder}: neither the KITTI object layout (calib, image_2, velodyne, label_2) '
        'nor a drive (calibration.yaml, image_02, velodyne)'
    )


def read_labels(frame: Frame) -> Labels:
    """Labels of a frame by the names of this package; of kinds not in `NAMES` in lower case.

    A label gives height, width, length, the centre of the bottom face in the rectified frame of
    camera 0 (y down) and the rotation about its y axis: 0 looks along x, so the heading is
    (cos r, 0, -sin r). Regions to ignore (`DontCare`) have no place in space.

    Raises:
        BagError: not readable as labels, or the frame has none.
    """
    if frame.labels is None:
        raise BagError(f'frame {frame.name} has no labels')
    try:
        lines = frame.labels.read_text(encoding='utf-8').splitlines()
        rows = [line.split() for line in lines if line.strip()]
        short = [len(row) for row in rows if len(row) < LABEL_COLUMNS]
        if short:
            raise ValueError(f'a line of {short[0]} words, expected {LABEL_COLUMNS}')
        kinds = np.array([row[0].lower() for row in rows], np.str_)
        values = np.array([row[1:LABEL_COLUMNS] for row in rows], dtype=np.float64)
        values = values.reshape(-1, LABEL_COLUMNS - 1)
    except (OSError, ValueError) as error:
        raise BagError(f'{frame.labels}: not readable as KITTI labels: {error}') from error
    ignored = values[kinds == DONT_CARE, 3:7]
    kinds, values = kinds[kinds != DONT_CARE], values[kinds != DONT_CARE]
    height, width, length = values[:, 7:10].T
    centers = values[:, 10:13] - np.stack([0 * height, height / 2, 0 * height], axis=1)
    turn = values[:, 13]
    rect2base = frame.calibration.rect2base
    heading = np.stack([np.cos(turn), 0 * turn, -np.sin(turn)], axis=1) @ rect2base[:3, :3].T
    yaw = np.arctan2(heading[:, 1], heading[:, 0])
    boxes = np.column_stack([apply(rect2base, centers), length, width, height, yaw])
    names = tuple(NAMES.get(kind, (kind,)) for kind in kinds.tolist())
    first, ones = tuple(own[0] for own in names), np.ones(len(names))
    return Labels(
        Boxes3D(frame.stamp_ns, BASE, boxes, ones, first, np.zeros((len(names), 4, 4))),
        Boxes2D(frame.stamp_ns, OPTICAL, values[:, 3:7], ones, first),
        names,
        ignored,
    )


def _read_object(folder: Path) -> list[Frame]:
    frames = []
    for index, image in enumerate(sorted((folder / 'image_2').glob('*.png'))):
        labels = folder / 'label_2' / f'{image.stem}.txt'
        calibration = _read_calibration(folder / 'calib' / f'{image.stem}.txt')
        frames.append(
            Frame(
                image.stem,
                START_NS + index * SCENE_STEP_NS,
                image,
                _scan(folder, image),
                labels if labels.is_file() else None,
                calibration,
            )
        )
    return _not_empty(folder / 'image_2', frames)


def _read_drive(folder: Path) -> list[Frame]:
    calibration = _read_drive_calibration(folder / 'calibration.yaml')
    frames = []
    for index, image in enumerate(sorted((folder / 'image_02').glob('*.png'))):
        stamp_ns = START_NS + index * DRIVE_STEP_NS
        frames.append(Frame(image.stem, stamp_ns, image, _scan(folder, image), None, calibration))
    return _not_empty(folder / 'image_02', frames)


def _scan(folder: Path, image: Path) -> Path:
    path = folder / 'velodyne' / f'{image.stem}.bin'
    if not path.is_file():
        raise BagError(f'{image}: its scan {path} is missing')
    return path


def _not_empty(folder: Path, frames: list[Frame]) -> list[Frame]:
    if not frames:
        raise BagError(f'{folder}: no .png images')
    return frames


def _read_calibration(path: Path) -> Calibration:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
        values = {
            key: np.array(text.split(), dtype=np.float64)
            for key, colon, text in (line.partition(':') for line in lines)
            if colon
        }
        projection = values['P2'].reshape(3, 4)
        rectify = values['R0_rect'].reshape(3, 3)
        lidar2camera = values['Tr_velo_to_cam'].reshape(3, 4)
    except (OSError, ValueError, KeyError) as error:
        raise BagError(f'{path}: not readable as a KITTI calibration: {error!r}') from error
    return _calibration(projection, rectify, lidar2camera, LIDAR_HEIGHT)


def _read_drive_calibration(path: Path) -> Calibration:
    """`P2` is taken where the file has it; otherwise the image is that of the reference camera."""
    try:
        values: dict[str, Any] = yaml.safe_load(path.read_text(encoding='utf-8'))
        matrix = np.array(values['K'], dtype=np.float64).reshape(3, 3)
        plain = np.column_stack([matrix, np.zeros(3)])
        projection = np.array(values.get('P2', plain), dtype=np.float64).reshape(3, 4)
        rectify = np.array(values['rect_rotation'], dtype=np.float64).reshape(3, 3)
        lidar2camera = np.array(values['lidar2camera'], dtype=np.float64).reshape(4, 4)[:3]
        height = float(values['lidar_height'])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise BagError(f'{path}: not readable as the calibration of a drive: {error!r}') from error
    return _calibration(projection, rectify, lidar2camera, height)


def _calibration(
    projection: Float64, rectify: Float64, lidar2camera: Float64, height: float
) -> Calibration:
    matrix = projection[:, :3]
    offset = np.linalg.solve(matrix, projection[:, 3])
    lidar2rect = transform(rectify, np.zeros(3)) @ np.vstack([lidar2camera, [0.0, 0.0, 0.0, 1.0]])
    return Calibration(matrix, lidar2rect, offset, height)
