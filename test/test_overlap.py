"""Overlap and suppression against shapely and plain loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from airside_perception.errors import MessageError
from airside_perception.geometry import bev_corners
from airside_perception.overlap import (
    bev_iou,
    footprint_overlap,
    giou_2d,
    iou_2d,
    nms_2d,
    nms_bev,
)
from airside_perception.types import Float64


def row(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> list[float]:
    return [x, y, 0.0, length, width, 1.0, yaw]


def scene(rng: np.random.Generator, n: int, spread: float) -> Float64:
    boxes = np.zeros((n, 7))
    boxes[:, :2] = rng.uniform(-spread, spread, (n, 2))
    boxes[:, 3:5] = rng.uniform(0.2, 9.0, (n, 2))
    boxes[:, 6] = rng.uniform(-8.0, 8.0, n)
    return boxes


def rectangle(box: Float64) -> tuple[tuple[float, float], tuple[float, float], float]:
    """As OpenCV writes it: centre, size, degrees."""
    x, y, _, length, width, _, yaw = map(float, box)
    return (x, y), (length, width), float(np.degrees(yaw))


def polygon_iou(a: Float64, b: Float64) -> Float64:
    first, second = ([Polygon(c) for c in bev_corners(boxes)] for boxes in (a, b))
    return np.array([[p.intersection(q).area / p.union(q).area for q in second] for p in first])


def greedy(iou: Float64, scores: Float64, limit: float, groups: Float64) -> list[int]:
    """Suppression as it is written in textbooks."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda k: (-scores[k], k)):
        if all(groups[i] != groups[k] or iou[k, i] <= limit for k in kept):
            kept.append(i)
    return kept


def test_footprints_agree_with_polygon_clipping() -> None:
    rng = np.random.default_rng(1)
    a, b = scene(rng, 40, 8.0), scene(rng, 50, 8.0)
    np.testing.assert_allclose(bev_iou(a, b), polygon_iou(a, b), atol=1e-12)


def test_footprints_agree_with_opencv() -> None:
    rng = np.random.default_rng(2)
    a, b = scene(rng, 30, 4.0), scene(rng, 30, 4.0)
    for shared, p, q in zip(footprint_overlap(a, b), a, b, strict=True):
        _, corners = cv2.rotatedRectangleIntersection(rectangle(p), rectangle(q))
        area = 0.0 if corners is None else cv2.contourArea(cv2.convexHull(corners))
        assert shared == pytest.approx(area, abs=0.01)  # float32 inside


@pytest.mark.parametrize(
    ('a', 'b', 'expected'),
    [
        (row(3, 4, 4, 2, 0.3), row(3, 4, 4, 2, 0.3), 1.0),
        (row(3, 4, 4, 2, 0.3), row(3, 4, 4, 2, 0.3 + np.pi), 1.0),
        (row(3, 4, 4, 2, 0.0), row(3, 4, 2, 4, np.pi / 2), 1.0),
        (row(0, 0, 4, 2), row(4, 0, 4, 2), 0.0),
        (row(0, 0, 4, 2), row(4, 2, 4, 2), 0.0),
        (row(0, 0, 4, 2), row(2, 0, 4, 2), 1 / 3),
        (row(0, 0, 4, 4), row(0, 0, 2, 2, np.pi / 4), 0.25),
        (row(0, 0, 2, 2), row(0, 0, 2, 2, np.pi / 4), 1 / np.sqrt(2)),
        (row(0, 0, 8, 0.5), row(0, 0, 0.5, 8), 0.25 / 7.75),
        (row(1e5, -1e5, 4, 2, 1.0), row(1e5, -1e5, 4, 2, 1.0), 1.0),
        (row(0, 0, 1e-4, 1e-4, 0.7), row(0, 0, 1e-4, 1e-4, 0.7), 1.0),
        (row(0, 0, 70, 80), row(9, 9, 1e-3, 1e-3, 0.2), 1e-6 / 5600),
        (row(0, 0, 0, 2), row(0, 0, 4, 2), 0.0),
        (row(0, 0, 0, 0), row(0, 0, 0, 0), 0.0),
    ],
)
def test_footprints_that_need_care(a: list[float], b: list[float], expected: float) -> None:
    first, second = np.array([a]), np.array([b])
    assert bev_iou(first, second)[0, 0] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert bev_iou(second, first)[0, 0] == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.01, 30), st.floats(0.01, 30), st.data())
@settings(max_examples=100, deadline=None)
def test_overlap_lies_between_nothing_and_the_smaller_box(
    x: float, y: float, length: float, width: float, data: st.DataObject
) -> None:
    yaw = data.draw(st.one_of(st.floats(-7, 7), st.sampled_from([0.0, np.pi / 2, 1e-13, -np.pi])))
    a = np.array([row(0, 0, 4, 2)])
    b = np.array([row(x, y, length, width, yaw)])
    shared = footprint_overlap(a, b)[0]
    assert 0.0 <= shared <= min(8.0, length * width)
    assert shared == pytest.approx(footprint_overlap(b, a)[0], abs=1e-8)
    first, second = Polygon(bev_corners(a)[0]), Polygon(bev_corners(b)[0])
    assert shared == pytest.approx(first.intersection(second).area, abs=1e-8)


