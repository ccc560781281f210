"""Layers of an engine: times from TensorRT's profiler, all else from its inspector."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airside_perception.deploy.profile.layers import Known
from airside_perception.engine.placement import GPU_REGIONS
from airside_perception.engine.placement import read_information as parsed
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.engine.trt_log import collect
from airside_perception.errors import EngineError, RefusalError

PRECISIONS = (
    ('bf16', r'BF16|BFloat16'),
    ('fp16', r'FP16|Half|Float16'),
    ('fp8', r'FP8|Float8'),
    ('int8', r'INT8'),
    ('int4', r'INT4'),
    ('fp32', r'FP32|Float'),
    ('int32', r'INT32'),
    ('int64', r'INT64'),
    ('bool', r'Bool'),
)
"""Words of the inspector, e.g. in 'Channel major FP16 format where channel % 8 == 0'."""
PROFILE = re.compile(r' \[profile (\d+)\]$')
"""Ends the names of layers in engines of several profiles."""


def layer_times(
    engine: TensorRTEngine,
    iterations: int,
    warm_up: int,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> dict[str, list[float]]:
    """{layer: its time in every run, ms}, in the order in which they run.

    With a profiler TensorRT marks the end of every layer, so that the layers run one after
    another, and no graph can be recorded. `enqueue` then leaves the profile to be asked for; where
    nothing comes of that, it is told to wait and report by itself. The profiler stays with the
    engine until it is closed.

    Raises:
        RefusalError: this TensorRT reports no times.
        EngineError: a run fails.
    """
    profiler = make_profiler(engine.tensorrt.module)
    context = engine.plan.context
    context.profiler = profiler
    context.enqueue_emits_profile = False
    _run(engine, profiler, True)
    asks = bool(profiler.runs[-1])
    if not asks:
        context.enqueue_emits_profile = True
        _run(engine, profiler, False)
    if not profiler.runs[-1]:
        raise RefusalError(
            f'{engine.info.path}: {engine.tensorrt} reports no times of layers: an engine that '
            'was built with profiling verbosity none has none to report'
        )
    profiler.runs.clear()
    for run in range(warm_up + iterations):
        _run(engine, profiler, asks)
        progress('profile', (run + 1) / (warm_up + iterations))
    runs = profiler.runs[warm_up:]
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: [run.get(name, 0.0) for run in runs] for name in names}


def make_profiler(module: Any) -> Any:
    """A profiler that keeps {layer: ms} of every run in `runs`.

    Its class is derived from one that is found at run time. TensorRT ends the process where
    `report_layer_time` raises.
    """
    base: Any = module.IProfiler

    class Profiler(base):  # type: ignore[misc]  # a class of a module found at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.runs: list[dict[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            if self.runs:
                run = self.runs[-1]
                run[layer_name] = run.get(layer_name, 0.0) + ms

    return Profiler()


def _run(engine: TensorRTEngine, profiler: Any, asks: bool) -> None:
    profiler.runs.append({})
    engine.enqueue(engine.stream)
    engine.stream.synchronize()
    if asks:
        with collect():  # an empty profile says enough
            engine.plan.context.report_to_profiler()


def inspected(engine: TensorRTEngine, dla_core: int) -> dict[str, Known]:
    """{layer: what TensorRT's inspector says of it}; empty where this TensorRT has none.

    Args:
        dla_core: that the engine was built for, -1: none.

    Raises:
        EngineError: the inspector says something that cannot be read.
    """
    tensorrt, plan = engine.tensorrt, engine.plan
    if not tensorrt.can.inspector:
        return {}
    inspector = plan.engine.create_engine_inspector()
    inspector.execution_context = plan.context  # or dynamic shapes are not known
    text = inspector.get_engine_information(tensorrt.module.LayerInformationFormat.JSON)
    try:
        return read_information(text, dla_core)
    except ValueError as error:
        raise EngineError(f'{engine.info.path}: the inspector says no JSON: {error}') from error


def read_information(text: str, dla_core: int = -1) -> dict[str, Known]:
    """What `EngineInspector.get_engine_information` says as JSON; see `inspected`."""
    found = {}
    for layer in parsed(text).get('Layers', []):
        if isinstance(layer, str):  # built with layer names only
            found[layer] = Known('', device_of(layer, '', dla_core), '')
            continue
        name, kind = str(layer.get('Name', '')), str(layer.get('LayerType', ''))
        found[name] = Known(kind, device_of(name, kind, dla_core), precision_of(layer))
    return found


def device_of(name: str, kind: str, dla_core: int) -> str:
    """`dla` for a subgraph of the DLA, else `gpu`.

    Both the DLA and the GPU's compiler name subgraphs `{ForeignNode[FIRST...LAST]}`; where the
    kind does not tell them apart, they are the DLA's in an engine that was built for one.
    """
    word = kind.lower()
    if word.startswith('dla'):
        return 'dla'
    ours = name.startswith('{ForeignNode[') and not any(part in word for part in GPU_REGIONS)
    return 'dla' if ours and dla_core >= 0 else 'gpu'


def precision_of(layer: Mapping[str, Any]) -> str:
    """Of the weights where a layer has some, else of its first output; empty: not said."""
    weights = layer.get('Weights')
    outputs = layer.get('Outputs') or [{}]
    said = [weights.get('Type', '')] if isinstance(weights, Mapping) else []
    if isinstance(outputs[0], Mapping):
        said.append(outputs[0].get('Format/Datatype', ''))
    for text in map(str, said):
        for precision, pattern in PRECISIONS:
            if re.search(pattern, text, re.IGNORECASE):
                return precision
    return ''


def without_profile(known: Mapping[str, Known], names: Mapping[str, Any]) -> dict[str, Known]:
    """What is known by the names of the profiler, which may lack the number of the profile."""
    plain: dict[str, Known] = {}
    for name, about in known.items():
        plain.setdefault(PROFILE.sub('', name), about)
    return {name: known.get(name) or plain.get(PROFILE.sub('', name)) or Known() for name in names}
