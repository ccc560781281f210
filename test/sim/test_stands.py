from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from airside_perception.errors import ConfigError
from airside_perception.overlap import bev_iou
from airside_perception.sim.aircraft import AIRLINERS
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import CLASSES, SMALL
from airside_perception.sim.layout import Layout
from airside_perception.sim.scene import Scenario
from airside_perception.sim.stands import FAMILIES, HELD_OUT_PAIRS, row_of

SEEDS = range(30)
made = cache(apron)


def parked(scenario: Scenario):
    """(length of the fuselage, yaw, y of the middle) of aircraft that stand."""
    return [
        (actor.body.box[3], actor.motion.yaw, actor.motion.y)
        for actor in scenario.actors
        if actor.body.label == 'aircraft' and not actor.motion.speed
    ]


def test_training_never_sees_the_held_out_angles():
    for seed in SEEDS:
        for family, low, high in (('train', 0.0, 0.1), ('held_out', 0.25, 0.8)):
            for _, yaw, _ in parked(made(seed, family)):
                assert low <= abs(yaw) <= high


def test_training_never_sees_the_held_out_neighbours():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        kinds = row_of(Layout(rng), FAMILIES['train'])
        assert 2 <= len(kinds) <= 3
        assert set(kinds) <= set(AIRLINERS)
        assert not any(pair in HELD_OUT_PAIRS for pair in pairwise(kinds))
        held = row_of(Layout(rng), FAMILIES['held_out'])
        assert tuple(held[:2]) in HELD_OUT_PAIRS


def stations(scenario: Scenario, label: str):
    """Places of docked vehicles along the fuselage they stand at, as shares of its length."""
    found = []
    for plane in scenario.actors:
        if plane.body.label != 'aircraft' or plane.motion.speed:
            continue
        c, s = np.cos(plane.motion.yaw), np.sin(plane.motion.yaw)
        for actor in scenario.actors:
            across = plane.motion.yaw - actor.motion.yaw
            if actor.body.label != label or abs(abs(np.sin(across)) - 1) > 0.03:
                continue
            dx, dy = actor.motion.x - plane.motion.x, actor.motion.y - plane.motion.y
            along, aside = c * dx + s * dy, c * dy - s * dx
            if abs(aside) < plane.body.box[4] / 2 + actor.body.box[3] / 2 + 1.0:
                found.append(0.5 - along / plane.body.box[3])
    return np.array(found)


def test_belt_loaders_dock_elsewhere_in_the_held_out_family():
    for family in FAMILIES:
        places = np.concatenate([stations(made(seed, family), 'belt_loader') for seed in SEEDS])
        docks = np.array(FAMILIES[family].belts)
        gap = np.abs(places[:, None] - docks).min(axis=1)
        assert len(places) > 20
        assert np.mean(gap < 0.04) > 0.8


def test_families_differ_in_buses_and_bridges_and_both_are_busy():
    counts = {}
    for family in FAMILIES:
        scenes = [made(seed, family).at(0.0) for seed in SEEDS]
        names = [name for scene in scenes for name in scene.objects.classes]
        counts[family] = {name: names.count(name) for name in CLASSES}
        missing = [name for name in CLASSES if not counts[family][name]]
        assert missing in ([], ['cyclist'])
        for scene in scenes:
            overlap = bev_iou(scene.objects.boxes, scene.objects.boxes)
            np.fill_diagonal(overlap, 0.0)
            assert overlap.max(initial=0.0) < 0.02
    assert counts['held_out']['stairs'] > counts['train']['stairs']


def test_an_unknown_family_is_refused():
    with pytest.raises(ConfigError, match="'test' is not one of train, held_out"):
        apron(0, 'test')


def test_small_things_are_kept_apart_and_lie_on_the_ground():
    names = []
    for seed in range(6):
        scene = apron(seed).at(0.0)
        names += scene.small.classes
        assert not set(scene.objects.classes) & set(SMALL)
        for number, cuboid in enumerate(scene.small.boxes):
            mine = scene.actor == scene.small.ids[number]
            assert (scene.instance[mine] == -1).all()
            points = scene.triangles[mine].reshape(-1, 3)
            low = points[:, 2] - points[:, :2] @ scene.slope
            assert -0.01 < low.min() < 0.02
            away = np.hypot(*(points[:, :2] - cuboid[:2]).T)
            assert away.max() < np.hypot(*cuboid[3:5]) / 2 + 0.01
            assert cuboid[3:6].max() < 1.0
    assert set(names) == set(SMALL)


def test_the_same_seed_gives_the_same_held_out_bytes():
    one, other = (apron(4, 'held_out').at(0.2) for _ in range(2))
    assert one.triangles.tobytes() == other.triangles.tobytes()
    assert apron(4).at(0.2).triangles.tobytes() != one.triangles.tobytes()
