"""Shapes and types of inputs, as they are written on a command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from airside_perception.errors import ConfigError

KINDS = ('float32', 'float16', 'float64', 'int8', 'uint8', 'int32', 'int64', 'bool')
DEFAULT = 'float32'


@dataclass(frozen=True)
class InputSpec:
    """An input: its name, shape and dtype; -1 is a dimension that is not said."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_shapes(words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """{input: shape} from words like `images:1x3x384x640`, several by comma; `?` becomes -1.

    Raises:
        ConfigError: a word of another form, or an input twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for word in filter(None, (part for words_ in words for part in words_.split(','))):
        name, colon, text = word.rpartition(':')
        if not (colon and name):
            raise _malformed('--shape', word)
        if name in shapes:
            raise ConfigError(f'--shape {word!r}: {name!r} is given twice')
        shapes[name] = _shape('--shape', word, text, unknown=True)
    return shapes


def read_inputs(words: Iterable[str]) -> tuple[InputSpec, ...]:
    """Inputs from words like `images:1x3x384x640` or `labels:1x20:int64`, in their order.

    Raises:
        ConfigError: a word of another form, an unknown type, or an input twice.
    """
    found: dict[str, InputSpec] = {}
    for word in words:
        head, colon, last = word.rpartition(':')
        kind = last if colon and last in KINDS else DEFAULT
        if colon and last not in KINDS and last and last[0].isalpha():
            raise ConfigError(f'--input {word!r}: type {last!r} is not one of {", ".join(KINDS)}')
        body = head if colon and last in KINDS else word
        name, colon, text = body.rpartition(':')
        if not (colon and name):
            raise _malformed('--input', word)
        if name in found:
            raise ConfigError(f'--input {word!r}: {name!r} is given twice')
        shape = _shape('--input', word, text, unknown=False)
        found[name] = InputSpec(name, shape, np.dtype(kind))
    return tuple(found.values())


def read_axes(words: Iterable[str]) -> dict[str, dict[int, str]]:
    """{input: {axis: name}} from words like `images:0=batch`, several of them by comma.

    Raises:
        ConfigError: a word of another form, or an axis twice.
    """
    axes: dict[str, dict[int, str]] = {}
    for word in (part for words_ in words for part in words_.split(',')):
        name, colon, rest = word.rpartition(':')
        axis, sign, dim = rest.partition('=')
        if not (colon and name and sign and axis.isdecimal() and dim.isidentifier()):
            raise ConfigError(f'--dynamic {word!r}: expected INPUT:AXIS=NAME, e.g. images:0=batch')
        if int(axis) in axes.setdefault(name, {}):
            raise ConfigError(f'--dynamic {word!r}: axis {axis} of {name!r} is given twice')
        axes[name][int(axis)] = dim
    return axes


def _shape(option: str, word: str, text: str, unknown: bool) -> tuple[int, ...]:
    shape = []
    for part in text.split('x') if text else ():
        if part == '?' and unknown:
            shape.append(-1)
        elif part.isdecimal() and int(part) > 0:
            shape.append(int(part))
        else:
            raise _malformed(option, word)
    return tuple(shape)


def _malformed(option: str, word: str) -> ConfigError:
    return ConfigError(f'{option} {word!r}: expected INPUT:SHAPE, e.g. images:1x3x384x640')
