"""`python -m benchmarks.lidar_recall`: what the lidar network finds, in simulated and in real scans.

Simulated: scenes of seeds that training never used, by class and range: recall and precision at the
card's thresholds, and AP (mean over 40 recalls of the best precision at that recall or more). Real: the
KITTI frames of `--data`, cars within 30 m at a BEV distance of 1 m, the recorded predictions of
NVIDIA's PointPillars beside it, and every miss and false alarm by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.engine import open_engine
from airside_perception.geometry import apply, invert, rotation_z, transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.resources import model_file
from airside_perception.types import Float64, PointCloud, by_score

RADIUS, LARGE_RADIUS, LARGE = 1.0, 2.0, 5.0
"""Farthest centre of a hit in metres; the second for objects longer than `LARGE` metres."""
LEAST_POINTS = 5
RANGES = ((0, 15), (15, 30), (30, 50))
LIDAR_HEIGHT = 1.73
FAINT = 0.1
FRAMES = ('000001', '000002', '000004', '000005', '000006', '000008')
KITTI = {
    'Car': ('car',), 'Van': ('car', 'truck'), 'Truck': ('truck', 'bus'), 'Pedestrian': ('person',),
    'Person_sitting': ('person',), 'Cyclist': ('cyclist',), 'Misc': (), 'Tram': ('bus', 'truck'),
}  # fmt: skip
NVIDIA = ('car', 'person', 'cyclist')
OCCLUSION = ('in full view', 'partly occluded', 'largely occluded', 'occlusion unknown')


@dataclass(frozen=True)
class Truth:
    """Objects of one scan in base_link: names a detection may have, boxes [N, 7], points on them [N]."""

    names: tuple[tuple[str, ...], ...]
    boxes: Float64
    points: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Detections of one scan, best first."""

    names: tuple[str, ...]
    scores: Float64
    boxes: Float64

    def above(self, thresholds: Mapping[str, float]) -> Found:
        """Those that reach the threshold of their class."""
        kept = [
            i for i, (n, s) in enumerate(zip(self.names, self.scores)) if s >= thresholds.get(n, 0)
        ]
        return Found(tuple(self.names[i] for i in kept), self.scores[kept], self.boxes[kept])


def detector(path: Path, score: float) -> LidarDetector:
    """The network and its card, answering with everything from `score` up."""
    card = find_card(path)
    if not isinstance(card, LidarCard):
        raise TypeError(f'{path} is no lidar network')
    low = {name: score for name in card.published}
    config = LidarConfig(engine_path=str(path), score_threshold=score, score_thresholds=low)
    loose = LidarCard(**{**vars(card), 'thresholds': {}})
    return LidarDetector(open_engine(path), loose, config)


def detect(network: LidarDetector, points: NDArray[np.float32]) -> Found:
    """Detections in points [N, 4] of base_link."""
    cloud = PointCloud(0, 'base_link', np.ascontiguousarray(points), ('x', 'y', 'z', 'intensity'))
    boxes = network.detect(cloud)
    return Found(boxes.classes, boxes.scores, boxes.boxes)


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


# Simulated scans


def simulated(
    count: int, classes: Mapping[str, str], preset: str
) -> Iterator[tuple[str, Truth, NDArray[np.float32]]]:
    """`count` scans, apron and street by turns, of the first seeds: training begins at 1,000,000."""
    from airside_perception.sim.apron import apron
    from airside_perception.sim.caster import Open3DCaster
    from airside_perception.sim.lidar import PRESETS, scan
    from airside_perception.sim.street import street

    height = LIDAR_HEIGHT if preset == 'hdl64' else 2.0
    lidar2base = transform(np.eye(3), np.array([0.0, 0.0, height]))
    for number in range(count):
        kind, make = (('apron', apron), ('street', street))[number % 2]
        scene = make(number).at(1.0)
        sweep = scan(
            PRESETS[preset],
            scene,
            Open3DCaster(scene.triangles),
            lidar2base,
            np.random.default_rng(number),
        )
        points = sweep.points.copy()
        points[:, 2] += height
        names = tuple((classes.get(name, name),) for name in scene.objects.classes)
        yield kind, Truth(names, scene.objects.boxes, sweep.counts(len(scene.objects))), points


