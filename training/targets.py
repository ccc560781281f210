"""What the network should answer: boxes to anchors and cells, without IoU, all on the accelerator.

A box belongs to one anchor shape: of those of its class the one nearest in size, turned the nearer
way. Around its centre the score target falls off as a Gaussian that is as elongated as the box,
up to a length (X. Zhou, D. Wang, P. Kraehenbuehl, "Objects as Points", 2019); where it is high,
cells give boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WINDOW = 12
"""Cells on each side of a box's centre that can hold a target."""
REGRESS = 0.3
"""Lowest score target at which a cell answers with a box."""
LONGEST = 2.4
"""Largest standard deviation of a score target along a box, metres. An eighth of an airliner's
length would be cut off by the window, and so flat that a score says nothing of where the centre
is."""
PLAIN = 4.6
"""Diagonal of the anchor (m), a car's, up to which errors count in the units of its code."""


@dataclass(frozen=True)
class Anchors:
    """Anchor shapes as tensors.

    Attributes:
        pair: int64 [A, K], score channel of a shape and a class, -1 where there is none.
        owner: int64 [P], shape of every score channel.
        shape: float32 [A, 5]: length, width, height, z of the centre, yaw.
        turned: bool [A], whether another anchor of the same shape has another yaw.
    """

    pair: Tensor
    owner: Tensor
    shape: Tensor
    turned: Tensor


@dataclass(frozen=True)
class Boxes:
    """Ground truth of a batch.

    Attributes:
        boxes: float32 [M, 7].
        label: int64 [M].
        scan: int64 [M].
        counted: bool [M]; False: too few points to ask for, and not to be punished either.
        velocity: float32 [M, 2], m/s; None: not known.
    """

    boxes: Tensor
    label: Tensor
    scan: Tensor
    counted: Tensor
    velocity: Tensor | None = None


@dataclass(frozen=True)
class Cells:
    """Cells around the centres of boxes, [N].

    Attributes:
        box: int64, row of the box; row, column: int64; value: float32, score target, 1 at the
            centre.
    """

    box: Tensor
    row: Tensor
    column: Tensor
    value: Tensor


@dataclass(frozen=True)
class Targets:
    """Attributes:
    heat: float32 [B, P, H, W], 1 at the centres.
    weight: float32 [B, P, H, W] of the score loss, 0 where nothing may be said.
    places: int64 [Q, 4]: scan, anchor, row, column of the cells that answer with a box.
    codes: float32 [Q, 7]; the last is yaw minus the anchor's, unwrapped.
    directions: int64 [Q].
    strength: float32 [Q], weight of a cell's box; turning: the same for its yaw.
    reach: float32 [Q], 1 or more: by how much an error of place or length counts more than its
        code says. Codes are shares of the anchor: one metre is 0.2 of a car and 0.03 of an
        airliner, where a loss that is square near zero no longer notices it.
    """

    heat: Tensor
    weight: Tensor
    places: Tensor
    codes: Tensor
    directions: Tensor
    strength: Tensor
    turning: Tensor
    reach: Tensor


