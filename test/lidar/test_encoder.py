"""The pillar feature net against the formula with all its features, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.card import POINT_FEATURES, LidarCard
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.pillars import Grid

MakeCard = Callable[..., LidarCard]


def naive_canvas(points: np.ndarray, card: LidarCard, intensity_scale: float = 1.0) -> np.ndarray:
    """Every point with its features, padded to `max_points` rows if the card says so."""
    pillars = Grid.of(card).fill(points)
    rows, columns = card.grid
    x0, y0, z0, _, _, z1 = card.limits
    weight, bias = card.weight.astype(np.float64), card.bias.astype(np.float64)
    canvas = np.zeros((1, len(bias), rows, columns))
    for p, cell in enumerate(pillars.cells.tolist()):
        row, column = divmod(cell, columns)
        members = points[pillars.members[pillars.starts[p] : pillars.starts[p + 1]]]
        members = members.astype(np.float64)
        mean = members[:, :3].mean(axis=0)
        centre = [x0 + (column + 0.5) * card.pillar[0], y0 + (row + 0.5) * card.pillar[1]]
        outputs = []
        for point in members:
            x, y, z = point[:3]
            known = {
                'x': x, 'y': y, 'z': z, 'intensity': point[3] * intensity_scale,
                'xc': x - mean[0], 'yc': y - mean[1], 'zc': z - mean[2],
                'xp': x - centre[0], 'yp': y - centre[1], 'zp': z - (z0 + z1) / 2,
                'time_lag': point[-1] if card.past_sweeps else 0.0,
            }  # fmt: skip
            features = np.array([known[name] for name in card.features])
            outputs.append(np.maximum(features @ weight + bias, 0.0))
        if card.zero_row and len(members) < card.max_points:
            outputs.append(np.maximum(bias, 0.0))
        canvas[0, :, row, column] = np.max(outputs, axis=0)
    return canvas


def cloud(card: LidarCard, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = np.array(card.limits[:3]), np.array(card.limits[3:])
    xyz = rng.uniform(low, high, (n, 3))
    return np.hstack([xyz, rng.uniform(0, 1, (n, 1))]).astype(np.float32)


OF_AUTOWARE = ('x', 'y', 'z', 'time_lag', 'xc', 'yc', 'zc', 'xp', 'yp')
SOME = [POINT_FEATURES[:9], ('zc', 'x', 'yp', 'intensity'), ('x', 'y', 'z'), ('xp',)]


@pytest.mark.parametrize('zero_row', [False, True])
@pytest.mark.parametrize('n', [0, 1, 40, 1000])
@pytest.mark.parametrize('features', [POINT_FEATURES, OF_AUTOWARE, *SOME])
def test_agrees_with_the_formula(
    make_card: MakeCard, features: tuple[str, ...], n: int, zero_row: bool
) -> None:
    card = make_card(features=features, zero_row=zero_row)
    points = cloud(card, n)
    canvas = Encoder(card).encode(points, Grid.of(card).fill(points))
    assert canvas.dtype == np.float32
    np.testing.assert_allclose(canvas, naive_canvas(points, card), atol=1e-5)


@pytest.mark.parametrize('features', [POINT_FEATURES, OF_AUTOWARE, ('x', 'time_lag')])
def test_the_age_of_a_sweep(make_card: MakeCard, features: tuple[str, ...]) -> None:
    card = make_card(features=features, past_sweeps=2)
    points = cloud(card, 200)
    points[:, 3] *= 255.0
    lags = np.repeat(np.float32([0.0, 0.1, 0.21]), [100, 60, 40])[:, None]
    points = np.hstack([points if 'intensity' in features else points[:, :3], lags])
    pillars = Grid.of(card).fill(points)
    canvas = Encoder(card).encode(points, pillars, 1 / 255).copy()  # the age is not scaled
    np.testing.assert_allclose(canvas, naive_canvas(points, card, 1 / 255), atol=1e-5)
    points[:, -1] = 0.0
    assert np.abs(Encoder(card).encode(points, pillars, 1 / 255) - canvas).max() > 0.01


def test_far_from_the_origin_nothing_is_lost(make_card: MakeCard) -> None:
    limits = (90.0, -101.6, -1.0, 91.92, -98.4, 3.0)
    card = make_card(limits=limits, features=('xc', 'yc', 'xp', 'yp', 'z', 'intensity'))
    points = cloud(card, 300)
    canvas = Encoder(card).encode(points, Grid.of(card).fill(points))
    np.testing.assert_allclose(canvas, naive_canvas(points, card), atol=3e-5)


def test_the_row_of_zeros_matters(make_card: MakeCard) -> None:
    bias = np.full(5, 3.0, np.float32)
    weight = -np.ones((len(POINT_FEATURES), 5), np.float32)
    card = make_card(zero_row=True, max_points=2, bias=bias, weight=weight)
    alone, pair = [0.1, 0.1, 0.5, 0.9], [[-0.8, -1.5, 0.5, 0.9]] * 2
    points = np.array([alone, *pair], np.float32)
    canvas = Encoder(card).encode(points, Grid.of(card).fill(points))
    np.testing.assert_allclose(canvas, naive_canvas(points, card), atol=1e-5)
    single, full = canvas.reshape(5, -1)[0, Grid.of(card).fill(points).cells[[1, 0]]]
    assert single == 3.0
    assert full != 3.0


def test_intensity_scale(make_card: MakeCard) -> None:
    card = make_card()
    points = cloud(card, 200)
    raw = points * np.float32([1, 1, 1, 255])
    encoder, pillars = Encoder(card), Grid.of(card).fill(points)
    expected = encoder.encode(points, pillars).copy()
    np.testing.assert_allclose(encoder.encode(raw, pillars, 1 / 255), expected, atol=1e-5)


def test_only_what_was_drawn_is_cleared(make_card: MakeCard) -> None:
    card = make_card()
    encoder, grid = Encoder(card), Grid.of(card)
    for seed, n in enumerate((500, 3, 0, 40, 1)):
        points = cloud(card, n, seed)
        canvas = encoder.encode(points, grid.fill(points))
        np.testing.assert_allclose(canvas, naive_canvas(points, card), atol=1e-5)


def test_repeats_to_the_bit(make_card: MakeCard) -> None:
    card = make_card()
    points = cloud(card, 3000)
    first = Encoder(card).encode(points, Grid.of(card).fill(points)).tobytes()
    assert Encoder(card).encode(points, Grid.of(card).fill(points)).tobytes() == first


@given(st.integers(0, 10_000), st.integers(0, 80), st.integers(1, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_cloud(seed: int, n: int, max_points: int, zero_row: bool) -> None:
    rng = np.random.default_rng(seed)
    card = LidarCard(
        'c', 'c', 'pointpillars', ('car',), {}, {}, limits=(-0.96, -1.6, -1.0, 0.96, 1.6, 3.0),
        pillar=(0.32, 0.4), max_points=max_points, max_pillars=20, features=POINT_FEATURES,
        weight=rng.normal(size=(len(POINT_FEATURES), 3)).astype(np.float32),
        bias=rng.normal(size=3).astype(np.float32), zero_row=zero_row,
    )  # fmt: skip
    points = cloud(card, n, seed)
    canvas = Encoder(card).encode(points, Grid.of(card).fill(points))
    np.testing.assert_allclose(canvas, naive_canvas(points, card), atol=1e-5)
