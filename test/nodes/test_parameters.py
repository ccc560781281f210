"""Parameters and transitions, through the services that people's tools call."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter

from airside_perception.config import CameraConfig, specs
from airside_perception.errors import PerceptionError
from airside_perception.nodes.camera_detector import CameraDetectorNode


def camera(harness, networks, **parameters):
    return harness.add(
        CameraDetectorNode, engine_path=str(networks / 'tiny_camera.onnx'), **parameters
    )


def get(node, name):
    return node.get_parameter(name).value


def test_transitions_open_and_close_the_network_again_and_again(harness, networks):
    node = camera(harness, networks)
    for _ in range(2):
        assert harness.state(node) == 'unconfigured'
        assert node.engine is None
        assert harness.change(node, 'configure')
        assert node.engine is not None
        assert not node.topic
        assert harness.change(node, 'activate')
        assert node.topic == '/camera_detector/input/image'
        assert harness.node.count_subscribers(node.topic) == 1
        assert harness.change(node, 'deactivate')
        harness.until(
            lambda: harness.node.count_subscribers(node.topic) == 0, 'the subscription to end'
        )
        assert harness.change(node, 'cleanup')
        assert node.engine is None
        node.topic = ''
    assert harness.change(node, 'shutdown')
    assert harness.state(node) == 'finalized'


def test_an_activation_that_fails_leaves_nothing_behind_and_stays_in_diagnostics(
    harness, networks, monkeypatch
):
    node = camera(harness, networks)
    assert harness.change(node, 'configure')

    def refuse():
        raise PerceptionError('no such topic')

    monkeypatch.setattr(node, 'subscribe', refuse)
    assert not harness.change(node, 'activate')
    assert harness.state(node) == 'inactive'
    assert node.tf is None
    status, values = harness.diagnosis(node, lambda status, values: status.level == b'\x02')
    assert status.message == 'activate failed: no such topic'
    assert values['state'] == 'not active'
    monkeypatch.undo()
    assert harness.change(node, 'activate')
    assert node.diagnostics.problem == ''


def test_every_setting_is_described_with_both_ends_of_its_range(harness, networks):
    node = camera(harness, networks)
    assert harness.change(node, 'configure')
    thresholds = {'score_thresholds': {'person': 0.3, 'car': 0.3}}
    expected = {spec.name: spec for spec in specs(CameraConfig, thresholds)}
    listed = harness.call(ListParameters, '/camera_detector/list_parameters').result.names
    assert set(expected) <= set(listed)
    found = harness.call(
        DescribeParameters, '/camera_detector/describe_parameters', names=list(expected)
    ).descriptors
    for descriptor in found:
        spec = expected[descriptor.name]
        assert spec.description in descriptor.description
        assert spec.unit in descriptor.description
        assert ('Fixed while the node is configured' in descriptor.description) == (not spec.live)
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        if spec.low is None:
            assert not ranges
        else:
            assert (ranges[0].from_value, ranges[0].to_value) == (spec.low, spec.high)
    assert get(node, 'score_thresholds.person') == 0.3  # from the model card


def test_a_set_is_taken_as_a_whole_or_not_at_all(harness, networks):
    node = camera(harness, networks)
    harness.activate(node)
    result = harness.set(node, score_threshold=0.6, score_thresholds__car=0.7, max_range=40.0)
    assert result.successful, result.reason
    assert node.config.score_threshold == 0.6
    assert node.config.score_thresholds == {'person': 0.3, 'car': 0.7}
    refused = harness.set(node, score_threshold=0.5, nms_iou=1.5)
    assert not refused.successful
    assert 'nms_iou' in refused.reason
    assert node.config.score_threshold == get(node, 'score_threshold') == 0.6
    refused = harness.set(node, score_threshold='high')
    assert not refused.successful


def test_what_the_network_is_opened_with_is_refused_while_configured(harness, networks):
    node = camera(harness, networks)
    harness.activate(node)
    for name, value in {
        'engine_path': 'x.onnx',
        'dla_core': 1,
        'precision': 'fp16',
        'ground_frame': 'map',
    }.items():
        refused = harness.set(node, **{name: value})
        assert not refused.successful
        assert name in refused.reason
        assert 'cleanup' in refused.reason
    assert harness.set(node, dla_core=-1).successful  # as it is: nothing to refuse
    assert harness.change(node, 'deactivate')
    assert harness.change(node, 'cleanup')
    assert harness.set(node, ground_frame='map').successful
    refused = harness.set(node, precision='fp13')
    assert "not one of 'auto'" in refused.reason
    harness.activate(node)
    assert node.config.ground_frame == 'map'


def again(harness, node):
    """The thresholds after cleanup and configure."""
    assert harness.change(node, 'cleanup')
    assert harness.change(node, 'configure')
    return dict(node.config.score_thresholds)


def test_thresholds_that_were_set_by_hand_outlive_cleanup_and_configure(harness, networks):
    node = camera(harness, networks, score_thresholds__car=0.5)
    assert harness.change(node, 'configure')
    assert node.config.score_thresholds == {'person': 0.3, 'car': 0.5}
    assert harness.set(node, score_thresholds__person=0.6).successful
    assert again(harness, node) == {'person': 0.6, 'car': 0.5}
    assert get(node, 'score_thresholds.person') == 0.6
    assert harness.set(node, score_thresholds__car=0.3).successful  # the card's, not the file's
    assert harness.set(node, score_thresholds__person=0.6, nms_iou=0.3).successful
    assert again(harness, node) == {'person': 0.6, 'car': 0.3}
    assert not harness.set(node, score_thresholds__person=1.5).successful
    assert not harness.set(node, score_thresholds__person=0.4, nms_iou=1.5).successful
    assert again(harness, node) == {'person': 0.6, 'car': 0.3}


def test_thresholds_of_a_class_that_another_card_does_not_have_are_forgotten(
    harness, networks, tmp_path
):
    plain = (networks / 'tiny_camera.yaml').read_text()
    other = tmp_path / 'other.yaml'
    other.write_text(plain.replace('person', 'cyclist').replace('car: 0.3', 'car: 0.2'))
    node = camera(harness, networks)
    assert harness.change(node, 'configure')
    assert harness.set(node, score_thresholds__person=0.6, score_thresholds__car=0.7).successful
    assert harness.change(node, 'cleanup')
    assert harness.set(node, card_path=str(other)).successful
    assert harness.change(node, 'configure')
    assert node.config.score_thresholds == {'cyclist': 0.3, 'car': 0.7}
    assert harness.change(node, 'cleanup')
    assert harness.set(node, card_path='').successful
    assert harness.change(node, 'configure')
    assert node.config.score_thresholds == {'person': 0.3, 'car': 0.7}


def test_a_configure_that_failed_forgets_no_threshold(harness, networks):
    node = camera(harness, networks)
    assert harness.change(node, 'configure')
    assert harness.set(node, score_thresholds__person=0.6).successful
    path = node.config.engine_path
    assert harness.change(node, 'cleanup')
    assert harness.set(node, engine_path='nowhere.onnx').successful
    assert not harness.change(node, 'configure')
    assert harness.set(node, engine_path=path).successful
    assert harness.change(node, 'configure')
    assert node.config.score_thresholds['person'] == 0.6


def test_single_settings_arrive_one_by_one(harness, networks):
    node = camera(harness, networks)
    harness.activate(node)
    items = [
        Parameter('nms_iou', value=0.3),
        Parameter('max_detections', value=0),
        Parameter('max_range', value=30.0),
    ]
    results = harness.call(
        SetParameters,
        '/camera_detector/set_parameters',
        parameters=[item.to_parameter_msg() for item in items],
    ).results
    assert [item.successful for item in results] == [True, False, True]
    assert (node.config.nms_iou, node.config.max_range) == (0.3, 30.0)


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        (
            {'score_treshold': 0.5},
            "unknown parameter 'score_treshold'; did you mean 'score_threshold'?",
        ),
        ({'score_thresholds.bicycle': 0.5}, "unknown parameter 'score_thresholds.bicycle'"),
        ({'score_threshold': 1.5}, 'score_threshold = 1.5: outside [0, 1]'),
        ({'score_thresholds.car': -0.5}, 'score_thresholds.car = -0.5: outside [0, 1]'),
        ({'nms_iou': 'a lot'}, "nms_iou = 'a lot': expected a number"),
        ({'max_detections': 0}, 'max_detections = 0: outside [1, 1000]'),
        ({'precision': 'fp13'}, "precision = 'fp13': not one of"),
    ],
)
def test_a_wrong_parameter_file_fails_configure_in_one_line(
    harness, networks, capfd, parameters, said
):
    node = camera(harness, networks, **parameters)
    assert not harness.change(node, 'configure')
    assert harness.state(node) == 'unconfigured'
    lines = [line for line in capfd.readouterr().err.splitlines() if 'ERROR' in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert 'configure failed' in lines[0]
    status, _ = harness.diagnosis(node, lambda status, values: said in status.message)
    assert status.level == b'\x02'


def test_a_wrong_value_from_a_file_can_be_mended_without_a_restart(harness, networks):
    node = camera(harness, networks, nms_iou=3.0)
    assert not harness.change(node, 'configure')
    assert harness.set(node, nms_iou=0.5).successful
    assert harness.change(node, 'configure')
    assert node.config.nms_iou == 0.5


def test_whole_numbers_are_taken_where_a_file_leaves_out_the_point(harness, networks):
    node = camera(harness, networks, max_range=40, score_thresholds__car=1)
    assert harness.change(node, 'configure')
    assert node.config.max_range == get(node, 'max_range') == 40.0
    assert node.config.score_thresholds['car'] == 1.0


@pytest.mark.parametrize(
    ('network', 'said'),
    [
        ('', 'engine_path is empty'),
        ('nowhere/missing.onnx', 'nowhere/missing.onnx: no such file, neither in'),
        ('nowhere/missing.engine', 'nowhere/missing.engine: no such engine, nor its network'),
        ('corrupt', 'cannot load it'),
        ('lidar', 'architecture pointpillars is no CameraCard'),
        ('wrong_output', "no output 'detections'"),
        ('wrong_shape', 'contradicts its model card'),
        ('wrong_hash', 'SHA-256'),
        ('no_card', 'no model card'),
        ('broken_card', 'not readable as YAML'),
    ],
)
def test_an_engine_that_cannot_run_fails_configure_in_one_line(
    harness, tiny_models, tmp_path, capfd, network, said
):
    path = tmp_path / 'tiny_camera.onnx'
    if network == 'corrupt':
        tiny_models.tiny_camera_model(tmp_path)
        path.write_bytes(path.read_bytes()[:200])
    elif network == 'lidar':
        path = tiny_models.tiny_lidar_model(tmp_path)
    elif network == 'wrong_output':
        tiny_models.tiny_camera_model(tmp_path, output={'strides': [32], 'name': 'detections'})
    elif network == 'wrong_shape':
        tiny_models.tiny_camera_model(tmp_path, input={'height': 32, 'width': 96})
    elif network == 'wrong_hash':
        tiny_models.tiny_camera_model(tmp_path, sha256='0' * 64)
    elif network == 'no_card':
        tiny_models.tiny_camera_model(tmp_path).with_suffix('.yaml').unlink()
    elif network == 'broken_card':
        tiny_models.tiny_camera_model(tmp_path).with_suffix('.yaml').write_text('name: [')
    else:
        path = network
    node = harness.add(CameraDetectorNode, engine_path=str(path))
    assert not harness.change(node, 'configure')
    lines = [line for line in capfd.readouterr().err.splitlines() if 'ERROR' in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert node.engine is None
    assert harness.state(node) == 'unconfigured'


def test_a_dla_core_is_reported_as_not_applicable(harness, networks, capfd):
    node = camera(harness, networks, dla_core=0)
    assert harness.change(node, 'configure')
    assert 'dla_core 0: not applicable' in capfd.readouterr().err
    _, values = harness.diagnosis(
        node, lambda status, values: values.get('engine/state') == 'ready'
    )
    assert values['engine/dla_layer_pct'] == 'not applicable'
    assert values['engine/precision'] == 'fp32'
