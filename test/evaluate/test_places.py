"""Deviations of places: fitted to errors that were drawn with known ones."""

from __future__ import annotations

import numpy as np
import pytest

from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.matching import centre_nearness, match
from airside_perception.evaluate.places import ANY_YAW, LEAST, deviations


def frames_with(along, across, yaw, growth, count=4000):
    """Cars in frames of their own, found with normal errors."""
    rng = np.random.default_rng(7)
    frames = []
    for _ in range(count):
        x, y = rng.uniform(-50, 50, 2)
        heading = rng.uniform(-np.pi, np.pi)
        c, s = np.cos(heading), np.sin(heading)
        grown = growth * np.hypot(x, y)
        a, b = rng.normal(0, along + grown), rng.normal(0, across + grown)
        turned = heading + rng.normal(0, yaw)
        box = np.array([x, y, 1, 4, 2, 1.5, heading])
        seen = np.array([x + c * a - s * b, y + s * a + c * b, 1, 4, 2, 1.5, turned])
        frames.append(
            Frame(Truth(('car',), box[None]), Found(('car',), seen[None], np.array([0.9])))
        )
    return frames


def fitted(frames, growth):
    return deviations(frames, match(frames, 'car', centre_nearness, -4.0), growth)


def test_what_was_drawn_is_found_again():
    got = fitted(frames_with(0.6, 0.15, 0.05, 0.005), 0.005)
    assert got.along == pytest.approx(0.6, rel=0.05)
    assert got.across == pytest.approx(0.15, rel=0.1)
    assert got.yaw == pytest.approx(0.05, rel=0.1)


def test_errors_of_any_kind_have_one_as_their_normalised_mean_square():
    """Gross ones count: a filter that was told less would believe them."""
    frames = frames_with(0.1, 0.1, 0.05, 0.0, count=400)
    for frame in frames[::10]:
        c, s = np.cos(frame.found.boxes[0, 6]), np.sin(frame.found.boxes[0, 6])
        frame.found.boxes[0, :2] = frame.truth.boxes[0, :2] + 2.0 * np.array([c, s])
    got = fitted(frames, 0.0)
    assert got.along == pytest.approx(np.sqrt(0.9 * 0.1**2 + 0.1 * 2.0**2), rel=0.03)
    assert got.across == pytest.approx(0.1, rel=0.1)


def test_a_heading_that_is_not_known_and_places_without_error_have_limits():
    got = fitted(frames_with(0.0, 0.0, 50.0, 0.0, count=300), 0.0)
    assert got.yaw == pytest.approx(ANY_YAW, rel=0.05)
    assert got.along == pytest.approx(LEAST)
    assert got.across == pytest.approx(LEAST)
