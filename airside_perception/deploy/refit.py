"""New weights for an engine that is there, checked before they take the place of the old ones."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from airside_perception.cuda import runtime
from airside_perception.deploy.outputs import (
    Difference,
    OnnxRunner,
    compare_outputs,
    dynamic_dims,
    random_feeds,
    worst,
)
from airside_perception.engine import open_engine
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.capabilities import TensorRT, family_of, load_tensorrt, version_of
from airside_perception.engine.graph import inputs
from airside_perception.engine.manifest import VERSION_PARTS, Machine, Manifest, sha256_of
from airside_perception.engine.rebuild import command, rebuild_command
from airside_perception.engine.refit import Refitted, refit_plan
from airside_perception.engine.structure import (
    structure_difference,
    structure_sha256,
    weight_hashes,
)
from airside_perception.engine.typed import NetworkError, read_network, typed_network
from airside_perception.engine.written import write_engine
from airside_perception.errors import ConfigError, EngineError, RefusalError

Progress = Callable[[str, float], None]
LIMITS: Mapping[str, float] = {'fp32': 1e-3, 'fp16': 0.03, 'int8': 0.3}
"""Largest difference from ONNX Runtime, as a share of the largest value of each output: what
rounding makes of random input in good engines, with a margin. Wrong weights are far beyond."""
HALF = '_fp16'
SHOWN = 10


@dataclass(frozen=True)
class Refit:
    """What a refit did.

    Attributes:
        engine: the file that was written.
        changed: weights whose values are others than before.
        weights: how many can be changed.
        compared: how far each output is from ONNX Runtime's, on random input; empty: not checked.
        not_checked: why not.
        limit: largest difference that was allowed, relative to the largest value.
    """

    engine: Path
    manifest: Manifest
    changed: tuple[str, ...]
    weights: int
    compared: Mapping[str, Difference]
    not_checked: str
    limit: float


def refit(
    engine: str | Path,
    network: str | Path,
    out: str | Path = '',
    check: bool = True,
    allow_host_code: bool = False,
    progress: Progress = lambda step, share: None,
) -> Refit:
    """Puts the weights of a network into an engine of the same structure.

    The engine that is there stays until the new one is whole and has answered as ONNX Runtime
    does. Its manifest then says where the weights are from.

    Args:
        engine: built with `refit` or `strip`; its manifest lies beside it.
        network: ONNX with the names, operators and shapes of the one it was built from.
        out: another file for the result; empty: the engine itself.
        check: compare answers with ONNX Runtime's on random input.
        allow_host_code: the plan may bring code that runs on the host.

    Raises:
        RefusalError: the engine is not refittable or not of this machine, the network is of
            another structure, TensorRT does not take a weight, or the answers differ.
        EngineError: engine, manifest or network cannot be read, or the result not be written.
        ConfigError: the calibration of the build is gone or another.
    """
    engine, network = Path(engine), Path(network)
    progress('reading', 0.0)
    data = _bytes(engine)
    manifest = Manifest.read(engine)
    _check_refittable(engine, manifest)
    model = read_network(network)
    _check_structure(engine, network, manifest, model)
    tensorrt = _tensorrt(engine, manifest, data)
    if manifest.host_code and not allow_host_code:
        raise RefusalError(
            f'{engine}: the plan carries code that runs on the host; --allow-host-code allows it, '
            'if you trust where it comes from'
        )
    source = _source(engine, network, manifest, tensorrt)
    hashes = weight_hashes(onnx.load_model_from_string(source))
    changed = tuple(
        name for name, digest in hashes.items() if manifest.weights.get(name) != digest
    )
    _check_same(engine, manifest, changed)
    progress('refitting', 0.2)
    try:
        found = refit_plan(
            tensorrt, str(engine), data, source, manifest.dla_core, manifest.host_code
        )
    except EngineError as error:
        raise RefusalError(str(error)) from error
    _check_taken(engine, tensorrt, source, changed, found)
    target = Path(out) if str(out) else engine
    new = _manifest(engine, network, target, manifest, model, hashes, found)
    compared: dict[str, Difference] = {}
    why = '' if check else 'it was not asked for'
    if check:
        progress('comparing', 0.6)
        compared, why = _compared(network, model, new, found.data)
    progress('writing', 0.95)
    write_engine(target, found.data, new, {})
    progress('done', 1.0)
    shown = tuple(_plain(name, model) for name in changed)
    limit = LIMITS.get(manifest.precision, LIMITS['int8'])
    return Refit(target, new, shown, len(found.weights), compared, why, limit)


def as_dict(found: Refit) -> dict[str, Any]:
    """For JSON."""
    return {
        'engine': str(found.engine),
        'onnx': found.manifest.onnx,
        'onnx_sha256': found.manifest.onnx_sha256,
        'engine_sha256': found.manifest.engine_sha256,
        'changed': list(found.changed),
        'weights': found.weights,
        'refittable': found.manifest.refittable,
        'checked': bool(found.compared),
        'not_checked': found.not_checked,
        'limit': found.limit,
        'outputs': {name: item.as_dict() for name, item in found.compared.items()},
    }


def describe_refit(found: Refit) -> str:
    """As text."""
    names = ', '.join(found.changed[:SHOWN]) or 'none: they were the same'
    more = f' and {len(found.changed) - SHOWN} more' if len(found.changed) > SHOWN else ''
    lines = [
        f'{found.engine}: refitted from {found.manifest.onnx}',
        f'  changed     {len(found.changed)} of {found.weights} weights: {names}{more}',
    ]
    for name, item in found.compared.items():
        lines.append(
            f'  checked     {name}: {item.max_rel:.2g} from ONNX Runtime, relative to its largest '
            f'value (at most {found.limit:g}), cosine {item.cosine:.6f}'
        )
    if found.not_checked:
        lines.append(f'  not checked {found.not_checked}')
    if not found.manifest.refittable:
        lines.append('  from now on its weights are fixed: this TensorRT writes it so')
    return '\n'.join(lines)


def _bytes(engine: Path) -> bytes:
    try:
        return engine.read_bytes()
    except OSError as error:
        raise EngineError(f'{engine}: not readable: {error.strerror}') from error


def _check_refittable(engine: Path, manifest: Manifest) -> None:
    if not manifest.refittable:
        raise RefusalError(
            f'{engine}: its weights are fixed; build it for others: '
            f'{rebuild_command(engine, manifest)} --refit'
        )


def _check_structure(engine: Path, network: Path, manifest: Manifest, model: Any) -> None:
    if structure_sha256(model) == manifest.structure_sha256:
        return
    said = 'names, operators or shapes are others'
    before = manifest.onnx_path(engine)
    if before.is_file() and sha256_of(before) == manifest.onnx_sha256:
        said = structure_difference(read_network(before), model) or said
    raise RefusalError(
        f'{network}: not the network that {engine} was built from, with other weights: {said}; '
        f'build an engine for it: {command()} build'
    )


def _tensorrt(engine: Path, manifest: Manifest, data: bytes) -> TensorRT:
    """The one that built it, on a GPU that runs it."""
    try:
        tensorrt = load_tensorrt(family_of(manifest.flavor), build=True)
    except EngineError as error:
        raise RefusalError(f'{engine}: {error}') from error
    reason = runtime.unavailable()
    if reason:
        raise RefusalError(f'{engine}: weights are changed on the GPU that it is for: {reason}')
    device = runtime.use_device()
    machine = Machine(device.name, device.sm, tensorrt.version_text, tensorrt.flavor)
    # its network may have been replaced by the new one, which is what this is for
    known = dataclasses.replace(manifest, onnx='')
    differences = known.check(engine, machine, hashlib.sha256(data).hexdigest())
    if (
        not differences
        and version_of(manifest.tensorrt)[:VERSION_PARTS] != (tensorrt.version[:VERSION_PARTS])
    ):
        differences = [f'built by TensorRT {manifest.tensorrt}: refit it there, not on {tensorrt}']
    if differences:
        again = rebuild_command(engine, manifest, machine)
        raise RefusalError(f'{engine}: {"; ".join(differences)}. Build it again: {again}')
    return tensorrt


def _source(engine: Path, network: Path, manifest: Manifest, tensorrt: TensorRT) -> bytes:
    """The network as the builder would get it."""
    settings = BuildSettings.of_record(manifest.settings)
    if settings.calibration:
        if not Path(settings.calibration).is_file():
            raise ConfigError(
                f'{settings.calibration}: no such calibration, and {engine} was built with it'
            )
        if sha256_of(settings.calibration) != manifest.calibration_sha256:
            raise ConfigError(
                f'{settings.calibration}: has changed since {engine} was built; build it again: '
                f'{rebuild_command(engine, manifest)}'
            )
    try:
        return typed_network(network, settings, tensorrt.can).data
    except EngineError as error:
        raise NetworkError(str(error)) from error


def _check_same(engine: Path, manifest: Manifest, changed: tuple[str, ...]) -> None:
    """A stripped engine that is not refittable takes back only what it was built with."""
    settings = BuildSettings.of_record(manifest.settings)
    if settings.strip and not settings.refit and changed:
        raise RefusalError(
            f'{engine}: built with --strip alone, so only the same weights may come back, and '
            f'{len(changed)} differ ({", ".join(changed[:3])}); build it for others: '
            f'{rebuild_command(engine, manifest)} --refit'
        )


def _check_taken(
    engine: Path, tensorrt: TensorRT, source: bytes, changed: tuple[str, ...], found: Refitted
) -> None:
    """Refuses what TensorRT would leave as it was: values that it built into something else."""
    folded: set[str] = set()
    if tensorrt.can.parser_refitter:  # which knows the names of what the parser made of them
        graph = onnx.load_model_from_string(source).graph
        folded = {
            n for node in graph.node if node.op_type == 'BatchNormalization' for n in node.input
        }
    left = [name for name in changed if name not in folded and name not in found.weights]
    if left:
        raise RefusalError(
            f'{engine}: {len(left)} changed weights have no place in it ({", ".join(left[:5])}): '
            'TensorRT has built their values into something else; build it again from the new '
            'network'
        )


def _manifest(
    engine: Path,
    network: Path,
    target: Path,
    manifest: Manifest,
    model: Any,
    hashes: Mapping[str, str],
    found: Refitted,
) -> Manifest:
    when = datetime.now(timezone.utc).isoformat(timespec='seconds')
    note = (
        f'refitted from {network.name} on {when}; built from SHA-256 {manifest.onnx_sha256[:12]}'
    )
    kept = tuple(text for text in manifest.notes if not text.startswith('refitted from '))
    return dataclasses.replace(
        manifest,
        onnx=os.path.relpath(network, target.parent),
        onnx_sha256=sha256_of(network),
        engine_sha256=hashlib.sha256(found.data).hexdigest(),
        stripped=False,
        refittable=found.refittable,
        structure_sha256=structure_sha256(model),
        weights=dict(hashes),
        notes=(*kept, note),
    )


def _compared(
    network: Path, model: Any, manifest: Manifest, data: bytes
) -> tuple[dict[str, Difference], str]:
    """How far the new engine's answers are from ONNX Runtime's, the worst; why there are none.

    Every profile is asked: TensorRT 8.6 was seen to leave the old weights in all but the first.

    Raises:
        RefusalError: too far, or the engine does not run.
    """
    profiles = range(max(1, len(manifest.profiles)))
    try:
        runner = OnnxRunner(network)
        feeds = [random_feeds(model, sizes=_sizes(model, manifest, one)) for one in profiles]
        expected = [runner.run(item) for item in feeds]
    except EngineError as error:
        return {}, str(error)
    compared: list[dict[str, Difference]] = []
    with tempfile.TemporaryDirectory(prefix='refit') as folder:
        path = Path(folder, 'new.engine')
        write_engine(path, data, dataclasses.replace(manifest, onnx=''), {})
        try:
            with open_engine(
                path, manifest.dla_core, allow_host_code=manifest.host_code
            ) as opened:
                kinds = {spec.name: spec.dtype for spec in opened.inputs}
                for given, wanted in zip(feeds, expected, strict=True):
                    answers = opened.infer({n: x.astype(kinds[n]) for n, x in given.items()})
                    compared.append(compare_outputs(wanted, answers))
        except EngineError as error:
            raise RefusalError(f'{network}: the refitted engine does not run: {error}') from error
    limit = LIMITS.get(manifest.precision, LIMITS['int8'])
    for profile, found in enumerate(compared):
        for name, item in found.items():
            if not item.within(limit):
                where = f' in profile {profile}' if len(compared) > 1 else ''
                raise RefusalError(
                    f'{network}: the refitted engine does not answer as ONNX Runtime{where}: '
                    f'{name} is {item.max_rel:.2g} away, relative to its largest value, and '
                    f'{limit:g} is allowed ({item.nan} NaN, {item.inf} infinite); nothing was '
                    'written: build it again from the new network'
                )
    return worst(compared), ''


def _sizes(model: Any, manifest: Manifest, profile: int) -> dict[str, int]:
    """Sizes of the dimensions that vary, as a profile has them usually."""
    sizes = {}
    known = dynamic_dims(model)
    for value in inputs(model):
        bounds = manifest.profiles[profile].get(value.name) if manifest.profiles else None
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            name = dim.dim_param or f'{value.name}:{axis}'
            if bounds is not None and name in known:
                sizes[name] = int(bounds[1][axis])
    return sizes


def _plain(name: str, model: Any) -> str:
    """The name of a weight as the network has it, without what its precision added."""
    stem = name.removesuffix(HALF)
    return stem if stem in {tensor.name for tensor in model.graph.initializer} else name
