"""Protobuf's text format, as far as Triton's model configurations need it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airside_perception.errors import ConfigError


class Symbol(str):
    """A word that stands without quotes: a value of an enumeration."""

    __slots__ = ()


class Map(dict[str, Any]):
    """A map field: an entry with key and value for each item."""


def text_of(message: Mapping[str, Any]) -> str:
    """A message in text format.

    Args:
        message: {field: value}; a value is a number, a truth value, a text, a `Symbol`, a mapping
            (a message), a `Map`, or a sequence of these for a field that is repeated. None and
            empty sequences are left out.

    Raises:
        ConfigError: a value of another kind.
    """
    return '\n'.join(_fields(message, 0)) + '\n'


def _fields(message: Mapping[str, Any], depth: int) -> Iterator[str]:
    pad = '  ' * depth
    for name, value in message.items():
        if isinstance(value, Map):
            for key, item in value.items():
                yield from _message(name, {'key': key, 'value': item}, depth)
        elif isinstance(value, Mapping):
            yield from _message(name, value, depth)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(item, Mapping) for item in value):
                for item in value:
                    yield from _message(name, item, depth)
            else:
                yield f'{pad}{name}: [ {", ".join(_scalar(name, item) for item in value)} ]'
        elif value is not None:
            yield f'{pad}{name}: {_scalar(name, value)}'


def _message(name: str, value: Mapping[str, Any], depth: int) -> Iterator[str]:
    pad = '  ' * depth
    yield f'{pad}{name} {{'
    yield from _fields(value, depth + 1)
    yield f'{pad}}}'


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)
    if isinstance(value, int):
        return str(value)
    raise ConfigError(f'{name} = {value!r} has no place in a model configuration')
