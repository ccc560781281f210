from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from airside_perception.errors import ConfigError
from airside_perception.geometry import apply, corners, invert, transform
from airside_perception.projection import CameraModel
from airside_perception.sim.bodies import Body
from airside_perception.sim.camera import Lens, Light, Picture, look, render, take, visible
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.layout import Layout
from airside_perception.sim.materials import row, standard
from airside_perception.sim.mesh import box
from airside_perception.sim.rig import OPTICAL2CAMERA
from airside_perception.sim.scene import Motion, Objects, Scene
from airside_perception.sim.shade import Lighting

MATRIX = np.array([[60.0, 0, 47.5], [0, 60.0, 31.5], [0, 0, 1]])
LENS = Lens(
    CameraModel('camera', 96, 64, MATRIX, (-0.05, 0.01, 0.001, 0.0, 0.0)),
    transform(np.eye(3), np.array([1.0, 0.0, 1.5])) @ OPTICAL2CAMERA,
    noise=0.0,
)
PLAIN = Light(visibility=1e9)


def block(material: str = 'red') -> Body:
    size = np.array([2.0, 3.0, 2.0])
    mesh = box(size, (0, 0, 0), row(material))
    return Body('car', mesh, len(mesh), np.array([0, 0, 1.0, *size]), np.array([0, 0, 2.0, 3.0]))


def scene_of(*places: tuple[float, float]) -> Scene:
    layout = Layout(np.random.default_rng(0))
    for x, y in places:
        assert layout.put(block(), x, y, 0.0)
    scenario = layout.scenario(Motion(0, 0, 0), 'concrete', 0.0)
    return replace(scenario, materials=standard()).at(0.0)


def picture_of(scene: Scene, lens: Lens = LENS, light: Light = PLAIN, seed: int = 0) -> Picture:
    return render(lens, scene, BruteCaster(scene.triangles), light, np.random.default_rng(seed))


def test_pictures_are_of_the_asked_size_and_repeat_bit_by_bit():
    scene = scene_of((9.0, 1.0))
    noisy = replace(LENS, noise=3.0)
    one, same, other = (picture_of(scene, noisy, seed=seed) for seed in (1, 1, 2))
    assert one.image.shape == (64, 96, 3)
    assert one.image.dtype == np.uint8
    assert one.image.tobytes() == same.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes()
    assert_array_equal(one.instance, other.instance)


def test_viewing_rays_project_back_onto_their_pixels():
    rays = look(LENS).astype(np.float64)
    in_camera = rays @ LENS.camera2base[:3, :3]
    pixels, valid = LENS.model.project(in_camera)
    rows, columns = np.mgrid[:64, :96]
    assert valid.all()
    assert_allclose(pixels, np.stack([columns.ravel(), rows.ravel()], 1), atol=1e-3)


