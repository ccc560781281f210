"""How good a camera network is on pictures that it does not learn from, while it trains.

Its rows go through the package's own decoder and suppression and are judged as in
`training.evaluate_camera`. The pictures are always the same. They choose the weights, hence the
scores are too good to be reported as what the network can do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from airside_perception.camera.yolox import YoloxDecoder
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.overlap import nms_2d
from airside_perception.types import Boxes2D, Image
from training.camera_recipe import CameraTraining
from training.evaluate_camera import FAINT, Sight, Tally, judge
from training.gallery import objects
from training.photos import Photo
from training.render import render
from training.scans import World
from training.views import draw

TOGETHER = 8
VIEWS = 8
"""Pictures of every scene."""
NOTHING = Image(0, 'camera', np.zeros((2, 2, 3), np.uint8))


class CameraValidation:
    """Pictures of held-out scenes and what a network makes of them.

    Args:
        training: the recipe.
        text: a model card of the network, for its decoder.
        photos: what it looks at.
        device: accelerator.
    """

    def __init__(
        self, training: CameraTraining, text: str, photos: Sequence[Photo], device: torch.device
    ) -> None:
        self._card = read_card(text)
        self._decode = YoloxDecoder(self._card)
        self._images = [
            torch.as_tensor(np.stack([photo.image for photo in photos[first : first + TOGETHER]]))
            .to(device)
            for first in range(0, len(photos), TOGETHER)
        ]  # fmt: skip
        self._sights = [
            Sight(NOTHING, *(_boxes(photo, photo.state >= least, training) for least in (1, 0)))
            for photo in photos
        ]

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Mean average precision at half overlap `ap50`, and that of people, `person`.

        Args:
            network: images [B, 3, H, W], 0..255, to rows, in evaluation mode.
        """
        names = self._card.published
        verdicts: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
        asked = dict.fromkeys(names, 0)
        sights = iter(self._sights)
        for images in self._images:
            given = images.float().contiguous(memory_format=torch.channels_last)
            for row in network(given).float().cpu().numpy():
                sight = next(sights)
                found = self._found(row[None])
                for name in names:
                    verdicts[name] += judge(found, sight, self._card, name)
                    asked[name] += sum(
                        self._card.publish.get(kind, kind) == name for kind in sight.wanted.classes
                    )
        precision = {}
        for name, rows in verdicts.items():
            rows.sort(key=lambda row: -row[0])
            scores = np.array([score for score, _ in rows], np.float64)
            tally = Tally(asked[name], scores, np.array([hit for _, hit in rows], bool))
            if asked[name]:
                precision[name] = tally.average_precision()
        mean = float(np.mean(list(precision.values()))) if precision else float('nan')
        return {'ap50': mean, 'person': precision.get('person', float('nan'))}

    def _found(self, rows: np.ndarray) -> Boxes2D:
        """Detections in one picture, in its pixels."""
        config = CameraConfig()
        least = np.full(len(self._card.published), FAINT)
        found = self._decode(rows, least, config.max_candidates)
        kept = nms_2d(found.xyxy, found.scores, config.nms_iou, found.classes)
        across = max(config.nms_iou, config.nms_iou_across)
        kept = kept[nms_2d(found.xyxy[kept], found.scores[kept], across)]
        size = [self._card.width, self._card.height] * 2
        xyxy = np.clip(found.xyxy[kept], 0, size)
        seen = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        names = tuple(self._card.published[kind] for kind in found.classes[kept][seen])
        return Boxes2D(0, 'camera', xyxy[seen], found.scores[kept][seen], names)


def _boxes(photo: Photo, rows: np.ndarray, training: CameraTraining) -> Boxes2D:
    names = tuple(training.classes[number] for number in photo.label[rows])
    return Boxes2D(0, 'camera', photo.boxes[rows].astype(np.float64), np.ones(len(names)), names)


def drawn(
    training: CameraTraining, worlds: Sequence[World], colours: Tensor, device: torch.device
) -> list[Photo]:
    """Pictures of worlds that the accelerator draws; `colours` as for `views.draw`."""
    rng = np.random.default_rng(training.validation.first_scene)
    generator = torch.Generator(device).manual_seed(1)
    found: list[Photo] = []
    scenes = [world for world in worlds for _ in range(VIEWS)]
    for first in range(0, len(scenes), TOGETHER):
        part = scenes[first : first + TOGETHER]
        views = draw(part, colours, rng, training.width, training.height).to(device)
        pictures = render(part, views, generator, training.width, training.height)
        parts = (item.cpu().numpy() for item in (pictures.images, *objects(pictures, training)))
        found += [Photo(*values) for values in zip(*parts, strict=True)]
    return found


def read_card(text: str) -> CameraCard:
    """The model card that a text holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'card.yaml')
        path.write_text(text, encoding='utf-8')
        card = load_card(path)
    if not isinstance(card, CameraCard):
        raise TypeError(f'{card.name}: not a camera network')
    return card
