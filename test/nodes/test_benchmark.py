"""The benchmark of the nodes still runs them; what it measures is nobody's assertion."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import yaml


def test_both_detector_nodes_are_timed(repository: Path, tmp_path: Path) -> None:
    figures = tmp_path / 'figures.json'
    run = subprocess.run(
        [sys.executable, '-m', 'benchmarks', '--only', 'node,', '--turns', '3', '--json',
         str(figures)],
        cwd=repository, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stderr  # 1: a goal is missed
    rows = json.loads(figures.read_text())
    assert [row['task'].split(',')[0] for row in rows] == ['camera node', 'lidar node']
    shipped = yaml.safe_load((repository / 'config' / 'perception.yaml').read_text())
    for name, node in (('camera', 'camera_detector'), ('lidar', 'lidar_detector')):
        network = shipped[node]['ros__parameters']['engine_path']
        assert f'{name} node: {network}' in run.stdout
    assert all(math.isfinite(row['ours_ms']) for row in rows)
