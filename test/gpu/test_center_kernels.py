"""Centre heads decoded by kernels, against their specification."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.card import CenterHead, LidarCard
from airside_perception.cuda.frame import BAD_BOX, FRAME, LABELS, NAN_SCORE
from airside_perception.cuda.suppress import Suppression, rows_of
from airside_perception.errors import EngineError
from airside_perception.lidar.candidates import Candidates, logits_of
from airside_perception.lidar.centers import CenterDecoder
from airside_perception.lidar.gpu_centers import CenterKernels
from airside_perception.overlap import nms_bev

Outputs = dict[str, np.ndarray]
FORMATS = {'fp32': ('linear', np.float32), 'fp16': ('linear', np.float16),
           'hwc8': ('hwc8', np.float16)}  # fmt: skip


def make_card(
    labels: int = 3, rows: int = 24, columns: int = 20, stride: int = 1, **head: Any
) -> LidarCard:
    """Pillars of 0.32 x 0.4 m around (50, -30), `rows` x `columns` output cells."""
    x0, y0 = 50.0 - columns * stride * 0.16, -30.0 - rows * stride * 0.2
    return LidarCard(
        'c', 'small', 'centerpoint', tuple(f'class {n}' for n in range(labels)), {}, {},
        limits=(x0, y0, -4.0, x0 + columns * stride * 0.32, y0 + rows * stride * 0.4, 6.0),
        pillar=(0.32, 0.4), stride=stride, centers=CenterHead(**head),
    )  # fmt: skip


def random_outputs(card: LidarCard, seed: int = 0, digits: int = 1) -> Outputs:
    """Outputs that float16 holds exactly; logits are rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    found = {
        name: rng.normal(size=(1, channels, *card.output_grid)).astype(np.float16)
        for name, channels in card.outputs.items()
    }
    found['heatmap'] = np.round(found['heatmap'] * 2, digits)
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
    most: int = 512,
    formats: tuple[str, ...] = ('fp32',) * 6,
) -> tuple[Candidates, int, int]:
    """What the kernels find, sorted on the host: candidates, number found, flags."""
    tensors = {
        name: on_device(queue, outputs[name], form)
        for name, form in zip(card.outputs, formats, strict=False)
    }
    frame = np.zeros(1, FRAME)
    frame['thresholds'] = np.inf
    frame['thresholds'][0, : len(thresholds)] = logits_of(thresholds)
    frame = queue.upload(frame)
    keys = queue.alloc(CenterKernels.capacity(card), np.uint64)
    count, flags = queue.upload(np.zeros(1, np.uint32)), queue.upload(np.zeros(1, np.uint32))
    kernels = CenterKernels(queue, card, tensors, keys, count, flags)
    kernels.scan(frame)
    total = int(queue.download(count)[0])
    order = np.sort(queue.download(keys)[:total])[::-1][:most]
    best = np.zeros(most, np.uint64)
    best[: len(order)] = order
    found, boxes = len(order), queue.upload(np.full((most, 8), -7.0, np.float32))
    chosen = queue.upload(np.array([found], np.uint32))
    moving = bool(card.centers and card.centers.velocity)
    velocities = queue.upload(np.full((most, 2), -7.0, np.float32)) if moving else None
    kernels.boxes(frame, queue.upload(best), chosen, boxes, velocities)
    rows = queue.download(boxes)
    assert (rows[found:] == -7.0).all()
    speeds = np.empty((0, 2))
    if moving:
        speeds = queue.download(velocities)
        assert (speeds[found:] == -7.0).all()
    labels = (order & np.uint64(LABELS - 1)).astype(np.int64)
    rows = rows[:found].astype(np.float64)
    candidates = Candidates(rows[:, :7], rows[:, 7], labels, speeds[:found])
    return candidates, total, int(queue.download(flags)[0])


def check(
    queue: Any, card: LidarCard, outputs: Outputs, thresholds: list[float], **options: Any
) -> int:
    """Compares kernels and specification; returns how many candidates there were."""
    found, total, flags = decode(queue, card, outputs, thresholds, **options)
    every = CenterDecoder(card).decode(outputs, thresholds, 10**6)
    expected = CenterDecoder(card).decode(outputs, thresholds, options.get('most', 512))
    assert flags == 0
    assert total == len(every)
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-9)
    # cells are farther apart than this: the same places in the same order
    np.testing.assert_allclose(found.boxes[:, :3], expected.boxes[:, :3], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.boxes[:, 3:6], expected.boxes[:, 3:6], rtol=1e-5)
    turn = found.boxes[:, 6] - expected.boxes[:, 6]
    np.testing.assert_allclose(np.cos(turn), 1.0, atol=1e-10)
    np.testing.assert_array_equal(found.velocities, expected.velocities)
    assert (np.abs(found.boxes[:, 6]) <= np.float32(np.pi)).all()
    return total


