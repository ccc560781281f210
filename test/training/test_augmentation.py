"""What training scans lose, the weather in them, and the bodies that are put into scenes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from airside_perception.overlap import bev_iou  # noqa: E402  (after the check for torch)
from airside_perception.sim.apron import apron  # noqa: E402
from airside_perception.sim.bodies import CLASSES  # noqa: E402
from airside_perception.sim.conditions import Conditions  # noqa: E402
from airside_perception.sim.lidar import PRESETS, Hits, answer, rays, with_ground  # noqa: E402
from airside_perception.sim.materials import row, standard  # noqa: E402
from airside_perception.sim.returns import halo, transmission, wet  # noqa: E402
from airside_perception.sim.scene import Objects, Scene  # noqa: E402
from training.echoes import Air, Loss, Met, Surfaces, air, echoes  # noqa: E402
from training.lidars import Lidar, preset  # noqa: E402
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
    assert (drawn.wetness[clear] == 0).all()
    damp = air(4000, Loss(damp=0.25), generator).wetness
    assert float((damp > 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert 0.2 <= float(damp[damp > 0].min()) <= float(damp.max()) <= 0.6
    for number in torch.nonzero(rainy | foggy).flatten()[:20].tolist():
        rate = float(drawn.rain[number])
        there = Conditions(  # in rain one sees as far as `sim.conditions` says
            weather='rain' if rate else 'fog',
            visibility=12_000 / (1 + rate / 3) if rate else float(drawn.visibility[number]),
            rain=rate, wetness=float(drawn.wetness[number]),
        )  # fmt: skip
        assert float(drawn.extinction[number]) == pytest.approx(there.extinction, rel=1e-4)
    # the share of a weak return that comes back through rain off a wet road
    distance, facing = np.float32([30.0]), np.float32([0.3])
    expected = transmission(there, distance) * wet(there, facing, np.array([True]))
    a, w = float(drawn.extinction[number]), float(drawn.wetness[number])
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


CONDITIONS = [
    Conditions(), Conditions(wetness=0.5),
    Conditions(weather='rain', visibility=3000.0, rain=9.0, wetness=0.8),
    Conditions(weather='fog', visibility=70.0, wetness=0.3),
]  # fmt: skip


@pytest.mark.parametrize('there', CONDITIONS, ids=['clear', 'damp', 'rain', 'fog'])
def test_an_empty_apron_answers_as_the_simulators(there, monkeypatch):
    """Returns of the ground by range, and what fog and rain answer beams to the sky."""
    spec, lidar, scans, table = PRESETS['roof64'], preset('roof64'), 24, standard()
    nothing = np.empty(0, np.int32)
    scene = Scene(
        np.empty((0, 3, 3), np.float32), nothing, nothing, Objects.none(), table, (0.0, 0.0),
        row('asphalt'), np.eye(4),
    )  # fmt: skip
    directions = rays(spec)
    far = np.full(len(directions), np.inf, np.float32)
    hits = Hits(far, np.full(len(far), -1, np.int32))
    hits = with_ground(hits, np.array([0, 0, lidar.height]), directions, (0.0, 0.0), 121.0)
    one = [
        answer(spec, scene, directions, hits, np.random.default_rng(s), there)[0] for s in (1, 2)
    ]
    kept = np.mean([e.kept & ~e.ghost for e in one], axis=0)
    ghosts = np.mean([e.ghost for e in one], axis=0)

    elevations = torch.as_tensor(lidar.elevations, dtype=torch.float32).repeat(scans, 1)
    count, firings = torch.full((scans,), 64), torch.full((scans,), lidar.firings)
    beams = spin(elevations, count, firings, torch.zeros(scans))
    down = -beams.directions[:, 2]
    distance = torch.where(down > 0, lidar.height / down, torch.inf)
    hit = torch.nonzero(distance < 120).flatten()
    met = Met(
        hit, distance[hit], down[hit], torch.full((len(hit),), row('asphalt')),
        torch.ones(len(hit), dtype=torch.bool),
    )  # fmt: skip
    clear = there.visibility if there.weather == 'fog' else np.inf
    weather = (there.extinction, clear, there.rain, there.wetness)
    drawn = Air(*(torch.full((scans,), float(value)) for value in weather))
    monkeypatch.setattr('training.echoes.air', lambda *_: drawn)
    found = echoes(met, beams, [lidar] * scans, looks_of(table), Loss(), generator_of(0))
    solid = found.hit >= 0
    seen = torch.zeros(2, len(beams.scan))
    seen[0, found.beam[solid]] = 1.0
    seen[1, found.beam[~solid]] = 1.0
    seen, distance = seen.view(2, scans, -1), distance.view(scans, -1)[0]
    for low, high in ((4, 12), (12, 20), (20, 30), (30, 45), (45, 60), (60, 80)):
        theirs = (hits.distance >= low) & (hits.distance < high)
        mine = (distance >= low) & (distance < high)
        share = seen[0][:, mine].mean(1)
        assert share.min() - 0.02 < kept[theirs].mean() < share.max() + 0.02
    sky, above = ~np.isfinite(hits.distance), ~torch.isfinite(distance)
    assert float(seen[1][:, above].mean()) == pytest.approx(ghosts[sky].mean(), rel=0.1, abs=1e-4)


def test_tape_shines_far_and_blinds_the_beams_beside_it_as_in_the_simulator():
    """A patch of tape before a wall, and the share of the beams around it that report it."""
    lidar = Lidar(np.radians(np.linspace(5, -25, RINGS)), FIRINGS, 1.8, 100.0, 0.0, 0.0)
    elevations = torch.as_tensor(lidar.elevations, dtype=torch.float32).repeat(SCANS, 1)
    count, firings = torch.full((SCANS,), RINGS), torch.full((SCANS,), FIRINGS)
    beams = spin(elevations, count, firings, torch.zeros(SCANS))
    n = len(beams.scan)
    # tape at the seam of the turn and at the top ring, which have a neighbour less or far away
    tape = ((beams.azimuth == 0) | (beams.azimuth == 50)) & (beams.row < 3)
    sky = beams.row == 4
    distance = torch.where(tape, 12.0, 60.0)
    hit = torch.nonzero(~sky).flatten()
    kind = torch.where(tape, 1, 0)[hit]
    met = Met(
        hit, distance[hit], torch.ones(len(hit)), kind, torch.zeros(len(hit), dtype=torch.bool)
    )
    looks = Surfaces(
        torch.tensor([0.5, 0.9]), torch.zeros(2), torch.zeros(2), torch.tensor([0.0, 1.0])
    )
    found = echoes(met, beams, [lidar] * SCANS, looks, Loss(halos=1.0), generator_of(3))
    struck = torch.zeros(n)
    struck[found.beam[found.hit < 0]] = 1.0
    assert (found.distance[found.hit < 0] == 12.0).all()
    assert len(torch.unique(found.beam)) == len(found.beam)
    assert float(found.intensity[found.hit < 0].mean()) == pytest.approx(0.3, abs=0.02)

    rng = np.random.default_rng(0)
    spec = dataclasses.replace(PRESETS['roof64'], elevations=tuple(lidar.elevations))
    there = torch.where(sky, torch.inf, distance).view(SCANS, -1)[0].numpy()
    retro = tape.view(SCANS, -1)[0].numpy()
    theirs = np.mean([np.isfinite(halo(spec, there, retro, rng)) for _ in range(SCANS)], axis=0)
    mine = struck.view(SCANS, -1).mean(0).numpy()
    np.testing.assert_array_equal(mine > 0, theirs > 0)
    assert mine.sum() == pytest.approx(theirs.sum(), rel=0.15)
    none = echoes(met, beams, [lidar] * SCANS, looks, Loss(), generator_of(3))
    assert (none.hit >= 0).all()

    def at_80(kind):
        """Share of beams that come back from 80 m, at an angle."""
        met = Met(
            torch.arange(n), torch.full((n,), 80.0), torch.full((n,), 0.3),
            torch.full((n,), kind), torch.zeros(n, dtype=torch.bool),
        )  # fmt: skip
        return len(echoes(met, beams, [lidar] * SCANS, looks, Loss(), generator_of(1)).beam) / n

    assert at_80(0) < 0.9
    assert at_80(1) > 0.99  # with its reflectivity of 0.9 alone it would be 0.95


def looks_of(table):
    """Materials of the simulator as training has them."""
    depth = torch.zeros(len(table.loss))
    return Surfaces(
        torch.tensor(table.reflectivity), torch.tensor(table.loss), depth,
        torch.tensor(table.retro).float(),
    )  # fmt: skip


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


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
    assert {make.__module__ for _, make, _ in MAKERS} >= {'airside_perception.sim.people'}


def test_bodies_are_of_the_class_that_they_are_drawn_as():
    for label, make, _ in MAKERS:
        assert {make(np.random.default_rng(seed)).label for seed in range(8)} == {label}
    assert {label for label, _, _ in MAKERS} == set(CLASSES) - {'aircraft'}


def test_classes_that_a_scene_does_not_take_leave_their_share_to_the_others():
    """On a street as many bodies are pasted as on an apron, not only the few that fit there."""
    only = {'person': 0, 'car': 1}
    scene = apron(1).at(1.0)
    counts = [
        len(pasted(scene, np.random.default_rng(seed), 12, only).classes) for seed in range(30)
    ]
    whole = [
        len(pasted(scene, np.random.default_rng(seed), 12, LABELS).classes) for seed in range(30)
    ]
    assert np.mean(counts) > 0.9 * np.mean(whole)
    assert pasted(scene, np.random.default_rng(0), 12, {}).classes == ()


def test_pasted_scenes_keep_their_own_part():
    plain = build(77, Recipe(LABELS, 0.5, clutter=False))
    more = build(77, Recipe(LABELS, 0.5, clutter=False, paste=30))
    own = len(plain[3])
    np.testing.assert_array_equal(plain[3], more[3][:own])
    assert len(more[3]) > own
    owners = np.unique(more[2][more[2] >= 0])
    assert owners.max() == len(more[3]) - 1
    assert len(more[6]) == len(more[4]) == len(more[3])
