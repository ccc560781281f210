from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.geometry import bev_corners, invert
from airside_perception.overlap import bev_iou
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import CLASSES
from airside_perception.sim.layout import Layout
from airside_perception.sim.people import person
from airside_perception.sim.scene import Motion
from airside_perception.sim.street import street
from airside_perception.sim.vehicles import car

WORLDS = {'apron': apron, 'street': street}


@pytest.mark.parametrize('world', WORLDS)
def test_the_same_seed_gives_the_same_bytes(world):
    one, other = (WORLDS[world](5).at(1.3) for _ in range(2))
    assert one.triangles.tobytes() == other.triangles.tobytes()
    assert one.objects.boxes.tobytes() == other.objects.boxes.tobytes()
    assert one.materials.colour.tobytes() == other.materials.colour.tobytes()
    assert WORLDS[world](6).at(1.3).triangles.tobytes() != one.triangles.tobytes()


@pytest.mark.parametrize('world', WORLDS)
def test_scenes_are_consistent_and_small(world):
    for seed in range(8):
        scene = WORLDS[world](seed).at(0.7)
        count = len(scene.triangles)
        assert count < 20_000
        assert scene.triangles.shape == (count, 3, 3)
        assert scene.triangles.dtype == np.float32
        assert scene.instance.shape == scene.material.shape == (count,)
        assert np.isfinite(scene.triangles).all()
        assert set(scene.objects.classes) <= set(CLASSES)
        assert scene.material.max() < len(scene.materials.reflectivity)
        present = np.unique(scene.instance)
        assert_array_equal(present[present >= 0], np.arange(len(scene.objects)))


@pytest.mark.parametrize('world', WORLDS)
def test_every_labelled_triangle_lies_in_its_box(world):
    scene = WORLDS[world](3).at(2.0)
    for row, box in enumerate(scene.objects.boxes):
        points = scene.triangles[scene.instance == row].reshape(-1, 3) - box[:3]
        c, s = np.cos(box[6]), np.sin(box[6])
        local = np.stack(
            [points[:, 0] * c + points[:, 1] * s, points[:, 1] * c - points[:, 0] * s], 1
        )
        # A body follows the ground's slope, its box stands upright.
        room = np.array([0.2, 0.2]), 0.05 + 0.015 * box[3]
        assert (np.abs(local) <= box[3:5] / 2 + room[0]).all()
        assert (np.abs(points[:, 2]) <= box[5] / 2 + room[1]).all()


@pytest.mark.parametrize('world', WORLDS)
def test_objects_do_not_stand_in_one_another(world):
    """Except carts of one moving train, which follow closely."""
    for seed in range(6):
        scene = WORLDS[world](seed).at(0.0)
        overlap = bev_iou(scene.objects.boxes, scene.objects.boxes)
        np.fill_diagonal(overlap, 0.0)
        assert overlap.max(initial=0.0) < 0.02


@pytest.mark.parametrize('world', WORLDS)
def test_the_vehicle_does_not_start_inside_anything(world):
    for seed in range(20):
        scene = WORLDS[world](seed).at(0.0)
        corners = bev_corners(scene.objects.boxes)
        middle = scene.objects.boxes[:, :2]
        near = np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)
        ground_level = scene.objects.boxes[:, 2] - scene.objects.boxes[:, 5] / 2 < 0.5
        inside = (np.linalg.norm(middle, axis=1) < 0.3 * near) & ground_level
        assert not inside.any()


def test_motion_on_an_arc_agrees_with_small_steps():
    motion = Motion(1.0, -2.0, 0.4, 3.0, 0.5)
    x, y, yaw = 1.0, -2.0, 0.4
    steps = 20_000
    for i in range(steps):
        middle = 0.4 + 0.5 * (i + 0.5) * 2.0 / steps
        x, y = x + 3.0 * np.cos(middle) * 2.0 / steps, y + 3.0 * np.sin(middle) * 2.0 / steps
    yaw += 0.5 * 2.0
    assert_allclose(motion.pose(2.0), (x, y, yaw), atol=1e-6)
    assert_allclose(Motion(0, 0, 0, 2.0).pose(1.5), (3.0, 0.0, 0.0))


def test_velocities_are_the_change_of_place_over_the_ground():
    scenario = apron(4)
    step = 1e-4
    before, after = scenario.at(1.0), scenario.at(1.0 + step)
    assert_array_equal(before.objects.ids, after.objects.ids)
    now = before.objects.boxes[:, :3] @ before.base2world[:3, :3].T + before.base2world[:3, 3]
    later = after.objects.boxes[:, :3] @ after.base2world[:3, :3].T + after.base2world[:3, 3]
    speed = ((later - now) / step) @ before.base2world[:3, :3]
    assert_allclose(speed[:, :2], before.objects.velocities, atol=1e-2)
    assert np.linalg.norm(before.objects.velocities, axis=1).max() > 0.5


def test_what_stands_still_stays_where_it_is_while_the_vehicle_drives():
    scenario = next(s for s in map(apron, range(20)) if s.ego.speed > 1)
    first, later = scenario.at(0.0), scenario.at(1.0)
    still = len(scenario.structure)
    moved = invert(first.base2world) @ later.base2world
    points = later.triangles[:still].reshape(-1, 3) @ moved[:3, :3].T + moved[:3, 3]
    assert_allclose(points, first.triangles[:still].reshape(-1, 3), atol=1e-3)


def test_objects_out_of_reach_are_left_out():
    scene = apron(0).at(0.0, reach=25.0)
    distance = np.linalg.norm(scene.objects.boxes[:, :2], axis=1)
    assert len(distance) > 0
    assert distance.max() <= 25.0


def test_a_taken_place_is_refused():
    layout = Layout(np.random.default_rng(0))
    body = car(layout.rng)
    assert layout.put(body, 0.0, 0.0, 0.0)
    assert not layout.put(body, 1.0, 0.5, 0.3)
    assert layout.put(body, 0.0, 2.2, 0.0)
    walker = person(layout.rng, 'walking')
    assert not layout.put(walker, -5.0, 0.0, 0.0, speed=1.5)  # would walk into the car
    assert layout.put(walker, -5.0, 0.0, np.pi, speed=1.5)
