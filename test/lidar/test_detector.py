"""From a cloud to boxes, on a network whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from airside_perception.card import Anchor, LidarCard, find_card
from airside_perception.config import LidarConfig
from airside_perception.engine import open_engine
from airside_perception.errors import EngineError, MessageError
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.labels import Labels
from airside_perception.types import PointCloud

CAR = (4.0, 2.0, 1.5, 0.75)


def cloud(*points: tuple[float, ...], fields: tuple[str, ...] = ()) -> PointCloud:
    names = fields or ('x', 'y', 'z', 'intensity')
    return PointCloud(7, 'base_link', np.array(points, np.float32).reshape(-1, len(names)), names)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@pytest.fixture
def network(tmp_path: Path, tiny_models: ModuleType) -> Path:
    return tiny_models.tiny_lidar_model(tmp_path)


@pytest.fixture
def card(network: Path) -> LidarCard:
    found = find_card(network)
    assert isinstance(found, LidarCard)
    return found


@pytest.fixture
def detector(network: Path, card: LidarCard) -> LidarDetector:
    return LidarDetector(open_engine(network, threads=1), card, LidarConfig())


def test_boxes_stand_where_the_points_are(detector: LidarDetector) -> None:
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4)))
    assert found.classes == ('car', 'person')
    assert (found.stamp_ns, found.frame_id) == (7, 'base_link')
    np.testing.assert_allclose(found.scores, [sigmoid(6.0), sigmoid(2.0)], rtol=1e-4)
    np.testing.assert_allclose(
        found.boxes,
        [[10.5, 3.5, 0.75, 4.0, 2.0, 1.5, 0.0], [20.5, -5.5, 0.9, 0.6, 0.6, 1.8, 0.0]],
        atol=1e-5,
    )


def test_anchors_that_score_their_own_class_only(
    tmp_path: Path, tiny_models: ModuleType, detector: LidarDetector
) -> None:
    (tmp_path / 'own').mkdir()
    network = tiny_models.tiny_lidar_model(tmp_path / 'own', own_labels=True)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    own = LidarDetector(open_engine(network, threads=1), card, LidarConfig())
    points = cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4), (30.1, 2.2, 0.5, 0.55))
    found, expected = own.detect(points), detector.detect(points)
    assert found.classes == expected.classes == ('car', 'person', 'car')
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_covariances_grow_with_range(detector: LidarDetector) -> None:
    detector.config = LidarConfig(position_sigma=0.2, position_sigma_per_m=0.01, yaw_sigma=0.3)
    found = detector.detect(cloud((30.5, -0.5, 0.0, 0.9), (0.5, 0.5, 0.0, 0.9)))
    for box, covariance in zip(found.boxes, found.covariances, strict=True):
        sigma = 0.2 + 0.01 * np.hypot(box[0], box[1])
        np.testing.assert_allclose(covariance, np.diag([sigma**2] * 3 + [0.09]), rtol=1e-9)


def test_covariances_of_a_class_are_those_of_its_card(detector: LidarDetector) -> None:
    sigmas = {'car': (0.5, 0.1, 0.7)}
    card = replace(detector.card, sigmas=sigmas)
    config = LidarConfig(position_sigma=0.2, position_sigma_per_m=0.01, yaw_sigma=0.3)
    boxes = np.array([[30.0, 0, 1, 4, 2, 1.5, 0.7], [30.0, 0, 1, 4, 2, 1.5, 0.7]])
    labels = np.array([card.classes.index('car'), card.classes.index('person')])
    nowhere = np.full((2, 2), np.nan)
    found = Labels(card).publish(0, 'lidar', boxes, np.array([0.9, 0.8]), labels, config, nowhere)
    car, person = found.covariances
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])
    np.testing.assert_allclose(car[:2, :2], turn @ np.diag([0.8**2, 0.4**2]) @ turn.T)
    np.testing.assert_allclose(np.diag(car)[2:], [0.5**2, 0.7**2])
    np.testing.assert_array_equal(person, np.diag([0.5**2] * 3 + [0.3**2]))


def test_a_cloud_without_points_gives_no_boxes(detector: LidarDetector) -> None:
    detector.detect(cloud((10.2, 3.7, 0.5, 0.8)))
    found = detector.detect(cloud())
    assert len(found) == 0
    assert found.covariances.shape == (0, 4, 4)
    assert detector.last_pillars == 0


def test_nothing_is_left_of_the_cloud_before(detector: LidarDetector) -> None:
    first, second = cloud((10.2, 3.7, 0.5, 0.8)), cloud((30.2, -3.7, 0.5, 0.8))
    once = detector.detect(second)
    detector.detect(first)
    again = detector.detect(second)
    np.testing.assert_array_equal(once.boxes, again.boxes)
    np.testing.assert_array_equal(once.scores, again.scores)


def test_thresholds_change_between_clouds(detector: LidarDetector) -> None:
    points = cloud((10.2, 3.7, 0.5, 0.56), (20.9, -5.1, 0.5, 0.44))  # both sigmoid(1.2) = 0.77
    assert set(detector.detect(points).classes) == {'car', 'person'}
    detector.config = replace(detector.config, score_thresholds={'car': 0.8})
    assert detector.detect(points).classes == ('person',)
    detector.config = replace(detector.config, score_threshold=0.8, score_thresholds={})
    assert len(detector.detect(points)) == 0


def test_card_thresholds_are_the_defaults(network: Path, card: LidarCard) -> None:
    strict = replace(card, thresholds={'person': 0.9, 'car': 0.3})
    detector = LidarDetector(open_engine(network, threads=1), strict, LidarConfig())
    points = cloud((10.2, 3.7, 0.5, 0.56), (20.9, -5.1, 0.5, 0.44))
    assert detector.detect(points).classes == ('car',)
    detector.config = LidarConfig(score_thresholds={'person': 0.5})
    assert set(detector.detect(points).classes) == {'car', 'person'}


def test_one_object_is_one_box(detector: LidarDetector) -> None:
    side_by_side = cloud((10.2, 3.7, 0.5, 0.8), (11.2, 3.7, 0.5, 0.9), (12.2, 3.7, 0.5, 0.7))
    found = detector.detect(side_by_side)
    np.testing.assert_allclose(found.boxes[:, :2], [[11.5, 3.5]])
    detector.config = LidarConfig(nms_iou=1.0, nms_iou_across=1.0)
    assert len(detector.detect(side_by_side)) == 3
    detector.config = replace(detector.config, max_detections=2)
    np.testing.assert_allclose(detector.detect(side_by_side).boxes[:, 0], [11.5, 10.5])


def test_a_person_is_not_lost_to_the_vehicle_beside(detector: LidarDetector) -> None:
    detector.config = LidarConfig(nms_iou=0.01)
    found = detector.detect(cloud((10.5, 3.5, 0.5, 1.0), (11.5, 3.5, 0.5, 0.42)))
    assert found.classes == ('car', 'person')  # the person's footprint lies inside the car's


def test_two_classes_of_one_size_at_one_place_are_one_object(
    tmp_path: Path, tiny_models: ModuleType
) -> None:
    alike = {
        'stride': 2,
        'anchors': [
            {'class': 'car', 'size': [4.0, 2.0, 1.5], 'z': 0.75, 'yaws': [0.0]},
            {'class': 'person', 'size': [4.4, 2.1, 1.8], 'z': 0.9, 'yaws': [0.0]},
        ],
    }
    network = tiny_models.tiny_lidar_model(tmp_path, output=alike, classes=['car', 'person'])
    card = find_card(network)
    assert isinstance(card, LidarCard)
    detector = LidarDetector(open_engine(network, threads=1), card, LidarConfig())
    points = cloud((10.2, 3.7, 0.5, 0.55), (11.2, 3.7, 0.5, 0.43))
    assert detector.detect(points).classes == ('person',)
    detector.config = LidarConfig(nms_iou_across=1.0)
    assert detector.detect(points).classes == ('person', 'car')


def test_labels_are_renamed_or_dropped(network: Path, card: LidarCard) -> None:
    renamed = replace(card, publish={'car': 'vehicle'}, thresholds={'vehicle': 0.2})
    detector = LidarDetector(open_engine(network, threads=1), renamed, LidarConfig())
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.1)))
    assert found.classes == ('vehicle',)


def test_a_dropped_label_takes_no_published_ones_place(network: Path, card: LidarCard) -> None:
    places = (10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4)  # a car, and a weaker person
    dropped = replace(card, publish={'person': 'person'}, thresholds={})
    config = LidarConfig(max_candidates=1)
    found = LidarDetector(open_engine(network, threads=1), dropped, config).detect(cloud(*places))
    assert found.classes == ('person',)
    np.testing.assert_allclose(found.scores, [sigmoid(2.0)], rtol=1e-4)


def test_points_on_the_ego_vehicle_are_left_out(detector: LidarDetector) -> None:
    points = cloud((1.2, 1.2, 2.5, 0.9), (3.2, 1.2, 0.5, 0.9))
    detector.config = LidarConfig(nms_iou=1.0, nms_iou_across=1.0)
    assert len(detector.detect(points)) == 2
    detector.config = replace(detector.config, min_range=2.0)
    np.testing.assert_allclose(detector.detect(points).boxes[:, 0], [3.5])


def test_the_body_of_the_vehicle_is_left_out_and_who_stands_beside_it_is_not(
    detector: LidarDetector,
) -> None:
    roof, beside = (1.2, 1.2, 2.5, 0.9), (3.2, 1.2, 0.5, 0.4)
    points = cloud(roof, beside)
    loose = LidarConfig(nms_iou=1.0, nms_iou_across=1.0)
    detector.config = loose
    assert detector.detect(points).classes == ('car', 'person')
    detector.config = replace(loose, ego_box=(-3.0, -2.0, 0.0, 3.0, 2.0, 3.0))
    found = detector.detect(points)
    assert found.classes == ('person',)
    assert detector.last_usable == 1
    np.testing.assert_allclose(found.boxes[:, 0], [3.5])
    moved = cloud(*[(x - 10.0, y, z, i) for x, y, z, i in (roof, beside)])
    lidar2target = np.eye(4)
    lidar2target[0, 3] = 10.0
    found = detector.detect(moved, lidar2target)  # the box is in the frame of the network
    assert found.classes == ('person',)


def test_intensity_is_found_by_name_and_scaled(detector: LidarDetector) -> None:
    detector.config = LidarConfig(intensity_scale=1 / 255)
    fields = ('x', 'y', 'z', 'ring', 'intensity')
    found = detector.detect(cloud((10.2, 3.7, 0.5, 3.0, 204.0), fields=fields))
    assert found.classes == ('car',)
    np.testing.assert_allclose(found.scores, [sigmoid(6.0)], rtol=1e-4)


def test_missing_intensity_is_an_error(detector: LidarDetector) -> None:
    with pytest.raises(MessageError, match='needs intensity'):
        detector.detect(cloud((1.0, 2.0, 0.0), fields=('x', 'y', 'z')))


def test_intensity_is_not_asked_for_in_vain(tmp_path: Path, tiny_models: ModuleType) -> None:
    encoder = {'features': ['x', 'y'], 'weight': [[0.0] * 4] * 2, 'bias': [1.0, 0.9, 0.0, 0.0]}
    network = tiny_models.tiny_lidar_model(tmp_path, encoder=encoder)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    assert not card.needs_intensity
    detector = LidarDetector(open_engine(network, threads=1), card, LidarConfig())
    for fields, point in ((('x', 'y', 'z'), (10.2, 3.7, 0.5)), ((), (10.2, 3.7, 0.5, 0.1))):
        assert detector.detect(cloud(point, fields=fields)).classes == ('car',)


def test_timings_and_pillars_are_reported(detector: LidarDetector) -> None:
    detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4), (-3.0, 0.0, 0.0, 0.5)))
    assert list(detector.timings) == ['pillars', 'encoder', 'engine', 'decode', 'nms']
    assert all(ms >= 0.0 for ms in detector.timings.values())
    assert detector.last_pillars == 2


def test_pillars_beyond_the_limit_are_counted(network: Path, card: LidarCard) -> None:
    few = replace(card, max_pillars=1)
    detector = LidarDetector(open_engine(network, threads=1), few, LidarConfig())
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.9)))
    assert detector.last_pillars == 2
    np.testing.assert_allclose(found.boxes[:, 1], [-5.5])  # the lower cell


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'input_name': 'image'}, "no input 'image'"),
        ({'score_output': 'logits'}, "no output 'logits'"),
        ({'classes': ('car', 'person', 'cone')}, 'scores'),
        ({'anchors': (Anchor(0, *CAR, 0.0, (0,)), Anchor(1, *CAR, 0.0, (0, 1)))}, r'scores.* 3,'),
        ({'stride': 4}, 'contradicts its model card'),
        ({'max_pillars': 5, 'bias': np.zeros(3, np.float32)}, 'canvas'),
    ],
)
def test_engine_and_card_must_agree(
    network: Path, card: LidarCard, change: dict[str, object], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        LidarDetector(open_engine(network, threads=1), replace(card, **change), LidarConfig())


@pytest.mark.parametrize('which', ['inputs', 'outputs'])
def test_tensors_of_another_type_are_refused(network: Path, card: LidarCard, which: str) -> None:
    class Wrong:
        """The engine, but one side of it is whole numbers."""

        def __init__(self) -> None:
            engine = open_engine(network, threads=1)
            self.info, self.inputs, self.outputs = engine.info, engine.inputs, engine.outputs
            whole = [replace(spec, dtype=np.dtype(np.int8)) for spec in getattr(engine, which)]
            setattr(self, which, tuple(whole))

    with pytest.raises(EngineError, match=r'int8 .*; expected float32 or float16'):
        LidarDetector(Wrong(), card, LidarConfig())


@pytest.mark.parametrize('model', ['tiny_lidar_model', 'tiny_center_model'])
def test_half_precision_networks(tmp_path: Path, tiny_models: ModuleType, model: str) -> None:
    points = cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4), (3.2, 15.7, 0.5, 0.55))
    found = []
    for half in (False, True):
        folder = tmp_path / str(half)
        folder.mkdir()
        path = getattr(tiny_models, model)(folder, half=half)
        card = find_card(path)
        assert isinstance(card, LidarCard)
        with open_engine(path, threads=1) as engine:
            assert {spec.dtype for spec in (*engine.inputs, *engine.outputs)} == {
                np.dtype(np.float16 if half else np.float32)
            }
            detector = LidarDetector(engine, card, LidarConfig())
            found.append(detector.detect(points))
            detector.close()
    single, half_precise = found
    assert half_precise.classes == single.classes == ('car', 'person', 'car')
    np.testing.assert_allclose(half_precise.boxes, single.boxes, atol=5e-3)
    np.testing.assert_allclose(half_precise.scores, single.scores, atol=2e-3)


def test_closing_ends_nothing(detector: LidarDetector) -> None:
    detector.close()
    detector.close()
    assert len(detector.detect(cloud((10.2, 3.7, 0.5, 0.8)))) == 1  # the engine is its owner's


@pytest.fixture
def center_network(tmp_path: Path, tiny_models: ModuleType) -> Path:
    return tiny_models.tiny_center_model(tmp_path)


def test_a_center_head(center_network: Path) -> None:
    card = find_card(center_network)
    assert isinstance(card, LidarCard)
    detector = LidarDetector(open_engine(center_network, threads=1), card, LidarConfig())
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4)))
    assert found.classes == ('car', 'person')
    np.testing.assert_allclose(found.scores, [sigmoid(6.0), sigmoid(2.0)], rtol=1e-4)
    np.testing.assert_allclose(
        found.boxes,
        [[10.5, 3.5, 0.75, 4.0, 2.0, 1.5, 0.0], [20.5, -5.5, 0.75, 4.0, 2.0, 1.5, 0.0]],
        atol=1e-5,
    )
    side_by_side = cloud((10.2, 3.7, 0.5, 0.8), (11.2, 3.7, 0.5, 0.9), (12.2, 3.7, 0.5, 0.7))
    np.testing.assert_allclose(detector.detect(side_by_side).boxes[:, :2], [[11.5, 3.5]])
    assert len(detector.detect(cloud())) == 0


def test_a_class_may_need_a_heading(tmp_path: Path, tiny_models: ModuleType) -> None:
    output = {'stride': 2, 'size_order': 'wlh', 'rotation_norms': {'car': 1.1}}
    network = tiny_models.tiny_center_model(tmp_path, output=output)
    card = find_card(network)
    assert isinstance(card, LidarCard)
    detector = LidarDetector(open_engine(network, threads=1), card, LidarConfig())
    found = detector.detect(cloud((10.2, 3.7, 0.5, 0.8), (20.9, -5.1, 0.5, 0.4)))
    assert found.classes == ('person',)
    np.testing.assert_allclose(found.boxes[0, 6], -np.pi / 2)  # now the angle counts from x


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'rotation': 'yaw'}, "no output 'yaw'"),
        ({'size': 'vel'}, r'output vel: .* needs \[1, 3, 40, 40\]'),
    ],
)
def test_outputs_of_a_center_head_must_be_there(
    tmp_path: Path, tiny_models: ModuleType, change: dict[str, str], message: str
) -> None:
    network = tiny_models.tiny_center_model(tmp_path, output={'stride': 2, **change})
    card = find_card(network)
    assert isinstance(card, LidarCard)
    with pytest.raises(EngineError, match=message):
        LidarDetector(open_engine(network, threads=1), card, LidarConfig())
