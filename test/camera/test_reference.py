"""A trained network against the detections of an independent decoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig
from airside_perception.deploy.resize import resize_network
from airside_perception.engine import open_engine
from airside_perception.types import Image


@pytest.fixture(params=['416x416', '384x1248'])
def reference(
    request: pytest.FixtureRequest, shared_data: Path, repository: Path, tmp_path: Path
) -> Iterator[tuple[CameraDetector, list[str], dict[str, list[dict[str, object]]]]]:
    """The detector for one input size, the names of its labels, and what it should find."""
    folder = shared_data / 'yolox_nano'
    card = repository / 'config' / 'cards' / 'yolox_nano_coco.yaml'
    height, width = map(int, request.param.split('x'))
    network = tmp_path / 'yolox.onnx'
    resize_network(folder / 'yolox_nano.onnx', network, height, width, str(card))
    names = (folder / 'coco_classes.txt').read_text(encoding='utf-8').split('\n')
    everything = replace(load_card(network.with_suffix('.yaml')), publish={}, thresholds={})
    assert isinstance(everything, CameraCard)
    expected = json.loads((folder / 'expected.json').read_text(encoding='utf-8'))
    config = CameraConfig(
        score_threshold=expected['settings']['score'],
        nms_iou=expected['settings']['iou'],
        nms_iou_across=1.0,
    )
    with open_engine(network, threads=2) as engine:
        detector = CameraDetector(engine, everything, config)
        yield detector, names, expected[request.param]


def test_detects_what_an_independent_decoder_detects(
    reference: tuple[CameraDetector, list[str], dict[str, list[dict[str, object]]]],
    shared_data: Path,
) -> None:
    """Same number of boxes; each within 2 pixels and 0.01 of its partner of the same class."""
    detector, names, images = reference
    compared = 0
    for name, rows in images.items():
        pixels = cv2.imread(str(shared_data / name))
        height, width = pixels.shape[:2]
        found = detector.detect(Image(0, 'camera', pixels))
        assert len(found) == len(rows), name
        left = set(range(len(found)))
        for row in rows:
            box = np.clip(row['box'], 0, [width, height, width, height])
            label = detector.card.classes[names.index(str(row['class']))]
            near = [
                i
                for i in left
                if found.classes[i] == label
                and np.abs(found.xyxy[i] - box).max() <= 2.0
                and abs(found.scores[i] - float(str(row['score']))) <= 0.01
            ]
            assert near, f'{name}: {row} has no partner'
            left.remove(near[0])
            compared += 1
    assert compared > 80
