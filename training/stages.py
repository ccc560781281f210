"""Scenes to learn from: the simulator's, with odd things and more objects on free ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from airside_perception.sim.apron import apron
from airside_perception.sim.mesh import Mesh
from airside_perception.sim.scene import Objects, Scene
from airside_perception.sim.street import street
from airside_perception.types import Float64
from training.clutter import clutter
from training.paste import Pasted, pasted

ROAD = ('person', 'cyclist', 'car', 'truck', 'bus')
"""Classes that are pasted into streets."""


@dataclass(frozen=True)
class Recipe:
    """How scenes are made.

    Attributes:
        labels: {class of the simulator: label index}.
        streets: share of street scenes; the others are aprons.
        clutter: whether leaves, posts and odd solids are added.
        paste: most bodies of the simulator that are put onto free ground besides.
        spots: places for the sensor in every scene.
    """

    labels: Mapping[str, int]
    streets: float
    clutter: bool = True
    paste: int = 0
    spots: int = 24

    def plain(self) -> Recipe:
        """Of scenes as they are, for what is never learnt from."""
        return replace(self, clutter=False, paste=0)


@dataclass(frozen=True)
class Stage:
    """A scene with all that was added, and free places [P, 2] for a sensor in it."""

    scene: Scene
    spots: Float64


def staged(seed: int, recipe: Recipe) -> Stage:
    """Scene number `seed`."""
    rng = np.random.default_rng([seed, 7])
    town = bool(rng.random() < recipe.streets)
    scene = (street if town else apron)(seed).at(float(rng.uniform(0, 5)))
    # What serves aircraft drives on no street: else every car there might be a tractor.
    kinds = {name: n for name, n in recipe.labels.items() if not town or name in ROAD}
    scene = joined(scene, pasted(scene, np.random.default_rng([seed, 11]), recipe.paste, kinds))
    boxes = scene.objects.boxes
    more = clutter(rng, boxes, town and rng.random() < 0.75) if recipe.clutter else None
    if more is not None:
        scene = _with(scene, more, np.full(len(more), -1), scene.objects)
    return Stage(scene, _spots(rng, boxes, recipe.spots))


def joined(scene: Scene, extra: Pasted) -> Scene:
    """A scene with pasted bodies; they stand still in its pictures."""
    known = scene.objects
    objects = Objects(
        (*known.classes, *extra.classes),
        np.concatenate([known.boxes, extra.boxes]),
        np.concatenate([known.velocities, extra.velocities]),
        np.arange(len(known) + len(extra.boxes)),
    )
    owner = np.where(extra.owner >= 0, extra.owner + len(known), -1)
    return _with(scene, extra.mesh, owner, objects)


def _with(scene: Scene, mesh: Mesh, owner: np.ndarray, objects: Objects) -> Scene:
    return replace(
        scene,
        triangles=np.concatenate([scene.triangles, mesh.triangles]),
        material=np.concatenate([scene.material, mesh.materials]),
        instance=np.concatenate([scene.instance, owner]).astype(np.int32),
        actor=np.concatenate([scene.actor, np.full(len(mesh), -1)]).astype(np.int32),
        objects=objects,
    )


def _spots(rng: np.random.Generator, boxes: Float64, count: int) -> Float64:
    """Places [<= count, 2] near the vehicle's own, in no object; first the origin, if free."""
    spots = rng.uniform(-1, 1, (count, 2)) * [30.0, 5.0]
    spots[0] = 0.0
    offset = spots[:, None] - boxes[None, :, :2]
    c, s = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    along, across = (
        offset[..., 0] * c + offset[..., 1] * s,
        offset[..., 1] * c - offset[..., 0] * s,
    )
    inside = (np.abs(along) < boxes[:, 3] / 2 + 1.5) & (np.abs(across) < boxes[:, 4] / 2 + 1.5)
    free = ~inside.any(axis=1)
    return spots[free] if free.any() else spots[:1]
