from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.geometry import transform
from airside_perception.projection import CameraModel
from airside_perception.sim.apron import apron
from airside_perception.sim.camera import Lens, look
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.pixels import (
    agreeing,
    between,
    coarse,
    first_hits,
    shadowed,
    spread,
)
from airside_perception.sim.rig import OPTICAL2CAMERA


@pytest.mark.parametrize('shape', [(6, 8), (7, 9), (5, 6), (8, 5)])
def test_every_pixel_is_cast_or_lies_between_agreeing_ones(shape):
    rng = np.random.default_rng(0)
    grid = rng.integers(0, 2, ((shape[0] + 1) // 2, (shape[1] + 1) // 2)).astype(np.int32)
    rest = set(between(agreeing(grid.ravel(), shape), shape).tolist())
    index = coarse(*shape)
    full = spread(grid.ravel(), shape).reshape(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            number = y * shape[1] + x
            if y % 2 == 0 and x % 2 == 0:
                assert number in index
                assert number not in rest
                assert full[y, x] == grid[y // 2, x // 2]
                continue
            low, high = (y // 2, x // 2), (y // 2 + 1, x // 2 + 1)
            around = grid[low[0] : high[0] + 1, low[1] : high[1] + 1]
            assert (number in rest) == (len(np.unique(around)) > 1)


@pytest.fixture(scope='module')
def view():
    """A small picture of a busy apron, every ray cast by brute force."""
    scene = apron(46).at(0.0, reach=40.0)
    matrix = np.array([[40.0, 0, 47.5], [0, 40.0, 29.5], [0, 0, 1]])
    mount = transform(np.eye(3), np.array([2.0, 0.0, 1.6])) @ OPTICAL2CAMERA
    lens = Lens(CameraModel('camera', 96, 60, matrix, (-0.04, 0.006, 0.0, 0.0, 0.0)), mount)
    rays = look(lens)
    near = np.linalg.norm(scene.triangles.mean(axis=1), axis=1) < 60
    rows = np.flatnonzero(near)[:1500]
    scene = replace(
        scene, triangles=scene.triangles[rows], instance=scene.instance[rows],
        material=scene.material[rows], actor=scene.actor[rows],
    )  # fmt: skip
    caster = BruteCaster(scene.triangles)
    whole = first_hits(scene, caster, mount[:3, 3], rays, (60, 96), whole=True)
    return scene, caster, mount[:3, 3], rays, whole


class Counting(BruteCaster):
    """Counts the rays that it is asked for."""

    rays = 0

    def cast(self, origin, directions):
        self.rays += len(directions)
        return super().cast(origin, directions)

    def shaded(self, points, towards, until=np.inf):
        self.rays += len(points)
        return super().shaded(points, towards, until)


def test_a_part_of_the_rays_gives_the_picture_of_all(view):
    scene, _, origin, rays, whole = view
    caster = Counting(scene.triangles)
    hits = first_hits(scene, caster, origin, rays, (60, 96))
    assert caster.rays < 0.75 * len(rays)  # of a picture of 96 x 60, where all is small
    same = hits.triangle == whole.triangle
    assert same.mean() > 0.985
    assert_array_equal(np.isfinite(hits.distance), hits.triangle != -1)
    seen = same & (whole.triangle != -1)
    assert_allclose(hits.distance[seen], whole.distance[seen], rtol=2e-4)


def test_shadows_of_a_part_of_the_rays_are_those_of_all(view):
    scene, brute, origin, rays, whole = view
    points = rays * np.where(np.isfinite(whole.distance), 0.999 * whole.distance, 0)[:, None]
    points = (points + origin).astype(np.float32)
    sun = np.array([0.4, 0.5, 0.8], np.float32)
    asked = whole.triangle != -1
    caster = Counting(scene.triangles)
    dark = shadowed(caster, points.__getitem__, lambda _: sun, asked, whole, (60, 96))
    real = brute.shaded(points, sun) & asked
    assert caster.rays < 0.8 * asked.sum()
    assert 0.02 < real.mean() < 0.98
    assert (dark == real).mean() > 0.985
    assert not dark[~asked].any()