def test_image_overlap() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]])
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10], [10, 0, 20, 10]])
    np.testing.assert_allclose(iou_2d(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(giou_2d(a[:1], b), [[1, 1 / 3, -1 / 3, 0]])
    assert giou_2d(a[1:], a[1:]) == 0.0  # two points at one place
    assert iou_2d(np.empty((0, 4)), b).shape == (0, 4)


@pytest.mark.parametrize('limit', [0.0, 0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize('spread', [3.0, 30.0])
def test_suppression_agrees_with_the_textbook(limit: float, spread: float) -> None:
    rng = np.random.default_rng(3)
    boxes = scene(rng, 300, spread)
    scores = rng.integers(0, 20, 300) / 20  # many are equal
    groups = rng.integers(0, 3, 300)
    expected = greedy(bev_iou(boxes, boxes), scores, limit, groups)
    assert nms_bev(boxes, scores, limit, groups).tolist() == expected
    xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 3:5]], axis=1)
    expected = greedy(iou_2d(xyxy, xyxy), scores, limit, groups)
    assert nms_2d(xyxy, scores, limit, groups).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_suppression_with_ties_and_equal_boxes(rows: list[tuple[int, int, int]]) -> None:
    boxes = np.array([row(x, y, 3, 2) for x, y, _ in rows]).reshape(-1, 7)
    scores = np.array([s / 4 for _, _, s in rows])
    groups = np.zeros(len(rows))
    expected = greedy(bev_iou(boxes, boxes), scores, 0.2, groups)
    assert nms_bev(boxes, scores, 0.2).tolist() == expected


def test_touching_and_empty_boxes_are_kept_at_any_limit() -> None:
    touching = np.array([row(0, 0, 4, 2, 0.0), row(4, 0, 4, 2, 0.0), row(0, 2, 4, 2, np.pi)])
    assert nms_bev(touching, np.ones(3), 0.0).tolist() == [0, 1, 2]
    empty = np.array([row(0, 0, 0, 0), row(0, 0, 0, 0), row(0, 0, 4, 2)])
    assert nms_bev(empty, np.ones(3), 0.0).tolist() == [0, 1, 2]
    assert nms_bev(np.empty((0, 7)), np.empty(0), 0.5).tolist() == []


def test_a_limit_of_one_keeps_all() -> None:
    boxes = np.array([row(0, 0, 4, 2)] * 3)
    assert nms_bev(boxes, np.array([0.1, 0.9, 0.9]), 1.0).tolist() == [1, 2, 0]


def test_suppression_agrees_with_opencv() -> None:
    rng = np.random.default_rng(4)
    boxes, scores = scene(rng, 200, 20.0), rng.uniform(0.1, 1.0, 200)
    boxes[:, 3:5] = (5.0, 2.0)  # of one size: none lies within another
    theirs = cv2.dnn.NMSBoxesRotated(list(map(rectangle, boxes)), scores.tolist(), 0.0, 0.3)
    assert nms_bev(boxes, scores, 0.3).tolist() == np.ravel(theirs).tolist()


def test_a_small_box_within_a_large_one_is_kept() -> None:
    boxes, scores = np.array([row(0, 0, 5, 2), row(1, 0.3, 0.5, 0.5)]), np.array([0.9, 0.8])
    assert nms_bev(boxes, scores, 0.1).tolist() == [0, 1]  # IoU 0.025
    theirs = cv2.dnn.NMSBoxesRotated(list(map(rectangle, boxes)), scores.tolist(), 0.0, 0.1)
    assert np.ravel(theirs).tolist() == [0]  # OpenCV calls the IoU of nested boxes 1


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: nms_2d(np.zeros((2, 5)), np.zeros(2), 0.5), r'expected \[N, 4\]'),
        (lambda: nms_2d(np.zeros((2, 4)), np.zeros(3), 0.5), '2 boxes, but scores'),
        (lambda: nms_2d(np.zeros((2, 4)), np.zeros(2), 0.5, np.zeros(1)), '2 boxes, but'),
        (lambda: nms_2d(np.zeros((2, 4)), np.array([0.5, np.nan]), 0.5), 'score nan'),
        (lambda: nms_bev(np.array([row(0, np.inf, 1, 1)]), np.ones(1), 0.5), 'box 0 is not fin'),
        (lambda: nms_bev(np.array([row(0, 0, -1, 1)]), np.ones(1), 0.5), 'negative length'),
        (lambda: bev_iou(np.zeros((1, 6)), np.zeros((1, 7))), r'expected \[N, 7\]'),
    ],
)
def test_nonsense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(MessageError, match=message):
        call()


def test_boxes_that_passed_another_suppression_pass_this(shared_data: Path) -> None:
    files = sorted((shared_data / 'reference/nvidia_pointpillars/pred_velo').glob('*.txt'))
    assert len(files) == 6
    for path in files:
        table = np.loadtxt(path, ndmin=2)
        boxes, scores = table[:, :7], table[:, 8]
        kept = nms_bev(boxes, scores, 0.01)
        assert sorted(kept.tolist()) == list(range(len(table))), path.name
        assert (np.diff(scores[kept]) <= 0.0).all()
