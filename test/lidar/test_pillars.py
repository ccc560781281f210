"""The pillars against a loop that follows the rules one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.card import LidarCard
from airside_perception.lidar.pillars import Grid, Pillars

MakeCard = Callable[..., LidarCard]


def slow_pillars(points: np.ndarray, card: LidarCard) -> dict[int, list[int]]:
    """{cell: rows of the cloud}, as the rules of lidar.pillars say, one point at a time."""
    x0, y0, z0, _, _, z1 = (np.float32(v) for v in card.limits)
    sx, sy = np.float32(1 / card.pillar[0]), np.float32(1 / card.pillar[1])
    rows, columns = card.grid
    found: dict[int, list[int]] = {}
    for index, (x, y, z) in enumerate(points[:, :3]):
        column, row = math.floor(np.float32(x - x0) * sx), math.floor(np.float32(y - y0) * sy)
        if 0 <= column < columns and 0 <= row < rows and z0 <= z < z1:
            found.setdefault(row * columns + column, []).append(index)
    return {cell: found[cell] for cell in sorted(found)}


def check(points: np.ndarray, card: LidarCard) -> Pillars:
    """Compares every field with the slow ones."""
    pillars, slow = Grid.of(card).fill(points), slow_pillars(points, card)
    assert pillars.in_range == sum(map(len, slow.values()))
    assert pillars.occupied == len(slow)
    kept = {cell: slow[cell][: card.max_points] for cell in list(slow)[: card.max_pillars]}
    assert pillars.cells.tolist() == list(kept)
    assert pillars.counts.tolist() == [len(members) for members in kept.values()]
    for p, members in enumerate(kept.values()):
        begin, end = pillars.starts[p : p + 2]
        assert pillars.members[begin:end].tolist() == members
        exact = [math.fsum(points[members, k].tolist()) / len(members) for k in range(3)]
        np.testing.assert_array_equal(pillars.means[p], np.array(exact, np.float32))
    assert pillars.cells.dtype == np.int32
    assert pillars.means.dtype == np.float32
    assert len(pillars.members) == sum(map(len, kept.values()))
    return pillars


def inside(card: LidarCard, n: int, seed: int = 0) -> np.ndarray:
    low, high = np.array(card.limits[:3]) - 0.3, np.array(card.limits[3:]) + 0.3
    xyz = np.random.default_rng(seed).uniform(low, high, (n, 3))
    return np.hstack([xyz, np.zeros((n, 1))]).astype(np.float32)


@pytest.mark.parametrize('n', [1, 2, 50, 2000])
def test_random_clouds(make_card: MakeCard, n: int) -> None:
    pillars = check(inside(make_card(), n), make_card())
    assert pillars.in_range <= n


def test_no_points_no_pillars(make_card: MakeCard) -> None:
    card = make_card()
    for points in (np.empty((0, 4)), np.full((3, 4), 50.0)):
        pillars = check(points.astype(np.float32), card)
        assert len(pillars) == 0
        assert pillars.starts.tolist() == [0]


@pytest.mark.parametrize('n', [31, 32, 33, 100])
def test_a_pillar_keeps_its_first_points(make_card: MakeCard, n: int) -> None:
    card = make_card(max_points=32)
    points = np.tile(np.float32([0.1, 0.1, 0.0, 0.5]), (n, 1))
    points[:, 2] = np.linspace(-0.9, 0.9, n)
    other = np.float32([[-0.9, -1.5, 0.0, 0.5]])
    pillars = check(np.concatenate([points[:10], other, points[10:]]), card)
    assert pillars.counts.tolist() == [1, min(n, 32)]


@pytest.mark.parametrize('most', [1, 7, 47, 48, 49])
def test_the_lowest_cells_are_kept(make_card: MakeCard, most: int) -> None:
    card = make_card(max_pillars=most)
    pillars = check(inside(card, 3000), card)
    assert pillars.cells.tolist() == list(range(min(most, 48)))
    assert pillars.occupied == 48


def test_borders(make_card: MakeCard) -> None:
    card = make_card(limits=(-1.0, -2.0, -1.0, 1.0, 2.0, 3.0), pillar=(0.5, 0.5))
    on = [-1.0, -0.5, 0.0, 0.5, 1.0]
    below, above = np.nextafter(np.float32(on), np.float32([-9, 9]).reshape(2, 1))
    x = np.concatenate([np.float32(on), below, above])
    points = np.zeros((len(x), 3), np.float32)
    points[:, 0] = x
    pillars = check(points, card)
    columns = np.full(len(x), -1)
    columns[pillars.members] = np.repeat(pillars.cells % 4, pillars.counts)
    # exactly on a border belongs to the upper cell, except on the last; just above -0.5 the
    # difference to the corner is rounded to the border again
    assert columns[:5].tolist() == [0, 1, 2, 3, -1]
    assert columns[10:].tolist() == [0, 1, 2, 3, -1]
    assert columns[5] == -1
    heights = np.zeros((4, 3), np.float32)
    heights[:, 2] = [-1.0, np.nextafter(np.float32(-1), np.float32(-2)), 3.0, 2.9999998]
    assert sorted(check(heights, card).members.tolist()) == [0, 3]


def test_numbers_beyond_float32_are_outside(make_card: MakeCard) -> None:
    points = np.float32([[3e38, 0, 0], [-3e38, 0, 0], [0, 3e38, 0], [0, 0, 3e38], [0, 0, 0]])
    assert Grid.of(make_card()).fill(points).members.tolist() == [4]


values = st.one_of(
    st.floats(-2.0, 2.0, width=32),
    st.sampled_from([-0.96, -0.64, -0.32, 0.0, 0.32, 0.64, 0.96, -1.6, -1.2, 0.4, 1.6, 3.0, -1.0]),
)


@given(
    st.lists(st.tuples(values, values, values), max_size=60),
    st.integers(1, 6),
    st.integers(1, 20),
)
@settings(max_examples=150, deadline=None)
def test_any_cloud(
    rows: list[tuple[float, float, float]], max_points: int, max_pillars: int
) -> None:
    card = LidarCard(
        'c', 'c', 'pointpillars', ('car',), {}, {}, limits=(-0.96, -1.6, -1.0, 0.96, 1.6, 3.0),
        pillar=(0.32, 0.4), max_points=max_points, max_pillars=max_pillars,
    )  # fmt: skip
    points = np.array(rows, np.float32).reshape(-1, 3)
    check(points, card)


def test_the_same_cloud_gives_the_same_pillars(make_card: MakeCard) -> None:
    card, points = make_card(), inside(make_card(), 500)
    a, b = Grid.of(card).fill(points), Grid.of(card).fill(np.asfortranarray(points))
    for name in ('cells', 'starts', 'members', 'means'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
