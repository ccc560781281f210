"""Decoding the raw output of a YOLOX head: one row a grid cell, level after level.

A row is (dx, dy, log w, log h, objectness, one score a class). With the cell (column, row) of a
level of stride s: centre = (dx + column, dy + row) s, size = exp(log w, log h) s, in pixels of the
network's input; score = objectness x class score. From Ge et al., YOLOX, arXiv 2107.08430.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import CameraCard
from airside_perception.errors import CardError, EngineError
from airside_perception.types import Float64, Int64, by_score


class Candidates(NamedTuple):
    """Boxes before suppression, best first.

    Attributes:
        xyxy: float64 [N, 4], pixels of the network's input, not clipped.
        scores: float64 [N].
        classes: int64 [N], index into the published classes of the card.
    """

    xyxy: Float64
    scores: Float64
    classes: Int64


class YoloxDecoder:
    """Decodes the output of the network that a card describes.

    Attributes:
        shape: of that output, [1, cells of all levels, 5 + classes].
        columns: int64 [labels that are published], place of each one's score in a row.
        published: int64 [the same], index of its published class.
    """

    def __init__(self, card: CameraCard) -> None:
        self._card = card
        levels = [_level(card.height // s, card.width // s, s) for s in card.strides]
        self._cells: Float64 = np.concatenate(levels)
        if not card.published:
            raise CardError(f'{card.path}: publishes none of its {len(card.classes)} classes')
        published = {name: i for i, name in enumerate(card.published)}
        labels = [i for i in range(len(card.classes)) if card.published_name(i)]
        self.columns = np.array(labels, dtype=np.int64) + 5
        self.published = np.array([published[card.published_name(i)] for i in labels])
        self.shape = (1, len(self._cells), 5 + len(card.classes))

    def __call__(self, output: NDArray[Any], thresholds: Float64, limit: int) -> Candidates:
        """The cells whose best published class reaches its threshold.

        A class that the card drops never hides one that it publishes: the classes have separate
        scores, so the best of those published is a claim of its own.

        Args:
            output: [1, cells, 5 + classes].
            thresholds: [published classes], lowest score of each.
            limit: most candidates, best first.

        Raises:
            EngineError: the shape is not `shape`, or values that matter are not finite.
        """
        if output.shape != self.shape:
            raise EngineError(
                f'{self._card.name}: output {list(output.shape)}, expected {list(self.shape)}'
            )
        rows = output[0]
        objectness = self._probability(rows[:, 4])
        if not np.isfinite(objectness).all():
            raise EngineError(
                f'{self._card.name}: the output is not finite; is the precision too low?'
            )
        # no class score exceeds 1: most cells are settled by their objectness
        cells = np.flatnonzero(objectness >= thresholds.min())
        per_class = self._probability(rows[cells[:, None], self.columns])
        best = per_class.argmax(axis=1) if len(cells) else np.empty(0, np.int64)
        scores = objectness[cells] * per_class[np.arange(len(cells)), best]
        classes = self.published[best]
        kept = np.flatnonzero(scores >= thresholds[classes])
        kept = kept[by_score(scores[kept])[:limit]]
        xyxy = self._boxes(rows[cells[kept], :4], self._cells[cells[kept]])
        if not (np.isfinite(xyxy).all() and np.isfinite(scores).all()):
            raise EngineError(
                f'{self._card.name}: the output is not finite in boxes above the threshold'
            )
        return Candidates(xyxy, scores[kept], classes[kept])

    def _probability(self, values: NDArray[Any]) -> Float64:
        wide: Float64 = values.astype(np.float64)
        return wide if self._card.activated else 0.5 * (1.0 + np.tanh(0.5 * wide))

    @staticmethod
    def _boxes(rows: NDArray[Any], cells: Float64) -> Float64:
        wide = rows.astype(np.float64)
        stride = cells[:, 2:]
        centre = (wide[:, :2] + cells[:, :2]) * stride
        with np.errstate(over='ignore'):  # an infinite size is reported by the caller
            half = np.exp(wide[:, 2:]) * stride / 2
        return np.concatenate([centre - half, centre + half], axis=1)


def _level(rows: int, columns: int, stride: int) -> Float64:
    """(column, row, stride) [rows * columns, 3] of one level, row by row."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([column, row, np.full(rows * columns, stride)], axis=1).astype(np.float64)