@dataclass(frozen=True)
class Cell:
    """One class in one band of range: objects, hits and false alarms at threshold, AP."""

    name: str
    band: tuple[int, int]
    objects: int
    hits: int
    alarms: int
    ap: float


def score(
    frames: Sequence[tuple[Truth, Found]], name: str, band: tuple[int, int], threshold: float
) -> Cell:
    """One cell of the table. Objects with few points are not asked for, and detections there not punished."""
    objects, rows = 0, []
    for truth, found in frames:
        hit = match(found, truth)
        asked = np.array([n == (name,) for n in truth.names], bool) & (
            truth.points >= LEAST_POINTS
        )
        asked &= _within(truth.boxes, band)
        objects += int(asked.sum())
        for i, row in enumerate(hit):
            if found.names[i] != name:
                continue
            if row >= 0 and asked[row]:
                rows.append((found.scores[i], True))
            elif row < 0 and _within(found.boxes[i : i + 1], band)[0]:
                rows.append((found.scores[i], False))
    values = np.array([value for value, _ in rows], np.float64)
    right = np.array([good for _, good in rows], bool)[by_score(values)]
    above = values[by_score(values)] >= threshold
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    recall = np.cumsum(right) / max(objects, 1)
    steps = np.arange(1, 41) / 40
    ap = float(np.mean([precision[recall >= step - 1e-9].max(initial=0.0) for step in steps]))
    return Cell(name, band, objects, int((right & above).sum()), int((~right & above).sum()), ap)


def _within(boxes: Float64, band: tuple[int, int]) -> NDArray[np.bool_]:
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    return np.asarray((distance >= band[0]) & (distance < band[1]))


def simulated_table(
    network: LidarDetector, card: LidarCard, count: int, preset: str
) -> list[Cell]:
    """Prints and returns recall, precision and AP by class and range."""
    groups: Mapping[str, Sequence[str]] = card.about.get('simulated_classes', {})
    classes = {inner: outer for outer, names in groups.items() for inner in names}
    frames = [
        (truth, detect(network, points)) for _, truth, points in simulated(count, classes, preset)
    ]
    print(f'\nSimulated, {count} held-out scans of {preset}, every second one an apron')
    print(f'{"class":<18}' + ''.join(f'{f"{a}-{b} m":>30}' for a, b in RANGES))
    print(f'{"":<18}' + f'{"objects recall precision   AP":>30}' * len(RANGES))
    cells = []
    for name in card.published:
        line = [score(frames, name, band, card.thresholds.get(name, FAINT)) for band in RANGES]
        cells += line
        print(f'{name:<18}' + ''.join(f'{_cell(cell):>30}' for cell in line))
    scans = len(frames)
    alarms = sum(cell.alarms for cell in cells)
    print(f'false alarms within 50 m at the thresholds of the card: {alarms / scans:.2f} a scan')
    return cells


def _cell(cell: Cell) -> str:
    if not cell.objects:
        return '0      -         -    -'
    precision = cell.hits / max(cell.hits + cell.alarms, 1)
    return f'{cell.objects:5d} {cell.hits / cell.objects:7.2f} {precision:9.2f} {cell.ap:5.2f}'


# Real scans


