"""INT8 and FP16 beside FP32 on real scans: which boxes they agree on, and how fast they are.

    python -m benchmarks.gpu_int8 SCANS --out int8.json

SCANS is a folder of KITTI scans (.bin), moved by the height of their lidar. The network is the
package's own. Scales come from every third scan; what is counted comes from the others. Strided
deconvolutions become 1x1 convolutions and DepthToSpace, which is exact: TensorRT 8.6 builds no
INT8 kernel for them on sm_90.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from airside_perception.card import LidarCard, load_card
from airside_perception.config import LidarConfig
from airside_perception.cuda.runtime import use_device
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.quantize import quantize
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.lidar.pillars import Grid
from airside_perception.types import Boxes3D, PointCloud
from benchmarks.gpu import LIDAR_HEIGHT, ROOT, Bench, detector_times
from benchmarks.gpu_inputs import read_scans

MARGIN = 0.02
"""Boxes nearer to their threshold may be on either side of it, and are not asked for."""
REACH = 0.5
"""Farthest centre of the same box, metres."""


def agreement(
    reference: Sequence[Boxes3D], others: Sequence[Boxes3D], card: LidarCard
) -> dict[str, float]:
    """How the boxes of one precision agree with those of another, scan by scan.

    `lost`: boxes of the reference, clear of their threshold, that have no partner of their class
    within `REACH`; `added`: the same the other way round.
    """
    lost = added = pairs = 0
    apart: list[float] = []
    turned: list[float] = []
    scores: list[float] = []
    for a, b in zip(reference, others, strict=True):
        distance = np.linalg.norm(a.boxes[:, None, :3] - b.boxes[None, :, :3], axis=2)
        same = np.array(a.classes)[:, None] == np.array(b.classes)[None]
        distance[~same | (distance > REACH)] = 1e3
        rows, columns = _nearest(distance)
        pairs += len(rows)
        apart += distance[rows, columns].tolist()
        turn = np.abs(a.boxes[rows, 6] - b.boxes[columns, 6])
        turned += np.minimum(turn % np.pi, np.pi - turn % np.pi).tolist()
        scores += np.abs(a.scores[rows] - b.scores[columns]).tolist()
        lost += int((~np.isin(np.arange(len(a)), rows) & _clear(a, card)).sum())
        added += int((~np.isin(np.arange(len(b)), columns) & _clear(b, card)).sum())
    return {
        'pairs': pairs, 'lost': lost, 'added': added,
        'centre_median_m': round(float(np.median(apart)), 4),
        'centre_p99_m': round(float(np.percentile(apart, 99)), 4),
        'yaw_median_rad': round(float(np.median(turned)), 4),
        'score_median': round(float(np.median(scores)), 4),
        'score_p99': round(float(np.percentile(scores, 99)), 4),
    }  # fmt: skip


def _nearest(distance: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of pairs within reach, the nearest first; each in one pair only."""
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for place in np.argsort(distance, axis=None, kind='stable').tolist():
        row, column = divmod(place, distance.shape[1])
        if distance[row, column] >= 1e3:
            break
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            pairs.append((row, column))
    found = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _clear(boxes: Boxes3D, card: LidarCard) -> Any:
    least = np.array([card.thresholds.get(name, 0.0) for name in boxes.classes])
    return boxes.scores > least + MARGIN


def main(args: list[str] | None = None) -> int:
    """The command; see the top of the module."""
    parser = argparse.ArgumentParser(description='INT8 and FP16 beside FP32 on real scans')
    parser.add_argument('scans', type=Path, help='folder of KITTI scans (.bin)')
    parser.add_argument('--plans', type=Path, default=ROOT / 'build' / 'gpu-plans')
    parser.add_argument('--repeats', type=int, default=200)
    parser.add_argument('--opt-level', type=int, default=3)
    parser.add_argument('--method', default='percentile', help='of the calibration')
    parser.add_argument('--exclude', type=int, default=2, help='first convolutions left in fp16')
    parser.add_argument('--prepare', action='store_true', help='quantise only, needs no GPU')
    parser.add_argument('--out', type=Path)
    options = parser.parse_args(args)
    bench = Bench(options.plans, options.repeats, options.opt_level)
    source = ROOT / 'models' / 'apron_pointpillars.onnx'
    card = load_card(source.with_suffix('.yaml'))
    if not isinstance(card, LidarCard):
        raise TypeError(card.path)
    scans = read_scans(options.scans)
    for scan in scans:
        scan[:, 2] += LIDAR_HEIGHT
    grid, encoder = Grid.of(card), Encoder(card)
    feeds = [
        {card.input_name: encoder.encode(scan, grid.fill(scan)).copy()} for scan in scans[::3]
    ]
    network = options.plans / 'apron_int8.onnx'
    if not network.is_file():
        split = split_deconvolutions(onnx.load(str(source)))
        first = [node.name for node in split.graph.node if node.op_type == 'Conv']
        exclude = first[: options.exclude]
        onnx.save(quantize(split, feeds, options.method, exclude), str(network))
    if options.prepare:
        return 0
    device = use_device()
    clouds = [PointCloud(i, 'base_link', scan) for i, scan in enumerate(scans) if i % 3]
    tensors = dict.fromkeys((card.input_name, *card.outputs), 'hwc8')
    wanted: dict[str, tuple[Path, dict[str, Any]]] = {
        'fp32': (source, {'precision': 'fp32'}),
        'fp16': (source, {'precision': 'fp16', 'io_formats': tensors}),
        'int8': (network, {'precision': 'int8', 'io_formats': tensors}),
    }
    found: dict[str, list[Boxes3D]] = {}
    report: dict[str, Any] = {'gpu': device.name, 'scans': len(clouds), 'calibrated': len(feeds)}
    for name, (onnx_path, settings) in wanted.items():
        with bench.engine(onnx_path, f'apron.{name}', **settings) as engine:
            detector = CudaLidarDetector(engine, card, LidarConfig())
            found[name] = [detector.detect(cloud) for cloud in clouds]
            times = detector_times(detector, clouds, options.repeats)
            detector.close()
            report[name] = {'dense network': bench.dense(engine), **times}
        report[name]['boxes'] = sum(map(len, found[name]))
        report[name]['against fp32'] = agreement(found['fp32'], found[name], card)
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
