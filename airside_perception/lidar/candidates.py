"""What a decoder hands to suppression, and what all decoders do with scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from airside_perception.types import Float32, Float64, Int64, by_score


@dataclass(frozen=True)
class Candidates:
    """Boxes before suppression, best first.

    Attributes:
        boxes: [N, 7], as those of `types.Boxes3D`.
        scores: [N].
        labels: indices [N].
        velocities: [N, 2], vx and vy in m/s; NaN, the default, where the network has none.
    """

    boxes: Float64
    scores: Float64
    labels: Int64
    velocities: Float64 = field(default_factory=lambda: np.empty((0, 2)))

    def __post_init__(self) -> None:
        if not len(self.velocities):
            object.__setattr__(self, 'velocities', np.full((len(self.labels), 2), np.nan))

    def __len__(self) -> int:
        return len(self.labels)


def best(scores: Float64, most: int) -> Int64:
    """Indices of the `most` highest scores, best first; equal scores by index."""
    if len(scores) <= most:
        return by_score(scores)
    least = np.partition(scores, len(scores) - most)[len(scores) - most]
    above = np.flatnonzero(scores > least)
    level = np.flatnonzero(scores == least)[: most - len(above)]
    chosen = np.concatenate([above, level])  # level ones are last in any order by score
    return chosen[by_score(scores[chosen])]


def logits_of(scores: Sequence[float]) -> Float32:
    """Inverse sigmoid; 0 gives -inf and 1 gives inf."""
    p = np.asarray(scores, dtype=np.float64)
    with np.errstate(divide='ignore'):
        return (np.log(p) - np.log1p(-p)).astype(np.float32)


def sigmoid(logits: Float64) -> Float64:
    """1 / (1 + exp(-logit))."""
    with np.errstate(over='ignore'):
        return 1.0 / (1.0 + np.exp(-logits))
