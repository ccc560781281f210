"""The two kinds of heads: their networks, targets, losses and cards."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from training.centers import assign_centers, center_loss
from training.loss import box_loss, score_loss
from training.network import Centers, Dense
from training.recipe import Training
from training.targets import Boxes, assign


class Head(Protocol):
    """One kind of head.

    Attributes:
        losses: their names, the first that of the scores.
        outputs: names of the network's outputs, in their order.
    """

    losses: ClassVar[tuple[str, ...]]
    outputs: tuple[str, ...]

    def network(self) -> nn.Module:
        """The dense network with fresh weights: canvas to a tuple of maps."""

    def assign(self, truth: Boxes, scans: int) -> Any:
        """Targets of a batch: a dataclass of tensors."""

    def cost(self, maps: tuple[Tensor, ...], targets: Any) -> tuple[Tensor, ...]:
        """One loss for each of `losses`."""

    def card(self) -> dict[str, Any]:
        """Architecture and `output` of the model card."""


def head_of(training: Training, device: torch.device) -> Head:
    """The head that a recipe asks for."""
    if training.head == 'centers':
        return CenterHead(training, device)
    return AnchorHead(training, device)


def _grid(training: Training) -> dict[str, Any]:
    """Where output cells lie, as the assignments take it."""
    rows, columns = training.grid.shape
    return {
        'shape': (rows // training.stride, columns // training.stride),
        'cell': training.pillar[0] * training.stride,
        'origin': (training.limits[0], training.limits[1]),
    }


def exported(training: Training, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Outputs of a head that the exported network has: velocities only where they can be seen."""
    return tuple(name for name in outputs if name != 'vel' or training.past.sweeps)


class AnchorHead:
    """Scores, boxes and directions at anchors."""

    losses: ClassVar[tuple[str, ...]] = ('scores', 'boxes', 'directions')

    def __init__(self, training: Training, device: torch.device) -> None:
        self.outputs: tuple[str, ...] = ('scores', 'boxes', 'directions')
        self._training = training
        self._anchors = training.anchor_tensors(device)

    def network(self) -> nn.Module:
        t, anchors = self._training, self._anchors
        counts = len(anchors.shape), len(anchors.owner)
        return Dense(t.channels, t.widths, t.depths, t.neck, *counts)

    def assign(self, truth: Boxes, scans: int) -> Any:
        t = self._training
        return assign(truth, self._anchors, scans, **_grid(t), direction_offset=t.direction_offset)

    def cost(self, maps: tuple[Tensor, ...], targets: Any) -> tuple[Tensor, ...]:
        scores, boxes, directions = maps
        return score_loss(scores, targets), *box_loss(boxes, directions, targets)

    def card(self) -> dict[str, Any]:
        t = self._training
        return {
            'architecture': 'pointpillars',
            'output': {
                'stride': t.stride,
                'direction_offset': t.direction_offset,
                'anchors': [
                    {
                        'class': shape.labels[0],
                        'labels': [name for name in t.classes if name in shape.labels],
                        'size': list(shape.size),
                        'z': shape.z,
                        'yaws': list(shape.yaws),
                    }
                    for shape in t.anchors
                ],
            },
        }


class CenterHead:
    """A heatmap, and at every cell the rest of the box that a centre in it would have."""

    losses: ClassVar[tuple[str, ...]] = ('scores', 'boxes', 'rotations', 'velocities')

    def __init__(self, training: Training, device: torch.device) -> None:
        self.outputs: tuple[str, ...] = Centers.OUTPUTS[: 6 if training.velocity else 5]
        self._training = training
        alike = [name in training.symmetric for name in training.classes]
        self._twofold = torch.tensor(alike, device=device)

    def network(self) -> nn.Module:
        t = self._training
        return Centers(t.channels, t.widths, t.depths, t.neck, len(t.classes), t.velocity)

    def assign(self, truth: Boxes, scans: int) -> Any:
        t = self._training
        return assign_centers(truth, len(t.classes), self._twofold, scans, **_grid(t))

    def cost(self, maps: tuple[Tensor, ...], targets: Any) -> tuple[Tensor, ...]:
        named = dict(zip(self.outputs, maps, strict=True))
        return score_loss(named['heatmap'], targets), *center_loss(named, targets)

    def card(self) -> dict[str, Any]:
        output: dict[str, Any] = {
            'stride': self._training.stride,
            'size_order': 'lwh',
            'rotation_order': 'sin_cos',
            'heading': 'x_counterclockwise',
        }
        if 'vel' in exported(self._training, self.outputs):
            output['velocity'] = 'vel'
        return {'architecture': 'centerpoint', 'output': output}
