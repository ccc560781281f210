"""TensorRT engines as something that is timed: a lane for each stream, with events around work."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from airside_perception.closing import Closing
from airside_perception.deploy.bench.settings import BenchSettings
from airside_perception.deploy.bench.turns import MS, Clock, Sample
from airside_perception.engine import TensorSpec
from airside_perception.engine.base import Tensors
from airside_perception.engine.buffers import DeviceTensor, close_all
from airside_perception.engine.staging import Staging
from airside_perception.errors import DeviceError, EngineError

if TYPE_CHECKING:
    from airside_perception.cuda.runtime import Event, Graph, Stream


class DeviceEngine(Protocol):
    """An open engine whose tensors lie on the GPU, e.g. `engine.tensorrt.TensorRTEngine`."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def stream(self) -> Stream: ...

    @property
    def capturable(self) -> bool: ...

    def tensor(self, name: str) -> DeviceTensor: ...

    def enqueue(self, stream: Stream) -> None: ...

    def close(self) -> None: ...


class GpuWork(Closing):
    """Runs an engine in several streams at once.

    Args:
        engines: the same engine, opened once for each stream, as each node opens its own; their
            shapes are set. They are closed with this.
        feeds: {input: array} of these shapes; page-locked copies of them are what is transferred.

    Attributes:
        notes: what does not go as asked for.
    """

    def __init__(
        self,
        engines: Sequence[DeviceEngine],
        feeds: Tensors,
        settings: BenchSettings,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self._engines = tuple(engines)
        self._lanes: list[_Lane] = []
        try:
            for engine in engines:
                self._lanes.append(_Lane(engine, feeds, settings, clock))
        except BaseException:
            self.close()
            raise
        self.notes = tuple(dict.fromkeys(lane.no_graph for lane in self._lanes if lane.no_graph))

    @property
    def slots(self) -> int:
        return len(self._lanes)

    @property
    def graph(self) -> bool:
        """Whether it runs as a CUDA graph."""
        return all(lane.graph is not None for lane in self._lanes)

    def submit(self, slot: int) -> None:
        self._lanes[slot].submit()

    def finish(self, slot: int) -> Sample:
        return self._lanes[slot].finish()

    def close(self) -> None:
        """Waits for what runs and frees everything; may be called again."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        for engine in self._engines:
            engine.close()
        self._engines = ()


class _Lane:
    """One stream: an engine, its staging, and the events around copies and network."""

    def __init__(
        self, engine: DeviceEngine, feeds: Tensors, settings: BenchSettings, clock: Clock
    ) -> None:
        from airside_perception.cuda.runtime import Event

        self._engine, self._clock = engine, clock
        self._transfers, self._spin = settings.transfers, settings.spin_wait
        self._began = self._enqueued = 0
        self._events: list[Event] = []
        self._staging: Staging | None = None
        self.graph: Graph | None = None
        self.no_graph = ''
        try:
            blocking = not settings.spin_wait
            for _ in range(4):
                self._events.append(Event(blocking=blocking))
            self._prepare(feeds, settings.cuda_graph)
        except BaseException:
            self.close()
            raise

    def _prepare(self, feeds: Tensors, cuda_graph: bool) -> None:
        engine, stream = self._engine, self._engine.stream
        specs = (*engine.inputs, *engine.outputs)
        sizes = {spec.name: engine.tensor(spec.name).nbytes for spec in specs}
        self._staging = Staging(sizes)
        for spec in engine.inputs:
            self._staging.write(engine.tensor(spec.name), feeds[spec.name])
            self._staging.upload(engine.tensor(spec.name), stream)
        engine.enqueue(stream)
        stream.synchronize()
        if cuda_graph:
            self._record()

    def _record(self) -> None:
        from airside_perception.cuda.runtime import Graph

        engine, stream = self._engine, self._engine.stream
        if not engine.capturable:
            self.no_graph = 'runs without a CUDA graph: its work cannot be recorded'
            return
        try:
            self.graph = Graph.capture(stream, lambda: engine.enqueue(stream))
        except EngineError as error:
            self.no_graph = f'runs without a CUDA graph: {error}'

    def submit(self) -> None:
        engine, stream = self._engine, self._engine.stream
        start, before, after, end = self._events
        self._began = self._clock()
        if self._transfers and self._staging is not None:
            start.record(stream)
            for spec in engine.inputs:
                self._staging.upload(engine.tensor(spec.name), stream)
        before.record(stream)
        if self.graph is not None:
            self.graph.launch(stream)
        else:
            engine.enqueue(stream)
        after.record(stream)
        if self._transfers and self._staging is not None:
            for spec in engine.outputs:
                self._staging.download(engine.tensor(spec.name), stream)
            end.record(stream)
        self._enqueued = self._clock()

    def finish(self) -> Sample:
        start, before, after, end = self._events
        last = end if self._transfers else after
        if self._spin:
            while not last.reached():
                pass
        else:
            last.synchronize()
        latency = (self._clock() - self._began) / MS
        enqueue = (self._enqueued - self._began) / MS
        compute = after.elapsed_ms(before)
        if not self._transfers:
            return Sample(latency, enqueue, math.nan, compute, math.nan)
        return Sample(latency, enqueue, before.elapsed_ms(start), compute, end.elapsed_ms(after))

    def close(self) -> None:
        with suppress(DeviceError, EngineError):  # what broke it was raised before
            self._engine.stream.synchronize()
        close_all([self.graph, self._staging, *self._events])
        self.graph = self._staging = None
        self._events.clear()
