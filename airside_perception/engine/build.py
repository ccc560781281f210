"""From an ONNX file to an engine with its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from airside_perception.engine.build_notes import notes_of
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.builder import EngineBuilder
from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.engine.placement import Placement, placement, read_information
from airside_perception.engine.plan import DTYPES, Plan, load_plan, ports
from airside_perception.engine.sparsity import sparsity_note
from airside_perception.engine.structure import structure_sha256, weight_hashes
from airside_perception.engine.timing_cache import TimingCache
from airside_perception.engine.trt_log import Messages, collect
from airside_perception.engine.typed import NetworkError, Source, read_network, typed_network
from airside_perception.engine.written import FileError, write_engine
from airside_perception.errors import DeviceError, EngineError, PerceptionError
from airside_perception.files import write_partial

__all__ = ['BuildSettings', 'Progress', 'build_engine']

Progress = Callable[[str, float], None]
"""Called with the step and the share of the whole that is done, 0 to 1. Where TensorRT does not
tell how far it is (before 10), it is called every `TICK` with an unchanged share."""

TICK = 0.5
FIRST, LAST = 0.05, 0.95
"""Shares of the whole between which TensorRT builds."""
MOST_NOTES = 8
FATAL = ('API Usage', 'Parameter check failed', 'DLA')
"""Errors that are logged while TensorRT builds and goes on, and are not about a kernel that it
tried: the engine would not be what was asked for."""


def build_engine(
    onnx_path: str | Path,
    out_path: str | Path,
    settings: BuildSettings,
    progress: Progress = lambda step, share: None,
) -> Manifest:
    """Builds an engine and writes it with its manifest: `out_path` and `out_path`.json.

    Files that are there stay until the new ones are whole. Takes minutes, and hours at worst.

    Args:
        progress: also called from another thread. What it raises ends the build: at the next
            step, or after the build where TensorRT cannot be interrupted (before 10).

    Raises:
        EngineError: no TensorRT that can build, this machine or TensorRT lacks what a setting
            asks for, there is no such DLA core, or layers do not run on it (`dla_strict`).
        NetworkError: TensorRT cannot be given this network, wherever it is.
        FileError: files cannot be written.
        ConfigError: the settings contradict the network.
    """
    onnx_path, out_path = Path(onnx_path), Path(out_path)
    started = time.monotonic()
    progress('reading', 0.0)
    tensorrt = load_tensorrt(build=True)
    gpu, sm, cuda = _device(tensorrt)
    _check_without_gpu(tensorrt, onnx_path, settings, gpu)
    source = _source(onnx_path, settings, tensorrt)
    for path in (out_path, *([settings.layer_info] if settings.layer_info else [])):
        write_partial(path, b'', FileError).unlink()  # said now, not when it is all done
    notes = [*source.notes, *(sparsity_note(source.data) if settings.sparsity else ())]
    timings = TimingCache(tensorrt, settings.timing_cache, gpu)
    progress('preparing', FIRST / 2)
    with collect(others=True) as said:
        with _explained(tensorrt, onnx_path, said):
            made = EngineBuilder(tensorrt, str(onnx_path), source, settings, said)
        if settings.dla_core >= 0 and not gpu:
            raise EngineError(
                f'{onnx_path}: a DLA engine cannot be checked without the GPU beside it'
            )
        timings.load(made.config)
        said.errors.clear()  # of the setup there are none; old timings are no loss
        data = _built(made, said, progress)
        timings.save(made.config)
    notes += [*timings.notes, *notes_of(said)]
    progress('checking', LAST)
    found = _look(tensorrt, onnx_path, data, made) if gpu else _Look(*_described(made, settings))
    notes += found.notes
    progress('writing', 0.99)
    refittable = settings.refit or settings.strip
    manifest = Manifest(
        onnx=os.path.relpath(onnx_path, out_path.parent),
        onnx_sha256=sha256_of(onnx_path),
        engine_sha256=hashlib.sha256(data).hexdigest(),
        tensorrt=tensorrt.version_text,
        flavor=tensorrt.flavor,
        cuda=cuda,
        gpu=gpu,
        sm=sm,
        precision=settings.precision,
        dla_core=settings.dla_core,
        dla_layer_pct=None if found.placed is None else found.placed.dla_pct,
        not_on_dla=() if found.placed is None else found.placed.on_gpu,
        profiles=settings.profiles,
        inputs=found.inputs,
        outputs=found.outputs,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        host_code=settings.version_compatible,
        calibration_sha256=sha256_of(settings.calibration) if settings.calibration else '',
        refittable=refittable,
        stripped=settings.strip,
        structure_sha256=structure_sha256(read_network(onnx_path)) if refittable else '',
        weights=weight_hashes(onnx.load_model_from_string(source.data)) if refittable else {},
        memory_bytes=found.memory_bytes,
        options=settings.options(),
        settings=settings.record(),
        notes=tuple(notes[:MOST_NOTES]),
        build_seconds=round(time.monotonic() - started, 2),
        built=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )
    beside = {settings.layer_info: found.layers} if settings.layer_info else {}
    write_engine(out_path, data, manifest, beside)
    progress('done', 1.0)
    return manifest


def _source(path: Path, settings: BuildSettings, tensorrt: TensorRT) -> Source:
    """The network as the builder gets it."""
    try:
        return typed_network(path, settings, tensorrt.can)
    except EngineError as error:
        raise NetworkError(str(error)) from error


def _check_without_gpu(tensorrt: TensorRT, path: Path, settings: BuildSettings, gpu: str) -> None:
    """Refuses at once what takes the GPU after, or within, a build that does without."""
    if gpu:
        return
    for name in ('refit', 'strip'):
        if getattr(settings, name):
            raise EngineError(
                f'{path}: {name}: {tensorrt} compiles for other weights on the GPU itself, and '
                'there is none here; build it there, or without this option'
            )
    if settings.layer_info:
        raise EngineError(
            f'{path}: layer_info {settings.layer_info}: the engine itself says what its layers '
            'are, and is loaded on its GPU only, which is not here; build without it'
        )


def _device(tensorrt: TensorRT) -> tuple[str, str, str]:
    """Name, architecture and CUDA version of the GPU to build for; empty without one."""
    from airside_perception.cuda import runtime

    reason = runtime.unavailable()
    if not reason:
        device = runtime.use_device()
        return device.name, device.sm, device.driver_version
    if tensorrt.flavor != 'rtx':  # which alone builds for GPUs that are elsewhere
        raise DeviceError(f'{tensorrt} builds on the GPU that the engine is for: {reason}')
    return '', '', ''


@contextmanager
def _explained(tensorrt: TensorRT, path: Path, said: Messages) -> Iterator[None]:
    """Errors of the bindings, with what TensorRT logged of them."""
    try:
        yield
    except PerceptionError:
        raise
    except Exception as error:  # what the bindings raise has no nearer common base
        reason = said.reason() or f'{type(error).__name__}: {error}'
        raise EngineError(f'{path}: {tensorrt} cannot build it: {reason}') from error


def _built(made: EngineBuilder, said: Messages, progress: Progress) -> bytes:
    """The plan."""
    shares = _Shares(progress)
    explained = _explained(made.tensorrt, Path(made.path), said)
    with shares.ticking(not made.tells_progress), explained:
        plan = made.build(shares.build_step)
    shares.raise_failure()
    fatal = [text for text in said.errors if any(word in text for word in FATAL)]
    if plan is None or fatal:
        reason = fatal[0] if plan is not None else said.reason()
        raise EngineError(
            f'{made.path}: {made.tensorrt} cannot build it: {reason or "it says not why"}'
        )
    return bytes(plan)


class _Shares:
    """Progress of the part in which TensorRT builds; keeps what the callback raises."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._share = 0.0
        self._failure: BaseException | None = None

    def build_step(self, share: float) -> bool:
        self._share = max(self._share, share)
        self._tell()
        return self._failure is None

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def ticking(self, needed: bool) -> Iterator[None]:
        """Tells every `TICK` that the build goes on, where TensorRT itself does not."""
        self._tell()
        if not needed:
            yield
            return
        over = threading.Event()

        def tick() -> None:
            while not over.wait(TICK) and self._failure is None:
                self._tell()

        ticker = threading.Thread(target=tick, name='build progress', daemon=True)
        ticker.start()
        try:
            yield
        finally:
            over.set()
            ticker.join()

    def _tell(self) -> None:
        if self._failure is None:
            try:
                self._progress('building', FIRST + (LAST - FIRST) * self._share)
            except BaseException as error:  # noqa: BLE001  raised again when TensorRT is out of the way
                self._failure = error


