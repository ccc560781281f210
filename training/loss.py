"""The loss: focal for scores, smooth L1 for boxes (sine for yaw), cross-entropy for directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own custom)
from torch import Tensor

from training.targets import Targets


def score_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Penalty-reduced focal loss of H. Law and J. Deng, "CornerNet", 2018, per object."""
    logits, heat = logits.contiguous().float(), targets.heat
    p = torch.sigmoid(logits)
    peak = heat >= 1.0
    hit = (1 - p).square() * F.softplus(-logits)
    miss = (1 - heat).pow(4) * p.square() * F.softplus(logits)
    total = torch.where(peak, hit, miss * targets.weight).sum()
    return total / peak.sum().clamp(min=1)


def box_loss(boxes: Tensor, directions: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Loss of the boxes and of their directions, weighted means over the cells that answer.

    Errors of x, y and length count `reach` times: about in metres for what is longer than a car.
    """
    scan, anchor, row, column = targets.places.unbind(1)
    scans, _, rows, columns = boxes.shape
    code = boxes.view(scans, -1, 7, rows, columns)[scan, anchor, :, row, column].float()
    turn = directions.view(scans, -1, 2, rows, columns)[scan, anchor, :, row, column].float()
    reach, one = targets.reach, torch.ones_like(targets.reach)
    unit = torch.stack([reach, reach, one, reach, one, one], dim=1)
    found, wanted = code[:, :6] * unit, targets.codes[:, :6] * unit
    plain = F.smooth_l1_loss(found, wanted, reduction='none', beta=1 / 9).sum(1)
    sine = torch.sin(code[:, 6] - targets.codes[:, 6])
    yaw = F.smooth_l1_loss(sine, torch.zeros_like(sine), reduction='none', beta=1 / 9)
    total = targets.strength.sum().clamp(min=1)
    facing = F.cross_entropy(turn, targets.directions, reduction='none') * targets.turning
    return (plain * targets.strength + yaw * targets.turning).sum() / total, facing.sum() / total
