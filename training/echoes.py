"""What comes back to a lidar of training: surfaces, fog, rain, and what sensors lose.

The formulas are those of `airside_perception.sim.returns`, for many scans at once on the
accelerator. Powers are in units of the weakest return that a sensor keeps half of the time, so a
black (10 %) wall seen head-on at the lidar's reach has the power 1. How they fall with the angle
of incidence differs from scan to scan: as its cosine, like the simulator's, or less, since real
surfaces are rough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from airside_perception.sim.returns import DROPS, HALO, OVERLAP, PULSE, RETRO, SOFT
from training.lidars import MOST_RINGS, Lidar
from training.raycast import Beams

BLACK = 0.1
NEAREST = 1.0
"""Metres; nothing nearer is measured."""
GLOSS, SPECKLE = 0.15, 0.15
"""Exponent of the cosine of incidence in the intensity, and its relative noise."""
ROUGH, SMOOTH = 0.5, 1.1
"""Exponents of the cosine of incidence in the power, from scan to scan; the simulator's is 1."""
GLOW = 0.3
"""Reflectivity that a retro-reflector beside a beam seems to have."""


@dataclass(frozen=True)
class Surfaces:
    """Per material, float32 [M]: reflectivity 0..1, share of beams lost, depth of foliage (m).

    `retro` [M] is 1 for what throws beams back to their source, None: nothing does.
    """

    reflectivity: Tensor
    loss: Tensor
    depth: Tensor
    retro: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """How scans are thinned and clouded; all zero: not at all.

    Attributes:
        sectors: share of scans that miss a sector of up to a quarter turn, as behind dirt.
        rings: most of the rings that are lost; every other scan loses some.
        beams: most of the beams that are lost one by one; every other scan loses some.
        fog, rain: shares of scans in fog of 40 to 300 m and in rain of 2 to 35 mm/h.
        damp: share of the other scans whose ground is wet all the same.
        halos: share of scans of sensors that retro-reflectors blind in neighbouring beams.
        gain: of the intensity, standard deviation of its logarithm; gamma: the same.
        mute: share of scans without any intensity.
    """

    sectors: float = 0.0
    rings: float = 0.0
    beams: float = 0.0
    fog: float = 0.0
    rain: float = 0.0
    damp: float = 0.0
    halos: float = 0.0
    gain: float = 0.0
    gamma: float = 0.0
    mute: float = 0.0


@dataclass(frozen=True)
class Met:
    """What beams met: [H] of those that hit something.

    Attributes:
        beam: int64, row of the beam; distance: float32, metres; facing: float32, cosine of
            incidence; kind: int64, material; ground: bool.
    """

    beam: Tensor
    distance: Tensor
    facing: Tensor
    kind: Tensor
    ground: Tensor


@dataclass(frozen=True)
class Echoes:
    """What scans report: [N].

    Attributes:
        beam: int64; distance: float32, without noise; intensity: float32, 0..1.
        hit: int64, row of `Met`, -1: a drop of fog or rain, or a halo.
    """

    beam: Tensor
    distance: Tensor
    intensity: Tensor
    hit: Tensor


@dataclass(frozen=True)
class Air:
    """Weather of S scans, float32 [S]: extinction (1/m), visibility (m), rain (mm/h), wetness."""

    extinction: Tensor
    visibility: Tensor
    rain: Tensor
    wetness: Tensor


