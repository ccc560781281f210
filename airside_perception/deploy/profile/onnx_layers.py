"""Times of nodes from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airside_perception.deploy.outputs import one_line
from airside_perception.deploy.profile.layers import Known
from airside_perception.engine.base import Tensors
from airside_perception.errors import EngineError

TIME = '_kernel_time'
MS = 1000.0
"""Its times are microseconds."""
PRECISIONS = {'float': 'fp32', 'float16': 'fp16', 'double': 'fp64', 'bfloat16': 'bf16'}


def onnx_times(
    path: str | Path,
    feeds: Tensors,
    iterations: int,
    warm_up: int,
    threads: int = 0,
    progress: Callable[[str, float], None] = lambda step, share: None,
) -> tuple[dict[str, list[float]], dict[str, Known], list[float]]:
    """Runs a network with ONNX Runtime's profiler.

    Returns:
        {node: its time in every run, ms} in the order in which they run; what is known of each;
        and the time of every run, ms.

    Raises:
        EngineError: it cannot be loaded or run, or the profile is not whole.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised; it is not logged as well
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')  # as in the nodes
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix='profile') as folder:
        options.profile_file_prefix = str(Path(folder, 'onnxruntime'))
        try:
            session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
            for run in range(warm_up + iterations):
                session.run(None, dict(feeds))
                progress('profile', (run + 1) / (warm_up + iterations))
            text = Path(session.end_profiling()).read_text(encoding='utf-8')
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            raise EngineError(f'{path}: cannot be profiled: {one_line(error)}') from error
    try:
        events = json.loads(text)
    except ValueError as error:
        raise EngineError(f'{path}: the profile of ONNX Runtime is not whole: {error}') from error
    return read_events(str(path), events, warm_up, iterations)


def read_events(
    path: str, events: Sequence[dict[str, Any]], warm_up: int, iterations: int
) -> tuple[dict[str, list[float]], dict[str, Known], list[float]]:
    """Reads the events of a profile; see `onnx_times`.

    Args:
        path: of the network, for messages.

    Raises:
        EngineError: runs or nodes are missing: the profiler keeps a million events.
    """
    runs = [event['dur'] / MS for event in events if event.get('name') == 'model_run']
    times: dict[str, list[float]] = {}
    known: dict[str, Known] = {}
    for event in events:
        name = str(event.get('name', ''))
        if event.get('cat') != 'Node' or not name.endswith(TIME):
            continue
        about = event.get('args', {})
        # nodes may have no name, or the same; their number is their own
        node = name[: -len(TIME)] or f'{about.get("op_name", "node")} {about.get("node_index")}'
        known.setdefault(node, _known(about))
        times.setdefault(node, []).append(event['dur'] / MS)
    wanted = warm_up + iterations
    if len(runs) != wanted or not times:
        raise EngineError(
            f'{path}: {len(runs)} of {wanted} runs are in the profile of ONNX Runtime; ask for '
            'fewer --iterations'
        )
    for node, found in times.items():
        each = len(found) // wanted
        if not each or len(found) % wanted:
            raise EngineError(
                f'{path}: node {node!r} is {len(found)} times in a profile of {wanted} runs; ask '
                'for fewer --iterations'
            )
        sums = [sum(found[run * each : (run + 1) * each]) for run in range(wanted)]
        times[node] = sums[warm_up:]
    return times, known, runs[warm_up:]


def _known(about: dict[str, Any]) -> Known:
    outputs = about.get('output_type_shape') or [{}]
    kind = next(iter(outputs[0]), '')
    return Known(str(about.get('op_name', '')), 'cpu', PRECISIONS.get(kind, kind))
