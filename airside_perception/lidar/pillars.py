"""Sorts a point cloud into pillars: the specification of every other implementation.

The rules, which leave nothing to the order of execution:

1. A point belongs to column `floor((x - x0) * sx)` and row `floor((y - y0) * sy)`. All values are
   float32, `sx` and `sy` are the reciprocals of the pillar's extent rounded to float32; a
   difference and a product, so there is nothing that a compiler may fuse.
2. It counts if its column and row lie in the grid and `z0 <= z < z1` in float32. Points exactly on
   a lower border are inside, on an upper border outside. A point just below an upper border whose
   product rounds up to the number of columns is outside: rule 1 alone decides.
3. The cell is `row * columns + column`; pillars are ordered by cell, the points of a pillar by
   their place in the cloud.
4. A pillar keeps its first `max_points` points. The mean is over the points that are kept: summed
   in float64, divided, rounded to float32. The sum of 32 float32 values in float64 carries 24 bits
   more than the result, so that the order of summation does not show in it.
5. With more than `max_pillars` occupied cells, those with the lowest cell index are kept.
6. A cloud without usable points gives no pillars, which is an answer and not an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.types import Float32

Int32 = NDArray[np.int32]
Index = NDArray[np.intp]
BLOCK = 4096
"""Points looked at together for one in the grid."""


@dataclass(frozen=True)
class Pillars:
    """Which points of a cloud lie in which pillar.

    Attributes:
        cells: int32 [P], occupied cells in ascending order, row * columns + column.
        starts: int [P + 1], `members[starts[p]:starts[p + 1]]` are the points of pillar p.
        members: int [M], rows of the cloud.
        means: float32 [P, 3], mean x, y, z of these points, metres.
        in_range: number of points that lie in the grid, kept or not.
        occupied: number of occupied cells, kept or not.
    """

    cells: Int32
    starts: Index
    members: Index
    means: Float32
    in_range: int
    occupied: int

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def counts(self) -> Index:
        """Points of every pillar [P], 1 to `max_points`."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Grid:
    """The pillars of a network: lower corner (x0, y0, z0), upper z, reciprocal extents, size."""

    low: Float32
    top: np.float32
    scale: Float32
    rows: int
    columns: int
    max_points: int
    max_pillars: int

    @staticmethod
    def of(card: LidarCard) -> Grid:
        """The grid that a model card describes."""
        rows, columns = card.grid
        return Grid(
            low=np.array(card.limits[:3], dtype=np.float32),
            top=np.float32(card.limits[5]),
            scale=np.array([1 / card.pillar[0], 1 / card.pillar[1]], dtype=np.float32),
            rows=rows,
            columns=columns,
            max_points=card.max_points,
            max_pillars=card.max_pillars,
        )

    def fill(self, points: Float32) -> Pillars:
        """Sorts points [N, 3 or more] (x, y, z, ... in metres, finite) into pillars."""
        used, rows, columns = self._inside(points)
        order = np.argsort(columns, kind='stable')  # 16 bits: a radix sort, and stable,
        order = order[np.argsort(rows[order], kind='stable')]  # so this is one by row, then column
        cells = rows[order].astype(np.int32)
        cells *= np.int32(self.columns)
        cells += columns[order]
        members = used[order]
        first = np.ones(len(cells), dtype=bool)
        np.not_equal(cells[1:], cells[:-1], out=first[1:])
        starts = np.append(np.flatnonzero(first), len(cells))
        occupied = len(starts) - 1
        starts = starts[: self.max_pillars + 1]
        counts = np.diff(starts)
        cells, members = cells[starts[:-1]], members[: starts[-1]]
        if counts.max(initial=0) > self.max_points:
            rank = np.arange(len(members)) - np.repeat(starts[:-1], counts)
            members = members[rank < self.max_points]
            counts = np.minimum(counts, self.max_points)
            starts = np.concatenate([[0], np.cumsum(counts)])
        means = self._means(points, members, starts, counts)
        return Pillars(cells, starts, members, means, len(used), occupied)

    def any_inside(self, points: Float32) -> bool:
        """Whether a point [N, 3 or more] lies in the grid; most clouds say so in their first."""
        return any(
            len(self._inside(points[start : start + BLOCK])[0])
            for start in range(0, len(points), BLOCK)
        )

    def _inside(self, points: Float32) -> tuple[Index, NDArray[np.uint16], NDArray[np.uint16]]:
        """Points in the grid with their rows and columns (rules 1 and 2)."""
        x, y, z = (np.ascontiguousarray(points[:, axis]) for axis in range(3))
        with np.errstate(over='ignore'):  # far beyond the grid either way
            column = (x - self.low[0]) * self.scale[0]
            row = (y - self.low[1]) * self.scale[1]
        inside = (z >= self.low[2]) & (z < self.top)
        inside &= (column >= 0) & (column < self.columns)
        inside &= (row >= 0) & (row < self.rows)
        used = np.flatnonzero(inside)
        # not negative: to cut off the fraction is to take the floor
        return used, row[used].astype(np.uint16), column[used].astype(np.uint16)

    @staticmethod
    def _means(points: Float32, members: Index, starts: Index, counts: Index) -> Float32:
        """Mean x, y, z of every pillar (rule 4)."""
        if not len(counts):
            return np.empty((0, 3), dtype=np.float32)
        xyz = points[members, :3].astype(np.float64)
        sums = np.add.reduceat(xyz, starts[:-1], axis=0)
        return (sums / counts[:, None]).astype(np.float32)
