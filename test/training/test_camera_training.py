from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')
onnx = pytest.importorskip('onnx', reason='the export needs onnx')

from airside_perception.camera.yolox import YoloxDecoder  # noqa: E402  (after the check)
from airside_perception.card import load_card  # noqa: E402  (the same)
from airside_perception.sim.bodies import CLASSES  # noqa: E402  (the same)
from training.camera_loss import Truth, assign, centres, giou, iou, loss  # noqa: E402  (the same)
from training.camera_network import cells, decode, folded  # noqa: E402  (the same)
from training.camera_recipe import load  # noqa: E402  (the same)
from training.export_camera import card, export_onnx  # noqa: E402  (the same)
from training.gallery import zoomed  # noqa: E402  (the same)

CONFIG = Path(__file__).parents[2] / 'training' / 'yolox.yaml'
DLA = {'Conv', 'Relu', 'Add', 'Concat', 'MaxPool', 'Resize'}
LAYOUT = {'Reshape', 'Transpose', 'Constant'}


@pytest.fixture(scope='module')
def small():
    return load(
        CONFIG, width=128, height=64, widths=[8, 8, 16, 16, 16], depths=[1, 1, 1, 1],
        neck=[16, 16, 16], head=16,
    )  # fmt: skip


def truth(boxes, labels, states):
    return Truth(
        torch.tensor([boxes], dtype=torch.float32), torch.tensor([labels]), torch.tensor([states])
    )


def test_recipe_knows_all_classes():
    training = load(CONFIG)
    assert set(training.classes) == set(CLASSES)
    parameters = sum(p.numel() for p in training.network().parameters())
    assert 1.5e6 < parameters < 3.0e6  # 12 MB at most
    with pytest.raises(ValueError, match='person'):
        load(CONFIG, publish={k: v for k, v in training.publish.items() if k != 'person'})


def test_exported_network_and_card_fit_the_package(small, tmp_path):
    torch.manual_seed(0)
    network = small.network()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        for parameter in network.parameters():  # equal ones would be shared in the file
            parameter += 0.01 * torch.randn_like(parameter)
    path = tmp_path / 'apron_yolox.onnx'
    assert export_onnx(network, small, path) < 1e-3
    text = card(small, '', {'licence': 'Apache-2.0'})
    path.with_suffix('.yaml').write_text(text, encoding='utf-8')
    read = load_card(path.with_suffix('.yaml'))
    assert set(read.published) == set(small.publish.values())
    assert read.thresholds['person'] == small.thresholds['person']
    graph = onnx.load(str(path)).graph
    shape = [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    assert tuple(shape) == YoloxDecoder(read).shape
    kinds = [node.op_type for node in graph.node]
    assert set(kinds) <= DLA | LAYOUT
    # Layout comes after the last layer that computes: nothing falls off the DLA in between.
    last = max(i for i, kind in enumerate(kinds) if kind == 'Conv')
    assert min(i for i, kind in enumerate(kinds) if kind in ('Reshape', 'Transpose')) > last


def test_boxes_are_decoded_as_the_package_does(small, tmp_path):
    path = tmp_path / 'card.yaml'
    path.write_text(card(small, '', {}), encoding='utf-8')
    decoder = YoloxDecoder(load_card(path))
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(decoder.shape, generator=generator)
    grid = cells(small.height, small.width, rows.device)
    mine = decode(rows, grid)[0].numpy()
    found = decoder(rows.numpy(), np.zeros(len(small.sizes)), 10**6)
    order = np.lexsort(np.round(mine, 3).T)
    theirs = found.xyxy[np.lexsort(np.round(found.xyxy, 3).T)]
    np.testing.assert_allclose(theirs, mine[order], atol=2e-3)


def test_folding_keeps_the_function(small):
    torch.manual_seed(2)
    network = small.network().eval()
    images = torch.rand(1, 3, small.height, small.width) * 255
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(images), network(images), atol=1e-4, rtol=1e-4)


def test_overlap_of_pairs():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    assert float(iou(a, b)) == pytest.approx(1 / 7)
    assert float(giou(a, b)) == pytest.approx(1 / 7 - 2 / 9)
    assert float(giou(a, a)) == pytest.approx(1.0)


