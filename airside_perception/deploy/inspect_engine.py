"""What is in an engine file, whether it belongs on this machine, and which TensorRT there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.closing import Closing
from airside_perception.cuda import runtime
from airside_perception.deploy.cards import card_beside, card_lines, card_summary, contradiction
from airside_perception.engine import Engine, EngineInfo, TensorSpec
from airside_perception.engine.base import Tensors
from airside_perception.engine.capabilities import Capabilities, family_of, load_tensorrt
from airside_perception.engine.manifest import (
    Machine,
    Manifest,
    manifest_path,
    sha256_of,
)
from airside_perception.engine.rebuild import UNKNOWN, rebuild_command
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.errors import EngineError


@dataclass(frozen=True)
class EngineInspection:
    """One engine.

    Attributes:
        tensorrt: which one would run it here; empty: none.
        tried: modules that were looked for, in order, and what came of each.
        capabilities: what that TensorRT can do.
        gpu: name and architecture; empty: none that can be used.
        not_opened: why it was not opened; empty: it was, and ran.
        inputs, outputs: each as `name: dtype [shape] layout`; from the manifest if not opened.
        device_bytes: memory on the device without the weights; 0 if not opened.
        manifest: what the manifest says; None: there is none.
        manifest_problem: why there is none that can be read.
        differences: in what the manifest differs from this machine and the files.
        rebuild: the command that builds it again.
        card, card_problem: as for a network.
    """

    path: str
    bytes: int
    sha256: str
    tensorrt: str
    tried: tuple[str, ...]
    capabilities: Mapping[str, Any]
    gpu: str
    not_opened: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device_bytes: int
    manifest: Mapping[str, Any] | None
    manifest_problem: str
    differences: tuple[str, ...]
    rebuild: str
    card: Mapping[str, Any] | None = None
    card_problem: str = ''
    notes: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """What is wrong; empty if nothing is, as far as this machine can tell."""
        unopened = self.not_opened if self.gpu else ''
        differences = '; '.join(self.differences)
        return self.manifest_problem or differences or unopened or self.card_problem

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def inspect_engine(
    path: str | Path, card_path: str = '', allow_host_code: bool = False
) -> EngineInspection:
    """Reads an engine's manifest, compares it, and opens the engine where there is a GPU.

    Args:
        path: .engine or .plan.
        card_path: its model card; empty: beside it, where there may be none.
        allow_host_code: the engine may bring code that runs on the host.

    Raises:
        EngineError: the file cannot be read.
        CardError: `card_path` names no card, or one that is broken.
    """
    path = Path(path)
    digest = sha256_of(path)
    manifest, manifest_problem = _manifest(path)
    found = EngineInspection(
        path=str(path),
        bytes=path.stat().st_size,
        sha256=digest,
        tensorrt='',
        tried=(),
        capabilities={},
        gpu='',
        not_opened='',
        inputs=_ports(manifest.inputs) if manifest else (),
        outputs=_ports(manifest.outputs) if manifest else (),
        device_bytes=0,
        manifest=asdict(manifest) if manifest else None,
        manifest_problem=manifest_problem,
        differences=(),
        rebuild=rebuild_command(path, manifest),
        notes=manifest.notes if manifest else (),
    )
    found, machine = _here(found, manifest)
    if manifest:
        found = replace(found, differences=tuple(manifest.check(path, machine, digest)))
    card = card_beside(path, card_path)
    if card:
        found = replace(found, card=card_summary(card))
    core = manifest.dla_core if manifest else -1
    try:
        with TensorRTEngine(
            path, core, allow_host_code=allow_host_code, check_manifest=False
        ) as engine:
            return replace(
                found,
                inputs=_layouts(engine, engine.inputs),
                outputs=_layouts(engine, engine.outputs),
                device_bytes=engine.info.device_bytes,
                notes=(*found.notes, *engine.info.notes),
                card_problem=contradiction(engine, card) if card else '',
            )
    except EngineError as error:
        found = replace(found, not_opened=str(error))
    if card and manifest and manifest.inputs:
        found = replace(found, card_problem=contradiction(_Described(path, manifest), card))
    return found


def describe_engine(found: EngineInspection) -> str:
    """An inspection as text."""
    lines = [
        found.path,
        f'  size        {found.bytes:,} bytes',
        f'  sha256      {found.sha256}',
        f'  TensorRT    {found.tensorrt or "none here"}',
        *(f'    tried     {item}' for item in found.tried),
    ]
    if found.capabilities:
        lines.append(f'    can       {_capabilities(found.capabilities)}')
    lines.append(f'  GPU         {found.gpu or "none that can be used"}')
    if found.not_opened:
        lines.append(f'  not opened  {found.not_opened}')
    else:
        lines.append(f'  opened      and ran, {found.device_bytes:,} bytes of tensors and layers')
    lines += [f'  input       {item}' for item in found.inputs]
    lines += [f'  output      {item}' for item in found.outputs]
    lines += _manifest_lines(found)
    lines += card_lines(found.card, found.card_problem)
    return '\n'.join([*lines, *(f'  note        {note}' for note in found.notes)])


def write_manifest(
    path: str | Path, onnx_path: str | Path, dla_core: int = -1
) -> tuple[Path, Manifest]:
    """Says of an engine that came without a manifest that it belongs to this machine and ONNX.

    The engine is opened and run once, so this needs the GPU that it was built for. Engines with
    host code are not taken in this way: these must be built here.

    Raises:
        EngineError: it cannot be opened, or the ONNX cannot be read.
    """
    path, onnx_path = Path(path), Path(onnx_path)
    tensorrt = load_tensorrt()
    with TensorRTEngine(path, dla_core, check_manifest=False) as engine:
        device = runtime.use_device()
        try:
            source = str(onnx_path.resolve().relative_to(path.resolve().parent))
        except ValueError:
            source = str(onnx_path.resolve())
        manifest = Manifest(
            onnx=source,
            onnx_sha256=sha256_of(onnx_path),
            engine_sha256=sha256_of(path),
            tensorrt=tensorrt.version_text,
            flavor='rtx' if tensorrt.flavor == 'rtx' else 'full',
            cuda=device.driver_version,
            gpu=device.name,
            sm=device.sm,
            precision=UNKNOWN,
            dla_core=dla_core,
            version_compatible=tensorrt.flavor in ('lean', 'dispatch'),
            inputs=_entries(engine, engine.inputs),
            outputs=_entries(engine, engine.outputs),
            notes=('this manifest was written for an engine that was built elsewhere',),
        )
    return manifest.write(path), manifest


def _manifest(path: Path) -> tuple[Manifest | None, str]:
    try:
        return Manifest.read(path), ''
    except EngineError as error:
        return None, str(error)


def _here(found: EngineInspection, manifest: Manifest | None) -> tuple[EngineInspection, Machine]:
    """What this machine has, and that as a manifest is compared with."""
    machine = Machine()
    try:
        tensorrt = load_tensorrt(family_of(manifest.flavor) if manifest else '')
    except EngineError as error:
        found = replace(found, tried=(str(error),))
    else:
        machine = Machine(tensorrt=tensorrt.version_text, flavor=tensorrt.flavor)
        found = replace(
            found,
            tensorrt=f'{tensorrt} ({tensorrt.name})',
            tried=tensorrt.tried,
            capabilities=_as_plain(tensorrt.can),
        )
    if not runtime.unavailable():
        device = runtime.use_device()
        machine = replace(machine, gpu=device.name, sm=device.sm)
        found = replace(found, gpu=f'{device.name} ({device.sm})')
    return found, machine


def _as_plain(can: Capabilities) -> dict[str, Any]:
    values = {item.name: getattr(can, item.name) for item in fields(can)}
    return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in values.items()}


def _capabilities(can: Mapping[str, Any]) -> str:
    switches = [name for name, value in can.items() if value is True]
    precisions = ', '.join(can['precision_flags']) or 'none'
    return ', '.join(
        [f'strongly typed: {can["strongly_typed"]}', f'precision flags: {precisions}', *switches]
    )


def _manifest_lines(found: EngineInspection) -> list[str]:
    text = found.manifest
    if text is None:
        return [f'  PROBLEM     {found.manifest_problem}']
    core = text['dla_core']
    share = text['dla_layer_pct']
    where = text['gpu'] or 'any GPU'
    lines = [
        f'  manifest    {manifest_path(found.path)}',
        f'    from      {text["onnx"]}, {text["precision"]}',
        f'    by        TensorRT {text["flavor"]} {text["tensorrt"]}'
        + (f', {text["built"]}' if text['built'] else ''),
        f'    for       {where} {text["sm"]}'.rstrip()
        + (f', DLA {core}' if core >= 0 else '')
        + (f': {share:g} % of the layers are on it' if share is not None else ''),
    ]
    if found.differences:
        lines += [f'  PROBLEM     {item}' for item in found.differences]
        return [*lines, f'  rebuild     {found.rebuild}']
    known = 'as far as can be told without a GPU' if not found.gpu else 'here'
    return [*lines, f'    belongs   {known}']


def _layouts(engine: TensorRTEngine, specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    return tuple(f'{spec} {engine.tensor(spec.name).layout}' for spec in specs)


def _entries(engine: TensorRTEngine, specs: tuple[TensorSpec, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            'name': spec.name,
            'dtype': spec.dtype.name,
            'shape': list(spec.shape),
            'layout': engine.tensor(spec.name).layout,
        }
        for spec in specs
    )


def _ports(entries: tuple[Mapping[str, Any], ...]) -> tuple[str, ...]:
    return tuple(f'{_spec(entry)} {entry.get("layout", "")}'.strip() for entry in entries)


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    try:
        return TensorSpec(str(entry['name']), tuple(entry['shape']), np.dtype(entry['dtype']))
    except (KeyError, TypeError) as error:
        raise EngineError(f'the manifest describes a tensor as {dict(entry)}: {error}') from error


class _Described(Closing, Engine):
    """An engine that cannot be opened here, as its manifest describes it."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._info = EngineInfo(str(path), 'tensorrt', manifest.tensorrt, '', manifest.precision)
        self._inputs = tuple(map(_spec, manifest.inputs))
        self._outputs = tuple(map(_spec, manifest.outputs))

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        raise EngineError(f'{self._info.path}: it is not open')

    def close(self) -> None:
        """Nothing to free."""
