"""All that the GPU does for one cloud, from its points to boxes, in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.cuda.queue import Queue
from airside_perception.cuda.suppress import Suppression
from airside_perception.lidar.gpu_anchors import AnchorKernels
from airside_perception.lidar.gpu_centers import CenterKernels
from airside_perception.lidar.gpu_input import CloudBlock
from airside_perception.lidar.gpu_pillars import PillarKernels
from airside_perception.lidar.labels import Labels
from airside_perception.types import Float64


class LidarWork:
    """Memory and launches around one engine.

    Args:
        queue: launches, and owns the memory.
        engine: with its tensors on the device.
        capacity: most points of a cloud.

    Attributes:
        cloud: where points and settings go in.

    Raises:
        EngineError, ConfigError: as `PillarKernels` and the kernels of the decoder.
        DeviceError: not enough memory on the device.
    """

    def __init__(
        self, queue: Queue, engine: Any, card: LidarCard, labels: Labels, capacity: int
    ) -> None:
        self._queue, self._engine = queue, engine
        self.cloud = CloudBlock(queue, card, labels, capacity)
        self._pillars = PillarKernels(queue, card, engine.tensor(card.input_name), capacity)
        kernels = AnchorKernels if card.centers is None else CenterKernels
        self._moving = card.centers is not None and bool(card.centers.velocity)
        found = self._suppression = Suppression(queue, kernels.capacity(card), self._moving)
        outputs = {name: engine.tensor(name) for name in card.outputs}
        self._decoder = kernels(queue, card, outputs, found.keys, found.count, found.flags)
        self._result = queue.pinned((1,), found.result.dtype)

    @property
    def result(self) -> NDArray[Any]:
        """The `cuda.frame.RESULT` of the last cloud; valid until the next one is enqueued."""
        block = self._result.array.reshape(())
        found: NDArray[Any] = block['result'] if self._moving else block
        return found

    def velocities(self, count: int) -> Float64:
        """vx and vy of the first rows of the result [count, 2], NaN where the network has none."""
        if not self._moving:
            return np.full((count, 2), np.nan)
        found: Float64 = self._result.array['velocities'][0, :count].astype(np.float64)
        return found

    def reset(self) -> None:
        """Forgets a cloud that was given up half-way."""
        self._pillars.reset()
        self._suppression.reset()

    def enqueue(self, nbytes: int | None = None) -> None:
        """One cloud; the last one is taken off the canvas while this one is copied.

        Args:
            nbytes: of the cloud's block; None: all of it, as a graph records it.
        """
        clear, copy_in, count, *rest = self.steps(nbytes).values()
        with self._queue.branch():
            clear()
        try:
            copy_in()
            count()
        finally:
            self._queue.merge()
        for step in rest:
            step()

    def steps(self, nbytes: int | None) -> dict[str, Callable[[], None]]:
        """The same, step by step."""
        frame, points = self.cloud.frame, self.cloud.points
        pillars, decoder, found = self._pillars, self._decoder, self._suppression
        return {
            'clear': pillars.clear,
            'copy_in': lambda: self.cloud.copy_in(nbytes),
            'bin': lambda: pillars.bin(frame, points),
            'number': pillars.number,
            'sort': lambda: pillars.sort(frame, points),
            'draw': lambda: pillars.draw(frame),
            'engine': lambda: self._queue.call(self._engine.enqueue),
            'scan': lambda: decoder.scan(frame),
            'select': lambda: found.select(frame),
            'boxes': lambda: decoder.boxes(
                frame, found.best, found.chosen, found.boxes, found.velocities
            ),
            'suppress': lambda: found.suppress(frame, pillars.totals),
            'copy_out': lambda: self._queue.copy_out(self._result, found.result),
        }
