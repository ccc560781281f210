from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from training.raycast import cast, spin  # noqa: E402  (after the check for torch)


def brute_force(triangles, directions):
    """Moeller and Trumbore in float64, beam by beam; distance and triangle."""
    a, b, c = np.moveaxis(np.asarray(triangles, np.float64), 1, 0)
    first, second = b - a, c - a
    found = []
    for d in np.asarray(directions, np.float64):
        h = np.cross(d, second)
        det = np.einsum('ij,ij->i', first, h)
        with np.errstate(divide='ignore', invalid='ignore'):
            u = np.einsum('ij,ij->i', -a, h) / det
            q = np.cross(-a, first)
            v = q @ d / det
            t = np.einsum('ij,ij->i', second, q) / det
            inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        t = np.where(inside, t, np.inf)
        found.append((t.min(), t.argmin() if inside.any() else -1))
    return np.array(found)


def world(seed, count=150):
    """Random triangles around the origin, one that covers the zenith and a floor of two."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 15, (count, 1, 3)) * [1, 1, 0.2]
    cloud = centre + rng.normal(0, 2, (count, 3, 3))
    cover = [[[-5, -5, 4], [5, -5, 4], [0, 6, 4]]]
    corners = np.array([[60, 60, -2], [-60, 60, -2], [-60, -60, -2], [60, -60, -2]])
    return np.concatenate([cloud, cover, corners[[[0, 1, 2], [0, 2, 3]]]]).astype(np.float32)


def one_ring(elevation, firings):
    one = torch.ones(1, dtype=torch.int64)
    return spin(torch.tensor([[elevation]]), one, one * firings, torch.zeros(1))


def devices():
    return ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']


@pytest.mark.parametrize('device', devices())
def test_finds_what_brute_force_finds(device):
    worlds = [world(1), world(2), world(3)]
    rings = torch.linspace(-0.4, 0.6, 9).repeat(3, 1)
    numbers = torch.tensor([9, 5, 9]), torch.tensor([90, 77, 61]), torch.tensor([0.0, 0.5, 0.3])
    beams = spin(rings.to(device), *(n.to(device) for n in numbers))
    triangles = torch.tensor(np.concatenate(worlds), device=device)
    scan = torch.arange(3, device=device).repeat_interleave(len(worlds[0]))
    distance, which = cast(triangles, scan, beams, 100.0)
    assert len(beams.directions) == 9 * 90 + 5 * 77 + 9 * 61
    wrong = 0
    for index, part in enumerate(worlds):
        rays = (beams.scan == index).cpu()
        expected = brute_force(part, beams.directions.cpu()[rays])
        expected[expected[:, 0] > 100] = (np.inf, -1)
        got_distance, got = distance.cpu()[rays].numpy(), which.cpu()[rays].numpy()
        same = got == np.where(expected[:, 1] >= 0, expected[:, 1] + index * len(part), -1)
        wrong += (~same).sum()
        np.testing.assert_allclose(got_distance[same], expected[same, 0], rtol=2e-4)
    # Beams that pass an edge within float32 rounding may fall on either side of it.
    assert wrong <= 0.002 * len(distance)


def test_a_beam_into_nothing_returns_nothing():
    beams = one_ring(0.1, 10)
    triangles = torch.tensor([[[5.0, -9, -3], [5.0, 9, -3], [5.0, 0, -1]]])
    distance, which = cast(triangles, torch.zeros(1, dtype=torch.int64), beams, 50.0)
    assert torch.isinf(distance).all()
    assert (which == -1).all()


def test_reach_limits_the_distance():
    wall = torch.tensor([[[30.0, -99, -9], [30.0, 99, -9], [30.0, 0, 99]]])
    beams = one_ring(0.0, 360)
    distance, _ = cast(wall, torch.zeros(1, dtype=torch.int64), beams, 40.0)
    hit = distance[torch.isfinite(distance)]
    assert len(hit) == 2 * int(math.degrees(math.acos(30 / 40))) + 1
    assert hit.max() <= 40
