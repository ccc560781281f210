"""`python -m benchmarks.camera_recall`: what YOLOX-nano finds in KITTI frames, what not, and why.

Recall at IoU 0.5 and score 0.3, object by object. A label may be found under the names that COCO
has for it: a cyclist, for which COCO has none, as cyclist (the bicycle) or person (the rider).
Found objects are also lifted to the ground, and their range is compared with that of the label, in
metres and in standard deviations of the lift.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.preprocess import Pixels
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.deploy.resize import resize_network
from airside_perception.engine import open_engine
from airside_perception.geometry import apply, invert, transform
from airside_perception.overlap import iou_2d
from airside_perception.projection import CameraModel
from airside_perception.resources import resource
from airside_perception.types import Boxes2D, Float64, Image

IOU, SCORE = 0.5, 0.3
FAINT = 0.02
"""Lowest score that is looked at to explain a miss."""
NAMES = {
    'Car': ('car',),
    'Van': ('car', 'truck'),
    'Truck': ('truck',),
    'Tram': ('truck', 'bus'),
    'Misc': ('car', 'truck', 'bus'),
    'Pedestrian': ('person',),
    'Person_sitting': ('person',),
    'Cyclist': ('cyclist', 'person'),
}
OCCLUSION = {'0': 'in full view', '1': 'partly occluded', '2': 'largely occluded', '3': 'unclear'}
LIDAR_HEIGHT = 1.73


@dataclass(frozen=True)
class Label:
    """One line of a KITTI label file: 2D box in pixels, place in metres in the camera's frame."""

    frame: str
    name: str
    truncated: float
    occluded: str
    box: Float64
    place: Float64

    def __str__(self) -> str:
        width, height = self.box[2:] - self.box[:2]
        cut = f', {self.truncated:.0%} out of the image' if self.truncated > 0 else ''
        return (
            f'{self.frame} {self.name:<10} {width:3.0f} x {height:3.0f} px, '
            f'{self.place[2]:4.1f} m, {OCCLUSION[self.occluded]}{cut}'
        )


@dataclass(frozen=True)
class Result:
    """What became of a label: the detection that it was given (None: missed), and why."""

    label: Label
    found: int | None
    text: str


@dataclass(frozen=True)
class RangeError:
    """Error of a lifted centre along the bearing, metres, and its predicted deviation.

    Attributes:
        reach: true range.
        flat: error with the flat ground under the car that carries the camera.
        own: error with the level of the ground on which the label stands.
        sigma: predicted.
    """

    reach: float
    flat: float
    own: float
    sigma: float


def read_labels(path: Path) -> list[Label]:
    """The labels of one frame without the regions to ignore."""
    rows = [line.split() for line in path.read_text(encoding='utf-8').splitlines()]
    return [
        Label(
            path.stem.removesuffix('_gt'), row[0], float(row[1]), row[2],
            np.array(row[4:8], dtype=np.float64), np.array(row[11:14], dtype=np.float64),
        )
        for row in rows
        if row[0] in NAMES
    ]  # fmt: skip


def frames_in(data: Path) -> list[tuple[Path, Path, Path]]:
    """Image, labels and calibration of every labelled frame."""
    labelled, extra = data / 'labelled', data / 'reference' / 'zhulf_000134'
    found = [
        (
            image,
            labelled / 'label_2' / f'{image.stem}.txt',
            labelled / 'calib' / f'{image.stem}.txt',
        )
        for image in sorted((labelled / 'image_2').glob('*.png'))
    ]
    return [*found, (extra / '000134.png', extra / '000134_gt.txt', extra / '000134.txt')]


def match(labels: list[Label], boxes: Boxes2D) -> list[int | None]:
    """The detection of every label: one to one, as many as possible, then the most overlap."""
    if not labels or not len(boxes):
        return [None] * len(labels)
    overlap = iou_2d(np.array([label.box for label in labels]), boxes.xyxy)
    for row, label in enumerate(labels):
        wrong = [name not in NAMES[label.name] for name in boxes.classes]
        overlap[row, wrong] = 0.0
    fits = overlap >= IOU
    rows, columns = linear_sum_assignment(-np.where(fits, 1.0 + overlap, 0.0))
    given = {int(r): int(c) for r, c in zip(rows, columns, strict=True) if fits[r, c]}
    return [given.get(row) for row in range(len(labels))]


