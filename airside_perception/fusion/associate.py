"""Which boxes of two sensors are one object: gates, costs and a one-to-one assignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from airside_perception.config import FusionConfig
from airside_perception.fusion.viewport import Seen
from airside_perception.overlap import giou_2d
from airside_perception.types import Float64, Int64

Pairs = tuple[Int64, Int64]
"""Rows and columns [P] of pairs of boxes."""


class Labels:
    """Class names as numbers, and the group of each: only boxes of one group can be one object.

    Attributes:
        names: the classes, each once, as they were first written.
    """

    def __init__(self, groups: Mapping[str, str]) -> None:
        self.names: list[str] = []
        self._groups = groups
        self._classes: dict[str, int] = {}
        self._group_numbers: dict[str, int] = {}

    def numbers(self, classes: tuple[str, ...]) -> tuple[Int64, Int64]:
        """(class, group) [N] of class names; upper and lower case are one."""
        known = {name: self._number(name) for name in sorted(set(classes))}
        table = np.array([known[name] for name in classes], dtype=np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def belong(self, classes: tuple[str, ...], groups: tuple[str, ...]) -> NDArray[np.bool_]:
        """Whether each class [N] is in one of `groups`."""
        return np.array([self._group(name) in groups for name in classes], dtype=bool)

    def _group(self, name: str) -> str:
        key = name.casefold()
        return self._groups.get(key, f'={key}')  # no group is called so: '=' parts it from classes

    def _number(self, name: str) -> tuple[int, int]:
        key = name.casefold()
        if key not in self._classes:
            self._classes[key] = len(self.names)
            self.names.append(name)
        group = self._group_numbers.setdefault(self._group(name), len(self._group_numbers))
        return self._classes[key], group


@dataclass(frozen=True)
class Places:
    """Boxes as the association sees them: centre and covariance in BEV, class, group; all [N]."""

    x: Float64
    y: Float64
    xx: Float64
    xy: Float64
    yy: Float64
    label: Int64
    group: Int64

    def select(self, rows: Int64) -> Places:
        """The places at `rows`."""
        return Places(
            self.x[rows], self.y[rows], self.xx[rows], self.xy[rows], self.yy[rows],
            self.label[rows], self.group[rows],
        )  # fmt: skip


def match_views(lidar: Places, camera: Places, seen: Seen, config: FusionConfig) -> Pairs:
    """Lidar boxes and camera boxes that are one object, by the image and by the place.

    Args:
        lidar: [N] places.
        camera: [M] places.
        seen: the rectangles of both in the image of the camera.
        config: gates and costs.

    Returns:
        Rows of `lidar` and rows of `camera`, each at most once, sorted by the first.
    """
    rows = np.flatnonzero(seen.visible)
    row, column, squared = candidates(lidar.select(rows), camera, config.gate_chi2)
    if not len(row):
        return row, column
    giou = giou_2d(seen.xyxy[rows], seen.lifted)[row, column]
    row = rows[row]
    good = (giou >= config.gate_giou) & seen.found[column]
    row, column, squared, giou = row[good], column[good], squared[good], giou[good]
    cost = _cost(lidar, camera, row, column, squared, config) + config.image_cost * (1.0 - giou)
    return assign(row, column, cost, config.gate_cost)


def match_places(a: Places, b: Places, config: FusionConfig) -> Pairs:
    """Boxes of two sensors that are one object, by the place alone; as `match_views`."""
    row, column, squared = candidates(a, b, config.gate_chi2)
    if not len(row):
        return row, column
    cost = _cost(a, b, row, column, squared, config)
    return assign(row, column, cost, config.gate_cost)


def candidates(a: Places, b: Places, gate: float) -> tuple[Int64, Int64, Float64]:
    """Pairs of one group within the gate, and their squared Mahalanobis distance in BEV.

    d^2 = e' S^-1 e with e = a - b and S = Pa + Pb, inverted in closed form. |e_x|^2 <= gate S_xx
    and the same for y are necessary for d^2 <= gate (the ellipse lies in its bounding box), so
    that few pairs are looked at closely.
    """
    dx, dy = a.x[:, None] - b.x, a.y[:, None] - b.y
    near = a.group[:, None] == b.group
    near &= dx * dx <= gate * (a.xx[:, None] + b.xx)
    near &= dy * dy <= gate * (a.yy[:, None] + b.yy)
    row, column = np.nonzero(near)
    dx, dy = dx[row, column], dy[row, column]
    xx, xy, yy = (p[row] + q[column] for p, q in ((a.xx, b.xx), (a.xy, b.xy), (a.yy, b.yy)))
    squared = (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
    inside = squared <= gate
    return row[inside], column[inside], squared[inside]


def assign(row: Int64, column: Int64, cost: Float64, limit: float) -> Pairs:
    """The one-to-one choice among pairs [P] that minimises the sum of (cost - limit).

    A pair is worth choosing only below `limit`: two matches at any price are not better than one
    good one. Pairs that are not listed cost as much as no match, so the problem is feasible for
    every shape and a gated pair is never chosen.

    Returns:
        Rows and columns of the chosen pairs, sorted by row.
    """
    good = cost < limit
    row, column, cost = row[good], column[good], cost[good]
    rows, columns = np.flatnonzero(np.bincount(row)), np.flatnonzero(np.bincount(column))
    gain = np.zeros((len(rows), len(columns)))
    gain[np.searchsorted(rows, row), np.searchsorted(columns, column)] = cost - limit
    first, second = linear_sum_assignment(gain)
    chosen = gain[first, second] < 0.0
    return rows[first[chosen]], columns[second[chosen]]


def _cost(
    a: Places, b: Places, row: Int64, column: Int64, squared: Float64, config: FusionConfig
) -> Float64:
    """What pairs cost beside their image: sigmas between the centres, and another class."""
    cost: Float64 = config.distance_cost * np.sqrt(np.maximum(squared, 0.0))
    cost += config.class_cost * (a.label[row] != b.label[column])
    return cost
