"""A search from files to files: network, scales and frames in, mixed network out."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside_perception.card import ModelCard
from airside_perception.deploy.card_copy import card_text, write_card
from airside_perception.deploy.cards import card_beside
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.search.evaluate import Evaluator
from airside_perception.deploy.search.search import BUDGETS, METRICS, Search, search
from airside_perception.engine.calibration_cache import read_scales
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq, is_half, name_nodes
from airside_perception.engine.qdq import scales as scales_of
from airside_perception.engine.quantize import METHODS, quantize
from airside_perception.engine.typed import read_network
from airside_perception.errors import ConfigError
from airside_perception.files import write_whole

Progress = Callable[[str, float], None]
FRAMES, CALIBRATION, CORRECTION = 4, 16, 4
"""Frames that every variant runs on, that scales are made from where none are given, and that
biases are corrected on."""


@dataclass(frozen=True)
class SearchRequest:
    """What to search.

    Attributes:
        model: fp32 network, .onnx.
        data: source of frames, as `feeds.open_feeds` takes it.
        frames: how many of it, evenly spaced.
        scales: {tensor: scale} or a file of them; empty: from `calibration_frames` of the data.
        calibration_frames, method: where there are no scales (`quantize.METHODS`).
        metric: `boxes` or `output`; empty: boxes where there is a card.
        budget: most that may be lost; None: the default of the metric.
        card, topic, height, intensity_scale, fixed_frame: as for `open_feeds`.
        iou: least overlap of a box with that of fp32.
        correct: frames that biases are corrected on; 0: they are not.
        store: file of scores, where an interrupted search goes on; empty: none.
    """

    model: str | Path
    data: str
    frames: int = FRAMES
    scales: str | Path | Mapping[str, float] = ''
    calibration_frames: int = CALIBRATION
    method: str = 'percentile'
    metric: str = ''
    budget: float | None = None
    card: str = ''
    topic: str = ''
    height: float = 0.0
    intensity_scale: float = 1.0
    fixed_frame: str = 'odom'
    iou: float = 0.5
    correct: int = CORRECTION
    store: str = ''


@dataclass(frozen=True)
class Result:
    """A search, and the network that it chose.

    Attributes:
        scales: {tensor: scale} that were used.
        note: what the frames lack, in a line; '' where they lack nothing.
    """

    search: Search
    scales: Mapping[str, float]
    note: str = ''

    @property
    def options(self) -> tuple[str, ...]:
        """For `engine build --precision int8 --calibration SCALES` with the unchanged network."""
        names = (name.removesuffix('_1x1') for name in self.search.finer)
        return tuple(f'--layer-precision {name}:fp16' for name in names)


def search_precision(
    request: SearchRequest, progress: Progress = lambda step, share: None
) -> Result:
    """Searches which nodes of a network may be INT8.

    Raises:
        ConfigError, EngineError, CardError, BagError: what is asked for cannot be done; names it.
    """
    plain = read_network(request.model)
    if has_qdq(plain) or is_half(plain):
        raise ConfigError(
            f'{request.model}: has Q/DQ nodes or is fp16 already; give the fp32 network'
        )
    _check(request)
    name_nodes(plain.graph)
    model = split_deconvolutions(plain)
    card = card_beside(Path(request.model), request.card)
    metric = request.metric or ('boxes' if card is not None else 'output')
    budget = BUDGETS[metric] if request.budget is None else request.budget
    scales = _scales(request, model, card, progress)
    with _feeds(request, card, request.frames) as feeds:
        detects = card if feeds.kind != 'arrays' else None
        store = Path(request.store) if request.store else None
        correct = _correction(request, card)
        evaluator = Evaluator(model, scales, feeds, detects, request.iou, correct, store)
        found = search(evaluator, metric, budget, len(feeds), progress)
        note = feeds.note
    return Result(found, scales, note)


def write_mixed(result: Result, source: str | Path, target: str | Path) -> Path:
    """Writes the chosen network, fp32 with Q/DQ, and the card of `source` beside it.

    `engine build --precision int8` makes the rest fp16. Deconvolutions that can be are split, see
    `engine.deconvolution`.

    Raises:
        EngineError, CardError: it cannot be written.
    """
    text, _ = card_text(source)
    path = write_whole(target, result.search.model.SerializeToString())
    if text:
        write_card(text, path)
    return path


def _scales(
    request: SearchRequest, model: Any, card: ModelCard | None, progress: Progress
) -> dict[str, float]:
    if isinstance(request.scales, Mapping):
        return dict(request.scales)
    if request.scales:
        return read_scales(request.scales)
    progress('calibrate', 0.0)
    with _feeds(request, card, request.calibration_frames) as feeds, _silent():
        found = scales_of(quantize(model, feeds, request.method, correct=0))
    progress('calibrate', 1.0)
    return found


@contextmanager
def _silent() -> Iterator[None]:
    """ONNX Runtime's calibration prints, and standard output is for the answer."""
    known = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(known)


def _correction(request: SearchRequest, card: ModelCard | None) -> list[dict[str, Any]]:
    if not request.correct:
        return []
    with _feeds(request, card, request.correct) as feeds:
        return list(feeds)


def _feeds(request: SearchRequest, card: ModelCard | None, most: int) -> Feeds:
    return open_feeds(
        request.data, request.model, card, most, request.topic, request.height,
        request.intensity_scale, request.fixed_frame,
    )  # fmt: skip


def _check(request: SearchRequest) -> None:
    if request.frames < 0 or request.calibration_frames < 1 or request.correct < 0:
        raise ConfigError(
            f'{request.frames} frames, {request.calibration_frames} for calibration, '
            f'{request.correct} for biases: expected numbers, not negative, and a calibration'
        )
    if request.metric and request.metric not in METRICS:
        raise ConfigError(f'metric {request.metric!r} is not one of {", ".join(METRICS)}')
    if request.method not in METHODS:
        raise ConfigError(f'method {request.method!r} is not one of {", ".join(METHODS)}')
    if not 0.0 < request.iou <= 1.0:
        raise ConfigError(f'IoU {request.iou}: expected more than 0, at most 1')
