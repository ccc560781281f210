from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from airside_perception.card import load_card
from airside_perception.types import Boxes2D, Image
from training.evaluate_camera import Sight, Tally, assign, judge

MODELS = Path(__file__).parents[2] / 'models'


def boxes(*rows):
    """Boxes of (class, score, x1, y1, x2, y2)."""
    xyxy = np.array([row[2:] for row in rows], float).reshape(-1, 4)
    names = tuple(row[0] for row in rows)
    return Boxes2D(0, 'camera', xyxy, np.array([row[1] for row in rows], float), names)


@pytest.fixture(scope='module')
def card():
    return load_card(MODELS / 'apron_yolox.yaml')


def sight(wanted, allowed):
    return Sight(Image(0, 'camera', np.zeros((4, 4, 3), np.uint8)), wanted, allowed)


def test_card_tells_where_its_figures_come_from(card):
    assert card.about['licence'] == 'Apache-2.0'
    assert 'simulated' in card.about['accuracy']['on']
    assert set(card.about['accuracy']['classes']) == set(card.published)


def test_average_precision_is_the_area_below_the_kept_precision():
    tally = Tally(4, np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, True]))
    # Precision at the hits: 1, 2/3, 3/4; kept from the right: 1, 3/4, 3/4.
    assert tally.average_precision() == pytest.approx((1 + 0.75 + 0.75) / 4)
    assert tally.at(0.75) == (0.25, 0.5)
    assert Tally(3, np.empty(0), np.empty(0, bool)).average_precision() == 0.0


def test_second_boxes_and_strangers_miss_and_small_objects_do_not_count(card):
    whole = boxes(('car', 1, 0, 0, 20, 20))
    small = boxes(('car', 1, 0, 0, 20, 20), ('car', 1, 50, 50, 53, 53))
    found = boxes(
        ('car', 0.9, 1, 0, 20, 20),
        ('car', 0.8, 0, 0, 19, 20),
        ('car', 0.7, 80, 80, 90, 90),
        ('car', 0.6, 50, 50, 53, 53),
        ('bus', 0.5, 0, 0, 20, 20),
    )
    assert judge(found, sight(whole, small), card, 'car') == [
        (0.9, True),
        (0.8, False),
        (0.7, False),
    ]
    assert judge(found, sight(whole, small), card, 'bus') == [(0.5, False)]


def test_a_hit_names_the_object_of_its_class(card):
    there = boxes(('bus', 1, 0, 0, 9, 9), ('car', 1, 20, 0, 30, 9), ('car', 1, 40, 0, 50, 9))
    found = boxes(('car', 0.9, 40, 0, 50, 9), ('car', 0.8, 0, 0, 9, 9), ('car', 0.7, 20, 0, 30, 9))
    assert assign(found, sight(there, there), card, 'car') == [(0.9, 1), (0.8, -1), (0.7, 0)]


def test_classes_are_compared_as_they_are_published(card):
    truth = boxes(('fuel_truck', 1, 0, 0, 20, 20))
    found = boxes(('truck', 0.9, 0, 0, 20, 20))
    assert judge(found, sight(truth, truth), card, 'truck') == [(0.9, True)]


def test_recall_by_range_counts_objects_where_they_are(card):
    """Four objects at 5, 14, 20 and 90 m; that at 14 m is found below the threshold only."""
    far, found = np.array([5.0, 14.0, 20.0, 90.0]), np.array([20.0, np.nan, 5.0, 14.0])
    tally = Tally(4, np.array([0.9, 0.8, 0.7, 0.2]), np.isfinite(found), far, found)
    assert tally.by_range(0.5) == {'0-15 m': [2, 0.5], '15-30 m': [1, 1.0]}
    assert tally.by_range(0.1) == {'0-15 m': [2, 1.0], '15-30 m': [1, 1.0]}
