"""Which detector a pipeline runs on which engine, and in which order both are closed."""

from __future__ import annotations

import numpy as np
import pytest

from airside_perception.camera.detector import CameraDetector
from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.errors import EngineError
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
