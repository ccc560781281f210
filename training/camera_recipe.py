"""The configuration of a training run of the camera network, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from airside_perception.sim.bodies import CLASSES
from training.camera_network import Yolox
from training.photos import Shooting
from training.recipe import Validation
from training.stages import Recipe


@dataclass(frozen=True)
class CameraTraining:
    """Every key of the YAML file; see `yolox.yaml` for meanings and units."""

    name: str
    seed: int
    width: int
    height: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    neck: tuple[int, ...]
    head: int
    publish: dict[str, str]
    sizes: dict[str, tuple[float, ...]]
    thresholds: dict[str, float]
    streets: float
    first_scene: int
    scenes: int
    workers: int
    pictures: int
    first_pictures: int
    at_once: int
    steps_between: int
    least_pixels: int
    least_height: float
    least_share: float
    objects: int
    zoom: tuple[float, float]
    batch: int
    steps: int
    rate: float
    decay: float
    average: float
    weights: dict[str, float]
    paste: int = 0
    taken: float = 0.0
    takers: int = 0
    disguise: float = 0.0
    validation: Validation = field(default_factory=Validation)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.publish)

    def shooting(self) -> Shooting:
        """How the simulator's camera takes pictures for it."""
        return Shooting(
            self.scenes_recipe(), self.width, self.height, self.objects, self.least_pixels,
            self.least_height, self.least_share,
        )  # fmt: skip

    def scenes_recipe(self) -> Recipe:
        """Of the scenes that it learns from."""
        labels = {name: index for index, name in enumerate(self.classes)}
        return Recipe(labels, self.streets, paste=self.paste)

    def network(self) -> Yolox:
        """With fresh weights."""
        return Yolox(len(self.classes), self.widths, self.depths, self.neck, self.head)


def load(path: str | Path, **changes: Any) -> CameraTraining:
    """Reads a YAML file; `changes` replace its keys.

    Raises:
        TypeError: a key is missing or unknown.
        ValueError: the classes are not those of the simulator.
    """
    values = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    return parse({**values, **changes}, str(path))


def parse(given: Mapping[str, Any], path: str = 'recipe') -> CameraTraining:
    """The recipe that a YAML file or a saved run holds; errors as of `load`."""
    values = dict(given)
    for key in ('widths', 'depths', 'neck', 'zoom'):
        values[key] = tuple(values[key])
    values['validation'] = Validation(**values.get('validation', {}))
    training = CameraTraining(**values)
    odd = set(training.classes) ^ set(CLASSES)
    if odd:
        raise ValueError(f'{path}: classes differ in {sorted(odd)}')
    if not 0 <= training.taken <= 1 or (training.taken > 0) != (training.takers > 0):
        raise ValueError(
            f'{path}: a share of {training.taken} is taken by {training.takers} processes'
        )
    if set(training.sizes) != set(training.publish.values()):
        raise ValueError(f'{path}: sizes and published classes differ')
    return training