def test_an_object_appears_where_its_corners_project():
    scene = scene_of((9.0, 1.0))
    boxes = visible(picture_of(scene), scene, 7, 'camera')
    points = apply(invert(LENS.camera2base), corners(scene.objects.boxes)[0])
    pixels, _ = LENS.model.project(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    assert boxes.classes == ('car',)
    assert boxes.stamp_ns == 7
    assert_allclose(boxes.xyxy[0], [*low, *(high + 1)], atol=1.0)


def test_boxes_are_those_of_the_outermost_pixels_of_each_object():
    """As scipy finds them, in pictures of random pixels."""
    rng = np.random.default_rng(0)
    scene = scene_of((9.0, 1.0))
    for _ in range(50):
        count = int(rng.integers(1, 9))
        objects = Objects(
            ('car',) * count, np.zeros((count, 7)), np.zeros((count, 2)), np.arange(count)
        )
        instance = rng.integers(-1, count, rng.integers(2, 40, 2)).astype(np.int32)
        instance[rng.random(instance.shape) < rng.random()] = -1
        picture = Picture(np.zeros((*instance.shape, 3), np.uint8), instance, instance)
        boxes = visible(picture, replace(scene, objects=objects), 0, 'camera', 20, 6)
        pixels = [int((instance == number).sum()) for number in range(count)]
        kept = [number for number in range(count) if pixels[number] >= 6]
        spans = ndimage.find_objects(instance + 1, max_label=count)
        assert boxes.scores.tolist() == [float(pixels[number] >= 20) for number in kept]
        for number, found in zip(kept, boxes.xyxy.tolist(), strict=True):
            y, x = spans[number]
            assert found == [x.start, y.start, x.stop, y.stop]


def test_what_is_hidden_or_tiny_has_no_box():
    scene = scene_of((6.0, 0.0), (14.0, 0.0), (90.0, 45.0))
    picture = picture_of(scene)
    boxes = visible(picture, scene, 0, 'camera')
    assert len(scene.objects) == 3
    assert len(boxes) == 1
    assert len(visible(picture, scene, 0, 'camera', least=1)) >= 1
    assert set(np.unique(picture.instance)) <= {-1, 0, 2}


def test_what_barely_shows_has_a_box_of_score_0():
    scene = scene_of((6.0, 0.0), (14.0, 7.0))
    picture = picture_of(scene)
    large, small = sorted((int((picture.instance == n).sum()) for n in range(2)), reverse=True)
    assert large > small > 0
    for barely, scores in ((small + 1, [1.0]), (small, [1.0, 0.0]), (None, [1.0])):
        boxes = visible(picture, scene, 0, 'camera', small + 1, barely)
        assert sorted(boxes.scores, reverse=True) == scores
    both = visible(picture, scene, 0, 'camera', small)
    assert_array_equal(visible(picture, scene, 0, 'camera', small + 1, small).xyxy, both.xyxy)
    assert_array_equal(both.scores, 1.0)


def test_pixels_of_triangles_and_of_objects_are_counted():
    scene = scene_of((6.0, 0.0), (14.0, 7.0))
    picture = picture_of(scene)
    shown = picture.shown(scene)
    assert shown.shape == (len(scene.triangles),)
    assert_array_equal(shown, [(picture.triangle == n).sum() for n in range(len(shown))])
    for number in range(2):
        mine = (picture.instance == number).sum()
        assert mine == shown[scene.instance == number].sum() > 0
        exact, more = (len(visible(picture, scene, 0, 'camera', n)) for n in (mine, mine + 1))
        assert exact == more + 1


def test_sky_above_ground_below_and_colours_of_materials():
    picture = picture_of(scene_of((9.0, 1.0)), light=replace(PLAIN, shadows=False))
    image = picture.image.astype(int)
    assert image[2, 20, 0] > image[2, 20, 2] + 10  # sky: bluer than red
    assert np.ptp(image[60, 20]) < 25  # concrete: grey
    car = image[picture.instance == 0].mean(axis=0)
    assert car[2] > 1.8 * car[0]  # red paint


def test_the_suns_shadow_is_darker_and_lies_away_from_the_sun():
    scene = scene_of((9.0, 0.0))
    light = Light(azimuth=np.pi / 2, elevation=0.6, visibility=1e9)  # from the left
    bright = picture_of(scene, light=replace(light, shadows=False)).image.astype(int)
    real = picture_of(scene, light=light).image.astype(int)
    darker = (bright - real).sum(axis=2) > 60
    ground = picture_of(scene).instance < 0
    columns = np.nonzero(darker & ground)[1]
    assert len(columns) > 30
    assert columns.mean() > 55  # right of the car, which is in the middle
    assert ((bright - real) >= -3).all()


def test_haze_takes_the_contrast_from_what_is_far():
    scene = scene_of((30.0, 0.0))
    clear = picture_of(scene)
    hazy = picture_of(scene, light=Light(visibility=15.0))
    car = clear.instance == 0
    sky = clear.image[28:31, :10].astype(int).mean(axis=(0, 1))
    assert (
        np.abs(hazy.image[car].astype(int).mean(axis=0) - sky).max()
        < 0.5 * np.abs(clear.image[car].astype(int).mean(axis=0) - sky).max()
    )


def test_noise_has_the_stated_deviation():
    scene = scene_of((9.0, 1.0))
    clean = picture_of(scene).image.astype(float)
    noisy = picture_of(scene, replace(LENS, noise=4.0)).image.astype(float)
    middle = (clean > 30) & (clean < 225)
    assert_allclose((noisy - clean)[middle].std(), 4.0, rtol=0.1)


def test_exposure_brightens():
    scene = scene_of((9.0, 1.0))
    dim = picture_of(scene, replace(LENS, exposure=0.25)).image.astype(float)
    full = picture_of(scene).image.astype(float)
    assert_allclose(dim[40:].mean() / full[40:].mean(), 0.5, atol=0.02)


def test_weather_needs_lighting_made_for_it():
    scene = scene_of((9.0, 1.0))
    caster, rng = BruteCaster(scene.triangles), np.random.default_rng(0)
    with pytest.raises(ConfigError, match='without conditions'):
        take(LENS, scene, caster, Lighting.of(scene, PLAIN), rng, look(LENS))


@pytest.mark.open3d
def test_the_fast_caster_gives_the_same_picture():
    pytest.importorskip('open3d')
    from airside_perception.sim.caster import Open3DCaster

    scene = scene_of((9.0, 1.0), (12.0, -3.0))
    fast = render(LENS, scene, Open3DCaster(scene.triangles), PLAIN, np.random.default_rng(0))
    slow = picture_of(scene)
    assert (fast.instance == slow.instance).mean() > 0.99
    assert np.abs(fast.image.astype(int) - slow.image.astype(int)).mean() < 1.0


def test_edges_of_boxes_lie_half_a_pixel_beyond_what_the_lens_projects():
    """The convention of `Boxes2D` against that of `CameraModel`, also between pixels."""
    pinhole = replace(LENS, model=replace(LENS.model, distortion=()))
    rng = np.random.default_rng(3)
    offsets = []
    for _ in range(40):
        x, y = float(rng.uniform(12, 20)), float(rng.uniform(-2, 2))
        scene = scene_of((x, y))
        (seen,) = visible(picture_of(scene, pinhole), scene, 0, 'camera', 20).xyxy
        base2camera = invert(pinhole.camera2base)
        pixels, _ = pinhole.model.project(apply(base2camera, corners(scene.objects.boxes)[0]))
        offsets.append(seen - np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]))
    assert np.abs(np.array(offsets) - 0.5).max() <= 0.5 + 1e-6
    assert_allclose(np.mean(offsets, axis=0), 0.5, atol=0.15)
