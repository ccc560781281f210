"""From the outputs of an anchor network to candidate boxes.

The box code is that of SECOND (Yan et al., Sensors 2018) as OpenPCDet writes it: offsets in units
of the anchor's diagonal and height, logarithms of the sizes, the difference of the yaw, and two
bins that say which half of the circle the front points to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.errors import EngineError
from airside_perception.geometry import wrap_angle
from airside_perception.lidar.candidates import Candidates, best, logits_of, sigmoid
from airside_perception.types import Float64, Int64


class AnchorDecoder:
    """Decodes the outputs of one network; holds the places and sizes of its anchors."""

    def __init__(self, card: LidarCard) -> None:
        self._card = card
        rows, columns = card.output_grid
        x0, y0, _, x1, y1, _ = card.limits
        self._x = places_along(x0, x1, columns, card.anchor_places)
        self._y = places_along(y0, y1, rows, card.anchor_places)
        fields = [(a.length, a.width, a.height, a.z, a.yaw) for a in card.anchors]
        self._anchors = np.array(fields, dtype=np.float64)
        self._owner, self._label = np.array(card.scored, dtype=np.int64).T  # of score channels

    def decode(
        self, outputs: Mapping[str, NDArray[Any]], thresholds: Sequence[float], most: int
    ) -> Candidates:
        """The `most` best candidates, by score and then by their place in the score output.

        At every anchor the best class that reaches its threshold counts. Scores are compared
        before the sigmoid, and only what passes is decoded.

        Args:
            outputs: of the network, by the names of the card.
            thresholds: lowest score of every label.

        Raises:
            EngineError: the network put out values that are not finite.
        """
        places, labels, logits = self._passing(outputs[self._card.score_output], thresholds)
        chosen = best(logits, most)
        places, labels, logits = places[chosen], labels[chosen], logits[chosen]
        anchor, cell = np.divmod(places, len(self._x) * len(self._y))
        boxes = self._boxes(outputs, anchor, cell)
        return Candidates(boxes, sigmoid(logits), labels)

    def _passing(
        self, scores: NDArray[Any], thresholds: Sequence[float]
    ) -> tuple[Int64, Int64, Float64]:
        """Anchors over threshold: place (anchor * cells + cell, ascending), label and logit."""
        logits = scores.reshape(len(self._label), -1)
        peaks = logits.max(axis=1)
        if np.isnan(peaks).any():
            name, output = self._card.name, self._card.score_output
            raise EngineError(f'{name}: output {output!r} contains NaN')
        least = logits_of(thresholds)[self._label]
        reaching = np.flatnonzero(peaks >= least)  # most channels hold nothing in most scans
        passing = np.flatnonzero(logits[reaching] >= least[reaching, None])
        index, cell = np.divmod(passing, logits.shape[1])
        channel = reaching[index]
        label, values = self._label[channel], logits[channel, cell].astype(np.float64)
        places = self._owner[channel] * logits.shape[1] + cell
        order = np.lexsort((label, -values, places))  # by place, then the best, then the first
        first = np.ones(len(order), dtype=bool)
        first[1:] = places[order][1:] != places[order][:-1]
        kept = order[first]
        return places[kept], label[kept], values[kept]

    def _boxes(self, outputs: Mapping[str, NDArray[Any]], anchor: Int64, cell: Int64) -> Float64:
        """Boxes [N, 7] at the given anchors and cells of the output grid."""
        card, anchors = self._card, len(self._anchors)
        code = outputs[card.box_output].reshape(anchors, 7, -1)[anchor, :, cell]
        front = outputs[card.direction_output].reshape(anchors, 2, -1)[anchor, :, cell]
        length, width, height, z, yaw = self._anchors[anchor].T
        # one after another in memory: numpy 1.21's exp of a column differs in the last bit where
        # its result happens to lie next to it
        xt, yt, zt, lt, wt, ht, turn = np.ascontiguousarray(code.T, dtype=np.float64)
        diagonal = np.hypot(length, width)
        row, column = np.divmod(cell, len(self._x))
        with np.errstate(over='ignore', invalid='ignore'):
            boxes = np.stack(
                [
                    xt * diagonal + self._x[column],
                    yt * diagonal + self._y[row],
                    zt * height + z,
                    np.exp(lt) * length,
                    np.exp(wt) * width,
                    np.exp(ht) * height,
                    _headed(turn + yaw, front.argmax(axis=1), card.direction_offset),
                ],
                axis=1,
            )
        if not np.isfinite(boxes).all():
            raise EngineError(
                f'{card.name}: output {card.box_output!r} gives a box that is not finite'
            )
        return boxes


def places_along(low: float, high: float, count: int, kind: str) -> Float64:
    """Coordinates of the anchors along an axis: middles of the cells, or from border to border."""
    if kind == 'borders':
        return np.linspace(low, high, count)
    return low + (np.arange(count) + 0.5) * (high - low) / count


def _headed(yaw: Float64, front: Int64, offset: float) -> Float64:
    """Yaw in [-pi, pi): brought into the half circle that begins at `offset`, or the other one."""
    half = yaw - offset
    half = half - np.floor(half / np.pi) * np.pi
    return wrap_angle(half + offset + np.pi * front)
