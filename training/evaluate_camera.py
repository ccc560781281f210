"""Measures a camera network on simulated scenes that it was not trained on.

    python -m training.evaluate_camera --models models --write

The pictures come from the simulator's own camera (open3d), not from the renderer of the training,
and go through the package's own detector. Prints average precision at IoU 0.5 and recall at the
card's thresholds for every class, recall also by range; --write puts them into the card. Needs no
torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, find_card
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.evaluate.question import RANGES
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
    """One picture with the objects to be found in it, and those that may be.

    Attributes:
        far: float64 [wanted], metres from base_link; empty: not known.
    """

    image: Image
    wanted: Boxes2D
    allowed: Boxes2D
    far: Float64 = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Tally:
    """Of one class: how many objects, and its detections, best first: score, hit or miss.

    Attributes:
        far: float64 [objects], metres; found_far: float64 [detections], of the object that each
            hits, NaN for a miss.
    """

    objects: int
    scores: Float64
    hits: np.ndarray[Any, np.dtype[np.bool_]]
    far: Float64 = field(default_factory=lambda: np.empty(0))
    found_far: Float64 = field(default_factory=lambda: np.empty(0))

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

    def by_range(self, score: float) -> dict[str, list[float]]:
        """{range: [objects, recall of detections with at least this score]}, if there are any."""
        found = self.found_far[self.scores >= score]
        rows = {}
        for low, high in pairwise(RANGES):
            objects = int(((self.far >= low) & (self.far < high)).sum())
            if objects:
                hits = int(((found >= low) & (found < high)).sum())
                rows[f'{low:g}-{high:g} m'] = [objects, round(hits / objects, 3)]
        return rows


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
            pixels = np.bincount(picture.instance.ravel() + 1, minlength=len(scene.objects) + 1)
            shown = np.flatnonzero(pixels[1:] >= LEAST)  # in the order of `visible`
            yield Sight(
                Image(0, frame, picture.image),
                visible(picture, scene, 0, frame, LEAST),
                visible(picture, scene, 0, frame, BARELY),
                np.linalg.norm(scene.objects.boxes[shown, :2], axis=1),
            )


def judge(found: Boxes2D, sight: Sight, card: CameraCard, name: str) -> list[tuple[float, bool]]:
    """(score, hit) of the detections of one class; see `assign`."""
    return [(score, row >= 0) for score, row in assign(found, sight, card, name)]


def assign(found: Boxes2D, sight: Sight, card: CameraCard, name: str) -> list[tuple[float, int]]:
    """(score, which of the wanted objects of the class, -1: none) of the detections of one class.

    Those that hit what may be found are left out. Each object goes to the best detection that
    overlaps it most, as in PASCAL VOC.
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
            verdicts.append((float(scores[row]), best))
        elif not len(allowed) or iou_2d(mine[row : row + 1], allowed).max() < IOU:
            verdicts.append((float(scores[row]), -1))
        elif len(wanted) and iou_2d(mine[row : row + 1], wanted).max() >= IOU:
            verdicts.append((float(scores[row]), -1))  # a second box around the same object
    return verdicts


def _of(boxes: Boxes2D, card: CameraCard, name: str) -> Float64:
    """Boxes [N, 4] of the simulator's classes that are published as `name`."""
    return boxes.xyxy[_are(boxes, card, name)]


def _are(boxes: Boxes2D, card: CameraCard, name: str) -> list[bool]:
    return [card.publish.get(kind, kind) == name for kind in boxes.classes]


def measure(
    detector: CameraDetector, card: CameraCard, rig: Path, aprons: int, streets: int
) -> dict[str, Tally]:
    """A tally of every published class."""
    verdicts: dict[str, list[tuple[float, float]]] = {name: [] for name in card.published}
    far: dict[str, list[float]] = {name: [] for name in card.published}
    for sight in sights(rig, aprons, streets):
        found = detector.detect(sight.image)
        for name in card.published:
            own = sight.far[_are(sight.wanted, card, name)]
            far[name] += own.tolist()
            verdicts[name] += [
                (score, float(own[row]) if row >= 0 else np.nan)
                for score, row in assign(found, sight, card, name)
            ]
    tallies = {}
    for name, rows in verdicts.items():
        rows.sort(key=lambda row: -row[0])
        scores, found_far = np.array(rows, np.float64).reshape(-1, 2).T
        hits = np.isfinite(found_far)
        tallies[name] = Tally(len(far[name]), scores, hits, np.array(far[name]), found_far)
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
            'ranges': tally.by_range(score),
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
                'thresholds above; ranges: objects and recall, from base_link'
            ),
            'mean_ap50': round(mean, 3),
            'classes': rows,
        }
        target.write_text(dump(values), encoding='utf-8')


if __name__ == '__main__':
    main()
