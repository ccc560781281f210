"""A network made legal for the DLA by exact rewrites, each proven before it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside_perception.deploy import external
from airside_perception.deploy.card_copy import card_text, write_card
from airside_perception.deploy.lint import Lint, lint
from airside_perception.deploy.outputs import OnnxRunner
from airside_perception.deploy.rewrites import NAMES, Pass, passes
from airside_perception.deploy.rewrites.batch import batch_of
from airside_perception.deploy.rewrites.freeze import Shapes, freeze_shapes, store_constants
from airside_perception.deploy.rewrites.proof import Feed, Proof, prove
from airside_perception.deploy.rewrites.samples import feeds_of
from airside_perception.engine.graph import has_qdq
from airside_perception.errors import ConfigError, EngineError, RefusalError

TARGETS = ('dla',)
KEPT, DROPPED, SKIPPED, NOTHING = 'kept', 'dropped', 'skipped', 'nothing to do'
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Step:
    """What became of one pass.

    Attributes:
        name: of the pass.
        outcome: `kept`, `dropped` (not equal, see reason), `skipped` or `nothing to do`.
        changes: what it changed, or would have; a sentence each.
        error: largest relative difference that the proof found; None: nothing was compared.
        reason: why it is not kept.
        noise: largest relative difference that rounding alone makes at the same place, where the
            error was above the usual tolerance; else 0.
    """

    name: str
    outcome: str
    changes: tuple[str, ...] = ()
    error: float | None = None
    reason: str = ''
    noise: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the network has it."""
        return self.outcome == KEPT

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity."""
        error = self.error if self.error is None or math.isfinite(self.error) else 'infinite'
        return {
            'pass': self.name,
            'outcome': self.outcome,
            'changes': list(self.changes),
            'error': error,
            'noise': self.noise,
            'reason': self.reason,
        }


@dataclass(frozen=True)
class Rewritten:
    """A network after its rewrites.

    Attributes:
        model: `onnx.ModelProto`; inputs and outputs have the names that they had.
        steps: all passes that were asked for, in their order.
        error: of the outputs, from the network that was given to the last: largest relative
            difference.
        noise: of the outputs, from rounding alone, where that mattered; else 0.
        before, after: what lint says; before with fixed shapes where it cannot do without.
    """

    model: Any
    steps: tuple[Step, ...]
    error: float
    before: Lint
    after: Lint
    noise: float = 0.0

    @property
    def legal(self) -> bool:
        """Whether nothing illegal is left."""
        return not self.after.illegal

    @property
    def good(self) -> bool:
        """Whether it is legal, and every pass that changed something was proven."""
        return self.legal and all(step.outcome != DROPPED for step in self.steps)


def rewrite(
    model: Any,
    target: str = 'dla',
    jetpack: str = '6.2',
    batch: int | None = None,
    shapes: Shapes | None = None,
    only: Sequence[str] = (),
    feeds: Sequence[Feed] = (),
    progress: Progress = lambda step, share: None,
) -> Rewritten:
    """Applies the passes one after another; keeps those that compute the same.

    Args:
        model: `onnx.ModelProto`; it stays as it is.
        target: `dla`.
        jetpack: as for lint.
        batch: of leading dimensions that vary (None: 1), and, where given, of fixed ones.
        shapes: {input: shape} of inputs that vary.
        only: names of passes (`rewrites.NAMES`); empty: all.
        feeds: inputs for the proofs besides random ones; of the shapes that result.

    Raises:
        ConfigError: unknown target, JetPack or pass, a batch that is none, or shapes that
            contradict the network or are missing.
        EngineError: ONNX Runtime cannot run the network, so nothing can be proven.
        RefusalError: all passes together are not equal, though each was.
    """
    chosen = _chosen(target, jetpack, batch, shapes or {}, only)
    progress('lint', 0.0)
    frozen, _ = freeze_shapes(model, batch, shapes or {})
    before = _judged(model, frozen, target, jetpack, batch)
    OnnxRunner(model)
    samples = _samples(frozen, batch, feeds)
    kept, steps = model, []
    for index, item in enumerate(chosen):
        progress(item.name, index / (len(chosen) + 1))
        kept, step = _step(item, kept, samples)
        steps.append(step)
    progress('proof', len(chosen) / (len(chosen) + 1))
    whole = Proof(0.0, '', True)
    if kept is not model:
        whole = prove(frozen, kept, samples, inside=False)
    if not whole.equal:  # each step was within its tolerance, and all together are not
        raise RefusalError(f'rewrites add up to more than is allowed: {whole.reason}; use --only')
    after = lint(kept, target, jetpack, batch=batch_of(kept) or batch or 1)
    progress('lint', 1.0)
    return Rewritten(kept, tuple(steps), whole.error, before, after, whole.noise)


def rewrite_file(
    source: str | Path,
    target_path: str | Path,
    target: str = 'dla',
    jetpack: str = '6.2',
    batch: int | None = None,
    shapes: Shapes | None = None,
    only: Sequence[str] = (),
    progress: Progress = lambda step, share: None,
) -> tuple[Rewritten, str]:
    """Rewrites a file; the card beside it goes along.

    Args:
        source: ONNX file.
        target_path: ONNX file to write; it is written also where something illegal is left.

    Returns:
        What was done, and why the card stayed behind (empty: it did not, or there is none).

    Raises:
        PerceptionError: as `rewrite`; a file that cannot be read or written.
    """
    model = external.read(source)
    card, note = card_text(source)
    done = rewrite(model, target, jetpack, batch, shapes, only, (), progress)
    external.write(done.model, target_path)
    if card:
        write_card(card, target_path)
    return done, note


def _chosen(
    target: str, jetpack: str, batch: int | None, shapes: Shapes, only: Sequence[str]
) -> list[Pass]:
    if target not in TARGETS:
        raise ConfigError(f'target {target!r}: rewrites are for {", ".join(TARGETS)}')
    if batch is not None and batch < 1:
        raise ConfigError(f'batch {batch}: expected 1 or more')
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise ConfigError(f'pass {unknown[0]!r}: there are {", ".join(NAMES)}')
    return [item for item in passes(jetpack, batch, shapes) if not only or item.name in only]


def _judged(model: Any, frozen: Any, target: str, jetpack: str, batch: int | None) -> Lint:
    """What lint says; with fixed shapes where without them not even ranks are known."""
    try:
        return lint(model, target, jetpack, batch=batch or 1)
    except EngineError:
        stored, _ = store_constants(frozen)
        return lint(stored, target, jetpack, batch=batch or 1)


def _samples(frozen: Any, batch: int | None, feeds: Sequence[Feed]) -> list[Feed]:
    """Inputs for all proofs: so many samples that old and new batch size divide them."""
    old = batch_of(frozen)
    count = math.lcm(old, batch) if old and batch and old != batch else 0
    return [*feeds_of(frozen, count), *feeds]


def _step(item: Pass, model: Any, feeds: Sequence[Feed]) -> tuple[Any, Step]:
    """The network after one pass, or as it was, and what happened."""
    if has_qdq(model) and not item.quantized:
        reason = 'the network has Q/DQ nodes, whose scales belong to its tensors; rewrite it first'
        return model, Step(item.name, SKIPPED, reason=f'{reason}, then quantize')
    try:
        changed, changes = item.apply(model)
    except EngineError as error:
        return model, Step(item.name, DROPPED, reason=str(error))
    if not changes:
        return model, Step(item.name, NOTHING)
    found = prove(model, changed, feeds)
    if not found.equal:
        return model, Step(item.name, DROPPED, changes, found.error, found.reason, found.noise)
    return changed, Step(item.name, KEPT, changes, found.error, noise=found.noise)
