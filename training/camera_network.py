"""A compact YOLOX: backbone, two-way pyramid and decoupled heads of layers that DLA cores run.

Convolutions with batch norm and ReLU, additions, concatenations, nearest up-sampling by 2 and
cascaded max pools of 5 x 5; strided convolutions where YOLOX slices its input. Only the last
step, which lists the cells of all levels as rows, is a matter of layout and not of arithmetic.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (8, 16, 32)


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )


class Stage(nn.Module):
    """A cross-stage partial block: half of the channels take the long way (Wang et al., 2019)."""

    def __init__(self, inputs: int, outputs: int, depth: int, residual: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.long = Conv(inputs, half, 1)
        self.short = Conv(inputs, half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(Conv(half, half, 1), Conv(half, half)) for _ in range(depth)
        )
        self.merge = Conv(2 * half, outputs, 1)
        self.residual = residual

    def forward(self, value: Tensor) -> Tensor:
        long = self.long(value)
        for block in self.blocks:
            long = long + block(long) if self.residual else block(long)
        return self.merge(torch.cat([long, self.short(value)], 1))


class Context(nn.Module):
    """Pools of 5, 9 and 13 cells, as a cascade of three pools of 5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = Conv(width, width // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = Conv(width * 2, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        levels = [self.enter(value)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        return self.leave(torch.cat(levels, 1))


class Head(nn.Module):
    """Box, objectness and class logits of one level, [B, 5 + K, H, W]."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.enter = Conv(inputs, width, 1)
        self.place = Conv(width, width)
        self.kind = Conv(width, width)
        self.boxes = nn.Conv2d(width, 4, 1)
        self.objects = nn.Conv2d(width, 1, 1)
        self.classes = nn.Conv2d(width, classes, 1)
        prior = -math.log(99.0)
        for layer in (self.objects, self.classes):
            nn.init.constant_(layer.bias, prior)  # type: ignore[arg-type]  # both have one

    def forward(self, value: Tensor) -> Tensor:
        value = self.enter(value)
        place, kind = self.place(value), self.kind(value)
        return torch.cat([self.boxes(place), self.objects(place), self.classes(kind)], 1)


class Yolox(nn.Module):
    """Images [B, 3, H, W], 0..255, to rows [B, cells, 5 + K] of strides 8, 16 and 32.

    A row is (dx, dy, log w, log h, objectness, classes) as in `airside_perception.camera.yolox`;
    objectness and classes are logits.

    Args:
        widths: channels at strides 2, 4, 8, 16 and 32.
        depths: blocks of the stages at strides 4 to 32.
        neck: channels of the pyramid's three levels.
        head: channels within the heads.
    """

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        neck: tuple[int, ...],
        head: int,
    ) -> None:
        super().__init__()
        self.scale = 1 / 128
        self.stem = Conv(3, widths[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(Conv(before, width, 3, 2), Stage(width, width, depth))
            for before, width, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.context = Context(widths[4])
        fine, middle, coarse = neck
        self.lateral = nn.ModuleList([Conv(widths[4], coarse, 1), Conv(coarse, middle, 1)])
        self.up = nn.Upsample(scale_factor=2, mode='nearest')
        self.descend = nn.ModuleList(
            [
                Stage(coarse + widths[3], coarse, 1, residual=False),
                Stage(middle + widths[2], fine, 1, residual=False),
            ]
        )
        self.down = nn.ModuleList([Conv(fine, fine, 3, 2), Conv(middle, middle, 3, 2)])
        self.ascend = nn.ModuleList(
            [
                Stage(fine + middle, middle, 1, residual=False),
                Stage(middle + coarse, coarse, 1, residual=False),
            ]
        )
        self.heads = nn.ModuleList(Head(width, head, classes) for width in neck)

    def forward(self, images: Tensor) -> Tensor:
        value = self.stem(images if self.scale == 1 else images * self.scale)
        found = []
        for stage in self.stages:
            value = stage(value)
            found.append(value)
        top = self.lateral[0](self.context(found[3]))
        middle = self.lateral[1](self.descend[0](torch.cat([self.up(top), found[2]], 1)))
        fine = self.descend[1](torch.cat([self.up(middle), found[1]], 1))
        middle = self.ascend[0](torch.cat([self.down[0](fine), middle], 1))
        top = self.ascend[1](torch.cat([self.down[1](middle), top], 1))
        levels = (fine, middle, top)
        maps = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        return listed(maps)


@torch.fx.wrap  # type: ignore[untyped-decorator]  # torch's own; QAT takes it as one step
def listed(maps: list[Tensor]) -> Tensor:
    """The cells of all levels [B, C, H, W] as rows [B, cells, C]."""
    # Sizes as plain numbers, so that the exported reshape has a fixed shape.
    sizes = [[int(n) for n in level.shape] for level in maps]
    rows = [level.reshape(b, c, h * w) for level, (b, c, h, w) in zip(maps, sizes, strict=True)]
    return torch.cat(rows, 2).transpose(1, 2)


def cells(height: int, width: int, device: torch.device) -> Tensor:
    """(column, row, stride) float32 [cells, 3] in the order of the network's rows."""
    levels = []
    for stride in STRIDES:
        row, column = torch.meshgrid(
            torch.arange(height // stride), torch.arange(width // stride), indexing='ij'
        )
        levels.append(torch.stack([column, row, torch.full_like(row, stride)], 2).view(-1, 3))
    return torch.cat(levels).float().to(device)


def decode(rows: Tensor, grid: Tensor) -> Tensor:
    """Boxes (x1, y1, x2, y2) in pixels [B, cells, 4] of rows [B, cells, 4 or more]."""
    centre = (rows[..., :2] + grid[:, :2]) * grid[:, 2:]
    half = torch.exp(rows[..., 2:4].clamp(max=8)) * grid[:, 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def folded(network: Yolox) -> Yolox:
    """A copy whose batch norms and input scale are part of its convolutions."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, Conv):
            module[0] = fuse_conv_bn_eval(module[0], module[1])  # type: ignore[type-var]  # the pair that Conv is
            module[1] = nn.Identity()
    with torch.no_grad():
        network.stem[0].weight *= network.scale  # type: ignore[operator]  # the first convolution
    network.scale = 1
    return network
