"""Textures that simulated pictures lack, so that a network does not take texture for an object.

Surfaces of the simulator are smooth; foliage, fences, rails and windows of real pictures are not,
and a network that never met them sees things in them. What is drawn here is no attempt to look
real: it is varied so much that the real is one more variation (domain randomisation, with flying
distractors: Tobin et al. 2017, Tremblay et al. 2018). Objects keep their outlines and boxes:
shapes lie behind them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor

SHAPES = 40
"""Most shapes behind the objects of a picture."""
SMALLEST, LARGEST = 3.0, 110.0
"""Half lengths of shapes, pixels."""
OCTAVES, TINT = 6, 0.15
"""Scales of texture, and how much its colours differ."""
ROUGH = 0.7
"""Most contrast of texture, standard deviation of the logarithm. Objects have as much as what is
behind them, or smooth would mean object."""
PATCH = 6
"""Log2 of the size of places that are rougher than others, pixels."""
TONES = 0.8
"""Most change of the logarithm of gamma."""


def disguised(images: Tensor, owner: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Pictures with shapes behind their objects and texture on everything.

    Args:
        images: uint8 [V, 3, H, W].
        owner: int64 [V, H, W], -1: no object.
        share: of the pictures that get shapes, and of those that get texture.
        generator: source of all randomness.
    """
    views, device = len(images), images.device
    free = owner[:, None] < 0
    levels = images.float()
    shapes = _drawn(views, share, device, generator)
    levels = torch.where(free & shapes, _scattered(levels, generator), levels)
    depth = ROUGH * torch.rand((2, views, 1, 1, 1), device=device, generator=generator).square()
    patches = torch.sigmoid(3 * _octave(images[:, :1].shape, PATCH, device, generator))
    depth = torch.where(free, depth[0], depth[1]) * patches
    depth = depth * _drawn(views, share, device, generator)
    levels = levels * torch.exp(depth * noise(images.shape, device, generator))
    return (levels + 0.5).clamp(0, 255).to(torch.uint8)


def developed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures float [B, 3, H, W], 0..255, with another gamma: deep shadows or pale ones."""
    drawn = torch.rand((len(images), 1, 1, 1), device=images.device, generator=generator)
    gamma = torch.exp(TONES * (2 * drawn - 1))
    return 255 * (images.clamp(0, 255) / 255).pow(gamma)


def noise(shape: torch.Size, device: torch.device, generator: torch.Generator) -> Tensor:
    """Noise [V, C, H, W] of random octaves, mean 0 and deviation 1, alike in all colours."""
    views, _, height, width = shape
    total = torch.zeros(shape, device=device)
    for octave in range(OCTAVES):
        grey = _octave(torch.Size((views, 1, height, width)), octave, device, generator)
        tint = _octave(shape, octave, device, generator)
        weight = torch.rand((views, 1, 1, 1), device=device, generator=generator)
        total = total + weight.square() * (grey + TINT * tint)
    spread, mean = torch.std_mean(total, dim=(1, 2, 3), keepdim=True)
    return (total - mean) / spread.clamp(min=1e-6)


def _octave(
    shape: torch.Size, octave: int, device: torch.device, generator: torch.Generator
) -> Tensor:
    """Noise [V, C, H, W] that changes over 2^octave pixels."""
    views, channels, height, width = shape
    cell = 2**octave
    size = (views, channels, math.ceil(height / cell) + 1, math.ceil(width / cell) + 1)
    coarse = torch.randn(size, device=device, generator=generator)
    if not octave:
        return coarse[..., :height, :width]
    grown = nnf.interpolate(coarse, scale_factor=cell, mode='bilinear')
    return grown[..., :height, :width]


def _drawn(views: int, share: float, device: torch.device, generator: torch.Generator) -> Tensor:
    return torch.rand((views, 1, 1, 1), device=device, generator=generator) < share


def _scattered(levels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures covered with ellipses and rectangles, plain or striped like fences."""
    views, _, height, width = levels.shape
    device = levels.device
    v, u = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij'
    )

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand((views, channels, 1, 1), device=device, generator=generator)
        return low + (high - low) * drawn

    often = uniform(0.0, 1.0)
    for _ in range(SHAPES):
        angle = uniform(0, math.pi)
        across, down = u - uniform(0, width), v - uniform(0, height)
        along = across * angle.cos() + down * angle.sin()
        aside = down * angle.cos() - across * angle.sin()
        half = (torch.exp(uniform(math.log(SMALLEST), math.log(LARGEST))) for _ in range(2))
        x, y = (part.abs() / size for part, size in zip((along, aside), half, strict=True))
        round_one = uniform(0, 1) < 0.5
        inside = torch.where(round_one, x.square() + y.square(), torch.maximum(x, y)) < 1
        period = torch.exp(uniform(math.log(3.0), math.log(24.0)))
        stripe = (torch.sin(along * (2 * math.pi / period)) > 0) & (uniform(0, 1) < 0.35)
        paints = [255 * uniform(0, 1).square() * uniform(0.7, 1.0, 3) for _ in range(2)]
        paint = torch.where(stripe, paints[0], paints[1])
        levels = torch.where(inside & (uniform(0, 1) < often), paint, levels)
    return levels
