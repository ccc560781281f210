"""The engines of a matrix, one after another: those that are current stay as they are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airside_perception.cuda import runtime
from airside_perception.deploy.build import build_network
from airside_perception.deploy.matrix import Entry
from airside_perception.engine.build_settings import KEEPING, BuildSettings
from airside_perception.engine.capabilities import load_tensorrt
from airside_perception.engine.manifest import Machine, Manifest, sha256_of
from airside_perception.errors import ConfigError, EngineError, PerceptionError

Progress = Callable[[str, float], None]
STATES = ('built', 'current', 'failed', 'to build')


@dataclass(frozen=True)
class Outcome:
    """What became of one engine.

    Attributes:
        state: one of `STATES`.
        reason: why it was, or is to be, built; or why that failed.
        seconds: that it took.
        notes: of its manifest, where it was built.
    """

    entry: Entry
    state: str
    reason: str = ''
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def build_all(
    entries: Sequence[Entry],
    dry_run: bool = False,
    progress: Progress = lambda step, share: None,
) -> tuple[Outcome, ...]:
    """Builds every engine that is not current, and goes on where one fails.

    An engine is current where its manifest knows its bytes, and network, settings, calibration,
    TensorRT and GPU are the same.

    Args:
        dry_run: builds nothing, and says what would be built.
        progress: called with the step and the share of all engines; what it raises ends
            everything. Engines that were built until then are whole, and current the next time.
    """
    machine = this_machine()
    outcomes = []
    for number, entry in enumerate(entries):
        said = _share_of(progress, number, len(entries))
        said('checking', 0.0)
        outcomes.append(_one(entry, machine, dry_run, said))
    progress('done', 1.0)
    return tuple(outcomes)


def this_machine() -> Machine:
    """TensorRT and GPU that would be built with; what is not there is not compared."""
    machine = Machine()
    try:
        tensorrt = load_tensorrt(build=True)
        machine = Machine(tensorrt=tensorrt.version_text, flavor=tensorrt.flavor)
    except EngineError:
        pass  # told where something is to be built
    if runtime.unavailable():
        return machine
    device = runtime.use_device()
    return dataclasses.replace(machine, gpu=device.name, sm=device.sm)


def why_build(entry: Entry, machine: Machine) -> str:
    """Why an engine must be built; empty where it is current."""
    if not entry.target.is_file():
        return 'not built yet'
    try:
        manifest = Manifest.read(entry.target)
    except EngineError:
        return 'it has no manifest that can be read'
    differences = manifest.check(entry.target, machine)
    known = entry.model.is_file() and not differences  # a vehicle need not have the ONNX
    if known and sha256_of(entry.model) != manifest.onnx_sha256:
        differences.append(f'{entry.model} is not the network that it was built from')
    differences += _other_settings(manifest, entry.settings)
    return '; '.join(differences)


def describe_outcomes(path: str, outcomes: Sequence[Outcome]) -> str:
    """The table, as text."""
    counts = _counts(outcomes)
    said = ', '.join(f'{number} {state}' for state, number in counts.items() if number)
    width = max(len(outcome.entry.name) for outcome in outcomes)
    lines = [f'{path}: {len(outcomes)} engines: {said}']
    for outcome in outcomes:
        took = f'{outcome.seconds:.1f} s: ' if outcome.state == 'built' else ''
        what = took + outcome.reason if outcome.reason else str(outcome.entry.target)
        lines.append(f'  {outcome.state:8}  {outcome.entry.name:{width}}  {what}')
        lines += [f'  {"":8}  {"":{width}}  note: {note}' for note in outcome.notes]
    return '\n'.join(lines)


def outcomes_as_dict(path: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same for JSON."""
    return {
        'matrix': path,
        **{state.replace(' ', '_'): number for state, number in _counts(outcomes).items()},
        'engines': [
            {
                'model': str(outcome.entry.model),
                'precision': outcome.entry.settings.precision,
                'device': outcome.entry.settings.device,
                'engine': str(outcome.entry.target),
                'state': outcome.state,
                'reason': outcome.reason,
                'seconds': round(outcome.seconds, 2),
                'notes': list(outcome.notes),
            }
            for outcome in outcomes
        ],
    }


def _one(entry: Entry, machine: Machine, dry_run: bool, progress: Progress) -> Outcome:
    started = time.monotonic()
    try:
        reason = why_build(entry, machine)
        if not reason:
            return Outcome(entry, 'current')
        if not entry.model.is_file():
            raise EngineError(f'{entry.model}: no such network')
        if dry_run:
            return Outcome(entry, 'to build', reason)
        manifest = build_network(entry.model, entry.target, entry.settings, progress)
    except PerceptionError as error:
        return Outcome(entry, 'failed', ' '.join(str(error).split()), time.monotonic() - started)
    return Outcome(entry, 'built', reason, time.monotonic() - started, manifest.notes)


def _share_of(progress: Progress, number: int, count: int) -> Progress:
    def tell(step: str, share: float) -> None:
        # the whole is done once the last engine is, which is said after it
        progress(f'{number + 1}/{count} {step}', min((number + share) / count, 0.999))

    return tell


def _other_settings(manifest: Manifest, wanted: BuildSettings) -> list[str]:
    """Settings that differ from those of the build, but for names of files beside it."""
    try:
        was = BuildSettings.of_record(manifest.settings)
    except ConfigError as error:
        return [f'its manifest: {error}']
    differences = []
    for item in dataclasses.fields(BuildSettings):
        before, now = getattr(was, item.name), getattr(wanted, item.name)
        if item.name in (*KEEPING, 'calibration') or before == now:
            continue
        differences.append(f'{item.name} is to be {_said(now)}, it was {_said(before)}')
    scales = sha256_of(wanted.calibration) if wanted.calibration else ''
    if scales != manifest.calibration_sha256:
        differences.append('the calibration is another')
    return differences


def _said(value: Any) -> str:
    return 'nothing' if value in ('', (), None) or value == {} else str(value)


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {state: sum(o.state == state for o in outcomes) for state in STATES}
