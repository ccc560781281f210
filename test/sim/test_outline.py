from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from airside_perception.sim.bodies import Body, structure
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.layout import Layout
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.outline import cells, near_objects
from airside_perception.sim.scene import Motion


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


@pytest.mark.parametrize('seed', range(8))
def test_no_ray_that_meets_an_object_is_left_out(seed):
    """Around, above and below, of large blocks beside, behind and over the place."""
    rng = np.random.default_rng(seed)
    layout = Layout(rng)
    for _ in range(6):
        place = rng.uniform(-25, 25, 2)
        size = tuple(rng.uniform([0.3, 0.3, 0.2], [25, 6, 5]))
        layout.put(block(size, rng.uniform(0, 6)), *place, rng.uniform(-3, 3), reserve=False)
    layout.put(structure([box((5, 5, 5), (0, 0, 0), row('steel'))]), 9, 9, 0.0, reserve=False)
    scene = layout.scenario(Motion(0, 0, rng.uniform(-3, 3)), 'asphalt', 0.0).at(0.0)
    origin = rng.uniform([-5, -5, 0.5], [5, 5, 3])
    rays = everywhere(3000, rng)
    met = np.zeros(len(rays), bool)
    ray, triangle, _ = BruteCaster(scene.triangles).through(origin, rays)
    met[ray[scene.instance[triangle] >= 0]] = True
    near = near_objects(scene, origin, cells(rays))
    assert met.sum() > 10
    assert not (met & ~near).any()


def test_most_rays_beside_objects_are_left_out():
    layout = Layout(np.random.default_rng(0))
    layout.put(block((2.0, 2.0, 2.0), 0.0), -12.0, 0.1, 0.0)  # across the seam of the map
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    rays = everywhere(20_000, np.random.default_rng(1))
    origin = np.array([0.0, 0.0, 1.0])
    ray, _, _ = BruteCaster(scene.triangles).through(origin, rays)
    near = near_objects(scene, origin, cells(rays))
    assert near[ray].all()
    assert near.sum() < 2.5 * len(np.unique(ray)) + 20


def test_without_objects_no_ray_is_near_one():
    layout = Layout(np.random.default_rng(0))
    layout.put(structure([box((5, 5, 5), (0, 0, 0), row('steel'))]), 9, 9, 0.0, reserve=False)
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    near = near_objects(scene, np.zeros(3), cells(everywhere(50, np.random.default_rng(1))))
    assert_array_equal(near, np.zeros(50, bool))
