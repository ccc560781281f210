"""Engines that a node builds, GPUs that fail, and what diagnostics say of both."""

from __future__ import annotations

import dataclasses
import threading

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import network
from airside_perception.cuda import runtime
from airside_perception.engine import build
from airside_perception.engine.onnx import OnnxEngine
from airside_perception.errors import DeviceError, EngineError
from airside_perception.nodes.lidar_detector import LidarDetectorNode
from airside_perception.nodes.opening import BUSY, lingering

NAME = '/lidar_detector'
ERROR = b'\x02'
LOST = 'cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered'


class Builder:
    """In the place of `build_engine`: says 40 % and waits. What it wrote runs on ONNX Runtime."""

    def __init__(self, monkeypatch):
        self.building, self.goes_on, self.polite = threading.Event(), threading.Event(), True
        self.error = None
        self.ended, self.closed = threading.Event(), []
        monkeypatch.setattr(build, 'build_engine', self.build)
        monkeypatch.setattr(network, 'open_engine', self.open)
        monkeypatch.setattr(runtime, 'unavailable', lambda: '')

    def build(self, source, path, settings, progress):
        progress('building', 0.4)
        self.building.set()
        try:
            if self.polite:  # as TensorRT 10 and later: asks whether it shall go on
                while not self.goes_on.wait(0.02):
                    progress('building', 0.4)
            assert self.goes_on.wait(20.0)
            if self.error is not None:
                raise self.error
            path.write_bytes(b'plan')
        finally:
            self.ended.set()

    def open(self, path, *_, **__):
        engine = OnnxEngine(path.with_name('tiny_lidar.onnx'))
        close = engine.close

        def closing():
            self.closed.append(path.name)
            close()

        engine.close = closing
        return engine


@pytest.fixture
def builder(monkeypatch):
    made = Builder(monkeypatch)
    yield made
    made.goes_on.set()


@pytest.fixture
def node(harness, tiny_models, tmp_path):
    tiny_models.tiny_lidar_model(tmp_path)
    return harness.add(
        LidarDetectorNode,
        engine_path=str(tmp_path / 'tiny_lidar.fp16.gpu.engine'),
        engine_build='missing',
    )


def test_a_node_that_builds_is_inactive_and_answers_until_the_engine_is_warm(
    harness, sensors, node, builder
):
    assert harness.change(node, 'configure')
    assert builder.building.wait(5.0)
    assert harness.state(node) == 'inactive'
    status, values = harness.diagnosis(
        node, lambda status, values: values['engine/state'] == 'building 40 %'
    )
    assert BUSY in status.message
    assert 'engine/path' not in values
    assert harness.set(node, nms_iou=0.2).successful
    refused = harness.set(node, allow_hot_swap=True, engine_path='other.onnx')
    assert 'not ready yet' in refused.reason
    assert not harness.change(node, 'activate')
    assert harness.state(node) == 'inactive'
    assert node.diagnostics.problem == ''  # too early is no fault
    builder.goes_on.set()
    status, values = harness.diagnosis(
        node, lambda status, values: values['engine/state'] == 'ready'
    )
    assert BUSY not in status.message
    assert harness.change(node, 'activate')
    found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(frame='base_link'))
    harness.until(lambda: found, 'detections')
    assert node.config.nms_iou == 0.2


def test_it_says_why_it_is_not_ready_as_a_warning(harness, node, builder, capfd):
    assert harness.change(node, 'configure')
    assert builder.building.wait(5.0)
    assert not harness.change(node, 'activate')
    said = [line for line in capfd.readouterr().err.splitlines() if 'activate failed' in line]
    assert len(said) == 1
    assert 'WARN' in said[0]
    assert f'tiny_lidar.fp16.gpu.engine {BUSY}: building 40 %' in said[0]


@pytest.mark.parametrize('polite', [True, False])
@pytest.mark.parametrize('transition', ['cleanup', 'shutdown'])
def test_the_node_can_leave_while_it_builds(harness, node, builder, polite, transition):
    builder.polite = polite
    assert harness.change(node, 'configure')
    assert builder.building.wait(5.0)
    assert harness.change(node, transition)
    harness.diagnosis(node, lambda _, values: values['engine/state'] == 'closed')
    if polite:
        assert builder.ended.wait(5.0)
    else:
        assert lingering()
        builder.goes_on.set()
    harness.until(lambda: not lingering(), 'the end of the build')
    assert node.engine is None
    assert not builder.closed  # cancelled before it was opened
    if transition == 'cleanup':
        builder.goes_on.set()
        assert harness.change(node, 'configure')
        harness.until(lambda: builder.ended.is_set() and not lingering(), 'the second build')
        assert harness.change(node, 'activate')


def test_what_was_built_just_before_cleanup_is_closed(harness, node, builder):
    builder.goes_on.set()
    assert harness.change(node, 'configure')
    harness.until(lambda: not lingering(), 'the build')
    assert harness.change(node, 'cleanup')
    assert builder.closed == ['tiny_lidar.fp16.gpu.engine'] * len(builder.closed)
    assert builder.closed
    assert node.engine is None


def test_a_build_that_fails_is_an_error_until_it_is_tried_again(harness, node, builder, capfd):
    builder.error = EngineError('no kernel for layer conv_7')
    builder.goes_on.set()
    assert harness.change(node, 'configure')
    status, values = harness.diagnosis(node, lambda status, _: status.level == ERROR)
    assert values['engine/state'] == 'failed'
    assert 'no kernel for layer conv_7' in status.message
    assert not harness.change(node, 'activate')
    assert BUSY not in node.diagnostics.problem
    assert 'no kernel for layer conv_7' in node.diagnostics.problem
    assert 'no kernel for layer conv_7' in capfd.readouterr().err
    builder.error = None
    assert harness.change(node, 'cleanup')
    assert harness.change(node, 'configure')
    harness.until(lambda: not lingering(), 'the build')
    assert harness.change(node, 'activate')


