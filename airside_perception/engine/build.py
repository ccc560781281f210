"""From an ONNX file to an engine with its manifest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airside_perception.engine.build_notes import notes_of
from airside_perception.engine.build_settings import BuildSettings
from airside_perception.engine.builder import EngineBuilder
from airside_perception.engine.capabilities import TensorRT, load_tensorrt
from airside_perception.engine.manifest import Manifest, sha256_of
from airside_perception.engine.placement import Placement, placement
from airside_perception.engine.plan import DTYPES, Plan, load_plan, ports
from airside_perception.engine.timing_cache import TimingCache
from airside_perception.engine.trt_log import Messages, collect
from airside_perception.engine.typed import typed_network
from airside_perception.errors import DeviceError, EngineError, PerceptionError
from airside_perception.files import write_partial, write_whole

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
        EngineError: no TensorRT that can build, the network or a setting is not for it, there is
            no such DLA core, layers do not run on it (`dla_strict`), or files cannot be written.
        ConfigError: the settings contradict the network.
    """
    onnx_path, out_path = Path(onnx_path), Path(out_path)
    started = time.monotonic()
    progress('reading', 0.0)
    tensorrt = load_tensorrt(build=True)
    gpu, sm, cuda = _device(tensorrt)
    source = typed_network(onnx_path, settings, tensorrt.can)
    write_partial(out_path, b'').unlink()  # said now, not in the end, where it cannot be
    notes = list(source.notes)
    timings = TimingCache(tensorrt, settings.timing_cache, gpu)
    progress('preparing', FIRST / 2)
    with collect(others=True) as said:
        with _explained(tensorrt, onnx_path, said):
            made = EngineBuilder(tensorrt, str(onnx_path), source, settings, said)
        timings.load(made.config)
        said.errors.clear()  # of the setup there are none; old timings are no loss
        data = _built(made, said, progress)
        timings.save(made.config)
    notes += [*timings.notes, *notes_of(said)]
    progress('checking', LAST)
    ins, outs = _described(made, settings)
    placed = None
    if not gpu and settings.dla_core >= 0:
        raise EngineError(f'{onnx_path}: a DLA engine cannot be checked without the GPU beside it')
    if gpu:
        with _loaded(tensorrt, onnx_path, data, settings) as plan:
            ins, outs = _read_back(tensorrt, onnx_path, plan)
            if settings.dla_core >= 0:
                placed = _placed(tensorrt, onnx_path, plan, made, settings)
    progress('writing', 0.99)
    write_whole(out_path, data)
    manifest = Manifest(
        onnx=os.path.relpath(onnx_path, out_path.parent),
        onnx_sha256=sha256_of(onnx_path),
        engine_sha256=sha256_of(out_path),
        tensorrt=tensorrt.version_text,
        flavor=tensorrt.flavor,
        cuda=cuda,
        gpu=gpu,
        sm=sm,
        precision=settings.precision,
        dla_core=settings.dla_core,
        dla_layer_pct=None if placed is None else placed.dla_pct,
        not_on_dla=() if placed is None else placed.on_gpu,
        profiles=settings.profiles,
        inputs=ins,
        outputs=outs,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        host_code=settings.version_compatible,
        calibration_sha256=sha256_of(settings.calibration) if settings.calibration else '',
        options=settings.options(),
        settings=settings.record(),
        notes=tuple(notes[:MOST_NOTES]),
        build_seconds=round(time.monotonic() - started, 2),
        built=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )
    manifest.write(out_path)
    progress('done', 1.0)
    return manifest


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


@contextmanager
def _loaded(
    tensorrt: TensorRT, path: Path, data: bytes, settings: BuildSettings
) -> Iterator[Plan]:
    """The engine, opened as its user will open it."""
    plan = load_plan(tensorrt, str(path), data, settings.dla_core, settings.version_compatible)
    try:
        yield plan
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


def _placed(
    tensorrt: TensorRT, path: Path, plan: Plan, made: EngineBuilder, settings: BuildSettings
) -> Placement:
    """Where the layers are, from the engine itself."""
    kind = tensorrt.module.LayerInformationFormat.JSON
    inspector = plan.engine.create_engine_inspector()
    placed = placement(inspector.get_engine_information(kind), made.working_layers())
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
