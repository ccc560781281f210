from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from airside_perception.errors import MessageError
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud, by_score


def boxes3d(count=3, **changes):
    fields = {
        'stamp_ns': 1,
        'frame_id': 'base_link',
        'boxes': np.arange(count * 7.0).reshape(count, 7),
        'scores': np.linspace(0.1, 0.9, count),
        'classes': ('a', 'b', 'c')[:count],
        'covariances': np.tile(np.eye(4), (count, 1, 1)),
    }
    return Boxes3D(**{**fields, **changes})


def test_boxes_select_keeps_rows_together():
    velocities = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    boxes = boxes3d(
        ids=('x', 'y', 'z'), sources=(('lidar',), (), ('front',)), velocities=velocities
    )
    chosen = boxes.select([2, 0])
    assert chosen.classes == ('c', 'a')
    assert chosen.ids == ('z', 'x')
    assert chosen.sources == (('front',), ('lidar',))
    assert_array_equal(chosen.boxes, boxes.boxes[[2, 0]])
    assert_array_equal(chosen.velocities, [[3.0, 4.0], [1.0, 2.0]])
    assert len(boxes.select(boxes.scores > 0.4)) == 2


def test_boxes_are_read_only_and_do_not_freeze_the_callers_array():
    mine = np.zeros((3, 7))
    boxes = boxes3d(boxes=mine)
    with pytest.raises(ValueError, match='read-only'):
        boxes.boxes[0, 0] = 1
    mine[0, 0] = 1


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'boxes': np.zeros((3, 6))}, 'boxes has shape'),
        ({'scores': np.zeros(2)}, 'scores has shape'),
        ({'covariances': np.zeros((3, 3, 3))}, 'covariances has shape'),
        ({'ids': ('x',)}, '1 ids'),
        ({'velocities': np.zeros((2, 2))}, 'velocities has shape'),
        ({'sources': (('lidar',),)}, '1 sources'),
    ],
)
def test_arrays_of_different_length_are_refused(changes, said):
    with pytest.raises(MessageError, match=said):
        boxes3d(**changes)


def test_velocities_are_unknown_by_default():
    assert boxes3d().velocities.shape == (3, 2)
    assert np.isnan(boxes3d().velocities).all()


def test_empty_boxes():
    assert len(Boxes3D.empty(3, 'map')) == 0
    assert Boxes3D.empty(3, 'map').velocities.shape == (0, 2)
    none = Boxes2D(1, 'optical', np.array([]), np.array([]), ())
    assert none.xyxy.shape == (0, 4)


@pytest.mark.parametrize('data', [np.zeros((0, 4), np.uint8), np.zeros((2, 2)), np.zeros(3, 'u1')])
def test_image_needs_pixels(data):
    with pytest.raises(MessageError, match='image has dtype'):
        Image(1, 'optical', data)


def test_cloud_checks_columns():
    points = np.zeros((5, 4), np.float32)
    assert len(PointCloud(1, 'lidar', points)) == 5
    assert PointCloud(1, 'lidar', points).received == 5
    with pytest.raises(MessageError, match='expected float32'):
        PointCloud(1, 'lidar', points.astype(np.float64))
    with pytest.raises(MessageError, match='expected float32'):
        PointCloud(1, 'lidar', points, ('x', 'y', 'z'))
    with pytest.raises(MessageError, match='expected x, y, z'):
        PointCloud(1, 'lidar', points, ('x', 'y', 'i', 'z'))


def test_sorting_by_score_is_stable():
    assert_array_equal(by_score([0.1, 0.9, 0.1, 0.9]), [1, 3, 0, 2])
