"""Fixtures of the node tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope='session')
def networks(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny_camera.onnx, tiny_lidar.onnx, tiny_velocity.onnx and their cards."""
    folder = tmp_path_factory.mktemp('networks')
    tiny_models.tiny_camera_model(folder)
    tiny_models.tiny_lidar_model(folder)
    tiny_models.tiny_velocity_model(folder)
    return folder


@pytest.fixture(autouse=True)
def frequent_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times a second instead of once, so that tests need not wait for them."""
    from airside_perception.nodes import diagnostics

    monkeypatch.setattr(diagnostics, 'PERIOD_S', 0.1)


@pytest.fixture
def harness(ros_harness: ModuleType) -> Iterator[Any]:
    """A node of the test's own and an executor for the nodes under test."""
    with contextlib.closing(ros_harness.Harness()) as made:
        yield made


@pytest.fixture
def sensors(ros_harness: ModuleType, harness: Any) -> Any:
    """Messages of a small vehicle."""
    return ros_harness.Sensors(harness)
