"""Which boxes of a lidar detector rounding cannot change.

Three decisions of a detector are yes or no: whether a score reaches its threshold, which label of
an anchor is the best, and which of two overlapping boxes stays. Where two scores are nearly equal
the last digit decides, and a box jumps to another place or class. A precision can be asked to give
the same box only where these decisions are settled: taken with a margin, by boxes whose own are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.lidar.anchors import AnchorDecoder
from airside_perception.lidar.labels import Labels
from airside_perception.overlap import bev_iou
from airside_perception.types import Boxes3D, Float64

SCORE_MARGIN = 0.04
"""Rounding to fp16 alone moves scores of apron_pointpillars by up to 0.031 on the 30 scans of
`test/lidar/test_half_precision.py`, which checks this."""
IOU_MARGIN = 0.03
SAME_M = 1e-3
MOST = 20_000

Mask = NDArray[np.bool_]


class Decisions:
    """Tells settled boxes of one anchor network from its outputs."""

    def __init__(self, card: LidarCard, config: LidarConfig, margin: float = SCORE_MARGIN) -> None:
        self._config = config
        self._labels = Labels(card)
        self._decoder = AnchorDecoder(card)
        self._least = np.array(self._labels.thresholds(config))
        self._margin = margin

    def settled(self, outputs: Mapping[str, NDArray[Any]], boxes: Boxes3D) -> Mask:
        """Whether each box, as the detector gave it for these outputs, is settled: bool [N]."""
        rows, scores, labels, sure = self._candidates(outputs)
        iou = bev_iou(rows, rows)
        groups = self._labels.groups[labels]
        same = groups[:, None] == groups[None]
        config = self._config
        within = _stage(iou, scores, sure, same, config.nms_iou, self._margin)
        across = max(config.nms_iou, config.nms_iou_across)
        possible = within != SUPPRESSED
        final = _stage(
            iou, scores, within == KEPT, np.ones_like(same), across, self._margin, possible
        )
        names = self._labels.names[labels]
        found = np.zeros(len(boxes), dtype=bool)
        for place in range(len(boxes)):
            apart = np.abs(rows - boxes.boxes[place]).max(axis=1)
            own = (apart < SAME_M) & (names == boxes.classes[place])
            found[place] = bool((final[own] == KEPT).any())
        return found

    def _candidates(
        self, outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[Float64, Float64, NDArray[np.int64], Mask]:
        """Boxes, scores, labels; and whether each is a candidate whatever the rounding."""
        parts = []
        lowest = np.maximum(self._least - self._margin, 1e-3)
        for label in range(len(self._least)):
            alone = np.where(np.arange(len(lowest)) == label, lowest, 1.0)
            found = self._decoder.decode(outputs, alone.tolist(), MOST)
            parts.append((found.boxes, found.scores, found.labels))
        boxes, scores, labels = (np.concatenate(item) for item in zip(*parts, strict=True))
        # labels of one anchor share its box to the last digit
        anchor = np.unique(boxes, axis=0, return_inverse=True)[1].reshape(-1)
        best = np.zeros(anchor.max(initial=-1) + 1)
        np.maximum.at(best, anchor, scores)
        near = scores >= best[anchor] - self._margin
        count = np.bincount(anchor[near], minlength=len(best))
        clear = scores > self._least[labels] + self._margin
        sure = clear & (count[anchor] == 1)
        return boxes[near], scores[near], labels[near], sure[near]


UNKNOWN, KEPT, SUPPRESSED = 0, 1, 2


def _stage(
    iou: Float64, scores: Float64, sure: Mask, comparable: Mask, limit: float, margin: float,
    possible: Mask | None = None,
) -> NDArray[np.int64]:  # fmt: skip
    """Greedy suppression in three values: what it says whatever the rounding, else `UNKNOWN`."""
    possible = np.ones(len(scores), dtype=bool) if possible is None else possible
    state = np.where(possible, UNKNOWN, SUPPRESSED)
    others = ~np.eye(len(scores), dtype=bool) & comparable
    surely_over = others & (iou > limit + IOU_MARGIN) & _above(scores, margin)
    maybe_over = others & (iou > limit - IOU_MARGIN) & _above(scores, -margin)
    while True:
        before = state.copy()
        beaten = (surely_over & (state == KEPT)[:, None]).any(axis=0)
        state[(state == UNKNOWN) & beaten] = SUPPRESSED
        doubtful = (maybe_over & (state != SUPPRESSED)[:, None]).any(axis=0)
        state[(state == UNKNOWN) & sure & ~doubtful] = KEPT
        if (state == before).all():
            return state


def _above(scores: Float64, margin: float) -> Mask:
    """[i, j]: score i exceeds score j by more than the margin."""
    higher: Mask = scores[:, None] - scores[None] > margin
    return higher
