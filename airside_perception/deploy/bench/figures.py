"""Percentiles of what was measured, and how two networks that took turns compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Figures:
    """Of times in milliseconds.

    Attributes:
        p50, p90, p95, p99: percentiles, by linear interpolation between the two nearest times.
        std: standard deviation of all the times.
    """

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    min: float
    max: float
    mean: float
    std: float


@dataclass(frozen=True)
class Ratio:
    """Of one network to another that ran in turns with it.

    Attributes:
        latency: of the median latencies.
        low, high: quartiles of the ratio of the medians of each round.
        throughput: of the inferences per second.
        rounds: that were compared.
    """

    latency: float
    low: float
    high: float
    throughput: float
    rounds: int


def figures(times_ms: Sequence[float]) -> Figures | None:
    """Figures of the times that are numbers; None where there are none."""
    values = np.asarray([time for time in times_ms if not math.isnan(time)], np.float64)
    if not values.size:
        return None
    p50, p90, p95, p99 = np.percentile(values, PERCENTILES).tolist()
    return Figures(
        count=len(values),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        min=float(values.min()),
        max=float(values.max()),
        mean=float(values.mean()),
        std=float(values.std()),
    )


def ratio(
    times_ms: Sequence[Sequence[float]],
    first_ms: Sequence[Sequence[float]],
    throughput: float,
    first_throughput: float,
) -> Ratio:
    """How a network compares with the first; both took turns, so that round i belongs to round i.

    Args:
        times_ms, first_ms: latencies of every round, none of them empty.
        throughput, first_throughput: inferences per second.
    """
    medians = [float(np.median(times)) for times in times_ms]
    firsts = [float(np.median(times)) for times in first_ms]
    rounds = [a / b for a, b in zip(medians, firsts, strict=True)]
    low, high = np.percentile(rounds, [25, 75]).tolist()
    everything = [np.median([time for times in part for time in times])
                  for part in (times_ms, first_ms)]  # fmt: skip
    return Ratio(
        latency=float(everything[0] / everything[1]),
        low=low,
        high=high,
        throughput=throughput / first_throughput,
        rounds=len(rounds),
    )
