"""Opens networks and engines for tools that time them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside_perception.deploy.bench.feeds import load_data, make_feeds, resolve_shapes
from airside_perception.deploy.bench.settings import InputSettings, Shape
from airside_perception.deploy.engines import core_of, require_gpu
from airside_perception.engine import ENGINE_SUFFIXES, EngineInfo, open_engine
from airside_perception.engine.base import Tensors
from airside_perception.engine.buffers import close_all
from airside_perception.errors import ConfigError, DeviceError, EngineError


@dataclass(frozen=True)
class Opened:
    """A network, open and with what it is fed. Who opens it closes its engines.

    Attributes:
        engines: the same one, opened so often; those of TensorRT have their shapes set.
        shapes: {input: shape}.
        feeds: {input: array}.
        on_gpu: they are TensorRT's.
        dla_core: that they were built for, -1: none.
        note: what the feeds lack, in a line; '' where they lack nothing.
    """

    engines: tuple[Any, ...]
    shapes: dict[str, Shape]
    feeds: Tensors
    on_gpu: bool
    dla_core: int = -1
    note: str = ''

    @property
    def info(self) -> EngineInfo:
        """What runs it where."""
        info: EngineInfo = self.engines[0].info
        return info

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it and of what it is fed."""
        return (*self.info.notes, *([self.note] if self.note else []))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Each input as `name: dtype [shape]`, with the shape that it is fed."""
        return tuple(
            f'{spec.name}: {spec.dtype.name} {list(self.shapes[spec.name])}'
            for spec in self.engines[0].inputs
        )

    def close(self) -> None:
        """Closes the engines; may be called again."""
        close_all(self.engines)


def open_timed(path: str | Path, settings: InputSettings, count: int = 1) -> Opened:
    """Opens a network with ONNX Runtime, or an engine with TensorRT.

    Args:
        count: how often an engine is opened, each with tensors and a stream of its own. ONNX
            Runtime serves any number of callers with one.

    Raises:
        RefusalError: an engine, and there is no GPU or no TensorRT here that runs it.
        EngineError: no such network, or it cannot be opened.
        ConfigError: shapes or data that do not fit.
    """
    path = Path(path)
    if path.suffix in ENGINE_SUFFIXES and path.is_file():
        return _open_engines(path, settings, count)
    engine = open_engine(path, threads=settings.threads)
    try:
        loaded, note = load_data(settings, path)
        shapes = resolve_shapes(engine.inputs, _given(settings, loaded))
        feeds = make_feeds(engine.inputs, shapes, settings.data, loaded)
    except BaseException:
        engine.close()
        raise
    return Opened((engine,), shapes, feeds, False, note=note)


def check_names(opened: Sequence[Opened], settings: InputSettings) -> None:
    """Every input whose shape is given must be one of some network.

    Raises:
        ConfigError: there is none of that name.
    """
    names = [spec.name for one in opened for spec in one.engines[0].inputs]
    for name in settings.shapes:
        if name not in names:
            raise ConfigError(f'shape of {name!r}: no such input; there are {", ".join(names)}')


def _open_engines(path: Path, settings: InputSettings, count: int) -> Opened:
    from airside_perception.engine.tensorrt import TensorRTEngine

    require_gpu(path)
    core = core_of(path, settings.dla_core)
    engines: list[TensorRTEngine] = []
    try:
        for _ in range(count):
            engines.append(
                TensorRTEngine(
                    path, core, allow_host_code=settings.allow_host_code, check_manifest=False
                )
            )
        first = engines[0]
        best = first.best_shapes(settings.profile_index or 0)
        loaded, note = load_data(settings, path)
        shapes = resolve_shapes(first.inputs, _given(settings, loaded), best)
        for engine in engines:
            _set(engine, shapes, settings)
        feeds = make_feeds(first.inputs, shapes, settings.data, loaded)
    except BaseException:
        close_all(engines)
        raise
    return Opened(tuple(engines), shapes, feeds, True, core, note)


def _given(settings: InputSettings, loaded: Tensors | None) -> dict[str, Shape]:
    stored = {name: tuple(value.shape) for name, value in (loaded or {}).items()}
    return {**stored, **settings.shapes}


def _set(engine: Any, shapes: dict[str, Shape], settings: InputSettings) -> None:
    try:
        engine.set_shapes(shapes, settings.profile_index)
    except DeviceError:
        raise
    except EngineError as error:
        raise ConfigError(str(error)) from error
