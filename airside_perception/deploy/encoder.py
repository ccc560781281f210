"""The pillar feature net of a third-party network as a model card holds it.

Autoware's CenterPoint, and whatever is exported like it, is two files: one takes the features of
the points in pillars to a feature vector a pillar, the other takes the canvas. This package
computes the first by itself, from a matrix and a bias in the card. They are found by asking, not
by reading the graph: however exporters fold and name its nodes, a network of one linear layer,
batch norm, ReLU and maximum answers max_n ReLU(W' f_n + b), and where an answer is positive it is
linear.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.engine import Engine, TensorSpec, open_engine
from airside_perception.errors import EngineError
from airside_perception.types import Float32, Float64

PROBES, POINTS = 2048, 32
"""Pillars asked about at once, and points in each, where the network leaves them open."""
TOLERANCE = {'float32': 1e-4, 'float16': 2e-2}


class FeatureNet(NamedTuple):
    """weight [F, C] and bias [C] of a pillar feature net, batch norm folded."""

    weight: Float32
    bias: Float32


def fold_encoder(path: str | Path) -> FeatureNet:
    """The feature net in an ONNX file that takes [P, N, F] to [P, C] or [P, 1, C].

    Raises:
        EngineError: no readable network, other inputs and outputs, or it is not a single layer.
    """
    with open_engine(path) as engine:
        spec = _input(engine)
        rng = np.random.default_rng(0)
        features = _features(rng, (PROBES, 1), spec.shape[2])
        found = _fit(features[:, 0], _ask(engine, spec, features))
        several = _features(rng, (PROBES, _points(spec)), spec.shape[2])
        answers = _ask(engine, spec, several)
    linear = several.astype(np.float64) @ found.weight + found.bias.astype(np.float64)
    expected = np.maximum(linear, 0.0).max(axis=1)
    scale = 1.0 + np.abs(several).max(axis=(1, 2)) * np.abs(found.weight).max()
    error = float((np.abs(answers - expected) / scale[:, None]).max())
    if not error <= TOLERANCE[spec.dtype.name]:
        raise EngineError(
            f'{path}: not one linear layer, batch norm, ReLU and maximum: it answers otherwise '
            f'(relative error {error:.2g})'
        )
    return found


def as_yaml(net: FeatureNet) -> str:
    """The lines of a card's `encoder` that hold the numbers, one row a feature."""
    rows = [', '.join(f'{value:.9g}' for value in row) for row in (*net.weight, net.bias)]
    lines = ['  weight:', *(f'    - [{row}]' for row in rows[:-1]), f'  bias: [{rows[-1]}]']
    return '\n'.join(lines)


def _input(engine: Engine) -> TensorSpec:
    """The only input of an encoder."""
    given = ', '.join(map(str, (*engine.inputs, *engine.outputs)))
    fits = len(engine.inputs) == 1 and len(engine.outputs) == 1
    if not fits or len(engine.inputs[0].shape) != 3 or engine.inputs[0].shape[2] < 1:
        raise EngineError(
            f'{engine.info.path}: {given}; expected one input [pillars, points, features] and one '
            'output'
        )
    if engine.inputs[0].dtype.name not in TOLERANCE:
        raise EngineError(f'{engine.info.path}: {given}; expected float32 or float16')
    return engine.inputs[0]


def _points(spec: TensorSpec) -> int:
    return spec.shape[1] if spec.shape[1] > 0 else POINTS


def _features(rng: np.random.Generator, shape: tuple[int, int], features: int) -> Float32:
    """Features [P, N, F] of all sizes: offsets are decimetres, coordinates a hundred metres."""
    size = 10.0 ** rng.uniform(-1.0, 2.0, (*shape, 1))
    return (rng.normal(size=(*shape, features)) * size).astype(np.float32)


def _ask(engine: Engine, spec: TensorSpec, features: Float32) -> Float64:
    """Answers [P, C] for features [P, N or 1, F]; a single point stands for all of its pillar."""
    points, batch = _points(spec), spec.shape[0] if spec.shape[0] > 0 else len(features)
    if features.shape[1] == 1:
        features = np.repeat(features, points, axis=1)
    answers = []
    for first in range(0, len(features), batch):
        part = features[first : first + batch]
        feed: NDArray[Any] = np.zeros((batch, points, spec.shape[2]), spec.dtype)
        feed[: len(part)] = part
        (answer,) = engine.infer({spec.name: feed}).values()
        answers.append(answer.reshape(batch, -1)[: len(part)].astype(np.float64))
    return np.concatenate(answers)


def _fit(features: Float32, answers: Float64) -> FeatureNet:
    """Weights and biases by least squares over the positive answers of every channel."""
    design = np.append(features.astype(np.float64), np.ones((len(features), 1)), axis=1)
    certainty = 1.0 / np.linalg.norm(design, axis=1)  # rounding errors grow with the features
    columns = []
    for answer in answers.T:
        used = np.flatnonzero(answer > 0.0)
        rows, values = design[used] * certainty[used, None], answer[used] * certainty[used]
        # a channel that never answers has no rows, and gets zeros
        columns.append(np.linalg.lstsq(rows, values, rcond=None)[0])
    both = np.stack(columns, axis=1).astype(np.float32)
    return FeatureNet(both[:-1], both[-1])
