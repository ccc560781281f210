"""Where the boxes of a directed graph go: layers from top to bottom, few crossings.

The steps of Sugiyama's method: longest-path layers, invisible boxes along edges that span several
layers, an order in each layer by the mean place of the neighbours, coordinates by the same means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 12
RELAXATIONS = 24


@dataclass(frozen=True)
class Layout:
    """Places of boxes.

    Attributes:
        centres: (x, layer) of every box; x from 0 in units of `widths`.
        routes: for every edge the (x, layer) of its way points, ends included.
        width: of everything.
        layers: number of layers.
    """

    centres: tuple[tuple[float, int], ...]
    routes: tuple[tuple[tuple[float, int], ...], ...]
    width: float
    layers: int


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> Layout:
    """Places boxes.

    Args:
        widths: of the boxes.
        edges: (from, to), without cycles.
        gap: least distance between two boxes of a layer.
    """
    layer = _layers(len(widths), edges)
    wide = list(widths)
    chains = []
    for start, end in edges:
        chain = [start]
        for at in range(layer[start] + 1, layer[end]):
            wide.append(0.0)
            layer.append(at)
            chain.append(len(wide) - 1)
        chains.append([*chain, end])
    up: list[list[int]] = [[] for _ in wide]
    down: list[list[int]] = [[] for _ in wide]
    for chain in chains:
        for one, two in pairwise(chain):
            down[one].append(two)
            up[two].append(one)
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for box, at in enumerate(layer):
        rows[at].append(box)
    _order(rows, up, down)
    x = _coordinates(rows, wide, up, down, gap)
    left = min((x[box] - wide[box] / 2 for box in range(len(wide))), default=0.0)
    x = [place - left for place in x]
    return Layout(
        centres=tuple((x[box], layer[box]) for box in range(len(widths))),
        routes=tuple(tuple((x[box], layer[box]) for box in chain) for chain in chains),
        width=max((x[box] + wide[box] / 2 for box in range(len(wide))), default=0.0),
        layers=len(rows),
    )


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; then sources come down to right above what reads them."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    layer = [0] * count
    pending = [len(before[box]) for box in range(count)]
    ready = [box for box in range(count) if not pending[box]]
    while ready:
        box = ready.pop()
        for end in after[box]:
            layer[end] = max(layer[end], layer[box] + 1)
            pending[end] -= 1
            if not pending[end]:
                ready.append(end)
    for box in range(count):
        if not before[box] and after[box]:
            layer[box] = min(layer[end] for end in after[box]) - 1
    return layer


def _order(rows: list[list[int]], up: list[list[int]], down: list[list[int]]) -> None:
    place = {box: at for row in rows for at, box in enumerate(row)}
    for sweep in range(SWEEPS):
        neighbours, order = (up, rows) if sweep % 2 == 0 else (down, rows[::-1])
        for row in order:
            wish = {
                box: sum(place[n] for n in neighbours[box]) / len(neighbours[box])
                if neighbours[box] else place[box]
                for box in row
            }  # fmt: skip
            row.sort(key=lambda box: wish[box])
            for at, box in enumerate(row):
                place[box] = at


def _coordinates(
    rows: list[list[int]], wide: list[float], up: list[list[int]], down: list[list[int]],
    gap: float,
) -> list[float]:  # fmt: skip
    x = [0.0] * len(wide)
    for row in rows:
        _spread(row, [float(at) for at in range(len(row))], x, wide, gap)
    for turn in range(RELAXATIONS):
        order = rows if turn % 2 == 0 else rows[::-1]
        for row in order:
            wishes = []
            for box in row:
                near = up[box] + down[box]
                wishes.append(sum(x[n] for n in near) / len(near) if near else x[box])
            _spread(row, wishes, x, wide, gap)
    return x


def _spread(
    row: list[int], wishes: list[float], x: list[float], wide: list[float], gap: float
) -> None:
    """The places next to the wishes that keep order and gaps: least squares, by pooling.

    Boxes that would overlap form a block whose place is the mean of what its boxes wish.
    """
    blocks: list[list[float]] = []  # [sum of wishes for the block's first box, boxes]
    offsets: list[float] = []
    at = 0.0
    for number, box in enumerate(row):
        if number:
            at += (wide[row[number - 1]] + wide[box]) / 2 + gap
        offsets.append(at)
        blocks.append([wishes[number] - at, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    number = 0
    for total, count in blocks:
        for _ in range(int(count)):
            x[row[number]] = total / count + offsets[number]
            number += 1
