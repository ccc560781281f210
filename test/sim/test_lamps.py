from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from airside_perception.geometry import apply, invert, transform
from airside_perception.projection import CameraModel
from airside_perception.sim.apron import apron
from airside_perception.sim.bodies import Body, structure
from airside_perception.sim.camera import Lens, Picture, _flow, look, take
from airside_perception.sim.caster import BruteCaster
from airside_perception.sim.conditions import Conditions, Light, conditions
from airside_perception.sim.lamplight import lamp_light
from airside_perception.sim.lamps import FLOOD, Lamp, Lamps, of_vehicle
from airside_perception.sim.layout import Layout
from airside_perception.sim.materials import row
from airside_perception.sim.mesh import box
from airside_perception.sim.pixels import first_hits
from airside_perception.sim.rig import OPTICAL2CAMERA
from airside_perception.sim.scene import Motion, Scene
from airside_perception.sim.shade import Lighting

LENS = Lens(
    CameraModel('camera', 96, 64, np.array([[60.0, 0, 47.5], [0, 60.0, 31.5], [0, 0, 1]])),
    transform(np.eye(3), np.array([1.0, 0.0, 1.6])) @ OPTICAL2CAMERA,
    noise=0.0,
)
NIGHT = Conditions('night', 'clear', sun_elevation=-0.4, lamps=True)


def stage(lamps: tuple[Lamp, ...] = (), wall: float = 12.0) -> Scene:
    """A wall ahead on level concrete, with lamps."""
    layout = Layout(np.random.default_rng(0))
    parts = [box((0.5, 6.0, 3.0), (0, 0, 0), row('concrete'))]
    layout.put(structure(parts), wall, 0.0, 0.0)
    layout.put(structure([box((0.1, 0.1, 0.1), (0, 0, -5), row('steel'))], lamps), 0, 0, 0.0,
               reserve=False)  # fmt: skip
    return layout.scenario(Motion(0, 0, 0), 'concrete', 0.0).at(0.0)


def shot(scene: Scene, sky: Conditions, lens: Lens = LENS) -> Picture:
    caster = BruteCaster(scene.triangles)
    lighting = Lighting.of(scene, Light(), sky)
    rngs = np.random.default_rng(0), np.random.default_rng(1)
    return take(lens, scene, caster, lighting, rngs[0], look(lens), rngs[1])