@pytest.mark.parametrize(
    ('labels', 'columns', 'peaks', 'formats'),
    [
        (3, 20, False, ('fp32',) * 5),
        (3, 20, True, ('fp32',) * 6),
        (3, 20, False, ('fp16',) * 6),
        (5, 19, True, ('fp16',) * 5),  # 7 x 19 is no multiple of 4
        (3, 20, False, ('hwc8',) * 6),
        (11, 8, True, ('hwc8', 'fp32', 'fp32', 'fp16', 'fp16', 'hwc8')),
        (11, 8, False, ('fp32', 'fp16', 'hwc8', 'fp32', 'hwc8', 'fp16')),
    ],
)
def test_agrees_with_the_specification(
    queue: Any, labels: int, columns: int, peaks: bool, formats: tuple[str, ...]
) -> None:
    norms = ((0.5, 0.0, 1.5) * 4)[:labels]
    velocity = 'vel' if len(formats) == 6 else ''
    card = make_card(
        labels, columns=columns, rows=7, peaks=peaks, least_norms=norms, velocity=velocity
    )
    for seed, digits in ((0, 0), (1, 2), (2, 1)):
        outputs = random_outputs(card, seed, digits)
        check(queue, card, outputs, ([0.6, 0.8, 0.4] * 4)[:labels], formats=formats)


@pytest.mark.parametrize('heading', ['x_counterclockwise', 'minus_y_clockwise'])
@pytest.mark.parametrize('rotation_order', ['sin_cos', 'cos_sin'])
@pytest.mark.parametrize('size_order', ['lwh', 'wlh'])
def test_conventions(queue: Any, size_order: str, rotation_order: str, heading: str) -> None:
    card = make_card(
        stride=2, size_order=size_order, rotation_order=rotation_order, heading=heading
    )
    outputs = random_outputs(card)
    around = np.linspace(-np.pi, np.pi, card.output_grid[1])  # all the circle, its ends included
    outputs['rot'][0, :, 0] = np.sin(around), np.cos(around)
    outputs['heatmap'][0, 0, 0] = 9.0
    assert check(queue, card, outputs, [0.7] * 3) > 50


@pytest.mark.parametrize('most', [1, 30])
def test_the_best_of_many(queue: Any, most: int) -> None:
    card = make_card()
    assert check(queue, card, random_outputs(card), [0.0, 0.0, 0.0], most=most) == 24 * 20


def test_a_grid_of_many_blocks(queue: Any) -> None:
    card = make_card(rows=120, columns=92, peaks=True, least_norms=(0.3, 0.0, 0.0))
    thresholds = [0.98, 0.985, 0.99]
    assert 100 < check(queue, card, random_outputs(card, 3, 3), thresholds, most=2048) < 2048


def test_scores_at_their_ends(queue: Any) -> None:
    card = make_card(rows=2, columns=4)
    outputs = random_outputs(card)
    heat = outputs['heatmap'][0]
    heat[:] = -np.inf
    assert check(queue, card, outputs, [0.5, 0.5, 0.5]) == 0
    assert check(queue, card, outputs, [0.5, 0.0, 0.5]) == 8  # all reach 0
    heat[0, 0] = 0.0, -0.0, 0.0, -0.0  # zeros of both signs are equal, also to the threshold
    heat[2, 1] = np.inf, 60000.0, np.inf, 5.0
    assert check(queue, card, outputs, [0.5, 1.0, 0.5]) == 8
    assert check(queue, card, outputs, [0.5, 1.0, 1.0]) == 4  # nothing reaches 1


