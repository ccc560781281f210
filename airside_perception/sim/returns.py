"""What comes back to a lidar: from surfaces, through air, off water, off tape.

A return is the stronger the more a surface reflects, the more it faces the beam and the nearer it
is: p = reflectivity cos(incidence) / range^2 (1 / m^2), times what is left after twice the way
through the air, exp(-2 a r). Fog itself answers, too: a soft target of backscatter b = 0.046 /
visibility (1 / (m sr); Hahner et al., 2021) over the length of a pulse. Sensors report
the strongest return, so fog hides what is farther and weaker, and answers where nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.conditions import Conditions
from airside_perception.types import Float32

if TYPE_CHECKING:
    from airside_perception.sim.lidar import LidarSpec

RETRO = 20.0
"""Reflectivity of tape and number plates, a white wall being 0.9."""
PULSE = 1.5
"""Length of a pulse in the air, metres."""
SOFT = 0.02
"""How much weaker a pulse seems that a whole volume returns bit by bit: sensors look for peaks."""
OVERLAP = 3.0
"""Range up to which the receiver does not see all of the beam's volume, metres."""
DROPS = 9.0
"""Typical range of the raindrops that a sensor takes for targets, metres."""
HALO = 45.0
"""Range up to which retro-reflectors bloom, metres."""


@dataclass(frozen=True)
class Echoes:
    """What R beams bring back.

    Attributes:
        distance: float32 [R], measured, metres.
        intensity: float32 [R], 0..1.
        kept: bool [R], whether the sensor reports it.
        ghost: bool [R], not what the beam would have hit: fog, drops, halos.
    """

    distance: Float32
    intensity: Float32
    kept: NDArray[np.bool_]
    ghost: NDArray[np.bool_]


def strength(
    distance: Float32, facing: Float32, reflectivity: Float32, retro: NDArray[np.bool_]
) -> Float32:
    """Power [R] of returns in 1 / m^2, in clear air; 0 where nothing is hit."""
    near = np.where(np.isfinite(distance), np.maximum(distance, np.float32(0.1)), np.inf)
    return np.asarray(
        np.where(retro, np.float32(RETRO), reflectivity) * facing / (near * near),
        dtype=np.float32,
    )


def returns(
    spec: LidarSpec,
    distance: Float32,
    facing: Float32,
    reflectivity: Float32,
    retro: NDArray[np.bool_],
    loss: Float32,
    rng: np.random.Generator,
    gain: Float32 | None = None,
) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    """Measured range [R], intensity [R] in 0..1 and whether the beam came back [R].

    `gain` [R] is what air and water leave of the power; None: all.
    """
    count = len(distance)
    noise = rng.standard_normal((2, count), dtype=np.float32)
    luck = rng.random((3, count), dtype=np.float32)
    finite = np.isfinite(distance)
    clean = np.where(finite, distance, np.float32(0))
    measured = clean + np.float32(spec.range_sigma) * noise[0]
    power = strength(distance, facing, reflectivity, retro)
    if gain is not None:
        power *= gain
    square = power * power
    kept = luck[0] < square / (square + np.float32(spec.threshold**2))
    kept &= luck[1] >= 1 - (1 - loss) * np.float32(1 - spec.dropout)
    kept &= finite & (measured >= spec.min_range) & (measured <= spec.max_range)
    faded = square / (square + np.float32((3 * spec.threshold) ** 2))
    shine = np.maximum(facing, np.float32(1e-3)) ** np.float32(spec.gloss)
    plain = reflectivity * shine * faded * (1 + np.float32(spec.intensity_sigma) * noise[1])
    bright = np.float32(0.97) + np.float32(0.02) * noise[1]
    intensity = np.where(retro, bright, plain)
    np.clip(intensity, 0.0, 1.0, out=intensity)
    np.rint(intensity * np.float32(100), out=intensity)
    intensity *= np.float32(0.01)
    intensity *= luck[2] >= spec.faint
    return measured, intensity.astype(np.float32), kept


