"""The centre head learns what the package decodes, and its export is what the package runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')
onnx = pytest.importorskip('onnx', reason='the export needs onnx')

from airside_perception.config import LidarConfig  # noqa: E402  (after the check for torch)
from airside_perception.deploy.lint import lint  # noqa: E402
from airside_perception.engine import open_engine  # noqa: E402
from airside_perception.geometry import wrap_angle  # noqa: E402
from airside_perception.lidar.centers import CenterDecoder  # noqa: E402
from airside_perception.lidar.detector import LidarDetector  # noqa: E402
from airside_perception.types import PointCloud  # noqa: E402
from training.centers import SIZES, center_loss  # noqa: E402
from training.export import card, export_onnx  # noqa: E402
from training.heads import head_of  # noqa: E402
from training.loss import score_loss  # noqa: E402
from training.model import Model  # noqa: E402
from training.recipe import load, parse  # noqa: E402
from training.targets import Boxes  # noqa: E402
from training.validate import read_card  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'training' / 'centerpoint.yaml'
CPU = torch.device('cpu')


@pytest.fixture
def training():
    """The shipped configuration on a smaller grid and narrower."""
    return load(
        CONFIG, limits=[-20.48, -20.48, -2.0, 20.48, 20.48, 8.0], max_points=8, max_pillars=500,
        widths=[16, 16, 16, 16], depths=[0, 1, 1, 0], neck=16, channels=16,
    )  # fmt: skip


def objects(training, count=14, seed=0):
    """Boxes that do not touch, their labels and velocities."""
    rng = np.random.default_rng(seed)
    sizes = {
        'person': (0.6, 0.6, 1.8), 'car': (4.3, 1.8, 1.5), 'bus': (7.0, 2.6, 3.1),
        'baggage_cart': (2.5, 1.4, 1.2),
    }  # fmt: skip
    grid = np.stack(np.meshgrid(*[np.arange(-16, 17, 8.0)] * 2), -1).reshape(-1, 2)
    spots = rng.permutation(grid)[:count] + rng.uniform(-0.9, 0.9, (count, 2))
    boxes, labels = [], []
    for number, (x, y) in enumerate(spots):
        name = list(sizes)[number % len(sizes)]
        size = np.array(sizes[name]) * rng.uniform(0.9, 1.1, 3)
        boxes.append([x, y, size[2] / 2 + rng.normal(0, 0.2), *size, rng.uniform(-np.pi, np.pi)])
        labels.append(training.classes.index(name))
    return np.array(boxes), np.array(labels), rng.normal(0, 2, (count, 2))


def truth_of(boxes, labels, velocities=None, counted=None):
    n = len(boxes)
    return Boxes(
        torch.tensor(np.reshape(boxes, (-1, 7)), dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.zeros(n, dtype=torch.int64),
        torch.ones(n, dtype=torch.bool) if counted is None else torch.tensor(counted),
        None if velocities is None else torch.tensor(velocities, dtype=torch.float32),
    )


def maps_of(targets):
    """Outputs of a network that answers just what is asked."""
    rows, columns = targets.heat.shape[2:]
    maps = {'heatmap': torch.logit(targets.heat, eps=1e-6)}
    scan, row, column = targets.places.unbind(1)
    for name, part in zip(SIZES, targets.codes.split(list(SIZES.values()), dim=1), strict=True):
        maps[name] = torch.zeros(1, SIZES[name], rows, columns)
        maps[name][scan, :, row, column] = part
    return maps


def test_targets_decode_to_the_boxes(training):
    boxes, labels, velocities = objects(training)
    head = head_of(training, CPU)
    targets = head.assign(truth_of(boxes, labels, velocities), 1)
    maps = maps_of(targets)
    decoder = CenterDecoder(read_card(card(training, training.pillar_net(), '', {}, {})))
    outputs = {name: value.numpy() for name, value in maps.items()}
    found = decoder.decode(outputs, [0.99] * len(training.classes), 100)
    assert len(found) == len(boxes)
    for box, label, velocity in zip(boxes, labels, velocities, strict=True):
        near = np.argmin(np.hypot(*(found.boxes[:, :2] - box[:2]).T))
        assert found.labels[near] == label
        np.testing.assert_allclose(found.boxes[near, :6], box[:6], atol=1e-4)
        assert abs(wrap_angle(found.boxes[near, 6] - box[6])) < 1e-4
        cell = ((box[:2] + 20.48) / 0.64).astype(int)
        np.testing.assert_allclose(maps['vel'][0, :, cell[1], cell[0]], velocity, atol=1e-5)
    # every cell that answers gives the whole box, so suppression loses nothing
    every = decoder.decode(outputs, [0.3] * len(training.classes), 500)
    apart = np.hypot(*(every.boxes[:, None, :2] - boxes[None, :, :2]).T)
    assert len(every) > len(boxes)
    assert apart.min(axis=0).max() < 1e-3
    assert float(score_loss(maps['heatmap'], targets)) < 0.6
    assert max(float(cost) for cost in center_loss(maps, targets)) < 1e-9


def test_hidden_objects_mute_and_found_ones_count(training):
    person = training.classes.index('person')
    head = head_of(training, CPU)
    boxes = [[5, 5, 0.9, 0.6, 0.6, 1.8, 0.1], [-5, 5, 0.9, 0.6, 0.6, 1.8, 0.1]]
    targets = head.assign(truth_of(boxes, [person] * 2, counted=[False, True]), 1)
    cells = [int((x + 20.48) / 0.64) for x in (5, -5)]
    assert targets.weight[0, 0, cells[0], cells[0]] == 0
    assert targets.weight[0, 0, cells[0], cells[1]] == 1
    assert targets.heat.max() == 1
    assert (targets.heat == 1).sum() == 1
    assert (targets.places[:, 2] - cells[1]).abs().max() <= 1


def test_an_empty_batch_still_has_a_finite_loss(training):
    head = head_of(training, CPU)
    targets = head.assign(truth_of(np.empty((0, 7)), np.empty(0, np.int64)), 1)
    maps = head.network()(torch.zeros(1, training.channels, *training.grid.shape))
    losses = head.cost(maps, targets)
    assert len(losses) == len(head.losses)
    assert all(torch.isfinite(loss) for loss in losses)
    assert losses[1] == losses[2] == losses[3] == 0


def test_an_axis_survives_where_front_and_back_cannot_be_told(training):
    """Half of the carts point the other way; a network that cannot know finds their axis."""
    cart, car = training.classes.index('baggage_cart'), training.classes.index('car')
    head = head_of(training, CPU)
    yaw = 0.7
    for label, least in ((cart, 0.95), (car, 0.4)):
        rot = torch.tensor([0.1, -0.6], requires_grad=True)
        optimizer = torch.optim.SGD([rot], 0.05)
        for step in range(200):
            box = [[0.3, 0.3, 0.8, 2.9, 1.5, 1.7, yaw + np.pi * (step % 2)]]
            targets = head.assign(truth_of(box, [label]), 1)
            maps = maps_of(targets)
            maps['rot'] = rot.view(1, 2, 1, 1).expand_as(maps['rot'])
            cost = center_loss(maps, targets)[1]
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        s, c = rot.detach().tolist()
        assert np.hypot(s, c) > least
        assert abs(np.sin(np.arctan2(s, c) - yaw)) < 0.05


def test_a_rotation_the_wrong_way_round_finds_back(training):
    """From any start, also from half a turn off, the loss leads down to the front."""
    car = training.classes.index('car')
    head, yaw = head_of(training, CPU), 0.7
    targets = head.assign(truth_of([[0.3, 0.3, 0.8, 4.2, 1.8, 1.5, yaw]], [car]), 1)
    maps = maps_of(targets)
    for off in (np.pi, 0.99 * np.pi, 0.5 * np.pi, -0.9 * np.pi):
        rot = torch.tensor([np.sin(yaw + off), np.cos(yaw + off)], dtype=torch.float32)
        rot.requires_grad_()
        optimizer = torch.optim.SGD([rot], 0.1)
        for _ in range(300):
            maps['rot'] = rot.view(1, 2, 1, 1).expand(1, 2, *targets.heat.shape[2:])
            optimizer.zero_grad()
            center_loss(maps, targets)[1].backward()
            optimizer.step()
        s, c = rot.detach().tolist()
        assert abs(wrap_angle(np.arctan2(s, c) - yaw)) < 0.01
        assert np.hypot(s, c) == pytest.approx(1.0, abs=0.01)


def test_the_loss_falls_and_people_are_found(training):
    """A few steps on one canvas: enough to find on it what was there."""
    torch.manual_seed(0)
    boxes, labels, velocities = objects(training)
    head, model = head_of(training, CPU), Model(training)
    targets = head.assign(truth_of(boxes, labels, velocities), 1)
    canvas = torch.zeros(1, training.channels, *training.grid.shape)
    for box, label in zip(boxes, labels, strict=True):
        column, row = ((box[:2] + 20.48) / 0.32).astype(int)
        canvas[0, label % 16, row - 1 : row + 2, column - 1 : column + 2] = 1.0
        canvas[0, 15, row, column] = box[6]
    optimizer = torch.optim.AdamW(model.dense.parameters(), 4e-3)
    values = []
    for _ in range(160):
        losses = head.cost(model.dense(canvas), targets)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        values.append([float(loss.detach()) for loss in losses])
    first, last = np.array(values[0]), np.array(values[-1])
    assert (last < 0.6 * first).all()
    with torch.no_grad():
        maps = dict(zip(head.outputs, model.dense(canvas), strict=True))
    decoder = CenterDecoder(read_card(card(training, model.pillars, '', {}, {})))
    outputs = {name: value.numpy() for name, value in maps.items()}
    found = decoder.decode(outputs, [0.3] * len(training.classes), 200)
    apart = np.hypot(*(found.boxes[:, None, :2] - boxes[None, :, :2]).T)
    assert apart.min(axis=1).max() < 0.64  # a cell


def test_the_export_is_the_network_and_legal_and_runs(training, tmp_path):
    torch.manual_seed(1)
    model = Model(training)
    for name, value in model.named_buffers():  # as if it had been trained
        if name.endswith('running_mean'):
            value.normal_(0, 0.2)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 2)
    path = tmp_path / 'net.onnx'
    assert export_onnx(model.dense, training, path) < 1e-3
    read = read_card(card(training, model.pillars, '', {}, {'person': 0.2}))
    graph = onnx.load(str(path)).graph
    assert [value.name for value in graph.output] == list(read.outputs)
    judged = lint(onnx.load(str(path)), 'dla', '6.2')
    assert not judged.illegal
    assert {verdict.device for verdict in judged.verdicts if verdict.layer} == {'dla'}
    rng = np.random.default_rng(0)
    points = (rng.normal(0, 1, (3000, 3)) * [6, 6, 1.0]).astype(np.float32)
    with open_engine(path, threads=1) as engine:
        detector = LidarDetector(engine, read, LidarConfig(score_threshold=0.001))
        found = detector.detect(PointCloud(7, 'base_link', points, ('x', 'y', 'z')))
    assert np.isfinite(found.boxes).all()


def test_velocities_are_exported_where_past_sweeps_show_them(training, tmp_path):
    whole = load(CONFIG.with_name('centerpoint_velocity.yaml'))
    assert (whole.classes, whole.past.sweeps) == (training.classes, 2)  # `base` gives the rest
    features = whole.features
    seeing = replace(training, past=whole.past, features=features)
    model, path = Model(seeing), tmp_path / 'net.onnx'
    for known, names in ((training, ()), (seeing, ('vel',))):
        assert export_onnx(model.dense, known, path) < 1e-3
        outputs = [value.name for value in onnx.load(str(path)).graph.output]
        assert outputs == ['heatmap', 'reg', 'height', 'dim', 'rot', *names]
    read = read_card(card(seeing, model.pillars, '', {}, {}))
    assert (read.past_sweeps, read.features) == (2, features)
    assert list(read.outputs) == outputs
    assert read.outputs['vel'] == 2
    with pytest.raises(ValueError, match='time_lag'):
        load(CONFIG, past={'sweeps': 1})


def test_a_saved_recipe_is_the_recipe():
    from dataclasses import asdict

    training = load(CONFIG)
    assert parse(asdict(training)) == training
    with pytest.raises(ValueError, match='circles'):
        load(CONFIG, head='circles')


def test_the_whole_network_is_small_enough(tmp_path):
    training = load(CONFIG)
    path = tmp_path / 'net.onnx'
    small = load(CONFIG, limits=[-20.48, -20.48, -2.0, 20.48, 20.48, 8.0])
    export_onnx(Model(training).dense, small, path)
    assert path.stat().st_size < 12e6
