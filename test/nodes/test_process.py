"""Nodes as processes of their own: how they start and how they end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage

EXECUTABLES = ('camera_detector', 'lidar_detector', 'bev_fusion')


def start(name, *arguments):
    code = f'from airside_perception.nodes.{name} import main; main()'
    return subprocess.Popen(
        [sys.executable, '-c', code, *arguments], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize('name', EXECUTABLES)
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_with_status_0(harness, name, number):
    process = start(name)
    try:
        assert harness.call(GetState, f'/{name}/get_state').current_state.label == 'unconfigured'
        process.send_signal(number)
        assert process.wait(5.0) == 0
        assert not {'Traceback', 'ERROR', 'WARN'} & set(re.findall(r'\w+', process.stderr.read()))
    finally:
        process.kill()


def test_an_interrupt_while_messages_come_is_clean_too(harness, sensors, networks):
    process = start(
        'lidar_detector', '--ros-args', '-p', f'engine_path:={networks}/tiny_lidar.onnx',
        '-p', 'tf_timeout_ms:=1000.0',
    )  # fmt: skip
    try:
        for transition in ('configure', 'activate'):
            assert harness.change_of('/lidar_detector', transition)
        clouds = harness.publisher(PointCloud2, '/lidar_detector/input/points')
        # The worker waits for their transforms, which nobody publishes. Again and again: a
        # publisher that has found its subscriber is not always found by it yet, and what it sends
        # is lost.
        harness.node.create_timer(0.2, lambda: clouds.publish(sensors.cloud()))
        harness.diagnosis_of('lidar_detector', lambda s, values: values['dropped/error'] != '0')
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 0
        assert 'Traceback' not in process.stderr.read()
    finally:
        process.kill()


STUCK = """
import time
from airside_perception import network
from airside_perception.cuda import runtime
from airside_perception.engine import build
from airside_perception.nodes.lidar_detector import main

opening = network.open_engine


def stuck(*arguments, **keywords):
    time.sleep(60.0)


runtime.unavailable = lambda: ''
build.build_engine = stuck
network.open_engine = lambda path, *a, **k: (
    stuck() if path.name == 'slow.onnx' else opening(path, *a, **k)
)
main()
"""
"""A lidar_detector whose builds, and openings of slow.onnx, cannot be stopped."""


@pytest.mark.parametrize('doing', ['build', 'swap'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_what_cannot_be_stopped(
    harness, tiny_models, tmp_path, doing, number
):
    path = tiny_models.tiny_lidar_model(tmp_path)
    for ending in ('.onnx', '.yaml'):
        (tmp_path / f'slow{ending}').write_bytes(path.with_suffix(ending).read_bytes())
    engine = 'tiny_lidar.fp16.gpu.engine' if doing == 'build' else 'tiny_lidar.onnx'
    process = subprocess.Popen(
        [
            sys.executable, '-c', STUCK, '--ros-args', '-p', f'engine_path:={tmp_path}/{engine}',
            '-p', 'engine_build:=missing', '-p', 'allow_hot_swap:=true',
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert harness.change_of('/lidar_detector', 'configure')
        if doing == 'swap':
            assert harness.change_of('/lidar_detector', 'activate')
            client = harness.node.create_client(SetParameters, '/lidar_detector/set_parameters')
            assert client.wait_for_service(timeout_sec=30.0)
            wish = Parameter('engine_path', value=f'{tmp_path}/slow.onnx').to_parameter_msg()
            client.call_async(SetParameters.Request(parameters=[wish]))
        key, text = ('state', 'building') if doing == 'build' else ('swap', 'opening')
        harness.diagnosis_of('lidar_detector', lambda _, values: text in values[f'engine/{key}'])
        process.send_signal(number)
        assert process.wait(5.0) == 0
        assert not {'Traceback', 'ERROR'} & set(re.findall(r'\w+', process.stderr.read()))
    finally:
        process.kill()


LOST = """
import sys
from airside_perception import pipeline
from airside_perception.errors import DeviceError, EngineError
from airside_perception.nodes import lidar_detector

def lose(*arguments):
    try:
        raise DeviceError('cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal address')
    except DeviceError as error:
        raise EngineError('inference failed: an illegal address') from error

if sys.argv.pop(1) == 'frame':
    pipeline.LidarPipeline.detect = lose
else:
    lidar_detector.LidarDetectorNode.warm_up = lose
