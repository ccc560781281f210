"""The manifest of an engine: from what, by what and for what machine it was built.

`NAME.engine.json` lies beside `NAME.engine`. An engine is opened only where its manifest says
that it belongs: an engine for another GPU or TensorRT fails late and obscurely, one of an older
ONNX not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airside_perception.engine.capabilities import family_of, version_of
from airside_perception.engine.rebuild import command, rebuild_command
from airside_perception.errors import EngineError
from airside_perception.files import write_whole

FORMAT = 1
AMPERE = 80
VERSION_PARTS = 3


@dataclass(frozen=True)
class Machine:
    """What a manifest is compared with; an empty text or None is not compared.

    Attributes:
        gpu: name of the GPU.
        sm: its architecture, e.g. `sm_87`.
        tensorrt, flavor: version and flavour of the TensorRT that would run the engine.
        dla_core: the core that is asked for, -1: none.
        precision: what is asked for; `auto`: any.
    """

    gpu: str = ''
    sm: str = ''
    tensorrt: str = ''
    flavor: str = ''
    dla_core: int | None = None
    precision: str = 'auto'


@dataclass(frozen=True)
class Manifest:
    """How an engine came to be.

    Attributes:
        onnx: the network that it was built from, relative to the engine's folder where possible.
        onnx_sha256, engine_sha256: of their bytes.
        tensorrt, flavor: version and flavour (full or rtx) of the builder.
        cuda: version of CUDA that the driver offers, e.g. `13.0`; empty: built without a GPU.
        gpu, sm: name and architecture that it was built for; empty: for any.
        precision: fp32, fp16, int8 or `UNKNOWN`.
        dla_core: -1: a GPU engine.
        dla_layer_pct: share of the layers that really are on the DLA, 0 to 100; None on the GPU.
        not_on_dla: names of the layers that fell back to the GPU.
        profiles: for each profile {input: (min, opt, max)}; empty where no shape varies.
        inputs, outputs: each {name, dtype, shape, layout}.
        version_compatible: later TensorRT run it too.
        hardware_compatible: none, ampere_plus or same_compute_capability.
        host_code: the plan carries code that runs on the host.
        calibration_sha256: of the calibration cache or data; empty without.
        refittable: other weights can be put into it (`engine refit`).
        stripped: its weights are left out: it runs only once they were put into it.
        structure_sha256: of the network without its weights; empty where it is not refittable.
        weights: {weight of the network: first digits of its SHA-256}, as above.
        memory_bytes: working memory of its layers on the device; 0: not known.
        options: of the build command, e.g. `('--precision', 'fp16')`: enough to build it again.
        settings: every setting of the build, for the record.
        notes: what the builder warned of.
        build_seconds: how long it took.
        built: when, ISO 8601, UTC.
    """

    onnx: str
    onnx_sha256: str
    engine_sha256: str
    tensorrt: str
    flavor: str
    cuda: str
    gpu: str
    sm: str
    precision: str
    dla_core: int = -1
    dla_layer_pct: float | None = None
    not_on_dla: tuple[str, ...] = ()
    profiles: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()
    version_compatible: bool = False
    hardware_compatible: str = 'none'
    host_code: bool = False
    calibration_sha256: str = ''
    refittable: bool = False
    stripped: bool = False
    structure_sha256: str = ''
    weights: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    options: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    build_seconds: float = 0.0
    built: str = ''

    @classmethod
    def read(cls, engine: str | Path) -> Manifest:
        """The manifest of an engine.

        Raises:
            EngineError: there is none, or it is no manifest; says how to build the engine again.
        """
        path = manifest_path(engine)
        again = f'build the engine again: {rebuild_command(engine)}'
        try:
            text = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError as error:
            raise EngineError(
                f'{engine}: no manifest {path.name} beside it, so nothing says what it was built '
                f'from and for; {again}; or, if you know that it belongs here, write one: '
                f'{command()} inspect {shlex.quote(str(engine))} --write-manifest MODEL.onnx'
            ) from error
        except (OSError, ValueError) as error:
            raise EngineError(f'{path}: not readable as a manifest: {error}; {again}') from error
        if not isinstance(text, dict) or text.pop('format', None) != FORMAT:
            raise EngineError(f'{path}: not a manifest of format {FORMAT}; {again}')
        try:
            return cls(**{name: _checked(name, value) for name, value in text.items()})
        except TypeError as error:
            raise EngineError(f'{path}: {error}; {again}') from error

    def write(self, engine: str | Path) -> Path:
        """Writes the manifest beside `engine`, at once and whole; returns its path.

        Raises:
            EngineError: it cannot be written.
        """
        return write_whole(manifest_path(engine), self.text())

    def text(self) -> str:
        """What is written."""
        return json.dumps({'format': FORMAT, **dataclasses.asdict(self)}, indent=2) + '\n'

    def onnx_path(self, engine: str | Path) -> Path:
        """Where the ONNX is expected."""
        return Path(engine).parent / self.onnx

    def check(self, engine: str | Path, machine: Machine, engine_sha256: str = '') -> list[str]:
        """What differs between this manifest and the machine, the ONNX and the engine's bytes.

        Args:
            engine: the engine's file; its bytes are read only if `engine_sha256` is empty.
        """
        differences = [
            self._bytes(engine, engine_sha256),
            self._source(engine),
            self._gpu(machine),
            self._tensorrt(machine),
            self._core(machine),
        ]
        if machine.precision not in ('auto', self.precision):
            differences.append(f'its precision is {self.precision}, asked for {machine.precision}')
        return [text for text in differences if text]

    def require(self, engine: str | Path, machine: Machine, engine_sha256: str = '') -> None:
        """Refuses an engine that does not belong here.

        Raises:
            EngineError: what differs, and the command that builds the engine anew; or its weights
                were left out.
        """
        differences = self.check(engine, machine, engine_sha256)
        if differences:
            raise EngineError(
                f'{engine}: {"; ".join(differences)}. '
                f'Build it again: {rebuild_command(engine, self, machine)}'
            )
        if self.stripped:
            raise EngineError(f'{engine}: {self.how_to_fill(engine)}')

    def how_to_fill(self, engine: str | Path) -> str:
        """What is to be done before a stripped engine runs."""
        words = shlex.join([str(engine), str(self.onnx_path(engine))])
        return f'its weights were left out (strip); put them into it: {command()} refit {words}'

    def remarks(self, machine: Machine) -> tuple[str, ...]:
        """What differs and does no harm."""
        if machine.gpu and self.gpu and machine.gpu != self.gpu and machine.sm == self.sm:
            return (
                f'built on {self.gpu}, runs on {machine.gpu}: the same architecture, though '
                'perhaps not the fastest choice of kernels',
            )
        return ()

    def _bytes(self, engine: str | Path, found: str) -> str:
        found = found or sha256_of(engine)
        if found == self.engine_sha256:
            return ''
        return (
            f'its bytes are not those that were built (SHA-256 {found[:12]}..., built '
            f'{self.engine_sha256[:12]}...): the file is damaged or was replaced'
        )

    def _source(self, engine: str | Path) -> str:
        source = self.onnx_path(engine)
        if not self.onnx or not source.is_file():
            return ''  # a vehicle need not have the ONNX
        found = sha256_of(source)
        if found == self.onnx_sha256:
            return ''
        return (
            f'{source} has changed since it was built (SHA-256 {found[:12]}..., then '
            f'{self.onnx_sha256[:12]}...)'
        )

    def _gpu(self, machine: Machine) -> str:
        if not machine.sm or not self.sm or machine.sm == self.sm:
            return ''
        later = sm_number(machine.sm) >= max(AMPERE, sm_number(self.sm))
        if self.hardware_compatible == 'ampere_plus' and later:
            return ''
        return (
            f'built for {self.gpu or "a GPU"} ({self.sm}), this is '
            f'{machine.gpu or "a GPU"} ({machine.sm})'
        )

    def _tensorrt(self, machine: Machine) -> str:
        if not machine.tensorrt:
            return ''
        here = f'TensorRT {machine.flavor} {machine.tensorrt}'
        built = f'built by TensorRT {self.flavor} {self.tensorrt}'
        if machine.flavor and family_of(machine.flavor) != family_of(self.flavor):
            return f'{built}, this is {here}: these run no plans of each other'
        if machine.flavor in ('lean', 'dispatch') and not self.version_compatible:
            return f'{built} and not version compatible, this is {here}, which runs no others'
        then = version_of(self.tensorrt)[:VERSION_PARTS]
        now = version_of(machine.tensorrt)[:VERSION_PARTS]
        if then == now or (self.version_compatible and now > then):
            return ''
        if self.version_compatible:
            return f'{built}, this is the older {here}'
        return f'{built}, this is {here}'

    def _core(self, machine: Machine) -> str:
        if machine.dla_core is None or machine.dla_core == self.dla_core:
            return ''
        return f'built for {device_name(self.dla_core)}, asked for {device_name(machine.dla_core)}'


def manifest_path(engine: str | Path) -> Path:
    """`NAME.engine.json` beside `NAME.engine`."""
    path = Path(engine)
    return path.with_name(f'{path.name}.json')


def sha256_of(path: str | Path) -> str:
    """Hash of a file.

    Raises:
        EngineError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open('rb') as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise EngineError(f'{path}: not readable: {error.strerror}') from error
    return digest.hexdigest()


