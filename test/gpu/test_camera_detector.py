"""The camera detector with TensorRT engines against the one with ONNX Runtime.

The engines come from `python test/gpu/plans.py FOLDER`; AIRSIDE_TEST_PLANS names the folder. What
needs no TensorRT is tested in test/camera/test_gpu_detector.py, on the GPU too.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_picture import near_all, picture

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.gpu import CudaCameraDetector
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.engine import open_engine
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.errors import EngineError

SCORE = 0.05
NAMES = ['camera_fp32', 'camera_fp16', 'camera_hwc8']


@pytest.fixture
def network(repository: Path) -> Path:
    return repository / 'models' / 'apron_yolox.onnx'


@pytest.fixture
def card(network: Path) -> CameraCard:
    card = load_card(network.with_suffix('.yaml'))
    assert isinstance(card, CameraCard)
    return replace(card, thresholds={})


def open_detector(resources: ExitStack, name: str, card: CameraCard) -> CudaCameraDetector:
    folder = os.environ.get('AIRSIDE_TEST_PLANS', '')
    path = Path(folder, f'{name}.engine')
    if not folder or not path.is_file():
        pytest.skip(f'AIRSIDE_TEST_PLANS names no folder with {path.name} (test/gpu/plans.py)')
    try:
        engine = open_engine(path, allow_host_code=True)
    except EngineError as error:
        pytest.skip(str(error))
    assert isinstance(engine, TensorRTEngine)
    resources.enter_context(engine)
    detector = CudaCameraDetector(engine, card, CameraConfig(score_threshold=SCORE))
    resources.callback(detector.close)
    return detector


@pytest.mark.parametrize('name', NAMES)
def test_boxes_are_those_of_the_cpu(
    resources: ExitStack, card: CameraCard, network: Path, name: str
) -> None:
    detector = open_detector(resources, name, card)
    on_cpu = CameraDetector(open_engine(network), card, detector.config)
    assert detector.no_graph == ''
    pixels = 0.1 if name == 'camera_fp32' else 4.0
    for image in (picture(360, 640), picture(375, 1242), picture(720, 1280)):
        expected = on_cpu.detect(image)
        found = detector.detect(image)
        assert len(expected) >= 3
        near_all(found, expected, SCORE, pixels, 0.02)
        for _ in range(3):
            again = detector.detect(image)
            assert again.xyxy.tobytes() == found.xyxy.tobytes()
            assert again.scores.tobytes() == found.scores.tobytes()


@pytest.mark.parametrize('name', NAMES)
def test_one_launch(resources: ExitStack, card: CameraCard, name: str) -> None:
    detector = open_detector(resources, name, card)
    image = picture(720, 1280)
    detector.detect(image)
    assert detector.launches > 7  # ours and those of the engine
    assert detector.nodes >= detector.launches + 2
    times = detector.profile(image, 5)
    assert min(times.values()) >= 0
    assert times['engine'] > 0


def test_eight_cameras_overlap_and_give_what_one_gives(
    resources: ExitStack, card: CameraCard
) -> None:
    images = [picture(360 + i, 640) for i in range(8)]
    detectors = [open_detector(resources, 'camera_fp16', card) for _ in range(8)]
    alone = [detectors[0].detect(image) for image in images]
    for _ in range(5):
        for detector, image in zip(detectors, images, strict=True):
            detector.submit(image)
        for detector, expected in zip(detectors, alone, strict=True):
            boxes = detector.collect()
            assert boxes.classes == expected.classes
            np.testing.assert_array_equal(boxes.xyxy, expected.xyxy)
