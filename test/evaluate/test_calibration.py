"""Calibration curves: against known truths, brute force and SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.errors import ConfigError
from airside_perception.evaluate.calibration import (
    Curve,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
    reliability,
)


def overconfident(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores p whose hits come with probability p ** 2."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    return scores, rng.random(count) < scores**2


def test_error_of_a_hand_made_table() -> None:
    scores = [0.05, 0.05, 0.95, 0.95, 0.95, 0.95]
    hits = [False, True, True, True, True, False]
    table = reliability(scores, hits, 10)
    assert table.counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 4]
    assert (table.precision[0], table.precision[9]) == (0.5, 0.75)
    assert np.isnan(table.precision[5])
    wanted = (2 * 0.45 + 4 * 0.2) / 6
    assert expected_calibration_error(scores, hits, 10) == pytest.approx(wanted)
    assert np.isnan(expected_calibration_error([], []))
    assert expected_calibration_error([1.0], [True]) == 0.0


@pytest.mark.parametrize('fit', [fit_isotonic, fit_temperature])
def test_curves_learn_what_scores_mean(fit: object) -> None:
    curve = fit(*overconfident(20000))
    assert np.abs(curve([0.2, 0.5, 0.8]) - [0.04, 0.25, 0.64]).max() < 0.08
    scores, hits = overconfident(20000, seed=1)
    before = expected_calibration_error(scores, hits)
    assert before > 0.15
    assert expected_calibration_error(curve(scores), hits) < 0.25 * before
    assert len(curve.scores) <= 24
    assert (np.diff(curve(np.linspace(0, 1, 99))) >= 0).all()


def best_monotone(hits: list[int]) -> float:
    """Least mean of squares of any ascending levels: one of the ways to cut them into blocks."""
    count, best = len(hits), np.inf
    for cuts in itertools.product([False, True], repeat=count - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), count]
        means = [np.mean(hits[a:b]) for a, b in itertools.pairwise(edges)]
        if all(a <= b for a, b in itertools.pairwise(means)):
            levels = np.repeat(means, np.diff(edges))
            best = min(best, float(((levels - hits) ** 2).sum()))
    return best


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_isotonic_is_the_best_monotone_fit(hits: list[int]) -> None:
    """Where every score is a knot of its own; pools of one level have one knot."""
    scores = np.linspace(0.1, 0.9, len(hits))
    curve = fit_isotonic(scores, hits, most_knots=99)
    pooled = _pool(np.asarray(hits, float))
    assert ((pooled - hits) ** 2).sum() == pytest.approx(best_monotone(hits), abs=1e-12)
    assert sorted(set(np.round(curve.probabilities, 12))) == sorted(set(np.round(pooled, 12)))


def _pool(hits: np.ndarray) -> np.ndarray:
    """Isotonic regression by its min-max formula (Barlow et al., 1972)."""
    n = len(hits)
    mean = [[hits[a : b + 1].mean() if b >= a else np.nan for b in range(n)] for a in range(n)]
    return np.array([max(min(mean[a][b] for b in range(i, n)) for a in range(i + 1))
                     for i in range(n)])  # fmt: skip


def test_few_knots_lose_little() -> None:
    scores, hits = overconfident(3000)
    many, few = fit_isotonic(scores, hits, 999), fit_isotonic(scores, hits, 8)
    assert len(few.scores) <= 8 < len(many.scores)
    assert np.abs(many(scores) - few(scores)).mean() < 0.05


def test_curves_that_are_none() -> None:
    for scores, probabilities, said in (
        ([], [], 'a calibration curve of'),
        ([0.1, 0.2], [0.5], 'a calibration curve of'),
        ([0.1, 2.0], [0.5, 0.6], 'lie in 0..1'),
        ([0.2, 0.1], [0.5, 0.6], 'ascends'),
        ([0.1, 0.2], [0.6, 0.5], 'ascends'),
        ([0.1, np.nan], [0.6, 0.7], 'lie in 0..1'),
    ):
        with pytest.raises(ConfigError, match=said):
            Curve(np.array(scores), np.array(probabilities))
    for fit in (fit_isotonic, fit_temperature):
        with pytest.raises(ConfigError, match='no detections'):
            fit([], [])


def test_beyond_the_knots_it_is_level() -> None:
    curve = Curve(np.array([0.2, 0.6]), np.array([0.1, 0.9]))
    assert curve([0.0, 0.2, 0.4, 0.6, 1.0]).tolist() == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_the_lowest_score_of_a_probability(
    knots: list[tuple[float, float]], wanted: float
) -> None:
    scores = sorted({round(score, 6) for score, _ in knots})
    levels = sorted(level for _, level in knots)[: len(scores)]
    curve = Curve(np.array(scores), np.array(levels))
    lowest = curve.lowest(wanted)
    every = np.unique(np.concatenate([np.linspace(0, 1, 1001), scores]))
    reaching = every[curve(every) >= wanted]
    if not len(reaching):
        assert lowest == np.inf
        return
    assert curve(lowest) >= wanted
    assert lowest <= reaching[0] + 1e-12
    just_below = curve(max(lowest - 1e-9, 0.0))
    assert lowest == 0.0 or just_below < wanted or just_below == pytest.approx(wanted, abs=1e-15)


def test_scores_of_a_curve_that_is_level_in_places() -> None:
    curve = Curve(np.array([0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.5, 0.5, 0.9]))
    assert curve.lowest(0.0) == 0.0
    assert curve.lowest(0.5) == 0.2
    assert curve.lowest(0.25) == pytest.approx(0.1)
    assert curve.lowest(0.7) == pytest.approx(0.8)
    assert curve.lowest(0.9) == 1.0
    assert curve.lowest(0.91) == np.inf
