"""Points to pillars on the accelerator, by the rules of `airside_perception.lidar.pillars`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Where pillars lie: (x0, y0, z0, x1, y1, z1) in metres and the (x, y) size of a pillar."""

    limits: tuple[float, ...]
    pillar: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (y) and columns (x)."""
        x0, y0, _, x1, y1, _ = self.limits
        return round((y1 - y0) / self.pillar[1]), round((x1 - x0) / self.pillar[0])


@dataclass(frozen=True)
class Decorated:
    """Kept points of a batch: float32 [N, F], their pillar int64 [N], flat cells int64 [P]."""

    features: Tensor
    pillar: Tensor
    cells: Tensor


def decorate(
    points: Tensor,
    scan: Tensor,
    grid: Grid,
    features: tuple[str, ...],
    max_points: int,
    max_pillars: int,
) -> Decorated:
    """Sorts points into pillars and computes their features.

    Args:
        points: float32 [N, 3 to 5], x y z in metres in the frame of the grid, then the intensity
            and the age of the sweep in seconds.
        scan: int64 [N], ascending.
        grid: limits and size of the pillars.
        features: names as in a lidar card.
        max_points: kept in a pillar, the first in the order of the points.
        max_pillars: kept in a scan, those of the lowest cell indices.
    """
    rows, columns = grid.shape
    x0, y0, z0, _, _, z1 = grid.limits
    column = torch.floor((points[:, 0] - x0) * (1 / grid.pillar[0])).long()
    row = torch.floor((points[:, 1] - y0) * (1 / grid.pillar[1])).long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    inside &= (points[:, 2] >= z0) & (points[:, 2] < z1)
    points, column, row, scan = points[inside], column[inside], row[inside], scan[inside]
    cell, order = torch.sort((scan * rows + row) * columns + column, stable=True)
    points = points[order]
    cells, pillar, count = torch.unique_consecutive(cell, return_inverse=True, return_counts=True)
    rank = torch.arange(len(pillar), device=pillar.device) - (count.cumsum(0) - count)[pillar]
    of_scan = cells // (rows * columns)
    per_scan = torch.bincount(of_scan, minlength=1)
    place = (
        torch.arange(len(cells), device=cells.device) - (per_scan.cumsum(0) - per_scan)[of_scan]
    )
    kept = (rank < max_points) & (place < max_pillars)[pillar]
    points, pillar = points[kept], pillar[kept]
    number = torch.bincount(pillar, minlength=len(cells)).clamp(min=1)
    total = points.new_zeros(len(cells), 3).index_add(0, pillar, points[:, :3])
    offset = points[:, :3] - (total / number[:, None])[pillar]
    at = cells[pillar]
    centre_x = (at % columns + 0.5) * grid.pillar[0] + x0
    centre_y = (at // columns % rows + 0.5) * grid.pillar[1] + y0
    known = {
        'x': points[:, 0],
        'y': points[:, 1],
        'z': points[:, 2],
        'xc': offset[:, 0],
        'yc': offset[:, 1],
        'zc': offset[:, 2],
        'xp': points[:, 0] - centre_x,
        'yp': points[:, 1] - centre_y,
        'zp': points[:, 2] - (z0 + z1) / 2,
    }
    if points.shape[1] > 3:
        known['intensity'] = points[:, 3]
    if points.shape[1] > 4:
        known['time_lag'] = points[:, 4]
    return Decorated(torch.stack([known[name] for name in features], dim=1), pillar, cells)
