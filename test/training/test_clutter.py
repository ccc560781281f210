"""Odd things on free ground: none of them in an object."""

from __future__ import annotations

import numpy as np
import pytest

clutter = pytest.importorskip('training.clutter', reason='run from the source tree')

CAR = np.array([[12.0, 4.0, 0.8, 4.2, 1.8, 1.6, 0.4]])


def low_and_high(mesh):
    corners = mesh.triangles.reshape(-1, 3)
    return corners.min(axis=0), corners.max(axis=0)


@pytest.mark.parametrize('seed', range(40))
def test_rows_are_of_like_pieces_as_low_as_cars(seed):
    rng = np.random.default_rng(seed)
    pieces, places = clutter.row_of(rng)
    assert len(pieces) == len(places) >= 2
    sizes = []
    for piece in pieces:
        low, high = low_and_high(piece(rng, np.zeros(2)))
        assert low[2] == pytest.approx(0.0, abs=1e-6)  # stands on the ground
        sizes.append([high[2], np.hypot(*(high - low)[:2])])
    sizes = np.array(sizes)
    assert (sizes[:, 0] == sizes[0, 0]).all()
    assert 0.5 < sizes[0, 0] < 2.0
    assert np.ptp(sizes[:, 1]) < 0.3  # turned a little, else alike
    assert (np.hypot(*places.T) > 3.9).all()  # the vehicle stands in the middle


def test_rows_are_straight_and_evenly_spaced():
    for seed in range(30):
        _, places = clutter.row_of(np.random.default_rng(seed))
        near = places[np.abs(places).max(axis=1) < 55]  # those that were moved away are elsewhere
        if len(near) < 3 or len(near) < len(places):
            continue
        steps = np.diff(near, axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-9)
        assert 1.0 <= np.hypot(*steps[0]) < 6.0


def test_no_middle_of_a_piece_is_in_an_object():
    """Over many scenes no barrier, rail or wall begins inside the only car."""
    inside = near = 0
    for seed in range(60):
        mesh = clutter.clutter(np.random.default_rng(seed), CAR, True)
        if mesh is None:
            continue
        solid = mesh.triangles[mesh.materials == clutter.row('white')]
        offset = solid.mean(axis=1)[:, :2] - CAR[0, :2]
        c, s = np.cos(CAR[0, 6]), np.sin(CAR[0, 6])
        along, across = offset @ [c, s], offset @ [-s, c]
        inside += int(((np.abs(along) < 2.0) & (np.abs(across) < 0.8)).sum())
        near += int((np.hypot(*offset.T) < 8).sum())
    assert near > 100
    assert inside == 0


def test_clutter_follows_from_its_generator():
    first, second = (clutter.clutter(np.random.default_rng(5), CAR, True) for _ in range(2))
    np.testing.assert_array_equal(first.triangles, second.triangles)
