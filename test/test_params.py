"""Parameter files: the values of a node are those that ROS would give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airside_perception.errors import ConfigError
from airside_perception.params import ParameterFile, read_parameters


def parameters(tmp_path: Path, text: str) -> ParameterFile:
    path = tmp_path / 'parameters.yaml'
    path.write_text(text)
    return read_parameters(path)


def test_sections_of_one_node_and_of_all(tmp_path: Path) -> None:
    found = parameters(
        tmp_path,
        """
        /**:
          ros__parameters: {tf_timeout_ms: 80.0, use_sim_time: true}
        lidar_detector:
          ros__parameters:
            tf_timeout_ms: 20.0
            score_thresholds: {person: 0.2, car: 0.4}
            qos_overrides: {/tf: {depth: 3}}
        """,
    )
    assert found.for_node('lidar_detector') == {
        'tf_timeout_ms': 20.0,
        'score_thresholds.person': 0.2,
        'score_thresholds.car': 0.4,
    }
    assert found.for_node('bev_fusion') == {'tf_timeout_ms': 80.0}


def test_what_ros2_param_dump_adds_is_not_for_the_settings(tmp_path: Path) -> None:
    found = parameters(
        tmp_path,
        """
        /lidar_detector:
          ros__parameters:
            nms_iou: 0.3
            start_type_description_service: true
            use_sim_time: false
        """,
    )
    assert found.for_node('lidar_detector') == {'nms_iou': 0.3}


def test_later_sections_win(tmp_path: Path) -> None:
    found = parameters(
        tmp_path,
        """
        bev_fusion: {ros__parameters: {a: 1, b: 1}}
        /**: {ros__parameters: {b: 2}}
        """,
    )
    assert found.for_node('bev_fusion') == {'a': 1, 'b': 2}


def test_the_fusion_knows_how_near_the_lidar_sees(tmp_path: Path) -> None:
    near = 'lidar_detector: {ros__parameters: {min_range: 2.5}}'
    assert parameters(tmp_path, near).for_node('bev_fusion') == {'lidar_min_range': 2.5}
    own = f'{near}\nbev_fusion: {{ros__parameters: {{lidar_min_range: 1.0}}}}'
    assert parameters(tmp_path, own).for_node('bev_fusion') == {'lidar_min_range': 1.0}


def test_the_cameras_share_a_section(tmp_path: Path) -> None:
    found = parameters(
        tmp_path,
        """
        camera_detector: {ros__parameters: {a: 1, b: 1}}
        camera_front: {ros__parameters: {b: 2}}
        """,
    )
    assert found.for_node('camera_front') == {'a': 1, 'b': 2}
    assert found.for_node('camera_left') == {'a': 1, 'b': 1}
    assert found.for_node('lidar_detector') == {}


@pytest.mark.parametrize(
    ('pattern', 'matches'),
    [
        ('/**', True), ('/*', True), ('/**/front', True), ('front', True), ('/front', True),
        ('/*/front', False), ('/other/front', False), ('fron', False), ('front/**', True),
        ('front.', False),
    ],
)  # fmt: skip
def test_patterns(tmp_path: Path, pattern: str, matches: bool) -> None:
    found = parameters(tmp_path, f'"{pattern}": {{ros__parameters: {{a: 1}}}}')
    assert found.for_node('front') == ({'a': 1} if matches else {})


def test_namespaces_nest(tmp_path: Path) -> None:
    found = parameters(tmp_path, '"**": {front: {ros__parameters: {a: 1}}}')
    assert [name for name, _ in found.sections] == ['/**/front']
    assert found.for_node('front') == {'a': 1}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert parameters(tmp_path, '# nothing').for_node('front') == {}


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('a: [', 'not readable as YAML'),
        ('- a', 'expected a mapping of nodes'),
        ('front: 3', '/front is 3'),
        ('front: {score: 3}', '/front/score is 3'),
        ('front: {ros__parameters: 3}', "'ros__parameters' of '/front' is 3"),
    ],
)
def test_what_is_no_parameter_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        parameters(tmp_path, text)
    assert 'parameters.yaml' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no such parameter file'):
        read_parameters(tmp_path / 'none.yaml')


def test_a_section_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    found = parameters(tmp_path, 'lidar_detecter: {ros__parameters: {a: 1}}')
    with pytest.raises(ConfigError, match="did you mean '/lidar_detector'"):
        found.check_nodes(['lidar_detector', 'bev_fusion'])
    found = parameters(tmp_path, 'engine_room: {ros__parameters: {a: 1}}')
    with pytest.raises(ConfigError, match='known: /lidar_detector, /camera_detector'):
        found.check_nodes(['lidar_detector'])
    parameters(tmp_path, '/**: {ros__parameters: {a: 1}}').check_nodes(['lidar_detector'])
    parameters(tmp_path, 'camera_detector: {ros__parameters: {a: 1}}').check_nodes([])
    parameters(tmp_path, '{}').check_nodes([])
