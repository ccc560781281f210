"""`python -m benchmarks.int8_camera`: YOLOX-nano in INT8 beside fp32, calibration by calibration.

Scales come from the COCO images and the labelled KITTI frames, the detections from the package's
own detector on the network with Q/DQ nodes. Columns: average precision at IoU 0.5 with the boxes
of fp32 as truth (all classes in one curve; mean of the classes); boxes of fp32 that INT8 has too;
boxes that only INT8 has; median and largest change of the scores of the former; labels found.
`--held-out` takes the scales from every second frame and compares on the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.deploy.calibrate import calibrate, with_qdq
from airside_perception.deploy.compare.average_precision import (
    Found,
    Truth,
    mean_precision,
    precisions,
)
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.resize import resize_network
from airside_perception.engine import open_engine
from airside_perception.engine.typed import read_network
from airside_perception.overlap import iou_2d
from airside_perception.resources import resource
from airside_perception.types import Boxes2D, Image
from benchmarks.camera_recall import IOU, SCORE, frames_in, match, read_labels

FAINT = 0.01
"""Lowest score on the curve of precision over recall."""
LABELLED = 6


@dataclass(frozen=True)
class Way:
    """One way to INT8; see `engine calibrate`."""

    name: str
    method: str = 'entropy'
    percentile: float = 99.99
    first: int = 0
    depthwise: bool = False
    correct: int = 0
    dla: bool = False


WAYS = (
    Way('entropy'),
    Way('min-max', 'minmax'),
    Way('percentile 99.99', 'percentile'),
    Way('percentile 99.999', 'percentile', 99.999),
    Way('min-max, alike for DLA', 'minmax', dla=True),
    Way('entropy, first 2', first=2),
    Way('min-max, first 2', 'minmax', first=2),
    Way('99.99, first 2', 'percentile', first=2),
    Way('entropy, mixed', first=10, depthwise=True),
    Way('min-max, mixed', 'minmax', first=10, depthwise=True),
    Way('99.99, mixed', 'percentile', first=10, depthwise=True),
    Way('99.999, mixed', 'percentile', 99.999, first=10, depthwise=True),
    Way('99.99, mixed, biases', 'percentile', first=10, depthwise=True, correct=4),
)
"""`first 2`: so many convolutions stay fp32; `mixed`: the first 10 and all depthwise ones."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    boxes: int
    ap: float
    mean_ap: float
    kept: float
    added: int
    score_median: float
    score_largest: float
    labels: str


def compare(
    reference: Sequence[Boxes2D], others: Sequence[Boxes2D], name: str, labels: str
) -> Row:
    """INT8 beside fp32, image by image.

    Args:
        reference: boxes of fp32, down to `FAINT`.
        others: the same of INT8.
        name: of the row; labels: how many were found.
    """
    frames, changes, kept, total, added = [], [], 0, 0, 0
    for a, b in zip(reference, others, strict=True):
        truth = a.select(a.scores >= SCORE)
        asked = np.ones(len(truth), bool)
        frames.append(
            (
                Found(b.classes, b.scores, b.xyxy),
                Truth(tuple((name,) for name in truth.classes), truth.xyxy, asked),
            )
        )
        strong = b.select(b.scores >= SCORE)
        pairs = _pairs(truth, strong)
        changes += [abs(truth.scores[i] - strong.scores[j]) for i, j in pairs]
        kept, total, added = kept + len(pairs), total + len(truth), added + len(strong)
    table = precisions(frames, IOU)
    return Row(
        name, added, table[''].ap, mean_precision(table), kept / total, added - kept,
        float(np.median(changes)) if changes else np.nan, max(changes, default=np.nan), labels,
    )  # fmt: skip


def _pairs(a: Boxes2D, b: Boxes2D) -> list[tuple[int, int]]:
    """Boxes of one class that overlap, the best score first, each once."""
    if not len(a) or not len(b):
        return []
    overlap = iou_2d(a.xyxy, b.xyxy)
    overlap[np.array(a.classes)[:, None] != np.array(b.classes)[None]] = 0.0
    found = []
    for row in range(len(a)):
        column = int(np.argmax(overlap[row]))
        if overlap[row, column] >= IOU:
            found.append((row, column))
            overlap[:, column] = 0.0
    return found


