"""A lidar that turns while the vehicle and everybody else move.

A turn takes `LidarSpec.period` and ends at the stamp: firing i of n is made (n - 1 - i) / n of a
period earlier. Every firing starts where the vehicle was then, and meets moving actors where they
were then. Drivers and odometry usually take the vehicle's own motion out of the points again
(`deskewed`); that of others stays in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.lidar import (
    Hits,
    LidarSpec,
    Scan,
    answer,
    assemble,
    cast,
    rays,
    with_ground,
)
from airside_perception.sim.outline import cells, covered
from airside_perception.sim.rows import picked, turned
from airside_perception.sim.scene import Actor, Scenario, Scene
from airside_perception.types import Float32, Float64, Int64

Open = Callable[[Float32], Caster]
Mask = NDArray[np.bool_]

ROUNDING = 0.01
"""Added to what encloses a moving actor, metres."""


@dataclass(frozen=True)
class Beams:
    """The R beams of one turn, in the order of `rays`.

    Attributes:
        local: float32 [R, 3], unit directions in the sensor's frame.
        origin, direction: float32 [R, 3], of each beam in base_link at the stamp; as `local`, they
            lie in memory axis by axis.
        time: float32 [R], seconds after the stamp, 0 or less.
        firings: in a turn; each fires R / firings beams at once.
    """

    local: Float32
    origin: Float32
    direction: Float32
    time: Float32
    firings: int


def firings(spec: LidarSpec) -> Float64:
    """Seconds after the stamp [azimuths] of each firing; the last is at the stamp."""
    return (np.arange(1, spec.azimuths + 1) / spec.azimuths - 1) * spec.period


def beams(spec: LidarSpec, scenario: Scenario, t: float, lidar2base: Float64) -> Beams:
    """Where the beams of the turn that ends at `t` seconds start and point."""
    local, rings = _local(spec), len(spec.elevations)
    times = firings(spec)
    turn, shift = _relative(scenario, t, times)
    mounted = turned(local, lidar2base[:3, :3].T).T.reshape(3, -1, rings)
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    direction = np.empty((3, spec.azimuths, rings), np.float32)
    direction[0] = c * mounted[0] - s * mounted[1]
    direction[1] = s * mounted[0] + c * mounted[1]
    direction[2] = mounted[2]
    x, y, z = lidar2base[:3, 3]
    start = np.stack([c[:, 0] * x - s[:, 0] * y, s[:, 0] * x + c[:, 0] * y, np.full(len(turn), z)])
    origin = np.repeat((start + shift.T).astype(np.float32), rings, axis=1).T
    return Beams(
        local,
        origin,
        direction.reshape(3, -1).T,
        np.repeat(times.astype(np.float32), rings),
        spec.azimuths,
    )


@lru_cache(maxsize=2)
def _local(spec: LidarSpec) -> Float32:
    """`rays` of a sensor, which lie in memory axis by axis, for reading only."""
    found = np.asfortranarray(rays(spec))
    found.setflags(write=False)
    return found


def _relative(scenario: Scenario, t: float, times: Float64) -> tuple[Float64, Float64]:
    """Turn [F] and place [F, 3] of base_link at `t + times` in base_link at `t`."""
    now = scenario.pose(t)
    then = scenario.ego.poses(t + times)
    shift = np.column_stack([then[:, :2], then[:, :2] @ np.array(scenario.slope)])
    yaw = scenario.ego.poses(np.array([t]))[0, 2]
    return then[:, 2] - yaw, (shift - now[:3, 3]) @ now[:3, :3]


def spin(
    spec: LidarSpec,
    scenario: Scenario,
    scene: Scene,
    t: float,
    caster: Caster,
    open_caster: Open,
    lidar2base: Float64,
    rng: np.random.Generator,
    conditions: Conditions | None = None,
    deskewed: bool = True,
) -> Scan:
    """The turn that ends at `t`.

    Args:
        spec: the sensor.
        scenario: the world; scene: `scenario.at(t)`.
        t: seconds.
        caster: over the scene's triangles; open_caster: makes one over those of an actor.
        lidar2base: float64 [4, 4], pose of the sensor in base_link.
        rng: source of all noise; conditions: of air and ground.
        deskewed: whether points are in the sensor's frame at the stamp; if not, each is in that
            at its own time, as if the vehicle had stood still.
    """
    fired = beams(spec, scenario, t, lidar2base)
    hits = meet(scenario, scene, t, fired, caster, open_caster, spec)
    hits = with_ground(hits, fired.origin, fired.direction, scene.slope, spec.max_range + 1)
    echoes, clean = answer(spec, scene, fired.direction, hits, rng, conditions)
    index = np.flatnonzero(echoes.kept)
    reach = echoes.distance[index, None]
    if deskewed:
        places = picked(fired.origin, index) + picked(fired.direction, index) * reach
        base2lidar = lidar2base[:3, :3].astype(np.float32)
        places = turned(places - lidar2base[:3, 3].astype(np.float32), base2lidar)
    else:
        places = picked(fired.local, index) * reach
    return assemble(spec, scene, index, places, echoes, hits, clean, fired.time)


def meet(
    scenario: Scenario,
    scene: Scene,
    t: float,
    fired: Beams,
    caster: Caster,
    open_caster: Open,
    spec: LidarSpec,
) -> Hits:
    """What the beams hit of a world in motion, the ground left out."""
    moving = [n for n in np.unique(scene.actor) if n >= 0 and scenario.actors[n].motion.moves]
    hits = cast(caster, fired.origin, fired.direction, _near(scene, fired))
    distance, triangle = hits.distance.copy(), hits.triangle.copy()
    _see_through(scene, np.isin(scene.actor, moving), fired, caster, distance, triangle)
    bearing, spread = _bearings(fired, len(spec.elevations))
    for number in moving:
        mine = np.flatnonzero(scene.actor == number)
        strays = _strays(scenario.actors[number], spec.period)
        rows = _towards(scene.triangles[mine], strays, scene.slope, fired, bearing, spread, spec)
        if not len(rows):
            continue
        origin, direction = _as_at_the_stamp(scenario, scene, int(number), t, fired, rows)
        found, which = open_caster(scene.triangles[mine]).cast(origin, direction)
        first = found < distance[rows]
        distance[rows[first]] = found[first]
        triangle[rows[first]] = mine[which[first]]
    return Hits(distance, triangle)


def _near(scene: Scene, fired: Beams) -> Mask:
    """Which beams [R] may meet anything of the scene, wherever the vehicle was in the turn."""
    starts = fired.origin[:: len(fired.time) // fired.firings]
    low, high = starts.min(axis=0), starts.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    # A little more, for rounding.
    shift, lift = 1.001 * float(np.hypot(*half[:2])) + 1e-4, float(half[2]) + 1e-4
    seen = covered(scene, middle.astype(np.float64), shift, lift)
    return seen.anything.take(cells(fired.direction))


def _see_through(
    scene: Scene,
    moves: NDArray[np.bool_],
    fired: Beams,
    caster: Caster,
    distance: Float32,
    triangle: NDArray[np.int32],
) -> None:
    """Puts what stands still behind the triangles that move [T] in their place, in place.

    Where those are at the stamp is not where the beams met them.
    """
    blocked = np.flatnonzero((triangle >= 0) & np.append(moves, False)[triangle])
    distance[blocked], triangle[blocked] = np.inf, -1
    origin, direction = picked(fired.origin, blocked), picked(fired.direction, blocked)
    ray, met, way = caster.through(origin, direction)
    still = ~moves[met]
    ray, met, way = ray[still], met[still], way[still]
    order = np.lexsort((met, way))[::-1]  # the nearest is written last
    distance[blocked[ray[order]]] = way[order]
    triangle[blocked[ray[order]]] = met[order]


def _bearings(fired: Beams, rings: int) -> tuple[Float32, float]:
    """Bearing [F] of each firing, and how far that of a ring may differ: the mounting may tilt."""
    x, y, _ = (plane.reshape(-1, rings)[:, [0, rings // 2, -1]] for plane in fired.direction.T)
    angles = np.arctan2(y, x)
    off = angles - angles[:, 1:2]
    off -= np.float32(2 * np.pi) * np.rint(off * np.float32(0.5 / np.pi))
    return angles[:, 1], 1.5 * float(np.abs(off).max()) + 1e-3


def _strays(actor: Actor, period: float) -> float:
    """How far a point of an actor may move in `period` seconds, metres."""
    points = actor.body.mesh.triangles.reshape(-1, 3)
    reach = float(np.hypot(points[:, 0], points[:, 1]).max())
    return (abs(actor.motion.speed) + abs(actor.motion.turn) * reach) * period


def _towards(
    triangles: Float32,
    strays: float,
    slope: tuple[float, float],
    fired: Beams,
    bearing: Float32,
    spread: float,
    spec: LidarSpec,
) -> Int64:
    """The beams [N] that may meet a moving actor: a cylinder around its `triangles` at the stamp,
    as much wider as it `strays` and the vehicle moves in a turn.
    """
    rings = len(spec.elevations)
    starts = fired.origin[::rings]
    last = starts[-1]
    shift = float(np.hypot(starts[:, 0] - last[0], starts[:, 1] - last[1]).max())
    points = triangles.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high)[:2] / 2
    away = middle - last[:2]
    reach = float(np.hypot(*away))
    radius = float(np.hypot(*(points[:, :2] - middle).T).max()) + strays + shift + ROUNDING
    if reach > spec.max_range + 1 + radius:
        return np.empty(0, np.int64)
    if reach > radius:
        half = float(np.arcsin(radius / reach)) + spread
        off = bearing - np.float32(np.arctan2(away[1], away[0]))
        off -= np.float32(2 * np.pi) * np.rint(off * np.float32(0.5 / np.pi))
        seen = np.flatnonzero(np.abs(off) < half)
    else:
        seen = np.arange(len(bearing))
    # Actors and the vehicle slide along the slope.
    lift = (strays + shift) * float(np.hypot(*slope)) + ROUNDING
    bottom, top = float(low[2] - last[2]) - lift, float(high[2] - last[2]) + lift
    near, far = max(reach - radius, 0.0), reach + radius
    rise = fired.direction[:, 2].reshape(-1, rings)[seen]
    lowest = bottom / np.hypot(bottom, near if bottom < 0 else far)
    highest = top / np.hypot(top, near if top > 0 else far)
    firing, ring = np.nonzero((rise > lowest - 1e-4) & (rise < highest + 1e-4))
    return np.asarray(seen[firing] * rings + ring)


def _as_at_the_stamp(
    scenario: Scenario, scene: Scene, number: int, t: float, fired: Beams, rows: Int64
) -> tuple[Float32, Float32]:
    """Beams `rows` [N] as an actor meets them, were it always where it is at `t`.

    The motion that takes the actor from where it was to where it is at `t` takes the beam along.
    On inclined ground that motion slides along the slope, so heights are taken above the ground.

    Returns:
        Origins [N, 3] and directions [N, 3] of the beams in base_link.
    """
    rings = len(fired.time) // fired.firings
    times = t + fired.time[::rings].astype(np.float64)
    base = scenario.pose(t)
    world = scenario.actors[number].motion.poses(np.append(times, t))
    places = (world[:, :2] - base[:2, 3]) @ base[:2, :2]
    turn = world[-1, 2] - world[:-1, 2]
    c, s = np.cos(turn), np.sin(turn)
    # x' = c x - s y + a, y' = s x + c y + b, by firing
    a = places[-1, 0] - c * places[:-1, 0] + s * places[:-1, 1]
    b = places[-1, 1] - s * places[:-1, 0] - c * places[:-1, 1]
    sx, sy = (np.float32(value) for value in scene.slope)
    firing = rows // rings
    c, s, a, b = (value.astype(np.float32).take(firing) for value in (c, s, a, b))

    def taken(v: Float32, a: Float32 | int, b: Float32 | int) -> Float32:
        x, y, z = v.T
        moved = np.empty((3, len(x)), np.float32)
        moved[0] = c * x - s * y + a
        moved[1] = s * x + c * y + b
        moved[2] = z + sx * (moved[0] - x) + sy * (moved[1] - y)
        return moved.T

    return taken(picked(fired.origin, rows), a, b), taken(picked(fired.direction, rows), 0, 0)
