"""Where average precision is lost, against hand-computed answers and frames that are mended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.images import flat
from airside_perception.evaluate.precision import coco_ap
from airside_perception.evaluate.question import DISTANCES, average_precisions
from benchmarks.error_figures import (
    Losses,
    above,
    analysed,
    centre_errors,
    confusion,
    missed_by_bin,
    people_mistakes,
)
from benchmarks.error_spread import FOLDS, error, jackknifed, mean_ap, spread
from benchmarks.error_text import text
from benchmarks.oracle import (
    KINDS,
    by_distance,
    by_overlap,
    centre_inside,
    mistakes,
    precisions,
    repaired,
)

SIZES = {'car': (4.2, 1.8, 1.5), 'person': (0.6, 0.6, 1.8), 'bus': (12.0, 2.5, 3.0)}
NAMES = ('car', 'person', 'bus')
HALF = 51 / 101
"""COCO's AP of the first of two objects, found without a false alarm before it."""


def frame(truth, found):
    """Objects (class, x, y[, asked]) and detections (class, x, y, score)."""
    there = [(*row, True)[:4] for row in truth]
    boxes = [[x, y, 1.0, *SIZES[name], 0.0] for name, x, y, _ in there]
    seen = [[x, y, 1.0, *SIZES[name], 0.0] for name, x, y, _ in found]
    return Frame(
        Truth(
            tuple(row[0] for row in there), np.reshape(boxes, (-1, 7)),
            asked=np.array([row[3] for row in there], bool),
        ),
        Found(
            tuple(row[0] for row in found), np.reshape(seen, (-1, 7)),
            np.array([row[3] for row in found], float),
        ),
    )  # fmt: skip


