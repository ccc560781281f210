"""From points on the GPU to the canvas of a network: launches of cuda/pillars.cu.

The result is that of `lidar.pillars` and `lidar.encoder`: the same cells, the same points in them
and the same means; features to rounding (products and sums are fused on a GPU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.cuda.queue import Queue
from airside_perception.errors import ConfigError, EngineError
from airside_perception.lidar.encoder import centres_of, weights
from airside_perception.lidar.pillars import Grid, Int32
from airside_perception.types import Float32

MODULE = 'pillars.cu'
MOST_CHANNELS = 128
MOST_POINTS = 256
"""Points a pillar may keep: so many have room in the shared memory of a warp."""
MOST_CAPACITY = 2**20 - 1
"""Points in a cloud: running sums of points have 20 bits."""
THREADS = 256
CELLS_A_TILE = 4 * 1024
PILLARS_A_BLOCK = 8
DRAW_BLOCKS = 528
"""As many as run at once on the largest GPUs: weights are read once a block, not once a pillar."""
TOTALS = np.dtype([(name, '<i4') for name in ('pillars', 'occupied', 'in_range', 'kept')])
PILLAR = np.dtype([(name, '<i4') for name in ('cell', 'begin', 'count', 'start')])


@dataclass(frozen=True)
class Drawn:
    """What a cloud left in the memory of the kernels, on the host; see `lidar.pillars.Pillars`."""

    cells: Int32
    starts: Int32
    means: Float32
    in_range: int
    occupied: int


class PillarKernels:
    """Draws clouds onto the canvas of one network.

    A cloud is used up to its `capacity`-th point; what lies beyond is left out.

    Args:
        queue: launches, and owns the memory that is allocated here.
        card: of the network.
        canvas: the network's input on the device (`address`, `nbytes`, `layout`, `dtype`). Only
            these kernels write to it from now on; otherwise call `reset`.
        capacity: most points of a cloud.

    Raises:
        EngineError: the kernels cannot write a canvas of that layout and type.
        ConfigError: the network or the capacity is larger than the kernels can take.
    """

    def __init__(self, queue: Queue, card: LidarCard, canvas: Any, capacity: int) -> None:
        half, hwc8 = _canvas_kind(canvas)
        if card.only_cpu:
            raise ConfigError(f'{card.name}: {card.only_cpu}')
        of_point, of_pillar, least = weights(card)
        channels, (rows, columns) = len(least), card.grid
        for what, value, most in (
            ('channels of the canvas', channels, MOST_CHANNELS),
            ('max_points', card.max_points, MOST_POINTS),
            ('capacity (points of a cloud)', capacity, MOST_CAPACITY),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f'{card.name}: {what} {value}; the GPU takes 1 to {most}')
        self._queue, self._canvas = queue, canvas
        self._options = (
            f'-DCHANNELS={channels}', f'-DMAX_POINTS={card.max_points}',
            f'-DFOURTH={len(card.point_columns) - 3}', f'-DHALF={half}', f'-DHWC8={hwc8}',
        )  # fmt: skip
        self._capacity, self._cells = np.int32(capacity), np.int32(rows * columns)
        self._max_pillars = np.int32(min(card.max_pillars, capacity, rows * columns))
        self._quads = np.int32(-(-rows * columns // 4))
        self._tiles = -(-rows * columns // CELLS_A_TILE)
        self._scale, self._unit = _units(card)
        stored = -(-channels // 8) * 8
        self._of_point = queue.upload(_padded(of_point, stored, 4))
        self._of_pillar = queue.upload(
            _padded(np.concatenate([of_pillar, least[:, None]], axis=1), stored, 8)
        )
        self._centres = queue.upload(_centre_table(card))
        self._grid = queue.upload(_grid(card))
        self._counts = queue.alloc(4 * int(self._quads), np.uint32)
        self._state = queue.alloc(1 + self._tiles, np.uint64)
        self._bins = queue.alloc((capacity, 2), np.int32)
        self._sorted = queue.alloc((capacity, 4), np.float32)
        self._members = queue.alloc(capacity, np.int32)
        self._pillars = queue.alloc((min(rows * columns, capacity), 4), np.int32)
        self._means = queue.alloc((int(self._max_pillars), 4), np.float32)
        self.totals = queue.alloc(4, np.int32)
        """int32 [4] on the device: the fields of `TOTALS`."""
        self.reset()

    def reset(self) -> None:
        """Brings everything back to the state before the first cloud, whatever happened."""
        self._queue.clear(self._counts)
        self._queue.clear(self.totals)
        halves = np.uint64(self._canvas.nbytes // 2)
        self._launch('clear_all', DRAW_BLOCKS, THREADS, np.uint64(self._canvas.address), halves)

    def clear(self) -> None:
        """Takes the last cloud off the canvas; before `number`, or beside `bin`."""
        items = int(self._max_pillars) * 8
        self._launch(
            'clear_pillars', min(-(-items // THREADS), 4 * DRAW_BLOCKS), THREADS,
            self.totals, self._pillars, self._cells, np.uint64(self._canvas.address),
        )  # fmt: skip

    def bin(self, frame: Any, points: Any) -> None:
        """Sorts the points of the next cloud into cells.

        Args:
            frame: the `cuda.frame.FRAME` on the device.
            points: float32 [capacity, 4] there: the `point_columns` of the card.
        """
        threads = max(int(self._capacity), self._tiles + 1)
        self._launch(
            'bin_points', -(-threads // THREADS), THREADS, frame, points, self._capacity,
            self._grid, self._counts, self._bins, self._state, np.int32(self._tiles + 1),
        )  # fmt: skip

    def number(self) -> None:
        """Numbers the pillars of the cloud that `bin` has seen; after `clear`."""
        self._launch(
            'number_pillars', self._tiles, 1024, self._counts, self._quads,
            self._max_pillars, self._state, self._pillars, self.totals,
        )  # fmt: skip

    def sort(self, frame: Any, points: Any) -> None:
        """Puts the points of every pillar together; after `number`."""
        self._launch(
            'sort_points', -(-int(self._capacity) // THREADS), THREADS, frame, points,
            self._capacity, self._counts, self._bins, self._sorted, self._members,
        )  # fmt: skip

    def draw(self, frame: Any) -> None:
        """Draws the pillars onto the canvas; after `sort`."""
        blocks = -(-int(self._max_pillars) // PILLARS_A_BLOCK)
        self._launch(
            'draw_pillars', min(blocks, DRAW_BLOCKS), 32 * PILLARS_A_BLOCK, frame, self.totals,
            self._pillars, self._sorted, self._members, self._of_point, self._of_pillar,
            self._centres, self._grid, self._scale, self._unit, self._counts, self._means,
            np.uint64(self._canvas.address),
        )  # fmt: skip

    def enqueue(self, frame: Any, points: Any) -> None:
        """A whole cloud, step by step."""
        self.clear()
        self.bin(frame, points)
        self.number()
        self.sort(frame, points)
        self.draw(frame)

    def drawn(self) -> Drawn:
        """What the last cloud left here, for comparison; waits for it."""
        totals = self._queue.download(self.totals).view(TOTALS)[0]
        n = int(totals['pillars'])
        pillars = self._queue.download(self._pillars).view(PILLAR)[:n, 0]
        return Drawn(
            pillars['cell'].copy(),
            np.append(pillars['start'], totals['kept']).astype(np.int32),
            self._queue.download(self._means)[:n, :3].copy(),
            int(totals['in_range']),
            int(totals['occupied']),
        )

    def _launch(self, kernel: str, grid: int, block: int, *args: Any) -> None:
        self._queue.launch(MODULE, self._options, kernel, grid, block, *args)


def _canvas_kind(canvas: Any) -> tuple[int, int]:
    """HALF and HWC8 of pillars.cu."""
    kinds = {('linear', 4): (0, 0), ('linear', 2): (1, 0), ('hwc8', 2): (1, 1)}
    dtype = np.dtype(canvas.dtype)
    kind = kinds.get((canvas.layout, dtype.itemsize))
    if kind is None or dtype.kind != 'f':
        raise EngineError(
            f'the canvas is {dtype.name} in the layout {canvas.layout!r}; pillars are drawn as '
            'float32 or float16 linear, or as float16 hwc8'
        )
    return kind


def _units(card: LidarCard) -> tuple[np.float32, np.float32]:
    """Integer units a metre, and their reciprocal.

    The largest power of 2 for which `max_points` coordinates of the grid sum up to less than
    2^62, so 2^-48 m or finer for every grid that reaches up to 256 m with 64 points a pillar.
    """
    reach = max(map(abs, card.limits)) + max(card.pillar)
    exponent = 61 - math.ceil(math.log2(reach * card.max_points))
    return np.float32(2.0**exponent), np.float32(2.0**-exponent)


def _padded(values: Float32, rows: int, columns: int) -> Float32:
    padded = np.zeros((rows, columns), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded


def _centre_table(card: LidarCard) -> Float32:
    """x of all columns, y of all rows, and z."""
    rows, columns = card.grid
    along = centres_of(card, np.arange(columns))
    across = centres_of(card, np.arange(rows) * columns)
    return np.concatenate([along[:, 0], across[:, 1], along[:1, 2]])


def _grid(card: LidarCard) -> Int32:
    """`Grid` of pillars.cu, as its bits."""
    grid = Grid.of(card)
    floats = np.array([*grid.low, grid.top, *grid.scale], np.float32)
    return np.concatenate([floats.view(np.int32), np.array([grid.rows, grid.columns], np.int32)])
