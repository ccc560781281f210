"""Random inputs of several kinds, for proofs that two networks compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from airside_perception.deploy.outputs import random_feeds
from airside_perception.engine.graph import inputs

KINDS = ('normal', 'negative', 'pixels', 'spikes', 'small')
"""Of random inputs: around zero; all below zero, which shows zeros that padding brought in; 0 to
255; almost all zero, the rest ±10,000 (fp16: ±100); around 1e-4."""


def feeds_of(model: Any, batch: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Random inputs of all kinds for a network with static shapes.

    Args:
        batch: samples in place of its own leading dimension; 0: as it is.

    Raises:
        EngineError: an input has no random values.
    """
    found = []
    for seed, kind in enumerate(KINDS):
        generator = np.random.default_rng(1000 + seed)
        feed = random_feeds(_with_batch(model, batch) if batch else model, seed)
        found.append(
            {
                name: _of_kind(kind, value, generator) if value.dtype.kind == 'f' else value
                for name, value in feed.items()
            }
        )
    return found


def _of_kind(kind: str, value: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Normal values as values of another kind, of the same shape and type."""
    if kind == 'negative':
        value = -np.abs(value) - np.asarray(0.01, value.dtype)
    elif kind == 'pixels':
        value = generator.uniform(0, 255, value.shape).astype(value.dtype)
    elif kind == 'spikes':
        large = 100.0 if value.dtype == np.float16 else 1e4
        value = np.where(generator.random(value.shape) < 0.01, np.sign(value) * large, 0.0).astype(
            value.dtype
        )
    elif kind == 'small':
        value = (value * np.asarray(1e-4, value.dtype)).astype(value.dtype)
    return np.asarray(value)


def _with_batch(model: Any, batch: int) -> Any:
    """A graph without nodes whose inputs have this leading dimension."""
    copy = onnx.ModelProto()
    for value in inputs(model):
        copy.graph.input.add().CopyFrom(value)
        dims = copy.graph.input[-1].type.tensor_type.shape.dim
        if len(dims):
            dims[0].dim_value = batch
    return copy
