"""Overlap of boxes in the image and in bird's-eye view (BEV), and greedy suppression by it.

Everything is deterministic: equal scores are decided by the lower index, and no result depends on
the order in which pairs are looked at. Boxes that only touch do not overlap, boxes without area
overlap nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from airside_perception.errors import MessageError
from airside_perception.types import LENGTH, WIDTH, YAW, Float64, Int64, by_score

FIRST_ROWS, MOST_ROWS = 8, 128
"""Boxes compared with all others in one step of the suppression, doubled from step to step: the
best boxes of a heap suppress most of it before it is looked at; the last number bounds memory."""
TOUCHING = 1e-9
"""Overlap smaller than this part of the smaller box is rounding, not overlap."""

Overlap = Callable[[Int64, Int64], Float64]


def iou_2d(a: Float64, b: Float64) -> Float64:
    """Intersection over union [N, M] of image boxes a [N, 4] and b [M, 4], (x1, y1, x2, y2)."""
    shared, union, _ = _image_areas(a, b)
    return _ratio(shared, union)


def giou_2d(a: Float64, b: Float64) -> Float64:
    """Generalised IoU [N, M] in -1..1 of image boxes: IoU minus the empty part of the common hull.

    From Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    shared, union, hull = _image_areas(a, b)
    return _ratio(shared, union) - _ratio(hull - union, hull)


