"""The rows: one network in every precision, as files and as ONNX Runtime runs them.

    fp32      as it is
    fp16      every result rounded to fp16 (`engine.rounding`)
    int8 PTQ  scales after training: of the ways to find them, that which loses least on frames of
              the calibration, the best two also with biases corrected; all convolutions in INT8,
              the rest in fp16
    int8 QAT  trained with the rounding (`training.qat`): NAME_qdq.onnx, the rest in fp16
    QAT fp32  NAME.onnx of that training, not rounded: what the further training alone did
    mixed     what `engine search-precision` finds within a budget, from the scales of PTQ

Files go to a folder and are taken from there as long as the network is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from airside_perception.card import CameraCard, ModelCard, load_card
from airside_perception.deploy.calibrate import calibrate, with_qdq
from airside_perception.deploy.card_copy import card_text, write_card
from airside_perception.deploy.compare.sides import ModelEngine, open_side
from airside_perception.deploy.feeds import Feeds, open_feeds
from airside_perception.deploy.search.evaluate import Evaluator
from airside_perception.deploy.search.run import SearchRequest, search_precision, write_mixed
from airside_perception.deploy.search.search import in_half
from airside_perception.engine import Engine
from airside_perception.engine.deconvolution import split_deconvolutions
from airside_perception.engine.graph import has_qdq, name_nodes
from airside_perception.engine.typed import read_network
from airside_perception.files import write_whole
from benchmarks.precision_frames import clouds, pictures, shots

FP32, FP16, PTQ, QAT, QAT_FP32, MIXED = (
    'fp32', 'fp16', 'int8 PTQ', 'int8 QAT', 'QAT fp32', 'mixed',
)  # fmt: skip
ROWS = (FP32, FP16, PTQ, QAT, QAT_FP32, MIXED)
WAYS: tuple[tuple[str, float], ...] = (
    ('entropy', 99.99),
    ('minmax', 99.99),
    ('percentile', 99.99),
    ('percentile', 99.999),
)
"""Method of `engine calibrate` and percentile of |x|, for that method."""
CLOUDS, PICTURES = 8, 24
"""Of the calibration, so many choose the way and say what a mixed network loses."""
CORRECTED, BEST = 4, 2
"""Clouds or pictures that biases are corrected on, which takes long; so many ways get that far."""
BUDGET = 0.005
"""Share of average precision against the boxes of fp32 that a mixed network may lose."""


Loss = tuple[float, float]
"""Of average precision against the boxes of fp32, and the relative error of the outputs."""


@dataclass(frozen=True)
class Network:
    """One row.

    Attributes:
        row: of ROWS.
        path: of the file, with its card beside it.
        precision: fp32, fp16 or int8: how it is built and run.
        plain: the fp32 network that it was made from.
        about: how it came about.
    """

    row: str
    path: Path
    precision: str
    plain: Path
    about: str = ''

    @property
    def card(self) -> ModelCard:
        """That beside the file."""
        return load_card(self.path.with_suffix('.yaml'))

    @property
    def int8(self) -> tuple[str, ...]:
        """Names of the nodes in INT8: those behind a DequantizeLinear."""
        model = read_network(self.path)
        if not has_qdq(model):
            return ()
        made = {name: node.op_type for node in model.graph.node for name in node.output}
        return tuple(
            node.name
            for node in model.graph.node
            if node.op_type != 'QuantizeLinear'
            and node.input
            and made.get(node.input[0]) == 'DequantizeLinear'
            and made.get(node.input[1] if len(node.input) > 1 else '') == 'DequantizeLinear'
        )

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """On ONNX Runtime: fp16 and what is not INT8 by rounding."""
        if self.precision == 'int8':
            with ModelEngine(str(self.path), in_half(read_network(self.path)), 'int8') as engine:
                yield engine
            return
        with open_side(self.path, self.precision).open() as engine:
            yield engine


def networks(
    source: Path,
    folder: Path,
    calibration: tuple[Path, Sequence[int]],
    qat: Path | None = None,
    rows: Sequence[str] = ROWS,
    budget: float = BUDGET,
) -> dict[str, Network]:
    """{row: network}; rows of a training that left no files are not there.

    Args:
        source: fp32 network with its card.
        folder: where networks are kept.
        calibration: folder of frames and seeds (`precision_frames.shots`) that nothing else uses.
        qat: folder of `training.qat`.
        rows: those that are wanted.
        budget: of the mixed network.
    """
    found = {
        FP32: Network(FP32, source, 'fp32', source),
        FP16: Network(FP16, source, 'fp16', source),
    }
    if PTQ in rows or MIXED in rows:
        maker = _Maker(source, folder, calibration)
        found[PTQ] = maker.ptq()
        if MIXED in rows:
            found[MIXED] = maker.mixed(budget)
    if qat is not None and (qat / f'{source.stem}_qdq.onnx').is_file():
        plain = qat / source.name
        found[QAT] = Network(QAT, qat / f'{source.stem}_qdq.onnx', 'int8', plain, 'training.qat')
        found[QAT_FP32] = Network(QAT_FP32, plain, 'fp32', plain, 'training.qat')
    return {row: found[row] for row in ROWS if row in found and row in rows}


class _Maker:
    """Makes what comes of calibration."""

    def __init__(
        self, source: Path, folder: Path, calibration: tuple[Path, Sequence[int]]
    ) -> None:
        self.source, self.folder = source, folder
        self._frames, self._seeds = calibration
        self._card = load_card(source.with_suffix('.yaml'))
        self._images = isinstance(self._card, CameraCard)
        self._judged = PICTURES if self._images else CLOUDS
        seeds = hashlib.sha256(str(list(self._seeds)).encode()).hexdigest()[:8]
        self._data = folder / 'calibration' / f'{type(self._card).__name__}_{seeds}'
        digest = hashlib.sha256(source.read_bytes())
        digest.update(json.dumps(list(self._seeds)).encode())
        self._identity = digest.hexdigest()
        folder.mkdir(parents=True, exist_ok=True)

    def ptq(self) -> Network:
        """All in INT8."""
        target = self.folder / f'{self.source.stem}.ptq.onnx'
        known = self._known(target)
        if known is None:
            model, scales, way, tried = self._best()
            write_whole(target, model.SerializeToString())
            self._write_card(target)
            about = f'{way}, {len(self._seeds)} frames'
            known = {'about': about, 'scales': scales, 'tried': tried}
            self._keep(target, known)
        return Network(PTQ, target, 'int8', self.source, str(known['about']))

    def mixed(self, budget: float) -> Network:
        """What the search finds from the scales of `ptq`."""
        target = self.folder / f'{self.source.stem}.mixed.onnx'
        known = self._known(target)
        if known is None or known['budget'] != budget:
            kept = self._known(self.ptq().path) or {}
            request = SearchRequest(
                self.source, str(self._files()), self._judged, kept['scales'], budget=budget,
                correct=CORRECTED, store=str(self._store(kept['scales'])),
            )  # fmt: skip
            found = search_precision(request)
            write_mixed(found, self.source, target)
            search = found.search
            about = (
                f'{len(search.chosen.int8)} of {len(search.nodes)} nodes in INT8, budget {budget}'
            )
            known = {'about': about, 'budget': budget, 'search': search.as_dict()}
            self._keep(target, known)
        return Network(MIXED, target, 'int8', self.source, str(known['about']))

    def _best(self) -> tuple[onnx.ModelProto, dict[str, float], str, dict[str, Loss]]:
        """What loses least on frames of the calibration: network, scales, way; loss of each."""
        state = self.folder / f'{self.source.stem}.state.npz'
        plain = split_deconvolutions(_named(read_network(self.source)))
        best: tuple[onnx.ModelProto, dict[str, float], str] = plain, {}, ''
        tried: dict[str, Loss] = {}
        with self._feeds(0) as feeds, self._feeds(self._judged) as judged:
            evaluator: Evaluator | None = None

            def judge(model: onnx.ModelProto, scales: dict[str, float], way: str) -> None:
                nonlocal best, evaluator
                evaluator = evaluator or Evaluator(plain, scales, judged, self._card)
                score = evaluator.measure(in_half(model))
                tried[way] = max(score.drop, 0.0), score.error
                print(f'{self.source.stem} {way}: loses {tried[way][0]:.4f} of AP50', flush=True)
                if tried[way] == min(tried.values()):
                    best = model, scales, way

            known: dict[str, dict[str, float]] = {}
            for method, percentile in WAYS:
                made, _ = calibrate(self.source, feeds, state, method, percentile)
                name = f'{method} {percentile}' if method == 'percentile' else method
                known[name] = dict(made.scales)
                judge(with_qdq(read_network(self.source), known[name]), known[name], name)
            for name in sorted(known, key=lambda name: tried[name])[:BEST]:
                with self._feeds(CORRECTED) as few:
                    corrected = with_qdq(read_network(self.source), known[name], feeds=few)
                judge(corrected, known[name], f'{name}, biases corrected')
        return *best, tried

    def _store(self, scales: Mapping[str, float]) -> Path:
        """Where a search that was broken off goes on."""
        key = hashlib.sha256(f'{self._identity} {sorted(scales.items())}'.encode())
        return self.folder / f'{self.source.stem}.{key.hexdigest()[:12]}.search.json'

    def _files(self) -> Path:
        if not self._data.is_dir():
            part = self._data.with_name(f'.{self._data.name}')  # never taken for a whole one
            (pictures if self._images else clouds)(shots(self._frames, self._seeds), part)
            part.rename(self._data)
        return self._data

    def _feeds(self, most: int) -> Feeds:
        return open_feeds(self._files(), self.source, self._card, most)

    def _write_card(self, target: Path) -> None:
        text, _ = card_text(self.source)
        write_card(text, target)

    def _known(self, target: Path) -> dict[str, Any] | None:
        """What is kept beside a network, if it was made of this source and these frames."""
        path = target.with_suffix('.json')
        if not path.is_file() or not target.is_file():
            return None
        kept: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        return kept if kept.get('identity') == self._identity else None

    def _keep(self, target: Path, known: Mapping[str, Any]) -> None:
        text = json.dumps({'identity': self._identity, **known}, indent=1)
        write_whole(target.with_suffix('.json'), f'{text}\n')


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    name_nodes(model.graph)
    return model
