"""ROS parameters out of configuration dataclasses: declared, validated as a set, staged."""

from __future__ import annotations

import array
import difflib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from airside_perception.config import Parameter, flat_values, from_values, replace_values, specs
from airside_perception.errors import ConfigError

Config = TypeVar('Config')


class Parameters(Generic[Config]):
    """The parameters of one node and, at any time, the configuration that they make.

    Plain parameters are declared at once; those of a class (`score_thresholds.person`) by
    `configure`, when the model card has named the classes, and they live until `release`. What
    they were set to by hand is kept for the next `configure`; that of a class which its card does
    not have is forgotten. A value from the command line or a parameter file that cannot be used
    does not end the node: it is kept in mind, and `configure` refuses until it has been set to
    something that can.

    Attributes:
        config: the newest valid set; replaced as a whole, so a worker may take it between frames.
    """

    def __init__(self, node: Node, config: type[Config]) -> None:
        self._node = node
        self._type = config
        self._plain = {spec.name: spec for spec in specs(config)}
        self._per_class: dict[str, Parameter] = {}
        self._by_hand: dict[str, Any] = {}  # values of classes that were set, not given or default
        self._refused: dict[str, str] = {}
        self._declaring: set[str] = set()
        self._configured = False
        self._swapping = False
        self.config = config()
        values = {spec.name: self._declare(spec) for spec in self._plain.values()}
        try:
            self.config = replace_values(self.config, values)
        except ConfigError as error:
            # each value is fine, but not all of them together: not the fault of any one name
            self._refused[''] = str(error)
        node.add_on_set_parameters_callback(self._on_set)

    def configure(self, per_class: Mapping[str, Mapping[str, float]] | None = None) -> Config:
        """Declares what the classes need, fixes what may not change while configured.

        Args:
            per_class: {field: {class: default}}, as in `config.specs`.

        Raises:
            ConfigError: a parameter that was given is unknown, or its value cannot be used.
        """
        self.release()
        values = flat_values(self.config)
        values.update(self._declare_all(self._classes(per_class)))
        self._check_overrides()
        self.config = from_values(self._type, values, per_class)
        self._configured = True
        return self.config

    def release(self) -> None:
        """Undoes `configure`: everything may be set again, parameters of classes are gone."""
        self._configured = False
        self._undeclare_classes()
        plain = {
            name: value for name, value in flat_values(self.config).items() if name in self._plain
        }
        self.config = from_values(self._type, plain)

    def swaps(self, items: list[RosParameter]) -> bool:
        """Whether these values ask for another network under a configured node."""
        before = flat_values(self.config)
        return self._configured and any(
            item.name in self._plain
            and self._plain[item.name].swap
            and _from_ros(self._plain[item.name], item.value) != before[item.name]
            for item in items
        )

    def preview(self, items: list[RosParameter]) -> Config:
        """The configuration that these values would make.

        Raises:
            ConfigError: one of them cannot be used, or may not change now.
        """
        values = self._values(items)
        merged = self._merged(values)
        self._check_fixed(values, swapping=getattr(merged, 'allow_hot_swap', False))
        return merged

    def swap(
        self, items: list[RosParameter], per_class: Mapping[str, Mapping[str, float]]
    ) -> SetParametersResult:
        """Sets these values, which come with another network, and declares what its classes need.

        A class of both networks whose number was set by hand keeps it.
        """
        fresh = {spec.name for spec in specs(self._type, per_class)}
        for item in items:
            if item.name in self._per_class and item.name not in fresh:
                return SetParametersResult(
                    successful=False, reason=f'{item.name}: the new network has no such class'
                )
        self._swapping = True
        try:
            result: SetParametersResult = self._node.set_parameters_atomically(items)
            if result.successful:
                self._declare_classes(per_class)
        finally:
            self._swapping = False
        return result

    def _declare_classes(self, per_class: Mapping[str, Mapping[str, float]]) -> None:
        fresh = self._classes(per_class)
        if fresh == self._per_class:
            return
        values = flat_values(self.config)
        plain = {name: value for name, value in values.items() if name in self._plain}
        self._undeclare_classes()
        self.config = from_values(self._type, {**plain, **self._declare_all(fresh)}, per_class)

    def _classes(
        self, per_class: Mapping[str, Mapping[str, float]] | None
    ) -> dict[str, Parameter]:
        found = specs(self._type, per_class)
        return {spec.name: spec for spec in found if spec.name not in self._plain}

    def _declare_all(self, per_class: dict[str, Parameter]) -> dict[str, Any]:
        """Declares the parameters of these classes; their values."""
        self._per_class = per_class
        self._by_hand = {name: self._by_hand[name] for name in self._by_hand if name in per_class}
        return {
            name: self._declare(spec, self._by_hand.get(name)) for name, spec in per_class.items()
        }

    def _undeclare_classes(self) -> None:
        for name in self._per_class:
            self._refused.pop(name, None)
            if self._node.has_parameter(name):
                self._node.undeclare_parameter(name)
        self._per_class = {}

    def given(self, prefix: str) -> list[str]:
        """Names that start with `prefix` among those given on the command line or in a file."""
        return [name for name in self._overrides() if name.startswith(prefix)]

    def _overrides(self) -> dict[str, Any]:
        """What the command line and parameter files give; rclpy has no public name for it."""
        return {name: item.value for name, item in self._node._parameter_overrides.items()}

    def _declare(self, spec: Parameter, changed: Any = None) -> Any:
        """Declares one with the value that it was changed to, that was given, or its default."""
        value = spec.default if changed is None else changed
        overrides = self._overrides()
        if changed is None and spec.name in overrides:
            try:
                value = spec.check(_from_ros(spec, overrides[spec.name]))
            except ConfigError as error:
                self._refused[spec.name] = str(error)
        self._declaring.add(spec.name)
        self._node.declare_parameter(
            spec.name, _to_ros(spec, value), _descriptor(spec), ignore_override=True
        )
        self._declaring.discard(spec.name)
        return value

    def _check_overrides(self) -> None:
        known = {*self._plain, *self._per_class}
        for name in sorted(self._overrides()):
            if (
                name not in known
                and not self._node.has_parameter(name)
                and not name.startswith('qos_overrides.')
            ):
                near = difflib.get_close_matches(name, sorted(known), 1)
                hint = (
                    f'; did you mean {near[0]!r}?'
                    if near
                    else f'; known: {", ".join(sorted(known))}'
                )
                raise ConfigError(f'unknown parameter {name!r}{hint}')
        if self._refused:
            raise ConfigError(next(iter(self._refused.values())))

    def _on_set(self, items: list[RosParameter]) -> SetParametersResult:
        values = self._values([item for item in items if item.name not in self._declaring])
        if not values:
            return SetParametersResult(successful=True)
        before = flat_values(self.config)
        try:
            self._check_fixed(values, self._swapping)
            self.config = self._merged(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name, value in flat_values(self.config).items():
            if name in self._per_class and value != before.get(name):
                self._by_hand[name] = value
        for name in [*values, '']:
            self._refused.pop(name, None)
        return SetParametersResult(successful=True)

    def _values(self, items: list[RosParameter]) -> dict[str, Any]:
        """The values among these that are ours."""
        known = {**self._plain, **self._per_class}
        return {
            item.name: _from_ros(known[item.name], item.value)
            for item in items
            if item.name in known
        }

    def _check_fixed(self, values: Mapping[str, Any], swapping: bool) -> None:
        """Refuses what may not change now."""
        before = flat_values(self.config)
        known = {**self._plain, **self._per_class}
        for name, value in values.items():
            spec = known[name]
            may = not self._configured or spec.live or (swapping and spec.swap)
            if not may and value != before.get(name):
                swap = 'set allow_hot_swap, or ' if spec.swap else ''
                raise ConfigError(
                    f'{name} is fixed while the node is configured; {swap}'
                    'deactivate and cleanup, set it, then configure and activate'
                )

    def _merged(self, values: Mapping[str, Any]) -> Config:
        """The configuration with these values.

        From what every parameter says, not from the last valid set: the two differ where the
        values given at the start contradict each other.
        """
        known = {**self._plain, **self._per_class}
        current = {
            name: _from_ros(spec, self._node.get_parameter(name).value)
            for name, spec in known.items()
        }
        return replace_values(self.config, {**current, **values})


def _descriptor(spec: Parameter) -> ParameterDescriptor:
    unit = f' [{spec.unit}]' if spec.unit else ''
    unless = ', unless allow_hot_swap is true' if spec.swap else ''
    fixed = '' if spec.live else f' Fixed while the node is configured{unless}.'
    descriptor = ParameterDescriptor(description=spec.description + unit + fixed)
    if spec.choices:
        descriptor.additional_constraints = f'One of {", ".join(spec.choices)}.'
    if spec.low is not None and spec.high is not None:
        if spec.type is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high), step=0.0)
            ]
    return descriptor


def _to_ros(spec: Parameter, value: Any) -> Any:
    """An empty list has no type in ROS: one empty name, or the default numbers, stand for it."""
    if spec.type is not tuple:
        return value
    return list(value) or ([''] if spec.element is str else list(spec.default))


def _from_ros(spec: Parameter, value: Any) -> Any:
    if spec.type is not tuple:
        return value
    if value is None and spec.element is float:  # [] in a parameter file
        return spec.default
    is_list = isinstance(value, (list, tuple, array.array))
    return tuple(item for item in value if item != '') if is_list else value