def test_what_cannot_be_built_fails_configure_at_once(harness, node, builder, tmp_path):
    (tmp_path / 'tiny_lidar.onnx').unlink()
    assert not harness.change(node, 'configure')
    assert 'no tiny_lidar.onnx beside it' in node.diagnostics.problem
    assert not builder.building.is_set()


def test_a_swap_builds_while_the_old_network_serves(harness, sensors, node, builder, tmp_path):
    builder.goes_on.set()
    assert harness.change(node, 'configure')
    harness.until(lambda: not lingering(), 'the first build')
    assert harness.change(node, 'activate')
    assert harness.set(node, allow_hot_swap=True).successful
    builder.goes_on.clear()
    builder.building.clear()
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(
            harness.set(node, engine_path=str(tmp_path / 'tiny_lidar.int8.gpu.engine'))
        )
    )
    thread.start()
    assert builder.building.wait(5.0)
    _, values = harness.diagnosis(
        node, lambda status, values: values['engine/swap'].startswith('building 40 %')
    )
    assert values['engine/state'] == 'swapping'
    found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(frame='base_link'))
    harness.until(lambda: found, 'detections')
    builder.goes_on.set()
    thread.join(10.0)
    assert answers[0].successful, answers[0].reason


@pytest.fixture
def active(harness, networks):
    made = harness.add(LidarDetectorNode, engine_path=str(networks / 'tiny_lidar.onnx'))
    harness.activate(made)
    return made


def test_a_frame_that_finds_no_memory_is_dropped_and_the_next_one_is_not(harness, sensors, active):
    detector, detect = active.pipeline.detector, active.pipeline.detector.detect

    def fail(cloud):
        raise DeviceError('cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory')

    detector.detect = fail
    found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(frame='base_link'))
    _, values = harness.diagnosis(active, lambda _, values: values['dropped/error'] == '1')
    assert 'CUDA_ERROR_OUT_OF_MEMORY' in values['last_error']
    assert values['engine/state'] == 'ready'
    assert not found
    detector.detect = detect
    clouds.publish(sensors.cloud(frame='base_link'))
    harness.until(lambda: found, 'detections')
    assert harness.state(active) == 'active'


def ends(harness, node, capfd):
    """The node says once that its GPU is lost, and that its process should end."""
    harness.until(lambda: node.over, 'the end')
    status, _ = harness.diagnosis(node, lambda status, _: 'the GPU is lost' in status.message)
    assert status.level == ERROR
    assert 'the GPU is lost to this process, which ends' in status.message
    assert 'CUDA_ERROR_ILLEGAL_ADDRESS' in status.message
    assert capfd.readouterr().err.count('the GPU is lost') == 1


def test_a_gpu_that_is_lost_in_a_frame_ends_the_process_and_is_not_tried_again(
    harness, sensors, active, capfd
):
    def fail(cloud):
        raise DeviceError(LOST)

    active.pipeline.detector.detect = fail
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(frame='base_link'))
    ends(harness, active, capfd)
    assert harness.change(active, 'deactivate')
    assert harness.change(active, 'cleanup')
    assert not harness.change(active, 'configure')
    assert 'the GPU is lost to this process' in active.diagnostics.problem


def test_a_gpu_that_is_lost_by_a_network_that_should_take_over_ends_the_process(
    harness, active, capfd, networks, monkeypatch
):
    assert harness.set(active, allow_hot_swap=True).successful

    def fail(pipeline):
        raise DeviceError(LOST)

    monkeypatch.setattr(active, 'warm_up', fail)
    assert not harness.set(active, threads=1).successful
    ends(harness, active, capfd)


def test_a_gpu_that_is_lost_by_a_build_ends_the_process(harness, node, builder, capfd):
    builder.error = DeviceError(LOST)
    builder.goes_on.set()
    assert harness.change(node, 'configure')
    ends(harness, node, capfd)


def test_diagnostics_tell_of_tensorrt_the_graph_and_layers_beside_the_dla(harness, active):
    _, values = harness.diagnosis(active, lambda _, values: values['engine/state'] == 'ready')
    absent = {values[f'engine/{key}'] for key in ('dla_layer_pct', 'trt_version', 'graph')}
    assert absent == {'not applicable'}
    assert values['engine/swap'] == 'none'
    engine, detector = active.engine, active.pipeline.detector
    engine._info = dataclasses.replace(engine.info, dla_layer_pct=87.5, trt_version='10.3.0')
    detector.no_graph = 'DLA work cannot be recorded'
    status, values = harness.diagnosis(
        active, lambda _, values: values['engine/trt_version'] == '10.3.0'
    )
    assert values['engine/dla_layer_pct'] == '87.5'
    assert values['engine/graph'] == 'no: DLA work cannot be recorded'
    assert 'engine/dla_layer_pct 87.5, limit 100' in status.message
    engine._info = dataclasses.replace(engine.info, dla_layer_pct=100.0)
    detector.no_graph = ''
    status, values = harness.diagnosis(
        active, lambda _, values: values['engine/dla_layer_pct'] == '100'
    )
    assert values['engine/graph'] == 'yes'
    assert 'dla_layer_pct' not in status.message
