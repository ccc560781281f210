"""The tests of the GPU's runtime pass through NVIDIA's bindings on the driver of the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import emulate
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(bool(emulate.unavailable()), reason=emulate.unavailable())
def test_the_gpu_suite_of_the_runtime():
    pytest.importorskip('cuda.bindings.driver')
    files = [str(ROOT / 'test' / 'gpu' / f'test_{name}.py') for name in ('runtime', 'selftest')]
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', *files],
        cwd=ROOT,
        env={**os.environ, 'AIRSIDE_EMULATED_GPU': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    found = re.search(r'(\d+) passed', done.stdout)
    assert found is not None
    assert int(found.group(1)) >= 25
