"""Pictures: what is drawn where. That they look right was judged by eye."""

from __future__ import annotations

import numpy as np
import pytest

from airside_perception.projection import CameraModel
from airside_perception.replay.pictures import (
    EVIDENCE,
    TRUTH,
    ZOOM,
    bird_view,
    camera_overlay,
    evidence,
)
from airside_perception.types import Boxes2D, Boxes3D

LENS = CameraModel(
    'optical', 320, 200, np.array([[200.0, 0, 160], [0, 200, 100], [0, 0, 1]]), (), 'plumb_bob'
)
BASE2CAMERA = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]])


def boxes(rows, sources):
    count = len(rows)
    return Boxes3D(
        1, 'base_link', np.array(rows), np.full(count, 0.5), ('car',) * count,
        np.zeros((count, 4, 4)), sources=sources,
    )  # fmt: skip


def has(picture, color, x, y, reach=3):
    part = picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    return (np.abs(part.astype(int) - color).max(axis=-1) < 40).any()


def test_evidence():
    assert evidence(('lidar', 'front')) == 'lidar and camera'
    assert evidence(('lidar',)) == 'lidar'
    assert evidence(('left', 'front')) == 'camera'
    assert evidence(()) == 'lidar'


def test_bird_view_has_x_up_and_y_left():
    found = boxes([[20.0, 10, 1, 4, 2, 2, 0]], (('lidar', 'front'),))
    truth = boxes([[-20.0, -10, 1, 4, 2, 2, 0]], ((),))
    points = np.array([[30.0, -30, 4, 0], [500, 0, 0, 0]], np.float32)
    picture = bird_view(points, found, truth, ahead=50.0, size=500)
    assert picture.shape == (500, 500, 3)
    # 5 px a metre: the front edge of the box is at x = 22 m, up; its left edge at y = 11 m
    assert has(picture, EVIDENCE['lidar and camera'], 250 - 50, 250 - 110)
    assert has(picture, EVIDENCE['lidar and camera'], 250 - 55, 250 - 100)
    assert not has(picture, EVIDENCE['lidar and camera'], 250 + 55, 250 - 100)
    assert has(picture, TRUTH, 250 + 55, 250 + 100)
    assert picture[250 - 150, 250 + 150].max() > 100


def test_labels_of_boxes_outside_the_picture_darken_nothing():
    points = np.array([[-20.0, 0, 4, 0]], np.float32)
    inside = bird_view(points, boxes([], ()), ahead=50.0, size=500)
    row = [70.0, 0, 1, 4, 2, 2, 0]  # 20 m above the upper border
    outside = bird_view(points, boxes([row], (('lidar',),)), ahead=50.0, size=500)
    assert (inside == outside).all()


def test_overlay_draws_boxes_where_the_lens_sees_them():
    image = np.zeros((200, 320, 3), np.uint8)
    found = boxes([[10.0, 0, 0.5, 2, 2, 1, 0]], (('lidar',),))
    picture = camera_overlay(image, LENS, BASE2CAMERA, found)
    assert picture.shape == (400, 640, 3)
    # the near bottom edge: 9 m ahead, 1.5 m below the camera, 1 m to each side
    x, y = 160 + 200 / 9, 100 + 200 * 1.5 / 9
    assert has(picture, EVIDENCE['lidar'], round(x * ZOOM), round(y * ZOOM))


@pytest.mark.parametrize('x', [0.0, -10.0])
def test_overlay_of_a_box_around_or_behind_the_camera(x):
    image = np.zeros((200, 320, 3), np.uint8)
    found = boxes([[x, 0.0, 1.0, 6, 4, 2, 0.3]], (('lidar',),))
    picture = camera_overlay(image, LENS, BASE2CAMERA, found)
    assert picture.any() == (x == 0.0)


def test_overlay_draws_image_boxes():
    image = np.zeros((200, 320, 3), np.uint8)
    flat = Boxes2D(1, 'optical', np.array([[50.0, 60, 90, 120]]), np.array([0.5]), ('car',))
    picture = camera_overlay(image, LENS, BASE2CAMERA, boxes([], ()), flat)
    assert has(picture, (255, 255, 255), round(50 * ZOOM), round(90 * ZOOM))
    assert not has(picture, (255, 255, 255), round(70 * ZOOM), round(90 * ZOOM))
