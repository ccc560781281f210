"""The learning rate over a run."""

from __future__ import annotations

import math


def one_cycle(progress: float, rise: float = 0.1, last: float = 0.001) -> float:
    """Factor of the learning rate: up in the first share `rise`, then a cosine down to `last`."""
    if progress < rise:
        return 0.05 + 0.95 * progress / rise
    fall = (progress - rise) / (1 - rise)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * fall))
