"""What training computes on the accelerator is what the package computes from the card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')
yaml = pytest.importorskip('yaml')

from airside_perception.card import load_card  # noqa: E402  (after the check for torch)
from airside_perception.config import LidarConfig  # noqa: E402
from airside_perception.engine import open_engine  # noqa: E402
from airside_perception.geometry import wrap_angle  # noqa: E402
from airside_perception.lidar.anchors import AnchorDecoder  # noqa: E402
from airside_perception.lidar.detector import LidarDetector  # noqa: E402
from airside_perception.lidar.encoder import Encoder  # noqa: E402
from airside_perception.lidar.pillars import Grid  # noqa: E402
from training.export import card, export_onnx  # noqa: E402
from training.loss import box_loss, score_loss  # noqa: E402
from training.model import Model  # noqa: E402
from training.pillars import decorate  # noqa: E402
from training.recipe import load  # noqa: E402
from training.targets import Boxes, assign  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'training' / 'pointpillars.yaml'


@pytest.fixture
def training():
    """The shipped configuration on a smaller grid."""
    return load(
        CONFIG, limits=[-20.48, -20.48, -2.0, 20.48, 20.48, 8.0], max_points=8, max_pillars=500
    )


@pytest.fixture
def model(training):
    torch.manual_seed(1)
    model = Model(training)
    for name, value in model.named_buffers():  # as if it had been trained
        if name.endswith('running_mean'):
            value.normal_(0, 0.2)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 2)
    return model.eval()


def write_card(training, model, folder):
    path = folder / 'net.yaml'
    path.write_text(card(training, model.pillars, '', {}, {'person': 0.2}), encoding='utf-8')
    return load_card(path)


def targets_of(training, boxes, labels, counted=None, scan=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    n = len(boxes)
    truth = Boxes(
        boxes,
        torch.tensor(labels),
        torch.zeros(n, dtype=torch.int64) if scan is None else torch.tensor(scan),
        torch.ones(n, dtype=torch.bool) if counted is None else torch.tensor(counted),
    )
    rows, columns = training.grid.shape
    anchors = training.anchor_tensors(torch.device('cpu'))
    shape, cell = (rows // 2, columns // 2), training.pillar[0] * 2
    return assign(truth, anchors, 1, shape, cell, training.limits[:2], training.direction_offset)


def random_objects(training, count=12, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {
        'person': (0.6, 0.6, 1.8),
        'car': (4.3, 1.8, 1.5),
        'bus': (12, 2.6, 3.1),
        'baggage_cart': (2.5, 1.4, 1.2),
    }
    names = list(sizes)
    spots = np.stack(np.meshgrid(np.arange(-16, 17, 8.0), np.arange(-16, 17, 8.0)), -1).reshape(
        -1, 2
    )
    spots = rng.permutation(spots)[:count] + rng.uniform(-0.9, 0.9, (count, 2))
    boxes, labels = [], []
    for number, (x, y) in enumerate(spots):
        name = names[number % len(names)]
        size = np.array(sizes[name]) * rng.uniform(0.9, 1.1, 3)
        boxes.append([x, y, size[2] / 2 + rng.normal(0, 0.2), *size, rng.uniform(-np.pi, np.pi)])
        labels.append(training.classes.index(name))
    return np.array(boxes), np.array(labels)


def test_targets_decode_to_the_boxes(training, model, tmp_path):
    boxes, labels = random_objects(training)
    targets = targets_of(training, boxes, labels)
    anchors = training.anchor_tensors(torch.device('cpu'))
    a, k = anchors.pair.shape
    rows, columns = targets.heat.shape[2:]
    scores = torch.logit(targets.heat, eps=1e-6)
    codes, turns = torch.zeros(1, a, 7, rows, columns), torch.zeros(1, a, 2, rows, columns)
    scan, anchor, row, column = targets.places.unbind(1)
    codes[scan, anchor, :, row, column] = targets.codes
    turns[scan, anchor, targets.directions, row, column] = 1.0
    outputs = {'scores': scores, 'boxes': codes.flatten(1, 2), 'directions': turns.flatten(1, 2)}
    decoder = AnchorDecoder(write_card(training, model, tmp_path))
    found = decoder.decode({key: value.numpy() for key, value in outputs.items()}, [0.99] * k, 100)
    assert len(found) == len(boxes)
    for box, label in zip(boxes, labels, strict=True):
        near = np.argmin(np.hypot(*(found.boxes[:, :2] - box[:2]).T))
        assert found.labels[near] == label
        np.testing.assert_allclose(found.boxes[near, :6], box[:6], atol=1e-4)
        if training.classes[label] != 'person':  # nobody asks which way a person faces
            assert abs(wrap_angle(found.boxes[near, 6] - box[6])) < 1e-4


def airliner(length=37.6, yaw=0.3):
    return [1.1, -0.7, 3.8, length, 3.95, 4.1, yaw]


@pytest.mark.parametrize('length', [27.2, 37.6, 72.7])
def test_the_target_of_an_airliner_ends_within_its_window(training, length):
    """Cut off, its neighbours would be punished for what it is asked for; flat, it has no peak."""
    targets = targets_of(training, [airliner(length, 0.0)], [training.classes.index('aircraft')])
    heat = targets.heat[0].amax(0)
    row = int((-0.7 + 20.48) / 0.64)
    along = heat[row]
    peak = int(along.argmax())
    assert peak == int((1.1 + 20.48) / 0.64)
    assert along[peak + 3] > 0.5  # still longer than wide
    assert heat[row + 3, peak] < 0.05
    step = (along[1:] - along[:-1]).abs()
    step[peak - 1 : peak + 1] = 0  # the cell of the centre has 1, wherever in it the centre is
    assert step.max() < 0.2  # without a cliff
    assert along[peak + 12] < 0.02


@pytest.mark.parametrize(
    ('name', 'box'),
    [('car', [1.1, -0.7, 0.8, 4.2, 1.75, 1.5, 0.3]), ('aircraft', airliner())],
)
def test_a_metre_costs_of_an_airliner_what_it_costs_of_a_car(training, name, box):
    """About 0.22 a metre; in shares of the anchor's diagonal it would be 0.009."""
    targets = targets_of(training, [box], [training.classes.index(name)])
    rows, columns = targets.heat.shape[2:]
    count = training.anchor_tensors(torch.device('cpu')).pair.shape[0]
    scan, anchor, row, column = targets.places.unbind(1)
    assert (targets.reach >= 1).all()

    def cost(metres):
        length, width = training.anchor_tensors(torch.device('cpu')).shape[anchor[0], :2].tolist()
        codes = torch.zeros(1, count, 7, rows, columns)
        codes[scan, anchor, :, row, column] = targets.codes
        codes[scan, anchor, 0, row, column] += metres / np.hypot(length, width)
        turns = torch.zeros(1, count * 2, rows, columns)
        return float(box_loss(codes.flatten(1, 2), turns, targets)[0])

    assert cost(0.0) == 0
    assert cost(2.0) - cost(1.0) == pytest.approx(1 / 4.6, rel=0.02)


