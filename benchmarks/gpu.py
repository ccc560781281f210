"""Latency of the detectors on a GPU, beside torch doing the same work in the same run.

    python -m benchmarks.gpu SCANS --torch-python /path/to/python --out results.json

SCANS is a folder of KITTI scans (.bin). Needs TensorRT with its builder; torch may live in another
Python. Engines are built into --plans and kept there. Prints a table; --out keeps all figures.

What is timed, each over all scans in turn: `whole` from page-locked points on the host to rows of
boxes on the host (one graph launch, two copies, one wait); `call` adds packing the cloud before
and making Boxes3D after; stages one by one between CUDA events, without a graph; the dense network
alone, as a graph. Weights of the network are random, its shapes those of KITTI's PointPillars.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.camera.gpu import CudaCameraDetector
from airside_perception.card import CameraCard, LidarCard, find_card
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.cuda.runtime import DeviceArray, Graph, Stream, copy_device, use_device
from airside_perception.engine.build import BuildSettings, build_engine
from airside_perception.engine.capabilities import load_tensorrt
from airside_perception.engine.formats import fast_formats
from airside_perception.engine.manifest import Manifest, manifest_path, sha256_of
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.types import Image, PointCloud
from benchmarks.gpu_inputs import PERIOD_NS, PICTURE, joined, read_pictures, read_scans
from benchmarks.gpu_network import THRESHOLD, write_network

NVIDIA = {
    'what': "NVIDIA's CUDA-PointPillars, its own C++, fp16, TensorRT 8.6, random weights, on an "
    'H200; measured apart from this run',
    'copy in': 0.042, 'voxels': 0.043, 'engine (with pillar net and scatter)': 0.397,
    'decode and NMS': 1.22, 'whole': 1.70, 'whole p99': 1.98,
    'whole without one redundant memset': 1.13, 'dense network': 0.329,
    'dense network as a graph': 0.293,
}  # fmt: skip
GOALS = {'whole': 0.50, 'all but the dense network': 0.17, 'times slower: torch eager': 5.0}
TACTICS = ('EDGE_MASK_CONVOLUTIONS', 'JIT_CONVOLUTIONS')
ROOT = Path(__file__).resolve().parents[1]
OWN = ('apron_centerpoint', 'apron_pointpillars', 'apron_centerpoint_velocity')
WARM_UP = 20
LIDAR_HEIGHT = 1.73


def spread(times_ms: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        'median_ms': round(statistics.median(times_ms), 4),
        'p99_ms': round(float(np.percentile(times_ms, 99)), 4),
    }


def wall(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Wall time of `work`, which waits for the GPU itself."""
    times = []
    for index in range(WARM_UP + repeats):
        start = time.perf_counter_ns()
        work()
        if index >= WARM_UP:
            times.append((time.perf_counter_ns() - start) / 1e6)
    return spread(times)


