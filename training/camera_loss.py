"""Which cells answer for which object (SimOTA), and what their answers cost.

Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv 2107.08430: an object gets as many cells as
its ten best boxes overlap it in sum, those of the lowest cost among the cells near its middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from training.camera_network import decode

CENTRE = 1.5
"""Cells count as central up to this many strides from the middle of an object."""
AROUND = 0.75
"""Cells are spared up to this many strides from the middle of what is neither asked for nor
punished, however small it is: few cells have their middle in a box smaller than themselves."""
BEST = 10
FORBIDDEN = 1.0e8


@dataclass(frozen=True)
class Truth:
    """Objects of B pictures, M places each.

    Attributes:
        boxes: float32 [B, M, 4], x1, y1, x2, y2.
        label: int64 [B, M].
        state: int64 [B, M]; 1: to be found, 0: neither asked for nor punished, -1: empty place.
    """

    boxes: Tensor
    label: Tensor
    state: Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of boxes [..., 4], broadcast."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    sizes = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return both / (sizes - both).clamp(min=1e-6)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised overlap (Rezatofighi et al., 2019) of boxes [..., 4] pair by pair."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    sizes = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    union = (sizes - both).clamp(min=1e-6)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    around = hull.prod(-1).clamp(min=1e-6)
    return both / union - (around - union) / around


def centres(grid: Tensor) -> Tensor:
    """Middles [N, 2] of the cells, pixels."""
    return (grid[:, :2] + 0.5) * grid[:, 2:]


@torch.no_grad()
def assign(boxes: Tensor, rows: Tensor, truth: Truth, grid: Tensor) -> Tensor:
    """The object that each cell answers for: int64 [B, N], -1: none.

    Args:
        boxes: [B, N, 4], decoded.
        rows: [B, N, 5 + K], of the network.
        truth: of these pictures.
        grid: [N, 3], see `camera_network.cells`.
    """
    middle = centres(grid)[None, None]
    wanted = truth.boxes[:, :, None]
    inside = ((middle > wanted[..., :2]) & (middle < wanted[..., 2:])).all(-1)
    reach = CENTRE * grid[None, None, :, 2:]
    near = ((middle - (wanted[..., :2] + wanted[..., 2:]) / 2).abs() < reach).all(-1)
    score = (torch.sigmoid(rows[..., 5:]) * torch.sigmoid(rows[..., 4:5])).sqrt()
    score = score.clamp(1e-6, 1 - 1e-6)
    others = -torch.log1p(-score)
    chosen = torch.log(score) + others
    index = truth.label.clamp(min=0)[:, :, None].expand(-1, -1, rows.shape[1])
    kind = others.sum(2)[:, None] - chosen.transpose(1, 2).gather(1, index)
    overlap = iou(boxes[:, None], wanted)
    allowed = (inside | near) & (truth.state == 1)[:, :, None]
    overlap = overlap * allowed
    cost = kind - 3 * torch.log(overlap + 1e-8) + 1e5 * ~(inside & near) + FORBIDDEN * ~allowed

    share = overlap.topk(min(BEST, overlap.shape[2]), 2).values.sum(2).clamp(min=1).long()
    lowest = cost.topk(min(BEST, cost.shape[2]), 2, largest=False)
    rank = torch.arange(lowest.values.shape[2], device=cost.device)
    take = (rank < share[:, :, None]) & (lowest.values < FORBIDDEN / 2)
    matched = torch.zeros_like(allowed).scatter_(2, lowest.indices, take)
    claim = torch.where(matched, cost, 2 * FORBIDDEN)
    best, owner = claim.min(1)
    return torch.where(best < FORBIDDEN, owner, -1)


def loss(rows: Tensor, truth: Truth, grid: Tensor) -> Tensor:
    """Costs of boxes, objectness and classes, [3], each per answering cell.

    Args:
        rows: float32 [B, N, 5 + K], of the network.
        truth: of these pictures.
        grid: [N, 3], see `camera_network.cells`.
    """
    boxes = decode(rows, grid)
    owner = assign(boxes.detach(), rows.detach(), truth, grid)
    picture, cell = torch.nonzero(owner >= 0, as_tuple=True)
    who = owner[picture, cell]
    count = max(len(who), 1)
    wanted, got = truth.boxes[picture, who], boxes[picture, cell]
    place = (1 - giou(got, wanted)).sum()

    middle = centres(grid)[None, None]
    spared = truth.boxes[:, :, None]
    half = torch.maximum((spared[..., 2:] - spared[..., :2]) / 2, AROUND * grid[None, None, :, 2:])
    cover = ((middle - (spared[..., :2] + spared[..., 2:]) / 2).abs() < half).all(-1)
    unsure = (cover & (truth.state == 0)[:, :, None]).any(1)
    target = (owner >= 0).float()
    objects = nnf.binary_cross_entropy_with_logits(rows[..., 4], target, reduction='none')
    objects = (objects * ((owner >= 0) | ~unsure)).sum()

    kind = nnf.one_hot(truth.label[picture, who], rows.shape[2] - 5).float()
    kind = kind * iou(got, wanted).detach()[:, None]
    kinds = nnf.binary_cross_entropy_with_logits(rows[picture, cell, 5:], kind, reduction='sum')
    return torch.stack([place, objects, kinds]) / count
