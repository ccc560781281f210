"""The newest pictures on the accelerator, and the training pictures that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from training.camera_loss import Truth
from training.camera_recipe import CameraTraining
from training.disguise import developed, disguised
from training.photos import Photo
from training.render import Pictures, render
from training.views import draw
from training.worlds import Pool

PAD = 114.0


class Gallery:
    """A ring of pictures with the objects in them.

    Attributes:
        made: pictures so far; drawn: those of them that the accelerator drew.
    """

    def __init__(self, training: CameraTraining, colours: Tensor, device: torch.device) -> None:
        t, size = training, training.pictures
        self._training, self._colours, self._device = training, colours, device
        self._images = torch.zeros((size, 3, t.height, t.width), dtype=torch.uint8, device=device)
        self._boxes = torch.zeros((size, t.objects, 4), device=device)
        self._label = torch.zeros((size, t.objects), dtype=torch.int64, device=device)
        self._state = torch.full((size, t.objects), -1, dtype=torch.int64, device=device)
        self.made = self.drawn = 0

    @torch.no_grad()
    def add(self, photos: Sequence[Photo], rng: np.random.Generator) -> None:
        """Takes in pictures; of those that show nothing one in five."""
        chance = rng.random(len(photos))
        kept = [p for p, c in zip(photos, chance, strict=True) if (p.state == 1).any() or c < 0.2]
        if kept:
            parts = zip(*((p.image, p.boxes, p.label, p.state) for p in kept), strict=True)
            self._keep(*(torch.as_tensor(np.stack(part)).to(self._device) for part in parts))

    @torch.no_grad()
    def extend(self, pool: Pool, rng: np.random.Generator, generator: torch.Generator) -> None:
        """Draws `at_once` more pictures; of those that show nothing one in five is kept."""
        t = self._training
        worlds = pool.draw(t.at_once, rng)
        views = draw(worlds, self._colours, rng, t.width, t.height).to(self._device)
        pictures = render(worlds, views, generator, t.width, t.height)
        boxes, label, state = objects(pictures, t)
        shown = (state == 1).any(1) | (torch.rand(len(worlds), device=self._device) < 0.2)
        kept = torch.nonzero(shown).flatten()
        images = disguised(pictures.images, pictures.owner, t.disguise, generator)
        self._keep(images[kept], boxes[kept], label[kept], state[kept])
        self.drawn += len(kept)

    def _keep(self, images: Tensor, boxes: Tensor, label: Tensor, state: Tensor) -> None:
        place = torch.arange(self.made, self.made + len(images), device=self._device)
        place = torch.remainder(place, self._training.pictures)
        self._images[place], self._boxes[place] = images, boxes
        self._label[place], self._state[place] = label, state
        self.made += len(images)

    @torch.no_grad()
    def lesson(self, generator: torch.Generator) -> tuple[Tensor, Truth]:
        """Pictures float [batch, 3, H, W], 0..255, cut, scaled, mirrored and recoloured."""
        t, device = self._training, self._device
        there = min(self.made, t.pictures)
        which = torch.randint(there, (t.batch,), device=device, generator=generator)
        images = self._images[which].float()
        truth = Truth(self._boxes[which], self._label[which], self._state[which])
        images, truth = zoomed(images, truth, t.zoom, generator)
        return developed(recoloured(images, generator), generator), truth


def objects(pictures: Pictures, training: CameraTraining) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [V, M, 4], labels and states [V, M] of what pictures show, the largest first."""
    t, views = training, len(pictures.images)
    device = pictures.images.device
    low = pictures.boxes[:, 3] - pictures.boxes[:, 1] < t.least_height
    unclear = (pictures.pixels < t.least_pixels) | low | (pictures.share < t.least_share)
    shown = torch.nonzero(pictures.pixels > 0).flatten()
    shown = shown[torch.argsort(pictures.pixels[shown], descending=True, stable=True)]
    shown = shown[torch.argsort(pictures.view[shown], stable=True)]
    view = pictures.view[shown]
    counts = torch.bincount(view, minlength=views)
    rank = torch.arange(len(shown), device=device) - (counts.cumsum(0) - counts)[view]
    fits = rank < t.objects
    shown, view, rank = shown[fits], view[fits], rank[fits]
    boxes = torch.zeros((views, t.objects, 4), device=device)
    label = torch.zeros((views, t.objects), dtype=torch.int64, device=device)
    state = torch.full((views, t.objects), -1, dtype=torch.int64, device=device)
    boxes[view, rank] = pictures.boxes[shown]
    label[view, rank] = pictures.label[shown]
    state[view, rank] = (~unclear[shown]).long()
    return boxes, label, state


def zoomed(
    images: Tensor, truth: Truth, zoom: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Truth]:
    """Pictures enlarged and cut, or reduced with a border, and mirrored half of the time."""
    count, _, height, width = images.shape
    device = images.device

    def uniform() -> Tensor:
        return torch.rand(count, device=device, generator=generator)

    low, high = np.log(zoom[0]), np.log(zoom[1])
    scale = torch.exp(low + (high - low) * uniform())
    scale = torch.where(uniform() < 0.35, 1.0, scale)
    limit = torch.tensor([width, height], device=device, dtype=torch.float32)
    # Free place (negative: what is cut off) is shared out at random; cuts keep near the horizon.
    room = limit * (1 - scale[:, None])
    shift = room * torch.stack([uniform(), 0.2 + 0.6 * uniform()], 1)
    mirror = torch.where(uniform() < 0.5, -1.0, 1.0)
    affine = torch.zeros((count, 2, 3), device=device)
    affine[:, 0, 0], affine[:, 1, 1] = mirror / scale, 1 / scale
    # Of the output at (-1, 1) coordinates g, the input is at (g + 1 - 2 shift / size) / scale - 1.
    offset = (1 - 2 * shift / limit) / scale[:, None] - 1
    affine[:, 0, 2], affine[:, 1, 2] = mirror * offset[:, 0], offset[:, 1]
    grid = nnf.affine_grid(affine, [count, 3, height, width], align_corners=False)
    moved = nnf.grid_sample(images - PAD, grid, align_corners=False) + PAD

    boxes = truth.boxes.clone()
    flipped = torch.stack(
        [width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], -1
    )
    boxes = torch.where(mirror[:, None, None] < 0, flipped, boxes)
    boxes = boxes * scale[:, None, None] + shift.repeat(1, 2)[:, None]
    cut = torch.minimum(boxes.clamp(min=0), limit.repeat(2))
    size = (cut[..., 2:] - cut[..., :2]).clamp(min=0)
    share = size.prod(-1) / (boxes[..., 2:] - boxes[..., :2]).prod(-1).clamp(min=1e-3)
    little = (share < 0.2) | (size.amin(-1) < 3.0)
    state = torch.where(little, truth.state.clamp(max=0), truth.state)
    state = torch.where(size.amin(-1) <= 0, -1, state)
    return moved, Truth(cut, truth.label, state)


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, colour and some noise changed at random."""
    count, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand((count, channels, 1, 1), device=device, generator=generator)
        return low + (high - low) * drawn

    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.5, 1.5)
    images = images * uniform(0.75, 1.3) * uniform(0.93, 1.07, 3) + uniform(-12, 12)
    noise = torch.randn(images.shape, device=device, generator=generator)
    images = images + noise * (uniform(-4, 5).clamp(min=0))
    return images.clamp(0, 255)
