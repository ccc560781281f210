"""Measures a camera network on simulated scenes that it was not trained on.

    python -m training.evaluate_camera --models models --write

The pictures come from the simulator's own camera (open3d), not from the renderer of the training,
and go through the package's own detector. Prints average precision at IoU 0.5 and recall at the
card's thresholds for every class; --write puts them into the card. Needs no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, find_card
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.overlap import iou_2d
from airside_perception.sim.apron import apron
from airside_perception.sim.camera import Light, look, render, visible
from airside_perception.sim.caster import Open3DCaster
from airside_perception.sim.rig import load_rig
from airside_perception.sim.street import street
from airside_perception.types import Boxes2D, Float64, Image

FIRST_SEED = 700_000
"""Held-out scenes start here; those of the training start at `first_scene` of its recipe."""
IOU = 0.5
FAINT = 0.02
"""Lowest score that enters the average precision."""
LEAST, BARELY = 60, 20
"""Objects with fewer than LEAST visible pixels are neither asked for nor punished; with fewer than
BARELY they count as absent."""


@dataclass(frozen=True)
class Sight:
    """One picture with the objects to be found in it, and those that may be."""

    image: Image
    wanted: Boxes2D
    allowed: Boxes2D


@dataclass(frozen=True)
class Tally:
    """Of one class: how many objects, and its detections, best first: score, hit or miss."""

    objects: int
    scores: Float64
    hits: np.ndarray[Any, np.dtype[np.bool_]]

    def average_precision(self) -> float:
        """Area below the precision that is kept at no less than each recall."""
        if not len(self.hits) or not self.objects:
            return 0.0
        found = np.cumsum(self.hits)
        precision = found / np.arange(1, len(found) + 1)
        kept = np.maximum.accumulate(precision[::-1])[::-1]
        return float((kept * self.hits).sum() / self.objects)

    def at(self, score: float) -> tuple[float, float]:
        """Recall and precision of detections with at least this score."""
        hits = self.hits[self.scores >= score]
        return float(hits.sum()) / max(self.objects, 1), float(hits.mean()) if len(hits) else 0.0


def sights(rig_path: Path, aprons: int, streets: int) -> Iterator[Sight]:
    """What every camera of a rig sees of held-out scenes, each in a light of its own."""
    rig = load_rig(rig_path)
    directions = {name: look(lens) for name, lens in rig.lenses.items()}
    for number in range(aprons + streets):
        seed = FIRST_SEED + number
        rng = np.random.default_rng([seed, 9])
        scene = (apron if number < aprons else street)(seed).at(1.0)
        caster = Open3DCaster(scene.triangles)
        sun, azimuth, elevation = rng.uniform([0.3, -np.pi, 0.3], [0.9, np.pi, 1.2])
        light = Light(float(azimuth), float(elevation), float(sun))
        for name, lens in rig.lenses.items():
            picture = render(lens, scene, caster, light, rng, directions[name])
            frame = lens.model.frame_id
            yield Sight(
                Image(0, frame, picture.image),
                visible(picture, scene, 0, frame, LEAST),
                visible(picture, scene, 0, frame, BARELY),
            )


def judge(found: Boxes2D, sight: Sight, card: CameraCard, name: str) -> list[tuple[float, bool]]:
    """(score, hit) of the detections of one class; those that hit what may be found are left out.

    Each object goes to the best detection that overlaps it most, as in PASCAL VOC.
    """
    wanted, allowed = _of(sight.wanted, card, name), _of(sight.allowed, card, name)
    mine = found.xyxy[[kind == name for kind in found.classes]]
    scores = found.scores[[kind == name for kind in found.classes]]
    free = np.ones(len(wanted), bool)
    verdicts = []
    for row in np.argsort(-scores, kind='stable'):
        overlap = iou_2d(mine[row : row + 1], wanted)[0] * free if len(wanted) else np.zeros(1)
        best = int(overlap.argmax())
        if overlap[best] >= IOU:
            free[best] = False
            verdicts.append((float(scores[row]), True))
        elif not len(allowed) or iou_2d(mine[row : row + 1], allowed).max() < IOU:
            verdicts.append((float(scores[row]), False))
        elif len(wanted) and iou_2d(mine[row : row + 1], wanted).max() >= IOU:
            verdicts.append((float(scores[row]), False))  # a second box around the same object
    return verdicts


def _of(boxes: Boxes2D, card: CameraCard, name: str) -> Float64:
    """Boxes [N, 4] of the simulator's classes that are published as `name`."""
    return boxes.xyxy[[card.publish.get(kind, kind) == name for kind in boxes.classes]]


def measure(
    detector: CameraDetector, card: CameraCard, rig: Path, aprons: int, streets: int
) -> dict[str, Tally]:
    """A tally of every published class."""
    verdicts: dict[str, list[tuple[float, bool]]] = {name: [] for name in card.published}
    objects = dict.fromkeys(card.published, 0)
    for sight in sights(rig, aprons, streets):
        found = detector.detect(sight.image)
        for name in card.published:
            verdicts[name] += judge(found, sight, card, name)
            objects[name] += len(_of(sight.wanted, card, name))
    tallies = {}
    for name, rows in verdicts.items():
        rows.sort(key=lambda row: -row[0])
        scores = np.array([score for score, _ in rows], np.float64)
        tallies[name] = Tally(objects[name], scores, np.array([hit for _, hit in rows], bool))
    return tallies


def dump(values: Mapping[str, Any]) -> str:
    """YAML as the cards are written."""
    text: str = yaml.safe_dump(
        dict(values), sort_keys=False, width=99, default_flow_style=None, allow_unicode=True
    )
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', default='models')
    parser.add_argument('--name', default='apron_yolox')
    parser.add_argument('--rig', default='config/rig.yaml')
    parser.add_argument('--aprons', type=int, default=40)
    parser.add_argument('--streets', type=int, default=20)
    parser.add_argument('--write', action='store_true', help='put the figures into the card')
    options = parser.parse_args()
    cv2.setNumThreads(1)
    path = Path(options.models) / f'{options.name}.onnx'
    card = find_card(path)
    if not isinstance(card, CameraCard):
        raise SystemExit(f'{path}: not a camera network')
    config = replace(CameraConfig(), score_threshold=FAINT)
    with open_engine(path) as engine:
        detector = CameraDetector(engine, replace(card, thresholds={}), config)
        tallies = measure(detector, card, Path(options.rig), options.aprons, options.streets)
    rows = {}
    for name, tally in tallies.items():
        score = max(card.thresholds.get(name, 0.0), CameraConfig().score_threshold)
        recall, precision = tally.at(score)
        rows[name] = {
            'objects': tally.objects,
            'ap50': round(tally.average_precision(), 3),
            'recall': round(recall, 3),
            'precision': round(precision, 3),
        }
        print(f'{name:16} {rows[name]}')
    mean = float(np.mean([row['ap50'] for row in rows.values() if row['objects']]))
    print(f'{"mean":16} ap50 {mean:.3f}')
    if options.write:
        target = path.with_suffix('.yaml')
        values = yaml.safe_load(target.read_text(encoding='utf-8'))
        values['about']['accuracy'] = {
            'on': (
                f'simulated pictures, not real ones: {options.aprons} aprons and '
                f'{options.streets} streets with seeds from {FIRST_SEED}, {options.rig}; objects '
                f'of at least {LEAST} visible pixels, IoU {IOU}; recall and precision at the '
                'thresholds above'
            ),
            'mean_ap50': round(mean, 3),
            'classes': rows,
        }
        target.write_text(dump(values), encoding='utf-8')


if __name__ == '__main__':
    main()
