"""A lidar card with curves on the device: the boxes and scores of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

from airside_perception.card import LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.engine import open_engine
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.gpu import CudaLidarDetector
from airside_perception.types import PointCloud

CURVES = {
    'car': {'scores': [0, 0.8, 1], 'probabilities': [0, 0.2, 0.9]},
    'person': {'scores': [0, 0.5, 1], 'probabilities': [0, 0.8, 0.95]},
}


def scene(seed: int) -> PointCloud:
    """Heaps of points, each of one intensity: the network scores a place by it."""
    rng = np.random.default_rng(seed)
    places = rng.uniform([0, -20, 0, 0.2], [40, 20, 2, 1], (30, 4)).astype(np.float32)
    rows = np.repeat(places, 20, axis=0)
    rows[:, :3] += rng.normal(0.0, 0.4, (len(rows), 3)).astype(np.float32)
    return PointCloud(seed, 'base_link', rng.permutation(rows))


def inverse(curve: dict[str, list[float]], probability: float) -> float:
    if probability > curve['probabilities'][-1]:
        return 1.0
    return float(np.interp(probability, curve['probabilities'], curve['scores']))


@pytest.mark.parametrize('network', ['tiny_lidar_model', 'tiny_center_model'])
def test_the_device_publishes_the_probabilities_of_the_cpu(
    queue: Any, tmp_path: Path, tiny_models: ModuleType, network: str
) -> None:
    make: Callable[..., Path] = getattr(tiny_models, network)
    path = make(tmp_path, calibration=CURVES)
    card = find_card(path)
    assert isinstance(card, LidarCard)
    cpu = LidarDetector(open_engine(path, threads=1), card, LidarConfig())
    gpu = CudaLidarDetector(FakeEngine(path, queue), card, LidarConfig(), queue=queue)
    plain = LidarDetector(cpu._engine, replace(card, calibration={}), LidarConfig())
    counts = []
    for seed, thresholds in enumerate(({}, {'car': 0.5}, {'person': 0.9}, {'car': 0.95})):
        cpu.config = gpu.config = LidarConfig(score_thresholds=thresholds)
        expected, found = cpu.detect(scene(seed)), gpu.detect(scene(seed))
        assert (np.diff(expected.scores) <= 0).all()
        assert (np.diff(found.scores) <= 0).all()
        a, b = (item.select(np.lexsort(item.boxes[:, :2].T)) for item in (expected, found))
        assert a.classes == b.classes
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        lowest = {**card.thresholds, **thresholds}
        for name, score in zip(expected.classes, expected.scores, strict=True):
            assert score >= lowest[name] - 1e-6
        # the network with thresholds of its own scores, each box through its curve
        needed = {name: inverse(CURVES[name], lowest[name]) for name in CURVES}
        plain.config = LidarConfig(score_threshold=0.0, score_thresholds=needed)
        raw = plain.detect(scene(seed))
        wanted = [
            np.interp(score, CURVES[name]['scores'], CURVES[name]['probabilities'])
            for name, score in zip(raw.classes, raw.scores, strict=True)
        ]
        assert sorted(raw.classes) == sorted(expected.classes)
        np.testing.assert_allclose(expected.scores, sorted(wanted, reverse=True), atol=1e-6)
        counts.append(len(found))
    assert min(counts) < max(counts)
    gpu.close()
