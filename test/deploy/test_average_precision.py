"""Average precision against definitions written out, and boxes as truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from airside_perception.deploy.compare.average_precision import (
    HIT,
    IGNORED,
    MISS,
    Found,
    Truth,
    average_precision,
    drop,
    judge,
    mean_precision,
    precisions,
    weighted_precision,
)
from airside_perception.deploy.compare.boxes import changes
from airside_perception.deploy.compare.gate import boxes_as_truth


def area_by_thresholds(scores: Sequence[float], hits: Sequence[bool], objects: int) -> float:
    """The definition: at every recall the best precision of all thresholds that reach it."""
    pairs = []
    for threshold in sorted(set(scores)):
        chosen = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
        pairs.append((sum(chosen) / objects, sum(chosen) / len(chosen)))
    area, before = 0.0, 0.0
    for recall in sorted({recall for recall, _ in pairs}):
        best = max(precision for other, precision in pairs if other >= recall)
        area += (recall - before) * best
        before = recall
    return area


@pytest.mark.parametrize('seed', range(60))
def test_the_area_is_that_of_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 40))
    scores = generator.integers(0, 12, count) / 10  # many are equal
    hits = generator.random(count) < 0.6
    objects = int(hits.sum()) + int(generator.integers(0, 5)) or 1
    expected = area_by_thresholds(scores.tolist(), hits.tolist(), objects)
    assert average_precision(scores, hits, objects) == pytest.approx(expected, abs=1e-12)
    order = generator.permutation(count)  # the order of the detections says nothing
    assert average_precision(scores[order], hits[order], objects) == pytest.approx(expected)


def test_areas_by_hand() -> None:
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: 1/2 * 1 + 1/2 * 2/3
    found = average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
    assert found == pytest.approx(0.5 + 1 / 3)
    assert average_precision(np.empty(0), np.empty(0, bool), 3) == 0.0
    assert math.isnan(average_precision(np.array([0.5]), np.array([False]), 0))


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(corners, np.float64).reshape(-1, 4)


def found(*items: tuple[str, float, tuple[float, float, float, float]]) -> Found:
    return Found(
        tuple(name for name, _, _ in items),
        np.array([score for _, score, _ in items]),
        boxes(*(box for _, _, box in items)),
    )


A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (80.0, 80.0, 90.0, 90.0)


def test_an_object_is_found_once_and_the_best_score_chooses_first() -> None:
    seen = found(('car', 0.5, A), ('car', 0.9, A), ('car', 0.7, FAR), ('person', 0.8, B))
    truth = Truth((('car',), ('car',)), boxes(A, B), np.array([True, True]))
    verdict, objects = judge(seen, truth, 'car', 0.5)
    assert objects == 2
    assert verdict.tolist() == [MISS, HIT, MISS]
    table = precisions([(seen, truth)])
    assert table['car'].ap == pytest.approx(0.5)
    assert (table['car'].found, table['car'].alarms) == (1, 2)
    assert table['person'].objects == 0
    assert math.isnan(table['person'].ap)
    # in one curve the person is a false alarm at 0.8
    assert table[''].ap == pytest.approx(0.5)
    assert table[''].alarms == 3
    assert mean_precision(table) == pytest.approx(0.5)


def test_what_is_not_asked_for_is_no_alarm() -> None:
    seen = found(('car', 0.9, A), ('car', 0.8, B), ('car', 0.7, FAR), ('car', 0.6, (40, 0, 50, 9)))
    truth = Truth(
        (('truck', 'car'), (), ('car',)),
        boxes(A, B, (40, 0, 50, 10)),
        np.array([True, True, True]),
        judged=lambda rows: rows[:, 0] < 60,  # nobody labelled the right part
    )
    verdict, objects = judge(seen, truth, 'car', 0.5)
    assert objects == 1
    assert verdict.tolist() == [IGNORED, IGNORED, IGNORED, HIT]
    assert precisions([(seen, truth)])['truck'].ap == 0.0


def test_footprints_are_rotated() -> None:
    box = np.array([[10.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3]])
    turned = np.add(box, [0, 0, 0, 0, 0, 0, np.pi])  # the same footprint
    across = np.add(box, [0, 0, 0, 0, 0, 0, np.pi / 2])  # overlap 4 of 12
    truth = Truth((('car',),), box, np.array([True]))
    for other, expected in ((turned, HIT), (across, MISS)):
        verdict, _ = judge(Found(('car',), np.array([0.9]), other), truth, 'car', 0.5)
        assert verdict.tolist() == [expected]


def test_a_network_agrees_with_itself() -> None:
    seen = found(('car', 0.9, A), ('car', 0.25, B), ('person', 0.4, FAR))
    lowest = {'car': 0.3, 'person': 0.3}
    truth = boxes_as_truth(seen, lowest)
    assert truth.asked.tolist() == [True, False, True]
    table = precisions([(seen, truth)])
    assert table[''].ap == 1.0
    assert table[''].objects == 2
    assert changes('f', seen, seen, lowest, 0.5) == []


def test_lost_and_added_boxes_name_the_frame_and_the_other_score() -> None:
    first = found(('car', 0.9, A), ('car', 0.31, B))
    second = found(('car', 0.29, B), ('car', 0.8, FAR), ('car', 0.88, A))
    lost, added = changes('0007.png', first, second, {'car': 0.3}, 0.5)
    assert (lost.lost, lost.score, lost.other) == (True, 0.31, 0.29)
    assert str(lost) == 'lost  0007.png: car 0.31 at (20, 0)-(30, 10) px; B: score 0.29 there'
    assert str(added) == 'added 0007.png: car 0.80 at (80, 80)-(90, 90) px; A: none there'


def test_a_drop_is_the_larger_of_two_ways_to_count() -> None:
    truth = Truth((('car',), ('car',), ('person',)), boxes(A, B, FAR), np.array([True] * 3))
    items = (('car', 0.9, A), ('car', 0.8, B), ('person', 0.7, FAR))
    full = found(*items)
    first = precisions([(full, truth)])
    assert weighted_precision(first) == 1.0
    # a class without objects is an alarm in one curve only: 1/2, 2/3 and 3/4 of 1/3 each
    alarm = found(('bus', 0.95, (50, 50, 60, 60)), *items)
    second = precisions([(alarm, truth)])
    assert weighted_precision(second) == 1.0
    assert drop(first, second) == pytest.approx(0.25)  # made monotone: 3/4 everywhere
    # one car of two is lost: 1/2 of two objects
    less = precisions([(full.select([0, 2]), truth)])
    assert weighted_precision(less) == pytest.approx((0.5 * 2 + 1) / 3)
    assert drop(first, less) == pytest.approx(1 / 3)
    # ranks that mix: the cars are fine, the person comes behind two alarms of its own class
    alarms = found(('person', 0.75, (50, 50, 60, 60)), *items)
    assert weighted_precision(precisions([(alarms, truth)])) == pytest.approx((2 + 0.5) / 3)
