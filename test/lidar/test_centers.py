"""Centre heads against a loop over every cell, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.card import CenterHead, LidarCard
from airside_perception.errors import EngineError
from airside_perception.lidar.centers import CenterDecoder

MakeCard = Callable[..., LidarCard]
Outputs = dict[str, np.ndarray]
CHANNELS = {'heatmap': 3, 'reg': 2, 'height': 1, 'dim': 3, 'rot': 2}


@pytest.fixture
def make_center_card(make_card: MakeCard) -> MakeCard:
    """A card of 8 x 6 pillars with three classes; keywords are fields of the head."""

    def make(stride: int = 1, **head: object) -> LidarCard:
        return make_card(
            architecture='centerpoint', classes=('car', 'person', 'bike'), anchors=(),
            stride=stride, centers=CenterHead(**head),
        )  # fmt: skip

    return make


def random_outputs(card: LidarCard, seed: int = 0, digits: int = 1) -> Outputs:
    """Logits are rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    shape = (1, -1, *card.output_grid)
    cells = card.output_grid[0] * card.output_grid[1]
    found = {
        name: rng.normal(size=n * cells).astype(np.float32).reshape(shape)
        for name, n in CHANNELS.items()
    }
    found['heatmap'] = np.round(found['heatmap'] * 2, digits)
    return found


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-float(x)))


def test_velocities_are_those_of_the_cells(make_center_card: MakeCard) -> None:
    plain, card = make_center_card(stride=2), make_center_card(stride=2, velocity='speed')
    outputs = random_outputs(card)
    rows, columns = card.output_grid
    speeds = np.arange(2 * rows * columns, dtype=np.float32).reshape(1, 2, rows, columns)
    found = CenterDecoder(card).decode({**outputs, 'speed': speeds}, [0.4] * 3, 8)
    without = CenterDecoder(plain).decode(outputs, [0.4] * 3, 8)
    assert len(found) == 8
    assert found.boxes.tolist() == without.boxes.tolist()
    assert without.velocities.shape == (8, 2)
    assert np.isnan(without.velocities).all()
    extent = np.array(card.pillar) * card.stride
    offset = outputs['reg'][0]
    for box, velocity in zip(found.boxes, found.velocities, strict=True):
        row, column = divmod(int(velocity[0]), columns)
        place = np.array([column, row]) + offset[:, row, column]
        np.testing.assert_allclose(box[:2], place * extent + card.limits[:2], atol=1e-6)
        assert velocity[1] == velocity[0] + rows * columns


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_velocity_that_is_not_finite(make_center_card: MakeCard, value: float) -> None:
    card = make_center_card(velocity='vel')
    outputs = {**random_outputs(card), 'vel': np.zeros((1, 2, *card.output_grid), np.float32)}
    outputs['heatmap'][:] = -9.0
    outputs['heatmap'][0, 1, 3, 2] = 4.0
    outputs['vel'][0, 1, 3, 3] = value  # where nothing is
    assert CenterDecoder(card).decode(outputs, [0.5] * 3, 10).velocities.tolist() == [[0.0, 0.0]]
    outputs['vel'][0, 1, 3, 2] = value
    with pytest.raises(EngineError, match="output 'vel' gives a box that is not finite"):
        CenterDecoder(card).decode(outputs, [0.5] * 3, 10)


def norm_is_less(a: float, b: float, least: float) -> bool:
    """In exact arithmetic but for ties, which random values do not have."""
    return math.hypot(a, b) < least


def slow_decode(
    outputs: Outputs, card: LidarCard, thresholds: list[float], most: int
) -> list[tuple[float, int, list[float]]]:
    """(score, label, box) of the best candidates, cell by cell."""
    head, (rows, columns) = card.centers, card.output_grid
    heat = outputs['heatmap'][0]
    found = []
    for row in range(rows):
        for column in range(columns):
            cell = (slice(None), row, column)
            labels = [k for k in range(3) if sigmoid(heat[cell][k]) >= thresholds[k]]
            if head.peaks:
                rows3 = slice(max(row - 1, 0), row + 2)
                columns3 = slice(max(column - 1, 0), column + 2)
                labels = [k for k in labels if heat[cell][k] == heat[k, rows3, columns3].max()]
            if not labels:
                continue
            label = max(labels, key=lambda k: (heat[cell][k], -k))
            rotation = [float(v) for v in outputs['rot'][0][cell]]
            if norm_is_less(*rotation, (head.least_norms or (0.0,) * 3)[label]):
                continue
            sine, cosine = rotation if head.rotation_order == 'sin_cos' else rotation[::-1]
            angle = math.atan2(sine, cosine)
            sizes = dict(zip(head.size_order, outputs['dim'][0][cell], strict=True))
            dx, dy = outputs['reg'][0][cell]
            box = [
                card.limits[0] + (column + float(dx)) * card.stride * card.pillar[0],
                card.limits[1] + (row + float(dy)) * card.stride * card.pillar[1],
                float(outputs['height'][0, 0, row, column]),
                *(math.exp(sizes[axis]) for axis in 'lwh'),
                angle if head.heading == 'x_counterclockwise' else -angle - math.pi / 2,
            ]
            found.append((sigmoid(heat[cell][label]), label, box))
    return sorted(found, key=lambda one: -one[0])[:most]  # stable: equal scores by place


