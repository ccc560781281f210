from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.errors import ConfigError
from airside_perception.geometry import rotation_z, transform
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import structure
from airside_perception.sim.caster import BruteCaster, Open3DCaster
from airside_perception.sim.layout import Layout
from airside_perception.sim.lidar import (
    GROUND,
    PRESETS,
    Hits,
    LidarSpec,
    even,
    finish,
    rays,
    returns,
    scan,
    with_ground,
)
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion, Scene
from airside_perception.sim.street import street

ROOF = transform(np.eye(3), np.array([0.3, -0.2, 1.9]))
CLEAN = LidarSpec(
    even(16, -20.0, 5.0), azimuths=90, range_sigma=0.0, dropout=0.0, threshold=1e-12, faint=0.0
)


def empty(slope: float = 0.0) -> Scene:
    """Nothing but the ground and what a far-away quad needs to exist."""
    return Layout(np.random.default_rng(0)).scenario(Motion(0, 0, 0), 'asphalt', slope).at(0.0)


def with_box() -> Scene:
    layout = Layout(np.random.default_rng(0))
    layout.put(structure([box((2.0, 4.0, 3.0), (0, 0, 0), row('concrete'))]), 10.0, 0.0, 0.0)
    return layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)


def test_rays_are_unit_vectors_with_the_ring_fastest():
    spec = PRESETS['hdl64']
    directions = rays(spec)
    assert directions.shape == (64 * 2083, 3)
    assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-6)
    assert_allclose(np.arcsin(directions[:64, 2]), spec.elevations, atol=1e-6)
    assert_allclose(directions[:64, 0], -np.cos(spec.elevations), atol=1e-6)  # first: backwards
    assert directions[64 * 500, 1] > 0  # clockwise: then the left


def test_hdl64_has_its_two_blocks():
    degrees = np.rad2deg(PRESETS['hdl64'].elevations)
    assert_allclose(degrees[[0, 31, 32, 63]], [2.0, -8.333, -8.83, -24.33], atol=1e-3)
    assert_allclose(-np.diff(degrees)[:31], 1 / 3, atol=1e-9)
    assert_allclose(-np.diff(degrees)[32:], 1 / 2, atol=1e-9)


def test_ranges_to_the_ground_are_those_of_a_plane():
    sweep = scan(CLEAN, empty(), BruteCaster(empty().triangles), ROOF, np.random.default_rng(0))
    distance = np.linalg.norm(sweep.points[:, :3].astype(np.float64), axis=1)
    elevation = np.array(CLEAN.elevations)[sweep.ring]
    assert_allclose(distance, 1.9 / np.sin(-elevation), rtol=1e-5)
    assert_allclose(sweep.points[:, 2], -1.9, atol=1e-4)
    assert (sweep.instance == -1).all()


def test_an_inclined_ground_is_met_where_its_equation_says():
    directions = rays(CLEAN)
    nothing = Hits(
        np.full(len(directions), np.inf, np.float32), np.full(len(directions), -1, np.int32)
    )
    origin = np.array([0.5, 0.1, 2.0])
    hits = with_ground(nothing, origin, directions, (0.01, -0.015))
    met = hits.triangle == GROUND
    points = origin + directions[met] * hits.distance[met, None].astype(np.float64)
    assert met.sum() > 500
    near = hits.distance[met] < 100
    assert_allclose(points[near, 2], points[near] @ [0.01, -0.015, 0], atol=2e-3)
    assert np.isinf(hits.distance[~met]).all()


def test_ranges_to_a_box_are_those_of_its_face():
    scene = with_box()
    sweep = scan(CLEAN, scene, BruteCaster(scene.triangles), ROOF, np.random.default_rng(0))
    world = sweep.points[:, :3].astype(np.float64) + ROOF[:3, 3]
    front = (
        (np.abs(world[:, 1]) < 1.99)
        & (world[:, 0] > 5)
        & (world[:, 2] > 0.01)
        & (world[:, 0] < 9.5)
    )
    assert front.sum() > 0
    assert_allclose(world[front, 0], 9.0, atol=1e-4)
    direction = sweep.points[front, :3] / np.linalg.norm(sweep.points[front, :3], axis=1)[:, None]
    assert_allclose(sweep.clean[front], (9.0 - ROOF[0, 3]) / direction[:, 0], rtol=1e-5)


