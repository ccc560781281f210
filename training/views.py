"""Cameras, light and weather of training pictures, drawn at random within what vehicles meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from training.scans import World


@dataclass(frozen=True)
class Views:
    """V cameras with their weather; float32 [V] unless said otherwise.

    Attributes:
        spot: [V, 2], place in the world of each; yaw, pitch (down), roll: radians; height: metres.
        focal: pixels; centre: [V, 2], principal point; k1, k2: radial distortion.
        azimuth, elevation: of the sun, in the world; sun, sky: brightness; visibility: metres.
        shadows: 0 or 1.
        exposure, noise (grey levels), blur (pixels), cast: as the camera makes the picture; `cast`
            [V, 3] is a gain of each colour.
        colours: [V, materials, 3].
        paint: standard deviation of the logarithm of an object's own tint.
        grain: contrast of the ground's texture, 1: that of the simulator.
        clouds: contrast of the sky.
    """

    spot: Tensor
    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    height: Tensor
    focal: Tensor
    centre: Tensor
    k1: Tensor
    k2: Tensor
    azimuth: Tensor
    elevation: Tensor
    sun: Tensor
    sky: Tensor
    visibility: Tensor
    shadows: Tensor
    exposure: Tensor
    noise: Tensor
    blur: Tensor
    cast: Tensor
    colours: Tensor
    paint: Tensor
    grain: Tensor
    clouds: Tensor

    def to(self, device: torch.device) -> Views:
        values = (getattr(self, field.name) for field in fields(self))
        return Views(*(value.to(device, torch.float32) for value in values))


def draw(
    worlds: Sequence[World], colours: Tensor, rng: np.random.Generator, width: int, height: int
) -> Views:
    """A random camera and weather in each of `worlds`; `colours` [materials, 3] is the table."""
    count = len(worlds)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.as_tensor(rng.uniform(low, high, (count, *shape)))

    def normal(sigma: float, *shape: int) -> Tensor:
        return torch.as_tensor(rng.normal(0, sigma, (count, *shape)))

    def pick(share: float, first: Tensor, second: Tensor) -> Tensor:
        return torch.where(torch.as_tensor(rng.random(count) < share), first, second)

    spots = [w.spots[int(rng.integers(len(w.spots)))].double().cpu() for w in worlds]
    table = colours.double().cpu()
    tint = torch.exp(normal(0.12, len(table), 1) + normal(0.05, len(table), 3))
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    size = width / 640
    return Views(
        spot=torch.stack(spots),
        yaw=uniform(-math.pi, math.pi),
        pitch=pick(0.5, uniform(0.0, 0.175), 0.07 + normal(0.02)),
        roll=normal(0.015),
        height=uniform(1.2, 2.2),
        focal=size * pick(0.5, 330 * torch.exp(normal(0.05)), 400 * torch.exp(uniform(-0.4, 0.5))),
        centre=middle + normal(5 * size, 2),
        k1=pick(0.7, -0.04 + normal(0.02), normal(0.05)),
        k2=0.006 + normal(0.004),
        azimuth=uniform(-math.pi, math.pi),
        elevation=uniform(0.2, 1.3),
        sun=pick(0.8, uniform(0.3, 1.0), uniform(0.0, 0.3)),
        sky=pick(0.5, uniform(0.3, 0.6), uniform(0.08, 0.8)),
        visibility=pick(0.75, uniform(500, 2000), 60 * torch.exp(uniform(0.0, 2.0))),
        shadows=(uniform(0, 1) < 0.75).double(),
        exposure=torch.exp(normal(0.4)),
        noise=uniform(0.5, 6.0),
        blur=pick(0.6, 0.55 + normal(0.03), uniform(0.3, 1.3)),
        cast=torch.exp(normal(0.06, 3)),
        colours=(table * tint).clamp(0.01, 1.0),
        paint=pick(0.5, uniform(0.0, 0.1), uniform(0.1, 1.0)),
        grain=pick(0.6, torch.ones(count), uniform(0.0, 3.0)),
        clouds=pick(0.6, torch.zeros(count), uniform(0.0, 0.4)),
    )