class Eager:
    """An engine whose work is not recorded into a graph."""

    capturable = False

    def __init__(self, engine: TensorRTEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Bench:
    """Engines and settings of one run.

    Args:
        plans: folder of engines; those that are there and belong to their ONNX are used.
        repeats: of every measurement.
    """

    def __init__(self, plans: Path, repeats: int, opt_level: int) -> None:
        self.plans, self.repeats, self.opt_level = plans, repeats, opt_level
        plans.mkdir(parents=True, exist_ok=True)

    def engine(self, onnx: Path, name: str, **settings: Any) -> TensorRTEngine:
        """An engine of `onnx`, built where there is none yet."""
        path = self.plans / f'{name}.engine'
        current = path.is_file() and manifest_path(path).is_file()
        if not current or Manifest.read(path).onnx_sha256 != sha256_of(onnx):
            print(f'building {path.name} ...', file=sys.stderr, flush=True)
            start = time.perf_counter()
            build_engine(
                onnx,
                path,
                BuildSettings(
                    opt_level=self.opt_level,
                    timing_cache=str(self.plans / 'timing.cache'),
                    tactic_sources=TACTICS,
                    **settings,
                ),
            )
            spent = time.perf_counter() - start
            print(f'  {spent:.0f} s, {path.stat().st_size:,} bytes', file=sys.stderr, flush=True)
        return TensorRTEngine(path)

    def dense(self, engine: TensorRTEngine) -> dict[str, float]:
        """The network alone, as a graph: launch and wait."""
        with Stream() as stream:
            engine.enqueue(stream)
            stream.synchronize()
            with Graph.capture(stream, lambda: engine.enqueue(stream)) as graph:

                def once() -> None:
                    graph.launch(stream)
                    stream.synchronize()

                return wall(once, self.repeats)


def bandwidth(nbytes: int = 1 << 30, repeats: int = 20) -> float:
    """GB/s of a copy on the device, bytes read plus bytes written, best of `repeats`."""
    from airside_perception.cuda.runtime import Event

    with (
        Stream() as stream,
        DeviceArray(nbytes, np.uint8) as a,
        DeviceArray(nbytes, np.uint8) as b,
        Event() as start,
        Event() as stop,
    ):
        best = float('inf')
        a.clear(stream)
        for _ in range(repeats):
            start.record(stream)
            copy_device(b.address, a.address, nbytes, stream)
            stop.record(stream)
            stream.synchronize()
            best = min(best, stop.elapsed_ms(start))
        return 2 * nbytes / best / 1e6


def detector_times(
    detector: CudaLidarDetector, clouds: Sequence[PointCloud], repeats: int
) -> dict[str, dict[str, float]]:
    """`whole` and `call` of a lidar detector over all clouds in turn."""
    whole, call = [], []
    for index in range(WARM_UP + repeats):
        start = time.perf_counter_ns()
        detector.detect(clouds[index % len(clouds)])
        if index >= WARM_UP:
            call.append((time.perf_counter_ns() - start) / 1e6)
            whole.append(detector.timings['gpu'])
    return {'whole': spread(whole), 'call': spread(call)}


KITTI_CONFIG = LidarConfig(
    score_threshold=THRESHOLD, nms_iou=0.01, nms_iou_across=1.0, max_candidates=4096,
    max_detections=500,
)  # fmt: skip


def lidar_report(
    bench: Bench, onnx: Path, name: str, scans: list[Any], config: LidarConfig, **settings: Any
) -> Any:
    """One lidar network: whole, call, stages, dense network, counts."""
    card = find_card(onnx)
    if not isinstance(card, LidarCard):
        raise TypeError(card.path)
    config = replace(config, score_thresholds=dict(card.thresholds))
    clouds = [PointCloud(i * PERIOD_NS, 'lidar', scan) for i, scan in enumerate(scans)]
    if card.past_sweeps:
        clouds = joined(clouds, card, config)
    with bench.engine(onnx, name, **settings) as engine:
        report: dict[str, Any] = {'device_bytes': engine.info.device_bytes}
        report['dense network'] = bench.dense(engine)
        detector = CudaLidarDetector(engine, card, config)
        report['graph'] = detector_times(detector, clouds, bench.repeats)
        counts = []
        for cloud in clouds:
            found = detector.detect(cloud)
            counts.append(
                {
                    'points': len(cloud), 'usable': detector.last_usable,
                    'pillars': detector.last_pillars, 'candidates': detector.last_candidates,
                    'boxes': len(found),
                }
            )  # fmt: skip
        report['kernels'], report['nodes'] = detector.launches, detector.nodes
        middle = clouds[len(clouds) // 2]
        report['stages_us'] = detector.profile(middle, bench.repeats)
        detector.close()
        detector = CudaLidarDetector(Eager(engine), card, config)
        report['no graph'] = detector_times(detector, clouds, bench.repeats)
        detector.close()
    report['scans'] = {
        key: [min(c[key] for c in counts), max(c[key] for c in counts)] for key in counts[0]
    }
    return report


def camera_report(bench: Bench, onnx: Path, name: str, images: Sequence[Image]) -> Any:
    """A camera network: one camera, then eight whose work overlaps on one GPU."""
    card = find_card(onnx)
    if not isinstance(card, CameraCard):
        raise TypeError(card.path)
    config = CameraConfig(score_threshold=0.3, score_thresholds=dict(card.thresholds))
    report: dict[str, Any] = {'image': f'{PICTURE[1]} x {PICTURE[0]} bgr8'}
    half = {'precision': 'fp16', 'io_precision': 'fp16', 'io_formats': {card.input_name: 'hwc8'}}
    engines = [bench.engine(onnx, name, **half) for _ in range(8)]
    detectors = [CudaCameraDetector(engine, card, config) for engine in engines]
    try:
        report['dense network'] = bench.dense(engines[0])
        one, whole = [], []
        for index in range(WARM_UP + bench.repeats):
            start = time.perf_counter_ns()
            detectors[0].detect(images[index % 8])
            if index >= WARM_UP:
                one.append((time.perf_counter_ns() - start) / 1e6)
                whole.append(detectors[0].timings['gpu'])
        report['one camera'] = {'whole': spread(whole), 'call': spread(one)}

        def eight() -> None:
            for detector, image in zip(detectors, images, strict=True):
                detector.submit(image)
            for detector in detectors:
                detector.collect()

        report['eight cameras, all'] = wall(eight, bench.repeats)
        report['stages_us'] = detectors[0].profile(images[0], bench.repeats)
    finally:
        for detector in detectors:
            detector.close()
        for engine in engines:
            engine.close()
    return report


def torch_report(python: str, onnx: Path, scans: Path, repeats: int) -> Any:
    """What `benchmarks.gpu_torch` prints, run by another Python."""
    command = [python, '-m', 'benchmarks.gpu_torch', str(onnx.resolve()), str(scans.resolve())]
    command += ['--repeats', str(repeats)]
    own = ('PYTHONPATH', 'PYTHONHOME', 'LD_LIBRARY_PATH')  # of this Python, not of that
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f'torch: {done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def table(report: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f'{report["gpu"]}, driver {report["driver"]}, {report["tensorrt"]}, {report["date"]}']
    lines.append(f'copy on the device: {report["copy_gb_s"]:.0f} GB/s read and written')
    lidar = report['lidar']
    dense, whole = lidar['dense network']['median_ms'], lidar['graph']['whole']['median_ms']
    rows = [
        ('lidar, whole, one graph', lidar['graph']['whole']),
        ('lidar, call (with packing and Boxes3D)', lidar['graph']['call']),
        ('lidar, whole, launch by launch', lidar['no graph']['whole']),
        ('dense network alone, as a graph', lidar['dense network']),
    ]
    if 'torch' in report:
        eager, graph = report['torch']['eager'], report['torch']['graph']
        rows += [
            ('torch eager, whole', eager['whole']),
            ('torch eager, without NMS', eager['whole without NMS']),
            ('torch as a graph, whole', graph['whole']),
            ('torch dense as a graph', graph['dense']),
        ]
    for name, network in report.get('own', {}).items():
        rows.append((f'{name}, whole', network['graph']['whole']))
        rows.append((f'{name}, dense network', network['dense network']))
    if 'camera' in report:
        camera = report['camera']
        rows += [
            ('camera, whole, one graph', camera['one camera']['whole']),
            ('camera, call', camera['one camera']['call']),
            ('camera, dense network', camera['dense network']),
            ('eight cameras, call of all', camera['eight cameras, all']),
        ]
    lines += [
        f'{name:<44}{row["median_ms"]:>9.3f} ms  p99 {row["p99_ms"]:.3f} ms' for name, row in rows
    ]
    ratios = {'whole / dense': whole / dense, "NVIDIA's whole / ours": NVIDIA['whole'] / whole}
    if 'torch' in report:
        ratios['torch eager / ours'] = report['torch']['eager']['whole']['median_ms'] / whole
        without = report['torch']['eager']['whole without NMS']['median_ms']
        ratios['torch eager without NMS / ours with it'] = without / whole
        ratios['torch graph / ours'] = report['torch']['graph']['whole']['median_ms'] / whole
    lines.append(f'{"all but the dense network":<44}{whole - dense:>9.3f} ms')
    lines += [f'{name:<44}{value:>9.2f}' for name, value in ratios.items()]
    stages = ', '.join(f'{name} {value:.1f}' for name, value in lidar['stages_us'].items())
    lines.append(f'stages, us, between events: {stages}')
    lines.append(f'{lidar["kernels"]} kernels, {lidar["nodes"]} nodes; scans: {lidar["scans"]}')
    if 'camera' in report:
        stages = ', '.join(f'{k} {v:.1f}' for k, v in report['camera']['stages_us'].items())
        lines.append(f'camera stages, us: {stages}')
    return '\n'.join(lines)


def main(args: list[str] | None = None) -> int:
    """The command; see the top of the module."""
    parser = argparse.ArgumentParser(description='Latency of the detectors on a GPU')
    parser.add_argument('scans', type=Path, help='folder of KITTI scans (.bin)')
    parser.add_argument('--pictures', type=Path, help='folder of .png; none: drawn ones')
    parser.add_argument('--torch-python', default='', help='Python with torch; none: left out')
    parser.add_argument('--plans', type=Path, default=ROOT / 'build' / 'gpu-plans')
    parser.add_argument('--repeats', type=int, default=300)
    parser.add_argument('--opt-level', type=int, default=3, help='of the builder, 0 to 5')
    parser.add_argument('--only', choices=('lidar', 'camera', 'all'), default='all')
    parser.add_argument('--out', type=Path, help='JSON file with all figures')
    options = parser.parse_args(args)
    device = use_device()
    tensorrt = load_tensorrt(build=True)
    scans = read_scans(options.scans)
    bench = Bench(options.plans, options.repeats, options.opt_level)
    network = options.plans / 'kitti_pointpillars.onnx'
    if not network.is_file():
        write_network(options.plans, scans[-1], candidates=1500)
    report: dict[str, Any] = {
        'date': datetime.date.today().isoformat(),
        'gpu': device.name, 'sm': device.sm, 'driver': device.driver_version,
        'tensorrt': str(tensorrt), 'python': sys.version.split()[0],
        'opt_level': options.opt_level, 'repeats': options.repeats,
        'copy_gb_s': round(bandwidth(), 1), 'nvidia': NVIDIA, 'goals': GOALS,
    }  # fmt: skip
    fast = {'canvas': 'hwc8', 'scores': 'hwc8', 'boxes': 'hwc8', 'directions': 'hwc8'}
    half: dict[str, Any] = {'precision': 'fp16', 'io_precision': 'fp16', 'io_formats': fast}
    report['lidar'] = lidar_report(bench, network, 'kitti.fp16', scans, KITTI_CONFIG, **half)
    if options.torch_python:
        report['torch'] = torch_report(
            options.torch_python, network, options.scans, options.repeats // 3
        )
    if options.only != 'lidar':
        for scan in scans:  # their frame stands on the ground
            scan[:, 2] += LIDAR_HEIGHT
        report['own'] = {}
        for name in OWN:
            own = ROOT / 'models' / f'{name}.onnx'
            half['io_formats'] = fast_formats(find_card(own), 'fp16', 'gpu')
            report['own'][name] = lidar_report(
                bench, own, f'{name}.fp16', scans, LidarConfig(), **half
            )
        report['camera'] = camera_report(
            bench,
            ROOT / 'models' / 'apron_yolox.onnx',
            'apron_yolox.fp16',
            read_pictures(options.pictures),
        )
    print(table(report))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