def test_range_noise_has_the_stated_deviation():
    count = 40_000
    spec = replace(CLEAN, range_sigma=0.03)
    ones = np.ones(count, np.float32)
    measured, intensity, kept = returns(
        spec, 20 * ones, ones, 0.5 * ones, ones < 0, 0 * ones, np.random.default_rng(1)
    )
    assert kept.all()
    assert_allclose(measured.std(), 0.03, rtol=0.02)
    assert_allclose(measured.mean(), 20.0, atol=1e-3)
    assert_allclose(intensity.mean(), 0.5, atol=0.01)


@pytest.mark.parametrize(('dropout', 'loss'), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.6), (0.1, 0.5)])
def test_the_share_of_lost_beams_is_as_asked(dropout, loss):
    count = 40_000
    spec = replace(CLEAN, dropout=dropout)
    ones = np.ones(count, np.float32)
    _, _, kept = returns(
        spec, 10 * ones, ones, 0.5 * ones, ones < 0, loss * ones, np.random.default_rng(2)
    )
    assert_allclose(kept.mean(), (1 - dropout) * (1 - loss), atol=0.01)


def test_grazing_and_far_returns_are_lost_and_retro_reflectors_are_bright():
    spec = replace(CLEAN, threshold=3e-6)
    distance = np.repeat(np.array([10, 60, 60, 60], np.float32), 4000)
    facing = np.repeat(np.array([1, 1, 0.02, 0.02], np.float32), 4000)
    retro = np.repeat([False, False, False, True], 4000)
    level = np.full(len(retro), 0.3, np.float32)
    _, intensity, kept = returns(
        spec, distance, facing, level, retro, 0 * level, np.random.default_rng(3)
    )
    near, far, grazing, tape = kept.reshape(4, -1).mean(axis=1)
    assert near > 0.99
    assert far > 0.9
    assert grazing < 0.3
    assert tape > 0.99
    assert intensity[retro].min() > 0.85
    assert intensity[~retro].max() < 0.7


def test_ranges_outside_the_sensors_limits_are_no_points():
    distance = np.array([0.2, 1.5, 50.0, np.inf], np.float32)
    ones = np.ones(4, np.float32)
    spec = replace(CLEAN, min_range=1.0, max_range=40.0)
    _, _, kept = returns(spec, distance, ones, ones, ones < 0, 0 * ones, np.random.default_rng(0))
    assert_array_equal(kept, [False, True, False, False])


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'elevations': ()}, '0 beams'),
        ({'azimuths': 0}, '0 azimuths'),
        ({'max_range': 0.5}, '0.5 m'),
    ],
)
def test_a_lidar_that_sees_nothing_is_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        replace(CLEAN, **change)


def test_the_mounting_turns_the_beams_not_the_points():
    scene = with_box()
    turned = transform(rotation_z(np.pi / 2), ROOF[:3, 3])
    sweep = scan(CLEAN, scene, BruteCaster(scene.triangles), turned, np.random.default_rng(0))
    wall = sweep.points[(sweep.points[:, 2] > -1.8) & (sweep.points[:, 2] < 1.0)]
    assert (wall[:, 1] < 0).all()  # the box ahead of the vehicle is at the sensor's right
    assert len(wall) > 20


def test_a_missing_open3d_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open3d', None)
    with pytest.raises(ConfigError, match='apt package libusb'):
        Open3DCaster(with_box().triangles)


