"""The whole detector on networks of a few bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, load_card
from airside_perception.config import CameraConfig, from_values
from airside_perception.engine import open_engine
from airside_perception.errors import EngineError, MessageError, TransformError
from airside_perception.geometry import transform
from airside_perception.projection import CameraModel
from airside_perception.types import Image

Cards, Networks = Callable[..., CameraCard], Callable[..., Path]
IMAGE = Image(12, 'camera_optical', np.zeros((128, 192, 3), np.uint8))
"""Twice the size of the tiny card's input."""
PERSON, CAT, CAR, TRAIN = range(5, 9)


def cell(x: int, y: int) -> int:
    """Row of the output whose box of zeros is 8 x 8 pixels around (8 x, 8 y) of the input."""
    return y * 12 + x


def see(
    cells: np.ndarray, row: int, label: int, score: float, width: float = 8, height: float = 8
) -> None:
    cells[row, 2:4] = np.log(width / 8), np.log(height / 8)
    cells[row, 4], cells[row, label] = 1.0, score


@pytest.fixture
def detector(make_card: Cards, make_network: Networks, cells: np.ndarray) -> CameraDetector:
    """Sees a car, the same car less sure, a person in front of it, a far truck; and a cat."""
    see(cells, cell(4, 4), CAR, 0.75, 24, 16)
    see(cells, cell(5, 4), CAR, 0.5, 24, 16)
    see(cells, cell(4, 5), PERSON, 0.875, 4, 10)
    see(cells, cell(9, 4), TRAIN, 0.375, 8, 2)
    see(cells, cell(2, 2), CAT, 0.9, 16, 16)
    card = make_card()
    return CameraDetector(open_engine(make_network(card, cells)), card, CameraConfig(nms_iou=0.4))


def test_boxes_are_in_pixels_of_the_image_best_first(detector: CameraDetector) -> None:
    boxes = detector.detect(IMAGE)
    assert boxes.classes == ('person', 'car', 'truck')
    assert boxes.scores.tolist() == [0.875, 0.75, 0.375]
    expected = [[60, 70, 68, 90], [40, 48, 88, 80], [136, 62, 152, 66]]
    np.testing.assert_allclose(boxes.xyxy, expected, atol=1e-4)
    assert (boxes.stamp_ns, boxes.frame_id) == (12, 'camera_optical')


def test_suppression_is_within_a_class_and_live(detector: CameraDetector) -> None:
    detector.config = replace(detector.config, nms_iou=0.6)
    assert detector.detect(IMAGE).classes == ('person', 'car', 'car', 'truck')
    detector.config = replace(detector.config, max_detections=2)
    assert detector.detect(IMAGE).classes == ('person', 'car')
    detector.config = replace(detector.config, max_candidates=1)
    assert detector.detect(IMAGE).classes == ('person',)


