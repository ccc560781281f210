"""The launched graph on a real drive, at the drive's own pace: latency as other processes see it.

    python -m benchmarks.gpu_graph DRIVE --lidar LIDAR.engine --camera CAMERA.engine

DRIVE is a folder with velodyne/, image_02/ and calibration.yaml of a KITTI drive; it is repeated
until there are enough frames. Needs a sourced ROS 2 with this package. Latency is the time from
the sensor's message to the result of the same stamp, both as a process outside of the graph
receives them: serialisation, DDS and Python are in it. Beside it stands what the nodes say
themselves: from the callback to the publication.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from airside_perception.live import run_live
from airside_perception.replay.importer import import_kitti

LIDAR, CAMERA = '/perception/lidar/detections', '/perception/camera/front/detections'
FUSED = '/perception/objects'
SENSORS = ('/sensing/lidar/points', '/sensing/camera/front/image')
CALIBRATION = ('/sensing/camera/front/camera_info', '/tf_static')
SETTLE = 10
"""First frames of a run that do not count: discovery, clocks of the processor, caches."""


def repeat_drive(drive: Path, folder: Path, frames: int) -> Path:
    """A drive of `frames` frames made of links to those of a shorter one."""
    for part, ending in (('velodyne', '.bin'), ('image_02', '.png')):
        (folder / part).mkdir(parents=True)
        files = sorted((drive / part).glob(f'*{ending}'))
        for index in range(frames):
            source = files[index % len(files)].resolve()
            (folder / part / f'{index:010d}{ending}').symlink_to(source)
    (folder / 'calibration.yaml').symlink_to((drive / 'calibration.yaml').resolve())
    return folder


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The parameter file of a run."""
    engine = {'input_qos': 'reliable', 'allow_host_code': options.allow_host_code}
    nodes = {
        'bev_fusion': {'cameras': ['front'], 'fixed_frame': 'base_link'},
        'lidar_detector': {'engine_path': str(options.lidar), **engine},
        'camera_front': {'engine_path': str(options.camera), **engine},
    }
    if options.camera_card:
        nodes['camera_front']['card_path'] = str(options.camera_card)
    return {name: {'ros__parameters': values} for name, values in nodes.items()}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile, maximum and count."""
    array = np.asarray(values)[SETTLE:]
    if not len(array):
        return {'count': 0}
    return {
        'p50_ms': round(float(np.median(array)), 2),
        'p99_ms': round(float(np.percentile(array, 99)), 2),
        'max_ms': round(float(array.max()), 2),
        'count': len(array),
    }


def main(args: list[str] | None = None) -> int:
    """Prints one JSON object; see the top of the module."""
    parser = argparse.ArgumentParser(description='Latency of the launched graph on a real drive')
    parser.add_argument('drive', type=Path)
    parser.add_argument('--lidar', type=Path, required=True, help='engine or ONNX')
    parser.add_argument('--camera', type=Path, required=True, help='engine or ONNX')
    parser.add_argument('--camera-card', type=Path)
    parser.add_argument('--allow-host-code', action='store_true')
    parser.add_argument('--frames', type=int, default=300)
    parser.add_argument('--rate', type=float, default=1.0)
    parser.add_argument('--out', type=Path, help='keep logs and results here')
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        drive = repeat_drive(options.drive, Path(temporary) / 'drive', options.frames)
        bag, params = Path(temporary) / 'bag', Path(temporary) / 'params.yaml'
        import_kitti(drive, bag)
        params.write_text(yaml.safe_dump(settings(options)))
        run = run_live(
            bag, folder, [*SENSORS, *CALIBRATION], [LIDAR, CAMERA, FUSED],
            {'params_file': str(params)}, rate=options.rate,
        )  # fmt: skip
        report: Mapping[str, Any] = {
            'frames': options.frames,
            'rate': options.rate,
            'exit_status': run.exit_status,
            'latency': {topic: summary(values) for topic, values in run.latencies_ms.items()},
        }
    print(json.dumps(report, indent=1))
    return run.exit_status


if __name__ == '__main__':
    sys.exit(main())