@pytest.mark.open3d
class TestWithOpen3D:
    @pytest.fixture(autouse=True)
    def _open3d(self):
        pytest.importorskip('open3d')

    def test_open3d_and_brute_force_agree(self):
        scene = street(3).at(0.0, reach=20.0)
        spec = replace(CLEAN, azimuths=40)
        directions = rays(spec)
        fast = Open3DCaster(scene.triangles).cast(ROOF[:3, 3], directions)
        slow = BruteCaster(scene.triangles).cast(ROOF[:3, 3], directions)
        # A ray along an edge may fall to either side of it.
        same = np.isclose(fast[0], slow[0], rtol=1e-4, atol=1e-4) | (
            np.isinf(fast[0]) & np.isinf(slow[0])
        )
        assert same.mean() > 0.995
        assert (fast[1] == slow[1]).mean() > 0.98
        points = np.array([[0, 0, 0.5], [3, 1, 0.5]], np.float32)
        sun = np.array([0.3, 0.2, 0.9])
        assert_array_equal(
            Open3DCaster(scene.triangles).shaded(points, sun),
            BruteCaster(scene.triangles).shaded(points, sun),
        )

    def test_scans_repeat_bit_by_bit(self):
        scene = apron(2).at(0.5)
        one, other = (
            scan(
                PRESETS['roof64'],
                scene,
                Open3DCaster(scene.triangles),
                ROOF,
                np.random.default_rng(4),
            )
            for _ in range(2)
        )
        assert one.points.tobytes() == other.points.tobytes()
        assert one.instance.tobytes() == other.instance.tobytes()

    def test_finish_completes_what_another_caster_hit(self):
        scene = apron(2).at(0.5)
        spec, caster = PRESETS['roof32'], Open3DCaster(scene.triangles)
        whole = scan(spec, scene, caster, ROOF, np.random.default_rng(4))
        hits = Hits(*caster.cast(ROOF[:3, 3], rays(spec)))
        parts = finish(spec, scene, ROOF, rays(spec), hits, np.random.default_rng(4))
        assert whole.points.tobytes() == parts.points.tobytes()

    @pytest.mark.parametrize('seed', [1, 4])
    def test_points_of_an_object_lie_in_its_box(self, seed):
        scene = apron(seed).at(0.5)
        spec = replace(PRESETS['roof64'], range_sigma=0.0)
        sweep = scan(spec, scene, Open3DCaster(scene.triangles), ROOF, np.random.default_rng(0))
        counts = sweep.counts(len(scene.objects))
        assert counts.sum() == (sweep.instance >= 0).sum()
        assert counts.sum() > 1000
        for number, cuboid in enumerate(scene.objects.boxes):
            points = sweep.points[sweep.instance == number, :3] + ROOF[:3, 3] - cuboid[:3]
            c, s = np.cos(cuboid[6]), np.sin(cuboid[6])
            along = points[:, 0] * c + points[:, 1] * s
            across = points[:, 1] * c - points[:, 0] * s
            assert (np.abs(along) <= cuboid[3] / 2 + 0.05).all()
            assert (np.abs(across) <= cuboid[4] / 2 + 0.2).all()
            assert (np.abs(points[:, 2]) <= cuboid[5] / 2 + 0.05 + 0.015 * cuboid[3]).all()

    def test_a_person_at_30_m_returns_5_to_20_points(self):
        counts = []
        for seed in range(12):
            layout = Layout(np.random.default_rng(seed))
            layout.put(person(layout.rng, 'standing'), 30.0, 0.0, seed * 0.5)
            scene = layout.scenario(Motion(0, 0, 0), 'concrete', 0.0).at(0.0)
            sweep = scan(
                PRESETS['roof64'],
                scene,
                Open3DCaster(scene.triangles),
                ROOF,
                np.random.default_rng(0),
            )
            counts.append(int(sweep.counts(1)[0]))
        assert min(counts) >= 5
        assert max(counts) <= 20

    def test_statistics_resemble_a_real_hdl64(self, shared_data):
        files = sorted((shared_data / 'labelled' / 'velodyne').glob('*.bin'))
        real = [np.fromfile(name, np.float32).reshape(-1, 4) for name in files]
        mount = transform(np.eye(3), np.array([0.0, 0.0, 1.73]))
        simulated = []
        for seed in range(6):
            scene = street(seed).at(0.0)
            sweep = scan(
                PRESETS['hdl64'],
                scene,
                Open3DCaster(scene.triangles),
                mount,
                np.random.default_rng(0),
            )
            simulated.append(sweep.points)
        found, wanted = np.concatenate(simulated), np.concatenate(real)
        assert_allclose(len(found) / 6, len(wanted) / len(real), rtol=0.15)
        for low, high in ((0, 10), (10, 20), (20, 40), (40, 120)):
            shares = [
                np.mean((distance >= low) & (distance < high))
                for distance in (np.linalg.norm(p[:, :3], axis=1) for p in (found, wanted))
            ]
            assert abs(shares[0] - shares[1]) < 0.15
        assert abs(np.mean(found[:, 3] < 0.02) - np.mean(wanted[:, 3] < 0.02)) < 0.15
        assert abs(np.median(found[:, 3]) - np.median(wanted[:, 3])) < 0.1
