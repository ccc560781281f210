"""Suppression on the device keeps what overlap.nms_bev keeps, in that order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airside_perception.cuda.frame import BAD_BOX, FRAME, MOST_ROWS, NAN_SCORE
from airside_perception.cuda.suppress import MOST, Suppression, key_of, rows_of
from airside_perception.overlap import nms_bev


class Case:
    """Boxes [n, 7], best first, with labels [n] and the group of every label."""

    def __init__(self, boxes: np.ndarray, labels: Any = 0, groups: Any = None) -> None:
        self.boxes = np.asarray(boxes, np.float32).reshape(-1, 7)
        self.labels = np.broadcast_to(labels, len(self.boxes)).astype(np.int64)
        self.groups = np.arange(128) if groups is None else np.asarray(groups)
        self.scores = np.linspace(0.99, 0.01, len(self.boxes)).astype(np.float32)

    def run(self, queue: Any, iou: float, across: float, limit: int = MOST_ROWS) -> np.ndarray:
        """The result block."""
        n, frame = len(self.boxes), np.zeros(1, FRAME)
        frame['nms_iou'], frame['nms_iou_across'], frame['max_detections'] = iou, across, limit
        frame['most'] = max(n, 1)
        frame['groups'][0, : len(self.groups)] = self.groups
        stage = Suppression(queue, max(n, 1))
        keys = key_of(self.scores, np.arange(n), self.labels)
        rows = np.concatenate([self.boxes, self.scores[:, None]], axis=1)
        if n:
            stage.keys = queue.upload(np.random.default_rng(n).permutation(keys))
            stage.boxes = queue.upload(rows)
        stage.count = queue.upload(np.array([n], np.uint32))
        device = queue.upload(frame)
        stage.select(device)
        stage.suppress(device)
        assert queue.download(stage.count)[0] == 0
        return queue.download(stage.result)[0]

    def expected(self, iou: float, across: float) -> np.ndarray:
        """Indices that the specification keeps."""
        boxes, groups = self.boxes.astype(np.float64), self.groups[self.labels]
        within, between = float(np.float32(iou)), float(np.float32(max(iou, across)))
        kept = nms_bev(boxes, self.scores, within, groups)
        return kept[nms_bev(boxes[kept], self.scores[kept], between)]

    def check(self, queue: Any, iou: float, across: float = 1.0, limit: int = MOST_ROWS) -> int:
        """How many are kept."""
        block, kept = self.run(queue, iou, across, limit), self.expected(iou, across)
        chosen = kept[:limit][:MOST_ROWS]
        rows = rows_of(block)
        np.testing.assert_array_equal(rows[:, :7], self.boxes[chosen])
        np.testing.assert_array_equal(rows[:, 7], self.scores[chosen])
        np.testing.assert_array_equal(rows[:, 8], self.labels[chosen])
        assert block['considered'] == block['candidates'] == len(self.boxes)
        assert block['flags'] == block['in_range'] == block['pillars'] == 0
        return len(kept)


def scattered(n: int, seed: int = 0, objects: int = 12) -> np.ndarray:
    """Clusters of similar boxes, as a network puts them out."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, objects, n)
    places, sizes = rng.uniform(-60, 60, (objects, 2)), rng.choice([0.6, 1.8, 4.5, 40.0], objects)
    boxes = np.ones((n, 7))
    boxes[:, :2] = places[own] + rng.normal(size=(n, 2)) * sizes[own, None] * 0.2
    boxes[:, 3] = sizes[own] * rng.uniform(0.8, 1.2, n)
    boxes[:, 4] = sizes[own] * rng.uniform(0.3, 1.0, n)
    boxes[:, 6] = rng.uniform(-np.pi, np.pi, objects)[own] + rng.normal(size=n) * 0.2
    return boxes