CARS = [('car', 10, 0), ('car', 30, 0)]
ONE = ('car', 10, 0.2, 0.9)
CASES = {
    # kind: (objects, detections, mean AP before, after)
    'place': (CARS, [ONE, ('car', 30, 1.5, 0.95)], HALF / 2, 1.0),
    'class': (CARS, [ONE, ('person', 30, 0.2, 0.95)], HALF, 1.0),
    'far': ([('bus', 10, 0), ('bus', 40, 0)], [('bus', 10, 0, 0.9), ('bus', 45, 0, 0.95)],
            HALF / 2, 1.0),
    'duplicate': (CARS, [ONE, ('car', 10, 0.5, 0.8), ('car', 30, 0, 0.5)],
                  (51 + 50 * 2 / 3) / 101, 1.0),
    'second name': ([('car', 10, 0), ('person', 50, 0)],
                    [ONE, ('person', 10, 0.1, 0.8), ('person', 50, 0, 0.5)], 0.75, 1.0),
    'both': ([('car', 10, 0), ('person', 50, 0)],
             [ONE, ('person', 10, 1.5, 0.8), ('person', 50, 0, 0.5)], 0.75, 1.0),
    'unseen': ([('car', 10, 0), ('person', 50, 0), ('car', 60, 0, False)],
               [ONE, ('person', 60, 0, 0.8), ('person', 50, 0, 0.5)], 0.75, 1.0),
    'background': (CARS, [ONE, ('car', 30, 20, 0.95), ('car', 30, 0, 0.5)],
                   (51 * 2 / 3 + 50 * 2 / 3) / 101, 1.0),
    'missed': (CARS, [ONE], HALF, 1.0),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_by_hand(kind):
    """Each scene holds one kind of mistake; without it nothing is wrong."""
    objects, detections, before, after = CASES[kind]
    ruler = replace(by_distance(1.0), precision=coco_ap)
    judged = mistakes([frame(objects, detections)], NAMES, ruler)
    found = {k for item in judged.values() for k in item.kinds if k}
    found |= {'missed' for item in judged.values() if item.missed}
    assert found == {kind}
    asked = {name: item.found.asked for name, item in judged.items()}
    plain = precisions(repaired(judged, ()), asked, ruler)
    assert plain.mean() == pytest.approx(before)
    for other in KINDS:
        changed = precisions(repaired(judged, [other]), asked, ruler).mean()
        assert changed == pytest.approx(after if other == kind else before)


def test_what_is_near_depends_on_the_ruler():
    """3 m off: another place at 2 m, a find at 4 m, and nothing known of at 0.5 m."""
    frames = [frame([('person', 10, 0)], [('person', 13, 0, 0.9)])]
    kinds = [mistakes(frames, NAMES, by_distance(d))['person'].kinds for d in (0.5, 2.0, 4.0)]
    assert kinds == [('background',), ('place',), ('',)]


def test_an_object_is_given_back_once_with_its_best_score():
    frames = [frame([('car', 10, 0)], [('car', 11.5, 0, 0.6), ('car', 8.5, 0, 0.9)])]
    judged = mistakes(frames, NAMES, by_distance(1.0))
    assert judged['car'].kinds == ('place', 'place')
    found = repaired(judged, ['place'])['car']
    assert found.scores.tolist() == [0.9]
    assert found.hits.tolist() == [True]


def random_frames(seed=0, count=25):
    """Objects 25 m apart with every kind of mistake around them, scores of their own."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        truth, found = [], []
        for x in (-25, 0, 25):
            for y in (-25, 0, 25):
                name = NAMES[rng.integers(3)]
                if rng.random() < 0.3:
                    found.append((NAMES[rng.integers(3)], x, y, rng.random()))
                    continue
                truth.append((name, x, y, rng.random() < 0.9))
                for _ in range(int(rng.integers(0, 3))):
                    other = name if rng.random() < 0.7 else NAMES[rng.integers(3)]
                    off = rng.normal(0, 1, 2) * rng.choice([0.2, 1.0, 4.0])
                    found.append((other, x + off[0], y + off[1], rng.random()))
        frames.append(frame(truth, found))
    return frames


def plain_map(frames):
    values = [[*average_precisions(frames, name).values()] for name in NAMES]
    return float(np.mean(values))


def losses_of(frames):
    return Losses([(r, mistakes(frames, NAMES, r)) for r in map(by_distance, DISTANCES)])


def test_nothing_taken_away_is_the_plain_evaluation_and_all_is_everything():
    frames = random_frames()
    losses = losses_of(frames)
    assert losses.whole == pytest.approx(plain_map(frames), abs=1e-12)
    assert losses.whole + losses.gain(KINDS) == pytest.approx(1.0, abs=1e-12)
    turn = losses.in_turn()
    assert tuple(turn) == KINDS
    assert sum(turn.values()) == pytest.approx(1 - losses.whole, abs=1e-12)
    assert all(losses.gain([kind]) > 0 for kind in ('place', 'class', 'missed', 'background'))


@pytest.mark.parametrize('reach', DISTANCES)
def test_mended_frames_give_what_the_oracle_says(reach):
    """Detections that are moved, renamed or erased in the frames themselves, judged anew."""
    frames = random_frames(1)
    ruler = by_distance(reach)
    judged = mistakes(frames, NAMES, ruler)
    asked = {name: item.found.asked for name, item in judged.items()}

    def judged_anew(kinds):
        best = {}
        for item in judged.values():
            places = zip(item.kinds, item.targets, item.found.frames, item.found.rows,
                         item.found.scores, strict=True)  # fmt: skip
            for kind, target, f, row, score in places:
                if kind in kinds:
                    claim = (score, int(f), int(row))
                    key = target if target[0] >= 0 else (-1, int(f), int(row))
                    best.setdefault(key, []).append(claim)
        mended = [(list(f.found.classes), f.found.boxes.copy(), f.found.scores) for f in frames]
        gone = [set() for _ in frames]
        for key, claims in best.items():
            _, f, row = max(claims)
            gone[f] |= {r for _, _, r in claims}
            if len(key) == 2:
                gone[f] -= {row}
                mended[f][0][row] = frames[f].truth.classes[key[1]]
                mended[f][1][row, :2] = frames[f].truth.boxes[key[1], :2]
        changed = []
        for old, (names, boxes, scores), away in zip(frames, mended, gone, strict=True):
            kept = [row for row in range(len(names)) if row not in away]
            changed.append(replace(old, found=Found(tuple(names), boxes, scores).select(kept)))
        return [average_precisions(changed, name)[reach] for name in NAMES]

    for kinds in (['place'], ['class'], ['background'], ['duplicate', 'both']):
        mine = precisions(repaired(judged, kinds), asked, ruler)
        np.testing.assert_allclose(mine, judged_anew(kinds), atol=1e-9)


def test_misses_and_false_alarms_can_be_taken_one_by_one():
    """Two of three people are missed, one near and one far; two false alarms, one on a mast."""
    scene = frame(
        [('person', 5, 0), ('person', 20, 0), ('person', 40, 0)],
        [('person', 5, 0, 0.5), ('person', 5, 9, 0.9), ('person', 5, -9, 0.8)],
    )
    known = replace(scene, truth=replace(scene.truth, points=np.array([200, 3, 0])))
    losses = losses_of([known])
    missed = missed_by_bin(losses, [known], flat=False)
    assert {k: (v['missed'], v['asked']) for k, v in missed['range'].items()} == {
        '0 to 15 m': (0, 1), '15 to 30 m': (1, 1), '30 to 50 m': (1, 1),
    }  # fmt: skip
    assert [*missed['points']] == ['0 points', '1 to 4 points', '100 points or more']
    assert [v['missed'] for v in missed['points'].values()] == [1, 1, 0]
    assert missed['range']['0 to 15 m']['cost'] == 0
    assert missed['range']['15 to 30 m']['cost'] > 0
    assert [*missed['visibility']] == ['visible: not known']
    alarms = losses.background([{1: 'mast', 2: 'ground'}])
    assert {k: v['alarms'] for k, v in alarms.items()} == {'mast': 1, 'ground': 1}
    one, both = alarms['mast']['cost'], losses.gain(['background'])
    assert 0 < one < both


def test_people_are_missed_for_their_points_or_for_alarms_before_them():
    """Ten frames, so one alarm is allowed: the second ends it, and what comes after is missed."""
    first = frame(
        [('person', 5, 0), ('person', 20, 0), ('person', 40, 0)],
        [('person', 5, 0, 0.9), ('person', 20, 9, 0.7), ('person', 20, 0, 0.3),
         ('person', 60, 0, 0.95)],
    )  # fmt: skip
    first = replace(first, truth=replace(first.truth, points=np.array([200, 3, 50])))
    second = frame(
        [('person', 6, 0), ('car', 15, 0)], [('person', 6, 0, 0.8), ('person', 15, 0, 0.5)]
    )
    second = replace(second, truth=replace(second.truth, points=np.array([4, 90])))
    frames = [first, second, *[frame([], [])] * 8]
    causes = [{1: 'mast', 3: 'plants'}, *[{}] * 9]
    found = people_mistakes(frames, causes, NAMES)
    assert found == {
        'alarms': {'mast': 1, 'class': 1},
        'found': {'1 to 4 points': 1, '100 points or more': 1},
        'asked': {'1 to 4 points': 2, '100 points or more': 1},
    }


def test_confusion_counts_every_object_and_every_alarm_once():
    frames = [
        frame(
            [('car', 10, 0), ('car', 30, 0), ('bus', 50, 0), ('person', 5, 5), ('car', 70, 0, 0)],
            [
                ('bus', 10.5, 0, 0.9),  # a car under another name ...
                ('car', 10.2, 0, 0.8),  # ... so that its own name comes too late
                ('bus', 55.0, 0, 0.7),  # 5 m off, within the bus
                ('person', 80, 80, 0.6),
                ('car', 70, 0, 0.5),  # not asked for, no alarm
            ],
        )
    ]
    table = confusion(frames, NAMES)
    assert table == {
        'car': {'bus': 1, 'nothing': 1}, 'person': {'nothing': 1}, 'bus': {'bus': 1},
        'nothing': {'car': 1, 'person': 1},
    }  # fmt: skip


def test_errors_of_the_centre_are_in_the_axes_of_the_object():
    """Heading along y: 0.4 m forward, 0.3 m to the left, turned about, half a metre too long."""
    true = np.array([[10, 20, 1, 12, 2.5, 3, np.pi / 2], [40, 0, 1, 12, 2.5, 3, 0]])
    seen = np.array([[9.7, 20.4, 1, 12.5, 2.5, 3, -np.pi / 2]])
    frames = [Frame(Truth(('bus', 'bus'), true), Found(('bus',), seen, np.array([0.9])))]
    found = centre_errors(frames, 'bus')
    assert found['objects'] == 2
    assert found['found'] == 1
    for name, value in {
        'centre': 0.5, 'forward': 0.4, 'along': 0.4, 'across': 0.3, 'length': 0.5, 'wrong way': 1,
        'within the goal': 0,
    }.items():  # fmt: skip
        assert found[name] == pytest.approx(value), name
    assert centre_errors(frames, 'car') == {}


def test_a_centre_is_inside_a_turned_footprint():
    boxes = np.array([[0.0, 5, 0, 1, 1, 1, 0], [5, 0, 0, 1, 1, 1, 0]])
    long = np.array([[0.0, 0, 0, 12, 2, 1, np.pi / 2]])
    assert centre_inside(boxes, long).tolist() == [[True], [False]]


def test_images_are_judged_by_overlap():
    truth = Truth(('car', 'person'), flat(np.array([[0, 0, 100, 50], [200, 0, 220, 60.0]])))
    seen = flat(np.array([[0, 0, 100, 48], [40, 0, 140, 50], [205, 0, 240, 60.0]]))
    found = Found(('car', 'car', 'person'), seen, np.array([0.9, 0.8, 0.7]))
    judged = mistakes([Frame(truth, found)], NAMES, by_overlap())
    assert judged['car'].kinds == ('', 'duplicate')
    assert judged['person'].kinds == ('place',)  # overlap of 15 in 40
    figures = analysed([Frame(truth, found)], [{}], dict.fromkeys(NAMES, 0.75), flat=True)
    assert figures['map'] == pytest.approx((1 + 0) / 2)
    assert figures['at the thresholds'] == figures['map']
    assert figures['alone']['place'] == pytest.approx(0.5)
    assert 'large' not in figures
    assert figures['missed']['height']['48 to 96 px']['asked'] == 2
    assert figures['confused']['car'] == {'car': 1}
    assert figures['confused']['nothing'] == {'car': 1}
    assert figures['confused']['person'] == {'nothing': 1}


def test_thresholds_cut_and_the_text_names_the_largest_loss():
    frames = random_frames(2)
    lowest = {'car': 0.5, 'person': 0.4, 'bus': 0.3}
    kept = above(frames[0], lowest)
    assert len(kept.found) == sum(
        score >= lowest[name]
        for name, score in zip(frames[0].found.classes, frames[0].found.scores, strict=True)
    )
    figures = analysed(frames, [{}] * len(frames), lowest)
    assert figures['at the thresholds'] == pytest.approx(
        plain_map([above(f, lowest) for f in frames])
    )
    shown = text('net.onnx', {'frames': len(frames), **figures})
    worst = max(figures['alone'], key=figures['alone'].get)
    assert f'largest loss: {worst}, {100 * figures["alone"][worst]:.1f} mAP points' in shown
    assert f'mAP {100 * figures["map"]:.1f};' in shown
    assert figures['people to 30 m']['all']['asked'] == sum(
        bool(asked) and name == 'person' and np.hypot(*box[:2]) < 30
        for f in frames
        for name, box, asked in zip(f.truth.classes, f.truth.boxes, f.truth.asked, strict=True)
    )


def test_standard_errors_over_seeds_are_those_of_a_mean():
    """Where every frame has one object and no false alarm, AP is recall r, from 0.1 up.

    nuScenes leaves out recalls below 0.1, so AP = (r - 0.1) / 0.9, and r has the error of a mean.
    """
    rng = np.random.default_rng(0)
    seeds, frames, good = [], [], []
    for seed in range(200):
        found = rng.random() < 0.7
        good.append(found)
        frames.append(frame([('car', 10, 0)], [('car', 10, 0, 0.9)] if found else []))
        seeds.append(seed)
    values = jackknifed(frames, seeds, NAMES, flat=False)
    assert len(values) == FOLDS
    expected = np.std(good) / np.sqrt(len(good)) / 0.9
    # ten groups tell a standard error to about a quarter
    assert error(values) == pytest.approx(expected, rel=0.6)
    figures, more = spread(frames, seeds, dict.fromkeys(NAMES, 0.95), flat=False)
    assert figures['error of map'] == error(values)
    np.testing.assert_array_equal(more['map'], values)
    assert figures['aprons']['at the thresholds'] == 0.0  # nothing reaches the threshold
    apart = [n for n, seed in enumerate(seeds) if seed % 3 == 2]
    street = mean_ap([frames[n] for n in apart], NAMES, flat=False)
    assert figures['streets']['map'] == street
    assert street == pytest.approx((np.mean([good[n] for n in apart]) - 0.1) / 0.9, abs=0.02)
    assert 'aprons alone' in text(
        'a.onnx',
        {'frames': 200, **analysed(frames, [{}] * 200, dict.fromkeys(NAMES, 0.0)), **figures},
    )