def test_irradiance_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    some = [
        Lamp((1.0, 2.0, 9.0), (0.6, 0.0, -0.8), 5.0, 1.0),
        Lamp((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), 3.0, 60.0),
        Lamp((-2.0, 1.0, 3.0), (0.0, 0.0, -1.0), 2.0, 0.8),
    ]
    lamps = Lamps.of(some, np.eye(4), np.zeros(2))
    points = rng.uniform([-10, -10, 0], [10, 10, 2], (60, 3)).astype(np.float32)
    normals = rng.normal(size=(60, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = lamps.irradiance(points, normals)
    for i, (point, normal) in enumerate(zip(points, normals, strict=True)):
        for j, lamp in enumerate(some):
            ray = point - np.array(lamp.position)
            length = np.linalg.norm(ray)
            lobe = max(ray @ np.array(lamp.axis) / length, 0.0) ** lamp.focus
            want = lamp.power * lobe * max(-ray @ normal / length, 0.0) / max(length**2, 0.3)
            assert_allclose(found[i, j], want, rtol=1e-3, atol=2e-4 * lamp.power)


def test_lamps_stand_on_the_inclined_ground_and_turn_with_the_vehicle():
    lamp = Lamp((0.0, 0.0, 4.0), (1.0, 0.0, 0.0)).moved(10.0, 5.0, np.pi / 2)
    assert_allclose(lamp.axis, (0, 1, 0), atol=1e-12)
    placed = Lamps.of([lamp], np.eye(4), np.array([0.01, -0.02]))
    assert_allclose(placed.position, [[10, 5, 4 + 0.1 - 0.1]], atol=1e-6)


def test_only_what_drives_has_lights_on():
    size = np.array([0, 0, 1.0, 5.0, 2.0, 2.0])
    assert of_vehicle('car', size, False) == []
    assert of_vehicle('aircraft', size, True) == []
    assert len(of_vehicle('car', size, True)) == 4
    assert len(of_vehicle('belt_loader', size, True)) == 5  # a beacon


def test_pools_of_light_are_brightest_under_their_lamp():
    scene = stage((Lamp((20.0, 10.0, 15.0), (0.0, 0.0, -1.0), FLOOD),))
    light = lamp_light(scene, NIGHT)
    assert light is not None
    places = np.array([[20.0, 10.0], [30.0, 10.0], [60.0, 10.0]], np.float32)
    under, beside, far = light.at(light.pools, places)[:, 1]
    assert_allclose(under, 0.98 * FLOOD / 15**2, rtol=0.03)
    # Lobe and incidence are both h / d: irradiance falls with the fourth power of that, over h^2.
    ratio = (15 / np.hypot(15, 10)) ** 4
    assert_allclose(beside / under, ratio, rtol=0.03)
    assert far < 0.05 * under
    assert lamp_light(scene, Conditions()) is None


def test_a_flood_light_lights_the_picture_and_lowers_its_gain():
    lit = stage((Lamp((6.0, 0.0, 12.0), (0.0, 0.0, -1.0), FLOOD),))
    dark, bright = shot(stage(), NIGHT), shot(lit, NIGHT)
    assert bright.exposure.gain < dark.exposure.gain
    assert dark.exposure.amplified > 2
    pool = bright.image[48:60, 30:66].mean() / bright.image[3:12].mean()
    assert pool > 1.5 * dark.image[48:60, 30:66].mean() / dark.image[3:12].mean()


def test_looking_into_a_lamp_glares_unless_something_hides_it():
    axis = (-1.0, 0.0, 0.0)
    seen = shot(stage((Lamp((10.0, 2.0, 2.0), axis, 8.0, 1.0),), 30.0), NIGHT)
    hidden = shot(stage((Lamp((20.0, 0.5, 2.0), axis, 8.0, 1.0),), 12.0), NIGHT)
    pixels, _ = LENS.model.project(np.array([[-2.0, -0.4, 9.0]]))
    x, y = pixels[0].round().astype(int)
    assert seen.image[y, x].min() > 200
    pixels, _ = LENS.model.project(np.array([[-0.5, -0.4, 19.0]]))
    x, y = pixels[0].round().astype(int)
    assert hidden.image[y, x].max() < 150


def test_wet_ground_mirrors_the_lamp():
    lamp = (Lamp((12.0, 2.0, 3.0), (-1.0, 0.0, 0.0), 8.0, 1.0),)
    wet = Conditions('night', 'clear', sun_elevation=-0.4, wetness=1.0, lamps=True)
    pixels, _ = LENS.model.project(np.array([[-2.0, 4.6, 11.0]]))  # 3 m below the ground
    x, y = pixels[0].round().astype(int)
    around = slice(y - 2, y + 3), slice(x - 1, x + 2)
    pictures = [shot(stage(lamp, 40.0), sky) for sky in (NIGHT, wet)]
    dry, soaked = (p.image[around].mean() * 1.0 for p in pictures)
    beside = pictures[1].image[y - 2 : y + 3, x + 14 : x + 20].mean()
    assert soaked > dry + 10
    assert soaked > beside + 15


def test_wet_ground_is_darker_by_day():
    scene = stage()
    dry = shot(scene, Conditions('day', 'clear'))
    wet = shot(scene, Conditions('day', 'clear', wetness=0.9))
    assert wet.image[56:].mean() < 0.9 * dry.image[56:].mean()


def test_noise_grows_in_the_dark():
    noisy = Lens(LENS.model, LENS.camera2base, noise=2.0)
    spread = []
    for sky in (Conditions(), NIGHT):
        clean, real = shot(stage(), sky), shot(stage(), sky, noisy)
        middle = (clean.image > 30) & (clean.image < 225)
        spread.append((real.image.astype(float) - clean.image)[middle].std())
    assert_allclose(spread[0], 2.0, rtol=0.1)
    assert_allclose(spread[1] / spread[0], np.sqrt(real.exposure.amplified), rtol=0.12)
    assert spread[1] > 1.5 * spread[0]


def test_fog_hides_what_is_behind_its_visibility():
    clear = shot(stage(wall=40.0), conditions(0, 'day', 'clear'))
    foggy = shot(stage(wall=40.0), Conditions('day', 'fog', visibility=60.0))
    wall = clear.triangle >= 0
    sky = foggy.image[:6].astype(float).mean(axis=(0, 1))
    contrast = [
        np.abs(p.image[wall].astype(float).mean(axis=0) - p.image[:6].mean(axis=(0, 1))).max()
        for p in (clear, foggy)
    ]
    assert contrast[1] < 0.35 * contrast[0]
    assert sky.min() > 150


def test_a_speeding_vehicle_blurs_what_is_beside_it_at_night():
    layout = Layout(np.random.default_rng(0))
    parts = [box((0.4, 0.3, 3.0), (x, 3.0, 0), row('white')) for x in np.arange(-6, 12, 1.2)]
    layout.put(structure(parts), 0.0, 0.0, 0.0, reserve=False)
    still, fast = (
        layout.scenario(Motion(0, 0, 0, speed), 'asphalt', 0.0).at(0.0) for speed in (0.0, 9.0)
    )
    aside = transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 0.0, 1.6]))
    lens = Lens(LENS.model, aside @ OPTICAL2CAMERA, noise=0.0)
    sharp, soft = (
        np.square(np.diff(shot(scene, NIGHT, lens).image[20:40].astype(float), axis=1)).sum()
        for scene in (still, fast)
    )
    assert soft < 0.75 * sharp


