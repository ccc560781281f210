"""Calibration for TensorRT's own INT8, which has no Q/DQ: scales in its cache or as JSON."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

from airside_perception.errors import EngineError

TEN = 10
ALGORITHM = 'EntropyCalibration2'
ALGORITHMS = (ALGORITHM, 'MinMaxCalibration')
"""Calibrators whose caches TensorRT takes before it fuses layers; trtexec takes the first only."""


def calibration_cache(
    scales: Mapping[str, float],
    version: tuple[int, ...] = (8, 6, 0),
    algorithm: str = ALGORITHM,
) -> str:
    """Scales as the text that TensorRT reads back as its own calibration.

    A line a tensor: its name and the bits of the scale as a float32, big-endian, in hex. The scale
    is that of symmetric INT8, largest value / 127.

    Args:
        scales: {tensor: scale}.
        version: of TensorRT, for the first line: it takes no cache of another one.
        algorithm: of the calibrator that will read it, one of `ALGORITHMS`.

    Raises:
        EngineError: scales that are not positive, or unknown algorithm.
    """
    check_scales(scales)
    if algorithm not in ALGORITHMS:
        raise EngineError(f'algorithm {algorithm!r} is not one of {", ".join(ALGORITHMS)}')
    lines = [f'TRT-{version_number(version)}-{algorithm}']
    lines += [f'{name}: {struct.pack(">f", scale).hex()}' for name, scale in scales.items()]
    return '\n'.join(lines) + '\n'


def version_number(version: tuple[int, ...]) -> int:
    """NV_TENSORRT_VERSION of TensorRT's headers: 8600 for 8.6.0, and 100300 for 10.3.0.

    From 10 on the major version counts ten thousands.
    """
    major, minor, patch = (*version, 0, 0)[:3]
    return major * (10_000 if major >= TEN else 1000) + minor * 100 + patch


def read_scales(path: str | Path) -> dict[str, float]:
    """Scales of a calibration cache of TensorRT, or of a JSON file {tensor: scale}.

    Raises:
        EngineError: missing, neither of the two, or scales that are not positive.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'no text'
        raise EngineError(f'{path}: calibration cannot be read: {reason}') from error
    try:
        found = _of_json(text) if text.lstrip().startswith('{') else _of_cache(text)
        check_scales(found)
    except (ValueError, struct.error, EngineError) as error:
        raise EngineError(f'{path}: no calibration: {error}') from error
    return found


def check_scales(scales: Mapping[str, float]) -> None:
    """Checks that every scale is a positive, finite number.

    Raises:
        EngineError: names the tensor of one that is not; or there are none.
    """
    for name, value in scales.items():
        if not (math.isfinite(value) and value > 0.0):
            raise EngineError(f'the scale of {name!r} is {value}, expected a positive number')
    if not scales:
        raise EngineError('there are no scales')


def _of_json(text: str) -> dict[str, float]:
    found = json.loads(text)
    for name, value in found.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise EngineError(f'the scale of {name!r} is {value!r}, expected a number')
    return {name: float(value) for name, value in found.items()}


def _of_cache(text: str) -> dict[str, float]:
    head, *lines = text.strip().splitlines() or ['']
    if not head.startswith('TRT-'):
        raise EngineError(
            f'expected JSON {{tensor: scale}} or a cache that begins with TRT-, not {head[:40]!r}'
        )
    found = {}
    for line in lines:
        name, separator, bits = line.rpartition(': ')
        if not separator:
            raise EngineError(f'line {line!r} is not `tensor: hexadecimal scale`')
        (found[name],) = struct.unpack('>f', bytes.fromhex(bits.strip()))
    return found