def explain(label: Label, faint: Boxes2D, everything: Boxes2D, taken: set[int]) -> str:
    """Why no detection was given to a label.

    Args:
        label: missed.
        faint: detections of published classes down to a very low score.
        everything: the same of all labels of the network under their own names.
        taken: detections of `faint` that other labels were given.
    """
    overlap = iou_2d(label.box[None], faint.xyxy)[0] if len(faint) else np.empty(0)
    right = np.array([name in NAMES[label.name] for name in faint.classes], dtype=bool)
    scores = faint.scores
    free = np.array([i not in taken for i in range(len(faint))], dtype=bool)

    def best(mask: NDArray[np.bool_], by: Float64) -> str | None:
        rows = np.flatnonzero(mask)
        if not len(rows):
            return None
        row = rows[int(np.argmax(by[rows]))]
        return f'{faint.classes[row]} {scores[row]:.2f} at IoU {overlap[row]:.2f}'

    if weak := best(right & (overlap >= IOU) & (scores < SCORE), scores):
        return f'below the threshold: {weak}'
    if loose := best(right & free & (overlap >= 0.2) & (scores >= SCORE), overlap):
        return f'box of something else or of a part: {loose}'
    if other := best(~right & (overlap >= IOU), scores):
        return f'another class: {other}'
    overlap_all = iou_2d(label.box[None], everything.xyxy)[0]
    strange = np.flatnonzero(overlap_all >= IOU)
    if len(strange):
        row = strange[0]
        return (
            f'another class: {everything.classes[row]} {everything.scores[row]:.2f}, not published'
        )
    if loose := best(right & (overlap >= 0.2), scores):
        return f'nearly nothing: {loose}'
    return 'nothing there'


def evaluate(data: Path, height: int, width: int) -> tuple[list[Result], list[RangeError | None]]:
    """What became of all labels, and the range errors of those that were found."""
    card_path = resource('config', 'cards', 'yolox_nano_coco.yaml')
    results: list[Result] = []
    ranges: list[RangeError | None] = []
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / 'network.onnx'
        source = data / 'yolox_nano' / 'yolox_nano.onnx'
        resize_network(source, network, height, width, str(card_path))
        card = load_card(network.with_suffix('.yaml'))
        if not isinstance(card, CameraCard):
            raise SystemExit(f'{card.path} is not the card of a camera network')
        engine = open_engine(network)
        detector = CameraDetector(engine, replace(card, thresholds={}), CameraConfig())
        names = CameraDetector(
            engine, replace(card, publish={}, thresholds={}), CameraConfig(score_threshold=FAINT)
        )
        for image_path, label_path, calibration in frames_in(data):
            pixels = np.asarray(cv2.imread(str(image_path)), dtype=np.uint8)
            image = Image(0, 'camera', pixels)
            labels = read_labels(label_path)
            detector.config = CameraConfig(score_threshold=SCORE, nms_iou=0.45)
            boxes = detector.detect(image)
            detector.config = CameraConfig(score_threshold=FAINT, nms_iou=0.45)
            faint, everything = detector.detect(image), names.detect(image)
            given = match(labels, boxes)
            taken = {  # the same detections, among the faint ones
                int(np.argmax((faint.xyxy == boxes.xyxy[i]).all(axis=1)))
                for i in given
                if i is not None
            }
            for label, found in zip(labels, given, strict=True):
                if found is None:
                    results.append(Result(label, None, explain(label, faint, everything, taken)))
                    continue
                overlap = iou_2d(label.box[None], boxes.xyxy[[found]])[0, 0]
                text = f'{boxes.classes[found]} {boxes.scores[found]:.2f} at IoU {overlap:.2f}'
                results.append(Result(label, found, text))
                box = boxes.select([found])
                ranges.append(lift_error(label, box, detector, calibration, pixels))
        engine.close()
    return results, ranges


