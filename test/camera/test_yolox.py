"""The decoder against a slow loop over cells that follows the paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.camera.yolox import YoloxDecoder
from airside_perception.card import CameraCard
from airside_perception.errors import CardError, EngineError

Cards = Callable[..., CameraCard]


def slow_decode(
    card: CameraCard, output: np.ndarray, thresholds: list[float], limit: int
) -> list[tuple[float, int, tuple[float, ...]]]:
    """(score, published class, box), best first, cell by cell in double precision."""

    def probability(value: float) -> float:
        return float(value) if card.activated else 1.0 / (1.0 + math.exp(-float(value)))

    found, row = [], 0
    for stride in card.strides:
        for y in range(card.height // stride):
            for x in range(card.width // stride):
                dx, dy, w, h, objectness, *classes = map(float, output[0, row])
                best, name = -1.0, ''
                for label, score in enumerate(classes):
                    if card.published_name(label) and probability(score) > best:
                        best, name = probability(score), card.published_name(label)
                score = probability(objectness) * best
                index = card.published.index(name)
                if score >= thresholds[index]:
                    cx, cy = (dx + x) * stride, (dy + y) * stride
                    half_w, half_h = math.exp(w) * stride / 2, math.exp(h) * stride / 2
                    box = (cx - half_w, cy - half_h, cx + half_w, cy + half_h)
                    found.append((score, index, box))
                row += 1
    return sorted(found, key=lambda item: -item[0])[:limit]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3), columns=st.integers(1, 4),
    strides=st.sampled_from([(8,), (8, 16), (8, 16, 32), (16, 4)]),
    activated=st.booleans(), publish_all=st.booleans(), seed=st.integers(0, 10_000),
    thresholds=st.lists(st.floats(0.0, 0.9), min_size=4, max_size=4),
    limit=st.sampled_from([1, 5, 1000]),
)  # fmt: skip
def test_decodes_as_the_slow_loop(
    rows: int, columns: int, strides: tuple[int, ...], activated: bool, publish_all: bool,
    seed: int, thresholds: list[float], limit: int,
) -> None:  # fmt: skip
    publish = {} if publish_all else {'a': 'one', 'c': 'two', 'd': 'one'}
    card = CameraCard(
        '', 'tiny', 'yolox', ('a', 'b', 'c', 'd'), publish, {},
        height=32 * rows, width=32 * columns, strides=strides, activated=activated,
    )  # fmt: skip
    decoder = YoloxDecoder(card)
    rng = np.random.default_rng(seed)
    output = rng.normal(0.0, 1.0, decoder.shape).astype(np.float32)
    if activated:
        output[..., 4:] = rng.uniform(0.0, 1.0, output[..., 4:].shape)
    else:
        output[..., 4:] *= 3
    limits = thresholds[: len(card.published)]
    found = decoder(output, np.array(limits), limit)
    expected = slow_decode(card, output, limits, limit)
    assert len(found.scores) == len(expected)
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-12)
    assert found.classes.tolist() == [index for _, index, _ in expected]
    boxes = np.array([box for _, _, box in expected]).reshape(-1, 4)
    np.testing.assert_allclose(found.xyxy, boxes, rtol=1e-12, atol=1e-9)


def test_an_image_in_which_nothing_is(make_card: Cards, cells: np.ndarray) -> None:
    found = YoloxDecoder(make_card())(cells[None], np.full(3, 0.3), 100)
    assert (found.xyxy.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))


def test_a_dropped_class_hides_no_published_one(make_card: Cards, cells: np.ndarray) -> None:
    cells[7] = [0, 0, 0, 0, 1.0, 0.1, 0.9, 0.6, 0.2]  # person, cat (dropped), car, train
    found = YoloxDecoder(make_card())(cells[None], np.full(3, 0.3), 100)
    assert found.classes.tolist() == [1]  # car
    assert found.scores == pytest.approx([0.6])


def test_equal_scores_keep_the_order_of_the_cells(make_card: Cards, cells: np.ndarray) -> None:
    cells[[50, 3, 99], 4] = 1.0
    cells[[50, 3, 99], 5] = 0.5
    found = YoloxDecoder(make_card())(cells[None], np.full(3, 0.3), 100)
    assert found.xyxy[:, 0].tolist() == [3 * 8 - 4, 2 * 8 - 4, 3 * 16 - 8]


def test_half_precision_output(make_card: Cards, cells: np.ndarray) -> None:
    cells[30] = [0.5, 0.25, 1.0, 0.5, 0.75, 0.5, 0, 0, 0]
    decoder = YoloxDecoder(make_card())
    wide = decoder(cells[None], np.full(3, 0.3), 10)
    half = decoder(cells[None].astype(np.float16), np.full(3, 0.3), 10)
    assert wide.xyxy.dtype == half.xyxy.dtype == np.float64
    np.testing.assert_array_equal(wide.xyxy, half.xyxy)


@pytest.mark.parametrize(
    ('column', 'value'),
    [(4, np.nan), (4, np.inf), (0, np.nan), (2, np.inf), (3, 1e4), (5, np.nan)],
)
def test_numbers_that_are_none_are_an_error(
    make_card: Cards, cells: np.ndarray, column: int, value: float
) -> None:
    cells[20, 4:6] = 0.9
    cells[20, column] = value
    with pytest.raises(EngineError, match='tiny: the output is not finite'):
        YoloxDecoder(make_card())(cells[None], np.full(3, 0.3), 10)


def test_an_output_of_another_size_is_an_error(make_card: Cards) -> None:
    with pytest.raises(EngineError, match=r'output \[1, 100, 9\], expected \[1, 120, 9\]'):
        YoloxDecoder(make_card())(np.zeros((1, 100, 9), np.float32), np.full(3, 0.3), 10)


def test_a_card_must_publish_something(make_card: Cards) -> None:
    with pytest.raises(CardError, match='publishes none of its 4 classes'):
        YoloxDecoder(make_card(publish={'cat': ''}))
