"""Curves for model cards: from what detections of known fate say, to what they should say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.evaluate.calibration import (
    Curve,
    expected_calibration_error,
    fit_isotonic,
    fit_temperature,
)
from airside_perception.types import Float64

METHODS = ('auto', 'isotonic', 'temperature')
MANY_HITS = 200
"""Below, `auto` takes a temperature: two parameters are all that is known. From so many on it
takes the method of the smaller loss, where each half of the recordings is judged by the other."""
FEW_HITS = 15
"""A class with fewer, or with fewer false alarms, gets the curve of all classes together."""
MOST_KNOTS = 14
IDENTITY = 0.002
"""Part of the score itself in every curve: no two scores become one probability."""
LEAST = 1e-4
"""Probabilities are kept this far from 0 and 1 where a loss is taken."""
TOGETHER = 'all classes'


@dataclass(frozen=True)
class Sample:
    """Detections of one class whose fate is known.

    Attributes:
        scores: float64 [N], of the network.
        hits: bool [N].
        groups: int64 [N], number of the recording: halves are told apart by it.
    """

    scores: Float64
    hits: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def half(self, parity: int) -> Sample:
        """Those of the recordings with even (0) or odd (1) numbers."""
        keep = self.groups % 2 == parity
        return Sample(self.scores[keep], self.hits[keep], self.groups[keep])


@dataclass(frozen=True)
class Fitted:
    """The curve of one class.

    Attributes:
        curve: begins at (0, 0), ends at 1, ascends strictly.
        method: `isotonic` or `temperature`; with `TOGETHER` where the class has too few.
        detections, hits: of the class.
        before: calibration error of its scores; after: of its probabilities, where each half of
            the recordings is judged by the curve of the other; NaN where there is one only.
    """

    curve: Curve
    method: str
    detections: int
    hits: int
    before: float
    after: float


def fit_classes(samples: Mapping[str, Sample], method: str = 'auto') -> dict[str, Fitted]:
    """A curve for every class with a detection.

    Raises:
        ConfigError: unknown method, or not enough detections in all classes together.
    """
    if method not in METHODS:
        raise ConfigError(f'method {method!r} is not one of {", ".join(METHODS)}')
    together = _joined(samples)
    if not _enough(together):
        raise ConfigError(
            f'{int(together.hits.sum())} hits and {int((~together.hits).sum())} false alarms in '
            f'all classes together; {FEW_HITS} of both are the least that a curve can be fitted to'
        )
    methods = {
        name: chosen(item) if method == 'auto' else method
        for name, item in {**samples, TOGETHER: together}.items()
    }
    curves = _curves(samples, methods)
    halves = [{name: item.half(n) for name, item in samples.items()} for n in (0, 1)]
    crossed = [_curves(half, methods) if _enough(_joined(half)) else {} for half in halves]
    found = {}
    for name, sample in samples.items():
        if not len(sample.scores):
            continue
        curve, used = curves[name]
        tested = [
            (crossed[1 - parity][name][0](half.scores), half.hits)
            for parity in (0, 1)
            if len((half := halves[parity][name]).scores) and name in crossed[1 - parity]
        ]
        # without a half of its own to be judged by, a class has no figure
        complete = sum(len(part) for part, _ in tested) == len(sample.scores)
        after = (
            expected_calibration_error(
                np.concatenate([part for part, _ in tested]),
                np.concatenate([hits for _, hits in tested]),
            )
            if complete
            else float('nan')
        )
        before = expected_calibration_error(sample.scores, sample.hits)
        hits = int(sample.hits.sum())
        found[name] = Fitted(curve, used, len(sample.scores), hits, before, after)
    return found


def chosen(sample: Sample) -> str:
    """The method that `auto` takes for a sample, see `MANY_HITS`."""
    halves = [sample.half(parity) for parity in (0, 1)]
    if sample.hits.sum() < MANY_HITS or not all(map(_enough, halves)):
        return 'temperature'
    losses = {
        method: sum(
            _loss(fit_curve(halves[1 - place], method)(half.scores), half.hits)
            for place, half in enumerate(halves)
        )
        for method in ('temperature', 'isotonic')
    }
    return min(losses, key=losses.__getitem__)


def fit_curve(sample: Sample, method: str) -> Curve:
    """The curve of one sample, from (0, 0) to score 1 and strictly ascending.

    No probability is more certain than the number of hits allows: 1 - 1 / (2 hits + 2).

    Args:
        method: `isotonic` or `temperature`.
    """
    fitted = (
        fit_isotonic(sample.scores, sample.hits, MOST_KNOTS)
        if method == 'isotonic'
        else fit_temperature(sample.scores, sample.hits)
    )
    inner = (fitted.scores > 0.0) & (fitted.scores < 1.0)
    levels = np.minimum(fitted.probabilities, 1.0 - 1.0 / (2 * int(sample.hits.sum()) + 2))
    scores = np.concatenate([[0.0], fitted.scores[inner], [1.0]])
    levels = np.concatenate([[0.0], levels[inner], levels[-1:]])
    return _rounded(scores, (1.0 - IDENTITY) * levels + IDENTITY * scores)


def _rounded(scores: Float64, probabilities: Float64) -> Curve:
    """As it is written into a card: six digits, knots that fall together once."""
    scores, probabilities = np.round(scores, 6), np.round(probabilities, 6)
    keep = np.concatenate([[True], np.diff(scores) > 0])
    return Curve(scores[keep], np.maximum.accumulate(probabilities[keep]))


def _curves(
    samples: Mapping[str, Sample], methods: Mapping[str, str]
) -> dict[str, tuple[Curve, str]]:
    """A curve for every class; that of all together where a class has too few."""
    how = methods[TOGETHER]
    common = fit_curve(_joined(samples), how), f'{how}, {TOGETHER}'
    return {
        name: (fit_curve(sample, methods[name]), methods[name]) if _enough(sample) else common
        for name, sample in samples.items()
    }


def _loss(probabilities: Float64, hits: NDArray[np.bool_]) -> float:
    """Sum of -log of what was said of what came true."""
    p = np.clip(probabilities, LEAST, 1.0 - LEAST)
    return float(-np.log(np.where(hits, p, 1.0 - p)).sum())


def _enough(sample: Sample) -> bool:
    hits = int(sample.hits.sum())
    return min(hits, len(sample.hits) - hits) >= FEW_HITS


def _joined(samples: Mapping[str, Sample]) -> Sample:
    items = list(samples.values())
    return Sample(
        np.concatenate([np.empty(0), *(item.scores for item in items)]),
        np.concatenate([np.empty(0, bool), *(item.hits for item in items)]),
        np.concatenate([np.empty(0, np.int64), *(item.groups for item in items)]),
    )
