from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.errors import BagError
from airside_perception.messages import boxes3d
from airside_perception.replay.bag import BagReader, BagWriter
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import CLASSES, SMALL, Body
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.conditions import conditions
from airside_perception.sim.drive import drive, write_drive
from airside_perception.sim.layout import Layout
from airside_perception.sim.lidar import even
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.rig import load_rig
from airside_perception.sim.scene import Motion
from airside_perception.sim.truth import DETAILS, read_truth, towards

BUSY = 46


def block(width: float) -> Body:
    size = np.array([1.0, width, 2.0])
    mesh = box(size, (0, 0, 0), row('red'))
    footprint = np.array([0, 0, 1.0, width])
    return Body('car', mesh, len(mesh), np.array([0, 0, 1.0, *size]), footprint)


def test_visibility_is_the_share_of_rays_that_nothing_else_stops():
    """Counted ray by ray, object by object, on scenes of random blocks."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        layout = Layout(rng)
        for _ in range(8):
            place = rng.uniform([3, -8], [20, 8])
            layout.put(block(rng.uniform(0.5, 3.0)), *place, rng.uniform(-3, 3))
        scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
        grid = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-0.3, 0.1, 9))
        azimuth, up = (angle.ravel() for angle in grid)
        rays = np.stack(
            [np.cos(up) * np.cos(azimuth), np.cos(up) * np.sin(azimuth), np.sin(up)], axis=1
        ).astype(np.float32)
        origin = np.array([0.0, 0.0, 1.5])
        found = towards(scene, BruteCaster(scene.triangles), origin, rays)
        distances = np.full((len(scene.objects), len(rays)), np.inf)
        for number in range(len(scene.objects)):
            alone = BruteCaster(scene.triangles[scene.instance == number])
            distances[number] = alone.cast(origin, rays)[0]
        at_all = np.isfinite(distances).sum(axis=1)
        first = np.zeros(len(distances), int)
        for ray in range(len(rays)):
            if np.isfinite(distances[:, ray]).any():
                first[distances[:, ray].argmin()] += 1
        assert_array_equal(found.any, at_all)
        assert_array_equal(found.first, first)
        assert (first < at_all).any()
        assert (first > 0).any()


def test_half_hidden_is_half_visible_and_no_ray_is_unknown():
    layout = Layout(np.random.default_rng(0))
    layout.put(block(4.0), 10.0, 0.0, 0.0)
    layout.put(block(4.0), 6.0, 1.2 + 2.0 * 0.55, 0.0)  # in front of its left side
    layout.put(block(1.0), -20.0, 0.0, 0.0)
    scene = layout.scenario(Motion(0, 0, 0), 'asphalt', 0.0).at(0.0)
    bearing = np.linspace(-0.6, 0.9, 2001)
    rays = np.stack([np.cos(bearing), np.sin(bearing), 0 * bearing], 1).astype(np.float32)
    share = towards(scene, BruteCaster(scene.triangles), np.array([0, 0, 1.0]), rays).share
    near_edge = np.arctan2(0.3, 6.5)  # the nearer block's right edge, at its rear face
    left, right = np.arctan2(2.0, 9.5), -np.arctan2(2.0, 9.5)
    assert_allclose(share[0], (near_edge - right) / (left - right), atol=0.02)
    assert share[1] == 1.0
    assert np.isnan(share[2])


@pytest.fixture(scope='module')
def rig(repository):
    rig = load_rig(repository / 'config' / 'rig.yaml')
    model = rig.lenses['front'].model
    small = replace(model, width=96, height=58, matrix=np.diag([0.15, 0.15, 1.0]) @ model.matrix)
    lenses = {'front': replace(rig.lenses['front'], model=small)}
    spec = replace(rig.spec, elevations=even(32, -25, 10), azimuths=512)
    return replace(rig, spec=spec, lenses=lenses)


@pytest.fixture(scope='module')
def bag(rig, tmp_path_factory):
    pytest.importorskip('open3d')
    path = tmp_path_factory.mktemp('bags') / 'bag'
    sky = conditions(3, 'dusk', 'rain')
    write_drive(apron(BUSY), rig, 0.2, 7, path, conditions=sky)
    return path


@pytest.mark.open3d
class TestBag:
    @pytest.fixture(autouse=True)
    def _open3d(self):
        pytest.importorskip('open3d')

    def test_the_truth_reads_back_as_it_was_made(self, rig, bag):
        sky = conditions(3, 'dusk', 'rain')
        made = list(drive(apron(BUSY), rig, 0.2, 7, sky))
        read = list(read_truth(bag))
        assert [frame.stamp_ns for frame in read] == [frame.stamp_ns for frame in made]
        for one, other in zip(read, made, strict=True):
            assert one.objects.classes == other.objects.classes
            assert_allclose(one.objects.boxes, other.objects.boxes, atol=1e-12)
            assert_allclose(one.objects.velocities, other.velocities, atol=1e-12)
            assert_allclose(one.objects.visibility, other.sight.visibility, atol=1e-4)
            assert_array_equal(one.objects.points, other.points)
            assert_array_equal(one.pixels, other.pixels)
            assert_array_equal(one.objects.asked, other.sight.seen)
            assert one.labels == {'light': 'dusk', 'weather': 'rain'}
            assert one.conditions['rain'] == sky.rain
            assert set(one.objects.classes) <= set(CLASSES)
            assert set(one.small.classes) <= set(SMALL)
            assert len(one.small) > 5

    def test_what_is_seen_is_published_and_small_things_apart(self, bag):
        read = list(read_truth(bag))
        with BagReader(bag) as reader:
            topics = reader.topics
            records = list(
                reader.records(['/ground_truth/objects', '/ground_truth/small_objects'])
            )
            objects, small = ([r for r in records if r.topic.endswith(end)]
                              for end in ('/objects', '/small_objects'))  # fmt: skip
            first = boxes3d(reader.message(objects[0]))
            cones = boxes3d(reader.message(small[0]))
        assert first.classes == read[0].objects.select(read[0].objects.asked).classes
        assert cones.classes == read[0].small.classes
        assert topics['/clock'].count == topics['/odometry'].count == topics['/tf'].count == 10

    def test_what_returns_points_is_partly_visible(self, bag):
        for frame in read_truth(bag):
            objects = frame.objects
            many = np.asarray(objects.points) >= 10
            assert many.sum() > 3
            assert (np.asarray(objects.visibility)[many] > 0.01).all()
            known = np.asarray(objects.visibility)
            known = known[~np.isnan(known)]
            assert ((known >= 0) & (known <= 1)).all()
            assert known.min() < 0.3 < 0.9 < known.max()

    def test_a_bag_without_or_with_damaged_truth_is_named(self, tmp_path):
        for name, text in (('none', ''), ('odd', json.dumps({'stamp_ns': 1}))):
            with BagWriter(tmp_path / name) as writer:
                message = writer.types('std_msgs/msg/String')(data=text)
                writer.write(DETAILS if text else '/other', message, 5)
        with pytest.raises(BagError, match='has no /ground_truth/details'):
            next(read_truth(tmp_path / 'none'))
        with pytest.raises(BagError, match=r"at 5 ns is no ground truth: KeyError\('objects'\)"):
            next(read_truth(tmp_path / 'odd'))
