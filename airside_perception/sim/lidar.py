"""Spinning lidars: which way the beams go, and what comes back from what they hit.

Everything here is a pure function of arrays; what the beams hit is asked of a `Caster`, so a scan
can be cast by open3d here or by a batch ray-caster on a GPU: `finish` does the rest in both cases.

Model. A return of power p (see `returns`) below `threshold` (in 1 / m^2) is lost, softly: kept
with probability p^2 / (p^2 + threshold^2). Intensities are corrected for range, as sensors report
them: reflectivity cos(incidence)^`gloss`, near 1 for retro-reflectors, fading to 0 for returns
that are hardly stronger than the threshold, in steps of 1 / 100. Set beside scans of a real
HDL-64: about a fifth of its intensities is 0; the road's is level to 30 m and 0 beyond 40 m.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.returns import (
    Echoes,
    droplets,
    halo,
    returns,
    strength,
    transmission,
    wet,
)
from airside_perception.sim.rows import picked
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64

Int32 = NDArray[np.int32]

GROUND = -2
"""Triangle index of the ground plane in `Hits`."""


@dataclass(frozen=True)
class LidarSpec:
    """A spinning lidar.

    Attributes:
        elevations: beam angles above the horizontal, radians, one a ring, highest first.
        azimuths: firings a turn.
        min_range, max_range: metres.
        range_sigma: noise of the range, metres.
        dropout: share of returns lost at random.
        threshold: weakest return, 1 / m^2; see the module.
        gloss: exponent of the cosine of incidence in the intensity.
        intensity_sigma: relative noise of the intensity.
        faint: share of returns whose intensity is reported as 0.
        period: of a turn, seconds.
    """

    elevations: tuple[float, ...]
    azimuths: int = 1024
    min_range: float = 1.0
    max_range: float = 120.0
    range_sigma: float = 0.02
    dropout: float = 0.01
    threshold: float = 3e-6
    gloss: float = 0.15
    intensity_sigma: float = 0.15
    faint: float = 0.02
    period: float = 0.1

    def __post_init__(self) -> None:
        if not self.elevations or self.azimuths < 1:
            raise ConfigError(
                f'lidar of {len(self.elevations)} beams and {self.azimuths} azimuths sees nothing'
            )
        if not self.period > 0:
            raise ConfigError(f'a turn of {self.period} s: expected more than 0')
        if not 0 <= self.min_range < self.max_range:
            raise ConfigError(f'lidar range {self.min_range} .. {self.max_range} m is empty')


def even(beams: int, low: float, high: float) -> tuple[float, ...]:
    """Elevations of `beams` rings from `high` down to `low` degrees, in radians."""
    return tuple(np.deg2rad(np.linspace(high, low, beams)).tolist())


PRESETS: dict[str, LidarSpec] = {
    # The roof lidar of the default rig: 64 even rings, wide enough to see an aircraft's fin.
    'roof64': LidarSpec(even(64, -25.0, 15.0), azimuths=1024),
    'roof128': LidarSpec(even(128, -25.0, 15.0), azimuths=1800, max_range=200.0),
    'roof32': LidarSpec(even(32, -25.0, 15.0), azimuths=1024),
    # Elevations as Velodyne's manuals give them: two blocks of 32, 1/3 and 1/2 degree apart.
    'hdl64': LidarSpec(
        tuple(
            np.deg2rad(np.concatenate([2 - np.arange(32) / 3, -8.83 - np.arange(32) / 2])).tolist()
        ),
        azimuths=2083,
        range_sigma=0.015,
        max_range=100.0,
        threshold=5e-6,
        faint=0.15,
    ),
    'hdl32': LidarSpec(even(32, -30.67, 10.67), azimuths=1084, max_range=90.0),
}


@dataclass(frozen=True)
class Hits:
    """What R beams meet: distance float32 [R] (inf: nothing), triangle int32 [R] (-1, GROUND)."""

    distance: Float32
    triangle: Int32

    def at(self, rows: NDArray[np.int64]) -> Hits:
        """Those of some beams."""
        return Hits(self.distance[rows], self.triangle[rows])


def cast(
    caster: Caster,
    origin: NDArray[Any],
    directions: Float32,
    near: NDArray[np.bool_] | None = None,
) -> Hits:
    """What rays [R] meet first; not asked of those that are not `near` [R] anything, if given.

    `origin` and `directions` are those of `Caster.cast`.
    """
    if near is None:
        return Hits(*caster.cast(origin, directions))
    rows = np.flatnonzero(near)
    start = picked(origin, rows) if origin.ndim == 2 else origin
    distance = np.full(len(directions), np.inf, np.float32)
    triangle = np.full(len(directions), -1, np.int32)
    distance[rows], triangle[rows] = caster.cast(start, picked(directions, rows))
    return Hits(distance, triangle)


@dataclass(frozen=True)
class Scan:
    """One turn of a lidar.

    Attributes:
        points: float32 [N, 4], x, y, z in the sensor's frame, metres, and intensity 0..1.
        ring: uint16 [N], row of `LidarSpec.elevations`.
        instance: int32 [N], row of the scene's objects, -1 for anything else.
        clean: float32 [N], the range without noise, metres.
        triangle: int32 [N], what was hit, -1: fog, a drop or a halo; GROUND.
        time: float32 [N], when each was measured, seconds after the stamp: 0 or less.
    """

    points: Float32
    ring: NDArray[np.uint16]
    instance: Int32
    clean: Float32 = field(repr=False)
    triangle: Int32 = field(repr=False)
    time: Float32 = field(repr=False)

    def counts(self, objects: int) -> NDArray[np.int64]:
        """Points on each of the scene's `objects`, int64 [objects]."""
        return np.bincount(self.instance[self.instance >= 0], minlength=objects)


