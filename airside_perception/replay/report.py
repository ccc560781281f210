"""What a replay, an import and a comparison tell: text for people, a progress bar, provenance."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from airside_perception.engine import Engine
from airside_perception.replay.bag import BagReader
from airside_perception.replay.compare import Comparison
from airside_perception.replay.runner import Summary, transforms_in
from airside_perception.replay.settings import Settings
from airside_perception.results import meta_path, write_text

PERCENTILES = (50, 95, 99)
CHUNK = 1 << 20
BAG_FILES = ('.yaml', '.mcap', '.db3', '.zstd')
LIBRARIES = ('numpy', 'scipy', 'onnxruntime', 'rosbags', 'PyYAML')
MAX_LISTED = 20


class Progress:
    """A bar on a terminal, nothing elsewhere. Call it with what is done and all there is."""

    def __init__(self, label: str, stream: TextIO, period_s: float = 0.1) -> None:
        self._label = label
        self._stream = stream
        self._period_s = period_s
        self._started = time.monotonic()
        self._shown = 0.0
        self._on = stream.isatty()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if not self._on or (now - self._shown < self._period_s and done < of):
            return
        self._shown = now
        spent = now - self._started
        left = spent / done * (of - done) if done else 0.0
        width = max(10, min(40, shutil.get_terminal_size().columns - len(self._label) - 36))
        filled = width * done // max(of, 1)
        bar = '=' * filled + ' ' * (width - filled)
        text = f'{self._label} [{bar}] {done}/{of}  {spent:.0f} s, {left:.0f} s left '
        self._stream.write(f'\r{text}')
        self._stream.flush()

    def close(self) -> None:
        """Leaves the line."""
        if self._on and self._shown:
            self._stream.write('\r\033[K')
            self._stream.flush()


def provenance(reader: BagReader, settings: Settings, engines: Iterable[Engine]) -> dict[str, Any]:
    """Where results come from: hashes of everything that was read, and versions.

    Equal provenance means equal results, byte for byte, on one kind of machine.
    """
    networks = [camera.network for camera in settings.cameras]
    files = {str(item.path): item.card.path for item in (*networks, settings.lidar) if item}
    return {
        'bag': {'path': str(reader.path), 'sha256': hash_tree(reader.path)},
        'calibration': {'sha256': _hash_calibration(reader, settings)},
        'engines': [
            {
                'path': engine.info.path,
                'sha256': hash_tree(Path(engine.info.path)),
                'backend': f'{engine.info.backend} {engine.info.version}',
                'device': engine.info.device,
                'precision': engine.info.precision,
            }
            for engine in engines
        ],
        'cards': [
            {'path': path, 'sha256': hash_tree(Path(path))} for path in sorted({*files.values()})
        ],
        'parameters': {
            'path': settings.parameters.path,
            'sha256': settings.parameters.sha256,
            'values': settings.as_dict(),
        },
        'left_out': dict(settings.left_out),
        'thresholds': thresholds(settings),
        'versions': versions(),
    }


def write_meta(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes provenance beside a result file.

    Raises:
        BagError: cannot be written.
    """
    write_text(meta_path(path), json.dumps(content, indent=2, sort_keys=True) + '\n')


def thresholds(settings: Settings) -> dict[str, dict[str, float]]:
    """{topic: {class: lowest score that is reported}} of the detectors."""
    found: dict[str, dict[str, float]] = {}
    for camera in settings.cameras:
        own = _lowest(camera.network.config)
        found[f'/perception/camera/{camera.name}/detections'] = own
        found[f'/perception/camera/{camera.name}/detections_2d'] = own
    if settings.lidar is not None:
        found['/perception/lidar/detections'] = _lowest(settings.lidar.config)
    return found


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    found = {'python': platform.python_version(), 'machine': platform.machine()}
    found['opencv'] = str(cv2.__version__)
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a distribution may install it without metadata
            found[name] = 'unknown'
    return found


