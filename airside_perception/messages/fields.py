"""Fields that messages share: stamps and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import MessageError

NANOSECONDS = 1_000_000_000


def stamp_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def header_stamp_ns(message: Any) -> int:
    """Nanoseconds of a message's header.

    Raises:
        MessageError: the stamp is 0. That is no time of a measurement: nobody has set it, and to
            tf2 it means the newest transform, whenever the measurement was.
    """
    stamp = stamp_ns(message.header.stamp)
    if stamp == 0:
        raise MessageError('header.stamp is 0; the sensor must say when it measured')
    return stamp


def data_bytes(data: Any) -> NDArray[np.uint8]:
    """The bytes of a message field, not copied: array.array, bytes or an ndarray."""
    return np.frombuffer(data, dtype=np.uint8)