def sm_number(sm: str) -> int:
    """87 of 'sm_87'; 0 if the text is no architecture."""
    digits = sm.rpartition('_')[2]
    return int(digits) if digits.isdigit() else 0


def device_name(dla_core: int) -> str:
    """In words."""
    return 'the GPU' if dla_core < 0 else f'DLA core {dla_core}'


LISTS = ('not_on_dla', 'profiles', 'inputs', 'outputs', 'options', 'notes')
TEXTS = (
    'onnx', 'onnx_sha256', 'engine_sha256', 'tensorrt', 'flavor', 'cuda', 'gpu', 'sm',
    'precision', 'hardware_compatible', 'calibration_sha256', 'structure_sha256', 'built',
)  # fmt: skip
SWITCHES = ('version_compatible', 'host_code', 'refittable', 'stripped')


def _checked(name: str, value: Any) -> Any:
    """A value as the dataclass wants it; TypeError if it is of another kind."""
    kinds: tuple[tuple[tuple[str, ...], type | tuple[type, ...]], ...] = (
        (LISTS, list),
        (TEXTS, str),
        (SWITCHES, bool),
        (('settings', 'weights'), dict),
        (('dla_core', 'memory_bytes'), int),
        (('dla_layer_pct',), (int, float, type(None))),
        (('build_seconds',), (int, float)),
    )
    for names, kind in kinds:
        if name in names and not isinstance(value, kind):
            raise TypeError(f'{name} is {value!r}')
    if name in ('tensorrt',):
        _version(value)
    return tuple(value) if name in LISTS else value


def _version(text: str) -> None:
    try:
        version_of(text)
    except RuntimeError as error:
        raise TypeError(f'tensorrt: {error}') from error
