"""Which detector a pipeline runs on which engine, and in which order both are closed."""

from __future__ import annotations

import numpy as np
import pytest

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.errors import EngineError
from airside_perception.geometry import transform
from airside_perception.lidar.detector import LidarDetector
from airside_perception.network import find_network
from airside_perception.pipeline import CameraPipeline, LidarPipeline
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Image, PointCloud

KINDS = {
    'camera': (CameraConfig, CameraCard, CameraPipeline, 'CudaCameraDetector'),
    'lidar': (LidarConfig, LidarCard, LidarPipeline, 'CudaLidarDetector'),
}


@pytest.fixture
def networks(tmp_path, tiny_models):
    tiny_models.tiny_camera_model(tmp_path)
    tiny_models.tiny_lidar_model(tmp_path)
    return tmp_path


def network_of(networks, sensor):
    config, card, *_ = KINDS[sensor]
    return find_network(config, card, {'engine_path': str(networks / f'tiny_{sensor}.onnx')})


class DeviceEngine:
    """An engine with its tensors on the device."""

    def __init__(self, log):
        self._log = log

    def tensor(self, name):
        raise AssertionError('the detector of the test asks for none')

    def close(self):
        self._log.append('engine')


@pytest.mark.parametrize('sensor', KINDS)
def test_an_engine_with_host_tensors_runs_on_the_cpu(networks, sensor):
    network = network_of(networks, sensor)
    engine = network.open()
    pipeline = KINDS[sensor][2](network, engine)
    kind = CameraDetector if sensor == 'camera' else LidarDetector
    assert type(pipeline.detector) is kind
    pipeline.close()
    pipeline.close()
    name = engine.inputs[0].name
    with pytest.raises(EngineError, match='closed'):
        engine.infer({name: np.zeros(engine.inputs[0].shape, np.float32)})


@pytest.mark.parametrize('sensor', KINDS)
@pytest.mark.parametrize('fails', [False, True])
def test_an_engine_with_device_tensors_runs_on_the_gpu_and_is_closed_last(
    networks, sensor, fails, monkeypatch
):
    from airside_perception.camera import gpu as camera_gpu
    from airside_perception.lidar import gpu as lidar_gpu

    log, network = [], network_of(networks, sensor)
    engine = DeviceEngine(log)

    class Detector:
        def __init__(self, *arguments):
            self.arguments = arguments

        def close(self):
            log.append('detector')
            if fails:
                raise EngineError('the device is gone')

    module = camera_gpu if sensor == 'camera' else lidar_gpu
    monkeypatch.setattr(module, KINDS[sensor][3], Detector)
    pipeline = KINDS[sensor][2](network, engine)
    assert pipeline.detector.arguments == (engine, network.card, network.config)
    if fails:
        with pytest.raises(EngineError, match='gone'):
            pipeline.close()
    else:
        pipeline.close()
    assert log == ['detector', 'engine']


class Frames(TransformBuffer):
    """A vehicle that drives 1 m along x between two clouds; counts the lookups."""

    def __init__(self):
        super().__init__()
        self.set_static('base_link', 'lidar', transform(np.eye(3), np.array([1.0, 0.0, 2.0])))
        for stamp in (1, 100_000_001):
            place = np.array([stamp / 1e8, 0.0, 0.0])
            self.add('odom', 'base_link', stamp, transform(np.eye(3), place))
        self.asked = []

    def lookup_between(self, *arguments):
        self.asked.append(arguments)
        return super().lookup_between(*arguments)


def seen(stamp, x):
    return PointCloud(stamp, 'lidar', np.array([[x, 1.0, -0.5, 0.9]], np.float32))


@pytest.mark.parametrize('target', ['base_link', ''])
def test_a_network_that_sees_two_sweeps(networks, tiny_models, target):
    path = tiny_models.tiny_velocity_model(networks)
    values = {'engine_path': str(path), 'target_frame': target}
    network = find_network(LidarConfig, LidarCard, values)
    with network.open() as engine:
        pipeline, transforms = LidarPipeline(network, engine), Frames()
        assert pipeline.needed_fields == ()
        first = pipeline.detect(seen(1, 20.2), transforms)
        assert pipeline.sweeps.last_missing == 'no cloud before this one'
        assert np.isnan(first.velocities).all()  # without a past they are not known
        assert first.velocities.shape == (1, 2)
        found = pipeline.detect(seen(100_000_001, 10.2), transforms)
        frame = target or 'lidar'
        assert transforms.asked == [(frame, 100_000_001, frame, 1, 'odom')]
        assert (found.frame_id, found.stamp_ns) == (frame, 100_000_001)
        # what was seen at 20.2 m is nearer by a metre now, and 0.1 s old: 10 times that is its vx
        mounted = 1.0 if target else 0.0
        order = np.argsort(found.boxes[:, 0])
        centres = found.boxes[order, 0]
        np.testing.assert_allclose(centres, [mounted + 10.5, mounted + 19.5], atol=1e-5)
        np.testing.assert_allclose(found.velocities[order], [[0, 0.25], [1, 0.25]], atol=1e-5)
        assert pipeline.sweeps.last_sweeps == 1
        assert {'sweeps', 'engine'} <= set(pipeline.detector.timings)


def test_a_network_that_sees_one_sweep_asks_for_no_motion(networks, tiny_models):
    path = tiny_models.tiny_velocity_model(networks, past_sweeps=0)
    network = find_network(LidarConfig, LidarCard, {'engine_path': str(path)})
    with network.open() as engine:
        pipeline, transforms = LidarPipeline(network, engine), Frames()
        for stamp in (1, 100_000_001):
            found = pipeline.detect(seen(stamp, 10.2), transforms)
            np.testing.assert_allclose(found.velocities, [[0.0, 0.25]], atol=1e-6)
        assert (pipeline.sweeps, transforms.asked) == (None, [])
        assert 'sweeps' not in pipeline.detector.timings


def test_both_pipelines_find_what_the_tiny_networks_show(networks):
    network = network_of(networks, 'camera')
    with network.open() as engine:
        image = Image(1, 'camera', np.full((64, 96, 3), 255, np.uint8))
        assert set(CameraPipeline(network, engine).detect(image).classes) == {'car'}
    network = network_of(networks, 'lidar')
    with network.open() as engine:
        cloud = PointCloud(1, 'base_link', np.array([[5.0, 1.0, 0.5, 0.9]], np.float32))
        found = LidarPipeline(network, engine).detect(cloud, TransformBuffer())
        assert found.classes == ('car',)
