"""A drive of two moments, and what a graph may have said to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from airside_perception.demo.moments import OBJECTS, TRUTH
from airside_perception.messages import detections3d, image_message, point_cloud_message
from airside_perception.replay.bag import BagWriter
from airside_perception.resources import resource
from airside_perception.results import Result, result_of
from airside_perception.sim.rig import Rig, load_rig
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

STAMPS = (1_000_000_000, 1_100_000_000)
FLAT = '/perception/camera/front/detections_2d'


def boxes(stamp_ns: int, rows: list[tuple[str, float, float, tuple[str, ...]]]) -> Boxes3D:
    """Objects of 8 x 2 x 2 m on the ground: class, score, x, sensors."""
    return Boxes3D(
        stamp_ns,
        'base_link',
        np.array([[x, 0.0, 1.0, 8.0, 2.0, 2.0, 0.0] for _, _, x, _ in rows]),
        np.array([score for _, score, _, _ in rows]),
        tuple(name for name, *_ in rows),
        np.zeros((len(rows), 4, 4)),
        sources=tuple(sources for *_, sources in rows),
    )


@pytest.fixture
def rig() -> Rig:
    return load_rig(resource('config', 'rig.yaml'))


@pytest.fixture
def bag(tmp_path: Path, rig: Rig) -> Path:
    """Two moments with a truck at 10 m, a person at 20 m and a truck that is too far to count."""
    path = tmp_path / 'drive'
    with BagWriter(path) as writer:
        for stamp in STAMPS:
            truth = boxes(
                stamp,
                [('truck', 1.0, 10.0, ()), ('person', 1.0, 20.0, ()), ('truck', 1.0, 60.0, ())],
            )
            writer.write(TRUTH, detections3d(truth, writer.types), stamp)
            cloud = PointCloud(stamp, 'lidar', np.full((5, 4), 3.0, np.float32))
            writer.write('/sensing/lidar/points', point_cloud_message(cloud, writer.types), stamp)
            for name, lens in rig.lenses.items():
                data = np.zeros((lens.model.height, lens.model.width, 3), np.uint8)
                image = Image(stamp, f'camera_{name}_optical', data)
                topic = f'/sensing/camera/{name}/image'
                writer.write(topic, image_message(image, writer.types), stamp)
    return path


@pytest.fixture
def results() -> list[Result]:
    """The truck is found twice, the second time by both sensors; the person once, too weakly."""
    both = ('lidar', 'front')
    first = boxes(STAMPS[0], [('truck', 0.9, 11.0, ('lidar',)), ('person', 0.2, 20.0, ('front',))])
    second = boxes(STAMPS[1], [('truck', 0.9, 10.0, both), ('car', 0.5, 30.0, ('lidar',))])
    flat = Boxes2D(STAMPS[1], 'c', np.array([[10.0, 20, 300, 200]]), np.array([0.8]), ('truck',))
    return [result_of(OBJECTS, first), result_of(FLAT, flat), result_of(OBJECTS, second)]
