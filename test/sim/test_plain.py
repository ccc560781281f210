"""The fast shading beside its specification in plain NumPy."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from airside_perception.sim.apron import apron
from airside_perception.sim.camera import Light, look, take
from airside_perception.sim.conditions import Conditions, conditions
from airside_perception.sim.rig import load_rig
from airside_perception.sim.shade import Lighting
from airside_perception.sim.street import street
from airside_perception.sim.weather import streaks


@pytest.fixture(scope='module')
def plain():
    """The specification, test/sim/plain.py."""
    spec = importlib.util.spec_from_file_location('plain', Path(__file__).with_name('plain.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def lenses(repository):
    """Cameras of the shipped rig, their pictures a quarter as large."""
    rig = load_rig(repository / 'config' / 'rig.yaml')
    scaled = {}
    for name, lens in rig.lenses.items():
        matrix = np.diag([0.5, 0.5, 1.0]) @ lens.model.matrix
        model = replace(lens.model, width=320, height=191, matrix=matrix)
        scaled[name] = replace(lens, model=model)
    return scaled


@pytest.mark.open3d
@pytest.mark.parametrize(
    ('world', 'seed', 'light', 'weather'),
    [
        (apron, 22, 'day', 'clear'),
        (apron, 7, 'day', 'rain'),
        (apron, 46, 'dusk', 'clear'),
        (apron, 12, 'dusk', 'rain'),
        (apron, 7, 'night', 'clear'),
        (apron, 46, 'night', 'clear'),
        (apron, 7, 'night', 'rain'),
        (apron, 12, 'night', 'fog'),
        (street, 3, 'night', 'rain'),
        (street, 5, 'day', 'fog'),
    ],
)
@pytest.mark.parametrize('camera', ['front', 'left'])
def test_pictures_are_those_of_the_plain_shading(
    lenses, plain, world, seed, light, weather, camera
):  # fmt: skip
    """Within a grey level in 99.9 % of the pixels: what is left is rounding."""
    pytest.importorskip('open3d')
    from airside_perception.sim.caster import Open3DCaster

    lens, scene = lenses[camera], world(seed).at(0.7)
    scene = replace(scene, twist=(6.0, 0.2))  # motion to blur
    caster = Open3DCaster(scene.triangles, 1)
    sky = conditions(seed, light, weather)
    lighting = Lighting.of(scene, Light(), sky)

    def rngs():
        return np.random.default_rng(1), np.random.default_rng(2)

    (noise, drops), rays = rngs(), look(lens)
    fast = take(lens, scene, caster, lighting, noise, rays, drops).image.astype(int)
    noise, drops = rngs()
    slow = plain.picture(lens, scene, caster, lighting, noise, rays, drops).astype(int)
    assert slow.std() > 3
    apart = np.abs(fast - slow).max(axis=2)
    assert (apart <= 1).mean() > 0.999
    assert (apart == 0).mean() > 0.99


def test_rain_is_that_of_the_plain_shading(plain):
    light = np.random.default_rng(0).random((384, 640, 4), np.float32)
    rain = 330.0, 150.0, 0.012, np.array([1.0, 6.0])
    slow = plain.streaks(light[..., :3].copy(), *rain, np.random.default_rng(3))
    fast = light.copy()
    streaks(fast, *rain, np.random.default_rng(3))
    assert_allclose(fast[..., :3], slow, atol=1e-6)
    assert (np.abs(slow - light[..., :3]) > 0.01).mean() > 0.02


def test_the_specification_tells_light_and_weather_apart(lenses, plain):
    """That the comparison above could fail: other weather gives another picture."""
    from airside_perception.sim.caster import BruteCaster

    model = lenses['front'].model
    small = replace(model, width=64, height=40, matrix=np.diag([0.2, 0.2, 1]) @ model.matrix)
    lens, scene = replace(lenses['front'], model=small), apron(46).at(0.7, reach=20.0)
    rows = np.argsort(np.linalg.norm(scene.triangles.mean(axis=1), axis=1))[:200]
    scene = replace(
        scene, triangles=scene.triangles[rows], instance=scene.instance[rows],
        material=scene.material[rows], actor=scene.actor[rows],
    )  # fmt: skip
    caster, rays = BruteCaster(scene.triangles), look(lens)
    images = []
    for sky in (Conditions('night', lamps=True), Conditions('night', lamps=True, wetness=0.8)):
        lighting = Lighting.of(scene, Light(), sky)
        rngs = np.random.default_rng(1), np.random.default_rng(2)
        image = plain.picture(lens, scene, caster, lighting, rngs[0], rays, rngs[1])
        images.append(image.astype(int))
    assert (np.abs(images[0] - images[1]).max(axis=2) <= 1).mean() < 0.9
