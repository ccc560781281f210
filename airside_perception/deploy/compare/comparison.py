"""The whole comparison: outputs, layers and accuracy of two networks on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from airside_perception.card import ModelCard
from airside_perception.deploy.cards import card_beside
from airside_perception.deploy.compare.gate import (
    IOU,
    MAX_DROP,
    Gate,
    gate_on_boxes,
    gate_on_labels,
)
from airside_perception.deploy.compare.labels import frames_of
from airside_perception.deploy.compare.layers import (
    LayerRow,
    compare_layers,
    first_divergent,
    first_lost,
)
from airside_perception.deploy.compare.outputs import (
    Frames,
    OutputRow,
    Tolerance,
    compare_engines,
    tolerance_for,
)
from airside_perception.deploy.compare.overflow import Cure, find_cure, near_overflow
from airside_perception.deploy.compare.sides import Side, open_side
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.outputs import random_feeds
from airside_perception.engine import Engine
from airside_perception.engine.graph import has_qdq, is_half
from airside_perception.errors import ConfigError

Progress = Callable[[str, float], None]
FRAMES, RANDOM = 10, 4
"""Frames of real data, and random inputs where there are none, unless told."""
ENGINE_NOTE = (
    'layers: the inside of an engine is not visible, only its outputs are; compare the ONNX that '
    'it was built from, with --as fp16 or --as int8'
)
RANDOM_NOTE = 'random inputs show faults of a conversion, not accuracy; --data names real ones'


@dataclass(frozen=True)
class Request:
    """What to compare, and how.

    Attributes:
        a, b: networks or engines; A is the reference.
        precision_a, precision_b: `auto`: as the files are.
        scales: for int8, {tensor: scale} or a file of them.
        layer_precision: {node or pattern: fp32 or fp16} of B.
        data: source of frames, as `feeds.open_feeds` takes it; empty: random inputs.
        frames: how many of it, evenly spaced; 0: all.
        random: how many random inputs, where there is no `data`.
        card: model card; empty: beside A or B.
        topic, height, intensity_scale, fixed_frame: as for `open_feeds`.
        layers: whether every tensor is compared.
        gate: whether the whole detector is run.
        labels: folder of labelled frames in KITTI's layout, for the gate.
        max_drop, iou: of the gate.
        max_rel, cosine: tolerance; None: by precision.
        dla_core: that engines run on, -1: none; None: as their manifests say.
        allow_host_code: of engines, as for `open_engine`.
    """

    a: str | Path
    b: str | Path
    precision_a: str = 'auto'
    precision_b: str = 'auto'
    scales: str | Path | Mapping[str, float] = ''
    layer_precision: Mapping[str, str] = field(default_factory=dict)
    data: str = ''
    frames: int = FRAMES
    random: int = 0
    card: str = ''
    topic: str = ''
    height: float = 0.0
    intensity_scale: float = 1.0
    fixed_frame: str = 'odom'
    layers: bool = False
    gate: bool = False
    labels: str = ''
    max_drop: float = MAX_DROP
    iou: float = IOU
    max_rel: float | None = None
    cosine: float | None = None
    dla_core: int | None = None
    allow_host_code: bool = False


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        a, b: what was compared.
        source: where the frames come from.
        frames: how many.
        outputs: rows, one an output.
        tolerance: that they were held against.
        layers: rows, one a tensor, in topological order; empty: not looked at.
        cure: of what fp16 does not hold; None: nothing was lost, or not looked for.
        gates: what the detector says, by truth.
        notes: what to know of how it was computed.
    """

    a: str
    b: str
    source: str
    frames: int
    outputs: tuple[OutputRow, ...]
    tolerance: Tolerance
    layers: tuple[LayerRow, ...] = ()
    cure: Cure | None = None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the outputs are within the tolerance and every gate passes."""
        return all(row.good for row in self.outputs) and all(gate.good for gate in self.gates)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        divergent, lost = first_divergent(self.layers), first_lost(self.layers)
        return {
            'a': self.a,
            'b': self.b,
            'source': self.source,
            'frames': self.frames,
            'good': self.good,
            'tolerance': vars(self.tolerance),
            'outputs': [row.as_dict() for row in self.outputs],
            'layers': [row.as_dict() for row in self.layers],
            'first_divergent': divergent.as_dict() if divergent else None,
            'first_lost': lost.as_dict() if lost else None,
            'near_overflow': [row.tensor for row in near_overflow(self.layers)],
            'cure': self.cure.as_dict() if self.cure else None,
            'gates': [gate.as_dict() for gate in self.gates],
            'notes': list(self.notes),
        }


def compare(request: Request, progress: Progress = lambda step, share: None) -> Comparison:
    """Compares two networks.

    Raises:
        ConfigError, EngineError, CardError, BagError: what is asked for cannot be done; names it.
    """
    _check(request)
    a = open_side(
        request.a, request.precision_a, _for(request, request.precision_a), None,
        request.dla_core, request.allow_host_code,
    )  # fmt: skip
    b = open_side(
        request.b, request.precision_b, _for(request, request.precision_b),
        request.layer_precision, request.dla_core, request.allow_host_code,
    )  # fmt: skip
    card = _card(a, b, request.card) if request.data or request.gate or request.card else None
    if request.gate and card is None:
        raise ConfigError(
            f'{a.path}: the accuracy gate runs the whole detector, which needs a model card, and '
            'none is beside it: --card names one'
        )
    notes = list(dict.fromkeys((*a.notes, *b.notes)))
    network = next((side.path for side in (a, b) if side.model is not None), a.path)
    with ExitStack() as held:
        first, second = held.enter_context(a.open()), held.enter_context(b.open())
        feeds: Feeds | None = None
        if request.data:
            feeds = held.enter_context(
                _feeds(request, request.data, network, card, request.frames)
            )
        frames, count, source = _frames(request, feeds, a, b, first)
        if feeds is None:
            notes.append(RANDOM_NOTE)
        notes += [note for engine in (first, second) for note in engine.info.notes]
        tolerance = tolerance_for(
            _precision(a, first), _precision(b, second), request.max_rel, request.cosine
        )
        outputs = compare_engines(first, second, frames(), count, tolerance, progress)
        rows: list[LayerRow] = []
        cure = None
        if request.layers and a.model is not None and b.model is not None:
            rows = compare_layers(a.model, b.model, frames, count, tolerance, progress=progress)
            if not is_half(a.plain) and not has_qdq(a.plain):
                cure = find_cure(a.model, b, rows, frames, tolerance, progress)
        elif request.layers:
            notes.append(ENGINE_NOTE)
        gates = _gates(request, first, second, card, feeds, network, progress)
        if feeds is not None and feeds.note:
            notes.append(feeds.note)
    return Comparison(
        a.label, b.label, source, count, tuple(outputs), tolerance, tuple(rows), cure, gates,
        tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _gates(
    request: Request,
    a: Engine,
    b: Engine,
    card: ModelCard | None,
    feeds: Feeds | None,
    network: Path,
    progress: Progress,
) -> tuple[Gate, ...]:
    if not request.gate or card is None:
        return ()
    found = []
    if feeds is not None:
        found.append(gate_on_boxes(a, b, card, feeds, request.max_drop, request.iou, progress))
    if request.labels:
        folder = str(frames_of(request.labels, card))
        with _feeds(request, folder, network, card, 0) as labelled:
            found.append(
                gate_on_labels(
                    a, b, card, labelled, request.labels, request.height, request.max_drop,
                    request.iou, progress,
                )
            )  # fmt: skip
    return tuple(found)


def _frames(
    request: Request, feeds: Feeds | None, a: Side, b: Side, engine: Engine
) -> tuple[Callable[[], Frames], int, str]:
    """How to get the frames anew, how many they are, and where they come from."""
    if feeds is not None:
        known = feeds
        return (
            lambda: ((known.name(index), known[index]) for index in range(len(known))),
            len(known),
            request.data,
        )
    count = request.random or RANDOM
    model = a.plain if a.plain is not None else b.plain

    def drawn() -> Frames:
        for seed in range(count):
            yield (
                f'random {seed}',
                (random_feeds(model, seed) if model is not None else _drawn(engine, seed)),
            )

    return drawn, count, 'random inputs'


def _drawn(engine: Engine, seed: int) -> dict[str, Any]:
    """Random inputs of an engine, normal as those of networks."""
    generator = np.random.default_rng(seed)
    open_sizes = [spec for spec in engine.inputs if min(spec.shape, default=0) < 0]
    if open_sizes:
        raise ConfigError(
            f'{engine.info.path}: input {open_sizes[0]} varies, so random inputs need the ONNX: '
            'give it as A, or --data'
        )
    return {
        spec.name: generator.standard_normal(spec.shape).astype(spec.dtype)
        for spec in engine.inputs
    }


def _feeds(
    request: Request, source: str, network: Path, card: ModelCard | None, most: int
) -> Feeds:
    return open_feeds(
        source, network, card, most, request.topic, request.height, request.intensity_scale,
        request.fixed_frame,
    )  # fmt: skip


def _card(a: Side, b: Side, path: str) -> ModelCard | None:
    for side in (a, b):
        found = card_beside(side.path, path)
        if found is not None:
            return found
    return None


def _precision(side: Side, engine: Engine) -> str:
    return side.precision if side.model is not None else engine.info.precision


def _for(request: Request, precision: str) -> str | Path | Mapping[str, float]:
    return request.scales if precision == 'int8' else ''


def _check(request: Request) -> None:
    if request.frames < 0 or request.random < 0:
        raise ConfigError(
            f'frames {request.frames}, random {request.random}: expected numbers, not negative'
        )
    if request.data and request.random:
        raise ConfigError('real frames and random inputs: give one of --data and --random')
    if request.gate and not request.data and not request.labels:
        raise ConfigError(
            'the accuracy gate needs frames: --data (boxes of A are the truth) or --labels'
        )
    if request.labels and not request.gate:
        raise ConfigError('labels are for the accuracy gate: add --accuracy-gate')
    if request.scales and 'int8' not in (request.precision_a, request.precision_b):
        raise ConfigError('scales are for int8: say --as int8')
