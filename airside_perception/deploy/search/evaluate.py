"""How much a network loses with some of its nodes in INT8, on a few frames that are kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import ModelCard
from airside_perception.deploy.compare.average_precision import (
    Found,
    Truth,
    precisions,
    weighted_precision,
)
from airside_perception.deploy.compare.boxes import counted, detector, strong, thresholds
from airside_perception.deploy.compare.gate import boxes_as_truth
from airside_perception.deploy.compare.sides import ModelEngine
from airside_perception.deploy.feeds import Feeds
from airside_perception.deploy.search.shifts import Shifts, add_shifts, own_shifts
from airside_perception.engine.base import Tensors
from airside_perception.engine.bias import correct_biases
from airside_perception.engine.graph import weights
from airside_perception.engine.qdq import OPERATORS, insert_qdq
from airside_perception.errors import ConfigError
from airside_perception.files import write_whole

VERSION = 3
"""Of the stored scores."""


@dataclass(frozen=True)
class Score:
    """What a variant loses.

    Attributes:
        error: root of the mean squared error of an output, relative to the root of its mean
            square, over all frames; the mean over the outputs.
        drop: 1 - average precision against the boxes of fp32, see `average_precision.drop`; NaN
            without a detector.
    """

    error: float
    drop: float

    def of(self, metric: str) -> float:
        """`output` or `boxes`."""
        return self.drop if metric == 'boxes' else self.error


def candidates(model: Any, scales: Mapping[str, float]) -> list[str]:
    """Names of the nodes that can be INT8: `qdq.OPERATORS` whose inputs have scales.

    Args:
        model: with named nodes.
    """
    stored = weights(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in OPERATORS
        and all(name in scales or name in stored for name in node.input[:2])
        and not all(name in stored for name in node.input[:2])
    ]


class Evaluator:
    """Runs variants of one network on the same frames.

    Args:
        model: fp32, with named nodes.
        scales: {tensor: scale}.
        feeds: the frames; their inputs and outputs in fp32 are kept in memory.
        card: of the detector; None: outputs only.
        iou: least overlap of a box with that of fp32.
        correct: inputs that biases of INT8 nodes are corrected on; none: they are not.
        store: file of scores that are already known, and are kept there; None: none.

    Raises:
        EngineError, ConfigError: the network does not run, or the file holds scores of others.
    """

    def __init__(
        self,
        model: Any,
        scales: Mapping[str, float],
        feeds: Feeds,
        card: ModelCard | None = None,
        iou: float = 0.5,
        correct: Sequence[Tensors] = (),
        store: Path | None = None,
    ) -> None:
        self.model, self.scales, self.card, self.iou = model, dict(scales), card, iou
        self.nodes = candidates(model, scales)
        if not self.nodes:
            raise ConfigError(
                f'no node can be INT8: none of the {len(scales)} scales is that of an input of '
                f'{", ".join(OPERATORS)}; were they made for this network?'
            )
        self._feeds = [feeds[index] for index in range(len(feeds))] if card is None else []
        self._raw = [feeds.raw(i) for i in range(len(feeds))] if card is not None else []
        self._correct = tuple(correct)
        self._shifts: Shifts | None = None
        self._store = _Store(store, self._context(feeds)) if store else None
        self._known: dict[str, Score] = dict(self._store.scores) if self._store else {}
        self._reference, found = self._run(model)
        lowest = thresholds(card) if card is not None else {}
        self._truth: list[Truth] = [boxes_as_truth(item, lowest) for item in found]
        if card is not None and not any(item.asked.any() for item in self._truth):
            raise ConfigError(
                'fp32 finds nothing on these frames: give frames with objects, or --metric output'
            )

    def score(self, int8: Collection[str]) -> Score:
        """With these nodes in INT8 and the rest in fp32.

        Raises:
            EngineError: the variant does not run.
        """
        key = _key(int8)
        if key not in self._known:
            self._known[key] = self.measure(self.variant(int8)) if int8 else Score(0.0, self._none)
            if self._store:
                self._store.put(key, self._known[key])
        return self._known[key]

    def variant(self, int8: Collection[str]) -> Any:
        """The network with Q/DQ at these nodes, their own rounding taken out of the biases."""
        if self._shifts is None:
            self._shifts = own_shifts(self.model, self.scales, self.nodes, self._correct)
        return add_shifts(self._quantized(int8), self._shifts, list(int8))

    def final(self, int8: Collection[str]) -> Any:
        """The same for good: biases corrected layer by layer (`engine.bias`)."""
        if not int8:
            return self.model
        quantized = self._quantized(int8)
        return correct_biases(quantized, self.model, self._correct) if self._correct else quantized

    def _quantized(self, int8: Collection[str]) -> Any:
        chosen = set(int8)
        rest = [name for name in self.nodes if name not in chosen]
        return insert_qdq(self.model, self.scales, rest)

    def measure(self, model: Any) -> Score:
        """Of any variant of the network."""
        outputs, found = self._run(model)
        error = _error(self._reference, outputs)
        if self.card is None:
            return Score(error, math.nan)
        least = counted(self.card)
        both = zip(found, self._truth, strict=True)
        table = precisions([(strong(one, least), truth) for one, truth in both], self.iou)
        return Score(error, 1.0 - min(table[''].ap, weighted_precision(table)))

    @property
    def _none(self) -> float:
        return 0.0 if self.card is not None else math.nan

    def _run(self, model: Any) -> tuple[list[dict[str, NDArray[Any]]], list[Found]]:
        with _Recorder('network', model) as engine:
            if self.card is None:
                return [engine.infer(feed) for feed in self._feeds], []
            detect = detector(engine, self.card)
            outputs: list[dict[str, NDArray[Any]]] = []
            found: list[Found] = []
            for raw in self._raw:
                found.append(detect(raw))
                outputs.append(engine.last)
            return outputs, found

    def _context(self, feeds: Feeds) -> str:
        """What the scores depend on."""
        digest = hashlib.sha256(self.model.SerializeToString())
        digest.update(json.dumps(sorted(self.scales.items())).encode())
        card = self.card.name if self.card is not None else ''
        digest.update(f'{feeds.fingerprint()} {self.iou} {card} {VERSION}'.encode())
        for feed in self._correct:
            digest.update(b''.join(np.ascontiguousarray(feed[name]).data for name in sorted(feed)))
        return digest.hexdigest()


class _Recorder(ModelEngine):
    """Keeps the outputs of the last inference: the detector answers with boxes only."""

    last: dict[str, NDArray[Any]]

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        self.last = super().infer(feeds)
        return self.last


class _Store:
    """Scores in a file, written after each: an interrupted search goes on where it was."""

    def __init__(self, path: Path, context: str) -> None:
        self._path, self._context = path, context
        self.scores: dict[str, Score] = {}
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            same = content['context'] == context
            scores = {
                key: Score(float(error), math.nan if drop is None else float(drop))
                for key, (error, drop) in content['scores'].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f'{path}: no scores of an earlier search: {error}') from error
        if not same:
            raise ConfigError(
                f'{path}: scores of another network, other scales or other frames; name another '
                'file, or remove it'
            )
        self.scores = scores

    def put(self, key: str, score: Score) -> None:
        self.scores[key] = score
        scores = {
            name: [item.error, None if math.isnan(item.drop) else item.drop]
            for name, item in self.scores.items()
        }
        write_whole(self._path, json.dumps({'context': self._context, 'scores': scores}))


def _error(
    reference: Sequence[Mapping[str, NDArray[Any]]], other: Sequence[Mapping[str, NDArray[Any]]]
) -> float:
    errors = []
    for name in reference[0]:
        apart = size = 0.0
        for one, two in zip(reference, other, strict=True):
            a = np.asarray(one[name], np.float64)
            apart += float(np.square(a - two[name]).sum())
            size += float(np.square(a).sum())
        errors.append(math.sqrt(apart / size) if size else float(apart > 0.0))
    mean = float(np.mean(errors))
    return mean if math.isfinite(mean) else math.inf


def _key(int8: Collection[str]) -> str:
    return hashlib.sha256('\0'.join(sorted(int8)).encode()).hexdigest()[:24]
