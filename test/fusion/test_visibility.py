from __future__ import annotations

import numpy as np
import pytest

from airside_perception.fusion.visibility import shadowed_part
from airside_perception.geometry import rotation_z

HERE = np.zeros(2)


def box(x, y, length, width, yaw=0.0) -> np.ndarray:
    return np.array([[x, y, 0.0, length, width, 1.0, yaw]])


@pytest.mark.parametrize(
    ('target', 'wall', 'part'),
    [
        (box(20, 0, 1, 1), box(10, 0, 4, 2), 1.0),
        (box(20, 0, 1, 1), box(10, 5, 4, 2), 0.0),  # beside the line of sight
        (box(10, 0, 1, 1), box(20, 0, 4, 2), 0.0),  # before it
        (box(-20, 0, 1, 1), box(10, 0, 4, 2), 0.0),  # on the other side
        (box(-20, 0.1, 1, 1), box(-10, 0, 4, 2), 1.0),  # where bearings wrap
        (box(20, 0, 1, 10), box(10, 0, 4, 2), 0.6),  # the shadow is 5 m wide at 20 m
        (box(20, 0, 10, 1, np.pi / 2), box(10, 0, 4, 2), 0.6),
        (box(20, 0, 1, 10), box(10, 0, 4, 0.5), 0.2),
        (box(20, 7, 1, 10), box(10, 0, 2, 3), 0.2),
        (box(9.0, 0, 1, 1), box(10, 0, 4, 2), 0.0),  # in it, before its middle
        (box(11.0, 0, 1, 1), box(10, 0, 4, 2), 1.0),
        (box(20, 0, 1, 1), box(0.5, 0, 4, 2), 0.0),  # the vehicle itself
        (box(7, 2.0, 0.6, 0.6), box(9, 0, 12, 2.5), 1.0),  # behind the rear of a bus
        (box(4.5, 3.5, 0.6, 0.6), box(6.25, 0, 2.5, 8), 0.0),  # before its side
    ],
)
def test_what_lies_behind_a_wall(target, wall, part) -> None:
    assert shadowed_part(target, wall, HERE) == pytest.approx([part])


def test_two_walls_that_overlap_count_once() -> None:
    walls = np.concatenate([box(10, 0, 4, 2), box(8, 0, 1, 1)])
    assert shadowed_part(box(20, 0, 1, 10), walls, HERE) == pytest.approx([0.6])


def test_of_nothing_and_behind_nothing() -> None:
    nothing = np.empty((0, 7))
    assert shadowed_part(nothing, box(9, 0, 4, 2), HERE).shape == (0,)
    assert shadowed_part(box(9, 0, 4, 2), nothing, HERE).tolist() == [0.0]
    assert shadowed_part(box(0, 0, 4, 2), box(9, 0, 4, 2), HERE).tolist() == [0.0]


@pytest.mark.parametrize('seed', range(20))
def test_it_is_what_every_ray_meets(seed) -> None:
    """Against every point tried with every wall, with no look at which of them are near."""
    rng = np.random.default_rng(seed)
    targets, walls = (
        np.column_stack([rng.uniform(-20, 20, (n, 3)), rng.uniform(0.1, 9, (n, 3)),
                         rng.uniform(-4, 4, n)])
        for n in (20, 6)
    )  # fmt: skip
    origin = rng.uniform(-20, 20, 2)
    found = shadowed_part(targets, walls, origin)
    assert found.any()
    for target, part in zip(targets, found, strict=True):
        line = target[:2] - origin
        distance = np.hypot(*line)
        aside = np.array([-line[1], line[0]]) / distance
        angle = np.arctan2(aside[1], aside[0]) - target[6]
        half = (abs(np.cos(angle)) * target[3] + abs(np.sin(angle)) * target[4]) / 2
        behind = []
        for step in (-0.8, -0.4, 0.0, 0.4, 0.8):
            sight = line + aside * half * step
            behind.append(any(crossed(sight, wall, origin) for wall in walls))
        assert part == pytest.approx(np.mean(behind))


def crossed(sight, wall, origin) -> bool:
    """Whether a line of sight goes through a wall and ends beyond the middle of the crossing."""
    turn = rotation_z(-wall[6])[:2, :2]
    start, step = turn @ (origin - wall[:2]), turn @ sight
    enter, leave = -np.inf, np.inf
    for axis, half in enumerate(wall[3:5] / 2):
        if abs(step[axis]) < 1e-12:
            if abs(start[axis]) > half:
                return False
            continue
        ends = sorted([(-half - start[axis]) / step[axis], (half - start[axis]) / step[axis]])
        enter, leave = max(enter, ends[0]), min(leave, ends[1])
    return 0 < enter <= leave and enter + leave < 2
