"""Inputs of a PyTorch module: names, shapes, what varies, and arrays to trace it with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from airside_perception.deploy.outputs import random_feeds
from airside_perception.deploy.shapes import InputSpec
from airside_perception.errors import ConfigError, EngineError

TRACED = 2
"""Size at which a dimension that varies is traced where it is 1: torch.export takes 1 as fixed."""


@dataclass(frozen=True)
class Examples:
    """What a module takes, in the order of its arguments.

    Attributes:
        specs: name, shape and dtype.
        axes: {input: {axis: name}} of dimensions that vary.
        arrays: {input: array}: given ones, else random.
        given: whether the arrays are given.
    """

    specs: tuple[InputSpec, ...]
    axes: Mapping[str, Mapping[int, str]]
    arrays: Mapping[str, NDArray[Any]]
    given: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs."""
        return tuple(spec.name for spec in self.specs)

    def traced(self) -> list[NDArray[Any]]:
        """Arrays to trace with: dimensions that vary are not 1."""
        values = []
        for spec in self.specs:
            value = self.arrays[spec.name]
            for axis in self.axes.get(spec.name, {}):
                if value.shape[axis] == 1:
                    value = np.repeat(value, TRACED, axis)
            values.append(np.ascontiguousarray(value))
        return values

    def interface(self) -> Any:
        """An `onnx.ModelProto` that has these inputs and nothing else, for random inputs."""
        return helper.make_model(
            helper.make_graph([], 'inputs', list(map(self._value, self.specs)), [])
        )

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """{dimension that varies: sizes to try}: a batch at 1, 2, 3, others at one and twice."""
        found: dict[str, tuple[int, ...]] = {}
        for spec in self.specs:
            for axis, name in self.axes.get(spec.name, {}).items():
                size = spec.shape[axis]
                found.setdefault(name, (1, 2, 3) if axis == 0 else (size, 2 * size))
        return found

    def _value(self, spec: InputSpec) -> Any:
        named = self.axes.get(spec.name, {})
        dims = [named.get(axis, size) for axis, size in enumerate(spec.shape)]
        kind = helper.np_dtype_to_tensor_dtype(spec.dtype)
        return helper.make_tensor_value_info(spec.name, kind, dims)


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file.

    Raises:
        EngineError: missing, or not such a file.
    """
    if not Path(path).is_file():
        raise EngineError(f'{path}: no such file of inputs')
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile's, ValueError and OSError have no nearer common base
        raise EngineError(f'{path}: not a .npz file of arrays') from error


def gather(
    module: Any,
    specs: Sequence[InputSpec],
    axes: Mapping[str, Mapping[int, str]],
    arrays: Mapping[str, NDArray[Any]],
    own: Any,
    seed: int = 0,
) -> Examples:
    """What the module takes, from what there is: options, a file of arrays, the factory's own.

    Args:
        module: its `forward` gives names where nothing else does.
        specs: what `--input` says, in the order of the arguments.
        axes: what `--dynamic` says.
        arrays: of `--inputs`, by name.
        own: example inputs of the factory: a tensor, several, {argument: tensor}, or None.

    Raises:
        ConfigError: there is nothing, or it contradicts itself.
    """
    given = bool(arrays) or own is not None
    if arrays:
        found = {name: np.asarray(value) for name, value in arrays.items()}
        order = [spec.name for spec in specs] or _ordered(module, list(found))
        if set(order) != set(found):
            raise ConfigError(
                f'--inputs has {", ".join(found)}, but the inputs are {", ".join(order)}'
            )
        found = {name: found[name] for name in order}
    elif own is not None and not specs:
        found = _own(module, own)
    elif specs:
        given = False
        found = {}
    else:
        raise ConfigError(
            'no inputs to trace with: say --input images:1x3x384x640, or let the factory return '
            '(module, example inputs)'
        )
    for spec in specs:
        value = found.get(spec.name)
        if value is not None and (value.dtype != spec.dtype or value.ndim != len(spec.shape)):
            raise ConfigError(
                f'--inputs: {spec.name!r} is {value.dtype} {list(value.shape)}, but --input says '
                f'{spec.dtype} {list(spec.shape)}'
            )
    known = tuple(specs) or tuple(
        InputSpec(name, value.shape, value.dtype) for name, value in found.items()
    )
    _check_axes(known, axes)
    if not found:
        interface = Examples(known, {}, {}, False).interface()
        found = random_feeds(interface, seed)
    return Examples(known, axes, found, given)


def _check_axes(specs: Sequence[InputSpec], axes: Mapping[str, Mapping[int, str]]) -> None:
    ranks = {spec.name: len(spec.shape) for spec in specs}
    for name, named in axes.items():
        if name not in ranks:
            raise ConfigError(f'--dynamic {name!r}: inputs are {", ".join(ranks)}')
        for axis in named:
            if axis >= ranks[name]:
                raise ConfigError(f'--dynamic {name}:{axis}: it has {ranks[name]} dimensions')


def _own(module: Any, own: Any) -> dict[str, NDArray[Any]]:
    """The factory's example inputs by name."""
    if isinstance(own, Mapping):
        values = {str(name): own[name] for name in _ordered(module, [str(name) for name in own])}
    else:
        listed = list(own) if isinstance(own, (tuple, list)) else [own]
        names = _parameters(module)
        names += [f'input_{index}' for index in range(len(names), len(listed))]
        values = dict(zip(names, listed, strict=False))
    for name, value in values.items():
        if not hasattr(value, 'detach'):
            raise ConfigError(
                f'example input {name!r} of the factory is a {type(value).__name__}, not a tensor'
            )
    return {name: value.detach().cpu().numpy() for name, value in values.items()}


def _ordered(module: Any, names: list[str]) -> list[str]:
    """In the order of the arguments of `forward`, where they have its names."""
    order = [name for name in _parameters(module) if name in names]
    return order if len(order) == len(names) else names


def _parameters(module: Any) -> list[str]:
    return [
        name
        for name, one in inspect.signature(module.forward).parameters.items()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
