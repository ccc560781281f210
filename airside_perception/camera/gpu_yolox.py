"""The output of a YOLOX head on the GPU to candidates and boxes: launches of cuda/yolox.cu.

The specification is `camera.yolox`. Scores are float32 there where the specification has float64:
they differ by rounding, so two scores nearer than 1e-6 may change places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.preprocess import Letterbox
from airside_perception.camera.yolox import YoloxDecoder
from airside_perception.card import CameraCard
from airside_perception.cuda.frame import LABELS
from airside_perception.cuda.queue import Queue
from airside_perception.cuda.suppress import MOST_PLACES
from airside_perception.engine.buffers import DeviceTensor
from airside_perception.errors import CardError, EngineError
from airside_perception.types import Float32, Float64

THREADS = 128
LANES = 8
"""Threads of a cell, as in yolox.cu."""


def lowest_float32(thresholds: Float64) -> Float32:
    """The least float32 that is no less than each threshold: float32 scores pass it as they pass
    the threshold itself."""
    rounded = thresholds.astype(np.float32)
    above: Float32 = np.nextafter(rounded, np.float32(np.inf))
    return np.where(rounded < thresholds, above, rounded)


class YoloxKernels:
    """Decodes one network's output: `scan` to keys, and after selection `boxes`.

    Args:
        queue: launches, and owns the memory that is allocated here.
        card: of the network.
        tensors: its output on the device, by name.
        keys: uint64 [`capacity(card)`], where candidates go; place: cell, label: published
            class.
        count: uint32 [1], number of candidates; whoever calls `scan` has set it to 0.
        flags: uint32 [1], gets the bits NAN_SCORE and BAD_BOX of `cuda.frame`.

    Raises:
        CardError: more classes or cells than a key holds.
        EngineError: the output has a layout that cannot be read.
    """

    def __init__(
        self,
        queue: Queue,
        card: CameraCard,
        tensors: Mapping[str, DeviceTensor],
        keys: Any,
        count: Any,
        flags: Any,
    ) -> None:
        decoder = YoloxDecoder(card)
        output = tensors[card.output_name]
        if output.layout != 'linear' or output.dtype not in (np.float32, np.float16):
            raise EngineError(
                f'output {output.spec} has the layout {output.layout}; linear float32 or float16 '
                'can be decoded'
            )
        if len(card.published) > LABELS or decoder.shape[1] > MOST_PLACES:
            raise CardError(
                f'{card.path}: {len(card.published)} published classes and {decoder.shape[1]} '
                f'cells; the GPU takes {LABELS} and {MOST_PLACES}'
            )
        self._queue = queue
        half, activated = int(output.dtype == np.float16), int(card.activated)
        self._options = f'-DHALF={half}', f'-DACTIVATED={activated}'
        self._output = np.uint64(output.address)
        self._keys, self._count, self._flags = keys, count, flags
        columns = (decoder.columns | decoder.published << 16).astype(np.uint32)
        self._columns, self._levels = queue.upload(columns), queue.upload(_levels(card))
        self._level_count = np.int32(len(card.strides))
        _, cells, values = decoder.shape
        self._cells, self._values = np.int32(cells), np.int32(values)
        self._labels, self._published = np.int32(len(columns)), np.int32(len(card.published))

    @staticmethod
    def capacity(card: CameraCard) -> int:
        """Most keys that `scan` can find: one a cell."""
        return sum((card.height // s) * (card.width // s) for s in card.strides)

    def scan(self, frame: Any) -> None:
        """Enqueues the search for candidates.

        Args:
            frame: `cuda.frame.FRAME` on the device; thresholds are probabilities.
        """
        blocks = -(-int(self._cells) * LANES // THREADS)
        self._queue.launch(
            'yolox.cu', self._options, 'scan', blocks, THREADS,
            self._output, self._columns, frame, self._keys, self._count, self._flags,
            self._labels, self._published, self._cells, self._values,
        )  # fmt: skip

    def boxes(self, best: Any, found: Any, boxes: Any, letterbox: Letterbox) -> None:
        """Enqueues the decoding of candidates, to pixels of the image that lies in `letterbox`.

        A box that shows nothing of the image gets a negative score.

        Args:
            best: uint64 [most], keys.
            found: uint32 [1], how many of them are valid.
            boxes: float32 [most, 8], gets x, y, 0, width, height, 0, 0, score.
        """
        most = int(best.shape[0])
        place = (
            letterbox.left, letterbox.top, letterbox.width / letterbox.inner_width,
            letterbox.height / letterbox.inner_height, letterbox.width, letterbox.height,
        )  # fmt: skip
        self._queue.launch(
            'yolox.cu', self._options, 'boxes', -(-most // THREADS), THREADS,
            self._output, self._levels, best, found, boxes, self._flags,
            self._level_count, self._values, *(np.float32(value) for value in place),
        )  # fmt: skip


def _levels(card: CameraCard) -> NDArray[np.int32]:
    """First cell, columns of cells and stride [levels, 3] of every level."""
    levels, first = [], 0
    for stride in card.strides:
        columns = card.width // stride
        levels.append((first, columns, stride))
        first += card.height // stride * columns
    return np.array(levels, np.int32)
