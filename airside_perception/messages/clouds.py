"""Incoming: point clouds of any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import MessageError
from airside_perception.messages.fields import data_bytes, header_stamp_ns
from airside_perception.types import Float64, PointCloud

POINT_TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}
"""Data types of sensor_msgs/PointField."""
MAX_POINTS = 20_000_000
BLOCK = 8192
"""Points filtered at a time."""


def point_cloud(
    message: Any,
    min_range: float = 0.0,
    max_range: float = float('inf'),
    need: tuple[str, ...] | None = None,
) -> PointCloud:
    """sensor_msgs/PointCloud2 of any field layout, as float32 x, y, z and perhaps intensity.

    Points with a NaN or infinite value, nearer than `min_range` or not nearer than `max_range`
    metres (distance from the sensor) are left out. Big-endian data, double precision, padding
    between points and rows are handled; integer intensities are taken at their value.

    Args:
        message: the cloud.
        min_range: metres.
        max_range: metres.
        need: ('intensity',) where it must be there, () where it is not looked at: a driver may
            leave NaN in what nobody needs. None: it is read where there is one.

    Raises:
        MessageError: a field is missing or of an unusable type, the layout contradicts itself, the
            data are shorter than announced, or there is no stamp.
    """
    if need is None:
        need = ('intensity',) if any(item.name == 'intensity' for item in message.fields) else ()
    names = ('x', 'y', 'z', *need)
    columns = _columns(message, names)
    points = _select(columns, _rows(columns, message.point_step), min_range, max_range)
    count = len(columns[0])
    return PointCloud(header_stamp_ns(message), message.header.frame_id, points, names, count)


def velocities(message: Any) -> Float64:
    """vx and vy [N, 2] of a PointCloud2 as `velocities_message` makes it; NaN: not known.

    Raises:
        MessageError: as `point_cloud`, but for the stamp.
    """
    found: Float64 = np.stack(_columns(message, ('vx', 'vy')), axis=1).astype(np.float64)
    return found


def _columns(message: Any, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """The values of the named fields, as they lie in the message."""
    fields = {item.name: item for item in message.fields}
    for name in names:
        if name not in fields:
            raise MessageError(
                f'point cloud has no field {name!r}; its fields are {", ".join(fields) or "none"}'
            )
    count = message.width * message.height
    if count > MAX_POINTS:
        raise MessageError(f'point cloud of {count} points; more than {MAX_POINTS} are refused')
    dtypes = [_point_type(fields[name], message) for name in names]
    data = _point_bytes(message) if count else np.empty(0, np.uint8)
    return [
        np.ndarray((count,), dtype, data, fields[name].offset, (message.point_step,))
        if count
        else np.empty(0, dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    ]


def _rows(columns: list[NDArray[Any]], step: int) -> NDArray[Any] | None:
    """The points as one 16-byte element each, where they lie in the message as they are wanted.

    NumPy moves such elements three times faster than rows of four floats. None where the columns
    are no neighbours, of another type or byte order, or not aligned.
    """
    first = columns[0]
    start = first.__array_interface__['data'][0]
    neighbours = all(
        column.dtype == np.float32 and column.__array_interface__['data'][0] == start + 4 * index
        for index, column in enumerate(columns)
    )
    if not len(first) or not neighbours or first.base is None:
        return None
    data = np.asarray(first.base)
    offset = start - data.__array_interface__['data'][0]
    if offset % step + 16 > step or start % 8 or step % 8:
        return None
    return np.ndarray((len(first),), np.complex128, data, offset, (step,))


def _point_bytes(message: Any) -> NDArray[np.uint8]:
    """The bytes of the points one after another: without what pads the rows."""
    data = data_bytes(message.data)
    row = message.point_step * message.width
    used = message.row_step * (message.height - 1) + row
    if message.height > 1 and message.row_step < row:
        raise MessageError(
            f'point cloud row_step is {message.row_step}, but {message.width} points of '
            f'{message.point_step} bytes take {row}'
        )
    if len(data) < used:
        raise MessageError(f'point cloud has {len(data)} bytes, but its layout announces {used}')
    if message.height == 1 or message.row_step == row:
        return data[:used]
    rows = np.lib.stride_tricks.as_strided(data, (message.height, row), (message.row_step, 1))
    return rows.reshape(-1)


def _point_type(field: Any, message: Any) -> np.dtype[Any]:
    code = POINT_TYPES.get(field.datatype)
    if code is None or (field.name in 'xyz' and code not in ('f4', 'f8')):
        raise MessageError(
            f'point field {field.name!r} has datatype {field.datatype} ({code or "unknown"}); '
            'expected FLOAT32 (7)'
        )
    if field.count not in (0, 1):
        raise MessageError(
            f'point field {field.name!r} has {field.count} values a point; expected 1'
        )
    dtype = np.dtype(('>' if message.is_bigendian else '<') + code)
    if field.offset + dtype.itemsize > message.point_step:
        raise MessageError(
            f'point field {field.name!r} ends at byte {field.offset + dtype.itemsize}, '
            f'but point_step is {message.point_step}'
        )
    return dtype


def _select(
    columns: list[NDArray[Any]],
    rows: NDArray[Any] | None,
    min_range: float,
    max_range: float,
) -> NDArray[np.float32]:
    """float32 [N, C] of the columns, without what is not finite or out of range.

    In blocks that stay in the cache: fresh memory costs more than the arithmetic (page faults).
    """
    count = len(columns[0])
    points = np.empty((count, 4), np.float32)
    chosen = points.view(np.complex128)[:, 0]
    block = np.empty((min(count, BLOCK), 4), np.float32)
    far, near = np.float32(max_range) ** 2, np.float32(min_range) ** 2
    found = 0
    with np.errstate(over='ignore', invalid='ignore'):
        for start in range(0, count, BLOCK):
            part = [column[start : start + BLOCK] for column in columns]
            if rows is None:
                part = [column.astype(np.float32) for column in part]
                for index, column in enumerate(part):
                    block[: len(column), index] = column
                source = block.view(np.complex128)[: len(part[0]), 0]
            else:
                source = rows[start : start + BLOCK]
            keep = _usable(part, near, far)
            kept = source[keep]
            chosen[found : found + len(kept)] = kept
            found += len(kept)
    return points[:found, : len(columns)]


def _usable(part: list[NDArray[Any]], near: np.float32, far: np.float32) -> NDArray[np.bool_]:
    """Points whose squared distance is in [near, far) and whose intensity is finite."""
    x, y, z = part[:3]
    square = x * x
    square += y * y
    square += z * z
    keep: NDArray[np.bool_] = square < far  # NaN compares false, infinity is not below infinity
    if near > 0:
        keep &= square >= near
    if len(part) > 3:
        keep &= np.isfinite(part[3])
    return keep