@dataclass(frozen=True)
class _Look:
    """What a built engine says of itself, or its network where nothing can load it.

    Attributes:
        placed: which layers are on the DLA; None for a GPU engine.
        layers: of the inspector, JSON; empty: not asked for.
    """

    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]
    placed: Placement | None = None
    memory_bytes: int = 0
    layers: str = ''
    notes: tuple[str, ...] = ()


def _look(tensorrt: TensorRT, path: Path, data: bytes, made: EngineBuilder) -> _Look:
    """Opens the engine as its user will open it, and asks it what it is."""
    settings = made.settings
    to_run = not settings.strip  # without its weights it has nothing to run
    plan = load_plan(
        tensorrt, str(path), data, settings.dla_core, settings.version_compatible, to_run
    )
    try:
        engine = plan.engine
        inputs, outputs = _read_back(tensorrt, path, plan)
        wanted = settings.refit or settings.strip
        if wanted and not engine.refittable:
            raise EngineError(f'{path}: {tensorrt} built it, and no weights can be put into it')
        layers = ''
        if settings.dla_core >= 0 or settings.layer_info:
            kind = tensorrt.module.LayerInformationFormat.JSON
            text = engine.create_engine_inspector().get_engine_information(kind)
            layers = json.dumps(read_information(text), indent=1)
        placed = _placed(layers, path, made, settings) if settings.dla_core >= 0 else None
        memory = int(getattr(engine, tensorrt.can.memory_size, 0))
        return _Look(inputs, outputs, placed, memory, layers)
    finally:
        plan.free()


