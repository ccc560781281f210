"""Cards with curves: what is published, and what thresholds mean, on the CPU and on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator_queue import EmulatorQueue
from fake_engine import FakeEngine

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.gpu import CudaCameraDetector
from airside_perception.card import CameraCard
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.evaluate.calibration import Curve
from airside_perception.types import Image

IMAGE = Image(12, 'camera_optical', np.zeros((128, 192, 3), np.uint8))
ROWS = ((17, 5, 0.875), (52, 7, 0.75), (55, 8, 0.375), (90, 7, 0.5))
"""Cell, column of the class and score: a person, a car, a train, a car."""


def curve(*knots: tuple[float, float]) -> Curve:
    return Curve(*np.array(knots).T)


CURVES = {
    'person': curve((0, 0), (0.5, 0.1), (1, 0.6)),  # 0.875: 0.475
    'truck': curve((0, 0), (0.25, 0.5), (0.5, 0.9)),  # 0.375: 0.7
}


@pytest.fixture
def pair(
    make_card: Callable[..., CameraCard], make_network: Callable[..., Path], queue: Any,
    cells: np.ndarray,
) -> Any:  # fmt: skip
    """A detector on the CPU and one on the device, with one card and one network."""
    for cell, column, score in ROWS:
        cells[cell, 4], cells[cell, column] = 1.0, score
    card = make_card(calibration=CURVES)
    path = make_network(card, cells)
    seeds = iter(range(1, 100))
    queues = (lambda: EmulatorQueue(next(seeds))) if isinstance(queue, EmulatorQueue) else None
    gpu = CudaCameraDetector(FakeEngine(path, queue), card, CameraConfig(), queues)
    yield CameraDetector(open_engine(path), card, CameraConfig()), gpu
    gpu.close()


def test_scores_are_probabilities_best_first(pair: Any) -> None:
    for detector in pair:
        found = detector.detect(IMAGE)
        assert found.classes == ('car', 'truck', 'car', 'person')
        assert found.scores.tolist() == pytest.approx([0.75, 0.7, 0.5, 0.475])
        places = found.xyxy[:, :2].round().tolist()
        detector.card = replace(detector.card, calibration={})
        plain = detector.detect(IMAGE)
        assert plain.classes == ('person', 'car', 'car', 'truck')
        assert plain.scores.tolist() == [0.875, 0.75, 0.5, 0.375]
        order = [1, 3, 2, 0]
        assert places == plain.xyxy[order, :2].round().tolist()


@pytest.mark.parametrize(
    ('thresholds', 'wanted'),
    [
        ({'person': 0.48}, ('car', 'truck', 'car')),
        ({'person': 0.47, 'truck': 0.71}, ('car', 'car', 'person')),
        ({'truck': 0.95, 'car': 0.6}, ('car', 'person')),  # no score is published as 0.95
        ({'person': 1.0, 'car': 1.0}, ('truck',)),
    ],
    ids=str,
)
def test_thresholds_are_of_what_is_published(
    pair: Any, thresholds: dict[str, float], wanted: tuple[str, ...]
) -> None:
    for detector in pair:
        detector.config = replace(detector.config, score_thresholds=thresholds)
        assert detector.detect(IMAGE).classes == wanted
        detector.config = replace(detector.config, score_thresholds={}, score_threshold=0.6)
        assert detector.detect(IMAGE).classes == ('car', 'truck')
