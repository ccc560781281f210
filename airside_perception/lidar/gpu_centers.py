"""Centre heads on the GPU: launches of cuda/centers.cu, whose specification is `lidar.centers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from airside_perception.card import HEADINGS, CenterHead, LidarCard
from airside_perception.cuda.suppress import MOST_PLACES
from airside_perception.errors import EngineError
from airside_perception.lidar.centers import least_squares

SOURCE = 'centers.cu'
THREADS = 128
FORMATS = {
    ('linear', 'float32'): 'FP32',
    ('linear', 'float16'): 'FP16',
    ('hwc8', 'float16'): 'HWC8',
}
"""{(layout, dtype) of an engine's output: what centers.cu calls it}, in its order."""


class CenterKernels:
    """Finds candidates in the outputs of one engine, and the boxes of the best of them.

    Args:
        queue: where kernels are launched, `cuda.queue.DeviceQueue`.
        tensors: outputs of the engine by name, `engine.tensorrt.DeviceTensor`.
        keys: uint64 [`capacity(card)`], where candidates go.
        count: uint32 [1], number of candidates; whoever calls `scan` has set it to 0.
        flags: uint32 [1], gets the bits NAN_SCORE and BAD_BOX of `cuda.frame`.

    Raises:
        EngineError: the card has no centre head, an output is of an unknown layout, or the grid
            has too many cells.
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
        if card.centers is None:
            raise EngineError(f'{card.path}: no centre head: architecture {card.architecture}')
        if self.capacity(card) > MOST_PLACES:
            raise EngineError(
                f'{card.path}: {self.capacity(card)} output cells, at most {MOST_PLACES} can be'
            )
        head: CenterHead = card.centers
        self._queue = queue
        self._keys, self._count, self._flags = keys, count, flags
        self._least = queue.upload(least_squares(card))
        outputs = {
            'HEATMAP': head.heatmap,
            'OFFSET': head.offset,
            'HEIGHT': head.height,
            'SIZE': head.size,
            'ROTATION': head.rotation,
            **({'VELOCITY': head.velocity} if head.velocity else {}),
        }
        self._address = {key: np.uint64(tensors[name].address) for key, name in outputs.items()}
        formats = {key: _format(card, name, tensors[name]) for key, name in outputs.items()}
        hwc8 = list(FORMATS.values())[formats['HEATMAP']] == 'HWC8'
        self._cells_a_thread = 1 if hwc8 or self.capacity(card) % 4 else 4
        self._options = (
            f'-DLABELS={len(card.classes)}',
            f'-DPEAKS={int(head.peaks)}',
            f'-DCELLS={self._cells_a_thread}',
            *(f'-D{key}={code}' for key, code in formats.items()),
        )
        self._grid = tuple(np.int32(n) for n in card.output_grid)
        self._conventions = _conventions(card, head)

    @staticmethod
    def capacity(card: LidarCard) -> int:
        """Most candidates that there can be: one for each cell."""
        rows, columns = card.output_grid
        return rows * columns

    def scan(self, frame: Any) -> None:
        """Enqueues the search for candidates.

        Args:
            frame: `cuda.frame.FRAME` on the device.
        """
        threads = -(-int(self._grid[0] * self._grid[1]) // self._cells_a_thread)
        self._queue.launch(
            SOURCE, self._options, 'scan', -(-threads // THREADS), THREADS,
            self._address['HEATMAP'], self._address['ROTATION'], self._least, frame, self._keys,
            self._count, self._flags, *self._grid,
        )  # fmt: skip

    def boxes(self, frame: Any, best: Any, found: Any, boxes: Any, velocities: Any = None) -> None:
        """Enqueues the decoding of candidates.

        Args:
            frame: as for `scan`; not needed.
            best: uint64 [most], keys.
            found: uint32 [1], how many of them are valid.
            boxes: float32 [most, 8], gets x, y, z, length, width, height, yaw, score.
            velocities: float32 [most, 2], gets vx, vy; for a head that has them.
        """
        del frame
        most = int(best.shape[0])
        moving = [self._address['VELOCITY'], velocities] if 'VELOCITY' in self._address else []
        self._queue.launch(
            SOURCE, self._options, 'boxes', -(-most // THREADS), THREADS,
            *(self._address[key] for key in ('OFFSET', 'HEIGHT', 'SIZE', 'ROTATION')), best, found,
            boxes, self._flags, *self._grid, *self._conventions, *moving,
        )  # fmt: skip


def _format(card: LidarCard, name: str, tensor: Any) -> int:
    """Number of the format of an output in centers.cu."""
    found = FORMATS.get((tensor.layout, np.dtype(tensor.dtype).name))
    if found is None:
        raise EngineError(
            f'{card.name}: output {name!r} is {np.dtype(tensor.dtype).name} in the layout '
            f'{tensor.layout!r}; centre heads are read as float32 or float16 linear, or float16 '
            'hwc8'
        )
    return list(FORMATS.values()).index(found)


def _conventions(card: LidarCard, head: CenterHead) -> tuple[Any, ...]:
    """The last arguments of `boxes`: channels, places of the cells, and what an angle means."""
    rotation = head.rotation_order.split('_')
    channels = [head.size_order.index(axis) for axis in 'lw']
    channels += [rotation.index('sin'), rotation.index('cos')]
    places = [*card.limits[:2], *(extent * card.stride for extent in card.pillar)]
    return (
        *map(np.int32, channels),
        *map(np.float64, places),
        *map(np.float32, HEADINGS[head.heading]),
    )
