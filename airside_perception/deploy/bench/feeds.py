"""Arrays that a network is timed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.bench.settings import InputSettings, Shape
from airside_perception.engine import TensorSpec
from airside_perception.engine.base import Tensors
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
                    f'--shape {spec.name}:{example}'
                )
        if not spec.accepts(shape):
            raise ConfigError(f'shape {list(shape)} does not fit input {spec}')
        shapes[spec.name] = shape
    return shapes


def make_feeds(
    inputs: Sequence[TensorSpec],
    shapes: Mapping[str, Shape],
    data: str,
    loaded: Tensors | None = None,
    seed: int = 0,
) -> dict[str, NDArray[Any]]:
    """{input: array} of these shapes, in the dtypes of the inputs.

    Args:
        data: `random` (normal floats, small integers), `zeros`, or what `loaded` came from.
        loaded: arrays by the names of the inputs.

    Raises:
        ConfigError: arrays that are missing or of other shapes.
    """
    if loaded is None:
        generator = np.random.default_rng(seed)
        if data == 'zeros':
            return {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in inputs}
        return {spec.name: _random(spec, shapes[spec.name], generator) for spec in inputs}
    feeds = {}
    for spec in inputs:
        if spec.name not in loaded:
            raise ConfigError(f'{data}: no array {spec.name!r}; there are {", ".join(loaded)}')
        value = loaded[spec.name]
        if value.shape != shapes[spec.name]:
            raise ConfigError(
                f'{data}: {spec.name!r} is {list(value.shape)}, not {list(shapes[spec.name])}'
            )
        feeds[spec.name] = np.ascontiguousarray(value, spec.dtype)
    return feeds


def load_data(settings: InputSettings, model_path: str | Path) -> tuple[Tensors | None, str]:
    """Arrays by the names of inputs: of a .npz file, or of a first image, cloud or message.

    And what they lack, in a line; '' where they lack nothing.

    Args:
        settings: their `data` is .npz, or what `deploy.feeds.open_feeds` reads, as the nodes
            preprocess it: the first that has all past sweeps that the network sees. `random`,
            `zeros`: there is nothing to load, None.

    Raises:
        PerceptionError: nothing that can be read, or that fits the network.
    """
    data = settings.data
    if data in MADE:
        return None, ''
    path = Path(data)
    if path.suffix == '.npz':
        try:
            with np.load(path, allow_pickle=False) as found:
                return dict(found), ''
        except Exception as error:  # OSError, ValueError, and BadZipFile, which is neither
            reason = getattr(error, 'strerror', None) or 'not an array file of NumPy'
            raise ConfigError(f'{path}: cannot be read: {reason}') from error
    if not path.exists():
        raise ConfigError(
            f'data {data!r}: expected random, zeros, a .npz file, images, clouds or a recording'
        )
    from airside_perception.deploy.cards import card_beside  # with all that reads real data
    from airside_perception.deploy.feeds import open_feeds

    card = card_beside(Path(model_path), settings.card)
    with open_feeds(
        data, model_path, card, 1, settings.topic, settings.height, settings.intensity_scale,
        settings.fixed_frame,
    ) as feeds:  # fmt: skip
        return feeds[0], feeds.note


def _random(spec: TensorSpec, shape: Shape, generator: np.random.Generator) -> NDArray[Any]:
    if spec.dtype == np.bool_:
        return generator.random(shape) < 0.5
    if spec.dtype.kind == 'f':
        return np.asarray(generator.standard_normal(shape), spec.dtype)
    span = np.iinfo(spec.dtype)
    low, high = (span.min, span.max) if spec.dtype.itemsize == 1 else (0, LARGEST_INDEX)
    return generator.integers(low, high, shape, endpoint=True).astype(spec.dtype)
