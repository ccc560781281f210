"""Sky and haze, in linear light."""

from __future__ import annotations

import numpy as np

from airside_perception.sim.conditions import Light
from airside_perception.sim.rows import four, merged, wide
from airside_perception.types import Float32


def sky(up: Float32, light: Light) -> Float32:
    """The sky in directions of z `up` [R], whiter towards the horizon, [R, 4]."""
    horizon, more = _heaven(light)
    height = np.clip(up * np.float32(2.5), 0, 1)
    return merged(tuple(low + high * height for low, high in zip(horizon, more, strict=True)))


def _heaven(light: Light) -> tuple[Float32, Float32]:
    """Colour [4] of the sky at the horizon, and what the zenith has more."""
    bright = np.float32(light.above or min(1.0, light.sky + 0.6 * light.sun))
    horizon, zenith = four(np.array([light.horizon, light.zenith])) * bright
    return horizon, zenith - horizon


def hazy(colour: Float32, distance: Float32, rays: Float32, light: Light) -> None:
    """Puts the haze before `colour` [R, 4] and the sky in place of what is at no distance."""
    clear = np.exp(distance * np.float32(-1 / light.visibility))  # 0 where the sky is
    height = np.clip(rays[:, 2] * np.float32(2.5), 0, 1)
    height *= np.isinf(distance)
    haze = 1 - clear
    horizon, more = _heaven(light)
    colour *= wide(clear)
    colour += merged(
        tuple(haze * low + height * high for low, high in zip(horizon, more, strict=True))
    )