def bev_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union [N, M] of the footprints of boxes a [N, 7] and b [M, 7], exact.

    Heights are not looked at. Only pairs whose circumscribed circles meet are computed.
    """
    a, b = _boxes(a, 7), _boxes(b, 7)
    reach = np.hypot(a[:, LENGTH], a[:, WIDTH])[:, None] + np.hypot(b[:, LENGTH], b[:, WIDTH])
    near = np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1]) * 2 < reach
    first, second = np.nonzero(near)
    areas_a, areas_b = a[:, LENGTH] * a[:, WIDTH], b[:, LENGTH] * b[:, WIDTH]
    shared = footprint_overlap(a[first], b[second])
    iou = np.zeros(near.shape)
    iou[first, second] = _ratio(shared, areas_a[first] + areas_b[second] - shared)
    return iou


def nms_2d(
    xyxy: Float64, scores: Float64, iou: float, groups: NDArray[np.integer] | None = None
) -> Int64:
    """Indices [K] of the image boxes [N, 4] that no better box overlaps by more than `iou`.

    Args:
        xyxy: left, top, right, bottom.
        scores: [N].
        iou: 0..1; 1 suppresses nothing.
        groups: integers [N]; boxes suppress one another only within a group. None: all are one.

    Returns:
        Sorted by score, best first; equal scores by index.

    Raises:
        MessageError: shapes that do not fit, or values that are not finite.
    """
    xyxy = _boxes(xyxy, 4)
    low, high = xyxy[:, :2], xyxy[:, 2:]
    areas = np.prod(np.maximum(high - low, 0.0), axis=1)
    return _suppress(low, high, areas, scores, iou, groups, None)


def nms_bev(
    boxes: Float64, scores: Float64, iou: float, groups: NDArray[np.integer] | None = None
) -> Int64:
    """Indices [K] of the boxes [N, 7] whose footprint no better box overlaps by more than `iou`.

    Arguments, order and errors as `nms_2d`; the rotated footprints are intersected exactly.
    """
    boxes = _boxes(boxes, 7)
    if (boxes[:, [LENGTH, WIDTH]] < 0.0).any():
        raise MessageError('boxes with a negative length or width have no footprint')
    c, s = np.abs(np.cos(boxes[:, YAW])), np.abs(np.sin(boxes[:, YAW]))
    half_x = (c * boxes[:, LENGTH] + s * boxes[:, WIDTH]) / 2
    half_y = (s * boxes[:, LENGTH] + c * boxes[:, WIDTH]) / 2
    half = np.stack([half_x, half_y], axis=1)

    def shared(first: Int64, second: Int64) -> Float64:
        return footprint_overlap(boxes[first], boxes[second])

    areas = boxes[:, LENGTH] * boxes[:, WIDTH]
    return _suppress(boxes[:, :2] - half, boxes[:, :2] + half, areas, scores, iou, groups, shared)


def footprint_overlap(a: Float64, b: Float64) -> Float64:
    """Area [N] that the footprints of a [N, 7] and b [N, 7] share, pair by pair, in m^2.

    Seen from b, b is the rectangle |x| <= p, |y| <= q, and the field (0, g) with
    g = clip(y, -q, q) for |x| <= p, 0 elsewhere, has divergence 1 inside b and 0 outside. By
    Gauss' theorem the shared area is its flux out of a: minus the sum over the edges of a
    (counter-clockwise) of the integral of g dx. Along an edge y is linear in x, so every integral
    is at most three trapezia. No point is ever judged to be inside or outside, so the result is
    continuous: equal, touching and degenerate boxes need no special case.
    """
    p, q = b[:, LENGTH, None] / 2, b[:, WIDTH, None] / 2
    half_length, half_width = a[:, LENGTH, None] / 2, a[:, WIDTH, None] / 2
    c, s = np.cos(b[:, YAW]), np.sin(b[:, YAW])
    dx, dy = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    turn = (a[:, YAW] - b[:, YAW])[:, None]
    along = np.array([1.0, -1.0, -1.0, 1.0]) * half_length
    across = np.array([1.0, 1.0, -1.0, -1.0]) * half_width
    x = (c * dx + s * dy)[:, None] + along * np.cos(turn) - across * np.sin(turn)
    y = (c * dy - s * dx)[:, None] + along * np.sin(turn) + across * np.cos(turn)
    run, rise = x[:, [1, 2, 3, 0]] - x, y[:, [1, 2, 3, 0]] - y
    # where the edge enters and leaves |x| <= p, and where it crosses y = -q and y = q, as a part
    # of its length; an edge parallel to a border crosses it nowhere, and any place will do for it
    to_x, to_y = (np.divide(1.0, d, out=0 * d, where=abs(d) > 1e-200) for d in (run, rise))
    start = np.clip(np.minimum((-p - x) * to_x, (p - x) * to_x), 0.0, 1.0)
    stop = np.clip(np.maximum((-p - x) * to_x, (p - x) * to_x), start, 1.0)
    lower, upper = (-q - y) * to_y, (q - y) * to_y
    knee = np.clip(np.minimum(lower, upper), start, stop)
    shoulder = np.clip(np.maximum(lower, upper), knee, stop)
    g_start, g_knee, g_shoulder, g_stop = (
        np.clip(y + t * rise, -q, q) for t in (start, knee, shoulder, stop)
    )
    integral = (
        (knee - start) * (g_start + g_knee)
        + (shoulder - knee) * (g_knee + g_shoulder)
        + (stop - shoulder) * (g_shoulder + g_stop)
    )
    shared: Float64 = -0.5 * (integral * run).sum(axis=1)
    smaller = np.minimum(4 * p * q, 4 * half_length * half_width)[:, 0]
    return np.where(shared > TOUCHING * smaller, np.minimum(shared, smaller), 0.0)


def _suppress(
    low: Float64,
    high: Float64,
    areas: Float64,
    scores: Float64,
    iou: float,
    groups: NDArray[np.integer] | None,
    shared: Overlap | None,
) -> Int64:
    """Greedy suppression, a few rows at a time; `shared` refines the overlap of the bounds.

    A pair is looked at closely only if its bounds overlap enough: with u >= the shared area,
    u / (a + b - u) is no less than the IoU.
    """
    n = len(areas)
    scores = np.asarray(scores, dtype=np.float64)
    group = np.zeros(n, np.int64) if groups is None else np.asarray(groups)
    if scores.shape != (n,) or group.shape != (n,):
        raise MessageError(
            f'{n} boxes, but scores of shape {scores.shape} and groups of {group.shape}'
        )
    if not np.isfinite(scores).all():
        raise MessageError(f'score {scores[~np.isfinite(scores)][0]} is not a number')
    order = by_score(scores)
    if iou >= 1.0:
        return order
    (left, top), (right, bottom), group = low[order].T.copy(), high[order].T.copy(), group[order]
    alive = np.ones(n, dtype=bool)
    flags = memoryview(alive)  # item access from Python, an order faster than the array's
    todo, rows = np.arange(n), FIRST_ROWS
    while len(todo):
        head = todo[:rows, None]
        meet = left[head] < right[todo]
        meet &= right[head] > left[todo]
        meet &= top[head] < bottom[todo]
        meet &= bottom[head] > top[todo]
        meet &= group[head] == group[todo]
        meet &= head < todo
        row, column = np.divmod(np.flatnonzero(meet), len(todo))
        first, second = todo[row], todo[column]
        i, j = order[first], order[second]
        area = areas[i] + areas[j]
        bound = np.minimum(right[first], right[second]) - np.maximum(left[first], left[second])
        bound *= np.minimum(bottom[first], bottom[second]) - np.maximum(top[first], top[second])
        bound = np.minimum(bound, np.minimum(areas[i], areas[j]))
        if shared is not None:
            close = bound * (1 + TOUCHING) > iou * (area - bound)
            first, second, area = first[close], second[close], area[close]
            bound = shared(i[close], j[close])
        hit = bound > iou * (area - bound)
        for better, worse in zip(first[hit].tolist(), second[hit].tolist(), strict=True):
            if flags[better]:  # decided: the pairs are sorted by the better box
                flags[worse] = False
        todo, rows = todo[rows:], min(2 * rows, MOST_ROWS)
        todo = todo[alive[todo]]
    return order[alive]


def _boxes(boxes: ArrayLike, columns: int) -> Float64:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != columns:
        raise MessageError(f'boxes have shape {array.shape}, expected [N, {columns}]')
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise MessageError(f'box {row} is not finite: {array[row].tolist()}')
    return array


def _image_areas(a: Float64, b: Float64) -> tuple[Float64, Float64, Float64]:
    """Areas [N, M] of the intersections, unions and common hulls."""
    left, top, right, bottom = _boxes(a, 4).T[..., None]  # columns are faster than [N, M, 2]
    other = _boxes(b, 4).T
    shared = _area(
        np.minimum(right, other[2]) - np.maximum(left, other[0]),
        np.minimum(bottom, other[3]) - np.maximum(top, other[1]),
    )
    hull = _area(
        np.maximum(right, other[2]) - np.minimum(left, other[0]),
        np.maximum(bottom, other[3]) - np.minimum(top, other[1]),
    )
    areas = _area(right - left, bottom - top), _area(other[2] - other[0], other[3] - other[1])
    return shared, areas[0] + areas[1] - shared, hull


def _area(width: Float64, height: Float64) -> Float64:
    area: Float64 = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    return area


def _ratio(part: Float64, whole: Float64) -> Float64:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0.0)
