"""The curves of a card: from the scores of its network to those that are published.

Detectors decode, suppress and cut off by the scores of the network; only what is left is
calibrated. Thresholds mean what is published, so each is taken back through the curve of its
class to the score that the network must reach. The curves begin at (0, 0): else a threshold below
a curve's first probability would let every place of a network pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airside_perception.card.cards import ModelCard
from airside_perception.card.reader import Reader, is_number
from airside_perception.errors import CardError, ConfigError
from airside_perception.evaluate.calibration import Curve
from airside_perception.types import Float64


def read_curves(table: Reader) -> dict[str, Curve]:
    """{class: curve} of a card.

    Raises:
        CardError: lists that are no ascending curve from (0, 0) within 0..1.
    """
    curves = {}
    for name in table.left:
        item = table.nested(name)
        lists = [_numbers(item, key) for key in ('scores', 'probabilities')]
        item.finish()
        try:
            curve = Curve(*lists)
        except ConfigError as error:
            raise CardError(f'{item.path}: {error}') from error
        if curve.scores[0] != 0.0 or curve.probabilities[0] != 0.0:
            raise CardError(
                f'{item.path}: begins at ({curve.scores[0]:g}, {curve.probabilities[0]:g}); put '
                'a 0 before both lists, or a low threshold would let everything pass'
            )
        curves[str(name)] = curve
    return curves


def published_scores(card: ModelCard, classes: Sequence[str], scores: Float64) -> Float64:
    """Scores [N] of published classes as they are published; the same array without curves."""
    if not card.calibration:
        return scores
    found = np.array(scores, dtype=np.float64)
    names = np.array(classes)
    for name, curve in card.calibration.items():
        rows = np.flatnonzero(names == name)
        if len(rows):
            found[rows] = curve(found[rows])
    return found


def network_threshold(card: ModelCard, name: str, threshold: float) -> float:
    """Lowest score of the network that is published as `threshold` or more; inf: none is."""
    curve = card.calibration.get(name)
    return threshold if curve is None else curve.lowest(threshold)


def _numbers(item: Reader, key: str) -> Float64:
    values = item.take(key, list)
    if not all(map(is_number, values)):
        raise CardError(f'{item.path}: {key} is {values!r}, expected numbers')
    return np.array(values, np.float64)
