"""Where pictures to learn from come from: drawn on the accelerator, or taken by processes."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from airside_perception.sim.materials import standard
from training.camera_recipe import CameraTraining
from training.gallery import Gallery
from training.photos import Photo
from training.roll import Roll
from training.validate_camera import drawn
from training.worlds import Pool

TAKEN = 500_000_000
"""How far the seeds of pictures that are taken lie above those of drawn ones."""
DRAWINGS = 3
"""Most drawings at one look, so that learning goes on."""


class Sources:
    """Pictures for a gallery, of scenes not seen before. A context manager.

    Attributes:
        colours: [materials, 3], of the simulator.

    Args:
        training: the recipe; its `taken` is the share that the simulator's camera takes.
        device: accelerator.
        past: seconds of earlier training, whose scenes do not come again.
        kept: seeds of scenes that are never learnt from.
    """

    def __init__(
        self,
        training: CameraTraining,
        device: torch.device,
        past: int,
        kept: range = range(0),
    ) -> None:
        t = self._training = training
        self._device = device
        self._pool = self._roll = None
        self.colours = torch.as_tensor(standard().colour)
        if t.taken:
            first = t.first_scene + TAKEN + 1000 * t.takers * past
            self._roll = Roll(t.shooting(), first, t.takers, kept)
        if t.taken < 1:
            first = t.first_scene + 1000 * t.workers * past
            held = range(0) if t.taken else kept
            self._pool = Pool(t.scenes_recipe(), first, t.scenes, t.workers, device, held)
        self._stack = ExitStack()

    def __enter__(self) -> Sources:
        for source in (self._roll, self._pool):
            if source is not None:
                self._stack.enter_context(source)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def gallery(self, rng: np.random.Generator, generator: torch.Generator) -> Gallery:
        """With the pictures that are to be there before the first step."""
        gallery = Gallery(self._training, self.colours, self._device)
        while gallery.made < self._training.first_pictures:
            self.extend(gallery, rng, generator, wait=True)
        return gallery

    def extend(
        self,
        gallery: Gallery,
        rng: np.random.Generator,
        generator: torch.Generator,
        wait: bool = False,
    ) -> None:
        """Gives it what was taken meanwhile; draws if its share of drawn ones is due."""
        if self._roll:
            gallery.add(self._roll.take(self._training.batch, wait), rng)
        for _ in range(DRAWINGS if self._pool else 0):
            if gallery.drawn > (1 - self._training.taken) * gallery.made:
                break
            gallery.extend(self._pool, rng, generator)

    def held_out(self) -> list[Photo]:
        """Pictures of the `kept` scenes, always the same."""
        if self._roll:
            return list(self._roll.held_out())
        worlds = self._pool.held_out() if self._pool else []
        return drawn(self._training, worlds, self.colours, self._device)
