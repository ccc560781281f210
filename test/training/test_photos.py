"""Pictures that the simulator's camera takes to learn from: boxes, tints, seeds, processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import CLASSES
from airside_perception.sim.materials import row
from training import photos as module
from training.paste import city_car
from training.photos import Shooting, photos, repainted
from training.roll import Roll
from training.stages import ROAD, Recipe, staged

LABELS = {name: index for index, name in enumerate(CLASSES)}
SHOOTING = Shooting(Recipe(LABELS, 0.5, paste=6), 160, 96, 30, 6, 3.0, 0.12, views=4)


@pytest.fixture(scope='module')
def taken():
    pytest.importorskip('open3d', reason='the simulator casts rays with open3d')
    return photos(5, SHOOTING)


@pytest.mark.open3d
def test_the_same_seed_takes_the_same_pictures(taken):
    again = photos(5, SHOOTING)
    assert len(taken) == SHOOTING.views
    for mine, other in zip(taken, again, strict=True):
        np.testing.assert_array_equal(mine.image, other.image)
        np.testing.assert_array_equal(mine.boxes, other.boxes)
    assert (taken[0].image != photos(6, SHOOTING)[0].image).any()


@pytest.mark.open3d
def test_places_are_filled_from_the_first_by_size(taken):
    for photo in taken:
        assert photo.image.shape == (3, 96, 160)
        used = photo.state >= 0
        count = int(used.sum())
        assert used[:count].all()
        assert not photo.boxes[count:].any()
        boxes = photo.boxes[:count]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [160, 96]).all()
    assert sum(int((photo.state == 1).sum()) for photo in taken) > 0


@pytest.mark.open3d
def test_boxes_are_around_what_is_visible(monkeypatch):
    """By a loop over the pixels that each object covers, and over its triangles' corners."""
    seen = []
    real = module.labelled

    def spy(picture, lens, scene, shooting):
        photo = real(picture, lens, scene, shooting)
        seen.append((picture, lens, scene, photo))
        return photo

    monkeypatch.setattr(module, 'labelled', spy)
    photos(8, SHOOTING)
    asked = 0
    for picture, lens, scene, photo in seen:
        rows = zip(photo.boxes.tolist(), photo.label, photo.state, strict=True)
        told = {tuple(box): (label, state) for box, label, state in rows if state >= 0}
        for number in range(len(scene.objects)):
            v, u = np.nonzero(picture.instance == number)
            if not len(v):
                continue
            box = (float(u.min()), float(v.min()), float(u.max() + 1), float(v.max() + 1))
            label, state = told[box]
            assert label in [LABELS[name] for name in scene.objects.classes]
            corners = scene.triangles[scene.instance == number].reshape(-1, 3).astype(float)
            camera = (corners - lens.camera2base[:3, 3]) @ lens.camera2base[:3, :3]
            place, valid = lens.model.project(camera)
            whole = np.clip(place[valid] + 0.5, 0, [160, 96])
            size = np.prod(whole.max(axis=0) - whole.min(axis=0)) if valid.any() else 0.0
            share = (box[2] - box[0]) * (box[3] - box[1]) / max(size, 1e-3)
            clear = len(v) >= 6 and box[3] - box[1] >= 3 and share >= 0.12
            assert state == int(clear)
            asked += clear
    assert asked > 3


@pytest.mark.open3d
def test_plain_pictures_have_nothing_added():
    plain, more = photos(9, SHOOTING, plain=True), photos(9, SHOOTING)
    scene = staged(9, SHOOTING.recipe.plain()).scene
    six = photos(9, replace(SHOOTING, views=6), plain=True)
    assert len(six) == 4  # one to every side
    np.testing.assert_array_equal(six[0].image, plain[0].image)
    assert len(scene.objects) < len(staged(9, replace(SHOOTING.recipe, paste=30)).scene.objects)
    labels = {int(n) for photo in plain for n in photo.label[photo.state >= 0]}
    assert labels <= {LABELS[name] for name in scene.objects.classes}
    assert (plain[0].image != more[0].image).any()


