"""The film of a live run: what is where in its frames, and in the file."""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path

import cv2
import numpy as np
import pytest

from airside_perception.demo.film import AHEAD, BIRD, CAMERA_WIDTH, film, write_film
from airside_perception.demo.gif import can_write
from airside_perception.demo.moments import moments
from airside_perception.errors import PerceptionError
from airside_perception.replay.pictures import EVIDENCE, TRUTH
from airside_perception.results import Result
from airside_perception.sim.rig import Rig

HEIGHT, WIDTH = 770, 800
BOTH, LIDAR = EVIDENCE['lidar and camera'], EVIDENCE['lidar']


def has(picture, color, x: float, y: float, reach: int = 3) -> bool:
    x, y = round(x), round(y)
    part = picture[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return bool((np.abs(part.astype(int) - color).max(axis=-1) < 40).any())


def from_above(x: float, y: float) -> tuple[float, float]:
    """Where a point of base_link is in a frame: x up, y left, in the lowest BIRD rows."""
    scale = BIRD / (2 * AHEAD)
    return WIDTH / 2 - y * scale, HEIGHT - BIRD / 2 - x * scale


def by_front(x: float, y: float, z: float) -> tuple[float, float]:
    """Where the front camera of config/rig.yaml sees a point, but for its small distortion."""
    ahead, left, down, tilt = x - 2.1, y, 1.65 - z, radians(4.0)
    depth = ahead * cos(tilt) + down * sin(tilt)
    zoom = CAMERA_WIDTH / 640
    column = 320 - 330 * left / depth
    row = 192 + 330 * (down * cos(tilt) - ahead * sin(tilt)) / depth
    return column * zoom, row * zoom


@pytest.fixture
def shown(results: list[Result], bag: Path, rig: Rig):
    return list(film(moments(results, bag), rig))


def test_objects_are_drawn_where_they_are(shown) -> None:
    (first_ns, first), (last_ns, last) = shown
    assert (first_ns, last_ns) == (1_000_000_000, 1_100_000_000)
    assert first.shape == last.shape == (HEIGHT, WIDTH, 3)
    # a truck of 8 x 2 x 2 m, its centre at 11 m seen by the lidar, then at 10 m by both
    for picture, color, centre in ((first, LIDAR, 11.0), (last, BOTH, 10.0)):
        for left in (1.0, -1.0):
            assert has(picture, color, *from_above(centre + 4, left))
            assert has(picture, color, *from_above(centre - 4, left))
            assert has(picture, color, *by_front(centre - 4, left, 0.0))
            assert has(picture, color, *by_front(centre - 4, left, 2.0))
    assert not has(last, LIDAR, *from_above(15.0, 1.0))
    assert has(last, TRUTH, *from_above(16.0, 1.0))  # the person, whose box here is 8 m long


def test_faint_objects_are_left_out(shown) -> None:
    camera = EVIDENCE['camera']
    above = shown[0][1][HEIGHT - BIRD :]
    assert not (np.abs(above.astype(int) - camera).max(axis=-1) < 40).any()


def test_something_moves(shown) -> None:
    (_, first), (_, last) = shown
    assert (first != last).any(axis=2).mean() > 0.001


@pytest.mark.skipif(not can_write(), reason='this OpenCV writes no animated GIF')
def test_the_file_plays_as_fast_as_the_drive(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path, shown
) -> None:
    path = write_film(results, bag, rig, tmp_path / 'a.gif')
    done, animation = cv2.imreadanimation(str(path))
    assert done
    assert np.asarray(animation.durations).ravel().tolist() == [100, 1000]
    frames = [np.asarray(frame)[..., :3] for frame in animation.frames]
    assert [frame.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 2
    assert (frames[0] != frames[1]).any()
    assert has(frames[1], BOTH, *from_above(14.0, 1.0))
    assert has(frames[0], LIDAR, *from_above(15.0, 1.0))
    error = np.abs(frames[1].astype(int) - shown[1][1])
    assert error.mean() < 2.0


def test_a_run_with_nothing_to_show_is_named(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match='no stamp has a scan, truth and fused objects'):
        write_film(results[1:2], bag, rig, tmp_path / 'a.gif')
