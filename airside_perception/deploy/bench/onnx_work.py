"""ONNX Runtime as something that is timed."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from airside_perception.closing import Closing
from airside_perception.deploy.bench.turns import MS, Clock, Sample
from airside_perception.engine import Engine
from airside_perception.engine.base import Tensors


class OnnxWork(Closing):
    """Calls a network: in this thread, or with several slots in a thread for each.

    Args:
        engine: closed with this.
        feeds: the same in every call.
    """

    def __init__(
        self, engine: Engine, feeds: Tensors, slots: int = 1, clock: Clock = time.perf_counter_ns
    ) -> None:
        self._engine, self._feeds, self._clock = engine, feeds, clock
        self._pool = ThreadPoolExecutor(slots) if slots > 1 else None
        self._done: dict[int, Sample | Future[Sample]] = {}
        self._slots = slots

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, slot: int) -> None:
        self._done[slot] = self._pool.submit(self._run) if self._pool else self._run()

    def finish(self, slot: int) -> Sample:
        done = self._done.pop(slot)
        return done.result() if isinstance(done, Future) else done

    def _run(self) -> Sample:
        began = self._clock()
        self._engine.infer(self._feeds)
        return Sample((self._clock() - began) / MS)

    def close(self) -> None:
        """Waits for what runs and frees the network; may be called again."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._engine.close()