def assign(
    truth: Boxes,
    anchors: Anchors,
    scans: int,
    shape: tuple[int, int],
    cell: float,
    origin: tuple[float, float],
    direction_offset: float,
) -> Targets:
    """Targets of a batch.

    Args:
        truth: ground truth.
        anchors: shapes.
        scans: B.
        shape: rows and columns of the output.
        cell: size of an output cell in metres.
        origin: x and y of the grid's lower corner.
        direction_offset: as in the card.
    """
    device = truth.boxes.device
    rows, columns = shape
    count, pairs = len(anchors.shape), len(anchors.owner)
    heat = torch.zeros(scans * pairs * rows * columns, device=device)
    muted = torch.zeros(scans * count * rows * columns, device=device)
    inside = within(truth.boxes, shape, cell, origin)
    boxes, label, scan = truth.boxes[inside], truth.label[inside], truth.scan[inside]
    counted = truth.counted[inside]
    chosen, other, doubtful = _choose(boxes, label, anchors)
    around = spread(boxes, shape, cell, origin)
    box, r, q, value = around.box, around.row, around.column, around.value

    ask = counted[box]
    slot = scan[box] * pairs + anchors.pair[chosen, label][box]
    flat = (slot * rows + r) * columns + q
    heat.scatter_reduce_(0, flat[ask], value[ask], 'amax')
    # Any score is fine where nobody could see a box, and for the other turn near 45 degrees.
    for anchor in range(count):
        hidden = ~ask & (value > 0.1)
        muted[((scan[box] * count + anchor) * rows + r)[hidden] * columns + q[hidden]] = 1.0
    twin = ask & doubtful[box] & (value > 0.1)
    muted[((scan[box] * count + other[box]) * rows + r)[twin] * columns + q[twin]] = 1.0

    answers = ask & (value > REGRESS) & (value >= heat[flat])
    box, r, q, value = box[answers], r[answers], q[answers], value[answers]
    anchor = chosen[box]
    length, width, height, z, yaw = anchors.shape[anchor].unbind(1)
    diagonal = torch.sqrt(length.square() + width.square())
    target = boxes[box]
    codes = torch.stack(
        [
            (target[:, 0] - (origin[0] + (q + 0.5) * cell)) / diagonal,
            (target[:, 1] - (origin[1] + (r + 0.5) * cell)) / diagonal,
            (target[:, 2] - z) / height,
            torch.log(target[:, 3] / length),
            torch.log(target[:, 4] / width),
            torch.log(target[:, 5] / height),
            target[:, 6] - yaw,
        ],
        dim=1,
    )
    turn = torch.remainder(target[:, 6] - direction_offset, 2 * math.pi)
    return Targets(
        heat.view(scans, pairs, rows, columns),
        1.0 - muted.view(scans, count, rows, columns)[:, anchors.owner],
        torch.stack([scan[box], anchor, r, q], dim=1),
        codes,
        (turn / math.pi).long().clamp(0, 1),
        value,
        value * anchors.turned[anchor],
        (diagonal / PLAIN).clamp(min=1.0),
    )


def spread(
    boxes: Tensor, shape: tuple[int, int], cell: float, origin: tuple[float, float]
) -> Cells:
    """The cells that may answer for boxes [M, 7] whose centres are in the grid; see `assign`."""
    rows, columns = shape
    column = torch.floor((boxes[:, 0] - origin[0]) / cell).long()
    row = torch.floor((boxes[:, 1] - origin[1]) / cell).long()
    step = torch.arange(-WINDOW, WINDOW + 1, device=boxes.device)
    at_row, at_column = (row[:, None] + step)[:, :, None], (column[:, None] + step)[:, None, :]
    x = origin[0] + (at_column + 0.5) * cell - boxes[:, 0, None, None]
    y = origin[1] + (at_row + 0.5) * cell - boxes[:, 1, None, None]
    c, s = torch.cos(boxes[:, 6])[:, None, None], torch.sin(boxes[:, 6])[:, None, None]
    along = (x * c + y * s) / (boxes[:, 3] / 8).clamp(0.45, LONGEST)[:, None, None]
    across = (y * c - x * s) / (boxes[:, 4] / 6).clamp(min=0.4)[:, None, None]
    value = torch.exp(-0.5 * (along.square() + across.square()))
    value[:, WINDOW, WINDOW] = 1.0
    valid = (at_row >= 0) & (at_row < rows) & (at_column >= 0) & (at_column < columns)
    valid = valid & (value > 0.02)
    box, i, j = torch.nonzero(valid, as_tuple=True)
    return Cells(box, row[box] + i - WINDOW, column[box] + j - WINDOW, value[box, i, j])


def within(
    boxes: Tensor, shape: tuple[int, int], cell: float, origin: tuple[float, float]
) -> Tensor:
    """Which boxes [M, 7] have their centre in the grid."""
    x, y = (boxes[:, 0] - origin[0]) / cell, (boxes[:, 1] - origin[1]) / cell
    return (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])


def _choose(boxes: Tensor, label: Tensor, anchors: Anchors) -> tuple[Tensor, Tensor, Tensor]:
    """The anchor of every box, its shape's other turn, and whether either would do."""
    size = torch.log(boxes[:, None, 3:6] / anchors.shape[None, :, 0:3]).abs().sum(-1)
    turn = torch.remainder(boxes[:, None, 6] - anchors.shape[None, :, 4], math.pi)
    turn = torch.minimum(turn, math.pi - turn)
    foreign = (anchors.pair.t()[label] < 0) * 1e3
    cost = foreign + 10 * size + turn / math.pi
    best = cost.topk(min(2, cost.shape[1]), dim=1, largest=False).indices
    chosen, other = best[:, 0], best[:, -1]
    angle = turn.gather(1, best[:, :1]).squeeze(1)
    return chosen, other, anchors.turned[chosen] & (angle > math.radians(30))
