"""More objects in a scene, on ground that is free: ground-truth paste, before the lidar looks.

Augmentations of recorded scans cut objects out of one scan and lay their points into another,
where the shadows of old and new do not fit. Scenes of a simulator are pasted as bodies: what they
hide is hidden, and they have as many points as their range gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from airside_perception.sim import ground_support as gse
from airside_perception.sim import people, vehicles
from airside_perception.sim.bodies import Body
from airside_perception.sim.mesh import Mesh, merge
from airside_perception.sim.scene import Scene
from airside_perception.types import Float32, Float64

SMALLEST = 3.0
"""Length of the smallest car that is pasted, metres. Those of KITTI begin at 3.1, the simulator's
own at 3.5: a network that knows no shorter ones takes them for baggage tractors."""


def city_car(rng: np.random.Generator) -> Body:
    """A hatchback, shortened to between SMALLEST and its own length."""
    whole = vehicles.car(rng, 'hatchback')
    shrink = np.array([rng.uniform(SMALLEST / whole.box[3], 1.0), 1.0, 1.0])
    mesh = Mesh(whole.mesh.triangles * shrink.astype(np.float32), whole.mesh.materials)
    along = np.append(shrink[0], 1.0)
    return replace(
        whole,
        mesh=mesh,
        box=whole.box * np.concatenate([shrink, shrink]),
        footprint=whole.footprint * np.concatenate([along, along]),
    )


MAKERS: tuple[tuple[str, Callable[[np.random.Generator], Body], float], ...] = (
    ('person', people.person, 8.0),
    ('cyclist', vehicles.cyclist, 3.0),
    ('car', vehicles.car, 1.0),
    ('car', city_car, 1.5),
    ('truck', vehicles.truck, 0.7),
    ('bus', vehicles.bus, 0.8),
    ('baggage_cart', gse.baggage_cart, 2.0),
    ('baggage_tractor', gse.baggage_tractor, 2.0),
    ('belt_loader', gse.belt_loader, 1.2),
    ('pushback_tug', gse.pushback_tug, 1.2),
    ('fuel_truck', gse.fuel_truck, 0.7),
    ('catering_truck', gse.catering_truck, 0.7),
    ('stairs', gse.stairs, 1.2),
)
"""What is pasted, as which class, and how often: people most, then what scenes have few of."""
NEAREST, FARTHEST = 4.0, 50.0
"""Metres from the vehicle."""
BESIDE, CLOSE = 14.0, 0.4
"""So many of the people stand within so many metres: those that matter most, and that fog and rain
make look least like themselves."""
TRIES = 4
MARGIN = 0.25
"""Metres around a body that stay free."""


@dataclass(frozen=True)
class Pasted:
    """Bodies in base_link: their mesh, its owners int64 [T], -1: none, and the objects' rows.

    `classes`, `boxes` [N, 7] and `velocities` [N, 2] are those of `sim.scene.Objects`.
    """

    mesh: Mesh
    owner: NDArray[np.int64]
    classes: tuple[str, ...]
    boxes: Float64
    velocities: Float64


def pasted(scene: Scene, rng: np.random.Generator, most: int, labels: Mapping[str, int]) -> Pasted:
    """Up to `most` bodies of classes in `labels` on free ground of a scene.

    Classes that a scene does not take leave their share to the others. A body stands where no
    triangle above the ground is within the circle around its footprint and below its top.
    """
    nothing = np.empty((0, 3, 3), np.float32)
    meshes = [Mesh(nothing, np.empty(0, np.int32))]
    owners = [np.empty(0, np.int64)]
    classes: list[str] = []
    boxes, velocities = [np.empty((0, 7))], [np.empty((0, 2))]
    makers = [(make, weight) for label, make, weight in MAKERS if label in labels]
    share = np.array([weight for _, weight in makers])
    count = int(rng.integers(0, most + 1)) if most and makers else 0
    spans = _Spans(scene.triangles, scene.slope)
    for _ in range(count):
        make, _ = makers[int(rng.choice(len(makers), p=share / share.sum()))]
        body = make(rng)
        spot = _spot(rng, body, spans)
        if spot is None:
            continue
        x, y = spot
        yaw = float(rng.uniform(-np.pi, np.pi))
        ground = x * scene.slope[0] + y * scene.slope[1]
        mesh = body.mesh.moved((x, y, 0.0), yaw)
        mesh.triangles[..., 2] += mesh.triangles[..., :2] @ np.array(scene.slope, np.float32)
        spans.add(mesh.triangles)
        meshes.append(mesh)
        owner = np.full(len(mesh), -1, np.int64)
        owner[: body.labelled] = len(classes)
        owners.append(owner)
        classes.append(body.label)
        boxes.append(np.array([[x, y, ground + body.box[2], *body.box[3:], yaw]]))
        speed = _speed(rng, body)
        velocities.append(speed * np.array([[np.cos(yaw), np.sin(yaw)]]))
    return Pasted(
        merge(meshes), np.concatenate(owners), tuple(classes), np.concatenate(boxes),
        np.concatenate(velocities),
    )  # fmt: skip


class _Spans:
    """Which (x, y) every triangle above the ground spans, and from which height."""

    def __init__(self, triangles: Float32, slope: tuple[float, float]) -> None:
        self._slope = np.array(slope, np.float32)
        self._low = np.empty((0, 3), np.float32)
        self._high = np.empty((0, 2), np.float32)
        self.add(triangles)

    def add(self, triangles: Float32) -> None:
        above = triangles.copy()
        above[..., 2] -= above[..., :2] @ self._slope
        above = above[above[..., 2].max(axis=1) > 0.05]  # what is lower is a marking
        self._low = np.concatenate([self._low, above.min(axis=1)])
        self._high = np.concatenate([self._high, above[..., :2].max(axis=1)])

    def free(self, x: float, y: float, radius: float, height: float) -> bool:
        """Whether nothing lower than `height` is nearer to (x, y) than `radius`."""
        at = np.array([x, y], np.float32)
        apart = np.maximum(np.maximum(self._low[:, :2] - at, at - self._high), 0)
        near = (apart**2).sum(axis=1) < radius**2
        return not bool((near & (self._low[:, 2] < height)).any())


def _spot(rng: np.random.Generator, body: Body, spans: _Spans) -> tuple[float, float] | None:
    """A free place for a body, None if there is none at the places tried."""
    x0, y0, length, width = body.footprint
    radius = float(np.hypot(abs(x0) + length / 2, abs(y0) + width / 2)) + MARGIN
    height = float(body.mesh.extents[1][2]) + MARGIN
    close = body.label == 'person' and rng.random() < CLOSE
    for _ in range(TRIES):
        distance = rng.uniform(NEAREST + radius, BESIDE if close else FARTHEST)
        bearing = rng.uniform(-np.pi, np.pi)
        x, y = float(distance * np.cos(bearing)), float(distance * np.sin(bearing))
        if spans.free(x, y, radius, height):
            return x, y
    return None


def _speed(rng: np.random.Generator, body: Body) -> float:
    """Metres a second: a striding figure walks; of what has wheels every third one drives."""
    if body.label == 'person':
        walks = body.box[3] > 0.65 and body.box[5] > 1.4
        return float(rng.uniform(0.5, 1.7)) if walks else 0.0
    drives = rng.random() < (0.9 if body.label == 'cyclist' else 0.35)
    return float(rng.uniform(1.5, 6.5)) if drives and body.label != 'stairs' else 0.0
