"""Settings as frozen dataclasses: every default, unit, range and description lives here, once.

ROS parameters are declared from the fields of these classes, YAML files are read through
`from_values`, and the tables of the README are generated from `specs`. A field is `live` when it may
change between two frames; the others need the transition cleanup -> configure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airside_perception.errors import ConfigError

Config = TypeVar('Config')
TYPES: dict[str, type] = {'bool': bool, 'int': int, 'float': float, 'str': str, 'tuple[str, ...]': tuple}


@dataclass(frozen=True)
class Parameter:
    """One setting: what ROS calls a parameter with its descriptor."""

    name: str
    type: type
    default: Any
    description: str
    unit: str = ''
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    def check(self, value: Any) -> Any:
        """`value` in the type of this parameter.

        Raises:
            ConfigError: wrong type, not finite, out of range or not among the choices.
        """
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.type is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
            if not all(isinstance(item, str) for item in value):
                raise ConfigError(f'{self.name} = {list(value)!r}: expected a list of strings')
        if type(value) is not self.type:
            raise ConfigError(f'{self.name} = {value!r}: expected {self.type.__name__}')
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise ConfigError(f'{self.name} = {value!r}: outside [{self.low:g}, {self.high:g}] {self.unit}'.rstrip())
        if self.choices and value not in self.choices:
            raise ConfigError(f'{self.name} = {value!r}: not one of {", ".join(map(repr, self.choices))}')
        return value


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A dataclass field that is also a ROS parameter."""
    return field(
        default=default,
        metadata={
            'description': description, 'unit': unit, 'low': low, 'high': high, 'choices': choices, 'live': live,
        },
    )  # fmt: skip


def per_class(description: str, *, low: float, high: float) -> Any:
    """A field that holds one number a class; as ROS parameters `field.class`, scalars with sliders.

    ROS descriptors have ranges for scalars only. The classes and defaults come from the model card.
    """
    return field(
        default_factory=dict,
        metadata={'description': description, 'unit': '', 'low': low, 'high': high, 'per_class': True, 'live': True},
    )


def specs(config: type, per_class_defaults: Mapping[str, Mapping[str, float]] | None = None) -> tuple[Parameter, ...]:
    """The parameters of a configuration class, per-class fields expanded with the given defaults.

    Args:
        config: a dataclass made with `parameter` and `per_class`.
        per_class_defaults: {field: {class: default}}; a per-class field not named has no parameters.
    """
    found = []
    for item in dataclasses.fields(config):
        meta = dict(item.metadata)
        if meta.pop('per_class', False):
            for name, default in (per_class_defaults or {}).get(item.name, {}).items():
                text = f'{meta["description"]} Class: {name}.'
                found.append(Parameter(f'{item.name}.{name}', float, float(default), **{**meta, 'description': text}))
        else:
            kind = TYPES[str(item.type)]
            found.append(Parameter(item.name, kind, item.default, **meta))
    return tuple(found)


def from_values(
    config: type[Config],
    values: Mapping[str, Any],
    per_class_defaults: Mapping[str, Mapping[str, float]] | None = None,
) -> Config:
    """A configuration from flat {name: value}; what is not named keeps its default.

    Raises:
        ConfigError: unknown name, wrong type or range, or values that contradict each other.
    """
    known = {spec.name: spec for spec in specs(config, per_class_defaults)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f'unknown parameter {unknown[0]!r} for {config.__name__}; known: {", ".join(sorted(known))}')
    flat: dict[str, Any] = {}
    classes: dict[str, dict[str, float]] = {}
    for name, spec in known.items():
        value = spec.check(values.get(name, spec.default))
        head, _, tail = name.partition('.')
        if tail:
            classes.setdefault(head, {})[tail] = value
        else:
            flat[name] = value
    return config(**flat, **classes)


