"""The configuration of a training run, read from YAML, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from training.network import Dense, PillarNet
from training.pillars import Grid
from training.scans import Variation
from training.targets import Anchors


@dataclass(frozen=True)
class AnchorShape:
    """One anchor shape: labels it answers for, (length, width, height), z of the centre, yaws."""

    labels: tuple[str, ...]
    size: tuple[float, float, float]
    z: float
    yaws: tuple[float, ...]


@dataclass(frozen=True)
class Training:
    """Every key of the YAML file; see `pointpillars.yaml` for meanings and units."""

    name: str
    seed: int
    limits: tuple[float, ...]
    pillar: tuple[float, float]
    max_points: int
    max_pillars: int
    features: tuple[str, ...]
    channels: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    neck: int
    stride: int
    direction_offset: float
    labels: dict[str, tuple[str, ...]]
    anchors: tuple[AnchorShape, ...]
    streets: float
    first_scene: int
    pool: int
    workers: int
    least_points: int
    variation: Variation
    batch: int
    steps: int
    rate: float
    decay: float
    average: float
    weights: dict[str, float]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.labels)

    @property
    def grid(self) -> Grid:
        return Grid(self.limits, self.pillar)

    @property
    def simulated(self) -> dict[str, int]:
        """{class of the simulator: label index}."""
        return {name: index for index, names in enumerate(self.labels.values()) for name in names}

    def anchor_tensors(self, device: torch.device) -> Anchors:
        """Anchor shapes in the order of the network's channels."""
        rows = [(shape, yaw) for shape in self.anchors for yaw in shape.yaws]
        answers = torch.tensor(
            [[label in shape.labels for label in self.classes] for shape, _ in rows]
        )
        pair = torch.where(answers, torch.cumsum(answers.flatten(), 0).view(answers.shape) - 1, -1)
        return Anchors(
            pair.to(device),
            answers.nonzero()[:, 0].to(device),
            torch.tensor([[*shape.size, shape.z, yaw] for shape, yaw in rows], device=device),
            torch.tensor([len(shape.yaws) > 1 for shape, _ in rows], device=device),
        )

    def networks(self) -> tuple[PillarNet, Dense]:
        """Pillar feature net and dense network with fresh weights."""
        anchors = self.anchor_tensors(torch.device('cpu'))
        return (
            PillarNet(len(self.features), self.channels),
            Dense(
                self.channels,
                self.widths,
                self.depths,
                self.neck,
                len(anchors.shape),
                len(anchors.owner),
            ),
        )


def load(path: str | Path, **changes: Any) -> Training:
    """Reads a YAML file; `changes` replace its keys.

    Raises:
        TypeError: a key is missing or unknown.
        ValueError: a label has no anchor.
    """
    values = {**yaml.safe_load(Path(path).read_text(encoding='utf-8')), **changes}
    values['labels'] = {name: tuple(classes) for name, classes in values['labels'].items()}
    values['anchors'] = tuple(
        AnchorShape(tuple(a['labels']), tuple(a['size']), a['z'], tuple(a['yaws']))
        for a in values['anchors']
    )
    values['variation'] = Variation(**values['variation'])
    for key in ('limits', 'pillar', 'features', 'widths', 'depths'):
        values[key] = tuple(values[key])
    training = Training(**values)
    answered = {label for shape in training.anchors for label in shape.labels}
    if set(training.classes) != answered:
        raise ValueError(
            f'{path}: labels and anchors differ in {sorted(set(training.classes) ^ answered)}'
        )
    return training
