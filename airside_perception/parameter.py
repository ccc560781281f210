"""Parameters: fields of frozen dataclasses with unit, range and description.

ROS parameters are declared from these fields, YAML files are read through `from_values`, and the
tables of the README are generated from `specs`. A field is `live` when it may change between two
frames; the others need the transition cleanup -> configure. One that is marked `swap` says how the
network is opened: where the node allows it, it may change under a new network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airside_perception.errors import ConfigError

Config = TypeVar('Config')
TYPES: dict[str, type] = {
    'bool': bool, 'int': int, 'float': float, 'str': str,
    'tuple[str, ...]': tuple, 'tuple[float, ...]': tuple,
}  # fmt: skip
"""Annotations that a field may have; as ROS parameters a tuple is an array."""
WORDS = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}
"""What a value must be, for people."""


@dataclass(frozen=True)
class Parameter:
    """One setting: what ROS calls a parameter with its descriptor.

    Attributes:
        element: type of the elements where `type` is tuple.
    """

    name: str
    type: type
    default: Any
    description: str
    unit: str = ''
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    swap: bool = False
    element: Any = str

    def check(self, value: Any) -> Any:
        """`value` in the type of this parameter.

        Raises:
            ConfigError: wrong type, not finite, out of range or not among the choices.
        """
        if self.type is tuple:
            return self._check_list(value)
        value = _as_float(value) if self.type is float else value
        kind: Any = type(value)  # not isinstance: a bool is no number here
        if kind is not self.type:
            raise ConfigError(f'{self.name} = {value!r}: expected {WORDS[self.type]}')
        if self.type is float and not math.isfinite(value):
            raise ConfigError(f'{self.name} = {value!r}: expected a finite number')
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            bounds = f'[{self.low:.7g}, {self.high:.7g}] {self.unit}'.rstrip()
            raise ConfigError(f'{self.name} = {value!r}: outside {bounds}')
        if self.choices and value not in self.choices:
            known = ', '.join(map(repr, self.choices))
            raise ConfigError(f'{self.name} = {value!r}: not one of {known}')
        return value

    def _check_list(self, value: Any) -> tuple[Any, ...]:
        numbers = self.element is float
        found = tuple(value) if isinstance(value, (list, tuple)) else (None,)
        found = tuple(map(_as_float, found)) if numbers else found
        if any(type(item) is not self.element for item in found):
            what = 'numbers' if numbers else 'strings'
            raise ConfigError(f'{self.name} = {value!r}: expected a list of {what}')
        if numbers and not all(map(math.isfinite, found)):
            raise ConfigError(f'{self.name} = {value!r}: expected finite numbers')
        return found


def _as_float(value: Any) -> Any:
    """A whole number as the float that it is meant as; anything else as it is."""
    return float(value) if type(value) is int else value


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
    swap: bool = False,
) -> Any:
    """A dataclass field that is also a ROS parameter."""
    return field(
        default=default,
        metadata={
            'description': description, 'unit': unit, 'low': low, 'high': high,
            'choices': choices, 'live': live, 'swap': swap,
        },
    )  # fmt: skip


def per_class(description: str, *, low: float, high: float) -> Any:
    """A field that holds one number a class; as ROS parameters `field.class`, with sliders.

    ROS descriptors have ranges for scalars only. Classes and defaults come from the model card.
    """
    return field(
        default_factory=dict,
        metadata={
            'description': description, 'unit': '', 'low': low, 'high': high,
            'live': True, 'per_class': True,
        },
    )  # fmt: skip


def specs(
    config: type, per_class_defaults: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Parameter, ...]:
    """The parameters of a configuration class, per-class fields expanded with the given defaults.

    Args:
        config: a dataclass made with `parameter` and `per_class`.
        per_class_defaults: {field: {class: default}}; a field not named has no parameters.
    """
    found = []
    for item in dataclasses.fields(config):
        meta = dict(item.metadata)
        if meta.pop('per_class', False):
            for name, default in (per_class_defaults or {}).get(item.name, {}).items():
                of_class = {**meta, 'description': f'{meta["description"]} Class: {name}.'}
                found.append(Parameter(f'{item.name}.{name}', float, float(default), **of_class))
        else:
            kind = TYPES[str(item.type)]
            element = float if 'float' in str(item.type) else str
            found.append(Parameter(item.name, kind, item.default, element=element, **meta))
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
        raise ConfigError(
            f'unknown parameter {unknown[0]!r} for {config.__name__}; '
            f'known: {", ".join(sorted(known))}'
        )
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
    """`config` with some flat values changed, validated as a set.

    Raises:
        ConfigError: as `from_values`; a class that `config` has no number for is unknown too.
    """
    return from_values(type(config), {**flat_values(config), **values}, _per_class(config))


def _per_class(config: Any) -> dict[str, dict[str, float]]:
    fields = dataclasses.fields(config)
    return {f.name: getattr(config, f.name) for f in fields if f.metadata.get('per_class')}


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
