"""From the bytes of an image on the GPU to the input of a network: launches of cuda/image.cu.

The pixels are those of `camera.preprocess`: what OpenCV makes of the image, bit for bit on x86-64
(its builds for ARM resize with other instructions and may differ by 1 of 255).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.preprocess import ENCODINGS, Letterbox, Normalisation
from airside_perception.card import CameraCard
from airside_perception.cuda.queue import Queue
from airside_perception.engine.buffers import DeviceTensor
from airside_perception.errors import EngineError

SOURCES = {
    'bgr8': 'BGR',
    'rgb8': 'BGR',
    'bgra8': 'BGRA',
    'rgba8': 'BGRA',
    'mono8': 'MONO',
    'yuv422_yuy2': 'YUYV',
    'yuyv': 'YUYV',
    'yuv422': 'UYVY',
    'uyvy': 'UYVY',
    'nv12': 'NV12',
    'nv21': 'NV21',
}
"""How the bytes of each of `preprocess.ENCODINGS` lie, as image.cu calls it."""
BEYOND = 16
"""Bytes behind the image that the kernel may read and does not use: it reads whole words."""
THREADS = 128
ONE = 2048
"""Weight 1 in OpenCV's fixed point."""


def taps(source: int, target: int, *, across: bool) -> NDArray[np.uint64]:
    """The two pixels of `source` between which each of `target` lies, and their weights.

    As `resize` of OpenCV has them for uint8 and INTER_LINEAR. Across, a place beyond the border
    is put on it; down, it keeps its weights and both of its rows are the border.

    Returns:
        uint64 [target]: first pixel << 1 | (second - first), weight of the first << 32, of the
        second << 48.
    """
    factor = 1.0 / (target / source)
    place = ((np.arange(target) + 0.5) * factor - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    part = place - first.astype(np.float32)
    if across:
        part[(first < 0) | (first >= source - 1)] = 0.0
    one, scale = np.float32(1.0), np.float32(ONE)
    weights = [np.rint(value * scale).astype(np.uint64) for value in (one - part, part)]
    second = np.clip(first + 1, 0, source - 1)
    first = np.clip(first, 0, source - 1)
    pixels = (first << 1 | second - first).astype(np.uint64)
    table: NDArray[np.uint64] = pixels | weights[0] << np.uint64(32) | weights[1] << np.uint64(48)
    return table


class InputLayout(NamedTuple):
    """How image.cu writes the input of an engine.

    Attributes:
        options: for the compiler.
        pixels: neighbours of a row that a thread writes, PIXELS of image.cu.
    """

    options: tuple[str, ...]
    pixels: int

    @staticmethod
    def of(tensor: DeviceTensor) -> InputLayout:
        """The one of an input with three channels.

        Raises:
            EngineError: image.cu cannot write it.
        """
        if tensor.layout == 'linear' and tensor.dtype in (np.float32, np.float16):
            return InputLayout((f'-DLAYOUT=FP{8 * tensor.dtype.itemsize}',), 4)
        # three channels are one group: as channels last, with the group's padding
        n = tensor.channels
        one_group = tensor.layout in (f'hwc{n}', f'chw{n}') and (n == 4 or n % 8 == 0)
        if one_group and tensor.dtype == np.float16:
            return InputLayout(('-DLAYOUT=PADDED', f'-DCHANNELS={n}'), 1)
        raise EngineError(
            f'input {tensor.spec} has the layout {tensor.layout}; images are written as linear '
            'float32 or float16, or as float16 with 4, 8, 16 or 32 channels last (hwc8)'
        )


class ImageKernels:
    """Draws images of one size and encoding into the input of one network.

    Args:
        queue: launches, and owns the memory that is allocated here.
        card: of the network.
        tensor: its input on the device.
        encoding: a key of `SOURCES`.
        letterbox: where the image lies in the input.

    Raises:
        EngineError: as `InputLayout.of`.
    """

    def __init__(
        self,
        queue: Queue,
        card: CameraCard,
        tensor: DeviceTensor,
        encoding: str,
        letterbox: Letterbox,
    ) -> None:
        layout = InputLayout.of(tensor)
        reversed_bytes = ENCODINGS[encoding].bgr == (2, 1, 0)
        swap = int(reversed_bytes != (card.color == 'rgb'))
        self._queue = queue
        self._options = (f'-DSOURCE={SOURCES[encoding]}', *layout.options)
        self._input = np.uint64(tensor.address)
        self._across = queue.upload(taps(letterbox.width, letterbox.inner_width, across=True))
        self._down = queue.upload(taps(letterbox.height, letterbox.inner_height, across=False))
        normal = Normalisation.of(card)
        self._values = queue.upload(np.concatenate([normal.scale, normal.offset]))
        # rounded once, where float16 is the input
        border = normal.border.astype(tensor.dtype).astype(np.float32)
        self._border = queue.upload(border)
        end = letterbox.left + letterbox.inner_width
        groups = -(-end // layout.pixels) - letterbox.left // layout.pixels
        self._threads = groups * letterbox.inner_height
        self._places = card.height * card.width
        self._size = np.int32(card.width), np.int32(card.height)
        sizes = (
            letterbox.width, letterbox.height, letterbox.inner_width, letterbox.inner_height,
            letterbox.left, letterbox.top, card.width, card.height, groups, swap,
        )  # fmt: skip
        self._sizes = tuple(np.int32(n) for n in sizes)

    def draw_border(self) -> None:
        """Makes the whole input border: once, before the first image in this letterbox."""
        self._queue.launch(
            'image.cu', self._options, 'border', -(-self._places // THREADS), THREADS,
            self._input, self._border, *self._size,
        )  # fmt: skip

    def enqueue(self, image: np.uint64) -> None:
        """Draws the image whose bytes begin at this device address, a multiple of 4.

        `BEYOND` bytes behind it must be readable.
        """
        self._queue.launch(
            'image.cu', self._options, 'letterbox', -(-self._threads // THREADS), THREADS,
            image, self._across, self._down, self._values, self._input, *self._sizes,
        )  # fmt: skip