def row(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> list[float]:
    return [x, y, 0.0, length, width, 1.0, yaw]


@pytest.mark.parametrize('n', [0, 1, 2, 63, 64, 65, 130, 700, 1800])
@pytest.mark.parametrize('iou', [0.0, 0.1, 0.5])
def test_one_group(queue: Any, n: int, iou: float) -> None:
    Case(scattered(n, n)).check(queue, iou)


@pytest.mark.parametrize(('iou', 'across'), [(0.1, 0.3), (0.45, 0.8), (0.5, 0.2), (0.0, 0.0)])
@pytest.mark.parametrize('seed', range(3))
def test_groups(queue: Any, iou: float, across: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, groups = rng.choice([0, 1, 2, 5, 127], 600), rng.integers(0, 3, 128)
    case = Case(scattered(600, seed, 30), labels, groups)
    assert 20 < case.check(queue, iou, across) < 300


def test_a_box_suppressed_within_its_group_suppresses_nothing_across(queue: Any) -> None:
    boxes = [row(0, 0, 4, 2), row(0.4, 0, 4, 2), row(1.0, 0, 4, 2)]
    case = Case(boxes, [0, 0, 1])  # the third overlaps the second more than the first
    assert case.check(queue, 0.5, 0.65) == 2
    assert Case(boxes[1:], [0, 1]).check(queue, 0.5, 0.65) == 1
    assert Case(boxes, [0, 1, 2]).check(queue, 0.5, 0.65) == 2  # the second is removed across


def test_one_suppresses_nothing(queue: Any) -> None:
    case = Case(np.tile(row(5, 5, 4, 2, 0.3), (90, 1)))
    assert case.check(queue, 1.0) == 90
    assert case.run(queue, 1.0, 0.2)['pairs'] == 0
    assert case.check(queue, 0.999, 0.2) == 1
    labels = np.arange(90) % 2
    assert Case(case.boxes, labels).check(queue, 0.9, 1.0) == 2


@pytest.mark.parametrize('order', ['along', 'against', 'mixed'])
def test_long_chains(queue: Any, order: str) -> None:
    """Each overlaps the next: every second one goes, and who that is depends on all before."""
    boxes = np.array([row(0.9 * i, 0, 1.4, 1) for i in range(1500)])
    if order == 'mixed':
        boxes = np.random.default_rng(1).permutation(boxes)
    kept = Case(boxes[::-1] if order == 'against' else boxes).check(queue, 0.1, limit=800)
    assert kept == 750 if order != 'mixed' else 500 < kept < 750


def test_long_chains_across_groups(queue: Any) -> None:
    boxes = np.array([row(0.9 * i, 0, 1.4, 1) for i in range(700)])
    assert Case(boxes, np.arange(700) % 4).check(queue, 0.1, 0.1) == 350
    assert Case(boxes, np.arange(700) // 2 % 4).check(queue, 0.1, 0.2) == 350


@pytest.mark.parametrize('n', [64, 730])
@pytest.mark.parametrize('groups', [1, 2])
def test_all_equal(queue: Any, n: int, groups: int) -> None:
    case = Case(np.tile(row(30, -20, 4, 2, 0.7), (n, 1)), np.arange(n) % groups)
    pairs = case.run(queue, 0.3, 0.5)['pairs']
    assert pairs == n * (n - 1) // 2
    assert case.check(queue, 0.3, 0.5) == 1
    assert case.check(queue, 0.3, 1.0) == groups


@pytest.mark.parametrize('across', [0.3, 1.0])
def test_very_many_pairs(queue: Any, across: float) -> None:
    case = Case(scattered(2100, 3, 3), np.arange(2100) % 2)
    assert case.run(queue, 0.0, across)['pairs'] > 260_000
    for iou in (0.0, 0.2, 0.6):
        case.check(queue, iou, across)


def test_many_pairs_in_chains(queue: Any) -> None:
    boxes = np.array([row(0.1 * i, 0, 1.4, 1) for i in range(1800)])
    case = Case(np.random.default_rng(2).permutation(boxes), np.arange(1800) % 3)
    block = case.run(queue, 0.05, 0.05)
    assert block['pairs'] > 20_000
    case.check(queue, 0.05, 0.05)
    case.check(queue, 0.05, 0.4)


@pytest.mark.parametrize('iou', [0.0, 0.1])
def test_boxes_that_touch(queue: Any, iou: float) -> None:
    grid = [row(2 * i, j, 2, 1) for i in range(12) for j in range(12)]
    assert Case(grid).check(queue, iou) == 144
    turned = np.array(grid)
    c, s = np.cos(0.5), np.sin(0.5)
    turned[:, :2] = turned[:, :2] @ np.array([[c, s], [-s, c]])
    turned[:, 6] = 0.5
    turned[:, 3:5] -= 1e-4  # the corners are rounded
    assert Case(turned).check(queue, iou) == 144


def test_degenerate_boxes(queue: Any) -> None:
    boxes = [
        row(0, 0, 80, 70, 0.4), row(3, 3, 0.5, 0.5), row(3, 3, 0.5, 0.5, 0.1),
        row(3, 3, 1e-4, 1e-4), row(3, 3, 1e-4, 1e-4, 0.7), row(5, 5, 0, 0), row(5, 5, 0, 0),
        row(5, 5, 0, 2), row(5, 5, 2, 0), row(9, 9, 20, 1e-3, 0.3), row(9, 9, 20, 1e-3, 0.3),
        row(0, 0, 80, 70, 0.4 + np.pi), row(1, 1, 79, 69, 0.4), row(3, 3, 0.45, 0.45),
    ]  # fmt: skip
    for iou in (0.1, 0.5, 0.9):
        Case(boxes).check(queue, iou)
        Case(boxes[::-1]).check(queue, iou)


@pytest.mark.parametrize('offset', [1000.0, 90000.0])
def test_far_from_the_origin(queue: Any, offset: float) -> None:
    boxes = scattered(300, 8)
    boxes[:, :2] += [offset, -offset]
    Case(boxes).check(queue, 0.2)


def test_as_many_as_can_be(queue: Any) -> None:
    rng = np.random.default_rng(9)
    boxes = scattered(MOST, 9, 2000)
    boxes[:, :2] += rng.integers(0, 8, (MOST, 1)) * 120
    Case(boxes, rng.integers(0, 3, MOST)).check(queue, 0.1, 0.3)


@pytest.mark.parametrize('limit', [0, 1, 20, 100, 5000])
def test_only_the_best_are_put_out(queue: Any, limit: int) -> None:
    boxes = np.array([row(3 * i, 0, 2, 1) for i in range(1100)])
    assert Case(boxes).check(queue, 0.1, limit=limit) == 1100


def test_hidden_boxes_suppress_but_are_not_put_out(queue: Any) -> None:
    case = Case([row(0, 0, 4, 2), row(0.1, 0, 4, 2), row(50, 0, 4, 2)])
    case.scores *= np.float32([-1, 1, 1])
    frame = np.zeros(1, FRAME)
    frame['nms_iou'], frame['nms_iou_across'] = 0.3, 1.0
    frame['max_detections'], frame['most'] = 1, 10
    stage = Suppression(queue, 3)
    stage.keys = queue.upload(key_of(abs(case.scores), np.arange(3), case.labels))
    stage.boxes = queue.upload(np.concatenate([case.boxes, case.scores[:, None]], axis=1))
    stage.count = queue.upload(np.array([3], np.uint32))
    device = queue.upload(frame)
    stage.select(device)
    stage.suppress(device)
    block = queue.download(stage.result)[0]
    np.testing.assert_array_equal(rows_of(block)[:, :7], case.boxes[2:])


def test_boxes_that_are_no_numbers_end(queue: Any) -> None:
    boxes = scattered(300, 4)
    boxes[::7, 0], boxes[::11, 6], boxes[::13, 3] = np.nan, np.inf, np.inf
    assert Case(boxes).run(queue, 0.2, 0.3)['count'] <= 300


def test_counts_and_flags_come_back_once(queue: Any) -> None:
    frame = np.zeros(1, FRAME)
    frame['most'] = 10
    device, stage = queue.upload(frame), Suppression(queue, 5)
    stage.flags = queue.upload(np.array([NAN_SCORE | BAD_BOX], np.uint32))
    totals = queue.upload(np.array([3, 4, 5, 6], np.int32))
    stage.select(device)
    stage.suppress(device, totals)
    first = queue.download(stage.result)[0]
    assert (first['flags'], first['pillars'], first['in_range']) == (NAN_SCORE | BAD_BOX, 4, 5)
    stage.select(device)
    stage.suppress(device)
    second = queue.download(stage.result)[0]
    assert (second['flags'], second['pillars'], second['in_range']) == (0, 0, 0)


def test_twice_the_same_bytes(queue: Any) -> None:
    case = Case(scattered(900, 5), np.arange(900) % 3)
    blocks = [case.run(queue, 0.1, 0.3) for _ in range(3)]
    assert blocks[0]['count'] > 5
    assert len({rows_of(block).tobytes() for block in blocks}) == 1
