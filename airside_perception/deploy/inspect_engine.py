"""What is in an engine file, whether it belongs on this machine, and which TensorRT there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.cuda import runtime
from airside_perception.deploy.cards import card_beside, card_summary, contradiction
from airside_perception.deploy.profile.engine_layers import inspected, read_information
from airside_perception.deploy.profile.layers import Known
from airside_perception.engine import ENGINE_SUFFIXES, EngineInfo, TensorSpec
from airside_perception.engine.base import Backend, Tensors
from airside_perception.engine.capabilities import Capabilities, family_of, load_tensorrt
from airside_perception.engine.manifest import (
    Machine,
    Manifest,
    sha256_of,
)
from airside_perception.engine.plan import ports
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
        memory_bytes: of that, working memory of the layers; from the manifest if not opened, 0 if
            nothing says it.
        profiles: for each, {input: (smallest, usual, largest shape)} of inputs whose shape varies.
        refittable, stripped: other weights can be put into it; its weights are left out.
        layers: each {name, kind, device, precision}; from the file of `--layer-info` if not
            opened, none if that is not there either.
        layers_from: what says so.
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
    memory_bytes: int = 0
    profiles: tuple[Mapping[str, Any], ...] = ()
    refittable: bool = False
    stripped: bool = False
    layers: tuple[Mapping[str, str], ...] = ()
    layers_from: str = ''

    @property
    def problem(self) -> str:
        """What is wrong; empty if nothing is, as far as this machine can tell."""
        told = not self.gpu or self.stripped or not self.bytes  # nobody expects it to be opened
        unopened = '' if told else self.not_opened
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
    found = _told(path, path.stat().st_size, digest, manifest, manifest_problem)
    found, machine = _here(found, manifest)
    if manifest:
        found = replace(found, differences=tuple(manifest.check(path, machine, digest)))
    card = card_beside(path, card_path)
    if card:
        found = replace(found, card=card_summary(card))
    core = manifest.dla_core if manifest else -1
    try:
        if manifest and manifest.stripped:
            raise EngineError(manifest.how_to_fill(path))
        with TensorRTEngine(
            path, core, allow_host_code=allow_host_code, check_manifest=False
        ) as engine:
            found = _opened(found, engine, core)
            return replace(found, card_problem=contradiction(engine, card) if card else '')
    except EngineError as error:
        found = replace(found, not_opened=str(error))
    if card and manifest and manifest.inputs:
        found = replace(found, card_problem=contradiction(_Described(path, manifest), card))
    return found


def inspect_manifest(
    path: str | Path, card_path: str = '', allow_host_code: bool = False
) -> EngineInspection:
    """Reads a manifest, `NAME.engine.json`; its engine too where that lies beside it.

    Raises:
        EngineError: it cannot be read, or is no manifest.
        CardError: as `inspect_engine`.
    """
    path = Path(path)
    engine = path.with_suffix('')
    if engine.suffix not in ENGINE_SUFFIXES:
        raise EngineError(f'{path}: expected the name of a manifest, NAME.engine.json')
    manifest = Manifest.read(engine)
    if engine.is_file():
        return inspect_engine(engine, card_path, allow_host_code)
    found = _told(engine, 0, '', manifest, '')
    found, machine = _here(found, manifest)
    card = card_beside(engine, card_path)
    return replace(
        found,
        not_opened=f'there is no {engine.name} beside its manifest',
        differences=tuple(manifest.check(engine, machine, manifest.engine_sha256)),
        card=card_summary(card) if card else None,
        card_problem=contradiction(_Described(engine, manifest), card) if card else '',
    )


def _told(
    path: Path, size: int, digest: str, manifest: Manifest | None, problem: str
) -> EngineInspection:
    """What manifest and file say, before anything is opened."""
    layers, layers_from = _kept_layers(manifest) if manifest else ((), '')
    return EngineInspection(
        path=str(path),
        bytes=size,
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
        manifest_problem=problem,
        differences=(),
        rebuild=rebuild_command(path, manifest),
        notes=manifest.notes if manifest else (),
        memory_bytes=manifest.memory_bytes if manifest else 0,
        profiles=manifest.profiles if manifest else (),
        refittable=bool(manifest and manifest.refittable),
        stripped=bool(manifest and manifest.stripped),
        layers=layers,
        layers_from=layers_from,
    )


def _opened(found: EngineInspection, engine: TensorRTEngine, core: int) -> EngineInspection:
    """What the engine itself says."""
    plan, tensorrt = engine.plan, engine.tensorrt
    ranges = [
        p for p in ports(tensorrt, found.path, plan.engine) if min(p.spec.shape, default=0) < 0
    ]
    profiles = tuple(
        {port.spec.name: port.ranges[number] for port in ranges if port.is_input}
        for number in range(engine.profiles)
    )
    layers = _as_rows(inspected(engine, core))
    return replace(
        found,
        inputs=_layouts(engine, engine.inputs),
        outputs=_layouts(engine, engine.outputs),
        device_bytes=engine.info.device_bytes,
        memory_bytes=int(getattr(plan.engine, tensorrt.can.memory_size, 0)),
        profiles=profiles if any(profiles) else (),
        refittable=bool(plan.engine.refittable),
        layers=layers or found.layers,
        layers_from='the engine' if layers else found.layers_from,
        notes=(*found.notes, *engine.info.notes),
    )


def _kept_layers(manifest: Manifest) -> tuple[tuple[Mapping[str, str], ...], str]:
    """Layers from the file that the build wrote beside the engine, if it is there."""
    file = str(manifest.settings.get('layer_info', ''))
    if not file or not Path(file).is_file():
        return (), ''
    try:
        text = Path(file).read_text(encoding='utf-8')
        return _as_rows(read_information(text, manifest.dla_core)), file
    except (OSError, ValueError, AttributeError) as error:
        return (), f'nothing: {file} cannot be read: {" ".join(str(error).split())}'


def _as_rows(layers: Mapping[str, Known]) -> tuple[Mapping[str, str], ...]:
    return tuple(
        {'name': name, 'kind': item.kind, 'device': item.device, 'precision': item.precision}
        for name, item in layers.items()
    )


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


class _Described(Backend):
    """An engine that cannot be opened here, as its manifest describes it."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._info = EngineInfo(str(path), 'tensorrt', manifest.tensorrt, '', manifest.precision)
        self._inputs = tuple(map(_spec, manifest.inputs))
        self._outputs = tuple(map(_spec, manifest.outputs))

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        raise EngineError(f'{self._info.path}: it is not open')

    def close(self) -> None:
        """Nothing to free."""