@pytest.mark.parametrize('form', list(FORMATS))
def test_what_is_not_finite_is_flagged(queue: Any, form: str) -> None:
    card = make_card(rows=4, columns=8, least_norms=(0.5, 0.5, 0.5), velocity='vel')
    plain = random_outputs(card)
    plain['heatmap'][:] = -3.0
    plain['heatmap'][0, 1, 2, 5] = 2.0
    plain['rot'][0, :, 2, 5] = 1.0
    formats = (form,) * 6
    assert decode(queue, card, plain, [0.5] * 3, formats=formats)[1:] == (1, 0)
    for name in [*card.outputs][1:]:
        for value in (np.nan, np.inf) if name != 'dim' else (np.nan, np.inf, 100.0):
            outputs = {key: array.copy() for key, array in plain.items()}
            outputs[name][0, -1, 2, 5] = value
            flags = decode(queue, card, outputs, [0.5] * 3, formats=formats)[2]
            assert flags == BAD_BOX, (name, value)
            with pytest.raises(EngineError, match=f'{name!r} gives a box that is not finite'):
                CenterDecoder(card).decode(outputs, [0.5] * 3, 9)
            outputs['heatmap'][:] = -3.0  # nobody asks for that cell
            assert decode(queue, card, outputs, [0.5] * 3, formats=formats)[1:] == (0, 0)
    plain['heatmap'][0, 2, 3, 7] = np.nan
    assert decode(queue, card, plain, [0.5] * 3, formats=formats)[1:] == (1, NAN_SCORE)


def test_what_cannot_be_read_is_refused(queue: Any) -> None:
    card = make_card(rows=2, columns=4)
    tensors = {
        name: on_device(queue, value, 'fp32') for name, value in random_outputs(card).items()
    }
    tensors['dim'].layout = 'chw32'
    with pytest.raises(EngineError, match="output 'dim' is float32 in the layout 'chw32'"):
        CenterKernels(queue, card, tensors, None, None, None)
    wide = make_card(rows=6000, columns=6000)
    with pytest.raises(EngineError, match='36000000 output cells, at most 33554432'):
        CenterKernels(queue, wide, tensors, None, None, None)
    anchors = LidarCard('c', 'anchors', 'pointpillars', ('car',), {}, {})
    with pytest.raises(EngineError, match='no centre head'):
        CenterKernels(queue, anchors, tensors, None, None, None)


@pytest.mark.parametrize(('most', 'velocity'), [(60, ''), (4096, ''), (60, 'v'), (4096, 'v')])
def test_from_outputs_to_boxes_that_are_published(queue: Any, most: int, velocity: str) -> None:
    """With selection and suppression on the device, as a detector calls them."""
    card = make_card(rows=48, columns=40, least_norms=(0.3, 0.0, 0.3), velocity=velocity)
    outputs = random_outputs(card, seed=4)
    thresholds, groups = [0.9, 0.93, 0.9], np.array([0, 1, 0])
    tensors = {name: on_device(queue, value, 'fp16') for name, value in outputs.items()}
    frame = np.zeros(1, FRAME)
    frame['most'], frame['max_detections'] = most, 100
    frame['nms_iou'], frame['nms_iou_across'] = 0.1, 0.3
    frame['thresholds'] = np.inf
    frame['thresholds'][0, :3], frame['groups'][0, :3] = logits_of(thresholds), groups
    frame = queue.upload(frame)
    suppression = Suppression(queue, CenterKernels.capacity(card), bool(velocity))
    kernels = CenterKernels(
        queue, card, tensors, suppression.keys, suppression.count, suppression.flags
    )
    for _ in range(2):  # the second frame finds nothing of the first
        kernels.scan(frame)
        suppression.select(frame)
        kernels.boxes(
            frame, suppression.best, suppression.chosen, suppression.boxes, suppression.velocities
        )
        suppression.suppress(frame)
        result = queue.download(suppression.result)
    velocities = None
    if velocity:
        result, velocities = result['result'], result['velocities'][0]
    rows = rows_of(result)

    found = CenterDecoder(card).decode(outputs, thresholds, most)
    kept = nms_bev(found.boxes, found.scores, 0.1, groups[found.labels])
    kept = kept[nms_bev(found.boxes[kept], found.scores[kept], 0.3)][:100]
    assert len(found) > len(kept) > 20
    assert int(result['flags'][0]) == 0
    assert rows[:, 8].astype(int).tolist() == found.labels[kept].tolist()
    np.testing.assert_allclose(rows[:, :6], found.boxes[kept][:, :6], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(rows[:, 7], found.scores[kept], rtol=1e-6)
    if velocities is not None:
        np.testing.assert_array_equal(velocities[: len(rows)], found.velocities[kept])
