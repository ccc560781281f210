from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.geometry import transform
from airside_perception.sim.bodies import structure
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.layout import Layout
from airside_perception.sim.lidar import LidarSpec, even, returns, scan
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.returns import droplets, halo, strength, transmission, wet
from airside_perception.sim.scene import Motion

SPEC = LidarSpec(even(16, -15.0, 15.0), 90, range_sigma=0.0, dropout=0.0, faint=0.0)
FOG = Conditions(weather='fog', visibility=100.0)
ROOF = transform(np.eye(3), np.array([0.0, 0.0, 1.9]))
COUNT = 40_000


def ones(value: float = 1.0) -> np.ndarray:
    return np.full(COUNT, value, np.float32)


def test_power_falls_with_the_square_of_the_range_and_twice_the_way_through_fog():
    distance = np.array([5.0, 20.0, 60.0, np.inf], np.float32)
    full = np.ones(4, np.float32)
    power = strength(distance, 0.5 * full, 0.3 * full, full < 0)
    assert_allclose(power, [0.15 / 25, 0.15 / 400, 0.15 / 3600, 0.0], rtol=1e-6)
    passed = transmission(FOG, distance)
    assert_allclose(passed[:3], np.exp(-2 * 3.0 / 100 * distance[:3].astype(float)), rtol=1e-5)


def test_the_share_of_returns_in_fog_is_that_of_the_weakened_power():
    distance, reflectivity = ones(35.0), ones(0.4)
    gain = transmission(FOG, distance)
    *_, kept = returns(
        SPEC, distance, ones(), reflectivity, ones() < 0, ones(0.0), np.random.default_rng(0), gain
    )
    power = 0.4 / 35.0**2 * np.exp(-2 * 0.03 * 35.0)
    assert_allclose(kept.mean(), power**2 / (power**2 + SPEC.threshold**2), atol=0.01)


def test_fog_answers_near_the_sensor_and_hides_only_what_is_weaker():
    rng = np.random.default_rng(1)
    nothing = droplets(SPEC, FOG, ones(0.0), rng)
    near = droplets(SPEC, FOG, ones(0.3 / 8**2), rng)
    far = droplets(SPEC, FOG, ones(1e-6), rng)
    shares = [np.isfinite(found).mean() for found in (nothing, far, near)]
    assert shares[0] > shares[1] > 10 * shares[2]
    assert np.median(nothing[np.isfinite(nothing)]) < 8.0
    thin = droplets(SPEC, replace(FOG, visibility=2000.0), ones(0.0), rng)
    assert np.isfinite(thin).mean() < 0.25 * shares[0]
    assert np.isinf(droplets(SPEC, Conditions(), ones(0.0), rng)).all()


@pytest.mark.parametrize('rate', [2.0, 25.0])
def test_drops_answer_as_often_as_the_rate_says(rate):
    rain = Conditions(weather='rain', rain=rate)
    found = droplets(SPEC, rain, ones(0.0), np.random.default_rng(2))
    assert_allclose(np.isfinite(found).mean(), 1 - np.exp(-0.0022 * rate**0.6), atol=0.003)
    near = found[np.isfinite(found)]
    assert near.min() >= SPEC.min_range
    assert np.median(near) < 10


def test_wet_ground_mirrors_grazing_beams_away_and_nothing_else():
    facing = np.array([1.0, 0.3, 0.05, 0.05], np.float32)
    ground = np.array([True, True, True, False])
    soaked = wet(Conditions(weather='rain', rain=5.0, wetness=1.0), facing, ground)
    assert_allclose(soaked, [0.5, 0.5 * (1 - 0.7**1.5), 0.5 * (1 - 0.95**1.5), 1.0], rtol=1e-5)
    assert_allclose(wet(Conditions(), facing, ground), 1.0)


def test_a_scan_of_wet_ground_ends_nearer_than_that_of_dry_ground():
    layout = Layout(np.random.default_rng(0))
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    spec = replace(SPEC, elevations=even(64, -25.0, -1.0))
    reach = []
    for wetness in (0.0, 0.5, 1.0):
        dry = Conditions(wetness=wetness)
        sweep = scan(
            spec, scene, BruteCaster(scene.triangles), ROOF, np.random.default_rng(0), dry
        )
        reach.append(np.linalg.norm(sweep.points[:, :3], axis=1).max())
    assert reach[0] > 1.2 * reach[1] > 1.2 * 1.2 * reach[2] > 15


def test_tape_blinds_only_beams_beside_it_that_look_past_it():
    distance = np.full((90, 16), np.inf, np.float32)
    retro = np.zeros((90, 16), bool)
    retro[40, 8], distance[40, 8] = True, 10.0
    distance[41, 8] = 4.0  # something nearer
    distance[40, 9] = 30.0  # something behind it
    struck = np.zeros((90, 16))
    for seed in range(400):
        found = halo(SPEC, distance.ravel(), retro.ravel(), np.random.default_rng(seed))
        struck += np.isfinite(found).reshape(90, 16)
        assert set(found[np.isfinite(found)].tolist()) <= {10.0}
    assert_array_equal(np.argwhere(struck), [[39, 8], [40, 7], [40, 9]])
    chance = 0.5 * (1 - 10 / 45)
    assert_allclose(struck[struck > 0] / 400, chance, atol=0.08)


def test_halos_and_clutter_belong_to_nobody():
    layout = Layout(np.random.default_rng(0))
    layout.put(structure([box((0.2, 3.0, 4.0), (0, 0, 0), row('tape'))]), 9.0, 0.0, 0.0)
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    caster = BruteCaster(scene.triangles)
    plain = scan(SPEC, scene, caster, ROOF, np.random.default_rng(0))
    foggy = scan(SPEC, scene, caster, ROOF, np.random.default_rng(0), FOG)
    count = (plain.triangle >= 0).sum()
    assert (foggy.triangle >= 0).sum() == count
    ghosts = foggy.points[foggy.triangle == -1]
    halos = ghosts[np.abs(ghosts[:, 0] - 8.9) < 0.5]
    assert len(halos) >= 3  # around the board
    assert (np.abs(halos[:, 1]) > 1.4).all() | (np.abs(halos[:, 2]) > 1.9).any()
    assert (foggy.instance[foggy.triangle == -1] == -1).all()
