"""Fixtures of the launch tests: the graph as a user starts it, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PARAMETERS = """
camera_detector: {{ros__parameters: {{engine_path: {folder}/tiny_camera.onnx}}}}
lidar_detector: {{ros__parameters: {{engine_path: {folder}/tiny_lidar.onnx}}}}
bev_fusion:
  ros__parameters:
    cameras: [front, rear]
    fixed_frame: base_link
    deadline_ms: 200.0
    silence_ms: 1000.0
"""


class Launched:
    """`ros2 launch` in a session of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            ['ros2', 'launch', *arguments],
            stdout=log.open('w'), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self.log.read_text(errors='replace').splitlines()

    def said(self, text: str, times: int = 1, timeout: float = 45.0) -> list[str]:
        """Waits until the launch or a node has said so that often, and returns the lines."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = [line for line in self.lines if text in line]
            if len(found) >= times:
                return found
            time.sleep(0.05)
        raise AssertionError(
            f'waited {timeout} s for {text!r} {times} times in:\n' + '\n'.join(self.lines)
        )

    def pid(self, name: str) -> int:
        """Process of the node of that name."""
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                words = (folder / 'cmdline').read_bytes().split(b'\0')
                session = int((folder / 'stat').read_text().rpartition(')')[2].split()[3])
                if session == self.process.pid and f'__node:={name}'.encode() in words:
                    return int(folder.name)
        raise AssertionError(f'no process of {name}')

    def interrupt(self) -> int:
        """SIGINT as from a terminal; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20.0)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def networks(tiny_models: ModuleType, tmp_path: Path) -> Path:
    """A folder with the tiny networks and params.yaml, which runs them on two cameras."""
    tiny_models.tiny_camera_model(tmp_path)
    tiny_models.tiny_lidar_model(tmp_path)
    (tmp_path / 'params.yaml').write_text(PARAMETERS.format(folder=tmp_path))
    return tmp_path


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Starts full.launch.py, or another launch file, with arguments `name:=value`."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix('airside_perception')
    except PackageNotFoundError:
        pytest.skip('the package is not built and sourced (make build)')
    started: list[Launched] = []

    def start(*arguments: str, file: Path | None = None) -> Launched:
        log = tmp_path / f'launch{len(started)}.log'
        what = ['airside_perception', 'full.launch.py'] if file is None else [str(file)]
        started.append(Launched(log, *what, *arguments))
        return started[-1]

    yield start
    for item in started:
        item.close()


@pytest.fixture
def harness(ros_harness: ModuleType) -> Iterator[Any]:
    """A node of the test's own."""
    with contextlib.closing(ros_harness.Harness()) as made:
        yield made


@pytest.fixture
def sensors(ros_harness: ModuleType, harness: Any) -> Any:
    """Messages of a small vehicle."""
    return ros_harness.Sensors(harness)
