"""How long a TfSource waits, on a clock of the test's own."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.config import FusionConfig
from airside_perception.errors import TransformError
from airside_perception.fusion import align_set
from airside_perception.nodes import tf
from airside_perception.types import Boxes3D

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
CAMERAS = tuple(f'camera_{k}' for k in range(8))


class News:
    """Stands in for the condition: nothing ever comes, and time passes only while one waits."""

    def __init__(self):
        self.s, self.waits = 100.0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def notify_all(self):
        pass

    def wait(self, timeout):
        self.waits.append(round(timeout, 9))
        self.s += timeout


@pytest.fixture
def source(harness, monkeypatch):
    news = News()
    monkeypatch.setattr(tf, 'time', SimpleNamespace(monotonic=lambda: news.s))
    with contextlib.closing(tf.TfSource(harness.node, timeout_ms=50.0)) as made:
        made._news = made.news = news
        yield made


def test_every_lookup_waits_for_itself(source):
    for _ in range(3):
        with pytest.raises(TransformError, match='waited 50 ms'):
            source.lookup('base_link', 'lidar', T0)
    assert source.news.waits == [0.05] * 3


def test_lookups_of_one_wait_have_one_deadline(source):
    for _ in range(2):
        with source.one_wait():
            for name in ('lidar', 'camera', 'radar'):
                with pytest.raises(TransformError):
                    source.lookup('base_link', name, T0)
            with pytest.raises(TransformError):
                source.lookup_between('base_link', T0, 'camera', T0 - MS, 'odom')
    assert source.news.waits == [0.05, 0.05]
    with pytest.raises(TransformError):
        source.lookup('base_link', 'lidar', T0)
    assert source.news.waits == [0.05, 0.05, 0.05]


def test_a_gap_of_the_odometry_costs_a_set_one_wait_however_many_cameras_it_has(source):
    def boxes(stamp):
        return Boxes3D(
            stamp, 'base_link', np.array([[9.0, 0, 1, 4, 2, 2, 0]]), [0.5], ('car',),
            np.eye(4)[None],
        )  # fmt: skip

    detections = {name: boxes(T0 - 30 * MS) for name in CAMERAS}
    with source.one_wait():
        aligned = align_set(
            {**detections, 'lidar': boxes(T0)}, {}, source, FusionConfig(cameras=CAMERAS)
        )
    assert sorted(aligned.failures) == sorted(CAMERAS)
    assert aligned.lidar is not None
    assert source.news.waits == [0.05]
