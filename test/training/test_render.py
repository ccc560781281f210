from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from airside_perception.geometry import transform  # noqa: E402  (the same)
from airside_perception.projection import CameraModel  # noqa: E402  (after the check for torch)
from airside_perception.sim import camera as sim  # noqa: E402  (the same)
from airside_perception.sim.caster import BruteCaster  # noqa: E402  (the same)
from airside_perception.sim.materials import row, standard  # noqa: E402  (the same)
from airside_perception.sim.mesh import box, merge, rotation  # noqa: E402  (the same)
from airside_perception.sim.rig import OPTICAL2CAMERA  # noqa: E402  (the same)
from airside_perception.sim.scene import Objects, Scene  # noqa: E402  (the same)
from training.render import render  # noqa: E402  (the same)
from training.scans import World  # noqa: E402  (the same)
from training.views import Views, draw  # noqa: E402  (the same)

WIDTH, HEIGHT = 96, 64
PITCH, TALL, FOCAL, K1, K2 = 0.07, 1.7, 55.0, -0.04, 0.006
AZIMUTH, ELEVATION = 2.2, 0.8


@pytest.fixture(scope='module')
def parts():
    """Three boxes: one in front of another, and a wall that is no object."""
    return [
        box((4.0, 1.8, 1.5), (12.0, 2.0, 0.0), row('red')),
        box((6.0, 2.5, 3.0), (20.0, 3.0, 0.0), row('white')),
        box((0.3, 8.0, 4.0), (25.0, -8.0, 0.0), row('brick')),
    ]


def scene_of(parts):
    whole = merge(parts)
    owner = np.repeat([0, 1, -1], [len(part) for part in parts]).astype(np.int32)
    boxes = np.array([[12, 2, 0.75, 4, 1.8, 1.5, 0], [20, 3, 1.5, 6, 2.5, 3, 0]], float)
    objects = Objects(('car', 'truck'), boxes, np.zeros((2, 2)), np.arange(2))
    return Scene(
        whole.triangles, owner, whole.materials, objects, standard(), (0.0, 0.0), row('asphalt'),
        np.eye(4),
    )  # fmt: skip


def world_of(scene):
    corners = 1500 * np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]], np.float32)
    floor = corners[[[0, 1, 2], [0, 2, 3]]]
    return World(
        torch.as_tensor(np.concatenate([scene.triangles, floor])),
        torch.as_tensor(np.append(scene.material, [scene.ground] * 2).astype(np.int16)),
        torch.as_tensor(np.append(scene.instance, [-1, -1]).astype(np.int64)),
        torch.as_tensor(scene.objects.boxes, dtype=torch.float32),
        torch.arange(2),
        torch.zeros(1, 2),
        torch.zeros(2, 2),
    )


def plain(**changes):
    """One camera at the origin without noise."""
    values = {
        'yaw': 0.0, 'pitch': PITCH, 'roll': 0.0, 'height': TALL, 'focal': FOCAL, 'k1': K1,
        'k2': K2, 'azimuth': AZIMUTH, 'elevation': ELEVATION, 'sun': 0.75, 'sky': 0.45,
        'visibility': 900.0, 'shadows': 1.0, 'exposure': 1.0, 'noise': 0.0, 'blur': 0.55,
        'paint': 0.0, 'grain': 1.0, 'clouds': 0.0, **changes,
    }  # fmt: skip
    return Views(
        spot=torch.zeros(1, 2),
        centre=torch.tensor([[(WIDTH - 1) / 2, (HEIGHT - 1) / 2]]),
        cast=torch.ones(1, 3),
        colours=torch.as_tensor(standard().colour)[None],
        **{name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()},
    )


def simulated(scene, shadows=True):
    matrix = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    model = CameraModel('camera', WIDTH, HEIGHT, matrix, (K1, K2, 0.0, 0.0, 0.0))
    mount = transform(rotation(0.0, PITCH), np.array([0.0, 0.0, TALL])) @ OPTICAL2CAMERA
    lens = sim.Lens(model, mount, noise=0.0)
    light = sim.Light(AZIMUTH, ELEVATION, shadows=shadows)
    rng = np.random.default_rng(0)
    return sim.render(lens, scene, BruteCaster(scene.triangles), light, rng)


@pytest.mark.parametrize('shadows', [False, True])
def test_draws_what_the_simulators_camera_draws(parts, shadows):
    scene = scene_of(parts)
    want = simulated(scene, shadows)
    generator = torch.Generator().manual_seed(0)
    got = render([world_of(scene)], plain(shadows=float(shadows)), generator, WIDTH, HEIGHT)
    owner = got.owner[0].numpy()
    assert (owner != want.instance).mean() < 0.004
    image = got.images[0].permute(1, 2, 0).numpy().astype(int)
    far = np.abs(image - want.image.astype(int)).max(axis=2) > 6
    # The horizon, the edges of shadows and of the ground's grains may differ by a pixel.
    assert far.mean() < 0.02


def test_shadows_darken(parts):
    world = world_of(scene_of(parts))
    images = [
        render(
            [world], plain(shadows=on), torch.Generator().manual_seed(0), WIDTH, HEIGHT
        ).images.float()
        for on in (0.0, 1.0)
    ]
    change = (images[1] - images[0])[0].mean(0)
    assert change.max() < 2
    assert 0.002 < (change < -20).float().mean() < 0.5


def test_boxes_are_those_of_the_visible_pixels(parts):
    scene = scene_of(parts)
    picture = simulated(scene)
    want = sim.visible(picture, scene, 0, 'camera', 1)
    generator = torch.Generator().manual_seed(0)
    got = render([world_of(scene)], plain(), generator, WIDTH, HEIGHT)
    assert want.classes == ('car', 'truck')
    assert got.label.tolist() == [0, 1]
    np.testing.assert_allclose(got.boxes.numpy(), want.xyxy, atol=1)
    # The car is in full view, the truck stands behind it.
    assert got.share[0] > 0.9
    assert got.share[1] < got.share[0]


def test_yaw_turns_the_world_and_views_do_not_mix(parts):
    world = world_of(scene_of(parts))
    two = [plain(), plain(yaw=math.pi)]
    joined = Views(
        **{
            name: torch.cat([getattr(view, name) for view in two])
            for name in Views.__dataclass_fields__
        }
    )
    got = render([world, world], joined, torch.Generator().manual_seed(0), WIDTH, HEIGHT)
    assert got.view.tolist() == [0, 0, 1, 1]
    assert (got.pixels > 0).tolist() == [True, True, False, False]
    assert (got.owner[1] == -1).all()


def test_random_views_are_reproducible_and_within_bounds(parts):
    world = world_of(scene_of(parts))
    colours = torch.as_tensor(standard().colour)
    first, again = (
        draw([world] * 50, colours, np.random.default_rng(4), WIDTH, HEIGHT) for _ in range(2)
    )
    for name in Views.__dataclass_fields__:
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert float(first.height.min()) >= 1.2
    assert float(first.height.max()) <= 2.2
    assert float(first.colours.max()) <= 1.0
