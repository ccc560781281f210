"""How good a lidar network is on scenes that it does not learn from, while it trains.

Its outputs go through the package's own decoder and suppression, and are judged as `replay
evaluate` does it: mean average precision by the distance of the centres. The scans are always the
same, so scores of one run may be compared: half of them are clear ones of any lidar, half are seen
by one as on the vehicle's roof through fog or rain. They choose the weights, hence are too good to
be reported as what the network can do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from airside_perception.card import LidarCard, load_card
from airside_perception.config import LidarConfig
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.question import average_precisions, mean
from airside_perception.lidar.anchors import AnchorDecoder
from airside_perception.lidar.centers import CenterDecoder
from airside_perception.overlap import nms_bev
from airside_perception.types import Float64
from training.echoes import Loss, Surfaces
from training.lidars import random_lidar, roof_lidar
from training.pillars import decorate
from training.recipe import Training
from training.scans import Batch, Variation, World, make_batch

TOGETHER = 8
"""Scans that are judged at a time."""
FOUL = Variation(loss=Loss(fog=0.5, rain=0.5, halos=0.5))
"""Of every other such batch."""
FAINT = 0.03
"""Lowest score that counts."""


class Validation:
    """Scans of held-out scenes and what a network makes of them.

    Args:
        training: the recipe.
        text: a model card of the network, for its decoder; the weights in it do not matter.
        worlds: the scenes.
        looks: materials.
    """

    def __init__(
        self, training: Training, text: str, worlds: Sequence[World], looks: Surfaces
    ) -> None:
        self._training = training
        self._card = read_card(text)
        centers = self._card.centers is not None
        self._decoder = CenterDecoder(self._card) if centers else AnchorDecoder(self._card)
        rng = np.random.default_rng(training.validation.first_scene)
        device = worlds[0].triangles.device
        generator = torch.Generator(device).manual_seed(1)
        self._batches: list[Batch] = []
        for first in range(0, len(worlds), TOGETHER):
            part = worlds[first : first + TOGETHER]
            foul = len(self._batches) % 2 == 1
            lidars = [(roof_lidar if foul else random_lidar)(rng) for _ in part]
            places, least = rng.random(len(part)).tolist(), training.least_points
            variation = FOUL if foul else Variation()
            past = replace(training.past, missing=0.0)
            self._batches.append(
                make_batch(part, lidars, places, looks, variation, generator, least, past)
            )

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Mean average precision `map`, of people `person`, and errors of velocity if it has any.

        `velocity` is the mean error in m/s of what moves, at its centre; `standing` the same of
        the answer that everything stands still, and `parked` the speed given to what stands.

        Args:
            model: with `pillars` and `dense`, in evaluation mode.
        """
        t = self._training
        frames: list[Frame] = []
        speeds: list[Float64] = []
        for batch in self._batches:
            scans = int(batch.scan[-1]) + 1
            points = decorate(
                batch.points, batch.scan, t.grid, t.features, t.max_points, t.max_pillars
            )
            shape = (scans, *t.grid.shape)
            canvas = model.pillars(points.features, points.pillar, points.cells, shape)  # type: ignore[operator]  # a module
            canvas = canvas.contiguous(memory_format=torch.channels_last)
            maps = [m.float().cpu() for m in model.dense(canvas)]  # type: ignore[operator]  # a module
            named = {
                name: value.numpy() for name, value in zip(self._card.outputs, maps, strict=False)
            }
            frames += [self._frame(batch, named, scan) for scan in range(scans)]
            if t.velocity:  # also where the card does not name them
                speeds.append(self._speeds(batch, maps[-1]))
        by_class = {name: mean(average_precisions(frames, name).values()) for name in t.classes}
        found = {'map': mean(by_class.values()), 'person': by_class.get('person', float('nan'))}
        if speeds:
            pairs = np.concatenate(speeds)
            moving = np.hypot(*pairs[:, 2:].T) > 0.3
            error = np.hypot(*(pairs[:, :2] - pairs[:, 2:]).T)
            found['velocity'] = float(error[moving].mean()) if moving.any() else float('nan')
            found['standing'] = float(np.hypot(*pairs[moving, 2:].T).mean())
            found['parked'] = float(error[~moving].mean())
        return found

    def _frame(self, batch: Batch, maps: dict[str, np.ndarray], scan: int) -> Frame:
        """One scan's detections beside its truth."""
        t, config = self._training, LidarConfig()
        outputs = {name: value[scan : scan + 1] for name, value in maps.items()}
        found = self._decoder.decode(outputs, [FAINT] * len(t.classes), config.max_candidates)
        kept = nms_bev(found.boxes, found.scores, config.nms_iou, found.labels)
        across = max(config.nms_iou, config.nms_iou_across)
        kept = kept[nms_bev(found.boxes[kept], found.scores[kept], across)]
        kept = kept[: config.max_detections]
        mine = (batch.truth.scan == scan).cpu().numpy()
        labels = batch.truth.label.cpu().numpy()[mine]
        truth = Truth(
            tuple(t.classes[label] for label in labels),
            batch.truth.boxes.double().cpu().numpy()[mine],
            asked=batch.truth.counted.cpu().numpy()[mine],
        )
        names = tuple(t.classes[label] for label in found.labels[kept])
        frame = Frame(truth, Found(names, found.boxes[kept], found.scores[kept]))
        return frame.in_range(0.0, t.validation.max_range)

    def _speeds(self, batch: Batch, velocity: torch.Tensor) -> Float64:
        """Velocities found and true, [N, 4], at the centres of what is asked for."""
        t, truth = self._training, batch.truth
        boxes, scan = truth.boxes.cpu(), truth.scan.cpu()
        cell = t.pillar[0] * t.stride
        column = torch.floor((boxes[:, 0] - t.limits[0]) / cell).long()
        row = torch.floor((boxes[:, 1] - t.limits[1]) / cell).long()
        near = boxes[:, :2].norm(dim=1) < t.validation.max_range
        rows, columns = velocity.shape[2:]
        near &= (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        near &= truth.counted.cpu()
        got = velocity[scan[near], :, row[near], column[near]]
        true = torch.zeros_like(got) if truth.velocity is None else truth.velocity.cpu()[near]
        pairs: Float64 = torch.cat([got, true], 1).double().numpy()
        return pairs


def read_card(text: str) -> LidarCard:
    """The model card that a text holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'card.yaml')
        path.write_text(text, encoding='utf-8')
        card = load_card(path)
    if not isinstance(card, LidarCard):
        raise TypeError(f'{card.name}: not a lidar network')
    return card
