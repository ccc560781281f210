"""What a centre head should answer and what wrong answers cost, all on the accelerator.

Targets are those of the anchors without the anchors: around a box's centre the heatmap of its
class falls off as a Gaussian that is as elongated as the box, and where it is high the cell gives
the box. A cell is asked for one box, that of the highest target of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own custom)
from torch import Tensor

from training.targets import REGRESS, Boxes, spread, within

HIDDEN = 0.1
"""Score target from which a box that nobody could see mutes the loss."""
FACING = 1.2
"""Weight of front and back beside that of the axis. Up to 1 a rotation that is wrong by half a
turn lies in a minimum of its own, and the network stays there."""
SIZES = {'reg': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}
"""Channels of the outputs that make a box, in the order of `CenterTargets.codes`."""


@dataclass(frozen=True)
class CenterTargets:
    """Attributes:
    heat: float32 [B, K, H, W], 1 at the centres.
    weight: float32 [B, 1, H, W] of the heatmap's loss, 0 where nothing may be said.
    places: int64 [Q, 3]: scan, row, column of the cells that answer with a box.
    codes: float32 [Q, 10]: the channels of `SIZES`.
    strength: float32 [Q], weight of a cell's box.
    twofold: float32 [Q], 1 where front and back of the object look alike.
    """

    heat: Tensor
    weight: Tensor
    places: Tensor
    codes: Tensor
    strength: Tensor
    twofold: Tensor


def assign_centers(
    truth: Boxes,
    classes: int,
    twofold: Tensor,
    scans: int,
    shape: tuple[int, int],
    cell: float,
    origin: tuple[float, float],
) -> CenterTargets:
    """Targets of a batch.

    Args:
        truth: ground truth; without velocities everything stands still.
        classes: K.
        twofold: bool [K], classes whose front and back look alike.
        scans: B.
        shape: rows and columns of the output.
        cell: size of an output cell in metres.
        origin: x and y of the grid's lower corner.
    """
    device = truth.boxes.device
    rows, columns = shape
    inside = within(truth.boxes, shape, cell, origin)
    boxes, label, scan = truth.boxes[inside], truth.label[inside], truth.scan[inside]
    counted = truth.counted[inside]
    moving = torch.zeros_like(boxes[:, :2]) if truth.velocity is None else truth.velocity[inside]
    around = spread(boxes, shape, cell, origin)
    box, r, q, value = around.box, around.row, around.column, around.value
    ask = counted[box]
    place = (scan[box] * rows + r) * columns + q
    flat = ((scan[box] * classes + label[box]) * rows + r) * columns + q
    heat = torch.zeros(scans * classes * rows * columns, device=device)
    heat.scatter_reduce_(0, flat[ask], value[ask], 'amax')
    highest = torch.zeros(scans * rows * columns, device=device)
    highest.scatter_reduce_(0, place[ask], value[ask], 'amax')
    muted = torch.zeros(scans * rows * columns, device=device)
    muted[place[~ask & (value > HIDDEN)]] = 1.0
    muted[place[ask & (value >= 1.0)]] = 0.0

    answers = ask & (value > REGRESS) & (value >= highest[place])
    box, r, q, value = box[answers], r[answers], q[answers], value[answers]
    target = boxes[box]
    codes = torch.cat(
        [
            torch.stack(
                [
                    (target[:, 0] - origin[0]) / cell - q,
                    (target[:, 1] - origin[1]) / cell - r,
                    target[:, 2],
                ],
                dim=1,
            ),
            torch.log(target[:, 3:6]),
            torch.sin(target[:, 6:]),
            torch.cos(target[:, 6:]),
            moving[box],
        ],
        dim=1,
    )
    return CenterTargets(
        heat.view(scans, classes, rows, columns),
        1.0 - muted.view(scans, 1, rows, columns),
        torch.stack([scan[box], r, q], dim=1),
        codes,
        value,
        twofold[label[box]].float(),
    )


def center_loss(maps: dict[str, Tensor], targets: CenterTargets) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of boxes, rotations and velocities: weighted means over the cells that answer.

    A median of opposite directions is neither, and need not lie along their axis. So rotations
    cost squares, the lesser of that to (sine, cosine) and to its opposite: the axis. Which of the
    two it is costs besides, where front and back differ; squares of opposite directions
    have their mean on the axis as well.

    Args:
        maps: outputs of the network by name.
        targets: of that batch.
    """
    scan, row, column = targets.places.unbind(1)
    total = targets.strength.sum().clamp(min=1)
    wanted = dict(zip(SIZES, targets.codes.split(list(SIZES.values()), dim=1), strict=True))

    def got(name: str) -> Tensor:
        return maps[name][scan, :, row, column].float()

    def mean(cost: Tensor) -> Tensor:
        return (cost * targets.strength).sum() / total

    boxes = sum(
        F.smooth_l1_loss(got(name), wanted[name], reduction='none', beta=1 / 9).sum(1)
        for name in ('reg', 'height', 'dim')
    )
    found, true = got('rot'), wanted['rot']
    same, opposite = (found - true).square().sum(1), (found + true).square().sum(1)
    turned = torch.minimum(same, opposite) + FACING * same * (1 - targets.twofold)
    velocity = found.sum() * 0.0
    if 'vel' in maps:
        velocity = mean(F.smooth_l1_loss(got('vel'), wanted['vel'], reduction='none').sum(1))
    return mean(boxes), mean(turned), velocity  # type: ignore[arg-type]  # a sum of tensors