def check(card: LidarCard, outputs: Outputs, thresholds: list[float], most: int) -> int:
    found = CenterDecoder(card).decode(outputs, thresholds, most)
    expected = slow_decode(outputs, card, thresholds, most)
    assert found.labels.tolist() == [label for _, label, _ in expected]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-12)
    boxes = np.array([box for _, _, box in expected]).reshape(-1, 7)
    np.testing.assert_allclose(found.boxes[:, :6], boxes[:, :6], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.cos(found.boxes[:, 6] - boxes[:, 6]), 1.0, atol=1e-9)
    assert ((found.boxes[:, 6] >= -np.pi) & (found.boxes[:, 6] < np.pi)).all()
    return len(expected)


@pytest.mark.parametrize('heading', ['x_counterclockwise', 'minus_y_clockwise'])
@pytest.mark.parametrize('rotation_order', ['sin_cos', 'cos_sin'])
@pytest.mark.parametrize('size_order', ['lwh', 'wlh'])
@pytest.mark.parametrize('most', [1, 5, 1000])
def test_agrees_with_the_loop(
    make_center_card: MakeCard, most: int, size_order: str, rotation_order: str, heading: str
) -> None:
    card = make_center_card(
        size_order=size_order, rotation_order=rotation_order, heading=heading,
        least_norms=(0.5, 0.0, 1.5),
    )  # fmt: skip
    assert check(card, random_outputs(card), [0.3, 0.6, 0.4], most) >= min(most, 20)


@given(
    seed=st.integers(0, 10_000),
    most=st.integers(1, 60),
    stride=st.sampled_from([1, 2]),
    peaks=st.booleans(),
    digits=st.integers(0, 3),
    thresholds=st.tuples(*[st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0])] * 3),
    norms=st.tuples(*[st.sampled_from([0.0, 0.3, 1.2])] * 3),
)
@settings(max_examples=80, deadline=None)
def test_any_outputs(
    seed: int,
    most: int,
    stride: int,
    peaks: bool,
    digits: int,
    thresholds: tuple[float, ...],
    norms: tuple[float, ...],
) -> None:
    card = LidarCard(
        'c', 'c', 'centerpoint', ('car', 'person', 'bike'), {}, {}, stride=stride,
        limits=(0.0, -2.0, -1.0, 3.0, 2.0, 3.0), pillar=(0.5, 0.25),
        centers=CenterHead(peaks=peaks, least_norms=norms),
    )  # fmt: skip
    check(card, random_outputs(card, seed, digits), list(thresholds), most)


def nothing(card: LidarCard) -> Outputs:
    outputs = {name: np.zeros_like(value) for name, value in random_outputs(card).items()}
    outputs['heatmap'] -= 9.0
    return outputs


def test_the_place_of_a_box(make_center_card: MakeCard) -> None:
    card = make_center_card()
    outputs = nothing(card)
    outputs['heatmap'][0, 1, 3, 2] = 4.0  # row 3, column 2
    outputs['reg'][0, :, 3, 2] = 0.5, 0.25
    outputs['height'][0, 0, 3, 2] = 0.75
    outputs['dim'][0, :, 3, 2] = np.log([4.0, 2.0, 1.5])
    outputs['rot'][0, :, 3, 2] = 3.0, 3.0  # of any length
    found = CenterDecoder(card).decode(outputs, [0.5] * 3, 10)
    expected = [-0.96 + 2.5 * 0.32, -1.6 + 3.25 * 0.4, 0.75, 4.0, 2.0, 1.5, np.pi / 4]
    np.testing.assert_allclose(found.boxes, [expected], atol=1e-6)
    assert found.labels.tolist() == [1]


def test_a_box_of_the_other_convention(make_center_card: MakeCard) -> None:
    """Sizes and angle as Autoware deploys them: width first, clockwise from -y."""
    card = make_center_card(size_order='wlh', heading='minus_y_clockwise')
    outputs = nothing(card)
    for row, towards in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        outputs['heatmap'][0, 0, row, 0] = 4.0 - row
        outputs['dim'][0, :, row, 0] = np.log([2.0, 4.0, 1.5])
        # an angle a points towards (-sin a, -cos a)
        outputs['rot'][0, :, row, 0] = -towards[0], -towards[1]
    found = CenterDecoder(card).decode(outputs, [0.5] * 3, 10)
    np.testing.assert_allclose(found.boxes[:, 3:6], [[4.0, 2.0, 1.5]] * 4, rtol=1e-6)
    pointing = np.stack([np.cos(found.boxes[:, 6]), np.sin(found.boxes[:, 6])], axis=1)
    np.testing.assert_allclose(pointing, [(1, 0), (0, 1), (-1, 0), (0, -1)], atol=1e-9)


