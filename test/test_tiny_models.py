"""The tiny networks answer as their description says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, find_card
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.types import Image


@pytest.mark.parametrize('half', [False, True])
def test_the_camera_network_finds_bright_cells(
    tmp_path: Path, tiny_models: ModuleType, half: bool
) -> None:
    network = tiny_models.tiny_camera_model(tmp_path, half=half)
    card = find_card(network)
    assert isinstance(card, CameraCard)
    detector = CameraDetector(open_engine(network, threads=1), card, CameraConfig())
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, 32:64] = 204
    pixels[32:, 64:] = 102
    found = detector.detect(Image(0, 'camera', pixels))
    assert found.classes == ('car', 'car')
    np.testing.assert_allclose(found.scores, [0.8, 0.4], atol=2e-3 if half else 1e-5)
    np.testing.assert_allclose(
        found.xyxy, [[32, 0, 64, 32], [64, 32, 96, 64]], atol=0.1 if half else 1e-4
    )
