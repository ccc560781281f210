"""Scenes for training, built by processes while the accelerator trains on those that exist."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from airside_perception.sim.materials import NAMES, standard
from airside_perception.types import Float32, Float64, Int64
from training.crew import Crew
from training.echoes import Surfaces
from training.scans import World
from training.stages import Recipe, staged

GROUND = 250.0
"""Half the side of the square that stands for the ground, metres."""
FOLIAGE = 0.2
"""Standard deviation of the depth at which a beam meets a leaf behind the outline, metres."""


Arrays = tuple[
    Float32, NDArray[np.int16], NDArray[np.int32], Float64, Int64, Float64, Float64
]  # fmt: skip


def build(seed: int, recipe: Recipe) -> Arrays:
    """Scene number `seed` as the arrays of a `World`; the ground is two large triangles."""
    stage = staged(seed, recipe)
    scene, objects = stage.scene, stage.scene.objects
    corners = GROUND * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    floor = np.column_stack([corners, corners @ np.array(scene.slope)])[[[0, 1, 2], [0, 2, 3]]]
    return (
        np.concatenate([scene.triangles, floor.astype(np.float32)]),
        np.append(scene.material, [scene.ground] * 2).astype(np.int16),
        np.append(scene.instance, [-1, -1]).astype(np.int32),
        objects.boxes,
        np.array([recipe.labels[name] for name in objects.classes], np.int64),
        stage.spots,
        objects.velocities,
    )


def to_world(arrays: Arrays, device: torch.device) -> World:
    """The arrays of `build` on the accelerator."""
    triangles, material, owner, boxes, label, spots, velocity = arrays
    return World(
        torch.as_tensor(triangles, dtype=torch.float32, device=device),
        torch.as_tensor(material, device=device),
        torch.as_tensor(owner, device=device),
        torch.as_tensor(boxes, dtype=torch.float32, device=device),
        torch.as_tensor(label, device=device),
        torch.as_tensor(spots, dtype=torch.float32, device=device),
        torch.as_tensor(velocity, dtype=torch.float32, device=device),
    )


def surfaces(device: torch.device) -> Surfaces:
    """The simulator's materials as the ray-caster's `Surfaces`."""
    table = standard()
    depth = np.array([FOLIAGE if name == 'leaves' else 0.0 for name in NAMES], np.float32)
    return Surfaces(
        torch.as_tensor(table.reflectivity, device=device),
        torch.as_tensor(table.loss, device=device),
        torch.as_tensor(depth, device=device),
        torch.as_tensor(table.retro.astype(np.float32), device=device),
    )


class Pool:
    """The newest `size` scenes on the accelerator, renewed in the background.

    A context manager; `draw` waits until the first scenes are there.

    Args:
        recipe: of the scenes.
        first: seed of the first one; see `Crew`, as for `workers` and `kept`.
        size: newest scenes that are there.
        workers: processes that build.
        device: accelerator.
        kept: seeds of scenes that are not drawn.
    """

    def __init__(
        self,
        recipe: Recipe,
        first: int,
        size: int,
        workers: int,
        device: torch.device,
        kept: range = range(0),
    ) -> None:
        self._worlds: list[World] = []
        self._size, self._device = size, device
        # Scenes are copied beside what the accelerator does, not after it.
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self.built = 0
        self._crew = Crew(partial(_built, recipe), self._add, first, workers, kept)

    def __enter__(self) -> Pool:
        self._crew.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._crew.__exit__(*error)

    def draw(self, count: int, rng: np.random.Generator) -> Sequence[World]:
        """`count` of the scenes that are there."""
        while len(self._worlds) < min(self._size, 4 * count):
            self._crew.wait()
        worlds = self._worlds
        drawn = [worlds[int(n)] for n in rng.integers(len(worlds), size=count)]
        if self._device.type == 'cuda':
            # A scene that is replaced gives its memory to the next one, not before it was read.
            stream = torch.cuda.current_stream(self._device)
            for world in drawn:
                for tensor in vars(world).values():
                    tensor.record_stream(stream)
        return drawn

    def held_out(self) -> Sequence[World]:
        """The scenes that were to be kept, by seed; waits for them."""
        return [to_world(arrays, self._device) for arrays in self._crew.wait_for_held()]

    def _add(self, arrays: Arrays) -> None:
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            world = to_world(arrays, self._device)
        if self._stream:
            self._stream.synchronize()  # others read it
        if len(self._worlds) < self._size:
            self._worlds.append(world)
        else:
            self._worlds[self.built % self._size] = world
        self.built += 1


def _built(recipe: Recipe, seed: int, plain: bool) -> Arrays:
    return build(seed, recipe.plain() if plain else recipe)
