"""The compact networks on pillars: a linear pillar feature net, a backbone, anchors or centres.

Every layer of the dense part is a convolution of stride 1 or 2, a ReLU, an addition or a
deconvolution whose kernel equals its stride, so that it runs on DLA cores as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PillarNet(nn.Module):
    """Linear, batch norm, ReLU on every point, then the maximum over the points of a pillar."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)

    def forward(
        self,
        points: Tensor,
        pillar: Tensor,
        cells: Tensor,
        shape: tuple[int, int, int],
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Canvas [B, C, rows, columns] of decorated points.

        Args:
            points: float [N, F], features of the kept points.
            pillar: int64 [N], the pillar of every point, 0..P-1.
            cells: int64 [P], flat cell (scan, row, column) of every pillar.
            shape: (B, rows, columns).
            dtype: of the canvas, which is large and nearly empty: that of its first reader.
        """
        values = torch.relu(self.norm(self.linear(points)))
        width = values.shape[1]
        best = values.new_zeros(len(cells), width)
        best = best.scatter_reduce(
            0, pillar[:, None].expand(-1, width), values, 'amax', include_self=True
        )
        canvas = values.new_zeros(shape[0] * shape[1] * shape[2], width, dtype=dtype)
        canvas = canvas.index_copy(0, cells, best.to(dtype))
        return canvas.view(*shape, width).permute(0, 3, 1, 2)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight [F, C] and bias [C] with the batch norm folded in, float64."""
        scale = self.norm.weight.double() / torch.sqrt(
            self.norm.running_var.double() + self.norm.eps
        )
        bias = self.norm.bias.double() - self.norm.running_mean.double() * scale
        return self.linear.weight.double().t() * scale, bias


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        nn.ReLU(inplace=True),
    )


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles the resolution: deconvolution of kernel 2 and stride 2, batch norm."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    )


class Pyramid(nn.Module):
    """Canvas [B, C, H, W] to features [B, neck, H / 2, W / 2] that have seen the surroundings."""

    def __init__(
        self, channels: int, widths: tuple[int, ...], depths: tuple[int, ...], neck: int
    ) -> None:
        super().__init__()
        stages, laterals = [], []
        inputs = channels
        for width, depth in zip(widths, depths, strict=True):
            stages.append(
                nn.Sequential(conv(inputs, width, 2), *(conv(width, width) for _ in range(depth)))
            )
            inputs = width
        self.stages = nn.ModuleList(stages)
        merged = [neck, *widths[1:-1]]
        for width, out in zip(widths[:-1], merged, strict=True):
            laterals.append(
                nn.Sequential(
                    nn.Conv2d(width, out, 1, bias=False),
                    nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
                )
            )
        self.laterals = nn.ModuleList(laterals)
        sources = [*merged[1:], widths[-1]]
        self.ups = nn.ModuleList(
            [up(source, out) for source, out in zip(sources, merged, strict=True)]
        )
        self.merges = nn.ModuleList([conv(out, out) for out in merged])

    def features(self, canvas: Tensor) -> Tensor:
        """What the heads read."""
        levels = []
        value = canvas
        for stage in self.stages:
            value = stage(value)
            levels.append(value)
        for level in range(len(self.laterals) - 1, -1, -1):
            value = torch.relu(self.laterals[level](levels[level]) + self.ups[level](value))
            value = self.merges[level](value)
        return value


class Dense(Pyramid):
    """Canvas [B, C, H, W] to scores, boxes and directions at half the resolution.

    There is one score channel for every class that an anchor answers for.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        neck: int,
        anchors: int,
        scores: int,
    ) -> None:
        super().__init__(channels, widths, depths, neck)
        self.scores = nn.Conv2d(neck, scores, 1)
        self.boxes = nn.Conv2d(neck, anchors * 7, 1)
        self.directions = nn.Conv2d(neck, anchors * 2, 1)
        _rare(self.scores)
        nn.init.normal_(self.boxes.weight, std=0.001)

    def forward(self, canvas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = self.features(canvas)
        return self.scores(value), self.boxes(value), self.directions(value)


class Centers(Pyramid):
    """Canvas [B, C, H, W] to the maps of a centre head at half the resolution.

    The head is that of CenterPoint (Yin et al., CVPR 2021): in `OUTPUTS`, the logits of the
    classes, the centre from the corner of the cell (cells), its height (m), logarithms of the
    sizes (m), sine and cosine of the yaw, and where it is asked for the velocity (m/s). One branch
    answers for the heatmap and one for all that makes a box.
    """

    OUTPUTS = ('heatmap', 'reg', 'height', 'dim', 'rot', 'vel')

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        neck: int,
        classes: int,
        velocity: bool,
    ) -> None:
        super().__init__(channels, widths, depths, neck)
        self.kind, self.place = conv(neck, neck), conv(neck, neck)
        self.heatmap = nn.Conv2d(neck, classes, 1)
        _rare(self.heatmap)
        self.reg = nn.Conv2d(neck, 2, 1)
        self.height = nn.Conv2d(neck, 1, 1)
        self.dim = nn.Conv2d(neck, 3, 1)
        self.rot = nn.Conv2d(neck, 2, 1)
        self.vel = nn.Conv2d(neck, 2, 1) if velocity else None

    def forward(self, canvas: Tensor) -> tuple[Tensor, ...]:
        value = self.features(canvas)
        place = self.place(value)
        maps = [self.heatmap(self.kind(value))]
        for head in (self.reg, self.height, self.dim, self.rot, self.vel):
            if head is not None:
                maps.append(head(place))
        return tuple(maps)


def _rare(scores: nn.Conv2d) -> None:
    """At first everything has a score of 0.01."""
    nn.init.constant_(scores.bias, -4.6)  # type: ignore[arg-type]  # has a bias
    nn.init.normal_(scores.weight, std=0.01)
