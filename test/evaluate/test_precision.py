"""Matching and average precision against brute force and hand-made frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.errors import MessageError
from airside_perception.evaluate.errors import Errors, apron_score, class_errors, mean_errors
from airside_perception.evaluate.frames import Found, Frame, Truth, classes_of
from airside_perception.evaluate.matching import Matches, centre_nearness, match, volume_iou
from airside_perception.evaluate.precision import ap40, nuscenes_ap, recall_at_alarms


def at(*places: tuple[float, float], size: tuple[float, float, float] = (4, 2, 2)) -> np.ndarray:
    return np.array([[x, y, 1.0, *size, 0.0] for x, y in places], np.float64).reshape(-1, 7)


def frame(truth: list[tuple[float, float]], found: list[tuple[float, float]],
          scores: list[float], **changes: object) -> Frame:  # fmt: skip
    return Frame(
        Truth(('car',) * len(truth), at(*truth), **changes),
        Found(('car',) * len(found), at(*found), np.array(scores)),
    )


def matches(hits: list[bool], scores: list[float], asked: int) -> Matches:
    none = np.zeros(len(hits), np.int64)
    return Matches(np.array(scores), np.array(hits, bool), none, none, none, asked)


def test_the_best_score_chooses_first_and_takes_the_nearest() -> None:
    one = frame([(0, 0), (1, 0)], [(0.4, 0), (0.9, 0), (0.1, 0)], [0.5, 0.9, 0.4])
    found = match([one], 'car', centre_nearness, -2.0, inclusive=False)
    assert found.scores.tolist() == [0.9, 0.5, 0.4]
    assert found.hits.tolist() == [True, True, False]
    assert found.objects.tolist() == [1, 0, -1]
    assert found.asked == 2
    assert match([one], 'bus', centre_nearness, -2.0).asked == 0


def test_the_limit_itself() -> None:
    one = frame([(0, 0)], [(2, 0)], [0.5])
    assert match([one], 'car', centre_nearness, -2.0).hits.tolist() == [True]
    assert match([one], 'car', centre_nearness, -2.0, inclusive=False).hits.tolist() == [False]


def test_what_is_not_asked_for_is_neither_missed_nor_a_false_alarm() -> None:
    one = frame([(0, 0), (9, 0)], [(0, 0), (9, 0), (20, 0)], [0.9, 0.8, 0.7],
                asked=np.array([True, False]))  # fmt: skip
    found = match([one], 'car', centre_nearness, -1.0)
    assert found.asked == 1
    assert found.scores.tolist() == [0.9, 0.7]
    assert found.hits.tolist() == [True, False]


def test_what_is_not_asked_for_excuses_the_best_detection_only() -> None:
    one = frame([(0, 0), (9, 0)], [(9.2, 0), (0, 0), (9, 0), (8.8, 0)], [0.8, 0.7, 0.9, 0.6],
                asked=np.array([True, False]))  # fmt: skip
    for reach in (0.5, 4.0):
        found = match([one], 'car', centre_nearness, -reach)
        assert found.scores.tolist() == [0.8, 0.7, 0.6]
        assert found.hits.tolist() == [False, True, False]


def test_what_is_asked_for_comes_before_what_is_not() -> None:
    one = frame([(0, 0), (1, 0)], [(0.9, 0), (0.8, 0), (0.7, 0)], [0.9, 0.8, 0.7],
                asked=np.array([True, False]))  # fmt: skip
    found = match([one], 'car', centre_nearness, -2.0)
    assert found.scores.tolist() == [0.9, 0.7]  # the first finds, the second is excused
    assert found.objects.tolist() == [0, -1]


PLACES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=5)


@settings(deadline=None)
@given(PLACES, PLACES, st.integers(1, 3))
def test_matches_are_those_of_a_plain_loop(
    objects: list[tuple[int, bool]], found: list[tuple[int, bool]], reach: int
) -> None:
    """With objects that are not asked for, and detections where nobody labelled anything."""
    asked = np.array([a for _, a in objects], bool)
    one = frame([(x, 0) for x, _ in objects], [], [], asked=asked)
    labelled = np.array([known for _, known in found], bool)
    places = at(*((x, 0) for x, _ in found))
    scores = np.linspace(0.9, 0.1, len(found))
    one = replace(one, found=Found(('car',) * len(found), places, scores, labelled=labelled))
    free, expected = dict(enumerate(objects)), []
    for row, (x, known) in enumerate(found):
        near = [(not a, abs(x - y), n) for n, (y, a) in free.items() if abs(x - y) < reach]
        if near:
            unasked, _, best = min(near)
            del free[best]
            expected += [] if unasked else [(row, best)]
        elif known:
            expected.append((row, -1))
    mine = match([one], 'car', centre_nearness, -reach, inclusive=False)
    assert list(zip(mine.rows.tolist(), mine.objects.tolist(), strict=True)) == expected
    assert mine.asked == sum(a for _, a in objects)


def test_ranges_cut_objects_and_detections_alike() -> None:
    one = frame([(10, 0), (20.5, 0)], [(19.5, 0), (10, 0)], [0.9, 0.8])
    near = one.in_range(0.0, 20.0)
    found = match([near], 'car', centre_nearness, -2.0)
    assert found.asked == 1
    assert found.hits.tolist() == [True]  # the one at 19.5 m found what is at 20.5 m: left out
    assert classes_of([one.in_range(50, 60)]) == ()


def test_overlap_in_space_of_upright_boxes() -> None:
    a, b = at((0, 0)), at((1, 0))
    b[0, 2] += 0.5
    # shared 3 x 2 x 1.5 of two boxes of 16
    assert volume_iou(a, b)[0, 0] == pytest.approx(9 / (32 - 9))
    b[0, 2] = 9.0
    assert volume_iou(a, b)[0, 0] == 0.0
    turned = at((0, 0))
    turned[0, 6] = np.pi / 2
    assert volume_iou(a, turned)[0, 0] == pytest.approx(8 / (32 - 8))


def exact_ap40(hits: list[bool], asked: int) -> Fraction:
    """The definition with fractions."""
    best = []
    for k in range(1, 41):
        reached = [Fraction(sum(hits[: n + 1]), n + 1) for n in range(len(hits))
                   if Fraction(sum(hits[: n + 1]), asked) >= Fraction(k, 40)]  # fmt: skip
        best.append(max(reached, default=Fraction(0)))
    return sum(best, Fraction(0)) / 40


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(0, 20))
def test_ap40_is_its_definition(hits: list[bool], missed: int) -> None:
    asked = sum(hits) + missed
    scores = np.linspace(1, 0, len(hits)).tolist()
    found = ap40(matches(hits, scores, asked))
    if asked:
        assert found == pytest.approx(float(exact_ap40(hits, asked)), abs=1e-12)
    else:
        assert np.isnan(found)


def test_average_precisions_of_known_curves() -> None:
    perfect = matches([True] * 10, np.linspace(1, 0.1, 10).tolist(), 10)
    assert (ap40(perfect), nuscenes_ap(perfect)) == (1.0, pytest.approx(1.0))
    half = matches([True] * 5, np.linspace(1, 0.1, 5).tolist(), 10)
    assert ap40(half) == pytest.approx(0.5)
    # recalls 0.11 to 0.50 of 0.11 to 1.00 have precision 1
    assert nuscenes_ap(half) == pytest.approx(40 / 90)
    nothing = matches([], [], 3)
    assert (ap40(nothing), nuscenes_ap(nothing)) == (0.0, 0.0)
    assert np.isnan(nuscenes_ap(matches([False], [0.5], 0)))


def test_recall_at_a_rate_of_false_alarms() -> None:
    hits = [True, False, True, True, False, True]
    found = matches(hits, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 5)
    assert recall_at_alarms(found, 10, 0.1) == (pytest.approx(3 / 5), 0.6)
    assert recall_at_alarms(found, 10, 0.0) == (pytest.approx(1 / 5), 0.9)
    assert recall_at_alarms(found, 10, 1.0) == (pytest.approx(4 / 5), 0.4)
    level = matches(hits, [0.9, 0.6, 0.6, 0.6, 0.5, 0.4], 5)  # no threshold parts equal scores
    assert recall_at_alarms(level, 10, 0.0) == (pytest.approx(1 / 5), 0.9)
    assert recall_at_alarms(matches([False], [0.5], 2), 1, 0.5) == (0.0, float('inf'))
    assert np.isnan(recall_at_alarms(matches([], [], 0), 1, 1.0)[0])


def test_errors_of_what_was_found() -> None:
    truth = Truth(('car',) * 8, at(*((10.0 * i, 0) for i in range(8))), np.ones((8, 2)))
    boxes = truth.boxes.copy()
    boxes[:, 0] += 0.3
    boxes[:, 3] *= 2.0
    boxes[:, 6] += np.pi + 0.1
    one = Frame(truth, Found(truth.classes, boxes, np.linspace(0.9, 0.2, 8), np.zeros((8, 2))))
    found = match([one], 'car', centre_nearness, -2.0)
    errors = class_errors([one], found)
    assert vars(errors) == pytest.approx({
        'translation': 0.3, 'scale': 0.5, 'orientation': np.pi - 0.1, 'velocity': np.sqrt(2)
    })  # fmt: skip
    assert class_errors([one], found, np.pi).orientation == pytest.approx(0.1)
    still = replace(one, found=Found(truth.classes, boxes, one.found.scores))
    without = class_errors([still], match([still], 'car', centre_nearness, -2.0))
    assert np.isnan(without.velocity)
    assert 'velocity' not in without.known()
    speeds = np.zeros((8, 2))
    speeds[:3] = np.nan  # the best hits have none, as those of a first cloud
    partly = replace(one, found=Found(truth.classes, boxes, one.found.scores, speeds))
    some = class_errors([partly], match([partly], 'car', centre_nearness, -2.0))
    assert some.velocity == pytest.approx(np.sqrt(2))
    both = mean_errors({'a': errors, 'b': replace(errors, translation=0.5, velocity=float('nan'))})
    assert (both.translation, both.velocity) == pytest.approx((0.4, np.sqrt(2)))


def test_a_score_of_all() -> None:
    perfect = Errors(0.0, 0.0, 0.0, 0.0)
    assert apron_score(1.0, perfect) == 1.0
    assert apron_score(0.5, Errors(0.5, 0.5, 3.0)) == pytest.approx((2.5 + 1.0) / 8)
    assert apron_score(0.0, Errors(1.0, 2.0, 3.0, 4.0)) == 0.0


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(MessageError, match=r'2 classes have boxes of shape \(1, 7\)'):
        Truth(('car', 'car'), at((0, 0)))
    with pytest.raises(MessageError, match='scores of shape'):
        Found(('car',), at((0, 0)), np.zeros(2))
    with pytest.raises(MessageError, match='visibility have shape'):
        Truth(('car',), at((0, 0)), visibility=np.zeros(2))
    with pytest.raises(MessageError, match='not finite'):
        Truth(('car',), at((np.nan, 0)))
