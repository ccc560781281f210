"""Spinning lidars: what a network must not care about is drawn anew for every scan, if wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.lidar import PRESETS

MOST_RINGS = 128
ANY = 'any'
"""Name of no lidar in particular: every scan has one of its own."""
HEIGHTS = {'hdl64': 1.73}
ROOF = 1.95
"""Heights of presets above the ground, metres: as in KITTI, and else as in `config/rig.yaml`."""
BLACK = 0.1


@dataclass(frozen=True)
class Lidar:
    """One sensor on one day.

    Attributes:
        elevations: float64 [rings], radians, top first.
        firings: azimuth steps in a revolution.
        height: above the ground, metres.
        reach: distance at which a black (10 %) wall seen head-on is lost half of the time, metres.
        noise: standard deviation of a distance, metres.
        dropout: share of returns lost without a reason.
    """

    elevations: NDArray[np.float64]
    firings: int
    height: float
    reach: float
    noise: float
    dropout: float


def hdl64() -> NDArray[np.float64]:
    """Elevations of an HDL-64E: 32 rings 1/3 degree apart above 32 half a degree apart."""
    return np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.33, 32)])


def lidar_of(name: str, rng: np.random.Generator) -> Lidar:
    """A random lidar for `any`, else always the same: a preset of `airside_perception.sim.lidar`.

    Raises:
        ValueError: there is no such lidar.
    """
    return random_lidar(rng) if name == ANY else preset(name)


def preset(name: str) -> Lidar:
    """A preset of the simulator, mounted at its usual height.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f'lidar {name!r}: expected {ANY} or one of {", ".join(PRESETS)}')
    spec = PRESETS[name]
    return Lidar(
        np.array(spec.elevations),
        spec.azimuths,
        HEIGHTS.get(name, ROOF),
        math.sqrt(BLACK / spec.threshold),  # its power is as much as the threshold
        spec.range_sigma,
        spec.dropout,
    )


def random_lidar(rng: np.random.Generator) -> Lidar:
    """A 64-ring Velodyne, a fan as on the roof of the vehicle, a 32-ring Velodyne, other fans."""
    kind = rng.random()
    if kind < 0.3:
        degrees = hdl64()
        firings, height = int(rng.integers(1800, 2250)), rng.uniform(1.6, 2.0)
    elif kind < 0.6:
        return roof_lidar(rng)
    elif kind < 0.7:
        degrees, height = np.linspace(10.67, -30.67, 32), rng.uniform(1.7, 2.1)
        firings = int(rng.integers(1000, 1100))
    elif kind < 0.88:
        half = rng.uniform(15.0, 23.0)
        degrees = np.linspace(half, -half, int(rng.choice([32, 64, 64, 128])))
        firings, height = int(rng.choice([1024, 1800, 2048])), rng.uniform(1.5, 2.5)
    else:
        rings = int(rng.choice([40, 64, 80, 128]))
        spread = np.linspace(-1, 1, rings)
        bend = rng.uniform(0.3, 0.9)
        shape = bend * spread + (1 - bend) * spread**3
        degrees = np.where(shape > 0, shape * rng.uniform(3, 16), shape * rng.uniform(16, 28))[
            ::-1
        ]
        firings, height = int(rng.choice([900, 1200, 1800])), rng.uniform(1.5, 2.5)
    if len(degrees) > 64:
        firings = min(firings, 1200)
    return _jittered(degrees, firings, height, rng)


def roof_lidar(rng: np.random.Generator) -> Lidar:
    """A fan much like that of the vehicle's own lidar, `roof64`: wide and sparse."""
    rings = int(rng.choice([32, 64, 64]))
    degrees = np.linspace(rng.uniform(12.0, 18.0), -rng.uniform(22.0, 28.0), rings)
    return _jittered(degrees, 1024, rng.uniform(1.6, 2.3), rng)


def _jittered(
    degrees: NDArray[np.float64], firings: int, height: float, rng: np.random.Generator
) -> Lidar:
    """With the inaccuracies, the reach, the noise and the losses of one sensor on one day."""
    jitter = rng.normal(0, 0.05, len(degrees)) + rng.normal(0, 0.2)
    return Lidar(
        np.radians(degrees + jitter),
        firings,
        float(height),
        float(rng.uniform(70, 220)),
        float(rng.uniform(0.005, 0.035)),
        float(rng.choice([0.0, rng.uniform(0, 0.2)])),
    )
