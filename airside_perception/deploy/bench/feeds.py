"""Arrays that a network is timed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.bench.settings import Shape
from airside_perception.engine import TensorSpec
from airside_perception.errors import ConfigError

LARGEST_INDEX = 3
"""Of random int32 and int64: they are mostly indices, and most tables have that many entries."""
MADE = ('random', 'zeros')


def resolve_shapes(
    inputs: Sequence[TensorSpec],
    given: Mapping[str, Shape],
    best: Mapping[str, Shape] | None = None,
) -> dict[str, Shape]:
    """{input: shape}: as given, else the best, else the network's own with batch 1.

    Args:
        given: names of other networks' inputs are left out.
        best: shapes that an engine was optimised for.

    Raises:
        ConfigError: a shape that the input does not take, or one that nothing says.
    """
    shapes = {}
    for spec in inputs:
        shape = given.get(spec.name) or (best or {}).get(spec.name)
        if shape is None:
            shape = tuple(
                1 if size < 0 and axis == 0 else size for axis, size in enumerate(spec.shape)
            )
            if min(shape, default=1) < 0:
                example = 'x'.join('N' if size < 0 else str(size) for size in shape)
                raise ConfigError(
                    f'input {spec} varies in more than its batch: give its shape, as '
                    f'--shapes {spec.name}:{example}'
                )
        if not spec.accepts(shape):
            raise ConfigError(f'shape {list(shape)} does not fit input {spec}')
        shapes[spec.name] = shape
    return shapes


def make_feeds(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Shape], data: str, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """{input: array} of these shapes, in the dtypes of the inputs.

    Args:
        data: `random` (normal floats, small integers), `zeros`, or a .npz or .npy file.

    Raises:
        ConfigError: a file that cannot be read, or whose arrays do not fit.
    """
    generator = np.random.default_rng(seed)
    if data == 'zeros':
        return {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in inputs}
    if data == 'random':
        return {spec.name: _random(spec, shapes[spec.name], generator) for spec in inputs}
    stored = _read(data, inputs)
    feeds = {}
    for spec in inputs:
        if spec.name not in stored:
            raise ConfigError(f'{data}: no array {spec.name!r}; there are {", ".join(stored)}')
        value = stored[spec.name]
        if value.shape != shapes[spec.name]:
            raise ConfigError(
                f'{data}: {spec.name!r} is {list(value.shape)}, not {list(shapes[spec.name])}'
            )
        feeds[spec.name] = np.ascontiguousarray(value, spec.dtype)
    return feeds


def stored_shapes(data: str, inputs: Sequence[TensorSpec]) -> dict[str, Shape]:
    """Shapes of the arrays in a file; none where `data` names no file.

    Raises:
        ConfigError: a file that cannot be read.
    """
    if data in MADE:
        return {}
    return {name: value.shape for name, value in _read(data, inputs).items()}


def _read(data: str, inputs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    path = Path(data)
    if path.suffix not in ('.npy', '.npz'):
        raise ConfigError(f'data {data!r}: expected random, zeros, or a .npz or .npy file')
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            if len(inputs) != 1:
                names = ', '.join(spec.name for spec in inputs)
                raise ConfigError(f'{path}: one array for {names}: put them into a .npz file')
            return {inputs[0].name: found}
        with found:
            return dict(found)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, 'strerror', None) or 'not an array file of NumPy'
        raise ConfigError(f'{path}: cannot be read: {reason}') from error


def _random(spec: TensorSpec, shape: Shape, generator: np.random.Generator) -> NDArray[Any]:
    if spec.dtype == np.bool_:
        return generator.random(shape) < 0.5
    if spec.dtype.kind == 'f':
        return np.asarray(generator.standard_normal(shape), spec.dtype)
    span = np.iinfo(spec.dtype)
    low, high = (span.min, span.max) if spec.dtype.itemsize == 1 else (0, LARGEST_INDEX)
    return generator.integers(low, high, shape, endpoint=True).astype(spec.dtype)
