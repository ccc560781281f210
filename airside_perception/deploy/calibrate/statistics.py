"""What calibration keeps of the values of tensors: a histogram of |x| each, and the extremes.

The bins of a tensor divide [0, 2^e), where e is the least whole number that takes its largest
value. When a larger one comes, e grows and neighbouring bins are added up, which is exact. So the
counts follow from the values alone: not from their order, nor from where a pass was broken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import EngineError
from airside_perception.types import Float64, Int64

BINS = 8192
LEAST_EXPONENT = -100
"""Of a tensor that has been zero so far, or as good as: 2^-100 is 1e-30."""
BLOCK = 1 << 18
"""Values counted at a time: so many stay in the cache."""


@dataclass(frozen=True)
class Statistics:
    """Of T tensors.

    Attributes:
        names: of the tensors.
        counts: int64 [T, BINS], how many |x| lie in each bin.
        exponents: int64 [T], e.
        low, high: float64 [T], smallest and largest x; infinity and its opposite before any.
        frames: how many feeds have been seen.
    """

    names: tuple[str, ...]
    counts: Int64
    exponents: Int64
    low: Float64
    high: Float64
    frames: int = 0

    @staticmethod
    def empty(names: Sequence[str]) -> Statistics:
        """Before the first feed."""
        size = len(names)
        return Statistics(
            tuple(names),
            np.zeros((size, BINS), np.int64),
            np.full(size, LEAST_EXPONENT, np.int64),
            np.full(size, np.inf),
            np.full(size, -np.inf),
        )

    @property
    def largest(self) -> Float64:
        """Largest |x| of every tensor [T]; 0 before any value."""
        return np.maximum(np.maximum(-self.low, self.high), 0.0)

    def width(self, index: int) -> float:
        """Of the bins of a tensor."""
        return math.ldexp(1.0, int(self.exponents[index])) / BINS

    def with_frame(self, values: Mapping[str, NDArray[Any]]) -> Statistics:
        """These and one feed more. The object itself stays as it is.

        Args:
            values: {tensor: float array of any shape} of all tensors.

        Raises:
            EngineError: names a tensor whose values are not all finite.
        """
        counts, exponents = self.counts.copy(), self.exponents.copy()
        low, high = self.low.copy(), self.high.copy()
        for index, name in enumerate(self.names):
            flat = np.asarray(values[name], np.float32).reshape(-1)
            if not flat.size:
                continue
            least, most = float(flat.min()), float(flat.max())
            if not (math.isfinite(least) and math.isfinite(most)):
                raise EngineError(f'tensor {name!r} has values that are not finite')
            low[index], high[index] = min(low[index], least), max(high[index], most)
            exponent = max(_exponent(max(-least, most)), int(exponents[index]))
            counts[index] = coarser(counts[index], exponent - int(exponents[index]))
            counts[index] += _histogram(flat, exponent)
            exponents[index] = exponent
        return Statistics(self.names, counts, exponents, low, high, self.frames + 1)


def coarser(counts: Int64, steps: int) -> Int64:
    """Counts [BINS] for a range that is 2^steps times as large."""
    if steps == 0:
        return counts
    merged = np.zeros_like(counts)
    size = min(1 << min(steps, BINS), BINS)
    merged[: BINS // size] = counts.reshape(-1, size).sum(axis=1)
    return merged


def _exponent(value: float) -> int:
    """The least e with value < 2^e, and no less than `LEAST_EXPONENT`."""
    return max(math.frexp(value)[1], LEAST_EXPONENT) if value > 0.0 else LEAST_EXPONENT


def _histogram(flat: NDArray[np.float32], exponent: int) -> Int64:
    """Counts [BINS] of |x| in [0, 2^exponent): a power of two, so nothing is rounded."""
    scale = np.float32(math.ldexp(float(BINS), -exponent))
    counts = np.zeros(BINS, np.int64)
    for start in range(0, flat.size, BLOCK):
        block = np.abs(flat[start : start + BLOCK])
        block *= scale
        counts += np.bincount(block.astype(np.intp), minlength=BINS)
    return counts
