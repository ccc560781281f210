from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.errors import ConfigError
from airside_perception.geometry import apply, invert, rotation_z, transform
from airside_perception.sim import rolling
from airside_perception.sim.bodies import Body
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.layout import Layout
from airside_perception.sim.lidar import LidarSpec, even, scan
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.rolling import beams, firings, spin
from airside_perception.sim.scene import Motion, Scenario

SPEC = LidarSpec(
    even(12, -20.0, 4.0), 180, range_sigma=0.0, dropout=0.0, threshold=1e-12, faint=0.0
)
MOUNT = transform(rotation_z(0.3), np.array([0.4, -0.3, 1.9]))


def world(ego: Motion, slope: float = 0.0, **motion: float) -> Scenario:
    """A wall at x = 14 and a block that may move, at (6, 8)."""
    layout = Layout(np.random.default_rng(3))
    size = np.array([4.0, 2.0, 2.0])
    mesh = box(size, (0, 0, 0), row('red'))
    place = np.array([0, 0, 4.0, 2.0])
    layout.put(
        Body('car', mesh, len(mesh), np.array([0, 0, 1.0, *size]), place), 6.0, 8.0, 0.5,
        **motion, reserve=False,
    )  # fmt: skip
    wall = box((1.0, 30.0, 6.0), (0, 0, 0), row('concrete'))
    layout.put(Body('', wall, 0, np.zeros(6), np.zeros(4)), 14.5, 0.0, 0.0, reserve=False)
    return layout.scenario(ego, 'asphalt', slope)


def turn(scenario: Scenario, t: float, **kwargs: bool):
    scene = scenario.at(t)
    caster, rng = BruteCaster(scene.triangles), np.random.default_rng(0)
    return spin(SPEC, scenario, scene, t, caster, BruteCaster, MOUNT, rng, **kwargs)


def test_a_turn_ends_at_the_stamp_and_takes_its_period():
    times = firings(SPEC)
    assert times[-1] == 0.0
    assert_allclose(np.diff(times), 0.1 / 180)
    assert_allclose(times[0], -0.1 * 179 / 180)
    with pytest.raises(ConfigError, match='0 s'):
        replace(SPEC, period=0)


def test_standing_still_a_turn_is_the_scan_at_once():
    scenario = world(Motion(1.0, 2.0, 0.4), 0.01)
    scene = scenario.at(0.7)
    once = scan(SPEC, scene, BruteCaster(scene.triangles), MOUNT, np.random.default_rng(0))
    for deskewed in (True, False):
        rolled = turn(scenario, 0.7, deskewed=deskewed)
        assert_allclose(rolled.points, once.points, atol=2e-5)
        assert_array_equal(rolled.triangle, once.triangle)


@pytest.mark.parametrize('ego', [Motion(0, 0, 0.2, 8.0), Motion(-2, 1, -0.4, 5.0, 0.6)])
def test_beams_start_and_point_as_the_pose_of_their_time_says(ego):
    scenario = world(ego, 0.01)
    fired = beams(SPEC, scenario, 1.3, MOUNT)
    rings = len(SPEC.elevations)
    for number in (0, 17, 179):
        index = number * rings + 5
        time = 1.3 + float(fired.time[index])
        pose = invert(scenario.pose(1.3)) @ scenario.pose(time) @ MOUNT
        assert_allclose(fired.origin[index], pose[:3, 3], atol=2e-5)
        assert_allclose(fired.direction[index], pose[:3, :3] @ fired.local[index], atol=1e-6)


@pytest.mark.parametrize('ego', [Motion(0, 0, 0.2, 8.0), Motion(-2, 1, -0.4, 5.0, 0.6)])
def test_what_stands_still_is_where_it_is_once_deskewed_and_smeared_before(ego):
    scenario = world(ego, 0.01)
    fixed, raw = turn(scenario, 0.6), turn(scenario, 0.6, deskewed=False)
    assert_array_equal(fixed.triangle, raw.triangle)
    base2world = scenario.pose(0.6)
    placed = apply(base2world @ MOUNT, fixed.points[:, :3].astype(np.float64))
    walls = (np.abs(placed[:, 0] - 14.0) < 0.02) & (fixed.triangle >= 0)
    assert walls.sum() > 20
    ground = placed[fixed.triangle == -2]
    assert_allclose(ground[:, 2], ground[:, :2] @ scenario.slope, atol=2e-3)
    # Undeskewed, a point is right for where the vehicle was when it was measured.
    for index in np.flatnonzero(walls)[::5]:
        then = scenario.pose(0.6 + float(raw.time[index])) @ MOUNT
        assert_allclose(apply(then, raw.points[index : index + 1, :3])[0, 0], 14.0, atol=0.02)
    off = apply(base2world @ MOUNT, raw.points[walls, :3].astype(np.float64))[:, 0] - 14.0
    assert np.abs(off).max() > 0.1


