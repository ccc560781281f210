"""Profiles a network or an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airside_perception.deploy.bench.figures import Figures, figures
from airside_perception.deploy.bench.opening import Opened, check_names, open_timed
from airside_perception.deploy.bench.settings import InputSettings
from airside_perception.deploy.profile.layers import (
    CATEGORIES,
    REFORMAT,
    TRANSFER,
    WAIT,
    Layer,
    Part,
    make_layers,
    parts,
)
from airside_perception.engine import EngineInfo
from airside_perception.engine.base import Tensors
from airside_perception.errors import ConfigError

WARM_UP = 5
BUSY = 1.25
"""Of a whole run by the sum of its layers: above it, something else ran in between."""
WAITS = (
    'a DLA computes on its own: its time is in the layers that wait for it (from nvm), not in its '
    'subgraph'
)


@dataclass(frozen=True)
class Profile:
    """One network or engine, layer by layer.

    Attributes:
        runs_on: backend with its version, device and precision, in words.
        inputs: each as `name: dtype [shape]`.
        iterations: runs, after some to warm up.
        layers: the longest first.
        sum_ms: of the medians of all layers.
        run: times of whole runs as ONNX Runtime measures them, ms; None for engines, whose layers
            the profiler separates: `engine bench` times them as a whole.
        categories: what layers do, in the order of `layers.CATEGORIES`, those that are there.
        kinds: of layers or operators, the longest first.
    """

    path: str
    runs_on: str
    inputs: tuple[str, ...]
    data: str
    iterations: int
    layers: tuple[Layer, ...]
    sum_ms: float
    run: Figures | None
    categories: tuple[Part, ...]
    kinds: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def share(self, category: str) -> float:
        """Of the layers of a category, 0 to 1."""
        return sum(part.share for part in self.categories if part.name == category)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = {name: self.share(name) for name in (REFORMAT, TRANSFER, WAIT)}
        return {**asdict(self), **{f'{name}_share': value for name, value in shares.items()}}


def profile(
    path: str | Path,
    iterations: int = 50,
    inputs: InputSettings | None = None,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> Profile:
    """Times every layer of a network (ONNX Runtime) or of an engine (TensorRT).

    Args:
        iterations: runs that count.
        progress: is told what is done, and its share, 0 to 1.

    Raises:
        RefusalError: an engine, and no GPU or TensorRT that runs it or reports times.
        EngineError: a network that cannot be opened or run.
        ConfigError: shapes, data or iterations that do not fit.
    """
    if iterations < 1:
        raise ConfigError(f'iterations = {iterations}: expected 1 or more')
    inputs = inputs or InputSettings()
    opened = open_timed(path, inputs)
    run: Figures | None = None
    try:
        check_names([opened], inputs)
        info, described, known = opened.info, opened.inputs, opened.notes
        if opened.on_gpu:
            layers = _engine(opened, iterations, progress)
        else:
            layers, run = _network(path, opened.feeds, iterations, inputs.threads, progress)
    finally:
        opened.close()
    found = {part.name: part for part in parts(layers, 'category')}
    sum_ms = sum(layer.ms for layer in layers)
    notes = [*known, *([WAITS] if WAIT in found else [])]
    if run and run.p50 > BUSY * sum_ms:
        notes.append(
            f'a whole run takes {run.p50:.1f} ms and its layers {sum_ms:.1f} ms: the machine did '
            'something else in between; the shares hold, the whole run does not'
        )
    return Profile(
        path=str(path),
        runs_on=_runs_on(info),
        inputs=described,
        data=inputs.data,
        iterations=iterations,
        layers=layers,
        sum_ms=sum_ms,
        run=run,
        categories=tuple(found[name] for name in CATEGORIES if name in found),
        kinds=parts(layers, 'kind'),
        notes=tuple(notes),
    )


def _network(
    path: str | Path,
    feeds: Tensors,
    iterations: int,
    threads: int,
    progress: Callable[[str, float], None],
) -> tuple[tuple[Layer, ...], Figures | None]:
    from airside_perception.deploy.profile.onnx_layers import onnx_times

    times, known, runs = onnx_times(path, feeds, iterations, WARM_UP, threads, progress)
    return make_layers(times, known), figures(runs)


def _engine(
    opened: Opened, iterations: int, progress: Callable[[str, float], None]
) -> tuple[Layer, ...]:
    from airside_perception.deploy.profile.engine_layers import (
        inspected,
        layer_times,
        without_profile,
    )

    (engine,) = opened.engines
    engine.infer(opened.feeds)  # leaves the inputs on the device
    times = layer_times(engine, iterations, WARM_UP, progress)
    known = inspected(engine, opened.dla_core)
    return make_layers(times, without_profile(known, times))


def _runs_on(info: EngineInfo) -> str:
    return f'{info.backend} {info.version} ({info.device}, {info.precision})'
