"""Tensors of an engine in device memory: where they lie and how.

A layout says how the axes channel, row and column (the last three of a shape) lie in memory:
`linear` as NumPy has them; `hwcN` with the channels last, padded with zeros to a multiple of N;
`chwN` in groups of N channels that lie last, the last group padded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.engine.base import TensorSpec
from airside_perception.errors import DeviceError, EngineError

LAYOUT = re.compile(r'(hwc|chw)(\d+)$')
SPATIAL = 3


@dataclass(frozen=True)
class DeviceTensor:
    """One input or output of an open engine, in device memory that the engine owns until closed.

    Attributes:
        spec: name, shape (-1: varies) and dtype.
        address: in device memory; stays the same while the engine is open.
        layout: `linear`, `hwc8`, ...
        shape: as it is set at present, in the order of `spec`.
        channels: length of the channel axis in memory, with its padding; 1 without such an axis.
        nbytes: that the present shape takes, with padding.
    """

    spec: TensorSpec
    address: int
    layout: str
    shape: tuple[int, ...]
    channels: int
    nbytes: int

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None: ...


def close_all(parts: Iterable[Closable | None]) -> None:
    """Closes each of them, whatever the others do.

    On a device that an error has broken nothing can be freed; its memory goes with the process,
    and what broke it was raised before.
    """
    for part in parts:
        if part is not None:
            with suppress(DeviceError):
                part.close()


def layout_name(description: str) -> str:
    """The layout in TensorRT's description of a format, e.g. 'hwc8' of
    'Eight channel FP16 format (kHWC8) where C is padded to a multiple of 8'.

    Raises:
        EngineError: it names none.
    """
    named = re.search(r'\(k([A-Z0-9_]+)\)', description)
    if named:
        return named.group(1).lower()
    last = re.search(r'^Channel major \w+ format where channel % (\d+) == 0$', description)
    if last:
        return f'hwc{last.group(1)}'
    raise EngineError(f'tensor format {description!r} is not understood')


def memory_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Shape in memory of a tensor, padding included.

    Raises:
        EngineError: a layout that is not supported, or a tensor without its three axes.
    """
    if layout == 'linear':
        return shape
    kind, size = _kind(layout)
    if len(shape) < SPATIAL:
        raise EngineError(f'layout {layout} needs channel, row and column; the shape is {shape}')
    *outer, channels, rows, columns = shape
    groups = -(-channels // size)
    if kind == 'hwc':
        return (*outer, rows, columns, groups * size)
    return (*outer, groups, rows, columns, size)


def padded_channels(shape: tuple[int, ...], layout: str) -> int:
    """Length of the channel axis in memory."""
    if len(shape) < SPATIAL:
        return 1
    channels = shape[-SPATIAL]
    if layout == 'linear':
        return channels
    size = _kind(layout)[1]
    return -(-channels // size) * size


def pack(value: NDArray[Any], memory: NDArray[Any], layout: str) -> None:
    """Writes a tensor into memory of its layout; padding becomes zero."""
    if layout == 'linear':
        memory[...] = value
        return
    kind, size = _kind(layout)
    channels = value.shape[-SPATIAL]
    if kind == 'hwc':
        memory[..., :channels] = np.moveaxis(value, -SPATIAL, -1)
        memory[..., channels:] = 0
        return
    if channels % size:
        memory[..., -1, :, :, :] = 0
    for channel in range(channels):
        memory[..., channel // size, :, :, channel % size] = value[..., channel, :, :]


def unpack(memory: NDArray[Any], shape: tuple[int, ...], layout: str) -> NDArray[Any]:
    """A tensor of `shape` from memory of its layout: an array of its own."""
    if layout == 'linear':
        return memory.copy()
    kind, size = _kind(layout)
    channels = shape[-SPATIAL]
    if kind == 'hwc':
        return np.ascontiguousarray(np.moveaxis(memory[..., :channels], -1, -SPATIAL))
    value = np.empty(shape, memory.dtype)
    for channel in range(channels):
        value[..., channel, :, :] = memory[..., channel // size, :, :, channel % size]
    return value


def _kind(layout: str) -> tuple[str, int]:
    if layout == 'hwc':
        return 'hwc', 1
    found = LAYOUT.match(layout)
    if not found:
        raise EngineError(
            f'layout {layout} is not supported; build with linear, hwc8 or chwN inputs and outputs'
        )
    return found.group(1), int(found.group(2))
