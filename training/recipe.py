"""The configuration of a training run, read from YAML, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from training.echoes import Loss
from training.lidars import ANY, preset
from training.network import PillarNet
from training.past import Past
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
class Validation:
    """When a run looks at scenes that it does not learn from, and when it ends because of that.

    Attributes:
        scenes: how many; 0: it never looks.
        first_scene: seed of the first of them.
        seconds: from one look to the next.
        patience: looks without a better score after which a run ends; 0: it goes on.
        max_range: metres; what is farther is not asked for.
    """

    scenes: int = 0
    first_scene: int = 0
    seconds: float = 60.0
    patience: int = 0
    max_range: float = 60.0


@dataclass(frozen=True)
class Training:
    """Every key of the YAML files; see `pointpillars.yaml` and `centerpoint.yaml`.

    `velocity` is a head for velocities; only with `past` sweeps can they be known, and only then
    the exported network puts them out.
    """

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
    labels: dict[str, tuple[str, ...]]
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
    head: str = 'anchors'
    direction_offset: float = 0.0
    anchors: tuple[AnchorShape, ...] = ()
    velocity: bool = False
    symmetric: tuple[str, ...] = ()
    lidar: str = ANY
    paste: int = 0
    past: Past = field(default_factory=Past)
    validation: Validation = field(default_factory=Validation)

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

    def pillar_net(self) -> PillarNet:
        """Pillar feature net with fresh weights."""
        return PillarNet(len(self.features), self.channels)


def load(path: str | Path, **changes: Any) -> Training:
    """Reads a YAML file; `changes` replace its keys.

    Raises:
        TypeError: a key is missing or unknown.
        ValueError: a label has no anchor, or there is no such head or lidar.
    """
    return parse({**keys(path), **changes}, str(path))


def keys(path: str | Path) -> dict[str, Any]:
    """What a YAML file says; what it leaves out is taken from its `base`, a file beside it."""
    values: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    base = values.pop('base', '')
    return {**keys(Path(path).with_name(base)), **values} if base else values


def parse(given: Mapping[str, Any], path: str = 'recipe') -> Training:
    """The recipe that a YAML file or a saved run holds; errors as of `load`."""
    values = dict(given)
    values['labels'] = {name: tuple(classes) for name, classes in values['labels'].items()}
    values['anchors'] = tuple(
        AnchorShape(tuple(a['labels']), tuple(a['size']), a['z'], tuple(a['yaws']))
        for a in values.get('anchors', ())
    )
    variation = dict(values['variation'])
    variation['loss'] = Loss(**variation.get('loss', {}))
    values['variation'] = Variation(**variation)
    past = dict(values.get('past', {}))
    if 'periods' in past:
        past['periods'] = tuple(past['periods'])
    values['past'] = Past(**past)
    values['validation'] = Validation(**values.get('validation', {}))
    for key in ('limits', 'pillar', 'features', 'widths', 'depths', 'symmetric'):
        values[key] = tuple(values.get(key, ()))
    training = Training(**values)
    if training.head not in ('anchors', 'centers'):
        raise ValueError(f'{path}: head {training.head!r}: expected anchors or centers')
    if training.lidar != ANY:
        preset(training.lidar)
    if (training.past.sweeps > 0) != ('time_lag' in training.features):
        raise ValueError(f'{path}: past sweeps and the feature time_lag go together')
    answered = {label for shape in training.anchors for label in shape.labels}
    if training.head == 'anchors' and set(training.classes) != answered:
        raise ValueError(
            f'{path}: labels and anchors differ in {sorted(set(training.classes) ^ answered)}'
        )
    return training
