"""The standard error of a figure of few objects."""

from __future__ import annotations

import numpy as np
import pytest

spread = pytest.importorskip('benchmarks.spread', reason='run from the source tree')

from airside_perception.evaluate.frames import Found, Frame, Truth  # noqa: E402
from airside_perception.evaluate.matching import Matches  # noqa: E402
from airside_perception.evaluate.question import reached  # noqa: E402


def row(count: int, found: int, alarms: int = 0) -> Frame:
    """Cars 10 m apart, of which the first ones are found, and false alarms far from all."""
    places = np.zeros((count, 7))
    places[:, 0] = 10.0 * np.arange(count)
    places[:, 3:6] = 2.0
    wrong = np.tile([0.0, 500.0, 0.0, 2.0, 2.0, 2.0, 0.0], (alarms, 1))
    boxes = np.concatenate([places[:found], wrong])
    scores = np.linspace(0.9, 0.1, len(boxes))
    return Frame(Truth(('car',) * count, places), Found(('car',) * len(boxes), boxes, scores))


def recall(found: Matches) -> float:
    return float(found.hits.sum() / found.asked)


def test_of_a_share_it_is_the_binomial_one() -> None:
    frames = [row(50, 20), row(50, 20)]
    error = spread.standard_error(frames, 'car', [reached(frames, 'car')], recall, draws=3000)
    assert error == pytest.approx(np.sqrt(0.4 * 0.6 / 100), rel=0.06)


def test_false_alarms_are_redrawn_as_poisson() -> None:
    frames = [row(4, 4, alarms=40)]
    matches = reached(frames, 'car')
    assert (~matches.hits).sum() == 40

    def alarms(found: Matches) -> float:
        return float((~found.hits).sum())

    error = spread.standard_error(frames, 'car', [matches], alarms, draws=3000)
    assert error == pytest.approx(np.sqrt(40), rel=0.06)


def test_all_found_spreads_not_at_all() -> None:
    frames = [row(10, 10)]
    assert spread.standard_error(frames, 'car', [reached(frames, 'car')], recall) == 0.0


def test_measures_share_their_objects() -> None:
    """The mean of a figure with itself spreads as the figure does, not by 1 / sqrt(2) of it."""
    frames = [row(30, 15)]
    found = reached(frames, 'car')
    once, twice = (
        spread.standard_error(frames, 'car', [found] * times, recall, draws=2000)
        for times in (1, 2)
    )
    assert twice == pytest.approx(once, rel=0.08)


@pytest.mark.parametrize('count', [0, 1, 2])
def test_of_too_few_objects_nothing_is_said(count: int) -> None:
    frames = [row(count, count)]
    assert np.isnan(spread.standard_error(frames, 'car', [reached(frames, 'car')], recall))


def test_a_seed_gives_the_same_answer() -> None:
    frames = [row(9, 4, alarms=3)]
    found = [reached(frames, 'car')]
    first, second = (spread.standard_error(frames, 'car', found, recall) for _ in range(2))
    assert first == second