def hash_tree(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a bag in a folder.

    What else people keep in the folder, such as results, is no part of the bag.
    """
    digest = hashlib.sha256()
    own = (file for file in path.glob('*') if file.suffix in BAG_FILES and file.is_file())
    for file in sorted(own) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(f'{file.name}\0{file.stat().st_size}\0'.encode())
        with file.open('rb') as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def run_text(summary: Summary, settings: Settings) -> str:
    """A run in words and tables."""
    lines = ['', 'topic                                     messages  detections']
    for topic in sorted(summary.messages):
        lines.append(f'{topic:<40} {summary.messages[topic]:>9} {summary.detections[topic]:>11}')
    if summary.times:
        lines += ['', 'time in ms             calls     p50     p95     p99     max']
        lines += [
            f'{stage:<22} {row["calls"]:>5} {row["p50"]:>7.1f} {row["p95"]:>7.1f} '
            f'{row["p99"]:>7.1f} {row["max"]:>7.1f}'
            for stage, row in latencies(summary.times).items()
        ]
    sets = ', '.join(f'{name} {count}' for name, count in sorted(summary.sets.items()) if count)
    fused = ', '.join(f'{name} {count}' for name, count in summary.fused.items())
    lines += ['', f'sets: {sets or "none"}', f'fused objects: {fused or "none"}']
    lines.append(f'dropped: {summary.drops.total()}, of these {summary.tf_drops} for transforms')
    lines += _causes(summary.drops, summary)
    if summary.partial:
        lines.append(f'with less than they should have: {summary.partial.total()}')
        lines += _causes(summary.partial, summary)
    for name, reason in settings.left_out.items():
        lines.append(f'not used: {name}: {reason}')
    return '\n'.join(lines)


def run_json(summary: Summary, settings: Settings) -> dict[str, Any]:
    """The same as JSON takes it."""
    return {
        'messages': dict(summary.messages),
        'detections': dict(summary.detections),
        'times_ms': latencies(summary.times),
        'sets': dict(summary.sets),
        'fused': dict(summary.fused),
        'tf_failures': summary.tf_failures,
        'drops': _counted(summary.drops, summary),
        'partial': _counted(summary.partial, summary),
        'left_out': dict(settings.left_out),
    }


def _causes(counts: Mapping[tuple[str, str], int], summary: Summary) -> list[str]:
    return [
        f'  {count} x {key[0]}: {key[1]}: {summary.causes[key]}'
        for key, count in sorted(counts.items())
    ]


def _counted(counts: Mapping[tuple[str, str], int], summary: Summary) -> list[dict[str, Any]]:
    return [
        {'topic': topic, 'error': kind, 'count': count, 'cause': summary.causes[topic, kind]}
        for (topic, kind), count in sorted(counts.items())
    ]


def latencies(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """{stage: calls, percentiles and maximum in milliseconds}."""
    return {
        stage: {
            'calls': len(values),
            **{f'p{q}': float(np.percentile(values, q)) for q in PERCENTILES},
            'max': max(values),
        }
        for stage, values in times.items()
        if values
    }


def comparison_text(found: Comparison, names: tuple[str, str]) -> str:
    """A comparison in words and tables."""
    lines = [f'A  {names[0]}', f'B  {names[1]}', '']
    lines.append(
        'topic                                      messages   matched   lost  added  moved  near'
    )
    for topic, item in found.topics.items():
        count = f'{item.messages[0]}/{item.messages[1]}'
        lines.append(
            f'{topic:<40} {count:>10} {item.matched:>9} {item.lost:>6} {item.added:>6} '
            f'{item.moved:>6} {item.forgiven:>5}'
        )
        worst = ', '.join(f'{quantity} {value:.3g}' for quantity, value in item.worst.items())
        lines += [f'  largest difference: {worst}'] if worst else []
    if found.same:
        return '\n'.join([*lines, '', 'the same within tolerance'])
    lines += ['', f'{len(found.differences)} differences']
    for one in found.differences[:MAX_LISTED]:
        lines.append(f'  {one.stamp_ns} {one.topic}: {one.kind}: {one.detail}')
    hidden = len(found.differences) - MAX_LISTED
    return '\n'.join([*lines, f'  ... and {hidden} more'] if hidden > 0 else lines)


def _lowest(config: Any) -> dict[str, float]:
    own = config.score_thresholds
    return {name: max(value, config.score_threshold) for name, value in own.items()}


def _hash_calibration(reader: BagReader, settings: Settings) -> str:
    """Of the static transforms and of every distinct camera_info, stamps left out."""
    found = {
        f'{record.topic}\0'.encode() + record.data[12:]
        for record in reader.records({camera.info_topic for camera in settings.cameras})
    }
    for _, parent, child, _, child2parent in transforms_in(reader, {'/tf_static'}):
        found.add(f'{parent}\0{child}\0'.encode() + child2parent.tobytes())
    digests = sorted(hashlib.sha256(content).digest() for content in found)
    return hashlib.sha256(b''.join(digests)).hexdigest()
