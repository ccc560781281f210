from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from airside_perception.sim.mesh import box  # noqa: E402  (after the check for torch)
from test.crates import PLAIN, crates, inside  # noqa: E402
from training import sitting  # noqa: E402
from training.echoes import Loss  # noqa: E402
from training.export import card  # noqa: E402
from training.heads import head_of  # noqa: E402
from training.lidars import MOST_RINGS, preset, random_lidar, roof_lidar  # noqa: E402
from training.model import Model  # noqa: E402
from training.pillars import decorate  # noqa: E402
from training.recipe import load  # noqa: E402
from training.scans import Surfaces, Variation, _stretch, make_batch  # noqa: E402
from training.train import Lesson, Run, run  # noqa: E402
from training.validate import TOGETHER, Validation  # noqa: E402
from training.worlds import Recipe, build  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'training' / 'pointpillars.yaml'
SMALL = {
    'limits': [-30.72, -30.72, -2.0, 30.72, 30.72, 8.0], 'batch': 1, 'workers': 1, 'pool': 2,
    'widths': [8, 8, 8, 8], 'depths': [0, 0, 0, 0], 'neck': 8, 'channels': 8,
    'validation': {'scenes': 0},
}  # fmt: skip


def batch_of(variation, scans=4):
    surfaces = Surfaces(torch.full((1,), 0.9), torch.zeros(1), torch.zeros(1))
    worlds = [crates(seed) for seed in range(scans)]
    places = np.linspace(0, 0.99, scans)
    return make_batch(
        worlds, [PLAIN] * scans, places, surfaces, variation, torch.Generator().manual_seed(5), 5
    )


@pytest.mark.parametrize(
    ('variation', 'margin', 'flat'),
    [
        (Variation(), 0.002, 0.002),
        (Variation(scale=0.05, stretch=0.1), 0.002, 0.002),
        (Variation(slope=0.02, waves=0.4, lift=0.05), 0.25, 3.0),
    ],
)
def test_every_return_lies_on_the_ground_or_in_its_box(variation, margin, flat):
    """Shift, turn, mirror and stretch move triangles and boxes alike."""
    batch = batch_of(variation)
    for scan in range(4):
        points = batch.points[batch.scan == scan, :3].double().numpy()
        boxes = batch.truth.boxes[batch.truth.scan == scan].double().numpy()
        returns = batch.returns[batch.truth.scan == scan].numpy()
        within = inside(points, boxes, margin)
        assert returns.sum() > 300
        if flat < 1:
            raised = np.abs(points[:, 2]) > flat
            assert within[raised].mean() > 0.999
            assert raised.sum() == pytest.approx(returns.sum(), rel=0.05)
        else:
            assert within.sum() >= 0.95 * returns.sum()


def test_an_aircraft_keeps_its_shape_since_only_its_hull_is_labelled():
    """Every triangle of it stays, as its unlabelled wings do; a bus of 18 m is stretched."""
    boxes, sizes = [], [(38.0, 4.0, 4.1), (18.0, 2.6, 3.1)]
    for row, size in enumerate(sizes):
        boxes.append([9.0 * row, 5.0, size[2] / 2, *size, 0.7])
    parts = [box(b[3:6], (0, 0, 0), 0).moved((*b[:2], 0.0), b[6]).triangles for b in boxes]
    triangles = torch.tensor(np.concatenate(parts), dtype=torch.float32)
    owner = torch.arange(2).repeat_interleave(len(parts[0]))
    before = torch.tensor(boxes, dtype=torch.float32)
    factors = torch.tensor([[1.1, 0.9, 1.05]]).repeat(2, 1)
    moved, after = _stretch(triangles, owner, before, factors)
    torch.testing.assert_close(moved[owner == 0], triangles[owner == 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1, 3:6], before[1, 3:6] * factors[1])
    assert (moved[owner == 1] - triangles[owner == 1]).abs().max() > 0.5


def test_small_integers_make_the_same_scans():
    """Worlds travel to the accelerator with materials of 16 and owners of 32 bits."""
    surfaces = Surfaces(torch.full((1,), 0.9), torch.zeros(1), torch.zeros(1))
    worlds = [crates(seed) for seed in range(2)]
    wide = [replace(w, material=w.material.long(), owner=w.owner.long()) for w in worlds]
    variation = Variation(stretch=0.1, loss=Loss(beams=0.3, fog=0.5))
    made = [
        make_batch(
            some, [PLAIN] * 2, [0.0, 0.9], surfaces, variation, torch.Generator().manual_seed(5), 5
        )
        for some in (worlds, wide)
    ]
    assert torch.equal(made[0].points, made[1].points)
    assert torch.equal(made[0].returns, made[1].returns)
    first = build(1234, Recipe(load(CONFIG).simulated, 0.5))
    assert [part.dtype for part in first[1:3]] == [np.int16, np.int32]


def lesson_of(training):
    """One lesson of a scan of crates."""
    surfaces = Surfaces(torch.full((1,), 0.9), torch.zeros(1), torch.zeros(1))
    batch = make_batch(
        [crates(0)], [PLAIN], [0.0], surfaces, Variation(), torch.Generator().manual_seed(5), 5
    )
    t = training
    points = decorate(batch.points, batch.scan, t.grid, t.features, t.max_points, t.max_pillars)
    return Lesson(points, head_of(t, torch.device('cpu')).assign(batch.truth, 1))