def test_one_object_called_by_two_classes_is_one_detection(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    see(cells, cell(4, 4), CAR, 0.75, 24, 16)
    see(cells, cell(5, 4), TRAIN, 0.5, 25, 16)
    see(cells, cell(9, 4), PERSON, 0.6, 4, 10)
    card = make_card()
    detector = CameraDetector(open_engine(make_network(card, cells)), card, CameraConfig())
    detector.config = replace(detector.config, nms_iou=0.3, nms_iou_across=0.35)
    assert detector.detect(IMAGE).classes == ('car', 'person')
    detector.config = replace(detector.config, nms_iou_across=1.0)
    assert detector.detect(IMAGE).classes == ('car', 'person', 'truck')


def test_classes_that_are_published_under_one_name_suppress_each_other(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    see(cells, cell(4, 4), CAR, 0.75, 24, 16)
    see(cells, cell(5, 4), TRAIN, 0.5, 24, 16)
    card = make_card(publish={'car': 'truck', 'train': 'truck'})
    detector = CameraDetector(
        open_engine(make_network(card, cells)), card, CameraConfig(nms_iou=0.4)
    )
    assert detector.detect(IMAGE).classes == ('truck',)


def test_the_higher_threshold_counts(detector: CameraDetector) -> None:
    defaults = {'score_thresholds': {'person': 0.3, 'car': 0.8}}
    detector.config = from_values(CameraConfig, {'score_threshold': 0.3}, defaults)
    assert detector.detect(IMAGE).classes == ('person', 'truck')
    detector.config = replace(detector.config, score_threshold=0.5)
    assert detector.detect(IMAGE).classes == ('person',)
    detector.config = replace(
        detector.config, score_threshold=0.1, score_thresholds={'truck': 0.4}
    )
    assert detector.detect(IMAGE).classes == ('person', 'car')


def test_the_card_has_the_default_thresholds(detector: CameraDetector) -> None:
    detector.card = replace(detector.card, thresholds={'car': 0.8})
    assert detector.detect(IMAGE).classes == ('person', 'truck')


def test_boxes_are_cut_off_at_the_image(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    see(cells, cell(0, 0), CAR, 0.9, 16, 16)
    see(cells, cell(11, 4), CAR, 0.8, 32, 8)
    see(cells, cell(6, 7), PERSON, 0.7, 8, 8)  # wholly in the border below the image
    card = make_card()
    detector = CameraDetector(open_engine(make_network(card, cells)), card, CameraConfig())
    boxes = detector.detect(Image(0, 'camera', np.zeros((96, 192, 3), np.uint8)))
    np.testing.assert_allclose(boxes.xyxy, [[0, 0, 16, 16], [144, 56, 192, 72]], atol=1e-4)


def test_nothing_seen_is_an_empty_answer(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    card = make_card()
    detector = CameraDetector(open_engine(make_network(card, cells)), card, CameraConfig())
    boxes = detector.detect(IMAGE)
    assert len(boxes) == 0
    assert boxes.xyxy.shape == (0, 4)


def test_what_is_lifted_what_is_not_and_how_long_it_takes(detector: CameraDetector) -> None:
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    camera = CameraModel('camera', 192, 128, [[100, 0, 96], [0, 100, 67], [0, 0, 1]])
    boxes = detector.detect(IMAGE)
    assert detector.timings.keys() == {'preprocess', 'engine', 'decode', 'nms'}
    lifted = detector.lift(boxes, camera, transform(optical, np.array([0.0, 0.0, 2.0])))
    assert lifted.classes == ('person', 'car')  # the truck ends above the horizon
    assert (detector.not_lifted, detector.in_sky) == (1, 0)
    assert detector.tilt == pytest.approx(np.pi / 2)
    assert detector.timings.keys() == {'preprocess', 'engine', 'decode', 'nms', 'lift'}
    assert min(detector.timings.values()) > 0
    with pytest.raises(TransformError, match=r'is 0\.00 m above'):
        detector.lift(boxes, camera, np.eye(4))


def test_half_precision_network(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    see(cells, cell(4, 4), CAR, 0.75)
    card = make_card()
    network = make_network(card, cells, TensorProto.FLOAT16)
    boxes = CameraDetector(open_engine(network), card, CameraConfig()).detect(IMAGE)
    np.testing.assert_allclose(boxes.xyxy, [[56, 56, 72, 72]])


def test_an_engine_that_is_not_the_one_of_the_card_is_refused(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    card = make_card()
    engine = open_engine(make_network(card, cells))
    for change, message in (
        ({'input_name': 'pixels'}, "no input 'pixels'; it has images: float32"),
        ({'output_name': 'rows'}, "no output 'rows'"),
        ({'height': 128}, r'input images: float32 \[1, 3, 64, 96\] contradicts its model card'),
        ({'classes': ('person', 'car', 'train')}, r'output .* contradicts .* \[1, 120, 8\]'),
        ({'strides': (8, 16, 32)}, r'contradicts .* \[1, 126, 9\]'),
    ):
        with pytest.raises(EngineError, match=message):
            CameraDetector(engine, replace(card, **change), CameraConfig())
    engine = open_engine(make_network(card, cells, TensorProto.DOUBLE))
    with pytest.raises(EngineError, match='takes float32 or float16'):
        CameraDetector(engine, card, CameraConfig())


def test_closing_ends_nothing(detector: CameraDetector) -> None:
    detector.close()
    detector.close()
    assert len(detector.detect(IMAGE)) == 3  # the engine is its owner's


def test_a_network_that_returns_no_numbers_is_an_error(
    make_card: Cards, make_network: Networks, cells: np.ndarray
) -> None:
    cells[:, 4] = np.nan
    card = make_card()
    detector = CameraDetector(open_engine(make_network(card, cells)), card, CameraConfig())
    with pytest.raises(EngineError, match='not finite'):
        detector.detect(IMAGE)


def test_an_image_that_cannot_be_read_is_an_error(detector: CameraDetector) -> None:
    with pytest.raises(MessageError, match="'16UC1' is not known"):
        detector.detect(replace(IMAGE, encoding='16UC1'))
    assert len(detector.detect(IMAGE)) == 3


def test_the_card_of_yolox_nano(repository: Path) -> None:
    card = load_card(repository / 'config' / 'cards' / 'yolox_nano_coco.yaml')
    assert isinstance(card, CameraCard)
    assert len(card.classes) == 80
    assert card.published == ('person', 'cyclist', 'car', 'aircraft', 'bus', 'truck')
    assert set(card.sizes) == set(card.thresholds) == set(card.published)
    assert all(length >= width for length, width, _ in card.sizes.values())
