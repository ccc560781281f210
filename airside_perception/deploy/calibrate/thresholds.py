"""From the statistics of a tensor to the largest value that INT8 is to hold.

Entropy: of all places to cut a histogram of |x| off, the one whose 128 levels tell least of a lie
about it, by the Kullback-Leibler divergence (Migacz, "8-bit inference with TensorRT", GTC 2017,
with the details as NVIDIA's calibrators for PyTorch have them: 2048 bins; a level is spread evenly
over those of its bins that are not empty; what is cut off is added to the last bin of the
histogram, not to that of the levels; the bin of the zeros counts as much as its neighbour).

That rule for zeros is widened to all spikes: the border of a letterbox and empty ground are one
value many times in every tensor, not only 0, and a level that holds such a spike beside other bins
looks like a great loss. Without this the best cut is often the lowest that is allowed, a sixteenth
of the range, and nothing is detected any more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.calibrate.statistics import Statistics
from airside_perception.errors import ConfigError
from airside_perception.types import Float64, Int64

METHODS = ('entropy', 'minmax', 'percentile')
PERCENTILE = 99.99
LEVELS = 128
"""Magnitudes that a signed byte holds."""
BINS = 2048
"""Of the histogram that is cut off."""
AROUND, SPIKE = 33, 2.0
"""A bin with more than so many times the median of the bins around it is a spike."""


def check_method(method: str, percentile: float) -> None:
    """Raises ConfigError where these are no method and percentile."""
    if method not in METHODS:
        raise ConfigError(f'method {method!r} is not one of {", ".join(METHODS)}')
    if not 50.0 <= percentile <= 100.0:
        raise ConfigError(f'percentile {percentile:g}: expected 50 to 100, e.g. {PERCENTILE}')


def thresholds(statistics: Statistics, method: str, percentile: float = PERCENTILE) -> Float64:
    """Largest value that INT8 is to hold, of every tensor [T]; 0 where all values are 0.

    Args:
        statistics: of the tensors.
        method: one of `METHODS`.
        percentile: of |x|, for that method: the upper edge of the bin in which it lies.

    Raises:
        ConfigError: unknown method, or a percentile below 50 or above 100.
    """
    check_method(method, percentile)
    largest = statistics.largest
    if method == 'minmax':
        return largest
    found = np.zeros_like(largest)
    for index in np.flatnonzero(largest > 0.0):
        counts, width = statistics.counts[index], statistics.width(int(index))
        if method == 'entropy':
            found[index] = entropy_threshold(counts) * width
        else:
            place = np.searchsorted(np.cumsum(counts), percentile / 100.0 * counts.sum())
            found[index] = (place + 1) * width
    return np.minimum(found, largest)


def entropy_threshold(counts: Int64, spikes: bool = False) -> float:
    """Where to cut a histogram off, in bins of `counts` from 0.

    Args:
        counts: of |x| in bins of one width, one of them not empty.
        spikes: whether spikes count in full, as in the published method.
    """
    used = int(np.flatnonzero(counts)[-1]) + 1
    bins = rebinned(counts[:used], BINS)
    divergences = kl_divergences(bins if spikes else without_spikes(bins))
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))  # the widest of equals
    return (best + LEVELS) * used / BINS


def without_spikes(bins: Float64) -> Float64:
    """Bins [B] of which none has more than `SPIKE` times the median of the `AROUND` around it.

    What is not empty stays so: a bin keeps at least one count, or all of a part of one.
    """
    from scipy.ndimage import median_filter

    usual = median_filter(bins, AROUND, mode='mirror')
    return np.asarray(np.minimum(bins, np.maximum(SPIKE * usual, 1.0)), np.float64)


def rebinned(counts: Int64, number: int) -> Float64:
    """Counts in another number of bins over the same range; bins are split evenly."""
    total = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    edges = np.linspace(0.0, len(counts), number + 1)
    return np.diff(np.interp(edges, np.arange(len(counts) + 1), total))


def kl_divergences(bins: Float64) -> Float64:
    """Divergence for cutting off behind bin LEVELS, LEVELS + 1, ... B [B - LEVELS + 1].

    With P = bins [0, i) of which the last takes what lies beyond, and Q as the module says, both
    normalised, KL = sum P log(P / Q). All i at once: Q is constant within a level, so sums over
    the levels do, and these are differences of running sums.

    Args:
        bins: counts [B], B >= `LEVELS`.
    """
    bins = bins.copy()
    bins[0] = bins[1]
    ends = np.arange(LEVELS, len(bins) + 1)
    edges = -(-np.arange(LEVELS + 1) * ends[:, None] // LEVELS)  # rounded up
    running = np.concatenate([[0.0], np.cumsum(bins)])
    filled = np.concatenate([[0], np.cumsum(bins > 0.0)])
    mass, count = np.diff(running[edges]), np.diff(filled[edges])
    inside = running[ends]
    outside = running[-1] - inside
    with np.errstate(divide='ignore', invalid='ignore'):
        log_q = np.where(mass > 0.0, np.log(mass / count / inside[:, None]), 0.0)
    mass[:, -1] += outside
    last = bins[ends - 1]
    own = np.concatenate([[0.0], np.cumsum(_x_log_x(bins))])[ends - 1] + _x_log_x(last + outside)
    found = (own - (mass * log_q).sum(axis=1)) / running[-1] - np.log(running[-1])
    found[(inside == 0.0) | ((last == 0.0) & (outside > 0.0))] = np.inf  # Q is 0 where P is not
    return np.asarray(found, np.float64)


def _x_log_x(value: NDArray[Any]) -> Float64:
    return np.asarray(value * np.log(np.where(value > 0.0, value, 1.0)), np.float64)
