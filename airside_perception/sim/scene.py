"""Scenes: what stands where at one time, as triangles and labels in the vehicle's frame.

A `Scenario` is a small world in which actors and the vehicle move; `Scenario.at(t)` is the `Scene`
around the vehicle, in base_link: origin on the ground under the vehicle, x forward, y left, z up.
The ground is a plane through that origin, slightly inclined for drainage; base_link stays upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import invert, rotation_z, transform, wrap_angle
from airside_perception.sim.bodies import SMALL, Body
from airside_perception.sim.lamps import Lamp, Lamps, ego, of_vehicle
from airside_perception.sim.materials import Materials
from airside_perception.sim.mesh import Mesh, halved, merge
from airside_perception.sim.rows import turned
from airside_perception.types import Float32, Float64

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Motion:
    """A pose that moves with constant speed and turn rate: x, y (m), yaw (rad), m/s, rad/s."""

    x: float
    y: float
    yaw: float
    speed: float = 0.0
    turn: float = 0.0

    def pose(self, t: float) -> tuple[float, float, float]:
        """(x, y, yaw) at `t` seconds: an arc, or a line where the turn rate is about 0."""
        x, y, yaw = self.poses(np.array([t]))[0].tolist()
        return x, y, yaw

    def poses(self, times: Float64) -> Float64:
        """(x, y, yaw) float64 [N, 3] at `times` [N], seconds."""
        middle = self.yaw + self.turn * times / 2
        if abs(self.turn) < 1e-6:
            chord = self.speed * times
        else:
            chord = 2 * self.speed / self.turn * np.sin(self.turn * times / 2)
        return np.column_stack(
            [
                self.x + chord * np.cos(middle),
                self.y + chord * np.sin(middle),
                self.yaw + self.turn * times,
            ]
        )

    @property
    def moves(self) -> bool:
        """Whether the pose changes."""
        return self.speed != 0.0 or self.turn != 0.0

    def velocity(self, t: float) -> Float64:
        """(vx, vy) at `t`, float64 [2], m/s."""
        yaw = self.yaw + self.turn * t
        return self.speed * np.array([np.cos(yaw), np.sin(yaw)])


@dataclass(frozen=True)
class Actor:
    """A body that moves, or stands with speed 0."""

    body: Body
    motion: Motion


class _Standing(NamedTuple):
    """An actor that never moves, in the world: its mesh is made once."""

    pose: tuple[float, float, float]
    velocity: Float64
    mesh: Mesh


@dataclass(frozen=True)
class Objects:
    """The labelled objects of a scene, one row each.

    Attributes:
        classes: N names of `sim.bodies.CLASSES`, or of SMALL where those are kept.
        boxes: float64 [N, 7], (x, y, z of the centre, length, width, height, yaw) in base_link.
        velocities: float64 [N, 2], over ground, in base_link's axes, m/s.
        ids: int64 [N], the same for an object at all times.
    """

    classes: tuple[str, ...]
    boxes: Float64
    velocities: Float64
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    @staticmethod
    def none() -> Objects:
        """No objects."""
        return Objects((), np.empty((0, 7)), np.empty((0, 2)), np.empty(0, np.int64))


@dataclass(frozen=True)
class Scene:
    """One moment of a scenario in base_link.

    Attributes:
        triangles: float32 [T, 3, 3], counter-clockwise seen from outside.
        instance: int32 [T], row in `objects`, -1 for what has no label.
        material: int32 [T], row in `materials`.
        slope: the ground is z = slope[0] x + slope[1] y.
        ground: row in `materials` of the ground.
        base2world: float64 [4, 4], pose of base_link in the world, for odometry.
        actor: int32 [T], row of the scenario's actors, -1 for structure; empty: not known.
        small: what is labelled but kept apart from `objects`: cones, chocks, foreign objects.
        lamps: all that may be lit, those of the vehicle itself first.
        twist: (m/s forward, rad/s to the left) of base_link.
        speeds: float32 [A, 2], velocity over ground of the scenario's actors, in base_link's axes.
    """

    triangles: Float32
    instance: Int32
    material: Int32
    objects: Objects
    materials: Materials
    slope: tuple[float, float]
    ground: int
    base2world: Float64
    actor: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    small: Objects = field(default_factory=Objects.none)
    lamps: Lamps = field(default_factory=lambda: Lamps.of((), np.eye(4), np.zeros(2)))
    twist: tuple[float, float] = (0.0, 0.0)
    speeds: Float32 = field(default_factory=lambda: np.empty((0, 2), np.float32))

    @cached_property
    def up(self) -> Float32:
        """Unit normal float32 [3] of the ground."""
        normal = np.array([-self.slope[0], -self.slope[1], 1.0])
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float32)

    @cached_property
    def normals(self) -> Float32:
        """Unit normals float32 [T + 1, 3] of the triangles, then of the ground."""
        return np.concatenate([normals(self.triangles), self.up[None]])

    @cached_property
    def pieces(self) -> tuple[Float32, NDArray[np.bool_]]:
        """The triangles, long ones in pieces, float32 [P, 3, 3], and whether labelled, [P]."""
        found, row = halved(self.triangles, 1.0, 0.3)
        return found, self.instance.take(row) >= 0

    @cached_property
    def materials_of(self) -> Int32:
        """Rows of `materials`, int32 [T + 1], of the triangles, then of the ground."""
        return np.append(self.material, self.ground).astype(np.int32)


@dataclass(frozen=True)
class Scenario:
    """A world with actors and a moving vehicle.

    Attributes:
        structure: all that stands still and has no label, world frame, on level ground.
        actors: what is labelled or moves.
        ego: motion of base_link.
        slope: inclination of the ground along world x and y.
        lamps: those that stand still, world frame, on level ground.
    """

    structure: Mesh
    actors: tuple[Actor, ...]
    ego: Motion
    materials: Materials
    ground: int
    slope: tuple[float, float] = (0.0, 0.0)
    lamps: tuple[Lamp, ...] = ()

    def pose(self, t: float) -> Float64:
        """Pose [4, 4] of base_link in the world: upright, on the ground."""
        x, y, yaw = self.ego.pose(t)
        return transform(rotation_z(yaw), np.array([x, y, self.slope[0] * x + self.slope[1] * y]))

    @cached_property
    def _standing(self) -> dict[int, _Standing]:
        """The actors that never move, by row."""
        found = {}
        for number, actor in enumerate(self.actors):
            if not actor.motion.moves:
                x, y, heading = pose = actor.motion.pose(0.0)
                mesh = actor.body.mesh.moved((x, y, 0.0), heading)
                found[number] = _Standing(pose, actor.motion.velocity(0.0), mesh)
        return found

    def at(self, t: float, reach: float = 130.0) -> Scene:
        """The scene at `t` seconds, with the actors whose centres are within `reach` metres."""
        x, y, yaw = self.ego.pose(t)
        slope = np.array(self.slope)
        base2world = self.pose(t)
        meshes, rows = [self.structure], [-1]
        labelled: list[tuple[int, int]] = []
        objects, small = _Rows(), _Rows()
        lamps = [lamp.moved(x, y, yaw) for lamp in ego()] + list(self.lamps)
        speeds = np.zeros((len(self.actors), 2))
        for number, actor in enumerate(self.actors):
            body = actor.body
            still = self._standing.get(number)
            ax, ay, heading = still.pose if still else actor.motion.pose(t)
            speeds[number] = still.velocity if still else actor.motion.velocity(t)
            if np.hypot(ax - x, ay - y) > reach:
                continue
            meshes.append(still.mesh if still else body.mesh.moved((ax, ay, 0.0), heading))
            rows.append(number)
            lit = [*body.lamps, *of_vehicle(body.label, body.box, actor.motion.speed != 0.0)]
            lamps += [lamp.moved(ax, ay, heading) for lamp in lit]
            if not body.label:
                labelled.append((-1, 0))
                continue
            kept = small if body.label in SMALL else objects
            labelled.append((-1, 0) if kept is small else (len(objects.ids), body.labelled))
            centre = (ax, ay, body.box[2] + float(slope @ [ax, ay]))
            kept.add(number, body.label, [*centre, *body.box[3:], heading], speeds[number])
        whole = merge(meshes)
        sizes = [len(mesh) for mesh in meshes]
        instance = np.full(len(whole), -1, np.int32)
        for first, (row, count) in zip(np.cumsum(sizes), labelled):  # noqa: B905  one sum is over
            instance[first : first + count] = row
        points = whole.triangles.reshape(-1, 3).T.astype(np.float64, order='C')
        # Everything stands on the inclined ground.
        points[2] += points[0] * slope[0] + points[1] * slope[1]
        points -= base2world[:3, 3:]
        points = turned(points.T, base2world[:3, :3])
        fall = base2world[:2, :2].T @ slope
        return Scene(
            triangles=points.astype(np.float32, order='C').reshape(-1, 3, 3),
            instance=instance,
            material=whole.materials,
            objects=objects.within(base2world, yaw),
            materials=self.materials,
            slope=(float(fall[0]), float(fall[1])),
            ground=self.ground,
            base2world=base2world,
            actor=np.repeat(np.array(rows, np.int32), sizes),
            small=small.within(base2world, yaw),
            lamps=Lamps.of(lamps, invert(base2world), slope),
            twist=(self.ego.speed, self.ego.turn),
            speeds=(speeds @ base2world[:2, :2]).astype(np.float32),
        )


def normals(triangles: Float32) -> Float32:
    """Unit normals float32 [T, 3] of triangles [T, 3, 3], outwards; 0 where there is no area."""
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(across, axis=1, keepdims=True)
    return np.asarray(across / np.maximum(length, 1e-12), dtype=np.float32)


class _Rows:
    """Collects objects in the world."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._classes: list[str] = []
        self._boxes: list[Sequence[float]] = []
        self._speeds: list[Float64] = []

    def add(self, number: int, label: str, box: Sequence[float], speed: Float64) -> None:
        """One object; box as in `Objects`, in the world."""
        self.ids.append(number)
        self._classes.append(label)
        self._boxes.append(box)
        self._speeds.append(speed)

    def within(self, base2world: Float64, yaw: float) -> Objects:
        """All of them in base_link."""
        rows = np.array(self._boxes, dtype=np.float64).reshape(-1, 7)
        rows[:, :3] = (rows[:, :3] - base2world[:3, 3]) @ base2world[:3, :3]
        rows[:, 6] = wrap_angle(rows[:, 6] - yaw)
        speeds = np.array(self._speeds, dtype=np.float64).reshape(-1, 2) @ base2world[:2, :2]
        return Objects(tuple(self._classes), rows, speeds, np.array(self.ids, dtype=np.int64))