def test_cells_answer_for_the_object_that_they_lie_in():
    grid = cells(64, 128, torch.device('cpu'))
    objects = truth([[10, 10, 50, 50], [80, 4, 120, 60], [0, 0, 0, 0]], [1, 2, 0], [1, 1, -1])
    rows = torch.zeros(1, len(grid), 5 + 3)
    boxes = decode(rows, grid)
    owner = assign(boxes, rows, objects, grid)[0]
    assert set(owner.tolist()) == {-1, 0, 1}
    middle = centres(grid)
    for number in (0, 1):
        x1, y1, x2, y2 = objects.boxes[0, number].tolist()
        mine = middle[owner == number]
        assert ((mine[:, 0] > x1) & (mine[:, 0] < x2)).all()
        assert ((mine[:, 1] > y1) & (mine[:, 1] < y2)).all()


def test_an_object_smaller_than_a_cell_still_has_one():
    grid = cells(64, 128, torch.device('cpu'))
    rows = torch.zeros(1, len(grid), 8)
    objects = truth([[41.0, 33.0, 43.0, 35.0]], [0], [1])
    owner = assign(decode(rows, grid), rows, objects, grid)[0]
    assert (owner == 0).sum() >= 1


def test_what_is_unclear_is_neither_asked_for_nor_punished():
    grid = cells(64, 128, torch.device('cpu'))
    rows = torch.zeros(1, len(grid), 8)
    rows[..., 4] = -6.0
    inside = ((centres(grid) > 16) & (centres(grid) < 48)).all(1)
    rows[0, inside, 4] = 6.0
    unclear = truth([[16.0, 16.0, 48.0, 48.0]], [0], [0])
    nothing = replace(unclear, state=torch.tensor([[-1]]))
    assert float(loss(rows, unclear, grid).sum()) < 1.0
    assert float(loss(rows, nothing, grid).sum()) > 50.0


@pytest.mark.parametrize('place', [(33.0, 33.0), (40.0, 24.0), (47.5, 30.0), (20.5, 50.5)])
def test_what_is_unclear_and_smaller_than_a_cell_is_spared_by_all_strides(place):
    """Wherever in a cell it lies: between four middles, or near one."""
    grid = cells(64, 128, torch.device('cpu'))
    x, y = place
    unclear = truth([[x - 1.5, y - 1.5, x + 1.5, y + 1.5]], [0], [0])
    for stride in (8.0, 16.0, 32.0):
        mine = grid[:, 2] == stride
        apart = torch.where(mine[:, None], centres(grid) - torch.tensor(place), 1e6).abs()
        nearest = apart.norm(dim=1).argmin()
        rows = torch.full((1, len(grid), 8), -6.0)
        rows[0, nearest, 4] = 6.0
        assert float(loss(rows, unclear, grid)[1]) < 2.0
    nothing = replace(unclear, state=torch.tensor([[-1]]))
    assert float(loss(rows, nothing, grid)[1]) > 5.0
    rows[0, 0, 4] = 6.0  # in a corner, which is far away
    assert float(loss(rows, unclear, grid)[1]) > 5.0


def test_a_step_against_the_gradient_lowers_the_loss(small):
    torch.manual_seed(0)
    network = small.network()
    grid = cells(small.height, small.width, torch.device('cpu'))
    images = torch.rand(2, 3, small.height, small.width) * 255
    objects = Truth(
        torch.tensor([[[10.0, 10, 50, 50]], [[60.0, 20, 100, 60]]]),
        torch.tensor([[1], [2]]),
        torch.ones(2, 1, dtype=torch.int64),
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    values = []
    for _ in range(12):
        total = loss(network(images), objects, grid).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert np.isfinite(values).all()
    assert np.mean(values[-3:]) < 0.9 * np.mean(values[:3])


def test_zoom_moves_boxes_with_the_pixels():
    generator = torch.Generator().manual_seed(5)
    images = torch.full((24, 3, 64, 128), 20.0)
    images[:, :, 16:48, 40:80] = 220.0
    objects = Truth(
        torch.tensor([[[40.0, 16.0, 80.0, 48.0]]]).repeat(24, 1, 1),
        torch.zeros(24, 1, dtype=torch.int64),
        torch.ones(24, 1, dtype=torch.int64),
    )
    moved, found = zoomed(images, objects, (0.6, 1.7), generator)
    checked = 0
    for image, box, state in zip(moved, found.boxes[:, 0], found.state[:, 0], strict=True):
        bright = torch.nonzero(image[0] > 160)
        if state < 1:
            continue
        low, high = bright.amin(0).flip(0), bright.amax(0).flip(0) + 1
        assert torch.cat([low, high]).float().sub(box).abs().max() <= 2.0
        checked += 1
    assert checked > 12
