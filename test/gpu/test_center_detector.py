"""A network with a centre head from points to boxes on the GPU, against the CPU's detector."""

from __future__ import annotations

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
from airside_perception.lidar.sweeps import Sweeps
from airside_perception.transforms import TransformBuffer
from airside_perception.types import PointCloud

TENSORS = ('spatial_features', 'heatmap', 'reg', 'height', 'dim', 'rot', 'vel')


def clouds(count: int, points: int) -> list[PointCloud]:
    """Heaps of points with one intensity each: the network scores every cell by it."""
    rng = np.random.default_rng(0)
    found = []
    for stamp in range(count):
        heaps = rng.uniform([0.0, -20.0, 0.0, 0.2], [40.0, 20.0, 2.0, 1.0], (12, 4))
        rows = np.repeat(heaps, points // 12, axis=0)
        rows[:, :3] += rng.normal(0.0, 0.3, (len(rows), 3))
        rows = rows.astype(np.float32)
        found.append(PointCloud(stamp, 'base_link', rows, ('x', 'y', 'z', 'intensity')))
    return found


def engine_of(network: Path, queue: Any, form: str) -> FakeEngine:
    """All of its tensors are float32, float16, or float16 in the layout hwc8."""
    layouts = dict.fromkeys(TENSORS, 'hwc8') if form == 'hwc8' else None
    return FakeEngine(network, queue, layouts=layouts, half=() if form == 'fp32' else TENSORS)


@pytest.mark.parametrize('form', ['fp32', 'fp16', 'hwc8'])
@pytest.mark.parametrize('past_sweeps', [0, 2])
def test_velocities_of_several_sweeps_are_those_of_the_cpu(
    queue: Any, tmp_path: Path, tiny_models: ModuleType, form: str, past_sweeps: int
) -> None:
    network = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=past_sweeps)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    # the least room: three sweeps of 600 points have it together
    config = LidarConfig(nms_iou=0.2, max_detections=50, intensity_scale=0.01,
                         max_points_in_cloud=1000, fixed_frame='base_link')  # fmt: skip
    plain = LidarDetector(open_engine(network, threads=1), card, config)
    detector = CudaLidarDetector(engine_of(network, queue, form), card, config, queue=queue)
    sweeps, transforms = Sweeps(card), TransformBuffer()
    for step, cloud in enumerate(clouds(4, 600)):
        cloud = replace(cloud, stamp_ns=(1 + step) * 100_000_000)
        if past_sweeps:
            cloud = sweeps.join(cloud, config, transforms)
            assert len(cloud) == 600 * (1 + min(step, 2))
        expected, found = plain.detect(cloud), detector.detect(cloud)
        assert len(expected) > 5
        assert detector.last_dropped_points == 0
        speeds = {round(vx, 1) for vx in expected.velocities[:, 0].tolist()}
        assert speeds == {0.0, 1.0, 2.0} if past_sweeps and step > 1 else speeds <= {0.0, 1.0}
        order = np.lexsort((found.boxes[:, 1], found.boxes[:, 0]))
        same = np.lexsort((expected.boxes[:, 1], expected.boxes[:, 0]))
        np.testing.assert_allclose(found.boxes[order], expected.boxes[same], atol=5e-3)
        np.testing.assert_allclose(
            found.velocities[order],
            expected.velocities[same],
            atol=1e-6 if form == 'fp32' else 2e-3,
        )
    detector.close()


@pytest.mark.parametrize(
    ('past_sweeps', 'most', 'room'), [(2, 1000, 3000), (5, 200_000, 2**20 - 1)]
)
def test_every_sweep_has_room(
    queue: Any, tmp_path: Path, tiny_models: ModuleType, past_sweeps: int, most: int, room: int
) -> None:
    network = tiny_models.tiny_velocity_model(tmp_path, past_sweeps=past_sweeps)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    config = LidarConfig(max_points_in_cloud=most)
    detector = CudaLidarDetector(FakeEngine(network, queue), card, config, queue=queue)
    points = np.full((room + 7, 4), 5.0, np.float32)
    points[:, 2:] = 1.0, 0.0
    detector.detect(PointCloud(1, 'base_link', points, card.point_columns))
    assert (detector.last_dropped_points, detector.last_usable) == (7, room)
    detector.close()


@pytest.mark.parametrize('form', ['fp32', 'fp16', 'hwc8'])
def test_agrees_with_the_detector_on_the_cpu(
    queue: Any, tmp_path: Path, tiny_models: ModuleType, form: str
) -> None:
    network = tiny_models.tiny_center_model(tmp_path)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    # boxes are as large as a car: those of neighbouring cells are one object
    config = LidarConfig(nms_iou=0.2, max_detections=50)
    plain = LidarDetector(open_engine(network, threads=1), card, config)
    detector = CudaLidarDetector(engine_of(network, queue, form), card, config, queue=queue)
    scores = 1e-4 if form == 'fp32' else 1e-2
    for cloud in clouds(3, 600):
        expected, found = plain.detect(cloud), detector.detect(cloud)
        assert len(expected) > 5
        assert set(expected.classes) == {'car', 'person'}
        order = np.lexsort((found.boxes[:, 1], found.boxes[:, 0]))
        same = np.lexsort((expected.boxes[:, 1], expected.boxes[:, 0]))
        np.testing.assert_allclose(found.boxes[order], expected.boxes[same], atol=5e-3)
        np.testing.assert_allclose(found.scores[order], expected.scores[same], atol=scores)
        assert [found.classes[i] for i in order] == [expected.classes[i] for i in same]
    detector.close()