def test_a_class_below_its_threshold_does_not_hide_another(make_center_card: MakeCard) -> None:
    card = make_center_card()
    outputs = nothing(card)
    outputs['heatmap'][0, :2, 0, 0] = 0.5, 0.2  # 0.62 and 0.55
    assert CenterDecoder(card).decode(outputs, [0.5] * 3, 9).labels.tolist() == [0]
    assert CenterDecoder(card).decode(outputs, [0.7, 0.5, 0.5], 9).labels.tolist() == [1]


def test_what_has_no_heading_is_left_out(make_center_card: MakeCard) -> None:
    card = make_center_card(least_norms=(0.5, 0.0, 0.0))
    outputs = nothing(card)
    outputs['heatmap'][0, 0, 0, :3] = 2.0
    outputs['heatmap'][0, 1, 0, 3] = 2.0
    outputs['rot'][0, :, 0, :4] = np.transpose([[0.3, 0.4], [0.3, 0.39], [-0.5, 0.0], [0.0, 0.0]])
    found = CenterDecoder(card).decode(outputs, [0.5] * 3, 9)
    places = (found.boxes[:, 0] - card.limits[0]) / 0.32
    np.testing.assert_allclose(places, [0.0, 2.0, 3.0], atol=1e-6)


def test_only_peaks(make_center_card: MakeCard) -> None:
    outputs = nothing(make_center_card())
    outputs['heatmap'][0, 0, :3, :3] = [[2.0, 1.0, 2.5], [1.0, 1.0, 1.0], [1.0, 3.0, 1.0]]
    outputs['heatmap'][0, 1, 0, 0] = 4.0  # of another class: no neighbour
    every = CenterDecoder(make_center_card()).decode(outputs, [0.5] * 3, 99)
    assert len(every) == 9
    found = CenterDecoder(make_center_card(peaks=True)).decode(outputs, [0.5] * 3, 99)
    assert found.labels.tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.scores, [sigmoid(4.0), sigmoid(3.0), sigmoid(2.5)])


def test_half_precision_outputs(make_center_card: MakeCard) -> None:
    card = make_center_card(least_norms=(0.4, 0.2, 0.0), peaks=True)
    half = {name: v.astype(np.float16) for name, v in random_outputs(card).items()}
    single = {name: v.astype(np.float32) for name, v in half.items()}
    a = CenterDecoder(card).decode(half, [0.4] * 3, 50)
    b = CenterDecoder(card).decode(single, [0.4] * 3, 50)
    assert len(a) > 5
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_a_network_that_puts_out_no_numbers_is_an_error(make_center_card: MakeCard) -> None:
    card = make_center_card(least_norms=(0.5, 0.5, 0.5))
    outputs = random_outputs(card)
    outputs['heatmap'][0, 2, 2, 1] = np.nan
    with pytest.raises(EngineError, match="'heatmap' contains NaN"):
        CenterDecoder(card).decode(outputs, [0.5] * 3, 10)
    for name in ('reg', 'height', 'dim', 'rot'):
        for value in (np.nan, np.inf) + ((100.0,) if name == 'dim' else ()):
            outputs = random_outputs(card)
            outputs[name][0, -1] = value
            with pytest.raises(EngineError, match=f"'{name}' gives a box that is not finite"):
                CenterDecoder(card).decode(outputs, [0.3] * 3, 1000)


def test_nothing_reaches_one(make_center_card: MakeCard) -> None:
    """Such is the threshold of labels that are dropped."""
    card = make_center_card()
    outputs = nothing(card)
    outputs['heatmap'][0, :, 2, 2] = np.inf, 3.0, -1.0
    assert CenterDecoder(card).decode(outputs, [1.0, 0.5, 0.5], 9).labels.tolist() == [1]
    found = CenterDecoder(card).decode(outputs, [0.5, 0.5, 0.5], 9)
    assert (found.labels.tolist(), found.scores.tolist()) == ([0], [1.0])


def test_what_does_not_pass_may_be_anything(make_center_card: MakeCard) -> None:
    card = make_center_card()
    outputs = {name: np.full_like(v, np.nan) for name, v in random_outputs(card).items()}
    outputs['heatmap'][:] = -np.inf
    assert len(CenterDecoder(card).decode(outputs, [0.0001, 0.5, 0.5], 10)) == 0


def test_a_card_with_anchors_is_refused(make_card: MakeCard) -> None:
    with pytest.raises(EngineError, match='no centre head'):
        CenterDecoder(make_card())


def test_card_says_which_outputs_it_needs(make_center_card: MakeCard) -> None:
    card = replace(make_center_card(), classes=('car', 'person'))
    assert card.outputs == {**CHANNELS, 'heatmap': 2}
