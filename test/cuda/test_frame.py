"""What travels to the device and back is the same to NumPy and to the kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulate import emulate, unavailable

from airside_perception.config import CameraConfig, LidarConfig, specs
from airside_perception.cuda.frame import (
    BAD_BOX,
    FRAME,
    MOST_ROWS,
    NAN_SCORE,
    RESULT,
    RESULT_WITH_VELOCITIES,
)
from airside_perception.cuda.suppress import MOST


def offsets(dtype: np.dtype) -> list[int]:
    """Of all fields, and the size."""
    return [dtype.fields[name][1] for name in dtype.names] + [dtype.itemsize]


@pytest.mark.skipif(bool(unavailable()), reason=unavailable())
def test_fields() -> None:
    frame, result = np.zeros(14, np.int32), np.zeros(9, np.int32)
    constants = np.zeros(5, np.int32)
    kernels = emulate('frame_probe.cu', folder=Path(__file__).parent)
    kernels.kernel('probe')(1, 1, frame, result, constants)
    assert frame.tolist() == offsets(FRAME)
    assert result.tolist() == offsets(RESULT)
    both = offsets(RESULT_WITH_VELOCITIES)
    assert both[0] == 0
    assert constants.tolist() == [MOST_ROWS, NAN_SCORE, BAD_BOX, *both[1:]]


@pytest.mark.parametrize('config', [CameraConfig, LidarConfig])
def test_every_setting_fits(config: type) -> None:
    highest = {parameter.name: parameter.high for parameter in specs(config)}
    assert (highest['max_candidates'] or np.inf) <= MOST
    assert (highest['max_detections'] or np.inf) <= MOST_ROWS