def test_the_average_follows_the_weights_before_and_after_a_restart(tmp_path):
    training = load(CONFIG, **SMALL)
    lesson, state = lesson_of(training), Run(training, torch.device('cpu'))
    for restart in (False, True):
        if restart:
            state.save(tmp_path)
            state = Run(training, torch.device('cpu'))
            state.restore(tmp_path)
        before = {name: value.clone() for name, value in state.average.items()}
        state.update(lesson, 0.5)
        blend = 1 - min(training.average, (1 + state.step) / (10 + state.step))
        now = state.model.state_dict()
        moved = 0
        for name, value in state.average.items():
            if value.is_floating_point():
                expected = before[name].lerp(now[name], blend)
                torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-6)
                moved += int(not torch.equal(value, before[name]))
        assert moved > 20


def test_a_short_canvas_is_the_long_one_rounded():
    """It is rounded where its first reader would do it; gradients are the same."""
    training = load(CONFIG, **SMALL)
    points, _ = lesson_of(training)
    net, shape = training.pillar_net(), (1, *training.grid.shape)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        net.zero_grad()
        canvas = net(points.features, points.pillar, points.cells, shape, dtype).bfloat16()
        canvas.square().sum().backward()
        found.append((canvas, net.linear.weight.grad.clone()))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_every_other_held_out_batch_is_in_foul_weather_and_all_are_always_the_same():
    training = load(CONFIG, **SMALL)
    surfaces = Surfaces(torch.full((1,), 0.9), torch.zeros(1), torch.zeros(1))
    worlds = [crates(seed) for seed in range(2 * TOGETHER)]
    text = card(training, training.pillar_net(), '', {}, {})
    one, other = (Validation(training, text, worlds, surfaces)._batches for _ in range(2))
    for mine, same in zip(one, other, strict=True):
        assert torch.equal(mine.points, same.points)
    # No crate is so high: up there only fog and rain answer.
    clear, foul = ((batch.points[:, 2] > 3.5).sum() for batch in one)
    assert clear == 0
    assert foul > 100
    found = Validation(training, text, worlds, surfaces)(Model(training).eval())
    assert set(found) == {'map', 'person'}


def test_objects_with_few_returns_are_not_counted():
    batch = batch_of(Variation())
    assert (batch.truth.counted == (batch.returns >= 5)).all()


def test_lidars_are_within_the_tables():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lidar = random_lidar(rng)
        assert len(lidar.elevations) <= MOST_RINGS
        assert (np.abs(lidar.elevations) < math.radians(40)).all()
        assert 1.4 < lidar.height < 2.6
        assert len(lidar.elevations) * lidar.firings < 200_000


def test_three_in_ten_lidars_are_as_the_vehicles_own():
    """As wide and as sparse as `roof64`; dense ones show far more of what is small."""
    rng, own = np.random.default_rng(1), preset('roof64')
    drawn = [random_lidar(rng) for _ in range(1000)]
    beams = np.array([len(lidar.elevations) * lidar.firings for lidar in drawn])
    span = np.degrees([lidar.elevations[[0, -1]] for lidar in drawn])
    alike = (np.abs(span - np.degrees(own.elevations[[0, -1]])) < 4.5).all(axis=1)
    alike &= np.isin(beams, [32 * 1024, 64 * 1024])
    assert 0.25 < alike.mean() < 0.38
    assert (beams <= 64 * 1024).mean() > 0.4
    assert 0.25 < np.mean([lidar.firings > 1800 for lidar in drawn]) < 0.4  # those of an HDL-64
    roof = [roof_lidar(rng) for _ in range(50)]
    assert {(len(lidar.elevations), lidar.firings) for lidar in roof} == {(32, 1024), (64, 1024)}
    assert all(70 < lidar.reach < 220 for lidar in drawn + roof)
    assert sum(lidar.reach > own.reach for lidar in drawn) > 150


def test_scenes_follow_from_their_seed():
    labels = load(CONFIG).simulated
    first, second = (build(1234, Recipe(labels, 0.5)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    triangles, material, owner, boxes, label, spots, velocity = first
    assert len(triangles) == len(material) == len(owner)
    assert owner.max() < len(boxes) == len(label)
    assert len(spots) >= 1
    assert velocity.shape == (len(boxes), 2)


@pytest.mark.parametrize(('scores', 'kept'), [([0.5, 0.58, 0.575], 3), ([0.5, 0.6, 0.58], 2)])
def test_the_last_weights_are_exported_unless_earlier_ones_were_clearly_better(
    scores, kept, tmp_path
):
    state = Run(load(CONFIG, **SMALL), torch.device('cpu'))
    for number, score in enumerate(scores, 1):
        state.step = number
        state.judge(lambda _, score=score: {'map': score}, tmp_path, last=number == len(scores))
    saved = sitting.chosen(tmp_path)
    assert saved['step'] == saved['best']['step'] == kept
    assert saved['scores'] == {'map': scores[kept - 1]}


@pytest.mark.slow
def test_the_schedule_begins_with_the_first_lesson(tmp_path):
    """Processes and scenes take longer to come than this schedule is."""
    options = argparse.Namespace(
        device='cpu', compile=False, resume='', fresh_schedule=False, minutes=0.001, every=1,
        save_seconds=60.0,
    )  # fmt: skip
    run(load(CONFIG, **SMALL), tmp_path, options)
    assert sitting.read(tmp_path / sitting.MODEL)['step'] >= 1


@pytest.mark.slow
def test_a_run_trains_saves_and_goes_on(tmp_path):
    training = load(CONFIG, **SMALL, steps=2)
    options = argparse.Namespace(
        device='cpu', compile=False, resume='', fresh_schedule=False, minutes=0, every=1,
        save_seconds=60.0,
    )  # fmt: skip
    run(training, tmp_path, options)
    options.resume = str(tmp_path)
    run(load(CONFIG, **SMALL, steps=3), tmp_path, options)
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line['scores']) for line in lines)
