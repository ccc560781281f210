"""Decoding against a loop over every anchor, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.card import Anchor, LidarCard
from airside_perception.errors import EngineError
from airside_perception.lidar.anchors import AnchorDecoder

MakeCard = Callable[..., LidarCard]
Outputs = dict[str, np.ndarray]


def with_labels(card: LidarCard, *labels: tuple[int, ...]) -> LidarCard:
    """The card, its anchors scoring these labels."""
    anchors = zip(card.anchors, labels, strict=True)
    return replace(card, anchors=tuple(replace(anchor, labels=own) for anchor, own in anchors))


def random_outputs(card: LidarCard, seed: int = 0, digits: int = 2) -> Outputs:
    """Logits are rounded, so that many are equal."""
    rng, (rows, columns) = np.random.default_rng(seed), card.output_grid
    scored = sum(len(anchor.labels or card.classes) for anchor in card.anchors)
    count = len(card.anchors)
    sizes = {'scores': scored, 'boxes': count * 7, 'directions': count * 2}
    shapes = {name: (1, n, rows, columns) for name, n in sizes.items()}
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found['scores'] = np.round(found['scores'] * 2, digits)
    return found


def slow_decode(
    outputs: Outputs, card: LidarCard, thresholds: list[float], most: int
) -> list[tuple[float, int, list[float]]]:
    """(score, label, box) of the best candidates, anchor by anchor."""
    rows, columns = card.output_grid
    x0, y0, _, x1, y1, _ = card.limits
    scores, codes = outputs['scores'][0], outputs['boxes'][0]
    found, first = [], 0
    for index, anchor in enumerate(card.anchors):
        labels = anchor.labels or tuple(range(len(card.classes)))
        for row in range(rows):
            for column in range(columns):
                logits = {k: scores[first + n, row, column] for n, k in enumerate(labels)}
                passing = [k for k in labels if sigmoid(logits[k]) >= thresholds[k]]
                if not passing:
                    continue
                label = max(passing, key=lambda k: (logits[k], -k))
                code = [float(codes[index * 7 + k, row, column]) for k in range(7)]
                front = outputs['directions'][0, index * 2 : index * 2 + 2, row, column]
                if card.anchor_places == 'cells':
                    x = x0 + (column + 0.5) * card.stride * card.pillar[0]
                    y = y0 + (row + 0.5) * card.stride * card.pillar[1]
                else:
                    x = x0 + column * (x1 - x0) / (columns - 1)
                    y = y0 + row * (y1 - y0) / (rows - 1)
                box = [
                    x + code[0] * math.hypot(anchor.length, anchor.width),
                    y + code[1] * math.hypot(anchor.length, anchor.width),
                    anchor.z + code[2] * anchor.height,
                    anchor.length * math.exp(code[3]),
                    anchor.width * math.exp(code[4]),
                    anchor.height * math.exp(code[5]),
                    heading(anchor.yaw + code[6], front[1] > front[0], card.direction_offset),
                ]
                found.append((sigmoid(logits[label]), label, box))
        first += len(labels)
    return sorted(found, key=lambda one: -one[0])[:most]  # stable: equal scores by place


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-float(x)))


def heading(yaw: float, behind: bool, offset: float) -> float:
    """OpenPCDet: limit_period(yaw - offset, 0, pi) + offset + pi * bin."""
    turned = yaw - offset
    turned -= math.floor(turned / math.pi) * math.pi
    return turned + offset + math.pi * behind


def check(card: LidarCard, outputs: Outputs, thresholds: list[float], most: int) -> None:
    found = AnchorDecoder(card).decode(outputs, thresholds, most)
    expected = slow_decode(outputs, card, thresholds, most)
    assert found.labels.tolist() == [label for _, label, _ in expected]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-12)
    boxes = np.array([box for _, _, box in expected]).reshape(-1, 7)
    np.testing.assert_allclose(found.boxes[:, :6], boxes[:, :6], rtol=1e-9, atol=1e-9)
    turn = found.boxes[:, 6] - boxes[:, 6]
    np.testing.assert_allclose(np.cos(turn), 1.0, atol=1e-9)
    assert ((found.boxes[:, 6] >= -np.pi) & (found.boxes[:, 6] < np.pi)).all()


@pytest.mark.parametrize('places', ['cells', 'borders'])
@pytest.mark.parametrize('offset', [0.0, 0.78539, -1.5])
@pytest.mark.parametrize('most', [1, 5, 1000])
def test_agrees_with_the_loop(make_card: MakeCard, most: int, offset: float, places: str) -> None:
    card = make_card(direction_offset=offset, anchor_places=places)
    check(card, random_outputs(card), [0.3, 0.6], most)


CASES = [((0,), (0,), (1,)), ((1,), (0, 1), (0,)), ((), (1, 0), (1,)), ((1, 0), (1, 0), (1, 0))]


@pytest.mark.parametrize('labels', CASES, ids=str)
@pytest.mark.parametrize('thresholds', [[0.3, 0.6], [0.9999, 0.2], [0.0, 0.0]], ids=str)
def test_anchors_that_score_some_labels(
    make_card: MakeCard, thresholds: list[float], labels: tuple[tuple[int, ...], ...]
) -> None:
    card = with_labels(make_card(), *labels)
    for seed in range(3):
        check(card, random_outputs(card, seed, digits=0), thresholds, 1000)


def test_channels_that_never_win_may_be_left_out(make_card: MakeCard) -> None:
    every = make_card()
    some = with_labels(every, (0,), (1,), (1, 0))
    outputs = random_outputs(some)
    filled = np.full((1, 6, *every.output_grid), -20.0, np.float32)
    filled[:, [0, 3, 5, 4]] = outputs['scores']
    a = AnchorDecoder(some).decode(outputs, [0.2, 0.4], 30)
    b = AnchorDecoder(every).decode({**outputs, 'scores': filled}, [0.2, 0.4], 30)
    assert len(a) > 20
    assert set(a.labels.tolist()) == {0, 1}
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.boxes, b.boxes)


@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.tuples(*[st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0])] * 2),
    st.tuples(*[st.sampled_from([(), (0,), (1,), (0, 1), (1, 0)])] * 2),
)
@settings(max_examples=60, deadline=None)
def test_any_outputs(
    seed: int,
    most: int,
    thresholds: tuple[float, float],
    labels: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    card = LidarCard(
        'c', 'c', 'pointpillars', ('car', 'person'), {}, {}, stride=2, pillar=(0.5, 0.5),
        limits=(0.0, -2.0, -1.0, 3.0, 2.0, 3.0), direction_offset=0.5,
        anchors=(Anchor(0, 4.0, 1.8, 1.5, 0.75, 0.3), Anchor(1, 0.6, 0.5, 1.8, 0.9, -2.0)),
    )  # fmt: skip
    card = with_labels(card, *labels)
    check(card, random_outputs(card, seed, digits=0), list(thresholds), most)


def test_the_place_of_a_box(make_card: MakeCard) -> None:
    card = make_card()
    outputs = {name: np.zeros_like(value) for name, value in random_outputs(card).items()}
    outputs['scores'] -= 9.0
    outputs['scores'][0, 2 * 2 + 1, 3, 1] = 4.0  # third anchor, second class, row 3, column 1
    found = AnchorDecoder(card).decode(outputs, [0.5, 0.5], 10)
    np.testing.assert_allclose(found.boxes, [[0.0, 1.2, 0.9, 0.6, 0.5, 1.8, 0.0]], atol=1e-12)
    assert found.labels.tolist() == [1]
    outputs['directions'][0, 2 * 2 + 1, 3, 1] = 1.0  # the other half circle
    found = AnchorDecoder(card).decode(outputs, [0.5, 0.5], 10)
    assert abs(found.boxes[0, 6]) == pytest.approx(np.pi)


def test_a_class_below_its_threshold_does_not_hide_another(make_card: MakeCard) -> None:
    card = make_card()
    outputs = {name: np.zeros_like(value) for name, value in random_outputs(card).items()}
    outputs['scores'] -= 9.0
    outputs['scores'][0, 0, 0, 0], outputs['scores'][0, 1, 0, 0] = 0.5, 0.2  # 0.62 and 0.55
    assert AnchorDecoder(card).decode(outputs, [0.5, 0.5], 9).labels.tolist() == [0]
    assert AnchorDecoder(card).decode(outputs, [0.7, 0.5], 9).labels.tolist() == [1]


def test_half_precision_outputs(make_card: MakeCard) -> None:
    card = make_card()
    half = {name: v.astype(np.float16) for name, v in random_outputs(card).items()}
    single = {name: v.astype(np.float32) for name, v in half.items()}
    a = AnchorDecoder(card).decode(half, [0.4, 0.4], 50)
    b = AnchorDecoder(card).decode(single, [0.4, 0.4], 50)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_exponentials_are_of_dense_values(
    make_card: MakeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy 1.21 rounds those of a column in another way where the result lies just behind it."""
    exp, dense = np.exp, []

    def spy(x: np.ndarray) -> np.ndarray:
        dense.append(x.flags.c_contiguous)
        return exp(x)

    card = make_card()
    monkeypatch.setattr(np, 'exp', spy)
    assert len(AnchorDecoder(card).decode(random_outputs(card), [0.4, 0.4], 50)) > 1
    assert dense == [True] * 4  # three sizes and the sigmoid


def test_a_network_that_puts_out_no_numbers_is_an_error(make_card: MakeCard) -> None:
    card = make_card()
    outputs = random_outputs(card)
    outputs['scores'][0, 3, 2, 1] = np.nan
    with pytest.raises(EngineError, match="'scores' contains NaN"):
        AnchorDecoder(card).decode(outputs, [0.5, 0.5], 10)
    for value in (np.nan, np.inf, 1000.0):
        outputs = random_outputs(card)
        outputs['boxes'][0, 3::7] = value
        with pytest.raises(EngineError, match="'boxes' gives a box that is not finite"):
            AnchorDecoder(card).decode(outputs, [0.5, 0.5], 10)


def test_what_does_not_pass_may_be_anything(make_card: MakeCard) -> None:
    card = make_card()
    outputs = random_outputs(card)
    outputs['boxes'][:] = np.nan
    outputs['scores'][:] = -np.inf
    assert len(AnchorDecoder(card).decode(outputs, [0.0001, 0.5], 10)) == 0
