"""Times networks and engines, in turns where there are several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from airside_perception.deploy.bench.figures import Figures, Ratio, figures, ratio
from airside_perception.deploy.bench.gpu_work import GpuWork
from airside_perception.deploy.bench.onnx_work import OnnxWork
from airside_perception.deploy.bench.opening import Opened, check_names, open_timed
from airside_perception.deploy.bench.sensors import Sampler, SensorSummary, Source, find_source
from airside_perception.deploy.bench.settings import BenchSettings, InputSettings
from airside_perception.deploy.bench.tegrastats import power_mode
from airside_perception.deploy.bench.turns import Clock, S, Times, Work, take_turns
from airside_perception.errors import ConfigError

ENQUEUE_SHARE = 0.8
"""Of the GPU's time: above it, the GPU may wait for the host."""
UNSTEADY = 0.1
"""Standard deviation of the GPU's time, by its mean."""


@dataclass(frozen=True)
class Timing:
    """One network or engine, timed.

    Attributes:
        runs_on: backend with its version, device and precision, in words.
        inputs: each as `name: dtype [shape]`.
        streams: inferences in flight.
        transfers: copies to and from the GPU are in the latency; False too where there is no GPU.
        cuda_graph: it ran as a recorded graph.
        runs, seconds: inferences, and how long they took, without the turns of others.
        throughput: inferences per second.
        latency: on the host, from before anything is enqueued until the outputs are there, ms.
        enqueue: of it, until everything is enqueued, ms. None: not on a GPU; so are the others.
        h2d, compute, d2h: on the GPU, by its events: copies of the inputs to it, the network,
            copies of the outputs back, ms.
        ratio: to the first network; None for the first.
        joules: for one inference: mean power by throughput; None: not known.
    """

    path: str
    runs_on: str
    inputs: tuple[str, ...]
    streams: int
    transfers: bool
    cuda_graph: bool
    runs: int
    seconds: float
    throughput: float
    latency: Figures
    enqueue: Figures | None
    h2d: Figures | None
    compute: Figures | None
    d2h: Figures | None
    ratio: Ratio | None = None
    joules: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """Everything that was timed in one run.

    Attributes:
        timings: in the order asked for.
        rounds: turns that each had.
        sensors: over all of the timed part.
    """

    timings: tuple[Timing, ...]
    settings: BenchSettings
    data: str
    rounds: int
    sensors: SensorSummary

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def bench(
    models: Sequence[str | Path],
    settings: BenchSettings | None = None,
    inputs: InputSettings | None = None,
    progress: Callable[[str, float], None] = lambda step, share: None,
    *,
    clock: Clock = time.perf_counter_ns,
    sensors: Callable[[bool], Source | None] = find_source,
) -> Bench:
    """Times networks (ONNX Runtime on the CPU) and engines (TensorRT on the GPU or a DLA core).

    Several take turns in one run, so that what else the machine does hits all of them alike.

    Args:
        models: .onnx, .engine or .plan.
        progress: is told what is done, and its share, 0 to 1.
        clock: steady, in nanoseconds.
        sensors: finds those of this machine, by whether a GPU is timed.

    Raises:
        RefusalError: an engine, and no GPU or TensorRT that runs it.
        EngineError: a network that cannot be opened or run.
        ConfigError: no network, or shapes or data that do not fit.
    """
    settings, inputs = settings or BenchSettings(), inputs or InputSettings()
    if not models:
        raise ConfigError('no network to time')
    with ExitStack() as stack:
        opened: list[Opened] = []
        for path in models:
            progress('opening', len(opened) / len(models))
            one = open_timed(path, inputs, settings.streams)
            stack.callback(one.close)
            opened.append(one)
        check_names(opened, inputs)
        works: list[GpuWork | OnnxWork] = []
        for one in opened:
            works.append(_work(one, settings, clock))
            stack.callback(works[-1].close)
        source = sensors(any(one.on_gpu for one in opened))
        with Sampler(source) as sampler:
            times = take_turns(works, settings, clock, progress)
        said = sampler.summary(power_mode() if source is not None else '')
        timings = [
            _timing(str(path), one, work, of, settings)
            for path, one, work, of in zip(models, opened, works, times, strict=True)
        ]
    timings = [
        timings[0],
        *(replace(timing, ratio=_ratio(of, times[0]))
          for timing, of in zip(timings[1:], times[1:], strict=True)),
    ]  # fmt: skip
    watts = said.values.get('power_w')
    if len(timings) == 1 and watts is not None:
        timings = [replace(timings[0], joules=watts.mean / timings[0].throughput)]
    return Bench(tuple(timings), settings, inputs.data, len(times[0].rounds), said)


def _work(opened: Opened, settings: BenchSettings, clock: Clock) -> GpuWork | OnnxWork:
    if opened.on_gpu:
        return GpuWork(opened.engines, opened.feeds, settings, clock)
    return OnnxWork(opened.engines[0], opened.feeds, settings.streams, clock)


def _timing(
    path: str, opened: Opened, work: Work, times: Times, settings: BenchSettings
) -> Timing:
    samples = [sample for part in times.rounds for sample in part]
    latency = figures([sample.latency for sample in samples])
    if latency is None:
        raise ConfigError(f'{path}: nothing was timed')
    info = opened.info
    timing = Timing(
        path=path,
        runs_on=f'{info.backend} {info.version} ({info.device}, {info.precision})',
        inputs=opened.inputs,
        streams=settings.streams,
        transfers=opened.on_gpu and settings.transfers,
        cuda_graph=isinstance(work, GpuWork) and work.graph,
        runs=times.count,
        seconds=times.busy_ns / S,
        throughput=times.throughput,
        latency=latency,
        enqueue=figures([sample.enqueue for sample in samples]),
        h2d=figures([sample.h2d for sample in samples]),
        compute=figures([sample.compute for sample in samples]),
        d2h=figures([sample.d2h for sample in samples]),
        notes=opened.notes,
    )
    return replace(timing, notes=(*timing.notes, *_remarks(timing, work, settings)))


def _remarks(timing: Timing, work: Work, settings: BenchSettings) -> list[str]:
    """What the figures mean, where they say more than their numbers."""
    if not isinstance(work, GpuWork):
        asked = {
            'cuda-graph': settings.cuda_graph,
            'spin-wait': settings.spin_wait,
            'no-transfers': not settings.transfers,
        }
        return [f'{name}: for engines only' for name, there in asked.items() if there]
    remarks = list(work.notes)
    enqueue, compute = timing.enqueue, timing.compute
    waits = enqueue and compute and enqueue.p50 > ENQUEUE_SHARE * compute.p50
    if enqueue and compute and waits and not timing.cuda_graph:
        remarks.append(
            f'enqueueing takes {enqueue.p50:.3f} ms of the host, the network '
            f'{compute.p50:.3f} ms of the GPU, which may wait for the host: try --cuda-graph'
        )
    if compute and compute.std > UNSTEADY * compute.mean:
        remarks.append(
            f"the GPU's time varies by {100 * compute.std / compute.mean:.0f} % (standard "
            'deviation): lock its clocks (jetson_clocks, nvidia-smi -lgc) or give it a longer '
            '--warm-up'
        )
    return remarks


def _ratio(times: Times, first: Times) -> Ratio:
    return ratio(
        [[sample.latency for sample in part] for part in times.rounds],
        [[sample.latency for sample in part] for part in first.rounds],
        times.throughput,
        first.throughput,
    )