def rays(spec: LidarSpec) -> Float32:
    """Unit directions float32 [azimuths * beams, 3] in the sensor's frame; the ring runs fastest.

    The first firing looks backwards and the sensor turns clockwise seen from above, so that the
    seam of a turn lies behind the vehicle.
    """
    azimuth = np.pi - np.arange(spec.azimuths) * (2 * np.pi / spec.azimuths)
    elevation = np.asarray(spec.elevations)
    flat, up = np.cos(elevation), np.sin(elevation)
    directions = np.stack(
        [
            np.cos(azimuth)[:, None] * flat,
            np.sin(azimuth)[:, None] * flat,
            np.broadcast_to(up, (spec.azimuths, len(up))),
        ],
        axis=2,
    )
    return directions.reshape(-1, 3).astype(np.float32)


def with_ground(
    hits: Hits,
    origin: NDArray[Any],
    directions: Float32,
    slope: tuple[float, float],
    reach: float = np.inf,
) -> Hits:
    """`hits` with the plane z = slope . (x, y) where that is nearer; directions in base_link.

    `origin` is [3], or [R, 3] where every ray has its own.
    """
    height = np.float32(-1) * (
        origin[..., 2] - origin[..., 0] * slope[0] - origin[..., 1] * slope[1]
    )
    # By hand: a matrix product would wake a pool of threads for three multiplications.
    down = directions[:, 0] * np.float32(-slope[0])
    down -= directions[:, 1] * np.float32(slope[1])
    down += directions[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        distance = height.astype(np.float32) / down
    first = (down < 0) & (distance < hits.distance) & (distance < reach)
    return Hits(
        np.where(first, distance, hits.distance), np.where(first, np.int32(GROUND), hits.triangle)
    )


def incidence(scene: Scene, hits: Hits, directions: Float32) -> tuple[Float32, Int32]:
    """Cosine of incidence float32 [R], 0 where nothing is hit, and material int32 [R]."""
    row = np.where(hits.triangle >= 0, hits.triangle, np.int32(len(scene.triangles)))
    facing = np.zeros(len(row), np.float32)
    for axis in range(3):
        facing += scene.normals[:, axis].take(row) * directions[:, axis]
    np.abs(facing, out=facing)
    return np.where(np.isfinite(hits.distance), facing, np.float32(0)), scene.materials_of[row]


def finish(
    spec: LidarSpec,
    scene: Scene,
    lidar2base: Float64,
    directions: Float32,
    hits: Hits,
    rng: np.random.Generator,
    conditions: Conditions | None = None,
) -> Scan:
    """A scan from what the beams met, all beams fired at once.

    Args:
        spec: the sensor; scene: what was hit.
        lidar2base: float64 [4, 4], pose of the sensor in base_link.
        directions: `rays(spec)`, in the sensor's frame.
        hits: triangles only; the ground is added here.
        rng: source of all noise.
        conditions: of the air and of the ground; None: clear and dry, without halos.
    """
    turned = (directions @ lidar2base[:3, :3].T.astype(np.float32)).astype(np.float32)
    hits = with_ground(hits, lidar2base[:3, 3], turned, scene.slope, spec.max_range + 1)
    echoes, clean = answer(spec, scene, turned, hits, rng, conditions)
    index = np.flatnonzero(echoes.kept)
    places = directions[index] * echoes.distance[index, None]
    return assemble(spec, scene, index, places, echoes, hits, clean)


def answer(
    spec: LidarSpec,
    scene: Scene,
    turned: Float32,
    hits: Hits,
    rng: np.random.Generator,
    conditions: Conditions | None,
) -> tuple[Echoes, Float32]:
    """What beams [R] in base_link's directions `turned` bring back, and ranges without noise."""
    facing, material = incidence(scene, hits, turned)
    table = scene.materials
    reflectivity, retro = table.reflectivity.take(material), table.retro.take(material)
    loss, distance = table.loss.take(material), hits.distance
    if conditions is None:
        measured, intensity, kept = returns(spec, distance, facing, reflectivity, retro, loss, rng)
        return Echoes(measured, intensity, kept, np.zeros(len(kept), bool)), distance
    blinding = halo(spec, distance, retro & (facing > 0), rng)
    blind = np.isfinite(blinding)
    distance = np.where(blind, blinding, distance)
    reflectivity = np.where(blind, np.float32(0.3), reflectivity)
    retro, loss = retro & ~blind, np.where(blind, np.float32(0), loss)
    facing = np.where(blind, np.float32(1), facing)
    gain = transmission(conditions, distance)
    gain *= wet(conditions, facing, (hits.triangle == GROUND) & ~blind)
    measured, intensity, kept = returns(
        spec, distance, facing, reflectivity, retro, loss, rng, gain
    )
    power = strength(distance, facing, reflectivity, retro) * gain
    cloud = droplets(spec, conditions, np.where(kept, power, np.float32(0)), rng)
    soft = np.isfinite(cloud) & (cloud >= spec.min_range) & (cloud <= spec.max_range)
    dim = np.float32(0.01) * rng.integers(0, 6, len(soft)).astype(np.float32)
    echoes = Echoes(
        np.where(soft, cloud, measured),
        np.where(soft, dim, intensity),
        kept | soft,
        soft | blind,
    )
    return echoes, distance


def assemble(
    spec: LidarSpec,
    scene: Scene,
    index: NDArray[np.int64],
    places: Float32,
    echoes: Echoes,
    hits: Hits,
    clean: Float32,
    time: Float32 | None = None,
) -> Scan:
    """The reported points of the beams at `index`, which are at `places` [N, 3]."""
    points = np.empty((len(index), 4), np.float32)
    points[:, :3] = places
    points[:, 3] = echoes.intensity[index]
    triangle = np.where(echoes.ghost[index], np.int32(-1), hits.triangle[index])
    first = np.maximum(triangle, 0)
    return Scan(
        points,
        (index % len(spec.elevations)).astype(np.uint16),
        np.where(triangle >= 0, scene.instance[first], np.int32(-1)),
        clean[index],
        triangle,
        np.zeros(len(index), np.float32) if time is None else time[index],
    )


def scan(
    spec: LidarSpec,
    scene: Scene,
    caster: Caster,
    lidar2base: Float64,
    rng: np.random.Generator,
    conditions: Conditions | None = None,
) -> Scan:
    """A whole turn at once: nothing moves within a scan; `rolling.spin` is the other way."""
    directions = rays(spec)
    turned = (directions @ lidar2base[:3, :3].T.astype(np.float32)).astype(np.float32)
    hits = Hits(*caster.cast(lidar2base[:3, 3], turned))
    return finish(spec, scene, lidar2base, directions, hits, rng, conditions)