def lift_error(
    label: Label, box: Boxes2D, detector: CameraDetector, calibration: Path, pixels: Pixels
) -> RangeError | None:
    """How far the lift is off; None where the box is not lifted."""
    matrix, camera2ground = read_calibration(calibration)
    camera = CameraModel('camera', pixels.shape[1], pixels.shape[0], matrix)
    foot = apply(camera2ground, label.place[None])[0]
    away = foot[:2] - camera2ground[:2, 3]
    errors, sigma = [], 0.0
    for ground in (foot[2], 0.0):
        moved = camera2ground.copy()
        moved[2, 3] -= ground
        lifted = detector.lift(box, camera, moved)
        if not len(lifted):
            return None
        bearing = lifted.boxes[0, 6]
        direction = np.array([np.cos(bearing), np.sin(bearing)])
        errors.append(float(direction @ (lifted.boxes[0, :2] - moved[:2, 3] - away)))
        sigma = float(np.sqrt(direction @ lifted.covariances[0, :2, :2] @ direction))
    return RangeError(float(np.hypot(*away)), errors[1], errors[0], sigma)


def read_calibration(path: Path) -> tuple[Float64, Float64]:
    """K and camera2ground of a KITTI frame: the lidar is level, 1.73 m above the ground.

    The few centimetres between camera 2 and the origin of the labels are left out.
    """
    lines = dict(line.split(':') for line in path.read_text().splitlines() if ':' in line)
    numbers = {name: np.array(text.split(), dtype=np.float64) for name, text in lines.items()}
    rectify = transform(numbers['R0_rect'].reshape(3, 3), np.zeros(3))
    lidar2camera = np.vstack([numbers['Tr_velo_to_cam'].reshape(3, 4), [0, 0, 0, 1]])
    lidar2ground = transform(np.eye(3), np.array([0.0, 0.0, LIDAR_HEIGHT]))
    return numbers['P2'].reshape(3, 4)[:, :3], lidar2ground @ invert(rectify @ lidar2camera)


def report(results: list[Result], ranges: list[RangeError | None], size: tuple[int, int]) -> str:
    """Table by class, the objects that were missed and found, and the ranges."""
    lines = [f'Camera recall at IoU {IOU}, score {SCORE}, input {size[0]} x {size[1]}', '']
    for name in [*sorted({r.label.name for r in results}), '']:
        rows = [r for r in results if name in ('', r.label.name)]
        hits = sum(r.found is not None for r in rows)
        lines.append(f'  {name or "all":<12} {hits:3d} of {len(rows):3d}  {hits / len(rows):4.0%}')
    clear = [r for r in results if r.label.occluded == '0' and r.label.truncated == 0]
    hits = sum(r.found is not None for r in clear)
    lines.append(f'  {"in full view":<12} {hits:3d} of {len(clear):3d}  {hits / len(clear):4.0%}')
    for title, wanted in (('Missed', False), ('Found', True)):
        lines += ['', f'{title}:']
        chosen = [r for r in results if (r.found is not None) == wanted]
        lines += [f'  {r.label!s:<66} {r.text}' for r in chosen]
    lines += [
        '',
        'Range of what was found and lifted (68 % should lie within the predicted sigma):',
    ]
    for low, high in ((0, 15), (15, 30), (30, 80)):
        part = [error for error in ranges if error and low <= error.reach < high]
        if part:
            flat = np.abs([error.flat for error in part])
            own = np.abs([error.own for error in part])
            sigma = np.array([error.sigma for error in part])
            lines.append(
                f'  {low:2d} to {high:2d} m: {len(part):2d} objects, median sigma '
                f'{np.median(sigma):.2f} m; on flat ground median error {np.median(flat):.2f} m, '
                f'{np.mean(flat < sigma):.0%} within sigma; on the ground of the label '
                f'{np.median(own):.2f} m, {np.mean(own < sigma):.0%}'
            )
    lines.append(f'  not lifted: {sum(error is None for error in ranges)}')
    return '\n'.join(lines)


def main() -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.camera_recall', description=__doc__
    )
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    parser.add_argument('--data', type=Path, default=default, help='folder with the recordings')
    parser.add_argument('--size', default='384x1248', help='input height x width')
    arguments = parser.parse_args()
    if not (arguments.data / 'labelled').is_dir():
        print(f'no recordings in {arguments.data}; --data names another folder', file=sys.stderr)
        return 1
    height, width = map(int, arguments.size.split('x'))
    results, ranges = evaluate(arguments.data, height, width)
    print(report(results, ranges, (height, width)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
