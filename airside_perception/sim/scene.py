"""Scenes: what stands where at one time, as triangles and labels in the vehicle's frame.

A `Scenario` is a small world in which actors and the vehicle move; `Scenario.at(t)` is the `Scene`
around the vehicle, in base_link: origin on the ground under the vehicle, x forward, y left, z up.
The ground is a plane through that origin, slightly inclined for drainage; base_link stays upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airside_perception.geometry import rotation_z, transform, wrap_angle
from airside_perception.sim.bodies import Body
from airside_perception.sim.materials import Materials
from airside_perception.sim.mesh import Mesh, merge
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
        yaw = self.yaw + self.turn * t
        if abs(self.turn) < 1e-6:
            middle, chord = self.yaw, self.speed * t
        else:
            middle = self.yaw + self.turn * t / 2
            chord = 2 * self.speed / self.turn * np.sin(self.turn * t / 2)
        return self.x + chord * np.cos(middle), self.y + chord * np.sin(middle), yaw

    def velocity(self, t: float) -> Float64:
        """(vx, vy) at `t`, float64 [2], m/s."""
        yaw = self.yaw + self.turn * t
        return self.speed * np.array([np.cos(yaw), np.sin(yaw)])


@dataclass(frozen=True)
class Actor:
    """A body that moves, or stands with speed 0."""

    body: Body
    motion: Motion


@dataclass(frozen=True)
class Objects:
    """The labelled objects of a scene, one row each.

    Attributes:
        classes: N names of `sim.bodies.CLASSES`.
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
    """

    triangles: Float32
    instance: Int32
    material: Int32
    objects: Objects
    materials: Materials
    slope: tuple[float, float]
    ground: int
    base2world: Float64


@dataclass(frozen=True)
class Scenario:
    """A world with actors and a moving vehicle.

    Attributes:
        structure: all that stands still and has no label, world frame, on level ground.
        actors: what is labelled or moves.
        ego: motion of base_link.
        slope: inclination of the ground along world x and y.
    """

    structure: Mesh
    actors: tuple[Actor, ...]
    ego: Motion
    materials: Materials
    ground: int
    slope: tuple[float, float] = (0.0, 0.0)

    def pose(self, t: float) -> Float64:
        """Pose [4, 4] of base_link in the world: upright, on the ground."""
        x, y, yaw = self.ego.pose(t)
        return transform(rotation_z(yaw), np.array([x, y, self.slope[0] * x + self.slope[1] * y]))

    def at(self, t: float, reach: float = 130.0) -> Scene:
        """The scene at `t` seconds, with the actors whose centres are within `reach` metres."""
        x, y, yaw = self.ego.pose(t)
        slope = np.array(self.slope)
        base2world = self.pose(t)
        meshes, instances = [self.structure], [np.full(len(self.structure), -1, np.int32)]
        classes: list[str] = []
        boxes, velocities, ids = [], [], []
        for number, actor in enumerate(self.actors):
            ax, ay, heading = actor.motion.pose(t)
            if np.hypot(ax - x, ay - y) > reach:
                continue
            mesh = actor.body.mesh.moved((ax, ay, 0.0), heading)
            meshes.append(mesh)
            instance = np.full(len(mesh), -1, np.int32)
            instance[: actor.body.labelled] = len(classes)
            instances.append(instance)
            if actor.body.label:
                classes.append(actor.body.label)
                centre = (ax, ay, actor.body.box[2] + float(slope @ [ax, ay]))
                boxes.append([*centre, *actor.body.box[3:], heading])
                velocities.append(actor.motion.velocity(t))
                ids.append(number)
        whole = merge(meshes)
        points = whole.triangles.reshape(-1, 3).astype(np.float64)
        points[:, 2] += points[:, :2] @ slope  # everything stands on the inclined ground
        points = (points - base2world[:3, 3]) @ base2world[:3, :3]
        fall = base2world[:2, :2].T @ slope
        return Scene(
            triangles=points.reshape(-1, 3, 3).astype(np.float32),
            instance=np.concatenate(instances),
            material=whole.materials,
            objects=_in_base(classes, boxes, velocities, ids, base2world, yaw),
            materials=self.materials,
            slope=(float(fall[0]), float(fall[1])),
            ground=self.ground,
            base2world=base2world,
        )


def _in_base(
    classes: Sequence[str],
    boxes: Sequence[Sequence[float]],
    velocities: Sequence[Float64],
    ids: Sequence[int],
    base2world: Float64,
    yaw: float,
) -> Objects:
    """Objects given in the world, in base_link."""
    rows = np.array(boxes, dtype=np.float64).reshape(-1, 7)
    rows[:, :3] = (rows[:, :3] - base2world[:3, 3]) @ base2world[:3, :3]
    rows[:, 6] = wrap_angle(rows[:, 6] - yaw)
    speeds = np.array(velocities, dtype=np.float64).reshape(-1, 2) @ base2world[:2, :2]
    return Objects(tuple(classes), rows, speeds, np.array(ids, dtype=np.int64))
