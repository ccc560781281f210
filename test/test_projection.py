"""Lens models against OpenCV, and against themselves backwards."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airside_perception.errors import MessageError
from airside_perception.geometry import from_quaternion, rotation_z
from airside_perception.projection import CameraModel

K = np.array([[700.0, 0.0, 655.5], [0.0, 710.0, 350.25], [0.0, 0.0, 1.0]])
LENSES = {
    'pinhole': ('plumb_bob', ()),
    'barrel': ('plumb_bob', (-0.28, 0.07, 0.0012, -0.0009)),
    'pincushion': ('plumb_bob', (0.15, -0.02, -0.001, 0.002, 0.004)),
    'rational': ('rational_polynomial', (0.5, 0.2, 0.0005, -0.0003, 0.02, 0.8, 0.3, 0.05)),
    'fisheye': ('equidistant', (0.03, -0.01, 0.002, -0.0005)),
    'fisheye, plain': ('equidistant', (0.0, 0.0, 0.0, 0.0)),
}


def camera(lens: str) -> CameraModel:
    model, distortion = LENSES[lens]
    return CameraModel('camera', 1280, 720, K, distortion, model)


def points_in_view(seed: int = 1, count: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 100.0, count)
    return np.stack(
        [rng.uniform(-0.9, 0.9, count) * depth, rng.uniform(-0.5, 0.5, count) * depth, depth], 1
    )


@pytest.mark.parametrize('lens', LENSES)
def test_projects_as_opencv(lens: str) -> None:
    model, points = camera(lens), points_in_view()
    zero = np.zeros(3)
    if model.model == 'equidistant':
        coefficients = np.array(model.distortion)
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, coefficients)
    else:
        coefficients = np.array(model.distortion) if model.distortion else np.zeros(4)
        expected, _ = cv2.projectPoints(points, zero, zero, K, coefficients)
    pixels, valid = model.project(points)
    assert valid.all()
    np.testing.assert_allclose(pixels, expected.reshape(-1, 2), atol=1e-6)


@pytest.mark.parametrize('lens', LENSES)
def test_rays_lead_back_to_the_points(lens: str) -> None:
    points = points_in_view()
    pixels, _ = camera(lens).project(points)
    rays = camera(lens).rays(pixels)
    np.testing.assert_allclose(rays, points / points[:, 2:], atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    k=st.tuples(
        st.floats(-0.4, 0.4), st.floats(-0.1, 0.1), st.floats(-0.005, 0.005),
        st.floats(-0.005, 0.005), st.floats(-0.05, 0.05), st.floats(-0.3, 0.3),
        st.floats(-0.1, 0.1), st.floats(-0.02, 0.02),
    ),
    kind=st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant']),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_ray_meets_its_pixel(k: tuple[float, ...], kind: str, seed: int) -> None:
    count = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}[kind]
    model = CameraModel('camera', 1280, 720, K, k[:count], kind)
    pixels = np.random.default_rng(seed).uniform([0, 0], [1280, 720], (50, 2))
    rays = model.rays(pixels)
    seen = np.isfinite(rays).all(axis=1)
    assert np.isnan(rays[~seen, :2]).all()
    assume(seen.any())
    again, valid = model.project(rays[seen])
    assert valid.all()
    assert np.abs(again - pixels[seen]).max() < 1e-6


def test_the_middle_of_every_image_has_a_ray() -> None:
    for lens in LENSES:
        around = K[:2, 2] + np.array([[0, 0], [1e-5, 0], [0, 0.05], [100, 0], [-80, 60]])
        rays = camera(lens).rays(around)
        assert np.isfinite(rays).all()
        np.testing.assert_allclose(camera(lens).project(rays)[0], around, atol=1e-6)


def test_points_behind_the_camera_are_not_valid() -> None:
    points = [[0, 0, 5], [0, 0, -5], [1, 1, 0], [0, 0, np.nan]]
    for lens in LENSES:
        pixels, valid = camera(lens).project(points)
        assert valid.tolist() == [True, False, False, False]
        assert np.isnan(pixels[1:]).all()


def test_a_point_where_the_lens_folds_back_is_not_valid() -> None:
    """With k1 = -0.3 the distorted radius r - 0.3 r^3 is largest, 0.70, at r = sqrt(1 / 0.9)."""
    model = CameraModel('camera', 1280, 720, K, (-0.3, 0, 0, 0))
    edge = np.sqrt(1 / 0.9)
    pixels, valid = model.project([[edge - 1e-3, 0, 1], [edge + 1e-3, 0, 1], [3, 0, 1]])
    assert valid.tolist() == [True, False, False]
    reach = K[0, 0] * (edge - 0.3 * edge**3)
    assert pixels[0, 0] == pytest.approx(K[0, 2] + reach, abs=0.01)
    rays = model.rays([[K[0, 2] + reach - 1.0, K[1, 2]], [K[0, 2] + reach + 1.0, K[1, 2]]])
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1, :2]).all()


def test_a_pole_of_the_rational_model_ends_what_is_valid() -> None:
    """1 - r^2 / 4 in the denominator is 0 at r = 2."""
    model = CameraModel(
        'camera', 1280, 720, K, (0, 0, 0, 0, 0, -0.25, 0, 0), 'rational_polynomial'
    )
    assert model.project([[1.9, 0, 1], [2.1, 0, 1]])[1].tolist() == [True, False]


def test_tangential_distortion_that_folds_is_not_valid() -> None:
    """With p1 alone, v = y + 3 p1 y^2 on the vertical axis turns at y = -1 / (6 p1)."""
    model = CameraModel('camera', 1280, 720, K, (0, 0, 0.2, 0))
    assert model.project([[0, -0.8, 1], [0, -0.9, 1]])[1].tolist() == [True, False]


def test_a_fisheye_sees_up_to_where_its_angle_turns() -> None:
    """theta + k1 theta^3 with k1 = -0.2 turns at theta = sqrt(1 / 0.6), 74 degrees."""
    model = CameraModel('camera', 1280, 720, K, (-0.2, 0, 0, 0), 'equidistant')
    angles = np.deg2rad([70.0, 73.0, 75.0, 85.0])
    points = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=1)
    assert model.project(points)[1].tolist() == [True, True, False, False]


def test_skew_goes_both_ways() -> None:
    skewed = K + np.array([[0, 30.0, 0], [0, 0, 0], [0, 0, 0]])
    model = CameraModel('camera', 1280, 720, skewed)
    pixels, _ = model.project([[0.2, 0.1, 1.0]])
    np.testing.assert_allclose(pixels, [[700 * 0.2 + 30 * 0.1 + 655.5, 710 * 0.1 + 350.25]])
    np.testing.assert_allclose(model.rays(pixels), [[0.2, 0.1, 1.0]])


def test_a_rectified_image_is_turned() -> None:
    turn = rotation_z(0.01) @ from_quaternion(0.02, -0.03, 0.0, 1.0)
    lens = CameraModel('camera', 1280, 720, K)
    model = replace(lens, rotation=turn)
    points = np.random.default_rng(0).uniform([-3, -2, 2], [3, 2, 40], (50, 3))
    pixels, valid = model.project(points)
    np.testing.assert_allclose(pixels, lens.project(points @ turn.T)[0])
    assert valid.all()
    rays = model.rays(pixels)
    np.testing.assert_allclose(rays, points / points[:, 2:], atol=1e-9)
    back = turn.T @ [0.0, 0.0, -1.0]
    assert model.project([back])[1].tolist() == [False]
    aside = replace(lens, rotation=from_quaternion(0.0, np.sin(0.7), 0.0, np.cos(0.7)))
    rays = aside.rays([[0.0, 350.0], [1279.0, 350.0]])  # 1.4 rad: one of them leads backwards
    assert np.isfinite(rays).all(axis=1).sum() == 1


def test_nothing_in_nothing_out() -> None:
    for lens in LENSES:
        assert camera(lens).rays(np.empty((0, 2))).shape == (0, 3)
        pixels, valid = camera(lens).project(np.empty((0, 3)))
        assert (pixels.shape, valid.shape) == ((0, 2), (0,))


def test_the_matrix_cannot_change_afterwards() -> None:
    model = camera('pinhole')
    with pytest.raises(ValueError, match='read-only'):
        model.matrix[0, 0] = 0.0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'matrix': np.zeros((3, 3))}, 'fx = 0, fy = 0: not calibrated'),
        ({'matrix': np.diag([700.0, -1.0, 1.0])}, 'fy = -1'),
        ({'matrix': np.full((3, 3), np.nan)}, 'expected 3 x 3 numbers'),
        ({'matrix': np.eye(4)}, 'expected 3 x 3 numbers'),
        ({'matrix': K.T}, 'not upper triangular'),
        ({'rotation': np.zeros((3, 3))}, r'R is \[\[0.*, not a rotation'),
        ({'rotation': np.diag([1.0, 1.0, -1.0])}, 'not a rotation'),
        ({'rotation': np.eye(2)}, 'not a rotation'),
        ({'rotation': np.full((3, 3), np.nan)}, 'not a rotation'),
        ({'width': 0}, 'image is 0 x 720'),
        ({'model': 'thin_prism'}, "'thin_prism' is not one of plumb_bob"),
        ({'distortion': (0.1,)}, '1 distortion coefficients; plumb_bob has 0 or 4 or 5'),
        ({'distortion': (0.1, 0.2), 'model': 'equidistant'}, '2 .* equidistant has 4'),
        ({'distortion': (0.1, np.inf, 0, 0)}, 'not finite'),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(
    change: dict[str, object], message: str
) -> None:
    good = {'frame_id': 'camera', 'width': 1280, 'height': 720, 'matrix': K}
    with pytest.raises(MessageError, match=message):
        CameraModel(**{**good, **change})
