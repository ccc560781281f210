"""Whether two networks compute the same: both run on ONNX Runtime, on inputs of several kinds.

Compared are the outputs and every tensor that both have and that is made in another way, each by
its largest difference relative to its largest value. ONNX Runtime leaves both graphs as they are.

Tolerances: 1e-5 for fp32, where the sum of a convolution in another order differs by about 3e-7;
4e-3 for fp16, four units in its last place. Integers and bool are equal. Some networks amplify
rounding beyond that (YOLOX-nano on noise: one unit in the last place of the input moves its
output by 5e-5). There the tolerance is ten times what rounding alone does to the network as it
was: inputs moved by one unit in the last place, sums as ONNX Runtime's own optimisations order
them, and means in float64, whose sums are long. It is never above 1e-3, fp16 4e-2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.deploy.outputs import OnnxRunner, difference
from airside_perception.deploy.rewrites.batch import batch_of
from airside_perception.deploy.rewrites.precise import precise_means
from airside_perception.errors import EngineError

TOLERANCES = {'float32': 1e-5, 'float16': 4e-3, 'float64': 1e-5}
NOISE_FACTOR = 10.0
LARGEST_TOLERANCE = {'float32': 1e-3, 'float16': 4e-2, 'float64': 1e-3}
Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Proof:
    """What a comparison found.

    Attributes:
        error: largest relative difference of a tensor; infinite where shapes differ, or one of
            the networks does not run.
        tensor: that it was found at.
        equal: whether all tensors are within their tolerances.
        reason: why not, empty where they are.
        noise: what rounding alone does to that tensor, where that mattered; else 0.
    """

    error: float
    tensor: str
    equal: bool
    reason: str = ''
    noise: float = 0.0


def prove(before: Any, after: Any, feeds: Sequence[Feed], inside: bool = True) -> Proof:
    """Whether `after` computes what `before` computes.

    Where their batch sizes differ, each gets the same samples in its own portions.

    Args:
        before, after: `onnx.ModelProto`.
        feeds: inputs; their leading dimension is a multiple of both batch sizes.
        inside: compare tensors within the networks, too.
    """
    sizes = batch_of(before), batch_of(after)
    resized = None not in sizes and sizes[0] != sizes[1]
    names = [value.name for value in before.graph.output]
    if inside and not resized:
        names += _remade(before, after)
    worst = Proof(0.0, names[0], True)
    try:
        noise = _Noise(before, names, (sizes[0] or 0) * resized)
        one = _Runner(before, names, (sizes[0] or 0) * resized)
        other = _Runner(after, names, (sizes[1] or 0) * resized)
        for feed in feeds:
            wanted, results = one(feed), other(feed)
            for name in names:
                found = _compare(name, wanted[name], results[name], partial(noise, feed, wanted))
                if not found.equal:
                    return found
                worst = found if found.error > worst.error else worst
    except EngineError as error:
        return Proof(float('inf'), '', False, str(error))
    return worst


class _Runner:
    """A network, run in portions of its batch where it gets more samples; 0: as it is."""

    def __init__(
        self, model: Any, names: Sequence[str], batch: int, optimise: bool = False
    ) -> None:
        self._runner = OnnxRunner(model, names, optimise)
        self._batch = batch

    def __call__(self, feed: Feed) -> dict[str, NDArray[Any]]:
        if not self._batch:
            return self._runner.run(feed)
        count = len(next(iter(feed.values())))
        parts = [
            self._runner.run({name: value[at : at + self._batch] for name, value in feed.items()})
            for at in range(0, count, self._batch)
        ]
        try:
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except ValueError as error:
            raise EngineError(f'an output has no batch: {error}') from error


class _Noise:
    """What rounding alone does to the tensors of a network; looked at where it matters only."""

    def __init__(self, model: Any, names: Sequence[str], batch: int) -> None:
        self._model, self._names, self._batch = model, names, batch
        self._runners: list[_Runner] = []
        self._feed: Feed = {}
        self._found: dict[str, float] = {}

    def __call__(self, feed: Feed, wanted: Feed) -> dict[str, float]:
        """{tensor: largest relative difference}."""
        if not self._runners:
            kinds = (
                (self._model, False),
                (self._model, True),
                (precise_means(self._model), False),
            )
            self._runners = [
                _Runner(model, self._names, self._batch, optimise)
                for model, optimise in kinds
                if model is not None
            ]
        if feed is not self._feed:
            moved = {
                name: np.nextafter(value, np.asarray(np.inf, value.dtype))
                if value.dtype.kind == 'f'
                else value
                for name, value in feed.items()
            }
            feeds = (moved, feed, feed)
            runs = [run(item) for run, item in zip(self._runners, feeds, strict=False)]
            self._feed = feed
            self._found = {
                name: max(difference(wanted[name], run[name]).max_rel for run in runs)
                for name in self._names
            }
        return self._found


def _compare(
    name: str,
    reference: NDArray[Any],
    value: NDArray[Any],
    noise: Callable[[], Mapping[str, float]],
) -> Proof:
    """One tensor against its reference; `noise` is asked where the tolerance is too small."""
    if reference.dtype != value.dtype:
        said = f'{name}: {value.dtype} in place of {reference.dtype}'
        return Proof(float('inf'), name, False, said)
    try:
        found = difference(reference, value)
    except EngineError as error:
        return Proof(float('inf'), name, False, f'{name}: {error}')
    kind = str(reference.dtype)
    limit, rounding = TOLERANCES.get(kind, 0.0), 0.0
    if found.within(limit):
        return Proof(found.max_rel, name, True)
    if found.within(LARGEST_TOLERANCE.get(kind, 0.0)):
        rounding = noise()[name]
        limit = max(limit, min(NOISE_FACTOR * rounding, LARGEST_TOLERANCE[kind]))
        if found.within(limit):
            return Proof(found.max_rel, name, True, noise=rounding)
    odd = found.nan + found.inf
    more = f', {odd} values NaN or infinite in one only' if odd else ''
    said = f'{name}: relative error {found.max_rel:.2g}, at most {limit:.2g} is allowed{more}'
    return Proof(found.max_rel if not odd else float('inf'), name, False, said, rounding)


def _remade(before: Any, after: Any) -> list[str]:
    """Tensors inside both networks whose nodes differ: a rewrite is compared where it is."""
    old, new = (
        {n: node for node in m.graph.node for n in node.output if n} for m in (before, after)
    )
    outputs = {value.name for value in before.graph.output}
    return [
        name
        for name, node in old.items()
        if name in new and name not in outputs and _said(node) != _said(new[name])
    ]


def _makers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output if name}


def _said(node: Any) -> tuple[Any, ...]:
    attributes = sorted(item.SerializeToString(deterministic=True) for item in node.attribute)
    return node.op_type, tuple(node.input), tuple(node.output), tuple(attributes)
