"""Labelled lidar scans of real vehicles in base_link: KITTI frames and a nuScenes sample.

None of these data belong to the package; they are read from a folder that the user names.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.compare.labels import UNLABELLED, read_objects
from airside_perception.geometry import apply, invert, points_inside, transform
from airside_perception.types import Float64, by_score

LIDAR_HEIGHT = 1.73
RADIUS, LARGE_RADIUS, LARGE = 1.0, 2.0, 5.0
"""Farthest centre of a hit in metres; the second for objects longer than `LARGE` metres."""
KITTI = {
    'Car': ('car',), 'Van': ('car', 'truck'), 'Truck': ('truck', 'bus'), 'Pedestrian': ('person',),
    'Person_sitting': ('person',), 'Cyclist': ('cyclist',), 'Misc': (), 'Tram': ('bus', 'truck'),
}  # fmt: skip
NUSCENES = {
    'car': ('car',), 'truck': ('truck', 'bus'), 'bus': ('bus', 'truck'), 'pedestrian': ('person',),
    'bicycle': ('cyclist',), 'motorcycle': ('cyclist',),
}  # fmt: skip
FRAMES = ('000001', '000002', '000004', '000005', '000006', '000008')
OCCLUSION = ('in full view', 'partly occluded', 'largely occluded', 'occlusion unknown')


@dataclass(frozen=True)
class Truth:
    """Objects of one scan: names a detection may have, boxes [N, 7] in base_link, points [N]."""

    names: tuple[tuple[str, ...], ...]
    boxes: Float64
    points: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Detections of one scan: class names, scores [N], boxes [N, 7] in base_link."""

    names: tuple[str, ...]
    scores: Float64
    boxes: Float64


@dataclass(frozen=True)
class View:
    """What the camera sees whose image was labelled.

    Attributes:
        projection: float64 [3, 4]; base2camera: float64 [4, 4].
        unlabelled: DontCare regions, [N, 4] pixels.
    """

    projection: Float64
    base2camera: Float64
    unlabelled: Float64

    def judged(self, boxes: Float64) -> NDArray[np.bool_]:
        """Which boxes [N, 7] lie in the image, and not in a region that nobody labelled."""
        camera = apply(self.base2camera, boxes[:, :3])
        pixels = np.column_stack([camera, np.ones(len(camera))]) @ self.projection.T
        with np.errstate(divide='ignore', invalid='ignore'):
            u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
        seen = (camera[:, 2] > 1) & (u >= 0) & (u < 1242) & (v >= 0) & (v < 375)
        for x1, y1, x2, y2 in self.unlabelled:
            seen &= ~((u >= x1) & (u <= x2) & (v >= y1) & (v <= y2))
        return np.asarray(seen)


@dataclass(frozen=True)
class Frame:
    """One labelled scan: points float32 [N, 4] in base_link; no view: labels are all around."""

    name: str
    points: NDArray[np.float32]
    truth: Truth
    view: View | None


def match(found: Found, truth: Truth) -> NDArray[np.int64]:
    """Row of `truth` that each detection hits, -1: none. Best score first; each object once."""
    hit = np.full(len(found.names), -1, np.int64)
    free = np.ones(len(truth.names), bool)
    radius = np.where(truth.boxes[:, 3] > LARGE, LARGE_RADIUS, RADIUS)
    for i in by_score(found.scores):
        distance = np.hypot(*(truth.boxes[:, :2] - found.boxes[i, :2]).T)
        fits = np.array([found.names[i] in names for names in truth.names], bool)
        near = np.flatnonzero(fits & free & (distance <= radius))
        if len(near):
            hit[i] = near[np.argmin(distance[near])]
            free[hit[i]] = False
    return hit


