"""Curves for cards: they learn, keep the order, and never claim more than was seen."""

from __future__ import annotations

import numpy as np
import pytest

from airside_perception.errors import ConfigError
from airside_perception.evaluate.calibration import expected_calibration_error
from airside_perception.evaluate.fit import TOGETHER, Sample, chosen, fit_classes, fit_curve


def sample(count: int, seed: int, power: float = 3.0, recordings: int = 4) -> Sample:
    """Scores s that are right with probability s ** power."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 1.0, count)
    groups = rng.integers(0, recordings, count)
    return Sample(scores, rng.random(count) < scores**power, groups)


@pytest.mark.parametrize('method', ['isotonic', 'temperature'])
def test_curves_bring_scores_to_probabilities_and_keep_their_order(method: str) -> None:
    curve = fit_curve(sample(6000, 0), method)
    assert (curve.scores[0], curve.probabilities[0], curve.scores[-1]) == (0.0, 0.0, 1.0)
    assert (np.diff(curve(np.linspace(0, 1, 1000))) > 0).all()
    assert np.abs(curve([0.3, 0.6, 0.9]) - np.array([0.3, 0.6, 0.9]) ** 3).max() < 0.08
    other = sample(6000, 1)
    before = expected_calibration_error(other.scores, other.hits)
    assert before > 0.15
    assert expected_calibration_error(curve(other.scores), other.hits) < 0.03
    assert len(curve.scores) <= 26


def test_few_hits_make_no_certainty() -> None:
    scores = np.concatenate([np.full(30, 0.1), np.full(20, 0.9)])
    few = Sample(scores, scores > 0.5, np.zeros(50, np.int64))
    for method in ('isotonic', 'temperature'):
        curve = fit_curve(few, method)
        assert curve(0.9) <= 1 - 1 / 42 + 0.002
        assert curve(0.9) > 0.8
        assert curve(0.1) < 0.1


def test_a_class_with_little_of_its_own_takes_the_curve_of_all() -> None:
    fitted = fit_classes({'car': sample(3000, 0), 'bus': sample(20, 1), 'ship': sample(0, 2)})
    assert set(fitted) == {'car', 'bus'}
    assert fitted['car'].method in ('isotonic', 'temperature')
    assert fitted['bus'].method.endswith(f', {TOGETHER}')
    assert (fitted['bus'].detections, fitted['car'].detections) == (20, 3000)
    assert fitted['car'].after < 0.3 * fitted['car'].before
    medium = fit_classes({'car': sample(200, 0)})
    assert medium['car'].method == 'temperature'


def test_the_method_of_the_smaller_loss() -> None:
    """Two parameters describe the logistic curve; none of them a step in the middle."""
    rng = np.random.default_rng(0)
    scores, groups = rng.uniform(0.05, 0.95, 3000), rng.integers(0, 6, 3000)
    logistic = 1 / (1 + np.exp(-(3 * np.log(scores / (1 - scores)) - 1)))
    step = np.where(scores < 0.3, 0.4, np.where(scores < 0.8, 0.5, 0.99))
    for chance, wanted in ((logistic, 'temperature'), (step, 'isotonic')):
        assert chosen(Sample(scores, rng.random(3000) < chance, groups)) == wanted
    few = Sample(scores[:100], rng.random(100) < step[:100], groups[:100])
    assert chosen(few) == 'temperature'


def test_halves_are_judged_by_the_curve_of_the_other() -> None:
    """Recordings 0 and 1 disagree: in sample a curve would fit, across it cannot."""
    scores = np.tile(np.linspace(0.1, 0.9, 100), 2)
    groups = np.repeat([0, 1], 100)
    rng = np.random.default_rng(0)
    hits = np.where(groups == 0, rng.random(200) < 0.9, rng.random(200) < 0.2)
    fitted = fit_classes({'car': Sample(scores, hits, groups)})['car']
    assert fitted.after > 0.5
    one = fit_classes({'car': Sample(scores, hits, np.zeros(200, np.int64))})['car']
    assert np.isnan(one.after)


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ConfigError, match="method 'spline' is not one of auto"):
        fit_classes({'car': sample(100, 0)}, 'spline')
    with pytest.raises(ConfigError, match='are the least that a curve can be fitted to'):
        fit_classes({'car': sample(8, 0)})
