"""Model cards: what is read, and what is refused by name."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from airside_perception.card import Anchor, CameraCard, CenterHead, LidarCard, find_card, load_card
from airside_perception.card.scores import network_threshold, published_scores
from airside_perception.errors import CardError

LIDAR: dict[str, Any] = {
    'name': 'small',
    'architecture': 'pointpillars',
    'classes': ['car', 'truck', 'person', 'tree'],
    'publish': {'car': 'vehicle', 'truck': 'vehicle', 'person': 'person'},
    'thresholds': {'vehicle': 0.4, 'person': 0},
    'about': {'licence': 'Apache-2.0'},
    'input': {
        'range': [0, -4, -1, 8, 4, 3.0], 'pillar': [0.5, 0.5], 'max_points': 32,
        'max_pillars': 100,
    },
    'encoder': {
        'features': ['x', 'zp'], 'weight': [[1, 2.5, 3], [4, 5, 6]], 'bias': [0, -1, 1],
        'zero_row': True,
    },
    'output': {
        'stride': 2,
        'anchors': [
            {'class': 'truck', 'size': [8, 2.5, 3], 'z': 1.5, 'yaws': [0, 1.57]},
            {'class': 'person', 'size': [0.5, 0.6, 1.8], 'z': 0.9, 'yaws': [0]},
        ],
        'anchor_places': 'borders',
        'direction_offset': 0.785,
    },
}  # fmt: skip
CURVE = {'scores': [0, 0.3, 1.0], 'probabilities': [0, 0.7, 0.9]}
CAMERA: dict[str, Any] = {
    'name': 'eye',
    'architecture': 'yolox',
    'classes': ['person', 'car'],
    'input': {'height': 64, 'width': 96, 'color': 'rgb', 'std': [58, 57.1, 57.4]},
    'output': {'strides': [8, 16]},
    'sizes': {'person': [0.5, 0.5, 1.8], 'car': [4, 1.8, 1.5]},
}


def write(folder: Path, card: dict[str, Any], change: dict[str, Any] | None = None) -> Path:
    """The card with some of its keys changed; `a.b` names a key of a nested mapping."""
    text = copy.deepcopy(card)
    for key, value in (change or {}).items():
        place, *rest = key.split('.')
        at = text
        for name in rest:
            at, place = at[place], name
        at[place] = value
    path = folder / 'network.yaml'
    path.write_text(yaml.safe_dump(text))
    return path


def without(card: dict[str, Any], key: str) -> dict[str, Any]:
    text = copy.deepcopy(card)
    head, _, tail = key.partition('.')
    del (text[head] if tail else text)[tail or head]
    return text


def test_a_lidar_card(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, LIDAR))
    assert isinstance(card, LidarCard)
    assert card.published == ('vehicle', 'person')
    names = [card.published_name(label) for label in range(4)]
    assert names == ['vehicle', 'vehicle', 'person', '']
    assert card.thresholds == {'vehicle': 0.4, 'person': 0.0}
    assert (card.grid, card.output_grid) == ((16, 16), (8, 8))
    assert card.limits == (0.0, -4.0, -1.0, 8.0, 4.0, 3.0)
    assert card.anchors == (
        Anchor(1, 8.0, 2.5, 3.0, 1.5, 0.0),
        Anchor(1, 8.0, 2.5, 3.0, 1.5, 1.57),
        Anchor(2, 0.5, 0.6, 1.8, 0.9, 0.0),
    )
    assert card.weight.dtype == np.float32
    np.testing.assert_array_equal(card.weight, [[1, 2.5, 3], [4, 5, 6]])
    assert card.zero_row
    assert not card.needs_intensity
    assert card.anchor_places == 'borders'
    assert card.about['licence'] == 'Apache-2.0'
    assert card.input_name == 'canvas'


def test_curves_from_scores_to_probabilities(tmp_path: Path) -> None:
    assert load_card(write(tmp_path, LIDAR)).calibration == {}
    card = load_card(write(tmp_path, LIDAR, {'calibration': {'vehicle': CURVE}}))
    assert card.calibration['vehicle'].scores.tolist() == CURVE['scores']
    scores = np.array([0.15, 0.5, 0.3])
    found = published_scores(card, ('vehicle', 'person', 'vehicle'), scores)
    assert found.tolist() == pytest.approx([0.35, 0.5, 0.7])
    assert scores.tolist() == [0.15, 0.5, 0.3]
    assert network_threshold(card, 'vehicle', 0.35) == pytest.approx(0.15)
    assert network_threshold(card, 'vehicle', 0.95) == np.inf
    assert network_threshold(card, 'person', 0.95) == 0.95
    without_curves = load_card(write(tmp_path, LIDAR))
    same = scores[:2]
    assert published_scores(without_curves, ('vehicle', 'person'), same) is same


def test_anchors_may_say_which_classes_they_score(tmp_path: Path) -> None:
    truck, person = LIDAR['output']['anchors']
    every = load_card(write(tmp_path, LIDAR))
    assert isinstance(every, LidarCard)
    assert every.scored == tuple((anchor, label) for anchor in range(3) for label in range(4))
    truck = {**truck, 'labels': ['tree', 'truck', 'car']}
    person = {**person, 'labels': ['person']}
    some = load_card(write(tmp_path, LIDAR, {'output.anchors': [truck, person]}))
    assert isinstance(some, LidarCard)
    assert [anchor.labels for anchor in some.anchors] == [(3, 1, 0), (3, 1, 0), (2,)]
    assert some.scored == ((0, 3), (0, 1), (0, 0), (1, 3), (1, 1), (1, 0), (2, 2))
    del person['labels']
    mixed = load_card(write(tmp_path, LIDAR, {'output.anchors': [person, truck]}))
    assert isinstance(mixed, LidarCard)
    assert mixed.scored[:5] == ((0, 0), (0, 1), (0, 2), (0, 3), (1, 3))


CENTERS: dict[str, Any] = {
    **LIDAR,
    'architecture': 'centerpoint',
    'output': {
        'stride': 2,
        'heatmap': 'hm',
        'size_order': 'wlh',
        'heading': 'minus_y_clockwise',
        'rotation_norms': {'truck': 0.3, 'car': 0},
    },
}


def test_a_card_with_a_center_head(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, CENTERS))
    assert isinstance(card, LidarCard)
    assert card.anchors == ()
    assert card.outputs == {'hm': 4, 'reg': 2, 'height': 1, 'dim': 3, 'rot': 2}
    assert card.centers == CenterHead(
        heatmap='hm', size_order='wlh', heading='minus_y_clockwise',
        least_norms=(0.0, 0.3, 0.0, 0.0),
    )  # fmt: skip
    plain = load_card(write(tmp_path, {**CENTERS, 'output': {'stride': 2}}))
    assert isinstance(plain, LidarCard)
    assert plain.centers == CenterHead(least_norms=(0.0,) * 4)


def test_a_card_with_past_sweeps_and_velocities(tmp_path: Path) -> None:
    features = {'encoder.features': ['x', 'time_lag']}
    changes = {**features, 'input.past_sweeps': 2, 'output.velocity': 'vel'}
    card = load_card(write(tmp_path, CENTERS, changes))
    assert isinstance(card, LidarCard)
    assert (card.past_sweeps, card.point_columns) == (2, ('x', 'y', 'z', 'time_lag'))
    assert card.centers is not None
    assert card.centers.velocity == 'vel'
    assert list(card.outputs.items())[-1] == ('vel', 2)
    one = load_card(write(tmp_path, CENTERS, features))
    assert isinstance(one, LidarCard)
    assert (one.past_sweeps, one.point_columns) == (0, ('x', 'y', 'z'))
    assert 'vel' not in one.outputs


def test_outputs_of_anchors(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, LIDAR, {'output.scores': 'cls'}))
    assert isinstance(card, LidarCard)
    assert card.centers is None
    assert card.outputs == {'cls': 12, 'boxes': 21, 'directions': 6}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'output.size_order': 'hwl'}, "size_order is 'hwl', expected lwh or wlh"),
        ({'output.rotation_order': 'sin'}, "rotation_order is 'sin', expected sin_cos or cos_sin"),
        ({'output.heading': 'north'}, "heading is 'north', expected x_counterclockwise or"),
        ({'output.peaks': 3}, 'peaks is 3, expected bool'),
        ({'output.offset': 'hm'}, 'one output for two things: hm, hm, height'),
        ({'output.velocity': 'reg'}, 'one output for two things: .*, rot, reg'),
        ({'input.past_sweeps': 1}, "features lack 'time_lag'"),
        ({'input.past_sweeps': 6}, 'past_sweeps is 6, expected 0 to 5'),
        ({'input.past_sweeps': -1}, 'past_sweeps is -1, expected 0 to 5'),
        ({'input.past_sweeps': 1.0}, 'past_sweeps is 1.0, expected int'),
        ({'output.rotation_norms': {'tug': 0.3}}, "rotation_norms: 'tug': 0.3 is no length"),
        ({'output.rotation_norms': {'car': -0.3}}, "rotation_norms: 'car': -0.3 is no length"),
        ({'output.rotation_norms': {'car': 'long'}}, "car is 'long', no number"),
        ({'output.anchors': []}, "output: unknown key 'anchors'"),
        ({'classes': [f'c{n}' for n in range(129)]}, '129 classes, at most 128'),
    ],
    ids=str,
)
def test_what_a_card_with_a_center_head_may_not_say(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        load_card(write(tmp_path, CENTERS, change))


def test_a_camera_card(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, CAMERA))
    assert isinstance(card, CameraCard)
    assert card.published == ('person', 'car')
    assert card.published_name(1) == 'car'
    assert (card.height, card.width, card.color, card.strides) == (64, 96, 'rgb', (8, 16))
    assert card.std == (58.0, 57.1, 57.4)
    assert card.sizes['car'] == (4.0, 1.8, 1.5)


@pytest.mark.parametrize(
    'key', ['name', 'architecture', 'classes', 'input', 'encoder.bias', 'output.anchors']
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(CardError, match=f"'{key.split('.')[-1]}' is missing"):
        load_card(write(tmp_path, without(LIDAR, key)))


ANCHOR = {'class': 'car', 'size': [4, 2, 1.5], 'z': 0.75, 'yaws': [0]}
WRONG_LIDAR = [
    ({'architecture': 'second'}, "'second' is not one of"),
    ({'classes': []}, 'expected names'),
    ({'classes': 'car'}, "classes is 'car', expected list"),
    ({'classes': ['car', 'car']}, 'names one twice'),
    ({'classes': [1, 2]}, 'expected names'),
    ({'publish': {'lorry': 'truck'}}, "'lorry'"),
    ({'sigmas': {'tree': [1, 1, 1]}}, "'tree' is not among the published classes"),
    ({'sigmas': {'person': [1, 1]}}, 'expected 3 numbers'),
    ({'sigmas': {'person': [1, 0, 1]}}, 'expected positive numbers'),
    ({'publish': {'car': 7}}, "'car': 7"),
    ({'thresholds': {'tree': 0.5}}, "'tree'"),
    ({'thresholds': {'person': 1.5}}, "'person': 1.5"),
    ({'thresholds': {'person': 'low'}}, "person is 'low', no number"),
    ({'thresholds': {'person': True}}, 'person is True, no number'),
    ({'colour': 'red'}, "unknown key 'colour'"),
    ({'input.rows': 7}, "input: unknown key 'rows'"),
    ({'output.anchors': []}, 'anchors is empty'),
    ({'output.anchors': [{**ANCHOR, 'class': 'tug'}]}, "'tug' is not among"),
    ({'output.anchors': [{**ANCHOR, 'size': [4, 0, 1]}]}, 'has a size of'),
    ({'output.anchors': [{**ANCHOR, 'size': [4, 2]}]}, 'expected 3 numbers'),
    ({'output.anchors': [{**ANCHOR, 'yaws': ['north']}]}, 'has the yaws'),
    ({'output.anchors': [{**ANCHOR, 'z': float('nan')}]}, 'expected a finite number'),
    ({'output.anchors': [{**ANCHOR, 'colour': 'red'}]}, "unknown key 'colour'"),
    ({'output.anchors': ['car']}, 'expected a mapping'),
    ({'output.anchors': [{**ANCHOR, 'labels': []}]}, 'expected names'),
    ({'output.anchors': [{**ANCHOR, 'labels': 'car'}]}, "labels is 'car', expected list"),
    ({'output.anchors': [{**ANCHOR, 'labels': ['car', 'car']}]}, 'names one twice'),
    ({'output.anchors': [{**ANCHOR, 'labels': ['car', 'tug']}]}, "labels: 'tug' is not among"),
    ({'output.anchors': [{**ANCHOR, 'labels': ['truck']}]}, "'car' is not among its own labels"),
    ({'output.anchors': [{**ANCHOR, 'labels': ['car', 'tree']}]}, "no labels name 'truck'"),
    ({'output.anchor_places': 'corners'}, "'corners'"),
    ({'output.stride': 0}, 'stride is 0, expected 1 or more'),
    ({'output.stride': 3}, 'no whole number'),
    ({'input.pillar': [0.3, 0.5]}, 'no whole number'),
    ({'input.pillar': [0.0, 0.5]}, 'is empty'),
    ({'input.pillar': [0.5]}, 'expected 2 numbers'),
    ({'input.range': [0, 4, -1, 8, -4, 3]}, 'is empty'),
    ({'input.pillar': [0.0001, 0.0001], 'output.stride': 1}, 'is too large'),
    ({'input.max_points': -1}, 'max_points is -1'),
    ({'input.max_points': 3.5}, 'expected int'),
    ({'encoder.features': ['x', 'velocity']}, "'velocity' is not among"),
    ({'encoder.features': ['x', 'x']}, 'names one twice'),
    ({'encoder.bias': [0, 1]}, 'do not fit'),
    ({'encoder.weight': [[1, 2, 3], [4, 5]]}, 'weight is no array'),
    ({'encoder.weight': [1, 2, 3]}, 'of 2 dimensions'),
    ({'encoder.bias': [0, 1, float('inf')]}, 'no finite array'),
    ({'encoder.zero_row': 1}, 'zero_row is 1, expected bool'),
    ({'calibration': {'car': CURVE}}, "calibration: 'car' is not among the published classes"),
    ({'calibration': {'vehicle': [0, 1]}}, 'vehicle is [0, 1], expected dict'),
    ({'calibration': {'vehicle': {'scores': [0, 1]}}}, "key 'probabilities' is missing"),
    ({'calibration': {'vehicle': {**CURVE, 'knots': 2}}}, "unknown key 'knots'"),
    ({'calibration': {'vehicle': {**CURVE, 'scores': [0, 'a', 1]}}}, 'expected numbers'),
    ({'calibration': {'vehicle': {**CURVE, 'scores': [0, 1]}}}, 'a calibration curve of'),
    ({'calibration': {'vehicle': {**CURVE, 'scores': [0, 0.5, 0.5]}}}, 'scores strictly'),
    ({'calibration': {'vehicle': {**CURVE, 'probabilities': [0, 0.9, 0.1]}}}, 'never descend'),
    ({'calibration': {'vehicle': {**CURVE, 'probabilities': [0, 0.9, 1.1]}}}, 'lie in 0..1'),
    ({'calibration': {'vehicle': {**CURVE, 'scores': [0.1, 0.5, 1]}}}, 'put a 0 before both'),
    ({'calibration': {'vehicle': {**CURVE, 'probabilities': [0.1, 0.5, 1]}}}, 'put a 0 before'),
]


def test_a_lidar_card_may_say_how_far_boxes_of_a_class_lie_off(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, LIDAR, {'sigmas': {'vehicle': [0.4, 0.1, 0.2]}}))
    assert isinstance(card, LidarCard)
    assert card.sigmas == {'vehicle': (0.4, 0.1, 0.2)}
    assert load_card(write(tmp_path, LIDAR)).sigmas == {}  # type: ignore[union-attr]


@pytest.mark.parametrize(('change', 'message'), WRONG_LIDAR, ids=str)
def test_what_a_lidar_card_may_not_say(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CardError, match=message.replace('[', r'\[')) as caught:
        load_card(write(tmp_path, LIDAR, change))
    assert 'network.yaml' in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'input.color': 'grey'}, "color is 'grey'"),
        ({'input.height': 70}, 'no multiple of the strides'),
        ({'input.height': True}, 'expected int'),
        ({'input.std': [1, 0, 1]}, 'expected positive numbers'),
        ({'output.strides': []}, 'expected positive integers'),
        ({'output.strides': [8, -16]}, 'expected positive integers'),
        ({'sizes.car': [4, 1.8]}, 'expected 3 numbers'),
        ({'sizes.car': [4, 0, 1.5]}, r"'car' has a size of \(4.0, 0.0, 1.5\) m"),
        ({'sizes': {'person': [1, 1, 2]}}, "sizes lack 'car'"),
        ({'sizes': 3}, 'expected dict'),
    ],
    ids=str,
)
def test_what_a_camera_card_may_not_say(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        load_card(write(tmp_path, CAMERA, change))


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    with pytest.raises(CardError, match='no model card'):
        load_card(tmp_path / 'none.yaml')
    for content, message in (
        (b'- 1\n', 'this is list'),
        (b'a: [', 'not readable'),
        (b'\xff', 'not readable'),
    ):
        path = tmp_path / 'wrong.yaml'
        path.write_bytes(content)
        with pytest.raises(CardError, match=message):
            load_card(path)


def test_the_card_beside_a_network(tmp_path: Path, tiny_models: ModuleType) -> None:
    network = tiny_models.tiny_camera_model(tmp_path)
    assert find_card(network).name == 'tiny_camera'
    other = write(tmp_path, CAMERA)
    assert find_card(network, str(other)).name == 'eye'


def test_a_card_belongs_to_one_network(tmp_path: Path, tiny_models: ModuleType) -> None:
    network = tiny_models.tiny_lidar_model(tmp_path)
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    tiny_models.tiny_lidar_model(tmp_path, sha256=digest)
    assert find_card(network).sha256 == digest
    network.write_bytes(b'another')
    with pytest.raises(CardError, match=f'describes {digest[:12]}'):
        find_card(network)
    network.unlink()
    with pytest.raises(CardError, match='not readable'):
        find_card(network)
    assert find_card(network.with_suffix('.engine')).sha256 == digest
