"""Scenes for training, built by processes while the accelerator trains on those that exist."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from airside_perception.sim.materials import NAMES, standard
from airside_perception.types import Float32, Float64, Int64
from training.echoes import Surfaces
from training.scans import World
from training.stages import Recipe, staged

GROUND = 250.0
"""Half the side of the square that stands for the ground, metres."""
FOLIAGE = 0.2
"""Standard deviation of the depth at which a beam meets a leaf behind the outline, metres."""


Arrays = tuple[Float32, Int64, Int64, Float64, Int64, Float64, Float64]


def build(seed: int, recipe: Recipe) -> Arrays:
    """Scene number `seed` as the arrays of a `World`; the ground is two large triangles."""
    stage = staged(seed, recipe)
    scene, objects = stage.scene, stage.scene.objects
    corners = GROUND * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    floor = np.column_stack([corners, corners @ np.array(scene.slope)])[[[0, 1, 2], [0, 2, 3]]]
    return (
        np.concatenate([scene.triangles, floor.astype(np.float32)]),
        np.append(scene.material, [scene.ground] * 2).astype(np.int64),
        np.append(scene.instance, [-1, -1]).astype(np.int64),
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

    A context manager; `draw` waits until the first scenes are there. Worker w of W builds seeds
    first + w, first + w + W, ... Before that, all build the `kept` scenes, plain ones, that
    `held_out` gives.

    Args:
        recipe: of the scenes.
        first: seed of the first one.
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
        context = multiprocessing.get_context('spawn')
        self._queue: Any = context.Queue(maxsize=4 * workers)
        self._stop = context.Event()
        self._processes = [
            context.Process(
                target=_work,
                args=(self._queue, self._stop, recipe, first + w, workers, kept[w::workers]),
                daemon=True,
            )
            for w in range(workers)
        ]
        self._worlds: list[World] = []
        self._kept: dict[int, World] = {}
        self._wanted = len(kept)
        self._size, self._device = size, device
        self.built = 0
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Pool:
        for process in self._processes:
            process.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        for process in self._processes:
            process.terminate()
            process.join()

    def draw(self, count: int, rng: np.random.Generator) -> Sequence[World]:
        """`count` of the scenes that are there."""
        while len(self._worlds) < min(self._size, 4 * count):
            self._wait()
        worlds = self._worlds
        return [worlds[int(n)] for n in rng.integers(len(worlds), size=count)]

    def held_out(self) -> Sequence[World]:
        """The scenes that were to be kept, by seed; waits for them."""
        while len(self._kept) < self._wanted:
            self._wait()
        return [self._kept[seed] for seed in sorted(self._kept)]

    def _wait(self) -> None:
        if not any(process.is_alive() for process in self._processes):
            raise RuntimeError('every process that builds scenes has died; its traceback is above')
        self._stop.wait(0.05)

    def _fill(self) -> None:
        while not self._stop.is_set():
            try:
                kept, arrays = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            world = to_world(arrays, self._device)
            if self._device.type == 'cuda':
                torch.cuda.current_stream().synchronize()  # other streams read it
            if kept >= 0:
                self._kept[kept] = world
                continue
            if len(self._worlds) < self._size:
                self._worlds.append(world)
            else:
                self._worlds[self.built % self._size] = world
            self.built += 1


def _work(out: Any, stop: Any, recipe: Recipe, seed: int, step: int, kept: range) -> None:
    torch.set_num_threads(1)
    parent = os.getppid()  # another one once it has been killed: then nobody sets `stop`
    plain = recipe.plain()
    for number in itertools.chain(kept, itertools.count(seed, step)):
        held = number in kept
        item = (number if held else -1, build(number, plain if held else recipe))
        while not stop.is_set() and os.getppid() == parent:
            try:
                out.put(item, timeout=0.5)
                break
            except queue.Full:
                continue
        if stop.is_set() or os.getppid() != parent:
            break
    out.cancel_join_thread()
