"""The lidar detector with TensorRT engines against the one with ONNX Runtime, on real scans.

The engines come from `python test/gpu/plans.py FOLDER`; AIRSIDE_TEST_PLANS names the folder. What
needs no TensorRT is tested in test_lidar_detector.py.
"""

from __future__ import annotations

import os
import sys
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
from airside_perception.geometry import move_cloud, transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.lidar.pillars import Grid
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


def partners(wanted: Boxes3D, given: Boxes3D, reach: float) -> np.ndarray:
    """Whether each box of `wanted` has one of its own of its class within reach: bool [N]."""
    taken: set[int] = set()
    found = np.zeros(len(wanted), bool)
    for row in range(len(wanted)):
        apart = np.linalg.norm(given.boxes[:, :3] - wanted.boxes[row, :3], axis=1)
        apart[np.array(given.classes) != wanted.classes[row]] = np.inf
        apart[list(taken)] = np.inf
        if len(apart) and apart.min() <= reach:
            taken.add(int(apart.argmin()))
            found[row] = True
    return found


def test_fp32_gives_the_boxes_of_the_cpu(
    resources: ExitStack, card: LidarCard, scans: list[PointCloud], expected: list[Boxes3D]
) -> None:
    detector = open_detector(resources, 'lidar_fp32', card)
    clear = 0
    for scan, theirs in zip(scans, expected, strict=True):
        ours = detector.detect(scan, LIDAR2BASE)
        assert ours.frame_id == theirs.frame_id == 'base_link'
        for wanted, given in ((theirs, ours), (ours, theirs)):
            rows = clear_of_thresholds(wanted, card)
            assert partners(wanted, given, 0.01)[rows].all()
            clear += len(rows)
    assert clear > 20 * len(scans)


@pytest.mark.parametrize('name', NAMES[1:])
def test_fp16_gives_every_box_that_rounding_cannot_change(
    resources: ExitStack, card: LidarCard, scans: list[PointCloud], name: str, network: Path,
    expected: list[Boxes3D], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Others may swap: test/lidar/test_half_precision.py shows which, without a GPU."""
    settled = pytest.importorskip('benchmarks.settled', reason='run from the source tree')
    decisions = settled.Decisions(card, LidarConfig())
    grid, encoder = Grid.of(card), Encoder(card)
    detector = open_detector(resources, name, card)
    clear = again = firm = 0
    with open_engine(network) as engine:
        for scan, theirs in zip(scans, expected, strict=True):
            points = move_cloud(scan, LIDAR2BASE, 'base_link').points
            canvas = encoder.encode(points, grid.fill(points))
            is_firm = decisions.settled(engine.infer({card.input_name: canvas}), theirs)
            rows = clear_of_thresholds(theirs, card)
            found = partners(theirs, detector.detect(scan, LIDAR2BASE), 0.05)
            assert found[rows][is_firm[rows]].all()
            clear, again, firm = (
                clear + len(rows),
                again + found[rows].sum(),
                firm + is_firm[rows].sum(),
            )
    with capsys.disabled():
        sys.stderr.write(f'\n{name}: {again} of {clear} clear boxes within 5 cm, {firm} settled\n')
    assert firm > 0.5 * clear > 15 * len(scans)
    assert again > 0.98 * clear


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
