"""Anchor heads decoded by kernels, against their specification."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.card import Anchor, LidarCard
from airside_perception.cuda.frame import BAD_BOX, FRAME, NAN_SCORE
from airside_perception.cuda.suppress import Suppression
from airside_perception.errors import EngineError
from airside_perception.lidar.anchors import AnchorDecoder
from airside_perception.lidar.candidates import Candidates, logits_of
from airside_perception.lidar.gpu_anchors import AnchorKernels

Outputs = dict[str, np.ndarray]
FORMATS = {'fp32': ('linear', np.float32), 'fp16': ('linear', np.float16),
           'hwc8': ('hwc8', np.float16)}  # fmt: skip
NAMES = ('scores', 'boxes', 'directions')
ANCHORS = (
    Anchor(0, 4.0, 1.8, 1.5, 0.75, 0.0),
    Anchor(0, 4.0, 1.8, 1.5, 0.75, np.pi / 2),
    Anchor(1, 0.6, 0.5, 1.8, 0.9, 0.0),
    Anchor(2, 37.6, 35.8, 11.8, 5.1, 1.57),
)


def make_card(rows: int = 12, columns: int = 10, **changes: Any) -> LidarCard:
    """Pillars of 0.32 x 0.4 m around (80, -120), `rows` x `columns` output cells of 2 x 2."""
    x0, y0 = 80.0 - columns * 0.32, -120.0 - rows * 0.4
    values: dict[str, Any] = {
        'limits': (x0, y0, -4.0, x0 + columns * 0.64, y0 + rows * 0.8, 6.0),
        'pillar': (0.32, 0.4),
        'stride': 2,
        'anchors': ANCHORS,
    }
    classes = ('car', 'person', 'aircraft')
    return LidarCard('c', 'small', 'pointpillars', classes, {}, {}, **{**values, **changes})


def with_labels(card: LidarCard, *labels: tuple[int, ...]) -> LidarCard:
    """The card, its anchors scoring these labels."""
    anchors = zip(card.anchors, labels, strict=True)
    return replace(card, anchors=tuple(replace(anchor, labels=own) for anchor, own in anchors))


def random_outputs(card: LidarCard, seed: int = 0, digits: int = 1) -> Outputs:
    """Outputs that float16 holds exactly; logits are rounded, so that many are equal."""
    rng, count = np.random.default_rng(seed), len(card.anchors)
    sizes = {'scores': len(card.scored), 'boxes': count * 7, 'directions': count * 2}
    found = {
        name: rng.normal(size=(1, n, *card.output_grid)).astype(np.float16)
        for name, n in sizes.items()
    }
    found['scores'] = np.round(found['scores'] * 2, digits)
    return {name: value.astype(np.float32) for name, value in found.items()}


def on_device(queue: Any, values: np.ndarray, form: str) -> SimpleNamespace:
    """An output [1, C, H, W] as an engine would leave it; what hwc8 adds is NaN."""
    layout, dtype = FORMATS[form]
    if layout == 'hwc8':
        channels = values.shape[1]
        padded = np.full((*values.shape[2:], -(-channels // 8) * 8), np.nan, dtype)
        padded[..., :channels] = values[0].transpose(1, 2, 0)
        values = padded
    array = queue.upload(np.ascontiguousarray(values.astype(dtype)))
    return SimpleNamespace(address=array.address, layout=layout, dtype=np.dtype(dtype), kept=array)


def decode(
    queue: Any,
    card: LidarCard,
    outputs: Outputs,
    thresholds: list[float],
    most: int = 1000,
    formats: tuple[str, str, str] = ('fp32', 'fp32', 'fp32'),
) -> tuple[Candidates, int, int]:
    """What the kernels find: the best candidates, the number found, flags."""
    tensors = {
        name: on_device(queue, outputs[name], form)
        for name, form in zip(NAMES, formats, strict=True)
    }
    frame = np.zeros(1, FRAME)
    frame['most'], frame['thresholds'] = most, np.inf
    frame['thresholds'][0, : len(thresholds)] = logits_of(thresholds)
    device = queue.upload(frame)
    stage = Suppression(queue, AnchorKernels.capacity(card))
    kernels = AnchorKernels(queue, card, tensors, stage.keys, stage.count, stage.flags)
    kernels.scan(device)
    stage.select(device)
    kernels.boxes(device, stage.best, stage.chosen, stage.boxes)
    n = int(queue.download(stage.chosen)[0])
    rows = queue.download(stage.boxes)[:n].astype(np.float64)
    labels = (queue.download(stage.best)[:n] & np.uint64(127)).astype(np.int64)
    found = Candidates(rows[:, :7], rows[:, 7], labels)
    return found, int(queue.download(stage.count)[0]), int(queue.download(stage.flags)[0])


def check(
    queue: Any,
    card: LidarCard,
    outputs: Outputs,
    thresholds: list[float],
    most: int = 1000,
    formats: tuple[str, str, str] = ('fp32', 'fp32', 'fp32'),
) -> int:
    """How many candidates there are."""
    expected = AnchorDecoder(card).decode(outputs, thresholds, most)
    found, total, flags = decode(queue, card, outputs, thresholds, most, formats)
    assert flags == 0
    assert total == len(AnchorDecoder(card).decode(outputs, thresholds, 10**6))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
    boxes, truth = found.boxes, expected.boxes
    np.testing.assert_allclose(boxes[:, :3], truth[:, :3], atol=1e-5)
    np.testing.assert_allclose(boxes[:, 3:6], truth[:, 3:6], rtol=1e-6)
    assert ((boxes[:, 6] >= -np.pi) & (boxes[:, 6] < np.pi)).all()
    turn = (boxes[:, 6] - truth[:, 6] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turn, 0.0, atol=1e-6)
    return total


@pytest.mark.parametrize(('grid', 'formats'), [
    ((12, 10), ('fp32', 'fp32', 'fp32')),  # so many cells that vectors are loaded
    ((12, 10), ('fp16', 'hwc8', 'fp16')),
    ((12, 10), ('hwc8', 'hwc8', 'hwc8')),
    ((7, 4), ('fp16', 'fp32', 'hwc8')),
    ((3, 5), ('fp32', 'fp16', 'fp32')),
    ((1, 1), ('hwc8', 'fp16', 'fp16')),
])  # fmt: skip
def test_layouts(queue: Any, grid: tuple[int, int], formats: tuple[str, str, str]) -> None:
    card = make_card(*grid)
    for seed in range(3):
        check(queue, card, random_outputs(card, seed), [0.3, 0.6, 0.8], formats=formats)


@pytest.mark.parametrize('places', ['cells', 'borders'])
@pytest.mark.parametrize('offset', [0.0, 0.78539, -1.5])
@pytest.mark.parametrize('most', [1, 5, 1000])
def test_boxes(queue: Any, most: int, offset: float, places: str) -> None:
    card = make_card(direction_offset=offset, anchor_places=places)
    assert check(queue, card, random_outputs(card, 4), [0.3, 0.6, 0.5], most) > 100


@pytest.mark.parametrize('thresholds', [[0.3, 0.6, 0.1], [0.9999, 0.2, 0.5], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize(('form', 'labels'), [
    ('fp32', ((2, 0, 1), (1,), (0, 2), (2, 1))),
    ('hwc8', ((2, 0, 1), (1,), (0, 2), (2, 1))),
    ('fp16', ((0,), (0,), (1,), (2,))),
    ('hwc8', ((2, 1, 0),) * 4),
])  # fmt: skip
def test_anchors_that_score_some_labels(
    queue: Any, form: str, thresholds: list[float], labels: tuple[tuple[int, ...], ...]
) -> None:
    """With logits of few values: the first label counts, whatever the order of the channels."""
    card = with_labels(make_card(), *labels)
    check(queue, card, random_outputs(card, 2, digits=0), thresholds, formats=(form,) * 3)


@pytest.mark.parametrize('form', ['fp32', 'hwc8'])
def test_a_threshold_of_one_is_reached_by_nothing(queue: Any, form: str) -> None:
    card = make_card()
    outputs = random_outputs(card)
    outputs['scores'][0, 1::3] = np.inf  # a label that is dropped hides no other
    found, total, flags = decode(queue, card, outputs, [0.3, 1.0, 1.0], formats=(form,) * 3)
    outputs['scores'][0, 1::3] = -20.0
    expected = AnchorDecoder(card).decode(outputs, [0.3, 1.0, 1.0], 1000)
    assert total == len(expected) > 20
    assert flags == 0
    np.testing.assert_array_equal(found.labels, 0)
    np.testing.assert_allclose(found.boxes[:, :6], expected.boxes[:, :6], rtol=1e-6, atol=1e-5)


def test_zeros_are_equal(queue: Any) -> None:
    card = make_card()
    outputs = random_outputs(card, 3, digits=0)
    outputs['scores'] = np.where(np.arange(10) % 3 == 0, np.float32(-0.0), outputs['scores'] * 0)
    assert check(queue, card, outputs, [0.5, 0.5, 0.5], 50) == AnchorKernels.capacity(card)


@pytest.mark.parametrize('turn', [0.0, 1e-7, -1e-7, 1e-3, -1e-3, 1.5707963, -1.5707963, 9.0])
@pytest.mark.parametrize('offset', [0.0, 0.78539])
def test_half_circles_begin_where_the_specification_says(
    queue: Any, offset: float, turn: float
) -> None:
    card = make_card(direction_offset=offset)
    outputs = random_outputs(card, 5)
    outputs['boxes'][0, 6::7] = np.float32(turn)
    outputs['directions'][0, :, ::3] = 0.0  # equal: the first
    check(queue, card, outputs, [0.2, 0.2, 0.2])


@pytest.mark.parametrize('form', ['fp32', 'hwc8'])
def test_nothing_found(queue: Any, form: str) -> None:
    card = make_card()
    outputs = {name: value * 0 - 9 for name, value in random_outputs(card).items()}
    assert check(queue, card, outputs, [0.3, 0.3, 0.3], formats=(form,) * 3) == 0


@pytest.mark.parametrize('form', ['fp32', 'hwc8'])
@pytest.mark.parametrize('channel', [0, 11])
def test_scores_that_are_no_numbers_are_flagged(queue: Any, channel: int, form: str) -> None:
    card = make_card()
    outputs = random_outputs(card)
    outputs['scores'][0, channel, 11, 9] = np.nan
    assert decode(queue, card, outputs, [0.9] * 3, formats=(form,) * 3)[2] == NAN_SCORE


@pytest.mark.parametrize('value', [np.nan, np.inf, 100.0])
@pytest.mark.parametrize('entry', [0, 2, 3, 6])
def test_boxes_that_are_no_numbers_are_flagged(queue: Any, entry: int, value: float) -> None:
    card = make_card()
    outputs = random_outputs(card)
    outputs['scores'][...] = -9
    outputs['scores'][0, 4, 3, 3] = 2.0  # anchor 1
    assert decode(queue, card, outputs, [0.5] * 3)[1:] == (1, 0)
    outputs['boxes'][0, entry, 3, 3] = value  # of anchor 0: nobody looks at it
    assert decode(queue, card, outputs, [0.5] * 3)[1:] == (1, 0)
    outputs['boxes'][0, 7 + entry, 3, 3] = value
    overflows = value != 100.0 or entry == 3  # exp(100) m
    assert decode(queue, card, outputs, [0.5] * 3)[1:] == (1, BAD_BOX * overflows)


def test_a_network_of_full_size(queue: Any) -> None:
    """KITTI's: 248 x 216 cells, six anchors of three labels."""
    anchors = [Anchor(k, 1 + k, 0.6, 1.7, -1.0, yaw) for k in range(3) for yaw in (0.0, 1.57)]
    card = make_card(248, 216, anchors=tuple(anchors), direction_offset=0.78539)
    outputs = random_outputs(card, 6, digits=2)
    check(queue, card, outputs, [0.9997, 0.9997, 0.9997], formats=('hwc8',) * 3)


def test_refusals(queue: Any) -> None:
    card = make_card()
    tensors = {n: on_device(queue, v, 'fp32') for n, v in random_outputs(card).items()}
    with pytest.raises(EngineError, match='no anchors: architecture pointpillars'):
        AnchorKernels(queue, make_card(anchors=()), tensors, None, None, None)
    tensors['boxes'].layout = 'chw32'
    with pytest.raises(EngineError, match=r"output 'boxes' is float32 in the layout 'chw32'"):
        AnchorKernels(queue, card, tensors, None, None, None)
    huge = make_card(3000, 3000)
    with pytest.raises(EngineError, match='36000000 anchors in all'):
        AnchorKernels(queue, huge, tensors, None, None, None)
