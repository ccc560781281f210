from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from test.crates import PLAIN, crates, inside  # noqa: E402  (after the check for torch)
from training.echoes import Loss as Weather  # noqa: E402
from training.echoes import Surfaces, air  # noqa: E402
from training.past import Past, _arc, draw_motion, into_past, late, to_now  # noqa: E402
from training.pillars import Grid, decorate  # noqa: E402
from training.scans import Variation, make_batch  # noqa: E402

DRIVING = Past(sweeps=2, periods=(0.1,), speed=8.0, turn=0.5)


def scans_of(past, speed=0.0, scans=6):
    """Scans of crates, the first of which drives at `speed` along its own length."""
    surfaces = Surfaces(torch.full((1,), 0.9), torch.zeros(1), torch.zeros(1))
    worlds = []
    for seed in range(scans):
        world = crates(seed)
        heading = world.boxes[0, 6]
        world.velocity[0] = speed * torch.stack([torch.cos(heading), torch.sin(heading)])
        worlds.append(world)
    places = np.linspace(0, 0.99, scans)
    generator = torch.Generator().manual_seed(3)
    return make_batch(
        worlds, [PLAIN] * scans, places, surfaces, Variation(), generator, 5, past
    )  # fmt: skip


def drawers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        lambda *shape: torch.rand(shape, generator=generator),
        lambda *shape: torch.randn(shape, generator=generator),
    )


def test_what_stands_still_lies_upon_itself_though_the_vehicle_drives():
    batch = scans_of(DRIVING)
    lags = batch.points[:, 4].unique()
    torch.testing.assert_close(lags, torch.tensor([0.0, 0.1, 0.2]))
    for scan in range(6):
        mine = batch.points[batch.scan == scan].double().numpy()
        boxes = batch.truth.boxes[batch.truth.scan == scan].double().numpy()
        for lag in (0.0, 0.1, 0.2):
            points = mine[np.isclose(mine[:, 4], lag), :3]
            assert len(points) > 5000
            raised = np.abs(points[:, 2]) > 0.002
            assert raised.sum() > 300
            assert inside(points, boxes, 0.002)[raised].mean() > 0.999


def test_what_drives_leaves_a_trail_behind_it():
    batch, period = scans_of(DRIVING, speed=6.0), 0.1
    for scan in range(6):
        mine = batch.points[batch.scan == scan].double().numpy()
        rows = batch.truth.scan == scan
        boxes = batch.truth.boxes[rows].double().numpy()
        velocities = batch.truth.velocity[rows].double().numpy()
        assert np.hypot(*velocities[0]) == pytest.approx(6.0, abs=1e-4)
        assert not velocities[1:].any()
        spans = []
        for lag in (0.0, 0.1, 0.2):
            points = mine[np.isclose(mine[:, 4], lag), :3]
            others = inside(points, boxes[1:], 0.002) | (np.abs(points[:, 2]) <= 0.002)
            fits = []  # how many of the driving crate's points fit it where it was so long ago
            for ago in np.arange(-0.1, 0.4, 0.005):
                then = boxes[:1].copy()
                then[0, :2] -= velocities[0] * ago
                fits.append(inside(points[~others], then, 0.04).mean())
            assert max(fits) > 0.999
            found = np.arange(-0.1, 0.4, 0.005)[np.array(fits) > 0.999]
            assert found.min() <= lag + period
            assert found.max() >= lag
            spans.append((found.min(), found.max()))
        # of its front and back one is seen and says exactly where it was
        off = np.abs(np.diff(spans, axis=0) - period).max(axis=0)
        assert off.min() < 0.012


def test_the_newest_sweep_comes_first_and_alone_is_counted():
    batch, single = scans_of(DRIVING), scans_of(replace(DRIVING, sweeps=0))
    for scan in range(6):
        lags = batch.points[batch.scan == scan, 4]
        assert (lags.diff() >= 0).all()
    # about as many as a single sweep has, which is another draw of the same scenes
    assert batch.returns.sum() == pytest.approx(int(single.returns.sum()), rel=0.3)
    assert (single.points[:, 4] == 0).all()


def test_sweeps_may_be_missing():
    batch = scans_of(replace(DRIVING, missing=1.0), scans=12)
    oldest = [float(batch.points[batch.scan == scan, 4].max()) for scan in range(12)]
    assert {round(age, 3) for age in oldest} == {0.0, 0.1}  # none has both


def test_wrong_odometry_moves_what_stands():
    batch = scans_of(replace(DRIVING, drift=1.0))
    points, scan = batch.points.double().numpy(), batch.scan.numpy()
    off = 0
    for number in range(6):
        boxes = batch.truth.boxes[batch.truth.scan == number].double().numpy()
        mine = points[(scan == number) & (points[:, 2] > 0.3)]
        outside = ~inside(mine[:, :3], boxes, 0.02)
        assert not outside[mine[:, 4] == 0].any()
        off += int(outside[mine[:, 4] > 0.15].sum())
    assert off > 200


def test_the_way_back_is_an_arc():
    """Against small steps of a vehicle that drives on: the pose then, seen from now."""
    speed, turn, age, steps = 7.0, -0.4, 0.2, 20_000
    x = y = yaw = 0.0
    for _ in range(steps):
        middle = yaw + turn * age / steps / 2
        x += speed * age / steps * np.cos(middle)
        y += speed * age / steps * np.sin(middle)
        yaw += turn * age / steps
    c, s = np.cos(yaw), np.sin(yaw)
    expected = [-(c * x + s * y), -(-s * x + c * y), -yaw]
    values = [torch.tensor([[value]], dtype=torch.float64) for value in (speed, turn, age)]
    found = _arc(values[0][0], values[1][0], values[2])[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_to_now_undoes_into_past():
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(50, 3, generator=generator, dtype=torch.float64) * 20
    pose = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    rotation, shift = into_past(pose)
    then = (rotation @ points[:, :, None]).squeeze(2) + shift
    torch.testing.assert_close(to_now(then, pose), points)


def test_a_turn_passes_an_object_once_a_period():
    motion = draw_motion(DRIVING, 500, *drawers())
    scan = torch.arange(500)
    boxes = torch.tensor([[10.0, 0.0]]).repeat(500, 1)
    ago = late(motion, boxes, scan)
    assert 0 <= float(ago.min()) < 0.005
    assert 0.095 < float(ago.max()) <= 0.1
    quarter = torch.tensor([[0.0, 10.0]]).repeat(500, 1)  # a quarter turn to the left
    later = torch.remainder(ago - late(motion, quarter, scan), 0.1)
    torch.testing.assert_close(later, torch.where(motion.way > 0, 0.025, 0.075))


def test_sweeps_of_a_scan_share_the_weather():
    foul = air(6, Weather(fog=0.5, rain=0.5), torch.Generator().manual_seed(0), sweeps=3)
    for name in ('extinction', 'visibility', 'rain', 'wetness'):
        values = getattr(foul, name)
        assert torch.equal(values[:2], values[2:4])
        assert torch.equal(values[:2], values[4:])


def test_the_age_is_a_feature():
    points = torch.tensor([[1.0, 1.0, 0.0, 0.5, 0.0], [1.0, 1.1, 0.0, 0.2, 0.1]])
    grid = Grid((0.0, 0.0, -1.0, 4.0, 4.0, 1.0), (2.0, 2.0))
    told = decorate(points, torch.zeros(2, dtype=torch.long), grid, ('z', 'time_lag'), 8, 8)
    torch.testing.assert_close(told.features[:, 1], torch.tensor([0.0, 0.1]))