@pytest.mark.parametrize('motion', [{'speed': 10.0}, {'speed': 6.0, 'turn': 1.5}, {'turn': 2.0}])
def test_points_of_a_moving_actor_lie_on_it_where_it_was_then(motion):
    ego = Motion(0, 0, 0.1, 4.0, 0.2)
    scenario = world(ego, 0.01, **motion)
    sweep = turn(scenario, 0.5)
    base2world = scenario.pose(0.5)
    actor = scenario.actors[0]
    hit = np.flatnonzero(sweep.instance == 0)
    assert len(hit) > 15
    placed = apply(base2world @ MOUNT, sweep.points[hit, :3].astype(np.float64))
    for point, time in zip(placed, sweep.time[hit], strict=True):
        x, y, yaw = actor.motion.pose(0.5 + float(time))
        local = rotation_z(yaw).T @ (point - [x, y, 0.0])
        local[2] -= point[:2] @ scenario.slope
        # On the surface of the block: on one face, within the others.
        over = np.abs(local - [0, 0, 1.0]) - [2.0, 1.0, 1.0]
        assert abs(over.max()) < 0.01


def test_a_moving_actor_hides_what_is_behind_it_and_is_hidden():
    scenario = world(Motion(0, 0, 0), speed=12.0)
    sweep = turn(scenario, 0.4)
    rays = sweep.points[:, :3] / np.linalg.norm(sweep.points[:, :3], axis=1)[:, None]
    assert len(np.unique(np.round(rays, 4), axis=0)) == len(rays)  # one return a beam
    behind = Scenario(
        scenario.structure,
        (replace(scenario.actors[0], motion=Motion(20.0, 0.0, 1.5, 3.0)),),
        scenario.ego,
        scenario.materials,
        scenario.ground,
    )
    assert (turn(behind, 0.4).instance == -1).all()


@pytest.mark.parametrize('seed', range(4))
def test_no_beam_that_meets_a_moving_actor_is_left_out(seed, monkeypatch):
    """Slow, fast and turning ones, near and far, some of them right above the sensor."""
    rng = np.random.default_rng(seed)
    layout = Layout(rng)
    for _ in range(7):
        size = rng.uniform([0.5, 0.5, 0.5], [6, 3, 3])
        mesh = box(tuple(size), (0, 0, rng.uniform(0, 4)), row('red'))
        body = Body('car', mesh, len(mesh), np.array([0, 0, 1.0, *size]), np.array([0, 0, 1, 1]))
        x, y = rng.normal(0, 12, 2)
        speed, rate = rng.choice([0.5, 5.0, 25.0]), rng.normal(0, 0.5)
        layout.put(body, x, y, rng.uniform(-3, 3), speed, rate, reserve=False)
    ego = Motion(0.3, -0.2, rng.uniform(-3, 3), rng.choice([0.0, 12.0]), rng.normal(0, 0.2))
    scenario = layout.scenario(ego, 'asphalt', 0.01)
    asked = []
    towards = rolling._towards

    def counted(*args):
        asked.append(len(towards(*args)))
        return towards(*args)

    monkeypatch.setattr(rolling, '_towards', counted)
    found = turn(scenario, 0.4)
    every = np.arange(SPEC.azimuths * len(SPEC.elevations))
    monkeypatch.setattr(rolling, '_towards', lambda *_: every)
    want = turn(scenario, 0.4)
    assert_array_equal(found.points, want.points)
    assert_array_equal(found.triangle, want.triangle)
    assert (want.instance >= 0).sum() > 30
    assert 0 < np.mean(asked) < 0.6 * len(every)
