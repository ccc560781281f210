"""What training scans lose, the weather in them, and the bodies that are put into scenes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from airside_perception.overlap import bev_iou  # noqa: E402  (after the check for torch)
from airside_perception.sim.apron import apron  # noqa: E402
from airside_perception.sim.bodies import CLASSES  # noqa: E402
from airside_perception.sim.conditions import Conditions  # noqa: E402
from airside_perception.sim.returns import transmission, wet  # noqa: E402
from training.echoes import Loss, Met, Surfaces, air, echoes  # noqa: E402
from training.lidars import Lidar  # noqa: E402
from training.paste import MAKERS, pasted  # noqa: E402
from training.raycast import spin  # noqa: E402
from training.worlds import Recipe, build  # noqa: E402

RINGS, FIRINGS, SCANS = 16, 200, 60
LIDAR = Lidar(np.radians(np.linspace(5, -25, RINGS)), FIRINGS, 1.8, 100.0, 0.0, 0.0)
LABELS = {name: number for number, name in enumerate(CLASSES)}


def scan_of(loss, distance=20.0, retro=0.0, ground=False, seed=0):
    """Echoes of scans in which every beam meets a wall of reflectivity 0.5 head-on."""
    elevations = torch.as_tensor(LIDAR.elevations, dtype=torch.float32).repeat(SCANS, 1)
    count = torch.full((SCANS,), RINGS)
    beams = spin(elevations, count, torch.full((SCANS,), FIRINGS), torch.zeros(SCANS))
    n = len(beams.scan)
    met = Met(
        torch.arange(n), torch.full((n,), distance), torch.ones(n),
        torch.zeros(n, dtype=torch.int64), torch.full((n,), ground),
    )  # fmt: skip
    looks = Surfaces(torch.tensor([0.5]), torch.zeros(1), torch.zeros(1), torch.tensor([retro]))
    generator = torch.Generator().manual_seed(seed)
    return echoes(met, beams, [LIDAR] * SCANS, looks, loss, generator), beams


def test_nothing_is_lost_without_a_loss():
    found, beams = scan_of(Loss())
    assert (found.hit >= 0).all()
    assert len(found.beam) > 0.99 * len(beams.scan)  # 0.5 / 0.1 x 25 is far above the threshold
    assert (found.distance == 20.0).all()
    middle = found.intensity.mean()
    assert 0.45 < float(middle) < 0.52
    shining, _ = scan_of(Loss(), retro=1.0)
    assert float(shining.intensity.mean()) > 0.9


def test_sectors_are_lost_whole():
    found, beams = scan_of(Loss(sectors=1.0))
    seen = torch.zeros(len(beams.scan), dtype=torch.bool)
    seen[found.beam] = True
    counts = torch.zeros(SCANS, FIRINGS)
    counts.index_put_((beams.scan, beams.azimuth), seen.float(), accumulate=True)
    gone = counts == 0
    shares = gone.float().mean(1)
    assert shares.max() < 0.26
    assert shares.mean() == pytest.approx(0.125, abs=0.04)
    edges = (gone != gone.roll(1, 1)).sum(1)
    assert edges.max() <= 2  # one piece, seen around the circle


def test_rings_are_lost_whole_and_beams_one_by_one():
    for loss, whole in ((Loss(rings=0.5), True), (Loss(beams=0.5), False)):
        found, beams = scan_of(loss)
        counts = torch.zeros(SCANS, RINGS)
        one = torch.ones(len(found.beam))
        place = beams.scan[found.beam], beams.row[found.beam]
        counts.index_put_(place, one, accumulate=True)
        share = counts / FIRINGS
        touched = (share.mean(1) < 0.97).float().mean()
        assert 0.3 < float(touched) < 0.6  # every other scan
        empty = (share == 0).any()
        assert bool(empty) == whole
        if whole:
            assert ((share == 0) | (share > 0.95)).all()
        else:
            assert share.min() > 0.35


def test_weather_is_drawn_as_often_as_asked_and_weakens_as_the_simulator_says():
    generator = torch.Generator().manual_seed(1)
    drawn = air(4000, Loss(fog=0.2, rain=0.3), generator)
    foggy, rainy = torch.isfinite(drawn.visibility), drawn.rain > 0
    assert float(foggy.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(rainy.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert not (foggy & rainy).any()
    clear = ~foggy & ~rainy
    assert (drawn.extinction[clear] == 0).all()
    for row in torch.nonzero(rainy | foggy).flatten()[:20].tolist():
        far = float(drawn.visibility[row])
        there = Conditions(
            weather='rain' if drawn.rain[row] > 0 else 'fog', visibility=min(far, 1e30),
            rain=float(drawn.rain[row]), wetness=float(drawn.wetness[row]),
        )  # fmt: skip
        assert float(drawn.extinction[row]) == pytest.approx(there.extinction, rel=1e-4)
    # the share of a weak return that comes back through rain off a wet road
    distance, facing = np.float32([30.0]), np.float32([0.3])
    expected = transmission(there, distance) * wet(there, facing, np.array([True]))
    a, w = float(drawn.extinction[row]), float(drawn.wetness[row])
    mine = np.exp(-2 * a * 30.0) * (1 - 0.5 * w) * (1 - w * 0.7**1.5)
    assert mine == pytest.approx(float(expected[0]), rel=1e-4)


def test_fog_and_rain_answer_near_the_sensor_and_are_nobody():
    clear, _ = scan_of(Loss(), distance=60.0)
    for loss in (Loss(fog=1.0), Loss(rain=1.0)):
        found, _ = scan_of(loss, distance=60.0)
        ghosts = found.hit < 0
        assert 0 < float(ghosts.float().mean()) < 0.9
        assert found.distance[ghosts].max() < 60.0
        assert float(found.distance[ghosts].median()) < 20.0
        assert float((~ghosts).sum()) < len(clear.beam)
        assert len(torch.unique(found.beam)) == len(found.beam)  # a beam answers once


def test_intensities_differ_from_sensor_to_sensor():
    plain, _ = scan_of(Loss())
    found, beams = scan_of(Loss(gain=0.5, mute=0.3))
    scan = beams.scan[found.beam]
    mean = torch.stack([found.intensity[scan == number].mean() for number in range(SCANS)])
    assert 0.1 < float((mean == 0).float().mean()) < 0.5
    assert float(mean[mean > 0].std()) > 0.1
    assert float(plain.intensity.std()) < 0.1


def test_pasted_bodies_stand_free_and_are_labelled():
    names, total = set(), 0
    for seed in range(6):
        scene = apron(seed).at(1.0)
        extra = pasted(scene, np.random.default_rng(seed), 40, LABELS)
        count = len(extra.classes)
        total += count
        names |= set(extra.classes)
        assert extra.boxes.shape == (count, 7)
        assert extra.velocities.shape == (count, 2)
        assert len(extra.owner) == len(extra.mesh)
        boxes = np.concatenate([scene.objects.boxes, extra.boxes])
        overlap = bev_iou(extra.boxes, boxes)
        overlap[np.arange(count), len(scene.objects) + np.arange(count)] = 0
        # under a fuselage there is room
        low = np.array([name != 'aircraft' for name in (*scene.objects.classes, *extra.classes)])
        assert overlap[:, low].max(initial=0) < 1e-6
        for number, (x, y, z, length, width, height, _) in enumerate(extra.boxes):
            mine = extra.mesh.triangles[extra.owner == number].reshape(-1, 3)
            assert len(mine)
            reach = np.hypot(mine[:, 0] - x, mine[:, 1] - y).max()
            assert reach < np.hypot(length, width) / 2 + 0.35
            assert mine[:, 2].max() < z + height / 2 + 0.4
            assert 3.0 < np.hypot(x, y) < 60
    assert total > 40
    assert len(names) > 5
    assert {maker.__module__ for maker, _ in MAKERS} >= {'airside_perception.sim.people'}


def test_pasted_scenes_keep_their_own_part():
    plain = build(77, Recipe(LABELS, 0.5, clutter=False))
    more = build(77, Recipe(LABELS, 0.5, clutter=False, paste=30))
    own = len(plain[3])
    np.testing.assert_array_equal(plain[3], more[3][:own])
    assert len(more[3]) > own
    owners = np.unique(more[2][more[2] >= 0])
    assert owners.max() == len(more[3]) - 1
    assert len(more[6]) == len(more[4]) == len(more[3])
