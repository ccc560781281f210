"""Spinning lidars: which way the beams go, and what comes back from what they hit.

Everything here is a pure function of arrays; what the beams hit is asked of a `Caster`, so a scan
can be cast by open3d here or by a batch ray-caster on a GPU: `finish` does the rest in both cases.

Model. A return is the stronger the more a surface reflects, the more it faces the beam and the
nearer it is: p = reflectivity cos(incidence) / range^2. Below `threshold` (in 1 / m^2) it is lost,
softly: kept with probability p^2 / (p^2 + threshold^2). Intensities are corrected for range, as
sensors report them: reflectivity cos(incidence)^`gloss`, near 1 for retro-reflectors, fading to 0
for returns that are hardly stronger than the threshold, in steps of 1 / 100. Set beside scans of a
real HDL-64: about a fifth of its intensities is 0; the road's is level to 30 m and 0 beyond 40 m.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import ConfigError
from airside_perception.sim.caster import Caster
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

    def __post_init__(self) -> None:
        if not self.elevations or self.azimuths < 1:
            raise ConfigError(
                f'lidar of {len(self.elevations)} beams and {self.azimuths} azimuths sees nothing'
            )
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


@dataclass(frozen=True)
class Scan:
    """One turn of a lidar.

    Attributes:
        points: float32 [N, 4], x, y, z in the sensor's frame, metres, and intensity 0..1.
        ring: uint16 [N], row of `LidarSpec.elevations`.
        instance: int32 [N], row of the scene's objects, -1 for anything else.
        clean: float32 [N], the range without noise, metres.
    """

    points: Float32
    ring: NDArray[np.uint16]
    instance: Int32
    clean: Float32 = field(repr=False)

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
    origin: Float64,
    directions: Float32,
    slope: tuple[float, float],
    reach: float = np.inf,
) -> Hits:
    """`hits` with the plane z = slope . (x, y) where that is nearer; directions in base_link."""
    normal = np.array([-slope[0], -slope[1], 1.0])
    height = np.float32(normal @ origin)
    down = directions @ normal.astype(np.float32)
    distance = np.full(len(down), np.inf, np.float32)
    np.divide(-height, down, out=distance, where=down < 0)
    first = (distance < hits.distance) & (distance < reach)
    return Hits(
        np.where(first, distance, hits.distance), np.where(first, np.int32(GROUND), hits.triangle)
    )


def normals(triangles: Float32) -> Float32:
    """Unit normals float32 [T, 3] of triangles [T, 3, 3], outwards; 0 where there is no area."""
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(across, axis=1, keepdims=True)
    return np.asarray(across / np.maximum(length, 1e-12), dtype=np.float32)


def incidence(scene: Scene, hits: Hits, directions: Float32) -> tuple[Float32, Int32]:
    """Cosine of incidence float32 [R], 0 where nothing is hit, and material int32 [R]."""
    slope = np.array([-scene.slope[0], -scene.slope[1], 1.0])
    table = np.concatenate([normals(scene.triangles), [slope / np.linalg.norm(slope)]]).astype(
        np.float32
    )
    material = np.concatenate([scene.material, [scene.ground]]).astype(np.int32)
    row = np.where(hits.triangle >= 0, hits.triangle, len(scene.triangles))
    facing = np.abs(np.einsum('ij,ij->i', table[row], directions))
    return np.where(np.isfinite(hits.distance), facing, np.float32(0)), material[row]


def returns(
    spec: LidarSpec,
    distance: Float32,
    facing: Float32,
    reflectivity: Float32,
    retro: NDArray[np.bool_],
    loss: Float32,
    rng: np.random.Generator,
) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    """Measured range [R], intensity [R] in 0..1 and whether the beam came back [R]."""
    count = len(distance)
    noise = rng.standard_normal((2, count), dtype=np.float32)
    luck = rng.random((3, count), dtype=np.float32)
    finite = np.isfinite(distance)
    clean = np.where(finite, distance, np.float32(0))
    measured = clean + np.float32(spec.range_sigma) * noise[0]
    power = np.where(retro, np.float32(20), reflectivity) * facing / np.maximum(clean, 0.1) ** 2
    kept = luck[0] < power**2 / (power**2 + spec.threshold**2)
    kept &= luck[1] >= 1 - (1 - loss) * (1 - spec.dropout)
    kept &= finite & (measured >= spec.min_range) & (measured <= spec.max_range)
    faded = power**2 / (power**2 + (3 * spec.threshold) ** 2)
    plain = (
        reflectivity
        * np.maximum(facing, 1e-3) ** spec.gloss
        * faded
        * (1 + spec.intensity_sigma * noise[1])
    )
    bright = 0.97 + 0.02 * noise[1]
    intensity = np.round(np.clip(np.where(retro, bright, plain), 0.0, 1.0), 2) * (
        luck[2] >= spec.faint
    )
    return measured, intensity.astype(np.float32), kept


def finish(
    spec: LidarSpec,
    scene: Scene,
    lidar2base: Float64,
    directions: Float32,
    hits: Hits,
    rng: np.random.Generator,
) -> Scan:
    """A scan from what the beams met.

    Args:
        spec: the sensor; scene: what was hit.
        lidar2base: float64 [4, 4], pose of the sensor in base_link.
        directions: `rays(spec)`, in the sensor's frame.
        hits: triangles only; the ground is added here.
        rng: source of all noise.
    """
    turned = (directions @ lidar2base[:3, :3].T.astype(np.float32)).astype(np.float32)
    hits = with_ground(hits, lidar2base[:3, 3], turned, scene.slope, spec.max_range + 1)
    facing, material = incidence(scene, hits, turned)
    table = scene.materials
    measured, intensity, kept = returns(
        spec,
        hits.distance,
        facing,
        table.reflectivity[material],
        table.retro[material],
        table.loss[material],
        rng,
    )
    index = np.flatnonzero(kept)
    points = np.empty((len(index), 4), np.float32)
    points[:, :3] = directions[index] * measured[index, None]
    points[:, 3] = intensity[index]
    triangle = hits.triangle[index]
    instance = np.where(triangle >= 0, scene.instance[np.maximum(triangle, 0)], np.int32(-1))
    ring = (index % len(spec.elevations)).astype(np.uint16)
    return Scan(points, ring, instance.astype(np.int32), hits.distance[index])


def scan(
    spec: LidarSpec, scene: Scene, caster: Caster, lidar2base: Float64, rng: np.random.Generator
) -> Scan:
    """A whole turn at once: the vehicle does not move within a scan."""
    directions = rays(spec)
    turned = (directions @ lidar2base[:3, :3].T.astype(np.float32)).astype(np.float32)
    hits = Hits(*caster.cast(lidar2base[:3, 3], turned))
    return finish(spec, scene, lidar2base, directions, hits, rng)