def _read_back(
    tensorrt: TensorRT, path: Path, plan: Plan
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Inputs and outputs as the engine has them."""
    found = ports(tensorrt, str(path), plan.engine)
    described = [
        (port.is_input, {'name': port.spec.name, 'dtype': port.spec.dtype.name,
                         'shape': list(port.spec.shape), 'layout': port.layout})
        for port in found
    ]  # fmt: skip
    return (
        tuple(text for is_input, text in described if is_input),
        tuple(text for is_input, text in described if not is_input),
    )


def _described(
    made: EngineBuilder, settings: BuildSettings
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Inputs and outputs as the network has them: where no GPU is there to load the engine."""

    def describe(tensor: Any) -> dict[str, Any]:
        kind = DTYPES.get(tensor.dtype.name)
        if kind is None:
            raise EngineError(f'{made.path}: {tensor.name} has dtype {tensor.dtype.name}')
        return {
            'name': tensor.name,
            'dtype': kind.__name__,
            'shape': list(tensor.shape),
            'layout': settings.layout(tensor.name),
        }

    inputs, outputs = made.ports()
    return tuple(map(describe, inputs)), tuple(map(describe, outputs))


def _placed(layers: str, path: Path, made: EngineBuilder, settings: BuildSettings) -> Placement:
    """Where the layers are, from the engine itself."""
    placed = placement(layers, made.working_layers())
    if placed.dla_pct == 0.0:
        raise EngineError(
            f'{path}: no layer of the engine is on DLA core {settings.dla_core}: it would be a '
            'GPU engine; build it for device gpu, or change the network'
        )
    if settings.dla_strict and placed.on_gpu:
        raise EngineError(
            f'{path}: {placed.dla_pct:.1f} % of the layers are on DLA core {settings.dla_core}; '
            f'{", ".join(placed.on_gpu[:5])} are on the GPU, which dla_strict does not allow'
        )
    return placed
