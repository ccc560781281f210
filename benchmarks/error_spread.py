"""How far mAP may be off by the choice of drives, and what it is on aprons and on streets.

One scene of a seed stands in every weather, so the seed is what is drawn: the standard error is
that of leaving out a tenth of the seeds at a time (delete-a-group jackknife, B. Efron, 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from airside_perception.evaluate.frames import Frame
from airside_perception.evaluate.question import DISTANCES
from airside_perception.types import Float64
from benchmarks.drives import STREETS
from benchmarks.error_figures import Losses, above
from benchmarks.oracle import by_distance, by_overlap, mistakes

FOLDS = 10


def mean_ap(frames: Sequence[Frame], names: Sequence[str], flat: bool) -> float:
    """mAP over the classes that are asked for; see `error_figures.analysed`."""
    rulers = [by_overlap()] if flat else [by_distance(reach) for reach in DISTANCES]
    return Losses([(ruler, mistakes(frames, names, ruler)) for ruler in rulers]).whole


def jackknifed(
    frames: Sequence[Frame], seeds: Sequence[int], names: Sequence[str], flat: bool
) -> Float64:
    """mAP [FOLDS] without a tenth of the seeds each."""
    return np.array([
        mean_ap([f for f, seed in zip(frames, seeds, strict=True) if seed % FOLDS != fold],
                names, flat)
        for fold in range(FOLDS)
    ])  # fmt: skip


def error(values: Float64) -> float:
    """Standard error of a figure of which `values` [FOLDS] are the jackknifed ones."""
    spread = values - values.mean()
    return float(np.sqrt((FOLDS - 1) / FOLDS * (spread**2).sum()))


def spread(
    frames: Sequence[Frame], seeds: Sequence[int], lowest: Mapping[str, float], flat: bool
) -> tuple[dict[str, Any], dict[str, Float64]]:
    """Errors of mAP, mAP of aprons and of streets, and the jackknifed values for comparisons.

    Args:
        frames: whole curves beside the truth; seeds: of each.
        lowest: {class: threshold}; flat: whether boxes are those of images.
    """
    names = tuple(lowest)
    published = [above(frame, lowest) for frame in frames]
    values = {
        'map': jackknifed(frames, seeds, names, flat),
        'at the thresholds': jackknifed(published, seeds, names, flat),
    }
    street = np.array([seed % STREETS == STREETS - 1 for seed in seeds])
    figures: dict[str, Any] = {'error of ' + key: error(found) for key, found in values.items()}
    for label, chosen in (('aprons', ~street), ('streets', street)):
        rows = np.flatnonzero(chosen)
        if len(rows):
            figures[label] = {
                'map': mean_ap([frames[n] for n in rows], names, flat),
                'at the thresholds': mean_ap([published[n] for n in rows], names, flat),
            }
    return figures, values
