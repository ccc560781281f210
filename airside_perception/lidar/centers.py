"""From the outputs of a centre head to candidate boxes.

The head is that of CenterPoint (Yin et al., CVPR 2021) as Autoware's lidar_centerpoint runs it: a
heatmap of class logits over the cells of the output grid, and at every cell the rest of the box
that a centre in it would have. There are no anchors. Where original implementations suppress by
distance, this package's rotated suppression follows.

The rules, which leave nothing to the order of execution:

1. At a cell the best class counts whose logit reaches its threshold; of equal ones the first.
   With `peaks`, only those that no cell around exceeds in the same class. Logits are compared as
   float32. Nothing reaches a threshold of 1, whose logit is infinite.
2. A cell whose (sine, cosine) is shorter than the least norm of that class is left out: squares
   and sums in float32, each rounded, nothing fused.
3. Candidates are ordered by logit, equal ones by `row * columns + column`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import HEADINGS, CenterHead, LidarCard
from airside_perception.errors import EngineError
from airside_perception.geometry import wrap_angle
from airside_perception.lidar.candidates import Candidates, best, logits_of, sigmoid
from airside_perception.types import Float32, Float64, Int64

FARTHEST = float(np.finfo(np.float32).max)
"""Larger numbers are not finite to the implementations in float32."""


class CenterDecoder:
    """Decodes the outputs of one network.

    Raises:
        EngineError: the card has no centre head.
    """

    def __init__(self, card: LidarCard) -> None:
        if card.centers is None:
            raise EngineError(f'{card.path}: no centre head: architecture {card.architecture}')
        self._card = card
        self._head: CenterHead = card.centers
        self._rows, self._columns = card.output_grid
        self._low = np.array(card.limits[:2])
        self._cell = np.array(card.pillar) * card.stride
        self._least = least_squares(card)

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], thresholds: Sequence[float], most: int
    ) -> Candidates:
        """The `most` best candidates, by score and then by place.

        Args:
            outputs: of the network, by the names of the card, float32 or float16.
            thresholds: lowest score of every label.

        Raises:
            EngineError: the network put out values that are not finite.
        """
        places, labels, logits = self._passing(outputs[self._head.heatmap], thresholds)
        turned = self._turned(outputs[self._head.rotation], places, labels)
        places, labels, logits = places[turned], labels[turned], logits[turned]
        chosen = best(logits, most)
        places, labels, logits = places[chosen], labels[chosen], logits[chosen]
        boxes, velocities = self._boxes(outputs, places)
        return Candidates(boxes, sigmoid(logits), labels, velocities)

    def _passing(
        self, heatmap: NDArray[Any], thresholds: Sequence[float]
    ) -> tuple[Int64, Int64, Float64]:
        """Cells over threshold (ascending), label and logit (rule 1)."""
        cells = self._rows * self._columns
        logits = heatmap.reshape(-1, cells)
        peaks = logits.max(axis=1)
        if np.isnan(peaks).any():
            name, output = self._card.name, self._head.heatmap
            raise EngineError(f'{name}: output {output!r} contains NaN')
        least = logits_of(thresholds)
        # most classes are nowhere in most scans
        reaching = np.flatnonzero((peaks >= least) & (least < np.inf))
        passing = np.flatnonzero(logits[reaching] >= least[reaching, None])
        index, place = np.divmod(passing, cells)
        label = reaching[index]
        if self._head.peaks:
            highest = self._is_peak(logits, label, place)
            label, place = label[highest], place[highest]
        values = logits[label, place].astype(np.float64)
        order = np.lexsort((label, -values, place))  # by place, then the best, then the first
        first = np.ones(len(order), dtype=bool)
        first[1:] = place[order][1:] != place[order][:-1]
        kept = order[first]
        return place[kept], label[kept], values[kept]

    def _is_peak(self, logits: NDArray[Any], label: Int64, place: Int64) -> NDArray[np.bool_]:
        """Whether none of the eight cells around a place has a higher logit of the label."""
        row, column = np.divmod(place, self._columns)
        own = logits[label, place]
        highest = np.ones(len(place), dtype=bool)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                y = np.clip(row + down, 0, self._rows - 1)  # at a border: a nearer neighbour
                x = np.clip(column + right, 0, self._columns - 1)
                highest &= own >= logits[label, y * self._columns + x]
        return highest

    def _turned(self, rotation: NDArray[Any], place: Int64, label: Int64) -> NDArray[np.bool_]:
        """Whether (sine, cosine) are long enough for the label (rule 2); so is what is NaN."""
        a, b = rotation.reshape(2, -1)[:, place].astype(np.float32)
        with np.errstate(over='ignore', invalid='ignore'):
            enough: NDArray[np.bool_] = ~(a * a + b * b < self._least[label])
        return enough

    def _boxes(self, outputs: Mapping[str, NDArray[Any]], place: Int64) -> tuple[Float64, Float64]:
        """Boxes [N, 7] of the given cells of the output grid, and velocities [N or 0, 2]."""
        head = self._head

        def values(name: str) -> Float64:
            output = outputs[name]
            return output.reshape(output.shape[1], -1)[:, place].astype(np.float64)

        row, column = np.divmod(place, self._columns)
        offset, size, rotation = values(head.offset), values(head.size), values(head.rotation)
        height = values(head.height)
        with np.errstate(over='ignore'):
            size = np.exp(size[[head.size_order.index(axis) for axis in 'lwh']])
        velocity = values(head.velocity) if head.velocity else np.empty((2, 0))
        parts = {head.offset: offset, head.height: height, head.size: size}
        for name, part in {**parts, head.rotation: rotation, head.velocity: velocity}.items():
            if not (np.abs(part) <= FARTHEST).all():
                raise EngineError(
                    f'{self._card.name}: output {name!r} gives a box that is not finite'
                )
        order = head.rotation_order.split('_')
        angle = np.arctan2(rotation[order.index('sin')], rotation[order.index('cos')])
        sign, zero = HEADINGS[head.heading]
        x, y = (np.stack([column, row]) + offset) * self._cell[:, None] + self._low[:, None]
        boxes = np.stack([x, y, height[0], *size, wrap_angle(sign * angle + zero)], axis=1)
        return boxes, velocity.T


def least_squares(card: LidarCard) -> Float32:
    """Least squared length of (sine, cosine) for every label [K]."""
    norms = card.centers.least_norms if card.centers else ()
    least = np.array(norms or [0.0] * len(card.classes), dtype=np.float32)
    return least * least
