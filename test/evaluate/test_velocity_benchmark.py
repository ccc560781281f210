"""Errors of velocities: of which objects, and beside what."""

from __future__ import annotations

import numpy as np
import pytest

velocity = pytest.importorskip('benchmarks.velocity', reason='run from the source tree')

from airside_perception.evaluate.frames import Found, Frame, Truth  # noqa: E402

NAN = float('nan')


def row(x, y):
    return [x, y, 1.0, 4.0, 2.0, 2.0, 0.0]


def frame_of(given):
    """Three cars, of which two are found, one of these twice; a person where a car is."""
    truth = Truth(
        ('car', 'car', 'car', 'person'),
        np.array([row(5, 0), row(15, 0), row(25, 0), row(0, 9)]),
        velocities=np.array([[3.0, 4.0], [0.0, 0.1], [1.0, 0.0], [0.0, 1.0]]),
    )
    found = Found(
        ('car', 'car', 'car', 'car'),
        np.array([row(5.5, 0), row(15, 1), row(15.2, 1.2), row(0, 9)]),
        np.array([0.9, 0.8, 0.7, 0.6]),
        velocities=np.array(given),
    )
    return Frame(truth, found)


def test_velocities_are_those_of_hits_beside_the_truth():
    frame = frame_of([[3.0, 3.0], [0.2, 0.1], [9.0, 9.0], [5.0, 5.0]])
    pairs = velocity.speeds([frame, frame], ('car', 'person'))
    assert pairs['person'].shape == (0, 4)
    expected = [[3, 3, 3, 4], [0.2, 0.1, 0, 0.1]]  # neither the second of a car nor a person's
    np.testing.assert_allclose(sorted(pairs['car'].tolist()), sorted(expected * 2))


def test_errors_of_what_moves_and_of_what_stands():
    found = velocity.speed_errors(
        np.array([[3, 3, 3, 4], [0, 0, 0.6, 0.8], [0.2, 0.1, 0, 0.1]], float)
    )
    assert (found['moving'], found['standing']) == (2, 1)
    assert found['error'] == pytest.approx((1 + 1) / 2)
    assert found['nothing moves'] == pytest.approx((5 + 1) / 2)
    assert found['error standing'] == pytest.approx(0.2)
    nothing = velocity.speed_errors(np.empty((0, 4)))
    assert nothing['moving'] == nothing['standing'] == 0
    assert np.isnan(nothing['error'])


def test_a_network_without_velocities_has_none():
    lowest = {'car': 0.5, 'person': 0.5}
    with_speed = frame_of([[3.0, 3.0], [0.2, 0.1], [9.0, 9.0], [5.0, 5.0]])
    without = frame_of([[NAN, NAN]] * 4)
    seeds = list(range(10))
    told = velocity.figures([(with_speed, lowest)] * 10, seeds)
    plain = velocity.figures([(without, lowest)] * 10, seeds)
    assert told['map'] == plain['map'] > 0
    assert 'velocity' not in plain
    assert told['velocity']['car']['moving'] == 10
    assert told['velocity']['all']['error'] == pytest.approx(1.0)
    assert 'error 1.00 m/s' in velocity.text('several', told)
    assert 'm/s' not in velocity.text('one', plain)