def transmission(conditions: Conditions, distance: Float32) -> Float32:
    """Share [R] of the light that is left after the way to `distance` [R] and back."""
    way = np.where(np.isfinite(distance), distance, np.float32(0))
    return np.exp(way * np.float32(-2 * conditions.extinction))


def wet(conditions: Conditions, facing: Float32, ground: NDArray[np.bool_]) -> Float32:
    """Share [R] of the ground's usual return that a film of water leaves.

    Water darkens what it fills (Lekner and Dorf, 1988) and mirrors the more the flatter it is
    met: what is mirrored does not come back. 1 where `ground` [R] is false.
    """
    dark = 1 - 0.5 * conditions.wetness
    mirror = conditions.wetness * (1 - np.clip(facing, 0, 1)) ** np.float32(1.5)
    return np.where(ground, np.float32(dark) * (1 - mirror), np.float32(1)).astype(np.float32)


def droplets(
    spec: LidarSpec, conditions: Conditions, power: Float32, rng: np.random.Generator
) -> Float32:
    """Range float32 [R] at which fog or a raindrop answers instead of the target; inf: nowhere.

    Args:
        spec: the sensor; conditions: the air.
        power: float32 [R], of the return of what the beam hits, 0: nothing.
        rng: source of the randomness.
    """
    count = len(power)
    found = np.full(count, np.inf, np.float32)
    if conditions.weather == 'fog':
        extinction = conditions.extinction
        # Where along the beam the strongest lump is: near, where the volume is first seen whole.
        scale = 1 / (2 * extinction + 1 / 3.0)
        reach = np.float32(OVERLAP) * rng.random(count, dtype=np.float32) ** np.float32(0.5)
        reach += np.float32(scale) * rng.standard_exponential(count, dtype=np.float32)
        soft = SOFT * np.pi * PULSE * 0.046 / conditions.visibility
        answer = np.float32(soft) * np.exp(reach * np.float32(-2 * extinction))
        answer /= np.maximum(reach, np.float32(OVERLAP)) ** 2
        answer *= rng.standard_exponential(count, dtype=np.float32)  # speckle
        square = answer * answer
        seen = rng.random(count, dtype=np.float32) * (square + spec.threshold**2) < square
        found = np.where(seen & (answer > power), reach, found)
    if conditions.rain:
        share = np.float32(1 - np.exp(-0.0022 * conditions.rain**0.6))
        near = spec.min_range + np.float32(DROPS) * rng.standard_exponential(
            count, dtype=np.float32
        )
        hit = rng.random(count, dtype=np.float32) < share
        drop = np.float32(0.012) / (near * near)
        found = np.where(hit & (drop > power * rng.random(count, dtype=np.float32)), near, found)
    return found.astype(np.float32)


def halo(
    spec: LidarSpec, distance: Float32, retro: NDArray[np.bool_], rng: np.random.Generator
) -> Float32:
    """Range float32 [R] at which a retro-reflector beside the beam blinds it; inf: none does.

    Beams are those of `rays`, ring fastest. A neighbour in ring or azimuth of a beam on tape that
    looks past it reports the tape's range, the likelier the nearer the tape.
    """
    rings = len(spec.elevations)
    grid = np.where(retro, distance, np.float32(np.inf)).reshape(-1, rings)
    around = np.full_like(grid, np.inf)
    np.minimum(around, np.roll(grid, 1, axis=0), out=around)
    np.minimum(around, np.roll(grid, -1, axis=0), out=around)
    np.minimum(around[:, 1:], grid[:, :-1], out=around[:, 1:])
    np.minimum(around[:, :-1], grid[:, 1:], out=around[:, :-1])
    near = around.ravel()
    chance = np.float32(0.5) * np.clip(1 - near / np.float32(HALO), 0, 1)
    past = distance > near + np.float32(0.3)
    struck = past & (rng.random(len(near), dtype=np.float32) < chance)
    return np.where(struck, near, np.float32(np.inf)).astype(np.float32)