def test_people_are_asked_for_as_before(training):
    targets = targets_of(training, [[1, 1, 0.9, 0.6, 0.6, 1.8, 0]], [0])
    assert (targets.reach == 1).all()


def test_hidden_objects_are_neither_asked_for_nor_punished(training):
    car = training.classes.index('car')
    targets = targets_of(training, [[5, 5, 0.8, 4, 1.7, 1.5, 0.1]], [car], counted=[False])
    assert targets.heat.max() == 0
    assert len(targets.places) == 0
    cell = int((5 + 20.48) / 0.64)
    assert targets.weight[0, :, cell, cell].max() == 0
    assert targets.weight[0, :, 5, 5].min() == 1


def test_an_empty_batch_still_has_a_finite_loss(training, model):
    targets = targets_of(training, np.empty((0, 7)), np.empty(0, np.int64))
    rows, columns = training.grid.shape
    outputs = model.dense(torch.zeros(1, training.channels, rows, columns))
    losses = [score_loss(outputs[0], targets), *box_loss(*outputs[1:], targets)]
    assert all(torch.isfinite(loss) for loss in losses)
    assert losses[1] == 0


def test_pillars_and_encoder_agree_with_the_package(training, model, tmp_path):
    rng = np.random.default_rng(3)
    points = (rng.normal(0, 1, (6000, 3)) * [6, 6, 1.0]).astype(np.float32)
    points[:40] = points[0]  # one pillar overflows
    card_ = write_card(training, model, tmp_path)
    pillars = Grid.of(card_).fill(points)
    expected = Encoder(card_).encode(points, pillars)
    made = decorate(
        torch.tensor(points),
        torch.zeros(len(points), dtype=torch.int64),
        training.grid,
        training.features,
        8,
        500,
    )
    assert pillars.occupied > 500  # the limits were met
    with torch.no_grad():
        canvas = model.pillars(made.features, made.pillar, made.cells, (1, *training.grid.shape))
    np.testing.assert_allclose(canvas.numpy(), expected, atol=2e-5)


def test_export_is_the_network(training, model, tmp_path):
    path = tmp_path / 'net.onnx'
    assert export_onnx(model.dense, training, path) < 1e-3
    assert 3e6 < path.stat().st_size < 6e6


def test_the_card_says_what_each_score_channel_is(training, model, tmp_path):
    found = write_card(training, model, tmp_path)
    anchors = training.anchor_tensors(torch.device('cpu'))
    assert len(found.scored) == model.dense.scores.out_channels == 21
    for channel, (anchor, label) in enumerate(found.scored):
        assert anchors.pair[anchor, label] == channel
    export_onnx(model.dense, training, tmp_path / 'net.onnx')
    with open_engine(tmp_path / 'net.onnx', threads=1) as engine:
        LidarDetector(engine, found, LidarConfig())  # the shapes agree
