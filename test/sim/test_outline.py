from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from airside_perception.sim import frames, rolling
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import Body, structure
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.layout import Layout
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.outline import Covered, cells, covered
from airside_perception.sim.rig import load_rig
from airside_perception.sim.scene import Motion
from airside_perception.sim.street import street


def block(size: tuple[float, float, float], high: float) -> Body:
    """A block that floats with its bottom at `high`, as a wing does."""
    mesh = box(size, (0, 0, high), row('red'))
    middle = high + size[2] / 2
    return Body(
        'car', mesh, len(mesh), np.array([0, 0, middle, *size]), np.array([0, 0, size[0], size[1]])
    )


def everywhere(count: int, rng: np.random.Generator) -> np.ndarray:
    ways = rng.normal(size=(count, 3)).astype(np.float32)
    return ways / np.linalg.norm(ways, axis=1, keepdims=True)


def blocks(rng: np.random.Generator) -> Layout:
    """Large labelled blocks beside, behind and over the origin, and one that has no label."""
    layout = Layout(rng)
    for _ in range(6):
        place = rng.uniform(-25, 25, 2)
        size = tuple(rng.uniform([0.3, 0.3, 0.2], [25, 6, 5]))
        layout.put(block(size, rng.uniform(0, 6)), *place, rng.uniform(-3, 3), reserve=False)
    layout.put(structure([box((5, 5, 5), (0, 0, 0), row('steel'))]), 9, 9, 0.0, reserve=False)
    return layout


@pytest.mark.parametrize('seed', range(8))
def test_no_ray_that_meets_anything_is_left_out(seed):
    """Around, above and below; from one place, and from many around it."""
    rng = np.random.default_rng(seed)
    scene = blocks(rng).scenario(Motion(0, 0, rng.uniform(-3, 3)), 'asphalt', 0.0).at(0.0)
    origin = rng.uniform([-5, -5, 0.5], [5, 5, 3])
    brute, rays = BruteCaster(scene.triangles), everywhere(3000, rng)
    for shift, lift in ((0.0, 0.0), (0.2, 0.0), (1.5, 0.1)):
        turn, away = rng.uniform(-np.pi, np.pi, 3000), rng.uniform(0, shift, 3000)
        off = [away * np.cos(turn), away * np.sin(turn), rng.uniform(-lift, lift, 3000)]
        starts = (origin + np.transpose(off)).astype(np.float32)
        seen = covered(scene, origin, shift, lift)
        ray, triangle, _ = brute.through(starts, rays)
        labelled = scene.instance[triangle] >= 0
        assert len(np.unique(ray[labelled])) > 10
        assert seen.anything.take(cells(rays))[ray].all()
        assert seen.objects.take(cells(rays))[ray[labelled]].all()


def test_most_rays_beside_objects_are_left_out():
    layout = Layout(np.random.default_rng(0))
    layout.put(block((2.0, 2.0, 2.0), 0.0), -12.0, 0.1, 0.0)  # across the seam of the map
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    rays = everywhere(20_000, np.random.default_rng(1))
    origin = np.array([0.0, 0.0, 1.0])
    ray, _, _ = BruteCaster(scene.triangles).through(origin, rays)
    near = covered(scene, origin).objects.take(cells(rays))
    assert near[ray].all()
    assert near.sum() < 1.5 * len(np.unique(ray)) + 20


def test_without_objects_no_ray_is_near_one():
    layout = Layout(np.random.default_rng(0))
    layout.put(structure([box((5, 5, 5), (0, 0, 0), row('steel'))]), 9, 9, 0.0, reserve=False)
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    seen, rays = covered(scene, np.zeros(3)), everywhere(50, np.random.default_rng(1))
    assert_array_equal(seen.objects.take(cells(rays)), np.zeros(50, bool))
    assert seen.anything.any()


def test_a_scene_of_nothing_covers_nothing():
    scene = Layout(np.random.default_rng(0)).scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    scene = replace(
        scene, triangles=scene.triangles[:0], instance=scene.instance[:0],
        material=scene.material[:0], actor=scene.actor[:0],
    )  # fmt: skip
    assert not covered(scene, np.zeros(3)).anything.any()


@pytest.mark.open3d
@pytest.mark.parametrize(('world', 'seed'), [(apron, 46), (apron, 4), (street, 3), (street, 8)])
def test_frames_are_those_of_all_rays(repository, world, seed):
    """Pictures, points and truth, byte for byte."""
    pytest.importorskip('open3d')
    rig = load_rig(repository / 'config' / 'rig.yaml')

    def made() -> list[bytes]:
        (frame,) = frames.drive(world(seed), rig, 0.1, 1)
        pictures = [image.data.tobytes() for image in frame.images.values()]
        return [*pictures, frame.cloud.points.tobytes(), frame.details.encode()]

    found = made()
    with (
        mock.patch.object(frames, 'covered', Covered.everywhere),
        mock.patch.object(rolling, 'covered', Covered.everywhere),
    ):
        assert made() == found
