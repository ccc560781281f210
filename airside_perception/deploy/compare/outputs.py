"""Outputs of two networks on the same inputs, and whether they agree well enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from airside_perception.deploy.compare.sides import fitted
from airside_perception.deploy.outputs import Difference, compare_outputs
from airside_perception.engine import Engine
from airside_perception.errors import ConfigError

Progress = Callable[[str, float], None]
Frames = Iterable[tuple[str, Mapping[str, NDArray[Any]]]]
"""Names and inputs of frames."""


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may be apart.

    Attributes:
        max_rel: largest difference, relative to the largest value of the reference.
        cosine: least cosine of the angle between both.
    """

    max_rel: float
    cosine: float

    def __post_init__(self) -> None:
        if not self.max_rel >= 0.0 or not -1.0 <= self.cosine <= 1.0:
            raise ConfigError(
                f'tolerance: relative {self.max_rel} must be 0 or more, cosine {self.cosine} '
                'within -1 and 1'
            )

    def holds(self, found: Difference) -> bool:
        """Whether a difference is within it."""
        return found.within(self.max_rel) and found.cosine >= self.cosine


TOLERANCES = {
    'fp32': Tolerance(1e-3, 0.99999),
    'fp16': Tolerance(0.2, 0.999),
    'int8': Tolerance(1.5, 0.93),
}
"""Defaults by the coarser precision of the two. fp32 leaves room for sums in another order and for
TF32. The others lie between what trained detectors showed on real frames where their boxes stayed
(fp16: 0.15 and 0.9995; int8: 1.4 and 0.948) and where they were lost (int8: cosine 0.86, less).
One value among hundreds of thousands makes max rel: of boxes the accuracy gate judges."""
COARSE = ('int8', 'fp16', 'fp32')


@dataclass(frozen=True)
class OutputRow:
    """One output over all frames.

    Attributes:
        difference: the worst of every number.
        frame: where the largest relative difference is.
        good: whether all frames are within the tolerance.
    """

    name: str
    difference: Difference
    frame: str
    good: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'output': self.name,
            **asdict(self.difference),
            'worst_frame': self.frame,
            'good': self.good,
        }


class Worst:
    """The worst differences so far, by name of tensor."""

    def __init__(self) -> None:
        self._worst: dict[str, tuple[Difference, str, float]] = {}

    def add(self, name: str, frame: str, found: Difference) -> None:
        """One tensor of one frame."""
        rank = float('inf') if found.nan or found.inf else found.max_rel
        if name not in self._worst:
            self._worst[name] = (found, frame, rank)
            return
        old, where, high = self._worst[name]
        both = Difference(
            min(old.cosine, found.cosine),
            max(old.max_abs, found.max_abs),
            max(old.max_rel, found.max_rel),
            max(old.mean_abs, found.mean_abs),
            old.nan + found.nan,
            old.inf + found.inf,
        )
        self._worst[name] = (both, frame, rank) if rank > high else (both, where, high)

    def rows(self, tolerance: Tolerance) -> list[OutputRow]:
        """As rows, in the order in which names came first."""
        return [
            OutputRow(name, found, frame, tolerance.holds(found))
            for name, (found, frame, _) in self._worst.items()
        ]


def tolerance_for(a: str, b: str, max_rel: float | None, cosine: float | None) -> Tolerance:
    """The tolerance for two precisions; numbers that are given count instead.

    Raises:
        ConfigError: a number out of range.
    """
    coarse = next((name for name in COARSE if name in (a, b)), 'fp32')
    plain = TOLERANCES[coarse]
    return Tolerance(
        plain.max_rel if max_rel is None else max_rel, plain.cosine if cosine is None else cosine
    )


def compare_engines(
    a: Engine,
    b: Engine,
    frames: Frames,
    count: int,
    tolerance: Tolerance,
    progress: Progress = lambda step, share: None,
) -> list[OutputRow]:
    """Outputs of B against those of A on the same frames.

    Args:
        count: of the frames, for the progress.

    Raises:
        ConfigError: no frames.
        EngineError: inputs, outputs or shapes differ, or an engine fails.
    """
    worst = Worst()
    seen = 0
    for name, feed in frames:
        progress('outputs', seen / max(count, 1))
        first, second = a.infer(fitted(feed, a)), b.infer(fitted(feed, b))
        for output, found in compare_outputs(first, second).items():
            worst.add(output, Path(name).name, found)
        seen += 1
    if not seen:
        raise ConfigError('no frames to compare on')
    progress('outputs', 1.0)
    return worst.rows(tolerance)
