"""The programs of centre heads compile for the GPUs that we serve. What they compute: test/gpu."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.card import CenterHead, LidarCard
from airside_perception.cuda.kernels import compile_source
from airside_perception.errors import DeviceError
from airside_perception.lidar.gpu_centers import CenterKernels


class Noted:
    """A queue that only notes which programs it is asked for."""

    def __init__(self) -> None:
        self.programs: set[tuple[str, tuple[str, ...]]] = set()

    def upload(self, host: np.ndarray) -> np.ndarray:
        return host

    def launch(self, source: str, options: tuple[str, ...], *_: Any) -> None:
        self.programs.add((source, options))


@pytest.mark.parametrize('arch', ['sm_87', 'sm_90'])
@pytest.mark.parametrize(
    ('layout', 'dtype'), [('linear', 'float32'), ('linear', 'float16'), ('hwc8', 'float16')]
)
@pytest.mark.parametrize('peaks', [False, True])
@pytest.mark.parametrize('velocity', ['', 'vel'])
def test_it_compiles(arch: str, layout: str, dtype: str, peaks: bool, velocity: str) -> None:
    card = LidarCard(
        'c', 'c', 'centerpoint', tuple('abcdefghij'), {}, {}, stride=2, pillar=(0.32, 0.32),
        limits=(-76.8, -76.8, -4.0, 76.8, 76.8, 6.0),
        centers=CenterHead(peaks=peaks, velocity=velocity),
    )  # fmt: skip
    tensor = SimpleNamespace(address=256, layout=layout, dtype=np.dtype(dtype))
    noted = Noted()
    kernels = CenterKernels(noted, card, dict.fromkeys(card.outputs, tensor), None, None, None)
    kernels.scan(None)
    kernels.boxes(None, np.zeros(8, np.uint64), None, None)
    ((source, options),) = noted.programs
    try:
        cubin = compile_source(source, options, arch)
    except DeviceError as error:
        if 'cannot be compiled here' not in str(error):
            raise
        pytest.skip(str(error))
    assert cubin[:4] == b'\x7fELF'
