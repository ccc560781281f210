"""Reads keys out of YAML mappings, and says which one is missing, unknown or wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from airside_perception.errors import CardError
from airside_perception.types import Float32


class Reader:
    """Takes keys out of a mapping one by one and knows what is left."""

    def __init__(self, path: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise CardError(f'{path} is {values!r}, expected a mapping')
        self.path = path
        self._values = dict(values)

    def take(self, key: str, kind: Any, default: Any = None) -> Any:
        """The value of `key`, which must be of `kind`; without a default it must be there."""
        if key not in self._values:
            if default is None:
                raise CardError(f'{self.path}: key {key!r} is missing')
            return default
        value = self._values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CardError(f'{self.path}: {key} is {value!r}, expected {kind.__name__}')
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value: float = self.take(key, float, default)
        if not math.isfinite(value):
            raise CardError(f'{self.path}: {key} is {value!r}, expected a finite number')
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer."""
        value: int = self.take(key, int, default)
        if value < 1:
            raise CardError(f'{self.path}: {key} is {value}, expected 1 or more')
        return value

    def numbers(
        self, key: str, count: int, default: tuple[float, ...] | None = None
    ) -> tuple[float, ...]:
        """A list of `count` finite numbers."""
        values = self.take(key, list, list(default) if default is not None else None)
        if len(values) != count or not all(map(is_number, values)):
            raise CardError(f'{self.path}: {key} is {values!r}, expected {count} numbers')
        return tuple(float(n) for n in values)

    def array(self, key: str, dimensions: int) -> Float32:
        """Nested lists of numbers."""
        values = self.take(key, list)
        try:
            array = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise CardError(f'{self.path}: {key} is no array of numbers: {error}') from error
        if array.ndim != dimensions or not np.isfinite(array).all():
            raise CardError(f'{self.path}: {key} is no finite array of {dimensions} dimensions')
        return array

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings, each once."""
        values = self.take(key, list)
        if not values or not all(isinstance(n, str) for n in values):
            raise CardError(f'{self.path}: {key} is {values!r}, expected names')
        if len(set(values)) != len(values):
            raise CardError(f'{self.path}: {key} names one twice: {", ".join(values)}')
        return tuple(values)

    def all_numbers(self) -> dict[str, float]:
        """Everything that is left, as {name: number}."""
        wrong = [key for key, value in self._values.items() if not is_number(value)]
        if wrong:
            raise CardError(f'{self.path}: {wrong[0]} is {self._values[wrong[0]]!r}, no number')
        return {str(key): float(value) for key, value in self._values.items()}

    @property
    def left(self) -> tuple[str, ...]:
        """The keys that nobody has taken."""
        return tuple(self._values)

    def nested(self, key: str, default: dict[str, Any] | None = None) -> Reader:
        """A mapping below `key`."""
        return Reader(f'{self.path}: {key}', self.take(key, dict, default))

    def finish(self) -> None:
        """Refuses what nobody took."""
        if self._values:
            raise CardError(f'{self.path}: unknown key {min(map(str, self._values))!r}')


def is_number(value: Any) -> bool:
    """Whether a YAML value is a finite number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
