"""A network made fit for TensorRT and for every other verb, without changing what it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airside_perception.deploy import external, tidy
from airside_perception.deploy.agreement import Agreement, compare_runs, random_inputs
from airside_perception.deploy.card_copy import card_text, write_card
from airside_perception.deploy.fold import (
    fold_constants,
    inlined,
    random_operators,
    without_dead,
)
from airside_perception.deploy.large import copy_whole, stored_bytes
from airside_perception.deploy.outputs import OnnxRunner, dynamic_dims
from airside_perception.deploy.sanitize_report import Report
from airside_perception.engine.graph import inputs, opset
from airside_perception.errors import ConfigError, EngineError, RefusalError

MIB = 1 << 20
TOLERANCE = 1e-6
"""Of the largest value of an output."""
SIZE_LIMIT_MB = 64.0
CONTROL = ('If', 'Loop', 'Scan')
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Settings:
    """What is done to a network.

    Attributes:
        fold: store what depends on no input as weights.
        size_limit_mb: no weight larger than this comes from folding, MiB.
        input_shapes: {input: shape}, -1 leaves a dimension as it is.
        merge: equal weights become one.
        sizes: what dimensions that vary are tried at (`agreement.random_inputs`).
        seed: of the random inputs.
        tolerance: largest difference of an output, of its largest value.
    """

    fold: bool = True
    size_limit_mb: float = SIZE_LIMIT_MB
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    merge: bool = False
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        if not self.size_limit_mb > 0:
            raise ConfigError(f'size limit {self.size_limit_mb} MB: expected more than 0')
        if not self.tolerance >= 0:
            raise ConfigError(f'tolerance {self.tolerance}: expected 0 or more')


@dataclass(frozen=True)
class Sanitized:
    """A network and what was done to it."""

    model: Any
    report: Report


def sanitize(
    model: Any,
    settings: Settings = Settings(),
    label: str = 'network',
    progress: Progress = lambda step, share: None,
) -> Sanitized:
    """Folds constants, infers shapes, removes what is not needed, repairs names, checks.

    Args:
        model: `onnx.ModelProto`, with its weights; it is not changed.
        settings: what is done.
        label: what messages call it.
        progress: gets a step and its share.

    Raises:
        EngineError: not valid, newer than onnx, an input without a rank, or it does not run.
        ConfigError: settings that do not fit the network.
        RefusalError: the outputs differ beyond the tolerance.
    """
    try:
        return _sanitized(model, settings, label, progress)
    except EngineError as error:
        text = str(error)
        raise type(error)(text if text.startswith(label) else f'{label}: {text}') from error


def _sanitized(model: Any, settings: Settings, label: str, progress: Progress) -> Sanitized:
    tidy.check_opset(model, label)
    original = copy_whole(model)
    original, functions = inlined(original)
    listed = tidy.free_inputs(original)
    tidy.set_input_shapes(original, settings.input_shapes)
    dynamic_dims(original)  # every input has a rank
    named = tidy.name_nodes(original)
    progress('folding', 0.1)
    live = without_dead(original)
    new = _folded(live, settings) if settings.fold else live
    merged = tidy.merge_duplicates(new) if settings.merge else 0
    tidy.prune_imports(new)
    tidy.name_nodes(new)
    tidy.infer_types(new)
    tidy.check(new)
    progress('comparing', 0.4)
    compared, notes = _compare(original, new, settings, progress)
    if compared is None:
        _check_types(original, new)
    report = Report(
        nodes=_by_operator(original, new),
        dead=tuple(sorted(_names(original) - _names(live))),
        folded=tuple(sorted(_names(live) - _names(new))),
        named=named,
        weights=(_weights(model), _weights(new)),
        unused=_unused(original),
        merged=merged,
        inputs_removed=tuple(listed),
        functions=functions,
        opset=opset(new),
        bytes=(stored_bytes(model), stored_bytes(new)),
        agreement=compared,
        notes=(*notes, *_notes(new, settings)),
    )
    if compared is not None and not compared.within(settings.tolerance):
        raise RefusalError(
            f'{label}: the outputs would change beyond {settings.tolerance:g} of their largest '
            f'value, so nothing is written: {_worst_line(compared, settings.tolerance)}'
        )
    progress('done', 1.0)
    return Sanitized(new, report)


def sanitize_file(
    source: str | Path,
    target: str | Path,
    settings: Settings = Settings(),
    external_data: str = external.AUTO,
    progress: Progress = lambda step, share: None,
) -> tuple[Sanitized, list[Path]]:
    """`sanitize` from file to file: what it made, and the files that were written.

    A card beside the source goes with it, with the new hash.

    Raises:
        PerceptionError: as `sanitize`, `external.read` and `external.write`; nothing is written.
    """
    progress('reading', 0.0)
    model = external.read(source)
    external.data_file(target, external_data, stored_bytes(model))  # before all the work
    card, said = card_text(source)
    made = sanitize(model, settings, str(source), progress)
    files = external.write(made.model, target, external_data)
    if card:
        files.append(write_card(card, target))
    if said:
        report = replace(made.report, notes=(*made.report.notes, said))
        made = Sanitized(made.model, report)
    return made, files


def describe(report: Report, files: Sequence[Path]) -> str:
    """What was done, as text."""
    return '\n'.join([', '.join(map(str, files)), *report.lines()])


def _folded(model: Any, settings: Settings) -> Any:
    """With constants folded; with its branches as they were where they cannot be flattened."""
    limit = int(settings.size_limit_mb * MIB)
    new = fold_constants(copy_whole(model), limit)
    if not any(node.op_type == 'If' for node in model.graph.node):
        return new
    try:
        tidy.check(new)
        return new
    except EngineError:  # a branch that only hands on what lies outside it is lost
        return fold_constants(copy_whole(model), limit, flatten=False)


def _compare(
    original: Any, new: Any, settings: Settings, progress: Progress
) -> tuple[Agreement | None, list[str]]:
    """How far the outputs are apart, or why that cannot be said."""
    chance = random_operators(original)
    if chance:
        return None, [f'outputs not compared: {chance[0]} gives other values every time']
    unknown = tidy.unknown_operators(original)
    try:
        # fusions of ONNX Runtime change the last digits of either by more than folding does
        before = OnnxRunner(original, optimise=False)
    except EngineError:
        if unknown:
            return None, [
                f'outputs not compared: operator {unknown[0]} is not one of ONNX, and ONNX '
                'Runtime does not have it'
            ]
        raise
    after = OnnxRunner(new, [value.name for value in original.graph.output], optimise=False)
    feeds = random_inputs(original, settings.seed, settings.sizes)

    def told(step: str, share: float) -> None:
        progress(step, 0.4 + 0.6 * share)

    return compare_runs(before.run, after.run, feeds, told), []


def _check_types(original: Any, new: Any) -> None:
    """Where outputs cannot be compared, types that fitted must still fit.

    Raises:
        EngineError: they do not.
    """
    try:
        tidy.check(original, types=True)
    except EngineError:
        return
    tidy.check(new, types=True)


def _notes(model: Any, settings: Settings) -> list[str]:
    notes = []
    control = [node for node in tidy.all_nodes(model) if node.op_type in CONTROL]
    if control:
        notes.append(
            f'control flow stays: {control[0].name!r} ({control[0].op_type}); the DLA and the '
            'verbs that rewrite or quantise do not take it'
        )
    read = {name for node in tidy.all_nodes(model) for name in node.input}
    read |= {value.name for value in model.graph.output}
    notes += [
        f'input {value.name!r} is read by no node'
        for value in inputs(model)
        if value.name not in read
    ]
    odd = [name for name in settings.sizes if name not in dynamic_dims(model)]
    notes += [f'dimension {name!r} does not vary any more' for name in odd]
    return notes


def _names(model: Any) -> set[str]:
    return {node.name for node in tidy.all_nodes(model)}


def _by_operator(before: Any, after: Any) -> dict[str, tuple[int, int]]:
    """Most frequent first."""
    old, new = (Counter(node.op_type for node in tidy.all_nodes(one)) for one in (before, after))
    names = sorted(old | new, key=lambda name: (-max(old[name], new[name]), name))
    return {name: (old[name], new[name]) for name in names}


def _weights(model: Any) -> int:
    return len(model.graph.initializer) + len(model.graph.sparse_initializer)


def _unused(model: Any) -> tuple[str, ...]:
    """Initialisers that nothing reads."""
    read = {name for node in tidy.all_nodes(model) for name in node.input}
    read |= {value.name for value in model.graph.output}
    return tuple(one.name for one in model.graph.initializer if one.name not in read)


def _worst_line(found: Agreement, tolerance: float) -> str:
    if found.failed:
        label, why = next(iter(found.failed.items()))
        return f'it fails on {label}: {why}'
    odd = replace(
        found,
        differences={
            name: one for name, one in found.differences.items() if not one.within(tolerance)
        },
        tried=(),
        skipped={},
    )
    return odd.lines()[0]
