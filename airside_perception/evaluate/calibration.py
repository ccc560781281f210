"""Scores that are probabilities: how far they are from it, and curves that bring them there.

A detector's score of 0.7 should be right seven times in ten. `expected_calibration_error` says how
far it is from that; `fit_isotonic` and `fit_temperature` learn a monotone curve from detections
whose fate is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from airside_perception.errors import ConfigError
from airside_perception.types import Float64, by_score

BINS = 15
MOST_KNOTS = 24
LOGIT_LIMIT = 1e-6
"""Scores are kept this far from 0 and 1 where their logarithms are taken."""


@dataclass(frozen=True)
class Curve:
    """From scores to probabilities: straight lines between knots, level beyond them.

    Attributes:
        scores: float64 [K], ascending.
        probabilities: float64 [K], not descending, in 0..1.
    """

    scores: Float64
    probabilities: Float64

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, np.float64)
        probabilities = np.asarray(self.probabilities, np.float64)
        if scores.ndim != 1 or scores.shape != probabilities.shape or not len(scores):
            raise ConfigError(
                f'a calibration curve of {scores.shape} scores and {probabilities.shape} '
                'probabilities'
            )
        both = np.concatenate([scores, probabilities])
        if not (np.isfinite(both).all() and both.min() >= 0.0 and both.max() <= 1.0):
            raise ConfigError('scores and probabilities of a calibration curve lie in 0..1')
        if (np.diff(scores) <= 0).any() or (np.diff(probabilities) < 0).any():
            raise ConfigError(
                'a calibration curve ascends: scores strictly, probabilities never descend'
            )
        object.__setattr__(self, 'scores', scores)
        object.__setattr__(self, 'probabilities', probabilities)

    def __call__(self, scores: ArrayLike) -> Float64:
        """Probabilities of scores."""
        values = np.asarray(scores, dtype=np.float64)
        return np.asarray(np.interp(values, self.scores, self.probabilities), dtype=np.float64)

    def lowest(self, probability: float) -> float:
        """The lowest score whose probability is no less, to rounding; infinity: none has it.

        What reaches it has at least that probability; 0 where every score has.
        """
        place = int(np.searchsorted(self.probabilities, probability))
        if place == 0:
            return 0.0
        if place == len(self.probabilities):
            return float('inf')
        low, high = (float(value) for value in self.scores[place - 1 : place + 1])
        below, above = (float(value) for value in self.probabilities[place - 1 : place + 1])
        score = low + (probability - below) / (above - below) * (high - low)
        step = float(np.spacing(high))
        while self(score) < probability:  # at `high` it is `above`, so this ends
            score, step = min(score + step, high), 2 * step
        return score


@dataclass(frozen=True)
class Reliability:
    """Detections by score.

    Attributes:
        scores: float64 [B], mean score of each bin; NaN where it is empty.
        precision: float64 [B], share of hits.
        counts: int64 [B].
    """

    scores: Float64
    precision: Float64
    counts: NDArray[np.int64]


def reliability(scores: ArrayLike, hits: ArrayLike, bins: int = BINS) -> Reliability:
    """Mean score and share of hits in `bins` bins of equal width over 0..1."""
    values = np.asarray(scores, np.float64)
    right = np.asarray(hits, np.float64)
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)
    empty = counts == 0
    mean = np.where(empty, np.nan, np.bincount(place, values, bins) / filled)
    share = np.where(empty, np.nan, np.bincount(place, right, bins) / filled)
    return Reliability(mean, share, counts)


def expected_calibration_error(scores: ArrayLike, hits: ArrayLike, bins: int = BINS) -> float:
    """Mean distance of score and share of hits, by bin, weighted by the detections in each.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Returns:
        0..1; NaN without detections.
    """
    table = reliability(scores, hits, bins)
    if not table.counts.sum():
        return float('nan')
    apart = np.nan_to_num(np.abs(table.scores - table.precision))
    return float((apart * table.counts).sum() / table.counts.sum())


def fit_isotonic(scores: ArrayLike, hits: ArrayLike, most_knots: int = MOST_KNOTS) -> Curve:
    """The monotone curve nearest to the hits in the mean of squares, in at most so many knots.

    Pool adjacent violators (Barlow et al., 1972); blocks of one level become a knot at their mean
    score, and neighbours are joined until few are left.

    Raises:
        ConfigError: no detections.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        raise ConfigError('there are no detections to fit a calibration to')
    order = by_score(-values)
    pooled: list[list[float]] = []  # sum of scores, sum of hits, count
    for score, hit in zip(values[order], np.asarray(hits, np.float64)[order], strict=True):
        pooled.append([score, hit, 1.0])
        while len(pooled) > 1 and _level(pooled[-2]) >= _level(pooled[-1]):
            last = pooled.pop()
            pooled[-1] = [a + b for a, b in zip(pooled[-1], last, strict=True)]
    while len(pooled) > most_knots:
        sizes = [a[2] + b[2] for a, b in pairwise(pooled)]
        place = int(np.argmin(sizes))
        joined = [a + b for a, b in zip(pooled[place], pooled[place + 1], strict=True)]
        pooled[place : place + 2] = [joined]
    knots = np.array([item[0] / item[2] for item in pooled])
    levels = np.array([_level(item) for item in pooled])
    keep = np.append(np.diff(knots) > 1e-9, True)
    return Curve(knots[keep], np.maximum.accumulate(levels[keep]))


def fit_temperature(scores: ArrayLike, hits: ArrayLike, knots: int = MOST_KNOTS) -> Curve:
    """sigmoid(a logit(score) + b) with a > 0, of the greatest likelihood, in straight pieces.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999; b = 0 would be the
    temperature 1 / a of Guo et al. It needs fewer detections than an isotonic curve.

    Raises:
        ConfigError: no detections.
    """
    from scipy.optimize import minimize

    values, right = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    if not len(values):
        raise ConfigError('there are no detections to fit a calibration to')
    logits = _logit(values)
    # Platt's targets: a class of which every detection is right is not certain for that
    good, bad = right.sum(), len(right) - right.sum()
    target = np.where(right > 0, (good + 1) / (good + 2), 1 / (bad + 2))

    def loss(parameters: Float64) -> float:
        z = np.exp(parameters[0]) * logits + parameters[1]
        return float((np.logaddexp(0.0, z) - target * z).mean())

    found = minimize(loss, np.zeros(2), method='Nelder-Mead', options={'xatol': 1e-6})
    grid = np.linspace(LOGIT_LIMIT, 1 - LOGIT_LIMIT, knots)
    z = np.exp(found.x[0]) * _logit(grid) + found.x[1]
    return Curve(grid, 1.0 / (1.0 + np.exp(-z)))


def _logit(scores: Float64) -> Float64:
    p = np.clip(scores, LOGIT_LIMIT, 1 - LOGIT_LIMIT)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


def _level(block: list[float]) -> float:
    return block[1] / block[2]
