"""All figures together: on frames whose figures are known, and against the single formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.evaluate.calibration import expected_calibration_error
from airside_perception.evaluate.evaluation import evaluate
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.images import evaluate_images, flat, image_iou
from airside_perception.evaluate.matching import Matches, centre_nearness, match, volume_iou
from airside_perception.evaluate.precision import ap40, coco_ap, nuscenes_ap
from airside_perception.evaluate.question import Counts, Question
from airside_perception.evaluate.worst import worst

SIZES = {'car': (4.0, 2.0, 1.5), 'person': (0.6, 0.6, 1.8), 'bus': (12.0, 2.5, 3.0)}


def boxes(items: list[tuple[str, float, float]]) -> np.ndarray:
    return np.array([[x, y, 1.0, *SIZES[n], 0.0] for n, x, y in items], float).reshape(-1, 7)


def frame(
    truth: list[tuple[str, float, float]],
    found: list[tuple[str, float, float, float]],
    conditions: dict[str, str] | None = None,
    **more: object,
) -> Frame:
    places = [(name, x, y) for name, x, y, _ in found]
    return Frame(
        Truth(tuple(n for n, _, _ in truth), boxes(truth), **more),
        Found(tuple(n for n, _, _ in places), boxes(places), np.array([f[3] for f in found])),
        'a frame',
        conditions or {},
    )


def random_frames(count: int = 12, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        names = rng.choice(['car', 'person'], 6)
        truth = [(str(n), *rng.uniform(-60, 60, 2)) for n in names]
        found = [
            (n, x + rng.normal(0, 0.7), y + rng.normal(0, 0.7), float(rng.uniform(0.2, 1)))
            for n, x, y in truth
            if rng.random() < 0.8
        ]
        found += [('car', *rng.uniform(-60, 60, 2), float(rng.uniform(0, 0.7))) for _ in range(2)]
        frames.append(
            frame(truth, found, {'light': 'day' if number % 2 else 'night'},
                  visibility=rng.random(6), points=rng.integers(0, 200, 6))
        )  # fmt: skip
    return frames


def test_figures_are_those_of_the_formulas() -> None:
    frames, classes = random_frames(), ('car', 'person')
    figures = evaluate(frames, Question(classes, {'car': 0.5}))
    near = [one.in_range(0, 80) for one in frames]
    aps = {}
    for item in figures.classes:
        by = [
            nuscenes_ap(match(near, item.name, centre_nearness, -d, inclusive=False))
            for d in (0.5, 1, 2, 4)
        ]
        assert list(item.aps.values()) == by
        assert item.ap == aps.setdefault(item.name, np.mean(by))
        iou = {'car': 0.7, 'person': 0.5}[item.name]
        assert item.ap40 == ap40(match(near, item.name, volume_iou, iou))
    assert figures.mean_ap == pytest.approx(np.mean(list(aps.values())))
    assert 0.2 < figures.mean_ap < 0.95
    both = [match(near, name, centre_nearness, -2.0, inclusive=False) for name in classes]
    scores = np.concatenate([item.scores for item in both])
    hits = np.concatenate([item.hits for item in both])
    assert figures.calibration_error == expected_calibration_error(scores, hits)
    car, person = both
    strong = car.scores >= 0.5
    wanted = Counts(
        car.asked + person.asked,
        int(car.hits[strong].sum() + person.hits.sum()),
        int((~car.hits[strong]).sum() + (~person.hits).sum()),
    )
    assert figures.counts == wanted


def test_parts_add_up_to_the_whole() -> None:
    frames = random_frames(20, seed=1)
    question = Question(('car', 'person'), {'car': 0.5, 'person': 0.4}, ranges=(0, 20, 80))
    figures = evaluate(frames, question)
    whole = figures.counts
    for cells in (*figures.conditions.values(), figures.visibility, figures.points):
        assert sum(cell.counts.asked for cell in cells) == whole.asked
        assert sum(cell.counts.hits for cell in cells) == whole.hits
    assert set(figures.conditions) == {'light'}
    assert [cell.name for cell in figures.conditions['light']] == [
        'day (10 frames)', 'night (10 frames)',
    ]  # fmt: skip
    assert sum(cell.counts.alarms for cell in figures.conditions['light']) == whole.alarms
    assert sum(cell.counts.asked for cell in figures.ranges) == whole.asked
    assert [cell.name for cell in figures.ranges] == ['0-20 m', '20-80 m']
    for cell, (low, high) in zip(figures.ranges, ((0, 20), (20, 80)), strict=True):
        part = [one.in_range(low, high) for one in frames]
        each = [ap40(match(part, name, volume_iou, {'car': 0.7}.get(name, 0.5)))
                for name in question.classes]  # fmt: skip
        assert cell.ap40 == pytest.approx(np.mean(each))
    assert len({cell.ap40 for cell in figures.ranges}) == 2
    assert all(np.isnan(cell.counts.precision) for cell in figures.visibility)


def test_bins_of_what_is_known_of_objects() -> None:
    one = frame(
        [('car', 5, 0), ('car', 15, 0), ('car', 25, 0), ('car', 35, 0)],
        [('car', 5, 0, 0.9), ('car', 25, 0, 0.9), ('car', 35, 0, 0.9)],
        visibility=np.array([0.1, 0.4, 1.0, np.nan]),
        points=np.array([0, 4, 5, -1]),
    )
    figures = evaluate([one], Question(('car',)))
    seen = {cell.name: (cell.counts.asked, cell.counts.hits) for cell in figures.visibility}
    assert seen == {
        '0% to 40%': (1, 1), '40% to 60%': (1, 0), '80% to 100%': (1, 1), 'not known': (1, 1),
    }  # fmt: skip
    points = {cell.name: (cell.counts.asked, cell.counts.hits) for cell in figures.points}
    assert points == {'none': (1, 1), '1 to 4': (1, 0), '5 to 19': (1, 1), 'not known': (1, 1)}
    plain = frame([('car', 5, 0)], [])
    assert evaluate([plain], Question(('car',))).visibility == ()
    assert evaluate([plain], Question(('car',))).points == ()


def test_what_is_far_or_not_asked_for_does_not_count() -> None:
    one = frame(
        [('car', 10, 0), ('car', 90, 0), ('bus', 20, 20), ('car', 30, 0)],
        [('car', 10.1, 0, 0.9), ('car', 90, 0, 0.9), ('bus', 20, 20, 0.9), ('car', 30, 0, 0.8)],
        asked=np.array([True, True, True, False]),
    )
    figures = evaluate([one], Question(('car',)))
    assert figures.counts == Counts(1, 1, 0)
    assert [item.name for item in figures.classes] == ['car']
    assert np.isnan(evaluate([one], Question(('person',))).mean_ap)
    assert evaluate([one], Question(('person',))).people == {}


def test_people_at_one_false_alarm_in_ten_frames() -> None:
    """20 frames allow two: at the third, what scores less does not count."""
    frames = []
    for number in range(20):
        found = [('person', 10.4, 0, 0.5 + number / 100)] if number >= 5 else []
        if number in (6, 7, 8):
            found += [('person', 20, 10, (0.9, 0.8, 0.55)[number - 6])]
        frames.append(frame([('person', 10, 0)], found, points=np.array([3 if number < 4 else 9])))
    people = evaluate(frames, Question(('person',))).people
    # scores 0.55 (frame 5, level with the third alarm) to 0.69: those above 0.55 count
    assert (people['all'].asked, people['enough'].asked) == (20, 16)
    assert people['all'].recall == pytest.approx(14 / 20)
    assert people['all'].score == pytest.approx(0.56)
    assert people['enough'].recall == pytest.approx(14 / 16)


def test_errors_without_velocities_are_not_of_velocities() -> None:
    missed = frame([('car', 10, 0)], [('person', 30, 0, 0.9)])
    errors = evaluate([missed], Question(('car',))).errors
    assert (errors.translation, errors.orientation) == (1.0, 1.0)
    assert np.isnan(errors.velocity)
    found = replace(missed.found, velocities=np.zeros((1, 2)))
    given = replace(missed, found=found)
    assert np.isnan(evaluate([given], Question(('car',))).errors.velocity)  # of nothing true
    truth = replace(missed.truth, velocities=np.zeros((1, 2)))
    assert evaluate([replace(given, truth=truth)], Question(('car',))).errors.velocity == 1.0


def test_a_class_found_once_without_a_velocity_is_not_found() -> None:
    still, nan = np.zeros((1, 2)), np.full((1, 2), np.nan)
    frames = []
    for number in range(40):
        found = [('person', 20.0, 0, 0.9)] if number < 1 else [('car', 10.0, 0, 0.9)]
        each = frame([('car', 10, 0), ('person', 20, 0)], found)
        frames.append(
            replace(
                each,
                truth=replace(each.truth, velocities=np.zeros((2, 2))),
                found=replace(each.found, velocities=still if number else nan),
            )
        )
    scores = evaluate(frames, Question(('car', 'person')))
    assert {item.name: item.errors.velocity for item in scores.classes} == {
        'car': 0.0, 'person': 1.0,
    }  # fmt: skip


def test_the_worst_frames() -> None:
    good = frame([('car', 10, 0)], [('car', 10, 0, 0.9)])
    bad = frame(
        [('car', 10, 0), ('car', 20, 0), ('bus', 30, 0), ('car', 95, 0), ('car', 40, 0)],
        [('car', 20.5, 0, 0.9), ('car', 50, 5, 0.6), ('car', 60, 5, 0.3), ('car', 40, 0, 0.7)],
        asked=np.array([True, True, True, True, False]),
    )
    worse = frame([], [('car', 5 * n + 5, 9, 0.9) for n in range(4)])
    question = Question(('car',), {'car': 0.5})
    found = worst([good, bad, worse], question, 5)
    assert [item.number for item in found] == [2, 1]
    assert [item.mistakes for item in found] == [4, 2]
    second = found[1]
    assert second.missed.tolist() == [True, False, False, False, False]
    assert second.found.tolist() == [False, True, False, False, False]
    assert second.right.tolist() == [True, False, False]
    assert second.wrong.tolist() == [False, True, False]
    assert worst([good], question, 5) == []


def brute_coco(hits: list[bool], asked: int) -> float:
    levels = []
    for step in range(101):
        reached = [
            sum(hits[: n + 1]) / (n + 1)
            for n in range(len(hits))
            if sum(hits[: n + 1]) / asked >= np.linspace(0, 1, 101)[step]
        ]
        levels.append(max(reached, default=0.0))
    return float(np.mean(levels))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20))
def test_coco_ap_is_its_definition(hits: list[bool], missed: int) -> None:
    asked, none = sum(hits) + missed, np.zeros(len(hits), np.int64)
    found = Matches(np.linspace(1, 0, len(hits)), np.array(hits, bool), none, none, none, asked)
    if asked:
        assert coco_ap(found) == pytest.approx(brute_coco(hits, asked), abs=1e-12)
    else:
        assert np.isnan(coco_ap(found))


def test_boxes_in_images() -> None:
    a, b = flat([[0, 0, 10, 20]]), flat([[5, 0, 15, 20], [0, 0, 10, 20]])
    assert image_iou(a, b)[0].tolist() == pytest.approx([1 / 3, 1.0])
    truth = Truth(('car', 'car'), flat([[0, 0, 10, 20], [50, 0, 60, 20]]))
    found = Found(
        ('car', 'car', 'bus'), flat([[0, 0, 10, 20], [50, 0, 60, 28], [0, 0, 1, 1]]),
        np.array([0.9, 0.8, 0.7]),
    )  # fmt: skip
    figures = evaluate_images([Frame(truth, found)], Question(('car', 'bus'), {'car': 0.85}))
    (car,) = figures.classes
    assert (car.ap50, car.counts) == (1.0, Counts(2, 1, 0))
    # 20 / 28 = 0.71: a hit of five of the ten overlaps; with one of two the AP is 51 / 101
    assert car.ap == pytest.approx((5 * 1.0 + 5 * 51 / 101) / 10)
    assert figures.counts == Counts(2, 1, 1)
