from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.sim import film
from airside_perception.sim.weather import drops, streaks


def flat(level: float) -> np.ndarray:
    return np.full((64, 96, 3), level, np.float32)


@pytest.mark.parametrize('level', [0.5, 0.02, 0.004])
def test_exposure_brings_the_mean_to_grey_and_bright_days_stay(level):
    exposure = film.metered(flat(level))
    assert_allclose(exposure.gain, max(1.0, film.GREY / level), rtol=1e-5)
    assert film.SHUTTER <= exposure.shutter <= film.LONGEST
    assert_allclose(exposure.gain * film.SHUTTER, exposure.amplified * exposure.shutter)


def test_a_lamp_in_the_picture_hardly_darkens_the_rest():
    picture = flat(0.01)
    before = film.metered(picture).gain
    picture[:16, :24] = 50.0
    assert film.metered(picture).gain > 0.6 * before
    assert film.metered(flat(0.0)).gain == film.MOST


def test_noise_is_that_asked_for_and_gamma_is_2():
    rng = np.random.default_rng(0)
    image = film.developed(flat(0.25), 1.0, 5.0, rng).astype(float)
    assert_allclose(image.mean(), 0.5 * 255, atol=0.5)
    assert_allclose(image.std(), 5.0, rtol=0.05)
    assert film.developed(flat(0.1), 2.5, 0.0, rng).mean() == pytest.approx(0.5 * 255, abs=0.6)


@pytest.mark.parametrize('way', [(8.0, 0.0), (0.0, 6.0), (6.0, -8.0)])
def test_a_point_becomes_a_streak_along_its_motion(way):
    picture = flat(0.0)
    picture[30:33, 47:50] = 1.0
    shutter = 0.01
    flow = np.broadcast_to(np.array(way, np.float32) / shutter, (16, 24, 2)).copy()
    blurred = film.smeared(picture, flow, shutter)[..., 0]
    assert_allclose(blurred.sum(), 9.0, rtol=0.02)  # light is kept
    y, x = np.mgrid[:64, :96]
    weights = blurred / blurred.sum()
    middle = np.array([(x * weights).sum(), (y * weights).sum()])
    assert_allclose(middle, [48, 31], atol=0.05)
    spread = np.array([x - middle[0], y - middle[1]]).reshape(2, -1)
    covariance = (spread * weights.ravel()) @ spread.T
    values, axes = np.linalg.eigh(covariance)
    direction = np.array(way) / np.hypot(*way)
    assert abs(axes[:, 1] @ direction) > 0.99
    # Samples at -1/2, -1/4, 0, 1/4, 1/2 of the way have a variance of an eighth of its square.
    assert_allclose(values[1], np.hypot(*way) ** 2 / 8 + 2 / 3, rtol=0.05)


def test_what_hardly_moves_is_not_blurred():
    picture = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)
    flow = np.full((16, 24, 2), 50.0, np.float32)
    assert film.smeared(picture, flow, 0.01) is picture


def test_rain_falls_in_streaks_and_more_of_them_the_more_it_rains():
    changed = []
    for rate in (4.0, 40.0):
        picture = np.full((192, 320, 4), 0.1, np.float32)
        picture[:60] = 0.6
        before = picture.copy()
        streaks(picture, 165.0, rate, 0.008, np.zeros(2), np.random.default_rng(1))
        difference = np.abs(picture - before)[60:, :, 0]
        changed.append((difference > 1e-3).mean())
        upright = np.abs(np.diff(difference, axis=1)).sum()
        assert upright > 1.3 * np.abs(np.diff(difference, axis=0)).sum()
    assert 0 < 2 * changed[0] < changed[1] < 0.8


def test_drops_on_the_lens_stay_where_they_are():
    scene = np.zeros((96, 160, 3), np.uint8)
    cv2.randu(scene, 0, 255)
    pictures = []
    for offset in (0, 30):
        image = np.clip(scene.astype(int) + offset, 0, 255).astype(np.uint8)
        wet = image.copy()
        drops(wet, 20.0, np.random.default_rng(5))
        pictures.append((wet != image).any(axis=2))
    assert 0.005 < pictures[0].mean() < 0.5
    assert (pictures[0] == pictures[1]).mean() > 0.98
    again = scene.copy()
    drops(again, 20.0, np.random.default_rng(5))
    assert_array_equal((again != scene).any(axis=2), pictures[0])
