"""The tables and pictures of a live run, on a recording and results that are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from airside_perception.demo.report import (
    OBJECTS,
    TRUTH,
    boxes_3d,
    pictures,
    recall_table,
    topic_table,
)
from airside_perception.errors import PerceptionError
from airside_perception.live import LiveRun
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


def test_topics_rates_latencies_and_evidence(results: list[Result], tmp_path: Path) -> None:
    run = LiveRun(tmp_path, tmp_path, 0, 0.5, {OBJECTS: [10.0, 30.0]})
    words = [line.split() for line in topic_table(results, run).splitlines()]
    assert [OBJECTS, '2', '10.0', '2.0', '20', '/', '30', 'ms'] in words
    assert [FLAT, '1', '0.0', '1.0'] in words
    assert ['lidar', '50%'] in words
    assert ['lidar', '+', 'front', '25%'] in words


def test_found_and_missed_and_surplus_objects(results: list[Result], bag: Path) -> None:
    table = recall_table(results, bag)
    words = [line.split() for line in table.splitlines()]
    assert ['truck', '2', 'of', '2', '100%'] in words
    assert ['person', '0', 'of', '2', '0%'] in words
    assert 'in 2 frames' in table
    assert '0.5 fused objects a frame there have no counterpart' in table


def test_pictures_of_the_moment_that_both_sensors_saw(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    paths = list(pictures(results, bag, rig, tmp_path))
    assert [path.name for path in paths] == ['bev.png', *(f'camera_{n}.png' for n in rig.lenses)]
    front = cv2.imread(str(tmp_path / 'camera_front.png'))
    assert (front[40, 100:500] > 200).all()  # the upper edge of the 2D box, enlarged twice
    assert front.any(axis=2).mean() < 0.2
    assert not cv2.imread(str(tmp_path / 'camera_rear.png')).any()


def test_results_of_other_stamps_are_named(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match='no stamp of /ground_truth/objects'):
        list(pictures(results[1:2], bag, rig, tmp_path))


def test_a_picture_that_cannot_be_written_is_named(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match='the picture cannot be written'):
        list(pictures(results, bag, rig, tmp_path / 'missing'))


def test_results_back_to_boxes(results: list[Result]) -> None:
    found = boxes_3d(results[2])
    assert found.classes == ('truck', 'car')
    assert found.sources == (('lidar', 'front'), ('lidar',))
    np.testing.assert_array_equal(found.boxes[:, 0], [10.0, 30.0])