def replace_values(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with some flat values changed, validated as a set."""
    changed: dict[str, Any] = {}
    plain = {spec.name: spec for spec in specs(type(config))}
    meta = {item.name: item for item in dataclasses.fields(config)}  # type: ignore[arg-type]  # a dataclass by contract
    for name, value in values.items():
        head, _, tail = name.partition('.')
        if name in plain:
            changed[name] = plain[name].check(value)
        elif tail and head in meta and tail in getattr(config, head):
            info = meta[head].metadata
            spec = Parameter(name, float, 0.0, info['description'], low=info['low'], high=info['high'])
            changed[head] = {**changed.get(head, getattr(config, head)), tail: spec.check(value)}
        else:
            raise ConfigError(f'unknown parameter {name!r} for {type(config).__name__}')
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]  # a dataclass by contract


def flat_values(config: Any) -> dict[str, Any]:
    """{name: value} of a configuration, per-class fields as `field.class`."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get('per_class'):
            flat.update({f'{item.name}.{name}': number for name, number in value.items()})
        else:
            flat[item.name] = value
    return flat


@dataclass(frozen=True)
class EngineConfig:
    """What every detector says about its network."""

    engine_path: str = parameter('', 'Network: .onnx (ONNX Runtime) or .engine/.plan (TensorRT). Relative paths are looked up in the models folder.')
    card_path: str = parameter('', 'Model card; empty: beside the network, same name, .yaml.')
    precision: str = parameter('auto', 'Precision the engine must have; auto takes what the file holds.', choices=('auto', 'fp32', 'fp16', 'int8'))
    dla_core: int = parameter(-1, 'DLA core that runs the network; -1: GPU (TensorRT) or CPU (ONNX Runtime).', low=-1, high=1)
    threads: int = parameter(0, 'CPU threads of ONNX Runtime; 0: all.', low=0, high=64)
    expected_time_ms: float = parameter(100.0, 'Longest processing time that diagnostics call normal.', unit='ms', low=1.0, high=5000.0, live=True)
    tf_timeout_ms: float = parameter(50.0, 'Longest wait for a transform at the stamp of a message.', unit='ms', low=0.0, high=1000.0, live=True)


@dataclass(frozen=True)
class CameraConfig(EngineConfig):
    """camera_detector: image to 2D boxes to boxes on the ground plane."""

    score_threshold: float = parameter(0.3, 'Lowest score of any detection.', low=0.0, high=1.0, live=True)
    score_thresholds: dict[str, float] = per_class('Lowest score of a class; the higher of this and score_threshold counts.', low=0.0, high=1.0)
    nms_iou: float = parameter(0.45, 'Boxes of one class that overlap more are one object.', low=0.0, high=1.0, live=True)
    max_detections: int = parameter(100, 'Most detections in one image, best first.', low=1, high=1000, live=True)
    ground_frame: str = parameter('base_link', 'Frame whose plane z = 0 is the ground; 3D boxes are published in it.')
    max_range: float = parameter(80.0, 'Farthest ground contact that is lifted to 3D.', unit='m', low=5.0, high=300.0, live=True)
    pixel_sigma: float = parameter(2.0, 'Standard deviation of the edges of a 2D box.', unit='px', low=0.1, high=50.0, live=True)
    pitch_sigma: float = parameter(0.0035, 'Standard deviation of the camera pitch against the ground (0.2 degrees).', unit='rad', low=0.0, high=0.1, live=True)
    truncation_margin: int = parameter(3, 'A box this near to the image border counts as cut off there.', unit='px', low=0, high=100, live=True)


@dataclass(frozen=True)
class LidarConfig(EngineConfig):
    """lidar_detector: point cloud to 3D boxes."""

    target_frame: str = parameter('base_link', 'Frame of the network and of its boxes (z = 0 is the ground); empty: the frame of the cloud.')
    score_threshold: float = parameter(0.1, 'Lowest score of any detection.', low=0.0, high=1.0, live=True)
    score_thresholds: dict[str, float] = per_class('Lowest score of a class; the higher of this and score_threshold counts.', low=0.0, high=1.0)
    nms_iou: float = parameter(0.1, 'Boxes of one class whose BEV overlap is larger are one object.', low=0.0, high=1.0, live=True)
    nms_across_classes: bool = parameter(True, 'Suppress overlapping boxes of different classes of like size too.', live=True)
    max_candidates: int = parameter(1000, 'Best candidates that enter suppression.', low=1, high=10000, live=True)
    max_detections: int = parameter(200, 'Most detections in one sweep, best first.', low=1, high=1000, live=True)
    min_range: float = parameter(0.0, 'Points nearer than this to the origin of target_frame are left out (ego vehicle).', unit='m', low=0.0, high=20.0, live=True)
    intensity_scale: float = parameter(1.0, 'Factor that brings the intensity of this sensor to 0..1.', low=0.0001, high=1.0, live=True)
    position_sigma: float = parameter(0.15, 'Standard deviation of a box centre at 0 m.', unit='m', low=0.01, high=5.0, live=True)
    position_sigma_per_m: float = parameter(0.005, 'Growth of that with range.', low=0.0, high=0.2, live=True)
    yaw_sigma: float = parameter(0.1, 'Standard deviation of the yaw of a box.', unit='rad', low=0.001, high=3.2, live=True)
