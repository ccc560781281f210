"""From candidates on the device to the boxes that are published: select.cu and nms.cu.

A decoder appends keys (see `key_of`), `select` sorts the best of them, the decoder writes their
boxes, `suppress` decides which are kept, as `overlap.nms_bev` does, first within groups, then
across. Nothing depends on the order in which keys were appended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.cuda.frame import LABELS, MOST_ROWS, RESULT, RESULT_WITH_VELOCITIES
from airside_perception.errors import DeviceError

SELECT, NMS = 'select.cu', 'nms.cu'
MOST = 10240
"""Most candidates that enter suppression; more than `max_candidates` can be set to."""
MOST_PLACES = 1 << 25
"""Places that a key can tell apart."""
TILE = 64
"""Boxes whose pairs with another one are the bits of a word."""
RANK_BLOCKS, RANK_THREADS = 128, 256
OVERLAP_BLOCKS, OVERLAP_THREADS = 792, 128


class Suppression:
    """Buffers and launches from keys to the result block of one detector.

    Attributes:
        keys: uint64 [places], what decoders append to; no two are equal.
        count: uint32 [1], how many were appended; 0 again after each `suppress`.
        flags: uint32 [1], `frame.NAN_SCORE` and `frame.BAD_BOX`; 0 again after each `suppress`.
        best: uint64 [M], the best keys, best first: `chosen` of them.
        chosen: uint32 [1], min(count, `most` of the frame, M); M is the lower of `places` and
            MOST.
        boxes: float32 [M, 8] for the decoder to fill: x, y, z, length, width, height, yaw,
            score. A box whose score is negative (-0.0 as well) suppresses others, but is not put
            out.
        velocities: float32 [M, 2] for the decoder to fill: vx, vy; None where it has none.
        result: the block `frame.RESULT`, or `frame.RESULT_WITH_VELOCITIES`.

    Args:
        queue: where kernels are launched, `cuda.queue.DeviceQueue`.
        places: most keys that the decoder can append.
        velocities: whether boxes have velocities.

    Raises:
        DeviceError: more places than a key can tell apart.
    """

    def __init__(self, queue: Any, places: int, velocities: bool = False) -> None:
        if not 0 < places <= MOST_PLACES:
            raise DeviceError(f'{places} places for candidates; 1 to {MOST_PLACES} are possible')
        self._queue = queue
        most = self._most = min(places, MOST)
        tiles = -(-most // TILE)
        self.keys = queue.alloc((places,), np.uint64)
        self.count = queue.alloc((1,), np.uint32)
        self.flags = queue.alloc((1,), np.uint32)
        self.best = queue.alloc((most,), np.uint64)
        self.chosen = queue.alloc((1,), np.uint32)
        self.boxes = queue.alloc((most, 8), np.float32)
        self.velocities = queue.alloc((most, 2), np.float32) if velocities else None
        self.result = queue.alloc((1,), RESULT_WITH_VELOCITIES if velocities else RESULT)
        self._pool = queue.alloc((most,), np.uint64)
        self._pooled = queue.alloc((1,), np.uint32)
        self._words = queue.alloc((2, tiles * (tiles + 1) // 2 * TILE), np.uint64)
        self._pairs = queue.alloc((1,), np.uint32)
        self._no_totals = queue.alloc((4,), np.int32)
        queue.clear(self._no_totals)
        self.reset()

    def reset(self) -> None:
        """Empties the list of candidates, as `suppress` does; for a frame that was given up."""
        self._queue.clear(self.count)
        self._queue.clear(self.flags)

    def select(self, frame: Any) -> None:
        """Enqueues the choice of the best candidates: `best` and `chosen`.

        Args:
            frame: `cuda.frame.FRAME` on the device.
        """
        self._queue.launch(
            SELECT, (), 'narrow', 1, 1024,
            self.keys, self.count, frame, np.uint32(self._most), self._pool, self._pooled,
            self.chosen, self._pairs,
        )  # fmt: skip
        self._queue.launch(
            SELECT, (), 'rank', RANK_BLOCKS, RANK_THREADS,
            self.keys, self.count, self._pool, self._pooled, self.chosen, self.best,
        )  # fmt: skip

    def suppress(self, frame: Any, totals: Any = None) -> None:
        """Enqueues the suppression of `boxes`, which fills `result`.

        Args:
            frame: as for `select`.
            totals: int32 [4], `PillarKernels.totals`, for the counts in the result; None: zeros.
        """
        moving = () if self.velocities is None else (self.velocities,)
        options = ('-DVELOCITIES',) if moving else ()
        self._queue.launch(
            NMS, options, 'overlaps', OVERLAP_BLOCKS, OVERLAP_THREADS,
            self.boxes, self.best, self.chosen, frame, self._words, self._pairs,
        )  # fmt: skip
        self._queue.launch(
            NMS, options, 'suppress', 1, 1024,
            self.boxes, self.best, self.chosen, frame, self._words, self._pairs,
            self._no_totals if totals is None else totals, self.count, self.flags, *moving,
            self.result,
        )  # fmt: skip


def key_of(
    scores: NDArray[np.float32], places: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The keys [N] of candidates: larger scores are larger, of equal ones the lower place.

    Args:
        scores: logits or probabilities; -0.0 counts as 0.0.
        places: below `MOST_PLACES`, all different.
        labels: below `frame.LABELS`.
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0.0)).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    low = (MOST_PLACES - 1 - np.asarray(places)) * LABELS + np.asarray(labels)
    return (ordered << np.uint64(32)) | low.astype(np.uint64)


def rows_of(result: NDArray[np.void]) -> NDArray[np.float32]:
    """The valid rows [count, 9] of a `frame.RESULT` on the host, best first."""
    block = result.reshape(())
    rows: NDArray[np.float32] = block['rows'][: min(int(block['count']), MOST_ROWS)]
    return rows
