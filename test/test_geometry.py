from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from airside_perception import geometry
from airside_perception.errors import TransformError
from airside_perception.types import Boxes3D, PointCloud

angles = st.floats(-3.1, 3.1)


def some_boxes(count=5, seed=0):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-30, 30, (count, 7))
    boxes[:, 3:6] = rng.uniform(0.5, 10, (count, 3))
    boxes[:, 6] = rng.uniform(-3, 3, count)
    root = rng.normal(size=(count, 4, 4))
    names = ('car',) * count
    return Boxes3D(5, 'lidar', boxes, np.full(count, 0.5), names, root @ root.transpose(0, 2, 1))


@given(angles, angles, angles, st.lists(st.floats(-100, 100), min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_invert_undoes_apply(roll, pitch, yaw, move):
    rotation = Rotation.from_euler('xyz', [roll, pitch, yaw]).as_matrix()
    a2b = geometry.transform(rotation, np.array(move))
    points = np.random.default_rng(0).normal(size=(7, 3)) * 20
    there = geometry.apply(a2b, points)
    assert_allclose(there, [rotation @ p + move for p in points], atol=1e-9)
    assert_allclose(geometry.apply(geometry.invert(a2b), there), points, atol=1e-9)


def test_quaternion_that_is_no_rotation():
    for bad in ((0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)):
        with pytest.raises(TransformError, match='not a rotation'):
            geometry.from_quaternion(*bad)


@given(st.floats(-1000, 1000))
def test_wrapped_angles_are_the_same_direction(angle):
    wrapped = float(geometry.wrap_angle(np.array(angle)))
    assert -np.pi <= wrapped < np.pi
    assert_allclose([np.cos(wrapped), np.sin(wrapped)], [np.cos(angle), np.sin(angle)], atol=1e-9)


def test_moved_boxes_have_moved_corners():
    boxes = some_boxes()
    a2b = geometry.transform(geometry.rotation_z(2.9), np.array([3.0, -4.0, 1.5]))
    moved = geometry.move_boxes(boxes, a2b, 'map', stamp_ns=9)
    assert (moved.frame_id, moved.stamp_ns) == ('map', 9)
    there = geometry.apply(a2b, geometry.corners(boxes.boxes).reshape(-1, 3)).reshape(-1, 8, 3)
    assert_allclose(geometry.corners(moved.boxes), there, atol=1e-9)


def test_moved_velocities_turn_and_keep_their_length():
    velocities = np.array([[3.0, 4.0], [np.nan, np.nan], [-1.0, 0.5]])
    boxes = replace(some_boxes(3), velocities=velocities)
    tilted = Rotation.from_euler('ZYX', [2.9, 0.3, -0.2]).as_matrix()
    for rotation in (geometry.rotation_z(2.9), tilted):
        a2b = geometry.transform(rotation, np.array([3.0, -4.0, 1.5]))
        moved = geometry.move_boxes(boxes, a2b, 'map')
        expected = [geometry.rotation_z(2.9)[:2, :2] @ v for v in boxes.velocities]
        assert_allclose(moved.velocities, expected, atol=1e-12)


def test_moved_covariance_is_that_of_moved_samples():
    boxes = some_boxes(1)
    rotation = Rotation.from_euler('zyx', [1.0, 0.1, -0.05]).as_matrix()
    a2b = geometry.transform(rotation, np.zeros(3))
    samples = np.random.default_rng(0).multivariate_normal(
        np.zeros(4), boxes.covariances[0], 200_000
    )
    samples[:, :3] = samples[:, :3] @ rotation.T
    moved = geometry.move_boxes(boxes, a2b, 'map')
    assert_allclose(moved.covariances[0], np.cov(samples.T), atol=0.08)


def test_corners_of_one_box_by_hand():
    box = np.array([[10.0, 5.0, 1.0, 4.0, 2.0, 3.0, np.pi / 2]])
    footprint = [[9, 7], [9, 3], [11, 3], [11, 7]]
    assert_allclose(geometry.bev_corners(box)[0], footprint, atol=1e-12)
    found = geometry.corners(box)[0]
    assert_allclose(found[:4, :2], footprint, atol=1e-12)
    assert_allclose(found[:, 2], [-0.5] * 4 + [2.5] * 4)


@pytest.mark.parametrize('count', [0, 1, 8192, 20_000])
@pytest.mark.parametrize('fields', [('x', 'y', 'z'), ('x', 'y', 'z', 'intensity')])
def test_moved_cloud_against_float64(count, fields):
    points = np.random.default_rng(2).uniform(-80, 80, (count, len(fields))).astype(np.float32)
    rotation = Rotation.from_euler('zyx', [2.0, 0.2, -0.1]).as_matrix()
    a2b = geometry.transform(rotation, np.array([1.0, -2.0, 1.9]))
    moved = geometry.move_cloud(PointCloud(3, 'lidar', points, fields, 9), a2b, 'base_link')
    assert (moved.stamp_ns, moved.frame_id, moved.received) == (3, 'base_link', 9)
    assert_allclose(moved.points[:, :3], geometry.apply(a2b, points[:, :3]), atol=5e-5)
    assert (moved.points[:, 3:] == points[:, 3:]).all()


def test_points_inside_boxes() -> None:
    boxes = np.array([[10.0, 0, 1, 4, 2, 2, np.pi / 2], [0.0, 0, 0, 2, 2, 2, 0]])
    points = np.array(
        [[10, 1.9, 1], [11.5, 0, 1], [10, 0, 2.1], [10.9, -1.9, 0.1], [0.9, 0.9, 0.9]], np.float32
    )
    assert geometry.points_inside(points, boxes).tolist() == [2, 1]
    assert geometry.points_inside(points[:0], boxes).tolist() == [0, 0]
    assert geometry.points_inside(points, boxes[:0]).tolist() == []
