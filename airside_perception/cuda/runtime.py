"""What the rest of the package uses of CUDA: devices, memory, streams, events and graphs.

Everything allocated is a context manager; close() may be called again and from any thread.
"""

from __future__ import annotations

from airside_perception.cuda.driver import (
    Device,
    call,
    check,
    current_device,
    unavailable,
    use_device,
)
from airside_perception.cuda.graph import Graph
from airside_perception.cuda.memory import (
    DeviceArray,
    DeviceMemory,
    Memory,
    PinnedArray,
    copy_device,
    copy_to_device,
    copy_to_host,
    live_bytes,
)
from airside_perception.cuda.stream import Event, Stream

__all__ = [
    'unavailable',
    'use_device',
    'current_device',
    'Device',
    'call',
    'check',
    'Stream',
    'Event',
    'Memory',
    'DeviceMemory',
    'DeviceArray',
    'PinnedArray',
    'copy_to_device',
    'copy_to_host',
    'copy_device',
    'live_bytes',
    'Graph',
]
