"""Colours as rows of four numbers: blue, green, red, and one that only fills the row.

Rows of 16 bytes are looked up, written and resampled two to five times as fast as rows of 12, and
planes are merged into rows faster than NumPy repeats or broadcasts them. What is mixed of many
such arrays is mixed in bands of a picture, which stay in the processor's cache. Rays and points
[N, 3], of which one axis after another is used, lie in memory axis by axis: `picked` keeps that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.types import Float32, Float64, Int64

T = TypeVar('T', bound=np.generic)

BAND = 32
"""Lines of a picture in a band; even."""


def bands(height: int, width: int = 1) -> Iterator[slice]:
    """The bands of a picture: their pixels, or with a width of 1 their lines."""
    for top in range(0, height, BAND):
        yield slice(top * width, min(top + BAND, height) * width)


def four(rows: Float32 | Float64) -> Float32:
    """Rows float32 [N, 4] of [N, 3]; 0 is the fourth."""
    found = np.zeros((len(rows), 4), np.float32)
    found[:, :3] = rows
    return found


def wide(plane: Float32, channels: int = 4) -> Float32:
    """A plane [...] as [..., channels]: each value so many times."""
    return merged((plane,) * channels)


def merged(planes: tuple[Float32, ...]) -> Float32:
    """Planes [...], float32, as [..., C]."""
    if not planes[0].size:  # cv2 refuses
        return np.empty((*planes[0].shape, len(planes)), np.float32)
    found = np.asarray(cv2.merge(planes), dtype=np.float32)
    return found.reshape(*planes[0].shape, len(planes))


def planes(rows: Float32, count: int = 3) -> Float32:
    """The first `count` planes [count, ...] of rows [..., C]."""
    return np.ascontiguousarray(np.moveaxis(rows, -1, 0)[:count])


def put(rows: Float32, index: Int64, values: Float32) -> None:
    """Writes `values` [N, 4] into rows [R, 4] at `index` [N]."""
    whole(rows)[index] = whole(values)


def lay_over(rows: Float32, index: Int64, share: Float32, light: Float32) -> None:
    """Takes `share` [N] of rows [R, 4] at `index` [N] away and adds `light` [N, 4] there."""
    mixed = rows.take(index, axis=0)
    mixed *= wide(1 - share)
    mixed += light
    put(rows, index, mixed)


def turned(vectors: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """`vectors` [N, 3] @ `matrix` [3, 3] by hand: BLAS would wake its threads for so little."""
    x, y, z = (vectors[:, axis] for axis in range(3))
    found = np.empty((3, len(vectors)), np.result_type(vectors, matrix))
    for axis in range(3):
        found[axis] = x * matrix[0, axis] + y * matrix[1, axis] + z * matrix[2, axis]
    return found.T


def picked(vectors: NDArray[T], index: Int64) -> NDArray[T]:
    """Rows `index` [N] of `vectors` [R, 3]; both lie in memory axis by axis."""
    return vectors.T.take(index, axis=1).T


def whole(rows: Float32) -> NDArray[Any]:
    """Rows [N, 4] as N numbers of 16 bytes, the same memory."""
    return rows.view(np.complex128).reshape(-1)
