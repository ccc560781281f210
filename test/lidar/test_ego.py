"""Which points are the vehicle's own body: the rule against a loop, and its borders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from airside_perception.config import LidarConfig, from_values
from airside_perception.errors import ConfigError
from airside_perception.lidar.ego import ego_box, on_ego

BOX = (-1.1, -0.7, 0.1, 2.3, 0.9, 1.7)


def by_loop(points: np.ndarray, box: tuple[float, ...]) -> list[bool]:
    low, high = np.float32(box[:3]), np.float32(box[3:])
    found = []
    for point in points:
        inside = True
        for axis in range(3):
            if not low[axis] <= point[axis] or not point[axis] < high[axis]:
                inside = False
        found.append(inside)
    return found


def border_points(box: tuple[float, ...]) -> np.ndarray:
    """All combinations of the sides of a box, their neighbours among float32, and the middle."""
    axes = []
    for low, high in zip(np.float32(box[:3]), np.float32(box[3:]), strict=True):
        sides = [np.nextafter(side, np.float32(to)) for side in (low, high) for to in (-99, 99)]
        axes.append([low, high, *sides, (low + high) / 2])
    return np.array(list(itertools.product(*axes)), np.float32)


@pytest.mark.parametrize('extra', [0, 1, 3])
def test_the_rule_against_a_loop(extra: int) -> None:
    rng = np.random.default_rng(extra)
    points = rng.uniform(-4, 4, (500, 3 + extra)).astype(np.float32)
    low, high = ego_box(LidarConfig(ego_box=BOX))
    assert (low.dtype, high.dtype) == (np.float32, np.float32)
    found = on_ego(points, low, high)
    assert found.tolist() == by_loop(points, BOX)
    assert 0 < found.sum() < len(points)


def test_lower_sides_are_inside_and_upper_sides_are_not() -> None:
    points = border_points(BOX)
    found = on_ego(points, *ego_box(LidarConfig(ego_box=BOX)))
    assert found.tolist() == by_loop(points, BOX)
    assert found.sum() == 4**3  # of seven values along each axis
    low, high = ego_box(LidarConfig(ego_box=BOX))
    assert on_ego(np.stack([low, high]), low, high).tolist() == [True, False]


@pytest.mark.parametrize('box', [(), (0.0,) * 6, LidarConfig().ego_box])
def test_without_a_box_no_point_is_on_the_vehicle(box: tuple[float, ...]) -> None:
    points = np.float32([[0, 0, 0], [-0.0, 0, 0], [1e-45, 0, 0], [5, 5, 5]])
    assert not on_ego(points, *ego_box(LidarConfig(ego_box=box))).any()


@pytest.mark.parametrize(
    ('box', 'said'),
    [
        ([0, -1, 0, 1, 1], r'expected \[x_min, y_min, z_min, x_max, y_max, z_max\]'),
        ([1, -1, 0, 1, 1, 2], 'x_min = 1 is not less than x_max = 1'),
        ([0, 1, 0, 1, -1, 2], 'y_min = 1 is not less than y_max = -1'),
        ([-1, -1, 0, 1, 1, 0], 'z_min = 0 is not less than z_max = 0'),
        ([-1, -1, 0, 1, 1, float('nan')], 'expected finite numbers'),
        ([-1, -1, 0, 1, 1, 'high'], 'expected a list of numbers'),
        (2.0, 'expected a list of numbers'),
    ],
)
def test_boxes_that_are_none_are_refused_as_a_set(box: object, said: str) -> None:
    with pytest.raises(ConfigError, match=f'^ego_box = .*{said}'):
        from_values(LidarConfig, {'ego_box': box})


def test_whole_numbers_will_do() -> None:
    assert from_values(LidarConfig, {'ego_box': [-1, -1, 0, 3, 1, 2]}).ego_box == (
        -1.0, -1.0, 0.0, 3.0, 1.0, 2.0
    )  # fmt: skip
