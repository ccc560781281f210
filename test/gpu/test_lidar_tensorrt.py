"""The lidar detector with TensorRT engines against the one with ONNX Runtime, on real scans.

The engines come from `python test/gpu/plans.py FOLDER`; AIRSIDE_TEST_PLANS names the folder. What
needs no TensorRT is tested in test_lidar_detector.py.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.cuda import runtime
from airside_perception.engine import open_engine
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.errors import EngineError
from airside_perception.geometry import transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.types import Boxes3D, PointCloud

NAMES = ['lidar_fp32', 'lidar_fp16', 'lidar_hwc8']
LIDAR2BASE = transform(np.eye(3), np.array([0.0, 0.0, 1.73]))
MARGIN = 0.02
"""Boxes whose score is nearer to the threshold may be on either side of it."""


@pytest.fixture(scope='module')
def scans(shared_data: Path) -> list[PointCloud]:
    files = sorted((shared_data / 'drive' / 'velodyne').glob('*.bin'))
    rows = [np.fromfile(path, np.float32).reshape(-1, 4) for path in files]
    return [PointCloud(stamp, 'lidar', points) for stamp, points in enumerate(rows)]


@pytest.fixture(scope='module')
def network(repository: Path) -> Path:
    return repository / 'models' / 'apron_pointpillars.onnx'


@pytest.fixture(scope='module')
def card(network: Path) -> LidarCard:
    card = find_card(network)
    assert isinstance(card, LidarCard)
    return card


@pytest.fixture(scope='module')
def expected(network: Path, card: LidarCard, scans: list[PointCloud]) -> list[Boxes3D]:
    """What the CPU finds."""
    if runtime.unavailable():
        pytest.skip(runtime.unavailable())
    with open_engine(network) as engine:
        on_cpu = LidarDetector(engine, card, LidarConfig())
        return [on_cpu.detect(scan, LIDAR2BASE) for scan in scans]


def open_detector(resources: ExitStack, name: str, card: LidarCard) -> CudaLidarDetector:
    folder = os.environ.get('AIRSIDE_TEST_PLANS', '')
    path = Path(folder, f'{name}.engine')
    if not folder or not path.is_file():
        pytest.skip(f'AIRSIDE_TEST_PLANS names no folder with {path.name} (test/gpu/plans.py)')
    try:
        engine = open_engine(path, allow_host_code=True)
    except EngineError as error:
        pytest.skip(str(error))
    assert isinstance(engine, TensorRTEngine)
    resources.enter_context(engine)
    detector = CudaLidarDetector(engine, card, LidarConfig())
    resources.callback(detector.close)
    return detector


def clear_of_thresholds(boxes: Boxes3D, card: LidarCard) -> np.ndarray:
    """Rows of the boxes whose score is well above the threshold of their class."""
    least = np.array([card.thresholds.get(name, 0.0) for name in boxes.classes])
    return np.flatnonzero(boxes.scores > np.maximum(least, LidarConfig().score_threshold) + MARGIN)


def found_again(wanted: Boxes3D, given: Boxes3D, card: LidarCard, reach: float) -> tuple[int, int]:
    """Clear boxes of `wanted`, and how many of them have their own in `given`."""
    rows, taken = clear_of_thresholds(wanted, card), set()
    for row in rows.tolist():
        apart = np.linalg.norm(given.boxes[:, :3] - wanted.boxes[row, :3], axis=1)
        apart[np.array(given.classes) != wanted.classes[row]] = np.inf
        apart[np.abs(given.scores - wanted.scores[row]) > MARGIN] = np.inf
        apart[list(taken)] = np.inf
        if len(apart) and apart.min() <= reach:
            taken.add(int(apart.argmin()))
    return len(rows), len(taken)


@pytest.mark.parametrize('name', NAMES)
def test_boxes_are_those_of_the_cpu(
    resources: ExitStack, card: LidarCard, scans: list[PointCloud], name: str,
    expected: list[Boxes3D],
) -> None:  # fmt: skip
    detector = open_detector(resources, name, card)
    reach = 0.01 if name == 'lidar_fp32' else 0.05
    found = [detector.detect(scan, LIDAR2BASE) for scan in scans]
    boxes = np.zeros((2, 2), int)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.frame_id == theirs.frame_id == 'base_link'
        boxes[0] += found_again(theirs, ours, card, reach)
        boxes[1] += found_again(ours, theirs, card, reach)
    assert boxes.min() > 10 * len(scans)
    assert (boxes[:, 1] == boxes[:, 0]).all(), f'[clear, found again] of CPU and GPU: {boxes}'


@pytest.mark.parametrize('name', NAMES)
def test_the_same_bytes_twice(
    resources: ExitStack, card: LidarCard, scans: list[PointCloud], name: str
) -> None:
    detector = open_detector(resources, name, card)
    found = [detector.detect(scan, LIDAR2BASE) for scan in scans]
    for scan, first in zip(scans, found, strict=True):
        again = detector.detect(scan, LIDAR2BASE)
        assert again.classes == first.classes
        assert again.boxes.tobytes() == first.boxes.tobytes()
        assert again.scores.tobytes() == first.scores.tobytes()


@pytest.mark.parametrize('name', NAMES)
def test_one_launch_two_copies(
    resources: ExitStack, card: LidarCard, scans: list[PointCloud], name: str
) -> None:
    detector = open_detector(resources, name, card)
    assert detector.no_graph == ''
    assert detector.launches > 11  # ours and those of the engine
    assert detector.nodes >= detector.launches + 2
    times = detector.profile(scans[0], 5)
    assert min(times.values()) >= 0
    assert times['engine'] > 0
