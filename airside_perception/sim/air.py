"""Sky and haze, in linear light."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.conditions import Light
from airside_perception.sim.rows import four, merged
from airside_perception.types import Float32


def sky(up: Float32, light: Light) -> Float32:
    """The sky in directions of z `up` [R], whiter towards the horizon, [R, 4]."""
    horizon, more = heaven(light)
    height = np.clip(up * np.float32(2.5), 0, 1)
    return merged(tuple(low + high * height for low, high in zip(horizon, more, strict=True)))


def heaven(light: Light) -> tuple[Float32, Float32]:
    """Colour [4] of the sky at the horizon, and what the zenith has more."""
    bright = np.float32(light.above or min(1.0, light.sky + 0.6 * light.sun))
    horizon, zenith = four(np.array([light.horizon, light.zenith])) * bright
    return horizon, zenith - horizon


def hazy(
    colour: Float32, distance: Float32, up: Float32, visibility: float, horizon: Float32,
    more: Float32,
) -> None:  # fmt: skip
    """Puts the haze before `colour` [3, R] and the sky in place of what is at no distance.

    Args:
        colour: linear light, plane by plane.
        distance: float32 [R], metres, inf: the sky; up: float32 [R], z of the ray.
        visibility: of a `Light`, metres; horizon, more: see `heaven`.
    """
    clear = np.exp(distance * np.float32(-1 / visibility))  # 0 where the sky is
    haze = 1 - clear
    sky = np.isinf(distance)
    height = None
    if sky.any():
        height = np.clip(up * np.float32(2.5), 0, 1)
        height *= sky
    for plane, low, high in zip(colour, horizon, more, strict=False):
        added = haze * low
        if height is not None:
            added += height * high
        plane *= clear
        plane += added