class Bench:
    """One network and its images."""

    def __init__(self, data: Path, folder: Path, height: int, width: int, held_out: bool) -> None:
        source = data / 'yolox_nano' / 'yolox_nano.onnx'
        self.folder, self.path = folder, folder / 'network.onnx'
        card_path = str(resource('config', 'cards', 'yolox_nano_coco.yaml'))
        resize_network(source, self.path, height, width, card_path)
        card = load_card(self.path.with_suffix('.yaml'))
        if not isinstance(card, CameraCard):
            raise TypeError(card.path)
        self.card = replace(card, thresholds={})
        images = sorted((data / 'yolox_nano' / 'images').glob('*.jpg'))
        self.labelled = frames_in(data)[:LABELLED]
        images += [image for image, _, _ in self.labelled]
        seen, compared = (images[::2], images[1::2]) if held_out else (images, images)
        self.calibration = self._feeds('calibration', seen)
        self.compared = self._feeds('compared', compared)
        self.frames = self._feeds('labelled', [image for image, _, _ in self.labelled])
        self.labels = [read_labels(labels) for _, labels, _ in self.labelled]

    def _feeds(self, name: str, images: Sequence[Path]) -> Feeds:
        names = self.folder / f'{name}.txt'
        names.write_text('\n'.join(str(image.resolve()) for image in images), encoding='utf-8')
        return open_feeds(names, self.path, self.card)

    def quantized(self, way: Way) -> Path:
        """The network with Q/DQ nodes."""
        state = self.folder / 'state.npz'
        made, _ = calibrate(
            self.path, self.calibration, state, way.method, way.percentile, way.dla
        )
        feeds = [self.calibration[i * len(self.calibration) // way.correct]
                 for i in range(way.correct)]  # fmt: skip
        target = self.folder / 'int8.onnx'
        model = read_network(self.path)
        model = with_qdq(model, made.scales, (), way.first, way.depthwise, feeds)
        onnx.save(model, str(target))
        return target

    def boxes(self, path: Path) -> list[Boxes2D]:
        """What a network finds in the images that are compared."""
        with self._detector(path) as detector:
            return [detector.detect(image) for image in _images(self.compared)]

    def labels_found(self, path: Path) -> str:
        """How many of the labels a network finds."""
        with self._detector(path) as detector:
            found = [
                match(labels, boxes.select(boxes.scores >= SCORE))
                for labels, image in zip(self.labels, _images(self.frames), strict=True)
                for boxes in [detector.detect(image)]
            ]
        given = [item is not None for frame in found for item in frame]
        return f'{sum(given)} of {len(given)}'

    @contextmanager
    def _detector(self, path: Path) -> Iterator[CameraDetector]:
        config = CameraConfig(score_threshold=FAINT, nms_iou=0.45)
        with open_engine(path) as engine:
            yield CameraDetector(engine, self.card, config)


def _images(feeds: Feeds) -> Iterator[Image]:
    for index in range(len(feeds)):
        image = feeds.raw(index)
        if isinstance(image, Image):
            yield image


def table(rows: Sequence[Row], head: str) -> str:
    """As text."""
    titles = ('', 'boxes', 'AP50', 'mean AP50', 'kept', 'added', 'd score', 'largest', 'labels')
    lines = [head, '{:<24}{:>6}{:>8}{:>11}{:>8}{:>7}{:>9}{:>9}{:>11}'.format(*titles)]
    for row in rows:
        lines.append(
            f'{row.name:<24}{row.boxes:>6}{row.ap:>8.3f}{row.mean_ap:>11.3f}{row.kept:>8.1%}'
            f'{row.added:>7}{row.score_median:>9.3f}{row.score_largest:>9.3f}{row.labels:>11}'
        )
    return '\n'.join(lines)


def evaluate(data: Path, height: int, width: int, ways: Sequence[Way], held_out: bool) -> Any:
    """Rows of the table, fp32 first, and its heading."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(data, Path(folder), height, width, held_out)
        reference = bench.boxes(bench.path)
        rows = [compare(reference, reference, 'fp32', bench.labels_found(bench.path))]
        for way in ways:
            path = bench.quantized(way)
            rows.append(compare(reference, bench.boxes(path), way.name, bench.labels_found(path)))
            print(f'{way.name}: AP50 {rows[-1].ap:.3f}', file=sys.stderr)
        head = (
            f'YOLOX-nano, {height} x {width}, scales of {len(bench.calibration)} images, boxes of '
            f'{len(bench.compared)} {"other " if held_out else ""}images'
        )
    return rows, head


def main(args: list[str] | None = None) -> int:
    """The command; see the top of the module."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.int8_camera', description=__doc__.split('\n\n')[0]
    )
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    parser.add_argument('--data', type=Path, default=default, help='folder with the recordings')
    parser.add_argument('--size', default='416x416', help='input height x width')
    parser.add_argument('--held-out', action='store_true', help='compare on other frames')
    parser.add_argument('--only', default='', help='ways whose name holds this text')
    parser.add_argument('--out', type=Path, help='write the figures to this file, too')
    options = parser.parse_args(args)
    if not (options.data / 'yolox_nano').is_dir():
        print(f'no YOLOX-nano in {options.data}; --data names another folder', file=sys.stderr)
        return 1
    height, width = map(int, options.size.split('x'))
    ways = [way for way in WAYS if options.only in way.name]
    rows, head = evaluate(options.data, height, width, ways, options.held_out)
    print(table(rows, head))
    if options.out:
        text = json.dumps({'about': head, 'rows': [asdict(row) for row in rows]}, indent=1)
        options.out.write_text(f'{text}\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