def test_motion_in_the_picture_is_that_of_the_projected_points():
    """Beside pictures taken a moment later, of a vehicle that turns and an actor that drives."""
    layout = Layout(np.random.default_rng(0))
    size = np.array([3.0, 2.0, 2.5])
    mesh = box(size, (0, 0, 0), row('red'))
    place = np.array([0, 0, 3.0, 2.0])
    layout.put(
        Body('car', mesh, len(mesh), np.array([0, 0, 1.25, *size]), place), 8.0, 1.0, 1.2, 5.0
    )
    scenario = layout.scenario(Motion(0, 0, 0.1, 4.0, 0.3), 'asphalt', 0.0)
    scene, step = scenario.at(0.0), 1e-3
    rays = look(LENS)
    hits = first_hits(scene, BruteCaster(scene.triangles), LENS.camera2base[:3, 3], rays, (64, 96))
    flow = _flow(LENS, scene, rays, hits)
    base2world, later = scene.base2world, scenario.pose(step)
    checked = 0
    for y, x in np.ndindex(16, 24):
        number = 4 * y * 96 + 4 * x
        if not hits.distance[number] < 40:
            continue
        place = LENS.camera2base[:3, 3] + rays[number].astype(float) * hits.distance[number]
        if hits.triangle[number] >= 0:
            place[:2] += step * scene.objects.velocities[0]
        moved = apply(invert(later @ LENS.camera2base) @ base2world, place[None])
        pixel, _ = LENS.model.project(moved)
        want = (pixel[0] - [4 * x, 4 * y]) / step
        assert_allclose(flow[y, x], want, atol=0.02 * np.hypot(*want) + 0.5)
        checked += hits.triangle[number] >= 0
    assert checked > 5


def test_an_apron_has_lamps_on_its_masts():
    lit = [len(apron(seed).lamps) for seed in range(8)]
    assert np.mean(np.array(lit) > 0) > 0.7
