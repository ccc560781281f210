"""Comparison: detections are matched one to one; every difference beyond tolerance is named."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside_perception.replay.compare import Comparison, Tolerances, compare
from airside_perception.results import Result

TOPIC = '/perception/objects'


def box(x: float = 0.0, y: float = 0.0, name: str = 'car', **values: Any) -> dict[str, Any]:
    plain = {'class': name, 'score': 0.8, 'x': x, 'y': y, 'z': 0.7}
    return {**plain, 'l': 4.0, 'w': 1.8, 'h': 1.5, 'yaw': 0.0, **values}


def flat(x1: float, score: float = 0.8) -> dict[str, Any]:
    return {'class': 'car', 'score': score, 'x1': x1, 'y1': 0.0, 'x2': x1 + 50, 'y2': 40.0}


def message(*detections: dict[str, Any], stamp_ns: int = 1, frame_id: str = 'base_link') -> Result:
    return Result(stamp_ns, TOPIC, frame_id, detections)


def kinds(found: Comparison) -> list[str]:
    return [item.kind for item in found.differences]


def test_equal_results_are_the_same() -> None:
    results = [message(box(), box(9.0)), message(stamp_ns=2)]
    found = compare(results, results)
    assert found.same
    summary = found.topics[TOPIC]
    assert (summary.messages, summary.matched, summary.lost, summary.added) == ([2, 2], 2, 0, 0)
    assert set(summary.worst.values()) == {0.0}


def test_order_of_detections_does_not_matter() -> None:
    assert compare([message(box(1), box(9))], [message(box(9), box(1))]).same


@pytest.mark.parametrize(
    ('change', 'detail'),
    [
        ({'x': 0.051}, 'position by 0.051'),
        ({'z': 0.7 - 0.06}, 'position by 0.06'),
        ({'l': 4.06}, 'size by 0.06'),
        ({'yaw': math.radians(1.1)}, 'yaw_deg by 1.1'),
        ({'yaw': math.pi}, 'yaw_deg by 180'),
        ({'score': 0.83}, 'score by 0.03'),
        ({'sources': ['lidar']}, "sources [] are now ['lidar']"),
        ({'vx': 1.0, 'vy': 0.0}, 'the velocity is new'),
    ],
)
def test_a_change_beyond_tolerance_is_a_difference(change: dict[str, Any], detail: str) -> None:
    found = compare([message(box())], [message(box(**change))])
    assert kinds(found) == ['moved']
    assert detail in found.differences[0].detail
    assert found.topics[TOPIC].moved == 1


def test_velocities_that_both_have_are_compared() -> None:
    before = [message(box(vx=3.0, vy=-1.0))]
    near = compare(before, [message(box(vx=3.06, vy=-1.08))])
    assert near.same
    assert near.topics[TOPIC].worst['velocity'] == pytest.approx(0.1)
    far = compare(before, [message(box(vx=3.06, vy=-1.09))])
    assert far.differences[0].detail.endswith('velocity by 0.1082')
    assert compare(before, before, Tolerances(velocity=0.0)).same
    assert 'the velocity is lost' in compare(before, [message(box())]).differences[0].detail


@pytest.mark.parametrize(
    'change', [{'x': 0.05}, {'l': 4.05}, {'yaw': math.radians(0.99)}, {'score': 0.82}]
)
def test_a_change_within_tolerance_is_none(change: dict[str, Any]) -> None:
    assert compare([message(box())], [message(box(**change))]).same


def test_the_worst_is_reported_even_within_tolerance() -> None:
    found = compare([message(box(), box(5))], [message(box(0.01), box(5.03))])
    assert found.topics[TOPIC].worst['position'] == pytest.approx(0.03)


def test_yaw_is_modulo_pi_where_front_and_rear_look_alike() -> None:
    before, after = (
        [message(box(name='person'))],
        [message(box(name='person', yaw=math.pi - 0.01))],
    )
    assert compare(before, after).same
    assert not compare(before, after, Tolerances(symmetric=())).same


def test_yaw_wraps_around() -> None:
    before, after = [message(box(yaw=math.pi - 0.005))], [message(box(yaw=-math.pi + 0.005))]
    assert compare(before, after).same


def test_lost_and_added() -> None:
    found = compare([message(box(), box(20))], [message(box(), box(30))])
    assert kinds(found) == ['lost', 'added']
    assert 'car 0.800 at (20.00, 0.00, 0.70)' in found.differences[0].detail


def test_another_class_is_another_object() -> None:
    assert kinds(compare([message(box())], [message(box(name='truck'))])) == ['lost', 'added']


def test_near_its_threshold_a_detection_may_come_and_go() -> None:
    before, after = [message(box(score=0.315))], [message()]
    thresholds = {TOPIC: {'car': 0.3}}
    found = compare(before, after, thresholds=thresholds)
    assert found.same
    assert found.topics[TOPIC].forgiven == 1
    assert kinds(compare(before, after)) == ['lost']
    assert kinds(compare(before, after, Tolerances(margin=0.01), thresholds)) == ['lost']


def test_messages_that_one_file_lacks() -> None:
    found = compare([message(box()), message(stamp_ns=2)], [message(box()), message(stamp_ns=3)])
    assert kinds(found) == ['message lost', 'message added']
    assert [item.stamp_ns for item in found.differences] == [2, 3]


def test_repeated_stamps_are_paired_in_order() -> None:
    results = [message(box()), message(box(9))]
    assert compare(results, results).same
    assert kinds(compare(results, results[:1])) == ['message lost']


def test_another_frame_is_a_difference() -> None:
    found = compare([message(box())], [message(box(), frame_id='lidar')])
    assert kinds(found) == ['frame']


def test_boxes_in_an_image() -> None:
    assert compare([message(flat(10))], [message(flat(10.9))]).same
    found = compare([message(flat(10))], [message(flat(11.1))])
    assert found.differences[0].detail.endswith('pixels by 1.1')
    assert kinds(compare([message(flat(10))], [message(flat(100))])) == ['lost', 'added']
    assert kinds(compare([message(flat(10))], [message(box(10))])) == ['lost', 'added']


def test_of_two_at_one_place_scores_decide() -> None:
    before = [message(box(score=0.9), box(score=0.4))]
    after = [message(box(score=0.4), box(score=0.9))]
    assert compare(before, after).same


def test_as_json() -> None:
    found = compare([message(box())], [message()]).as_dict()
    assert found['same'] is False
    assert found['differences'][0]['kind'] == 'lost'
    assert found['topics'][TOPIC]['lost'] == 1


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 5))
def test_the_assignment_is_the_best_of_all(seed: int, count: int, other: int) -> None:
    """Against trying every assignment; a pair out of reach costs as much as none."""
    rng = np.random.default_rng(seed)
    ours = [box(*rng.uniform(0, 4, 2).tolist()) for _ in range(count)]
    theirs = [box(*rng.uniform(0, 4, 2).tolist()) for _ in range(other)]
    found = compare([message(*ours)], [message(*theirs)], Tolerances(position=0.0))
    summary = found.topics[TOPIC]
    short, long = sorted((ours, theirs), key=len)

    def total(chosen: tuple[dict[str, Any], ...]) -> float:
        return sum(
            min(2.0, math.dist((a['x'], a['y']), (b['x'], b['y'])))
            for a, b in zip(short, chosen, strict=True)
        )

    best = min(itertools.permutations(long, len(short)), key=total)
    inside = [
        math.dist((a['x'], a['y']), (b['x'], b['y'])) for a, b in zip(short, best, strict=True)
    ]
    assert summary.matched == sum(value < 2.0 for value in inside)
    worst = max((value for value in inside if value < 2.0), default=0.0)
    assert summary.worst.get('position', 0.0) == pytest.approx(worst, abs=1e-9)
    assert summary.lost == count - summary.matched
    assert summary.added == other - summary.matched