def test_repainting_changes_colours_of_objects_alone():
    scene = apron(3).at(0.0)
    same = repainted(scene, np.random.default_rng(0), 0.0)
    assert same is scene
    other = repainted(scene, np.random.default_rng(0), 0.4)
    before = scene.materials.colour[scene.material]
    after = other.materials.colour[other.material]
    changed = (np.abs(before - after) > 1e-6).any(axis=1)
    painted = (scene.instance >= 0) & (scene.material != row('pane'))
    assert not changed[~painted].any()
    assert changed[painted].mean() > 0.95
    gain = after[painted] / before[painted]
    for number in range(len(scene.objects)):  # one tint for all of an object, unless it is cut
        own = gain[scene.instance[painted] == number]
        inside = (after[painted][scene.instance[painted] == number] < 0.999).all(axis=1)
        if inside.any():
            np.testing.assert_allclose(
                own[inside], own[inside][:1].repeat(inside.sum(), 0), rtol=2e-2
            )
    np.testing.assert_array_equal(
        other.materials.reflectivity[other.material], scene.materials.reflectivity[scene.material]
    )


def test_pasted_bodies_own_their_labelled_triangles_only():
    for seed in range(4):
        plain, more = (staged(seed, Recipe(LABELS, 0.0, False, paste)).scene for paste in (0, 30))
        own, first = len(plain.objects), len(plain.triangles)
        assert len(more.objects) > own
        np.testing.assert_array_equal(more.instance[:first], plain.instance)
        assert not np.isin(more.instance[first:], np.arange(own)).any()
        assert len(more.instance) == len(more.actor) == len(more.triangles) == len(more.material)


@pytest.mark.open3d
def test_processes_take_what_one_alone_takes():
    kept = range(40, 42)
    with Roll(SHOOTING, 100, 2, kept) as roll:
        held = roll.held_out()
        first = list(roll.take(1, wait=True))
        while len(first) < 3 * SHOOTING.views:
            first += roll.take(3, wait=True)
    alone = [photo for seed in kept for photo in photos(seed, SHOOTING, plain=True)]
    assert len(held) == len(alone)
    for mine, other in zip(held, alone, strict=True):
        np.testing.assert_array_equal(mine.image, other.image)
    known = [photo.image for seed in range(100, 112) for photo in photos(seed, SHOOTING)]
    for photo in first:
        assert any(np.array_equal(photo.image, image) for image in known)


def test_a_recipe_is_made_plain():
    recipe = Recipe(LABELS, 0.5, paste=6).plain()
    assert not recipe.clutter
    assert recipe.paste == 0
    assert recipe.streets == 0.5


def test_streets_get_no_apron_vehicles_and_people_stand_near():
    near, people, extra = 0, 0, set()
    for seed in range(12):
        street = Recipe(LABELS, 1.0, False, 40)
        before, after = staged(seed, street.plain()).scene, staged(seed, street).scene
        own = len(before.objects)
        extra |= set(after.objects.classes[own:])
        for name, box in zip(after.objects.classes[own:], after.objects.boxes[own:], strict=True):
            people += name == 'person'
            near += name == 'person' and np.hypot(*box[:2]) <= 14.0
    assert extra <= set(ROAD)
    assert {'person', 'car'} <= extra
    assert 0.35 < near / people < 0.8  # a fifth of them would be there if they stood anywhere


def test_city_cars_are_shorter_than_the_simulators_and_fill_their_boxes():
    lengths = []
    for seed in range(200):
        car = city_car(np.random.default_rng(seed))
        low, high = car.mesh.extents
        assert car.label == 'car'
        # mirrors stand out of the box to the sides, nothing does along it
        np.testing.assert_allclose(
            [low[0], high[0]], np.array([-0.5, 0.5]) * car.box[3], atol=0.03
        )
        np.testing.assert_allclose(high[2], car.box[5], atol=1e-6)
        np.testing.assert_allclose(car.footprint[2], high[0] - low[0], atol=1e-6)
        lengths.append(car.box[3])
    assert 3.0 <= min(lengths) < 3.15
    assert np.mean(np.array(lengths) < 3.5) > 0.4
