"""Average precision as KITTI and as nuScenes compute it, and recall at a rate of false alarms."""

from __future__ import annotations

import numpy as np

from airside_perception.evaluate.matching import Matches
from airside_perception.types import Float64

POSITIONS = 40
LEAST = 0.1
"""nuScenes leaves out recalls and precisions up to this."""


def curve(found: Matches) -> tuple[Float64, Float64, Float64]:
    """Recall, precision and score [D] after each detection, the best first."""
    right = np.cumsum(found.hits)
    count = np.arange(1, len(found.hits) + 1)
    recall = right / max(found.asked, 1)
    return recall, right / np.maximum(count, 1), found.scores


def _envelope(precision: Float64) -> Float64:
    """The best precision at each recall or more."""
    best: Float64 = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def ap40(found: Matches) -> float:
    """Mean over the recalls 1/40, 2/40, ..., 1 of the best precision at that recall or more.

    Simonelli et al., "Disentangling Monocular 3D Object Detection", ICCV 2019, section 6.1.

    Returns:
        0..1; NaN where nothing is asked for.
    """
    if not found.asked:
        return float('nan')
    recall, precision, _ = curve(found)
    best = _envelope(precision)
    # the first detection that reaches each recall; integers decide, not rounded shares
    needed = np.ceil(np.arange(1, POSITIONS + 1) * found.asked / POSITIONS - 1e-9)
    at = np.searchsorted(np.round(recall * found.asked), needed, side='left')
    values = np.append(best, 0.0)[np.minimum(at, len(best))]
    return float(values.mean())


def nuscenes_ap(found: Matches) -> float:
    """The area under precision over recall above 10 % of both, scaled to 0..1.

    Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, section 3.1:
    precision is interpolated at 101 recalls, those up to 0.1 are left out, and 0.1 is taken from
    every precision.

    Returns:
        0..1; NaN where nothing is asked for.
    """
    if not found.asked:
        return float('nan')
    if not found.hits.any():
        return 0.0
    recall, precision, _ = curve(found)
    at = np.interp(np.linspace(0.0, 1.0, 101), recall, precision, right=0.0)
    above = np.maximum(at[round(100 * LEAST) + 1 :] - LEAST, 0.0)
    return float(above.mean() / (1.0 - LEAST))


def coco_ap(found: Matches) -> float:
    """Mean over the recalls 0, 0.01, ..., 1 of the best precision at that recall or more.

    Lin et al., "Microsoft COCO", ECCV 2014, as its evaluation does it.

    Returns:
        0..1; NaN where nothing is asked for.
    """
    if not found.asked:
        return float('nan')
    recall, precision, _ = curve(found)
    best = _envelope(precision)
    at = np.searchsorted(recall, np.linspace(0.0, 1.0, 101), side='left')
    return float(np.append(best, 0.0)[np.minimum(at, len(best))].mean())


def recall_at_alarms(found: Matches, frames: int, alarms_a_frame: float) -> tuple[float, float]:
    """Recall, and the score it is reached at, with at most so many false alarms a frame.

    Returns:
        (recall, score): NaN and infinity where nothing is asked for or no score is good enough.
    """
    if not found.asked:
        return float('nan'), float('inf')
    alarms = np.cumsum(~found.hits)
    allowed = alarms <= alarms_a_frame * frames + 1e-9
    # detections of one score come together
    last = np.append(found.scores[1:] != found.scores[:-1], True)[: len(allowed)]
    good = np.flatnonzero(allowed & last)
    if not len(good):
        return 0.0, float('inf')
    place = int(good[-1])
    return float(np.cumsum(found.hits)[place] / found.asked), float(found.scores[place])
