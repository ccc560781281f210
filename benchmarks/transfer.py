"""`python -m benchmarks.transfer`: lidar networks on real scans, beside recorded predictions.

Cars, trucks and people within 30 m of KITTI's frames and of a nuScenes sample, by the formulas of
`airside_perception.evaluate`. Every detection from a low score up is looked at, so figures do not
hang on thresholds: AP is the mean over centre distances of 0.5, 1, 2 and 4 m, recall is that at
one false alarm a frame (centre within 1 m), error the mean distance of the centres of what is
found within 2 m. Objects with fewer than 5 points need not be found; KITTI is judged only in the
image that was labelled. A van may be called a car or a truck.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import LidarCard, ModelCard, find_card
from airside_perception.evaluate import frames as judged
from airside_perception.evaluate.errors import box_errors
from airside_perception.evaluate.precision import recall_at_alarms
from airside_perception.evaluate.question import average_precisions, mean, reached
from airside_perception.resources import model_file
from benchmarks.lidar_frames import Found, Frame, recorded
from benchmarks.lidar_recall import LEAST_POINTS, detect, detector

CLASSES: Mapping[str, str] = {
    'car': 'car', 'van': 'car', 'truck': 'truck', 'bus': 'truck', 'person': 'person',
    'fuel_truck': 'truck', 'catering_truck': 'truck', 'pedestrian': 'person',
}  # fmt: skip
"""{class of a network or of the truth: class that is judged}; others are left out."""
NAMES = ('car', 'truck', 'person')
ROADS = ('person', 'pedestrian', 'cyclist', 'car', 'van', 'truck', 'bus')
"""What there is on roads; baggage tractors and the like are on aprons only."""
WITHIN = 30.0
FLOOR = 0.02
DEFAULT = ('apron_centerpoint.onnx', 'apron_pointpillars.onnx')


def frame(scan: Frame, found: Found) -> judged.Frame:
    """A real scan and detections as an evaluation takes them."""
    truth, rows = scan.truth, []
    for row, names in enumerate(truth.names):
        allowed = dict.fromkeys(CLASSES[name] for name in names if name in CLASSES)
        for place, name in enumerate(allowed):
            # the first name is asked for; by another it may be called, too
            rows.append((name, row, place == 0 and truth.points[row] >= LEAST_POINTS))
    index = [row for _, row, _ in rows]
    known = np.array([name in CLASSES for name in found.names], bool)
    if scan.view is not None and len(known):
        known &= scan.view.judged(found.boxes)
    keep = np.flatnonzero(known)
    return judged.Frame(
        judged.Truth(
            tuple(name for name, _, _ in rows),
            truth.boxes[index].reshape(-1, 7),
            points=truth.points[index],
            asked=np.array([asked for _, _, asked in rows], bool),
        ),
        judged.Found(
            tuple(CLASSES[found.names[i]] for i in keep), found.boxes[keep], found.scores[keep]
        ),
        scan.name,
    ).in_range(0.0, WITHIN)


def figures(frames: Sequence[judged.Frame]) -> dict[str, dict[str, float]]:
    """{class: objects, AP, recall at one false alarm a frame, error in metres}."""
    table = {}
    for name in NAMES:
        near = reached(frames, name)
        errors = box_errors(frames, near)[:, 0]
        table[name] = {
            'objects': near.asked,
            'ap': mean(average_precisions(frames, name).values()),
            'recall': recall_at_alarms(reached(frames, name, 1.0), len(frames), 1.0)[0],
            'error': float(errors.mean()) if len(errors) else math.nan,
        }
    return table


def apron_off(card: ModelCard, thresholds: Mapping[str, float]) -> dict[str, float]:
    """`score_thresholds` under which a network answers with classes of roads only.

    As an operator on a road would set them: what is not answered suppresses nothing either.
    """
    return {name: thresholds.get(name, 0.0) if name in ROADS else 1.0 for name in card.published}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.transfer', description=__doc__)
    parser.add_argument(
        '--model', action='append', help=f'lidar network; default: {" and ".join(DEFAULT)}'
    )
    parser.add_argument(
        '--data', type=Path, default=Path('../shared/data'), help='folder of the real frames'
    )
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    given = parser.parse_args()
    if not (given.data / 'labelled').is_dir():
        print(f'no real frames at {given.data}', file=sys.stderr)
        return 2
    networks = {}
    for name in given.model or [n for n in DEFAULT if Path('models', n).is_file()]:
        path = model_file(name, here_first=True)
        card = find_card(path)
        if not isinstance(card, LidarCard):
            print(f'{path} is no lidar network', file=sys.stderr)
            return 2
        networks[f'{card.name}, simulation only'] = detector(path, FLOOR)
    answers: dict[str, Any] = {}
    head = ''.join(f'{f"{name}: objects AP recall error":>34}' for name in NAMES)
    print(f'{"frames":<22}{"network":<40}{head}')
    for place, (scans, known) in recorded(given.data).items():
        runs = {who: [detect(net, s.points) for s in scans] for who, net in networks.items()}
        for who, found in {**runs, **known}.items():
            table = figures([frame(scan, item) for scan, item in zip(scans, found, strict=True)])
            answers[f'{place}: {who}'] = table
            cells = ''.join(f'{_cell(table[name]):>34}' for name in NAMES)
            print(f'{place:<22}{who:<40}{cells}')
    if given.json:
        text = json.dumps(answers, indent=1).replace('NaN', 'null')
        given.json.write_text(text + '\n', encoding='utf-8')
    return 0


def _cell(row: Mapping[str, float]) -> str:
    if not row['objects']:
        return '0    -    -      -'
    values = (f'{row[key]:.2f}' if math.isfinite(row[key]) else '-' for key in
              ('ap', 'recall', 'error'))  # fmt: skip
    ap, recall, error = values
    return f'{row["objects"]:.0f} {ap:>5} {recall:>5} {error:>5} m'


if __name__ == '__main__':
    sys.exit(main())
