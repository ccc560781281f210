"""`python -m benchmarks.lidar_recall`: what the lidar network finds, simulated and real.

Simulated: scenes of seeds that training never used, by class and range: recall and precision at
the card's thresholds, and AP (mean over 40 recalls of the best precision at that recall or more).
Real: the frames of `--data`, objects within 30 m at a BEV distance of 1 m (2 m where longer than
5 m), recorded predictions of networks that were trained on such data beside it, and every missed
car and every false alarm by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.engine import open_engine
from airside_perception.geometry import transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.resources import model_file
from airside_perception.types import Float64, PointCloud, by_score
from benchmarks.lidar_frames import (
    LARGE_RADIUS,
    LIDAR_HEIGHT,
    Found,
    Frame,
    Truth,
    match,
    recorded,
)  # fmt: skip

LEAST_POINTS = 5
RANGES = ((0, 15), (15, 30), (30, 50))
FAINT = 0.1
"""Lowest score that is looked at."""
REAL_CLASSES = ('car', 'person', 'cyclist', 'truck')
WITHIN = 30.0


def detector(path: Path, score: float) -> LidarDetector:
    """The network and its card, answering with everything from `score` up."""
    card = find_card(path)
    if not isinstance(card, LidarCard):
        raise TypeError(f'{path} is no lidar network')
    low = dict.fromkeys(card.published, score)
    config = LidarConfig(engine_path=str(path), score_threshold=score, score_thresholds=low)
    loose = replace(card, thresholds={})
    return LidarDetector(open_engine(path), loose, config)


def detect(network: LidarDetector, points: NDArray[np.float32]) -> Found:
    """Detections in points [N, 4] of base_link."""
    cloud = PointCloud(0, 'base_link', np.ascontiguousarray(points), ('x', 'y', 'z', 'intensity'))
    boxes = network.detect(cloud)
    return Found(boxes.classes, boxes.scores, boxes.boxes)


def above(found: Found, thresholds: Mapping[str, float]) -> Found:
    """Those detections that reach the threshold of their class."""
    kept = [
        i
        for i, (n, s) in enumerate(zip(found.names, found.scores, strict=True))
        if s >= thresholds.get(n, 0.0)
    ]
    return Found(tuple(found.names[i] for i in kept), found.scores[kept], found.boxes[kept])


# Simulated scans


def simulated(
    first: int, count: int, classes: Mapping[str, str], preset: str
) -> Iterator[tuple[str, Truth, NDArray[np.float32]]]:
    """`count` scans, apron and street by turns; training takes seeds from 1,000,000 on."""
    from airside_perception.sim.apron import apron
    from airside_perception.sim.caster import Open3DCaster
    from airside_perception.sim.lidar import PRESETS, scan
    from airside_perception.sim.street import street

    height = LIDAR_HEIGHT if preset == 'hdl64' else 2.0
    lidar2base = transform(np.eye(3), np.array([0.0, 0.0, height]))
    for number in range(first, first + count):
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
    """One cell; objects with few points are not asked for, nor detections there punished."""
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
    network: LidarDetector, card: LidarCard, first: int, count: int, preset: str
) -> list[Cell]:
    """Prints and returns recall, precision and AP by class and range."""
    groups: Mapping[str, Sequence[str]] = card.about.get('simulated_classes', {})
    classes = {inner: outer for outer, names in groups.items() for inner in names}
    frames = [
        (truth, detect(network, points))
        for _, truth, points in simulated(first, count, classes, preset)
    ]
    print(
        f'\nSimulated, {count} scans of {preset} from seed {first} on, every second one an apron'
    )
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


def real_tables(network: LidarDetector, card: LidarCard, data: Path) -> dict[str, Any]:
    """Prints what is found in real frames, ours beside others; returns the figures."""
    mine = f'{card.name}, simulation only'
    runs: list[tuple[str, list[Frame], str, list[Found] | None]] = []
    for name, (frames, others) in recorded(data).items():
        runs.append((name, frames, mine, None))
        runs += [(name, frames, who, predictions) for who, predictions in others.items()]
    print(
        f'\nReal frames (not part of the package): objects within {WITHIN:.0f} m '
        f'with {LEAST_POINTS} points or more'
    )
    print(f'{"":<62}{"found of labelled, false alarms":>40}')
    print(f'{"frames":<22}{"network":<40}' + ''.join(f'{name:>15}' for name in REAL_CLASSES))
    figures: dict[str, Any] = {}
    notes = []
    for place, some, who, known in runs:
        answers = known or [detect(network, frame.points) for frame in some]
        thresholds = {} if known else card.thresholds
        counts, lines = judge(some, answers, thresholds)
        cells = (f'{hits}/{objects}, {alarms}' for objects, hits, alarms in counts.values())
        print(f'{place:<22}{who:<40}' + ''.join(f'{cell:>15}' for cell in cells))
        figures[f'{place}: {who}'] = counts
        notes += [f'{place}, {who}:', *lines] if lines else []
    print('\n' + '\n'.join(notes))
    return figures


def judge(
    frames: Sequence[Frame], answers: Sequence[Found], thresholds: Mapping[str, float]
) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
    """(objects, hits, false alarms) a class; a line for every missed car and every false alarm."""
    counts = {name: [0, 0, 0] for name in REAL_CLASSES}
    lines = []
    for frame, answer in zip(frames, answers, strict=True):
        kept, truth = above(answer, thresholds), frame.truth
        hit = match(kept, truth)
        distance = np.hypot(truth.boxes[:, 0], truth.boxes[:, 1])
        for row in np.flatnonzero((distance <= WITHIN) & (truth.points >= LEAST_POINTS)):
            name = truth.names[row][0] if truth.names[row] else ''
            name = 'truck' if name == 'bus' else name
            if name not in counts:
                continue
            counts[name][0] += 1
            counts[name][1] += int(row in hit)
            if name == 'car' and row not in hit:
                lines.append(
                    f'  missed {frame.name} {_describe(truth, row)}: '
                    f'{_nearest(answer, truth, row)}'
                )
        wrong = (hit < 0) & (np.hypot(kept.boxes[:, 0], kept.boxes[:, 1]) <= WITHIN)
        if frame.view is not None:
            wrong &= frame.view.judged(kept.boxes)
        for i in np.flatnonzero(wrong):
            apart = np.hypot(*(truth.boxes[:, :2] - kept.boxes[i, :2]).T).min(initial=np.inf)
            if apart < LARGE_RADIUS:
                continue  # an object is there, called by another name or placed a little off
            name = 'truck' if kept.names[i] == 'bus' else kept.names[i]
            if name in counts:
                counts[name][2] += 1
            x, y = kept.boxes[i, :2]
            lines.append(
                f'  false alarm {frame.name}: {kept.names[i]} {kept.scores[i]:.2f} '
                f'at ({x:.1f}, {y:.1f})'
            )
    return {name: (n[0], n[1], n[2]) for name, n in counts.items()}, lines


def _describe(truth: Truth, row: int) -> str:
    x, y = truth.boxes[row, :2]
    return f'{truth.notes[row]}, {np.hypot(x, y):.1f} m, {truth.points[row]} points'


def _nearest(found: Found, truth: Truth, row: int) -> str:
    """The nearest detection of any class and score."""
    if not found.names:
        return 'nothing found in this frame'
    distance = np.hypot(*(found.boxes[:, :2] - truth.boxes[row, :2]).T)
    i = int(np.argmin(distance))
    return (
        f'nearest is a {found.names[i]} of score {found.scores[i]:.2f}, {distance[i]:.1f} m away'
    )


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.lidar_recall', description=__doc__)
    parser.add_argument('--model', default='apron_centerpoint.onnx')
    parser.add_argument(
        '--first', type=int, default=1000, help='first seed; 0 to 79 took part in choices'
    )
    parser.add_argument(
        '--data', type=Path, default=Path('../shared/data'), help='folder of the real frames'
    )
    parser.add_argument('--scans', type=int, default=60, help='simulated scans a lidar; 0: none')
    parser.add_argument(
        '--lidar', action='append', help='presets of the simulated lidar (roof64, hdl64)'
    )
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    arguments = parser.parse_args()
    path = model_file(arguments.model, here_first=True)
    network, card = detector(path, FAINT), find_card(path)
    if not isinstance(card, LidarCard):
        raise TypeError(f'{path} is no lidar network')
    figures: dict[str, Any] = {'model': path.name, 'sha256': card.sha256}
    for preset in (arguments.lidar or ['roof64', 'hdl64']) if arguments.scans else []:
        cells = simulated_table(network, card, arguments.first, arguments.scans, preset)
        figures[f'simulated {preset}'] = [vars(cell) for cell in cells]
    if (arguments.data / 'labelled').is_dir():
        figures['real'] = real_tables(network, card, arguments.data)
    else:
        print(f'no real frames at {arguments.data}')
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