lidar_detector.main()
"""
"""A lidar_detector that loses its GPU with the first frame, or while it warms up."""


@pytest.mark.parametrize('when', ['frame', 'configure'])
def test_a_node_that_has_lost_its_gpu_says_so_and_ends_so_that_it_is_started_again(
    harness, sensors, networks, when
):
    process = subprocess.Popen(
        [
            sys.executable, '-c', LOST, when, '--ros-args',
            '-p', f'engine_path:={networks}/tiny_lidar.onnx',
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = 'the GPU is lost to this process, which ends: inference failed: an illegal address'
    try:
        harness.diagnosis_of('lidar_detector', lambda status, _: status.level == b'\x03')
        if when == 'frame':
            for transition in ('configure', 'activate'):
                assert harness.change_of('/lidar_detector', transition)
            clouds = harness.publisher(PointCloud2, '/lidar_detector/input/points')
            harness.node.create_timer(0.2, lambda: clouds.publish(sensors.cloud()))
        else:
            assert not harness.change_of('/lidar_detector', 'configure')
        harness.diagnosis_of(
            'lidar_detector',
            lambda status, _: status.message == said and status.level == b'\x02',
            fresh=False,
        )
        assert process.wait(10.0) == 1
        text = process.stderr.read()
        assert 'Traceback' not in text
        lines = [line for line in text.splitlines() if 'WARN' in line or 'ERROR' in line]
        assert [line.partition(']: ')[2] for line in lines][-1] == said
        assert len(lines) == (1 if when == 'frame' else 2)  # the second: configure failed
    finally:
        process.kill()


@pytest.mark.parametrize(
    ('text', 'said'), [('lidar_detector: [', 'params file'), (None, 'params file')]
)
def test_a_file_that_ros_cannot_read_ends_the_process_with_a_reason(tmp_path, text, said):
    path = tmp_path / 'wrong.yaml'
    if text is not None:
        path.write_text(text)
    process = start('lidar_detector', '--ros-args', '--params-file', str(path))
    try:
        assert process.wait(30.0) == 1
        complaint = process.stderr.read()
        assert said in complaint
        assert str(path) in complaint
        assert 'Traceback' not in complaint
    finally:
        process.kill()


def test_simulated_time_that_jumps_back_clears_transforms(harness, sensors, networks):
    from rosgraph_msgs.msg import Clock

    from airside_perception import messages
    from airside_perception.nodes.lidar_detector import LidarDetectorNode

    node = harness.add(
        LidarDetectorNode, engine_path=str(networks / 'tiny_lidar.onnx'), use_sim_time=True
    )
    harness.activate(node)
    clock = harness.publisher(Clock, '/clock')
    transforms = harness.publisher(TFMessage, '/tf')
    stamp = 1_700_000_000_000_000_000
    clock.publish(Clock(clock=messages.time_message(stamp, sensors.types)))
    harness.until(lambda: node.get_clock().now().nanoseconds == stamp, 'simulated time')
    import numpy as np

    pose = messages.transform_message('base_link', 'lidar', stamp, np.eye(4), sensors.types)
    transforms.publish(TFMessage(transforms=[pose]))
    harness.until(lambda: node.tf._newest, 'the transform')
    clock.publish(Clock(clock=messages.time_message(stamp - 60 * 10**9, sensors.types)))
    _, values = harness.diagnosis(node, lambda status, values: 'time_jumps' in values)
    assert values['time_jumps'] == '1'
    assert not node.tf._newest


@pytest.mark.parametrize(
    ('values', 'said'),
    [
        ('{nms_iuo: 0.1}', "unknown parameter 'nms_iuo'; did you mean 'nms_iou'?"),
        ('{score_thresholds: {cat: 0.1}}', "unknown parameter 'score_thresholds.cat'"),
        ('{nms_iou: 7.5}', 'nms_iou = 7.5: outside [0, 1]'),
        ('{max_detections: many}', "max_detections = 'many': expected an integer"),
    ],
)
def test_a_parameter_file_with_a_mistake_fails_configure_and_the_process_lives(
    harness, networks, tmp_path, values, said
):
    path = tmp_path / 'wrong.yaml'
    path.write_text(f'lidar_detector:\n  ros__parameters: {values}\n')
    engine = f'engine_path:={networks}/tiny_lidar.onnx'
    process = start('lidar_detector', '--ros-args', '--params-file', str(path), '-p', engine)
    try:
        assert not harness.change_of('/lidar_detector', 'configure')
        state = harness.call(GetState, '/lidar_detector/get_state').current_state.label
        assert state == 'unconfigured'
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 0
        errors = [line for line in process.stderr.read().splitlines() if 'ERROR' in line]
        assert len(errors) == 1
        assert f'configure failed: {said}' in errors[0]
    finally:
        process.kill()