def air(scans: int, loss: Loss, generator: torch.Generator, sweeps: int = 1) -> Air:
    """Weather drawn for every scan, as `sim.conditions` draws it; its `sweeps` share it."""
    device = generator.device
    drawn = torch.rand((4, scans // sweeps), device=device, generator=generator)
    kind, amount, chance, water = drawn.repeat(1, sweeps)
    foggy, rainy = kind < loss.fog, kind >= 1 - loss.rain
    low, high = math.log(40.0), math.log(300.0)
    visibility = torch.where(foggy, torch.exp(low + (high - low) * amount), math.inf)
    rain = torch.where(rainy, 2 + 33 * amount, 0.0)
    falling = 1.076e-3 * rain.pow(0.67) * math.log(10) / 10
    hazy = torch.where(rainy, 3 * (1 + rain / 3) / 12_000, 3 / visibility)
    extinction = torch.maximum(hazy, falling)  # a visibility in rain has the rain in it
    damp = (0.2 + 0.4 * water) * (chance < loss.damp)
    wetness = torch.where(rainy, (0.55 + rain / 40).clamp(max=1.0), damp)
    wetness = torch.where(foggy, wetness.clamp(min=0.3), wetness)
    return Air(extinction, visibility, rain, wetness)


def echoes(
    met: Met,
    beams: Beams,
    lidars: Sequence[Lidar],
    surfaces: Surfaces,
    loss: Loss,
    generator: torch.Generator,
    sweeps: int = 1,
) -> Echoes:
    """Which beams come back, from where and how strong.

    Args:
        met: what they hit.
        beams: of all scans.
        lidars: one a scan.
        surfaces: by material.
        loss: weather and losses to draw.
        generator: source of all randomness.
        sweeps: of each sensor: scan s is its newest, s + len(lidars) / sweeps the one before. They
            share the weather, and what the sensor has lost for good.
    """
    device, scans = met.distance.device, len(lidars)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    table = [(x.reach, 1 - x.dropout, len(x.elevations), x.firings) for x in lidars]
    reach, answering, rings, firings = torch.tensor(table, dtype=torch.float32, device=device).T
    weather = air(scans, loss, generator, sweeps)
    scan = beams.scan[met.beam]
    fall = ROUGH + (SMOOTH - ROUGH) * uniform(scans // sweeps).repeat(sweeps)
    bright = surfaces.reflectivity[met.kind]
    if surfaces.retro is not None:
        bright = torch.where(surfaces.retro[met.kind] > 0, RETRO, bright)
    power = bright * (met.facing + 1e-3).pow(fall[scan]) / BLACK
    power = power * (reach[scan] / met.distance).square()
    power = power * torch.exp(-2 * weather.extinction[scan] * met.distance)
    wet = weather.wetness[scan] * met.ground
    power = power * (1 - 0.5 * wet) * (1 - wet * (1 - met.facing).pow(1.5))
    # A lidar equation, softened, since real surfaces are no Lambertian mirrors.
    seen = torch.sigmoid(2 * torch.log(power)) * answering[scan] * (1 - surfaces.loss[met.kind])
    working = _working(beams, firings, scans, loss, generator, sweeps)
    halo = _halos(met, beams, rings.long(), firings.long(), surfaces, loss, generator)
    kept = (uniform(len(scan)) < seen) & (met.distance > NEAREST) & working[met.beam]
    kept = kept & ~torch.isfinite(halo)[met.beam]

    glow = _glow(halo, reach[beams.scan], weather.extinction[beams.scan])
    lit = uniform(len(glow)) < glow.square() / (glow.square() + 1) * answering[beams.scan]
    stronger = torch.where(lit, glow, 0.0)
    stronger[met.beam] = torch.where(kept, power, stronger[met.beam])
    soft = _droplets(weather, stronger, beams.scan, reach, generator)
    cloudy = (soft > NEAREST) & torch.isfinite(soft)
    soft = torch.where(cloudy, soft, torch.where(lit, halo, math.inf))
    soft = torch.where(working, soft, math.inf)
    ghost = torch.nonzero((soft > NEAREST) & torch.isfinite(soft)).flatten()
    covered = torch.zeros(len(beams.scan), dtype=torch.bool, device=device)
    covered[ghost] = True
    rows = torch.nonzero(kept & ~covered[met.beam]).flatten()
    intensity = _intensity(met, rows, power, surfaces, generator)
    faded = _faded(glow[ghost]) * (1 + SPECKLE * (2 * uniform(len(ghost)) - 1))
    dim = torch.where(cloudy[ghost], 0.05 * uniform(len(ghost)), GLOW * faded)
    beam = torch.cat([met.beam[rows], ghost])
    return Echoes(
        beam,
        torch.cat([met.distance[rows], soft[ghost]]),
        _varied(torch.cat([intensity, dim]), beams.scan[beam], scans, loss, generator, sweeps),
        torch.cat([rows, torch.full_like(ghost, -1)]),
    )


def _working(
    beams: Beams,
    firings: Tensor,
    scans: int,
    loss: Loss,
    generator: torch.Generator,
    sweeps: int,
) -> Tensor:
    """Beams [R] that dirt, broken rings and chance leave."""
    device, sensors = beams.scan.device, scans // sweeps
    sensor = beams.scan % sensors

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    turn = beams.azimuth / firings[beams.scan]
    first, width = uniform(sensors), 0.25 * uniform(sensors) * (uniform(sensors) < loss.sectors)
    working = torch.remainder(turn - first[sensor], 1.0) >= width[sensor]
    lost = loss.rings * uniform(sensors) * (uniform(sensors) < 0.5)
    broken = uniform(sensors, MOST_RINGS) < lost[:, None]
    working = working & ~broken[sensor, beams.row]
    thin = loss.beams * uniform(sensors) * (uniform(sensors) < 0.5)
    return working & (uniform(len(beams.scan)) >= thin[sensor])


def _halos(
    met: Met,
    beams: Beams,
    rings: Tensor,
    firings: Tensor,
    surfaces: Surfaces,
    loss: Loss,
    generator: torch.Generator,
) -> Tensor:
    """Distance [R] of the retro-reflector beside a beam that blinds it; inf: none does.

    A beam looks past what its neighbours in ring or azimuth hit, and reports it all the same.
    """
    device, scan = beams.scan.device, beams.scan
    nothing = torch.full((len(scan),), math.inf, device=device)
    if not loss.halos or surfaces.retro is None:
        return nothing
    retro = surfaces.retro[met.kind] > 0
    there, shining = nothing.clone(), nothing.clone()
    there[met.beam] = met.distance
    shining[met.beam] = torch.where(retro, met.distance, math.inf)
    size = rings * firings
    first = (size.cumsum(0) - size)[scan]  # beams of a scan go round, its rings one by one
    step, around = rings[scan], size[scan]
    place = torch.arange(len(scan), device=device) - first
    near = torch.where(beams.row > 0, shining.roll(1), math.inf)
    near = torch.minimum(near, torch.where(beams.row < step - 1, shining.roll(-1), math.inf))
    for way in (-step, step):
        near = torch.minimum(near, shining[first + torch.remainder(place + way, around)])
    drawn = torch.rand(len(scan), device=device, generator=generator)
    blooming = torch.rand(len(size), device=device, generator=generator) < loss.halos
    struck = drawn < 0.5 * (1 - near / HALO).clamp(0, 1) * blooming[scan]
    return torch.where(struck & (there > near + 0.3), near, math.inf)


def _glow(halo: Tensor, reach: Tensor, extinction: Tensor) -> Tensor:
    """Power [R] of beams that report a retro-reflector beside them: a grey wall's; 0: they do not.

    Args:
        halo: of `_halos`; reach (m), extinction (1/m): of the beams, [R].
    """
    at = halo.clamp(max=HALO)
    power = GLOW / BLACK * (reach / at).square() * torch.exp(-2 * extinction * at)
    return torch.where(torch.isfinite(halo), power, 0.0)


def _droplets(
    weather: Air, power: Tensor, scan: Tensor, reach: Tensor, generator: torch.Generator
) -> Tensor:
    """Distance [R] at which fog or a drop answers instead of the target; inf: nowhere."""
    found = torch.full_like(power, math.inf)
    cloudy = (weather.rain > 0) | torch.isfinite(weather.visibility)
    rows = torch.nonzero(cloudy[scan]).flatten()
    if not len(rows):
        return found
    scan, power, device = scan[rows], power[rows], power.device
    unit = reach[scan].square() / BLACK  # of a power in 1 / m^2

    def uniform() -> Tensor:
        return torch.rand(len(rows), device=device, generator=generator)

    def exponential() -> Tensor:
        return -torch.log1p(-uniform().clamp(max=1 - 1e-6))

    extinction, visibility = weather.extinction[scan], weather.visibility[scan]
    near = OVERLAP * torch.sqrt(uniform()) + exponential() / (2 * extinction + 1 / 3.0)
    answer = SOFT * math.pi * PULSE * 0.046 / visibility * torch.exp(-2 * extinction * near)
    answer = answer / near.clamp(min=OVERLAP).square() * exponential() * unit
    seen = uniform() * (answer.square() + 1) < answer.square()
    distance = torch.where(seen & (answer > power), near, math.inf)
    rain = weather.rain[scan]
    drop = NEAREST + DROPS * exponential()
    hit = uniform() < 1 - torch.exp(-0.0022 * rain.pow(0.6))
    strong = 0.012 / drop.square() * unit > power * uniform()
    found[rows] = torch.where(hit & strong & (rain > 0), drop, distance)
    return found


def _intensity(
    met: Met, rows: Tensor, power: Tensor, surfaces: Surfaces, generator: torch.Generator
) -> Tensor:
    """Intensity 0..1 that sensors report, corrected for range, of `rows` of `met`."""
    kind = met.kind[rows]
    noise = torch.randn(len(rows), device=power.device, generator=generator)
    shine = met.facing[rows].clamp(min=1e-3).pow(GLOSS)
    plain = surfaces.reflectivity[kind] * shine * _faded(power[rows])
    plain = plain * (1 + SPECKLE * noise)
    if surfaces.retro is not None:
        plain = torch.where(surfaces.retro[kind] > 0, 0.97 + 0.02 * noise, plain)
    return plain.clamp(0, 1)


def _faded(power: Tensor) -> Tensor:
    """Share of the intensity that returns of so much power are reported with."""
    square = power.square()
    return square / (square + 9)


def _varied(
    intensity: Tensor,
    scan: Tensor,
    scans: int,
    loss: Loss,
    generator: torch.Generator,
    sweeps: int,
) -> Tensor:
    """Intensity as other sensors would report it."""
    sensors = scans // sweeps
    sensor = scan % sensors
    drawn = torch.randn((2, sensors), device=scan.device, generator=generator)
    muted = torch.rand(sensors, device=scan.device, generator=generator) < loss.mute
    gain, gamma = torch.exp(drawn * torch.tensor([[loss.gain], [loss.gamma]], device=scan.device))
    varied = (intensity.clamp(min=1e-6).pow(gamma[sensor]) * gain[sensor]).clamp(0, 1)
    return varied * ~muted[sensor]