@dataclass(frozen=True)
class Frame:
    """One KITTI frame: points [N, 4] in base_link, labels, and whether a box is in view of the camera."""

    name: str
    points: NDArray[np.float32]
    truth: Truth
    projection: Float64
    lidar2camera: Float64
    unlabelled: Float64
    """DontCare regions, [N, 4] pixels."""

    def judged(self, boxes: Float64) -> NDArray[np.bool_]:
        """Which boxes [N, 7] lie in the image, and not in a region that nobody labelled."""
        centres = boxes[:, :3] - [0.0, 0.0, LIDAR_HEIGHT]
        camera = apply(self.lidar2camera, centres)
        pixels = np.column_stack([camera, np.ones(len(camera))]) @ self.projection.T
        with np.errstate(divide='ignore', invalid='ignore'):
            u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
        seen = (camera[:, 2] > 1) & (u >= 0) & (u < 1242) & (v >= 0) & (v < 375)
        for x1, y1, x2, y2 in self.unlabelled:
            seen &= ~((u >= x1) & (u <= x2) & (v >= y1) & (v <= y2))
        return np.asarray(seen)


def kitti(folder: Path, name: str) -> Frame:
    """A frame of the KITTI object layout."""
    lines = (folder / 'calib' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    calib = {
        key: np.array(text.split(), np.float64)
        for key, text in (s.split(':', 1) for s in lines if ':' in s)
    }
    rectify = transform(calib['R0_rect'].reshape(3, 3), np.zeros(3))
    lidar2camera = rectify @ np.vstack([calib['Tr_velo_to_cam'].reshape(3, 4), [0, 0, 0, 1]])
    points = np.fromfile(folder / 'velodyne' / f'{name}.bin', np.float32).reshape(-1, 4)
    points[:, 2] += np.float32(LIDAR_HEIGHT)
    names, boxes, notes, unlabelled = [], [], [], []
    for line in (folder / 'label_2' / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        kind, truncated, occluded, *numbers = line.split()
        values = np.array(numbers, np.float64)
        if kind == 'DontCare':
            unlabelled.append(values[1:5])
            continue
        height, width, length = values[5:8]
        x, y, z = apply(invert(lidar2camera), values[None, 8:11])[0]
        names.append(KITTI[kind])
        boxes.append(
            [x, y, z + LIDAR_HEIGHT + height / 2, length, width, height, -values[11] - np.pi / 2]
        )
        cut = f', {float(truncated):.0%} out of the image' if float(truncated) else ''
        notes.append(f'{kind}, {OCCLUSION[int(occluded)]}{cut}')
    rows = np.array(boxes, np.float64).reshape(-1, 7)
    truth = Truth(tuple(names), rows, points_inside(points, rows), tuple(notes))
    regions = np.array(unlabelled, np.float64).reshape(-1, 4)
    return Frame(name, points, truth, calib['P2'].reshape(3, 4), lidar2camera, regions)


def points_inside(points: NDArray[np.float32], boxes: Float64) -> NDArray[np.int64]:
    """Points in every box [N]."""
    counts = []
    for box in boxes:
        local = np.abs((points[:, :3] - box[:3]) @ rotation_z(box[6]))
        counts.append(int((local <= box[3:6] / 2).all(axis=1).sum()))
    return np.array(counts, np.int64)


def recorded(path: Path) -> Found:
    """NVIDIA's predictions of one frame: x y z l w h yaw class score in the lidar's frame."""
    rows = np.loadtxt(path, ndmin=2).reshape(-1, 9)
    rows[:, 2] += LIDAR_HEIGHT
    return Found(tuple(NVIDIA[int(c)] for c in rows[:, 7]), rows[:, 8], rows[:, :7])


def real_table(
    network: LidarDetector, card: LidarCard, data: Path, within: float
) -> dict[str, Any]:
    """Prints cars within `within` metres for both networks, miss by miss; returns the figures."""
    frames = [kitti(data / 'labelled', name) for name in FRAMES]
    ours = [detect(network, frame.points) for frame in frames]
    theirs = [
        recorded(data / 'reference' / 'nvidia_pointpillars' / 'pred_velo' / f'{name}.txt')
        for name in FRAMES
    ]
    everything = {
        'NVIDIA PointPillars, trained on KITTI, as recorded': (theirs, dict.fromkeys(NVIDIA, 0.0))
    }
    mine = {
        f"{card.name}, simulation only, at the card's thresholds": (ours, dict(card.thresholds))
    }
    figures: dict[str, Any] = {}
    print(
        f'\nKITTI frames (not part of the package): cars within {within:.0f} m, centre distance {RADIUS} m'
    )
    for title, (found, thresholds) in {**mine, **everything}.items():
        figures[title] = _real_rows(title, frames, found, thresholds, within)
    return figures


def _real_rows(
    title: str,
    frames: Sequence[Frame],
    found: Sequence[Found],
    thresholds: Mapping[str, float],
    within: float,
) -> dict[str, Any]:
    cars = hits = 0
    alarms, lines = [], []
    for frame, everything in zip(frames, found):
        kept = everything.above(thresholds)
        hit = match(kept, frame.truth)
        distance = np.hypot(frame.truth.boxes[:, 0], frame.truth.boxes[:, 1])
        for row in np.flatnonzero(distance <= within):
            if frame.truth.names[row] != ('car',):
                continue
            cars += 1
            hits += row in hit
            if row not in hit:
                lines.append(
                    f'  missed {frame.name} {_describe(frame.truth, row)}: {_why(everything, frame.truth, row)}'
                )
        near = np.hypot(kept.boxes[:, 0], kept.boxes[:, 1]) <= within
        for i in np.flatnonzero((hit < 0) & near & frame.judged(kept.boxes)):
            if (
                np.hypot(*(frame.truth.boxes[:, :2] - kept.boxes[i, :2]).T).min(initial=np.inf)
                < LARGE_RADIUS
            ):
                continue  # another name or half a metre off: an object is there
            x, y = kept.boxes[i, :2]
            alarms.append(kept.names[i])
            lines.append(
                f'  false alarm {frame.name} {kept.names[i]} {kept.scores[i]:.2f} at ({x:.1f}, {y:.1f})'
            )
    wrong = alarms.count('car')
    print(f'{title}: recall {hits}/{cars}; {wrong} false cars and {len(alarms) - wrong} other false alarms in '
          f'{len(frames)} frames')  # fmt: skip
    print('\n'.join(lines))
    return {'cars': cars, 'hits': hits, 'false_cars': wrong, 'false_others': len(alarms) - wrong}


def _describe(truth: Truth, row: int) -> str:
    x, y = truth.boxes[row, :2]
    return f'{truth.notes[row]}, {np.hypot(x, y):.1f} m, {truth.points[row]} points'


def _why(found: Found, truth: Truth, row: int) -> str:
    """The nearest detection of any score."""
    if not found.names:
        return 'nothing found in this frame'
    distance = np.hypot(*(found.boxes[:, :2] - truth.boxes[row, :2]).T)
    i = int(np.argmin(distance))
    return (
        f'nearest is a {found.names[i]} of score {found.scores[i]:.2f}, {distance[i]:.1f} m away'
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.lidar_recall', description=__doc__)
    parser.add_argument('--model', default='apron_pointpillars.onnx')
    parser.add_argument(
        '--data', type=Path, default=Path('../shared/data'), help='folder of the KITTI frames'
    )
    parser.add_argument('--scans', type=int, default=40, help='simulated scans; 0: none')
    parser.add_argument('--lidar', default='roof64', help='preset of the simulated lidar')
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    arguments = parser.parse_args()
    path = model_file(arguments.model)
    network = detector(path, FAINT)
    card = find_card(path)
    if not isinstance(card, LidarCard):
        raise TypeError(f'{path} is no lidar network')
    figures: dict[str, Any] = {}
    if arguments.scans:
        cells = simulated_table(network, card, arguments.scans, arguments.lidar)
        figures['simulated'] = [vars(cell) for cell in cells]
    if (arguments.data / 'labelled').is_dir():
        figures['kitti'] = real_table(network, card, arguments.data, 30.0)
    else:
        print(f'no KITTI frames at {arguments.data}')
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
