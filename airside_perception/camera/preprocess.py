"""From an image as it came to the input of a network: letterbox, channel order, normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.card import CameraCard
from airside_perception.errors import MessageError
from airside_perception.types import Float32, Float64, Image

Pixels = NDArray[np.uint8]


class Encoding(NamedTuple):
    """How the pixels of a ROS encoding lie in `Image.data`.

    Attributes:
        channels: last dimension of the data; 1: the data is [rows, W].
        bgr: channels that hold blue, green and red, after `convert`.
        convert: OpenCV code that makes it BGR, -1: none needed. YUV is BT.601, video range.
        planar: half-size colour planes lie below the image: the data is [H * 3 / 2, W].
        even: whether the width must be even (two pixels share their colour).
    """

    channels: int
    bgr: tuple[int, int, int] = (0, 1, 2)
    convert: int = -1
    planar: bool = False
    even: bool = False


YUYV = Encoding(2, convert=cv2.COLOR_YUV2BGR_YUY2, even=True)
UYVY = Encoding(2, convert=cv2.COLOR_YUV2BGR_UYVY, even=True)
ENCODINGS = {
    'bgr8': Encoding(3),
    'rgb8': Encoding(3, (2, 1, 0)),
    'bgra8': Encoding(4),
    'rgba8': Encoding(4, (2, 1, 0)),
    'mono8': Encoding(1, (0, 0, 0)),
    'yuv422_yuy2': YUYV,
    'yuyv': YUYV,
    'yuv422': UYVY,
    'uyvy': UYVY,
    'nv12': Encoding(1, convert=cv2.COLOR_YUV2BGR_NV12, planar=True, even=True),
    'nv21': Encoding(1, convert=cv2.COLOR_YUV2BGR_NV21, planar=True, even=True),
}


def find_encoding(image: Image) -> Encoding:
    """The layout of an image's data, checked against its shape.

    Raises:
        MessageError: the encoding is not known, or the data has not its shape.
    """
    encoding = ENCODINGS.get(image.encoding)
    if encoding is None:
        known = ', '.join(ENCODINGS)
        raise MessageError(f'image encoding {image.encoding!r} is not known; known are {known}')
    shape = image.data.shape
    if shape[2:] != (() if encoding.channels == 1 else (encoding.channels,)):
        layout = '[H, W]' if encoding.channels == 1 else f'[H, W, {encoding.channels}]'
        raise MessageError(f'{image.encoding} image has data of shape {shape}, expected {layout}')
    if (encoding.even and shape[1] % 2) or (encoding.planar and shape[0] % 3):
        rows = ' and rows for whole colour planes (H * 3 / 2)' if encoding.planar else ''
        raise MessageError(
            f'{image.encoding} image has data of shape {shape}; needs an even width{rows}'
        )
    return encoding


def image_size(image: Image) -> tuple[int, int]:
    """Height and width in pixels.

    Raises:
        MessageError: as `find_encoding`.
    """
    rows, columns = image.data.shape[:2]
    return (rows * 2 // 3 if find_encoding(image).planar else rows), columns


def to_bgr(image: Image) -> Pixels:
    """The image as uint8 [H, W, 3], for pictures; a view of its data where that is BGR already.

    Raises:
        MessageError: as `find_encoding`.
    """
    encoding = find_encoding(image)
    data = _interleaved(image, encoding)
    if data.ndim == 2:
        return np.repeat(data[..., None], 3, axis=2)
    return data if data.shape[2] == 3 and encoding.bgr == (0, 1, 2) else data[..., encoding.bgr]


def _interleaved(image: Image, encoding: Encoding) -> Pixels:
    if encoding.convert < 0:
        return image.data
    return np.asarray(cv2.cvtColor(image.data, encoding.convert), dtype=np.uint8)


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the input of a network.

    Attributes:
        height, width: of the image, pixels.
        inner_height, inner_width: of the image in the input.
        top, left: its first row and column there.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int
    top: int = 0
    left: int = 0

    @staticmethod
    def fit(height: int, width: int, card: CameraCard) -> Letterbox:
        """Shrinks or grows by one factor as far as the input allows; cut to whole pixels."""
        ratio = min(card.height / height, card.width / width)
        inner_height, inner_width = max(int(height * ratio), 1), max(int(width * ratio), 1)
        top = (card.height - inner_height) // 2 if card.centered else 0
        left = (card.width - inner_width) // 2 if card.centered else 0
        return Letterbox(height, width, inner_height, inner_width, top, left)

    def to_image(self, xyxy: Float64) -> Float64:
        """Boxes [N, 4] of the network's input, in pixels of the image; not clipped.

        Each axis has its own factor, because each is cut to whole pixels on its own.
        """
        x, y = self.width / self.inner_width, self.height / self.inner_height
        offset = np.array([self.left, self.top, self.left, self.top])
        moved: Float64 = (np.asarray(xyxy, dtype=np.float64) - offset) * np.array([x, y, x, y])
        return moved

    def clip(self, xyxy: Float64) -> Float64:
        """Boxes [N, 4] in pixels of the image, cut off at its borders."""
        limit = np.array([self.width, self.height, self.width, self.height], dtype=np.float64)
        clipped: Float64 = np.minimum(np.maximum(xyxy, 0.0), limit)
        return clipped


class Normalisation(NamedTuple):
    """input = pixel x scale + offset, and the value of the border; each of three channels.

    Attributes:
        scale, offset: float32 [3].
        border: float64 [3].
    """

    scale: Float32
    offset: Float32
    border: Float64

    @staticmethod
    def of(card: CameraCard) -> Normalisation:
        """The one of a network, in its order of channels."""
        scale = 1.0 / np.asarray(card.std, dtype=np.float64)
        offset = -np.asarray(card.mean, dtype=np.float64) * scale
        border = card.pad * scale + offset
        return Normalisation(scale.astype(np.float32), offset.astype(np.float32), border)


class Preprocessor:
    """Fills the input of one network, image after image.

    Args:
        card: of the network.
        dtype: of its input.
    """

    def __init__(self, card: CameraCard, dtype: Any = np.float32) -> None:
        self._card = card
        self._scale, self._offset, border = Normalisation.of(card)
        self._plain = bool((self._scale == 1.0).all() and (self._offset == 0.0).all())
        self._border = border[:, None, None]
        self._tensor = np.empty((1, 3, card.height, card.width), dtype)
        self._letterbox = Letterbox(0, 0, 0, 0)
        self._resized: Pixels = np.empty(0, np.uint8)

    def __call__(self, image: Image) -> tuple[NDArray[Any], Letterbox]:
        """The input [1, 3, H, W] for an image, and where the image lies in it.

        The array is the same one every time: it holds this image until the next call.

        Raises:
            MessageError: unknown encoding, or data that contradicts it.
        """
        encoding = find_encoding(image)
        pixels = _interleaved(image, encoding)
        letterbox = Letterbox.fit(pixels.shape[0], pixels.shape[1], self._card)
        if letterbox != self._letterbox:
            self._tensor[0] = self._border
            self._letterbox = letterbox
        planes = self._resize(pixels, letterbox)
        rows = slice(letterbox.top, letterbox.top + letterbox.inner_height)
        columns = slice(letterbox.left, letterbox.left + letterbox.inner_width)
        order = encoding.bgr if self._card.color == 'bgr' else encoding.bgr[::-1]
        for channel, source in enumerate(order):
            self._fill(self._tensor[0, channel, rows, columns], planes[source], channel)
        return self._tensor, letterbox

    def _resize(self, pixels: Pixels, letterbox: Letterbox) -> tuple[Any, ...]:
        """Planes of the resized image: on uint8 and before anything else, where it costs least."""
        size = (letterbox.inner_width, letterbox.inner_height)
        shape = (*size[::-1], *pixels.shape[2:])
        if self._resized.shape != shape:
            self._resized = np.empty(shape, np.uint8)
        cv2.resize(pixels, size, dst=self._resized, interpolation=cv2.INTER_LINEAR)
        return (self._resized,) if pixels.ndim == 2 else tuple(cv2.split(self._resized))

    def _fill(self, target: NDArray[Any], plane: Pixels, channel: int) -> None:
        if self._plain:
            target[...] = plane
        else:
            np.multiply(plane, self._scale[channel], out=target, casting='same_kind')
            target += self._offset[channel]
