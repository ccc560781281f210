"""Anchor heads on the GPU: launches of cuda/anchors.cu, whose specification is `lidar.anchors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.cuda.frame import LABELS
from airside_perception.cuda.suppress import MOST_PLACES
from airside_perception.errors import EngineError
from airside_perception.lidar.anchors import places_along

SOURCE = 'anchors.cu'
SCAN_THREADS, BOX_THREADS = 128, 64
FORMATS = {
    ('linear', 'float32'): 'LINEAR_FLOAT',
    ('linear', 'float16'): 'LINEAR_HALF',
    ('hwc8', 'float16'): 'HWC8_HALF',
}
"""{(layout, dtype) of an engine's output: what anchors.cu calls it}."""
MOST_TOGETHER = 4
"""Channels whose values a thread holds at a time, so that it waits for memory once."""
CELLS_A_THREAD = {'LINEAR_FLOAT': 4, 'LINEAR_HALF': 8}


class AnchorKernels:
    """Finds candidates in the outputs of one engine, and the boxes of the best of them.

    Args:
        queue: where kernels are launched, `cuda.queue.DeviceQueue`.
        tensors: outputs of the engine by name, `engine.tensorrt.DeviceTensor`.
        keys: uint64 [`capacity(card)`], where candidates go; place = anchor * cells + cell.
        count: uint32 [1], number of candidates; whoever calls `scan` has set it to 0.
        flags: uint32 [1], gets the bits NAN_SCORE and BAD_BOX of `cuda.frame`.

    Raises:
        EngineError: the card has no anchors, too many labels or places, or an output is of an
            unknown layout.
    """

    def __init__(
        self,
        queue: Any,
        card: LidarCard,
        tensors: Mapping[str, Any],
        keys: Any,
        count: Any,
        flags: Any,
    ) -> None:
        if not card.anchors:
            raise EngineError(f'{card.path}: no anchors: architecture {card.architecture}')
        if len(card.classes) > LABELS or self.capacity(card) > MOST_PLACES:
            raise EngineError(
                f'{card.path}: {len(card.classes)} classes and {self.capacity(card)} anchors in '
                f'all; the GPU takes {LABELS} and {MOST_PLACES}'
            )
        self._queue = queue
        self._keys, self._count, self._flags = keys, count, flags
        outputs = {
            'SCORES': card.score_output,
            'BOXES': card.box_output,
            'FRONTS': card.direction_output,
        }
        self._address = {key: np.uint64(tensors[name].address) for key, name in outputs.items()}
        formats = {key: _format(card, name, tensors[name]) for key, name in outputs.items()}
        rows, columns = card.output_grid
        owners, labels = zip(*card.scored, strict=True)
        first = [owners.index(anchor) for anchor in range(len(card.anchors))]
        self._options = (
            f'-DANCHORS={len(card.anchors)}', f'-DCHANNELS={len(owners)}', f'-DROWS={rows}',
            f'-DCOLUMNS={columns}', f'-DOWNERS={_listed(owners)}', f'-DLABELS={_listed(labels)}',
            f'-DFIRST={_listed((*first, len(owners)))}',
            f'-DTOGETHER={min(max(owners.count(anchor) for anchor in owners), MOST_TOGETHER)}',
            *(f'-D{key}={name}' for key, name in formats.items()),
        )  # fmt: skip
        self._scan_grid = _scan_grid(rows * columns, len(card.anchors), formats['SCORES'])
        shapes = [
            (a.length, a.width, a.height, a.z, a.yaw, np.hypot(a.length, a.width))
            for a in card.anchors
        ]
        x0, y0, _, x1, y1, _ = card.limits
        self._shapes = queue.upload(np.array(shapes, np.float64))
        self._xs = queue.upload(places_along(x0, x1, columns, card.anchor_places))
        self._ys = queue.upload(places_along(y0, y1, rows, card.anchor_places))
        self._offset = np.float64(card.direction_offset)

    @staticmethod
    def capacity(card: LidarCard) -> int:
        """Most candidates that there can be: one for each anchor at each cell."""
        rows, columns = card.output_grid
        return len(card.anchors) * rows * columns

    def scan(self, frame: Any) -> None:
        """Enqueues the search for candidates.

        Args:
            frame: `cuda.frame.FRAME` on the device.
        """
        self._queue.launch(
            SOURCE, self._options, 'scan', self._scan_grid, SCAN_THREADS,
            self._address['SCORES'], frame, self._keys, self._count, self._flags,
        )  # fmt: skip

    def boxes(self, frame: Any, best: Any, found: Any, boxes: Any, velocities: Any = None) -> None:
        """Enqueues the decoding of candidates.

        Args:
            frame: as for `scan`; not needed, and neither are the velocities of `gpu_centers`.
            best: uint64 [most], keys.
            found: uint32 [1], how many of them are valid.
            boxes: float32 [most, 8], gets x, y, z, length, width, height, yaw, score.
        """
        del frame, velocities
        most = int(best.shape[0])
        self._queue.launch(
            SOURCE, self._options, 'boxes', -(-most // BOX_THREADS), BOX_THREADS,
            self._address['BOXES'], self._address['FRONTS'], self._shapes, self._xs, self._ys,
            self._offset, best, found, boxes, self._flags,
        )  # fmt: skip


def _scan_grid(cells: int, anchors: int, format_name: str) -> tuple[int, int]:
    """Blocks of `scan`: a thread takes a cell, or several cells of one anchor."""
    if format_name == 'HWC8_HALF':
        return -(-cells // SCAN_THREADS), 1
    wide = CELLS_A_THREAD[format_name]
    threads = cells // wide if cells % wide == 0 else cells
    return -(-threads // SCAN_THREADS), anchors


def _format(card: LidarCard, name: str, tensor: Any) -> str:
    """Name of the format of an output in anchors.cu."""
    found = FORMATS.get((tensor.layout, np.dtype(tensor.dtype).name))
    if found is None:
        raise EngineError(
            f'{card.name}: output {name!r} is {np.dtype(tensor.dtype).name} in the layout '
            f'{tensor.layout!r}; anchor heads are read as float32 or float16 linear, or float16 '
            'hwc8'
        )
    return found


def _listed(numbers: tuple[int, ...]) -> str:
    return ','.join(map(str, numbers))