def kitti(scan: Path, calibration: Path, label: Path) -> Frame:
    """A frame of the KITTI object layout."""
    lines = calibration.read_text(encoding='utf-8').splitlines()
    calib = {
        key: np.array(text.split(), np.float64)
        for key, text in (s.split(':', 1) for s in lines if ':' in s)
    }
    rectify = transform(calib['R0_rect'].reshape(3, 3), np.zeros(3))
    base2lidar = transform(np.eye(3), np.array([0.0, 0.0, -LIDAR_HEIGHT]))
    base2camera = (
        rectify @ np.vstack([calib['Tr_velo_to_cam'].reshape(3, 4), [0, 0, 0, 1]]) @ base2lidar
    )
    points = np.fromfile(scan, np.float32).reshape(-1, 4)
    points[:, 2] += np.float32(LIDAR_HEIGHT)
    names, boxes, notes, unlabelled = [], [], [], []
    for kind, values in read_objects(label):
        if kind == UNLABELLED:
            unlabelled.append(values[3:7])
            continue
        truncated, occluded = values[:2]
        height, width, length = values[7:10]
        x, y, z = apply(invert(base2camera), values[None, 10:13])[0]
        names.append(KITTI[kind])
        boxes.append([x, y, z + height / 2, length, width, height, -values[13] - np.pi / 2])
        cut = f', {truncated:.0%} out of the image' if truncated else ''
        notes.append(f'{kind}, {OCCLUSION[int(occluded)]}{cut}')
    rows = np.array(boxes, np.float64).reshape(-1, 7)
    regions = np.array(unlabelled, np.float64).reshape(-1, 4)
    truth = Truth(tuple(names), rows, points_inside(points, rows), tuple(notes))
    return Frame(scan.stem, points, truth, View(calib['P2'].reshape(3, 4), base2camera, regions))


def nuscenes(folder: Path) -> Frame:
    """The sample of a folder that holds one info file and its scan."""
    info = next(folder.glob('*.pkl'))
    content = pickle.loads(info.read_bytes())  # the user's own file
    sample = content['data_list'][0]
    categories = {index: name for name, index in content['metainfo']['categories'].items()}
    lidar2base = np.array(sample['lidar_points']['lidar2ego'], np.float64)
    points = np.fromfile(folder / sample['lidar_points']['lidar_path'], np.float32).reshape(-1, 5)[
        :, :4
    ]
    points[:, :3] = apply(lidar2base, points[:, :3].astype(np.float64))
    points[:, 3] /= 255
    names, boxes, counts, notes = [], [], [], []
    for item in sample['instances']:
        kind = categories.get(item['bbox_label_3d'], 'other')
        x, y, z, length, width, height, yaw = item['bbox_3d']
        centre = apply(lidar2base, np.array([[x, y, z]], np.float64))[0]
        heading = lidar2base[:2, :2] @ [np.cos(yaw), np.sin(yaw)]
        names.append(NUSCENES.get(kind, ()))
        boxes.append([*centre, length, width, height, np.arctan2(heading[1], heading[0])])
        counts.append(int(item['num_lidar_pts']))
        notes.append(kind)
    own = np.hypot(points[:, 0] - lidar2base[0, 3], points[:, 1]) < 2.5
    truth = Truth(tuple(names), np.array(boxes), np.array(counts, np.int64), tuple(notes))
    return Frame('nuScenes sample', points[~own], truth, None)


def nvidia(path: Path) -> Found:
    """NVIDIA's recorded predictions: x y z l w h yaw class score in the lidar's frame."""
    rows = np.loadtxt(path, ndmin=2).reshape(-1, 9)
    rows[:, 2] += LIDAR_HEIGHT
    names = tuple(('car', 'person', 'cyclist')[int(c)] for c in rows[:, 7])
    return Found(names, rows[:, 8], rows[:, :7])


def pytorch(path: Path) -> Found:
    """Recorded predictions of frame 134: x y z w l h yaw score class, z of the underside."""
    rows = np.loadtxt(path, ndmin=2).reshape(-1, 9)
    boxes = rows[:, [0, 1, 2, 4, 3, 5, 6]]
    boxes[:, 2] += LIDAR_HEIGHT + boxes[:, 5] / 2
    names = tuple(('person', 'cyclist', 'car')[int(c)] for c in rows[:, 8])
    return Found(names, rows[:, 7], boxes)


def recorded(data: Path) -> dict[str, tuple[list[Frame], dict[str, list[Found]]]]:
    """{name: (labelled scans, {network: its recorded predictions})}."""
    folder, reference = data / 'labelled', data / 'reference'
    six = [
        kitti(
            folder / 'velodyne' / f'{n}.bin',
            folder / 'calib' / f'{n}.txt',
            folder / 'label_2' / f'{n}.txt',
        )
        for n in FRAMES
    ]
    predictions = reference / 'nvidia_pointpillars' / 'pred_velo'
    one = reference / 'zhulf_000134'
    return {
        'KITTI, six frames': (
            six,
            {
                'NVIDIA PointPillars, trained on KITTI': [
                    nvidia(predictions / f'{name}.txt') for name in FRAMES
                ]
            },
        ),
        'KITTI, frame 134': (
            [kitti(one / '000134.bin', one / '000134.txt', one / '000134_gt.txt')],
            {'a PointPillars trained on KITTI': [pytorch(one / 'pytorch.txt')]},
        ),
        'nuScenes, one sample': ([nuscenes(data / 'nuscenes')], {}),
    }
