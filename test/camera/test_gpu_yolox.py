"""Rows of a YOLOX head decoded on the device, against the decoder on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from airside_perception.camera.gpu_yolox import YoloxKernels, lowest_float32
from airside_perception.camera.preprocess import Letterbox
from airside_perception.camera.yolox import YoloxDecoder
from airside_perception.card import CameraCard
from airside_perception.cuda.frame import BAD_BOX, FRAME, LABELS, NAN_SCORE
from airside_perception.cuda.suppress import Suppression
from airside_perception.engine.base import TensorSpec
from airside_perception.engine.buffers import DeviceTensor
from airside_perception.errors import CardError, EngineError

Cards = Callable[..., CameraCard]
SAME = Letterbox(64, 96, 64, 96)
"""An image that is the input of the network."""


class Found(NamedTuple):
    """What the kernels found: best first; flags."""

    boxes: np.ndarray
    scores: np.ndarray
    cells: np.ndarray
    labels: np.ndarray
    visible: np.ndarray
    flags: int


def tensor_of(card: CameraCard, address: int, dtype: Any, layout: str = 'linear') -> Any:
    shape = YoloxDecoder(card).shape
    spec = TensorSpec(card.output_name, shape, np.dtype(dtype))
    return {card.output_name: DeviceTensor(spec, address, layout, shape, 1, 0)}


def decode(
    queue: Any,
    card: CameraCard,
    rows: np.ndarray,
    thresholds: Any,
    most: int = 1000,
    letterbox: Letterbox = SAME,
) -> Found:
    output = queue.upload(rows[None])
    best = Suppression(queue, YoloxKernels.capacity(card))
    tensors = tensor_of(card, output.address, rows.dtype)
    kernels = YoloxKernels(queue, card, tensors, best.keys, best.count, best.flags)
    frame = np.zeros(1, FRAME)
    frame['most'] = most
    frame['thresholds'] = np.inf
    lowest = lowest_float32(np.broadcast_to(np.float64(thresholds), len(card.published)))
    frame['thresholds'][0, : len(lowest)] = lowest
    live = queue.upload(frame)
    kernels.scan(live)
    best.select(live)
    kernels.boxes(best.best, best.chosen, best.boxes, letterbox)
    n = int(queue.download(best.chosen)[0])
    keys, boxes = queue.download(best.best)[:n], queue.download(best.boxes)[:n]
    assert not boxes[:, [2, 5, 6]].any()
    low = keys & np.uint64(0xFFFFFFFF)
    cells = 0x1FFFFFF - (low >> np.uint64(7)).astype(int)
    flags = int(queue.download(best.flags)[0])
    centre, size = boxes[:, :2].astype(np.float64), boxes[:, 3:5].astype(np.float64)
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    labels = (low & np.uint64(127)).astype(int)
    return Found(xyxy, np.abs(boxes[:, 7]), cells, labels, ~np.signbit(boxes[:, 7]), flags)


def rows_of(card: CameraCard, seed: int, spread: float = 2.0) -> np.ndarray:
    """Random rows: logits, or with an activated card probabilities."""
    rng = np.random.default_rng(seed)
    _, cells, values = YoloxDecoder(card).shape
    rows = rng.normal(0, spread, (cells, values))
    rows[:, 2:4] = rng.normal(0, 0.7, (cells, 2))
    if card.activated:
        rows[:, 4:] = 1 / (1 + np.exp(-rows[:, 4:]))
    return rows.astype(np.float32)


def check(
    queue: Any,
    card: CameraCard,
    rows: np.ndarray,
    thresholds: Any,
    most: int = 1000,
    letterbox: Letterbox = SAME,
) -> Found:
    limits = np.broadcast_to(np.float64(thresholds), len(card.published))
    expected = YoloxDecoder(card)(rows[None], limits, most)
    found = decode(queue, card, rows, thresholds, most, letterbox)
    assert found.flags == 0
    np.testing.assert_allclose(found.scores, expected.scores, rtol=3e-7, atol=1e-7)
    assert found.labels.tolist() == expected.classes.tolist()
    xyxy = letterbox.to_image(expected.xyxy)
    np.testing.assert_allclose(found.boxes, xyxy, rtol=1e-6, atol=2e-3)
    clipped = letterbox.clip(xyxy)
    seen = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    assert found.visible.tolist() == seen.tolist()
    return found


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
@pytest.mark.parametrize('activated', [True, False])
def test_random_rows(queue: Any, make_card: Cards, activated: bool, dtype: Any) -> None:
    card = make_card(activated=activated)
    for seed, thresholds in enumerate((0.3, 0.0, (0.5, 0.1, 0.7), 1.0)):
        rows = rows_of(card, seed).astype(dtype)
        found = check(queue, card, rows, thresholds)
        assert (len(found.scores) > 0) == (thresholds != 1.0)
    check(queue, card, rows_of(card, 9).astype(dtype), 0.05, most=7)


@pytest.mark.parametrize('classes', [1, 2, 8, 9, 80, 128])
def test_any_number_of_classes(queue: Any, make_card: Cards, classes: int) -> None:
    names = tuple(f'class_{i}' for i in range(classes))
    card = make_card(classes=names, publish={}, strides=(8, 16, 32), activated=False)
    found = check(queue, card, rows_of(card, classes), 0.2)
    assert len(set(found.labels)) > min(classes, 20) // 2


def test_labels_that_are_dropped_hide_nothing(queue: Any, make_card: Cards) -> None:
    card = make_card(publish={'cat': 'animal', 'train': 'vehicle', 'car': 'vehicle'})
    rows = rows_of(card, 3)
    rows[:, 5] = 1.0  # person, the best class everywhere
    found = check(queue, card, rows, (0.2, 0.3))
    assert set(found.labels) == {0, 1}


def test_equal_scores_are_sorted_by_cell_and_classes_by_label(
    queue: Any, make_card: Cards
) -> None:
    card = make_card(publish={})
    rows = rows_of(card, 0)
    rows[:, 4], rows[:, 5:] = 0.5, 0.25
    rows[::3, 7:] = 0.5
    found = check(queue, card, rows, 0.1, most=100)
    assert (np.diff(found.cells[:40]) > 0).all()
    assert set(found.labels[:40]) == {2}
    assert set(found.labels[40:]) == {0}


def test_a_score_at_its_threshold(queue: Any, make_card: Cards) -> None:
    """float32(0.7) lies below 0.7, float32(0.3) above 0.3."""
    card = make_card()
    rows = rows_of(card, 0)
    rows[:, 4:] = 0.0
    rows[:3, 4] = 1.0
    rows[:3, 5] = 0.7, np.nextafter(np.float32(0.7), np.float32(1)), 0.3
    assert check(queue, card, rows, 0.7).cells.tolist() == [1]
    assert check(queue, card, rows, 0.3).cells.tolist() == [1, 0, 2]
    assert len(check(queue, card, rows, 0.0).cells) == len(rows)


def test_thresholds_in_float32_decide_as_those_in_float64() -> None:
    rng = np.random.default_rng(0)
    thresholds = np.concatenate([rng.uniform(0, 1, 1000), [0.0, 1.0, 0.5, 0.7, 1e-50]])
    lowest = lowest_float32(thresholds)
    assert (lowest >= thresholds).all()
    assert (np.nextafter(lowest, np.float32(-1)) < thresholds).all()


@pytest.mark.parametrize(
    'letterbox',
    [Letterbox(375, 1242, 28, 96), Letterbox(720, 1280, 54, 96, 5, 0), Letterbox(48, 30, 64, 40)],
)
def test_boxes_are_in_pixels_of_the_image(
    queue: Any, make_card: Cards, letterbox: Letterbox
) -> None:
    card = make_card(activated=False)
    found = check(queue, card, rows_of(card, 4), 0.2, letterbox=letterbox)
    assert 0 < found.visible.sum() < len(found.visible)


def test_a_box_at_the_border_of_the_image_shows_nothing_of_it(
    queue: Any, make_card: Cards
) -> None:
    card = make_card(strides=(8,))
    rows = rows_of(card, 0)
    rows[:] = 0.0
    rows[[0, 11], 4:6] = 1.0
    rows[0, :4] = -0.5, 0.5, 0.0, 0.0  # from -8 to 0
    rows[11, :4] = 1.5, 0.5, 0.0, 0.0  # from 96 to 104
    assert check(queue, card, rows, 0.5).visible.tolist() == [False, False]
    rows[[0, 11], 0] += np.float32([1e-6, -1e-6])
    assert check(queue, card, rows, 0.5).visible.tolist() == [True, True]
    rows[0, 2] = -np.inf  # without width
    assert check(queue, card, rows, 0.5).visible.tolist() == [False, True]


@pytest.mark.parametrize('activated', [True, False])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_objectness_that_is_no_number(
    queue: Any, make_card: Cards, activated: bool, value: float
) -> None:
    card = make_card(activated=activated)
    rows = rows_of(card, 1)
    rows[77, 4] = value
    if activated or np.isnan(value):
        with pytest.raises(EngineError, match='not finite'):
            YoloxDecoder(card)(rows[None], np.full(3, 0.2), 1000)
        assert decode(queue, card, rows, 0.2).flags & NAN_SCORE
    else:  # a logit may be infinite
        check(queue, card, rows, 0.2)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_class_scores_that_are_no_numbers(queue: Any, make_card: Cards, value: float) -> None:
    card = make_card()
    rows = rows_of(card, 1)
    rows[:, 4] = 0.9
    rows[::2, 4] = 0.0  # below the threshold, as their best class
    rows[::2, 5] = value
    rows[1::2, 6] = value  # dropped
    check(queue, card, rows, 0.1)
    rows[1, 7] = value
    with pytest.raises(EngineError, match='not finite in boxes'):
        YoloxDecoder(card)(rows[None], np.full(3, 0.1), 1000)
    assert decode(queue, card, rows, 0.1).flags == BAD_BOX


@pytest.mark.parametrize(
    ('column', 'value'),
    [(0, np.nan), (1, np.inf), (1, -np.inf), (2, np.nan), (3, np.inf), (2, 710.0)],
)
def test_boxes_that_are_not_finite(
    queue: Any, make_card: Cards, column: int, value: float
) -> None:
    card = make_card()
    rows = rows_of(card, 1)
    rows[:, 4:] = 0.0
    rows[50, column] = value
    assert decode(queue, card, rows, 0.2).flags == 0  # not above the threshold
    rows[50, 4:] = 0.9
    with pytest.raises(EngineError, match='not finite in boxes'):
        YoloxDecoder(card)(rows[None], np.full(3, 0.2), 1000)
    assert decode(queue, card, rows, 0.2).flags == BAD_BOX


def test_huge_boxes_are_finite_as_on_the_cpu(queue: Any, make_card: Cards) -> None:
    card = make_card(strides=(8,))
    rows = rows_of(card, 0)
    rows[:, 4:] = 0.0
    rows[[3, 4], 4:6] = 0.9
    rows[3, :4] = 0.5, 0.5, 100.0, 700.0
    rows[4, :4] = 1e30, -1e30, 0.0, 0.0
    found = decode(queue, card, rows, 0.5)
    assert found.flags == 0
    assert np.isfinite(found.boxes).all()
    assert SAME.clip(found.boxes)[0].tolist() == [0, 0, 96, 64]
    assert found.visible.tolist() == [True, False]


def test_a_cell_may_have_nothing_but_impossible_classes(queue: Any, make_card: Cards) -> None:
    card = make_card(activated=False)
    rows = rows_of(card, 0)
    rows[:, 4] = 10.0
    rows[:60, 5:] = -np.inf
    found = check(queue, card, rows, 0.0)
    assert found.labels[found.cells < 60].tolist() == [0] * 60


def test_what_a_key_cannot_hold_is_refused(make_card: Cards) -> None:
    names = tuple(f'class_{i}' for i in range(LABELS + 1))
    card = make_card(classes=names, publish={})
    with pytest.raises(CardError, match='129 published classes and 120 cells; the GPU takes 128'):
        YoloxKernels(None, card, tensor_of(card, 0, np.float32), None, None, None)  # type: ignore[arg-type]  # not used
    card = make_card()
    for dtype, layout in ((np.float32, 'hwc8'), (np.float64, 'linear')):
        with pytest.raises(EngineError, match=f'layout {layout}; linear float32 or float16 can'):
            YoloxKernels(None, card, tensor_of(card, 0, dtype, layout), None, None, None)  # type: ignore[arg-type]  # not used
