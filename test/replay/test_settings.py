"""Which sensors of a bag run, with which values; what is wrong names the file and the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airside_perception.config import CameraConfig, FusionConfig, LidarConfig
from airside_perception.errors import CardError, ConfigError
from airside_perception.parameter import from_values
from airside_perception.params import read_parameters
from airside_perception.replay.settings import THREADS, load_settings, rectified_cameras
from airside_perception.resources import resource

Parameters = Callable[..., Path]

LIDAR = '/sensing/lidar/points'
FRONT = '/sensing/camera/front/image'
LEFT = '/sensing/camera/left/image'


def test_all_that_the_bag_has(parameters: Parameters) -> None:
    found = load_settings(
        [LEFT, FRONT, LIDAR, '/tf', '/sensing/camera/front/camera_info'], parameters()
    )
    assert [camera.name for camera in found.cameras] == ['front', 'left']
    assert found.cameras[0].info_topic == '/sensing/camera/front/camera_info'
    assert found.lidar is not None
    assert found.fusion.sources == ('lidar', 'front', 'left')
    assert found.left_out == {}


def test_the_listed_cameras_in_their_order(parameters: Parameters) -> None:
    params = parameters(bev_fusion={'cameras': ['rear', 'left', 'front']})
    found = load_settings([FRONT, LEFT, LIDAR], params)
    assert found.fusion.cameras == ('left', 'front')
    assert found.left_out == {'rear': 'not in the bag'}
    found = load_settings([FRONT, LEFT, LIDAR], parameters(bev_fusion={'cameras': ['left']}))
    assert found.fusion.cameras == ('left',)
    assert 'not among the cameras' in found.left_out['front']


def test_no_cameras_at_all(parameters: Parameters) -> None:
    found = load_settings([FRONT, LIDAR], parameters(bev_fusion={'cameras': ['']}))
    assert found.fusion.sources == ('lidar',)


def test_what_has_no_network_is_left_out(parameters: Parameters) -> None:
    params = parameters(camera_left={'engine_path': ''})
    found = load_settings([FRONT, LEFT, LIDAR], params)
    assert found.fusion.cameras == ('front',)
    assert 'no engine_path' in found.left_out['left']


def test_without_lidar(parameters: Parameters) -> None:
    found = load_settings([FRONT], parameters())
    assert (found.lidar, found.fusion.sources) == (None, ('front',))
    assert found.left_out == {'lidar': 'not in the bag'}
    found = load_settings([FRONT, LIDAR], parameters(bev_fusion={'lidar': False}))
    assert (found.lidar, found.fusion.lidar) == (None, False)
    assert 'switch it off' in found.left_out['lidar']


def test_values_of_one_camera_and_of_all(parameters: Parameters) -> None:
    params = parameters(
        camera_detector={'nms_iou': 0.6, 'score_thresholds': {'car': 0.5}},
        camera_left={'nms_iou': 0.7, 'threads': 1},
        bev_fusion={'prior': 0.2, 'priors': {'car': 0.4}},
    )
    found = load_settings([FRONT, LEFT, LIDAR], params)
    front, left = (camera.network.config for camera in found.cameras)
    assert (front.nms_iou, left.nms_iou) == (0.6, 0.7)
    assert front.score_thresholds == {'car': 0.5, 'person': 0.3}
    assert (front.threads, left.threads) == (THREADS, 1)
    assert found.fusion.priors == {'car': 0.4}
    values = found.as_dict()
    assert set(values) == {'camera_front', 'camera_left', 'lidar_detector', 'bev_fusion'}
    assert values['camera_front']['score_thresholds.car'] == 0.5


def test_compressed_images_by_wish_or_because_there_are_no_others(parameters: Parameters) -> None:
    small = f'{FRONT}/compressed'
    assert load_settings([small], parameters()).cameras[0].image_topic == small
    assert load_settings([small, FRONT], parameters()).cameras[0].image_topic == FRONT
    found = load_settings([small, FRONT], parameters(camera_detector={'compressed': True}))
    assert found.cameras[0].compressed


@pytest.mark.parametrize(
    ('images', 'said', 'rectified'),
    [
        (['image'], None, False),
        (['image'], True, True),
        (['image_rect'], None, True),
        (['image_rect_color/compressed'], None, True),
        (['image_rect'], False, False),
        (['image_rect', 'image'], None, False),  # a replay takes the other one
        (['image_raw', 'image_rect'], None, False),
        (['image', 'rectangle'], None, False),
        ([], None, False),
        ([], True, True),
    ],
)
def test_which_cameras_are_rectified(
    parameters: Parameters, images: list[str], said: bool | None, rectified: bool
) -> None:
    topics = [f'/sensing/camera/front/{name}' for name in ('camera_info', *images)]
    params = parameters(camera_detector={} if said is None else {'rectified': said})
    found = rectified_cameras([*topics, LEFT, LIDAR], read_parameters(params).for_node)
    assert ('front' in found) == rectified
    assert ('left' in found) == bool(said)


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({'camera_front': {'nms_uoi': 0.5}}, "camera_front: unknown parameter 'nms_uoi'"),
        ({'camera_front': {'nms_iou': 1.5}}, 'camera_front: nms_iou = 1.5: outside'),
        ({'camera_front': {'score_thresholds': {'boat': 0.5}}}, 'score_thresholds.boat'),
        ({'lidar_detector': {'nms_iou': 'high'}}, "lidar_detector: nms_iou = 'high'"),
        ({'lidar_detector': {'engine_path': ''}}, 'lidar_detector: engine_path is empty'),
        ({'lidar_detector': {'engine_path': 'none.onnx'}}, r'lidar_detector: .*none\.onnx'),
        ({'bev_fusion': {'deadline_ms': -1.0}}, 'bev_fusion: deadline_ms = -1.0'),
        ({'bev_fusion': {'cameras': 'front'}}, "cameras = 'front': expected a list of strings"),
        ({'bev_fusion': {'prior': 'x', 'priors': {'car': 0.2}}}, "prior = 'x': expected a number"),
        ({'lidar_detecter': {'nms_iou': 0.5}}, "did you mean '/lidar_detector'"),
    ],
)
def test_what_is_wrong_names_file_and_node(
    parameters: Parameters, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        load_settings([FRONT, LIDAR], parameters(**changes))
    assert 'parameters.yaml' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_network_of_another_kind_is_refused(parameters: Parameters, tmp_path: Path) -> None:
    lidar = str(tmp_path / 'networks' / 'tiny_lidar.onnx')
    with pytest.raises(ConfigError, match='pointpillars is no CameraCard'):
        load_settings([FRONT], parameters(camera_front={'engine_path': lidar}))


def test_a_broken_card_is_named(parameters: Parameters, tmp_path: Path) -> None:
    params = parameters()
    (tmp_path / 'networks' / 'tiny_camera.yaml').write_text('name: 3')
    with pytest.raises(CardError, match=r'tiny_camera\.yaml'):
        load_settings([FRONT], params)


def test_nothing_to_run(parameters: Parameters) -> None:
    with pytest.raises(ConfigError, match='nothing to run: lidar: not in the bag'):
        load_settings(['/tf'], parameters())


def test_the_shipped_configuration_is_valid() -> None:
    """Whatever networks are there: every value of the file is known and in range."""
    path = resource('config', 'perception.yaml')
    found = read_parameters(path)
    from_values(FusionConfig, found.for_node('bev_fusion'))
    from_values(LidarConfig, found.for_node('lidar_detector'))
    from_values(CameraConfig, found.for_node('camera_front'))
    found.check_nodes(['lidar_detector', 'bev_fusion', 'camera_front'])
