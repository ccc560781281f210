"""The ensemble that `engine triton` writes, run here by its configuration: it finds what the
nodes find."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airside_perception.card import find_card
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.deploy.triton.check import CONFIG, parse
from airside_perception.deploy.triton.postprocess import (
    PARAMETERS,
    Postprocess,
    camera_config,
    fusion_config,
    lidar_config,
)
from airside_perception.deploy.triton.repository import Request, make_repository
from airside_perception.engine import open_engine
from airside_perception.errors import ConfigError
from airside_perception.geometry import move_cloud
from airside_perception.params import read_parameters
from airside_perception.pipeline import CameraPipeline, FusionPipeline, LidarPipeline
from airside_perception.projection import CameraModel
from airside_perception.replay.kitti import OPTICAL2CAMERA, read_folder
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Image, PointCloud

OPTICAL = np.array([[0, 0, 1, 0.0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
"""A camera 1.5 m above base_link that looks ahead."""


class Tensor:
    """As in triton_python_backend_utils."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


def fake_backend() -> SimpleNamespace:
    """What the Python backend of Triton offers to a model, as far as models use it here."""

    def get_input_tensor_by_name(request: dict[str, Any], name: str) -> Tensor | None:
        return Tensor(name, request[name]) if name in request else None

    def response(output_tensors: Any = (), error: Any = None) -> SimpleNamespace:
        return SimpleNamespace(tensors=output_tensors, error=error)

    return SimpleNamespace(
        Tensor=Tensor,
        TritonError=lambda text: text,
        InferenceResponse=response,
        get_input_tensor_by_name=get_input_tensor_by_name,
    )


class Server:
    """Runs an ensemble by its configuration, as Triton's protobuf reads it."""

    def __init__(self, repository: Path, monkeypatch: Any) -> None:
        pytest.importorskip('tritonclient', reason="Triton's protobuf is not installed")
        self.folder = repository
        self.config = {
            path.parent.name: parse(path.read_text()) for path in repository.glob(f'*/{CONFIG}')
        }
        monkeypatch.setitem(sys.modules, 'triton_python_backend_utils', fake_backend())
        file = repository / 'postprocess' / '1' / 'model.py'
        spec = importlib.util.spec_from_file_location('triton_model_under_test', file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.python = module.TritonPythonModel()
        self.python.initialize({'model_config': '{}'})

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        ensemble = self.config['perception']
        assert set(feeds) == {port.name for port in ensemble.input}
        tensors = dict(feeds)
        for step in ensemble.ensemble_scheduling.step:
            given = {key: tensors[name] for key, name in step.input_map.items()}
            made = self._run(step.model_name, given)
            tensors.update({name: made[key] for key, name in step.output_map.items()})
        return {port.name: tensors[port.name] for port in ensemble.output}

    def _run(self, model: str, given: dict[str, Any]) -> dict[str, Any]:
        config = self.config[model]
        if config.backend == 'python':
            (answer,) = self.python.execute([given])
            assert answer.error is None, answer.error
            return {tensor.name(): tensor.as_numpy() for tensor in answer.tensors}
        with open_engine(self.folder / model / '1' / 'model.onnx') as engine:
            return engine.infer(given)


class Recorded:
    """An engine that keeps what it was fed last."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.feeds: dict[str, Any] = {}

    info = property(lambda self: self._engine.info)
    inputs = property(lambda self: self._engine.inputs)
    outputs = property(lambda self: self._engine.outputs)

    def infer(self, feeds: dict[str, Any]) -> Any:
        self.feeds = {name: value.copy() for name, value in feeds.items()}
        return self._engine.infer(feeds)

    def close(self) -> None:
        self._engine.close()


def expected(
    request: Request, images: Mapping[str, Image], lenses: Mapping[str, CameraModel],
    poses: Mapping[str, Any], cloud: PointCloud,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What the nodes' own pipelines find, their 2D boxes, and what their networks were fed."""
    parameters = read_parameters(Path(request.out) / 'postprocess' / '1' / PARAMETERS)
    transforms = TransformBuffer()
    found, feeds, in_images = {}, {}, {}
    for name, image in images.items():
        transforms.set_static('base_link', image.frame_id, poses[name])
        card: Any = find_card(request.camera, request.camera_card)
        config = camera_config(parameters, name, card)
        engine: Any = Recorded(open_engine(request.camera))
        pipeline = CameraPipeline(SimpleNamespace(card=card, config=config), engine)  # type: ignore[arg-type]  # as a Network
        in_images[name] = pipeline.detect(image)
        found[name] = pipeline.lift(in_images[name], image, lenses[name], transforms)
        feeds[f'image_{name}'] = engine.feeds[card.input_name]
        pipeline.close()
    card = find_card(request.lidar, request.lidar_card)
    engine = Recorded(open_engine(request.lidar))
    network: Any = SimpleNamespace(card=card, config=lidar_config(parameters, card))
    lidar = LidarPipeline(network, engine)
    found['lidar'] = lidar.detect(cloud, transforms)
    feeds[card.input_name] = engine.feeds[card.input_name]
    lidar.close()
    fused, failures = FusionPipeline(fusion_config(parameters, tuple(images))).fuse(
        found, lenses, transforms, 0
    )
    assert not failures
    return fused.boxes, in_images, feeds


def calibration(lenses: Mapping[str, CameraModel], poses: Mapping[str, Any]) -> Any:
    text = {
        name: {
            'frame_id': lens.frame_id,
            'width': lens.width,
            'height': lens.height,
            'k': lens.matrix.ravel().tolist(),
            'd': list(lens.distortion),
            'distortion_model': lens.model,
            'camera2fusion': np.asarray(poses[name]).ravel().tolist(),
        }
        for name, lens in lenses.items()
    }
    return np.array([json.dumps(text).encode()], dtype=np.object_)


def check_same(found: Mapping[str, Any], fused: Any, in_images: Mapping[str, Any]) -> None:
    np.testing.assert_array_equal(found['boxes'], fused.boxes)
    np.testing.assert_array_equal(found['scores'], fused.scores)
    np.testing.assert_array_equal(found['covariances'], fused.covariances)
    assert [word.decode() for word in found['classes']] == list(fused.classes)
    assert [word.decode() for word in found['sources']] == ['+'.join(s) for s in fused.sources]
    xyxy = np.concatenate([boxes.xyxy for boxes in in_images.values()])
    np.testing.assert_array_equal(found['image_boxes'], xyxy)
    cameras = [name for name, boxes in in_images.items() for _ in range(len(boxes))]
    assert [word.decode() for word in found['image_cameras']] == cameras


def lens_of(name: str, width: int, height: int, focal: float) -> CameraModel:
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return CameraModel(f'camera_{name}_optical', width, height, matrix, (-0.02, 0.001, 0, 0, 0))


@pytest.fixture
def tiny(tiny_models: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Request:
    camera = tiny_models.tiny_camera_model(tmp_path)
    lidar = getattr(tiny_models, getattr(request, 'param', 'tiny_lidar_model'))(tmp_path)
    return made(tmp_path, lidar, camera)


def made(tmp_path: Path, lidar: Path, camera: Path) -> Request:
    request = Request(tmp_path / 'repo', lidar, camera, cameras=('front', 'rear'))
    make_repository(request)
    return request


@pytest.mark.parametrize('tiny', ['tiny_lidar_model', 'tiny_velocity_model'], indirect=True)
def test_tiny_networks(tiny: Request, monkeypatch: Any) -> None:
    """Bright cells are cars, bright points too: both sensors see the same one."""
    pixels = np.full((128, 192, 3), 10, np.uint8)
    pixels[64:, 64:128] = 250
    lenses = {name: lens_of(name, 192, 128, 100.0) for name in ('front', 'rear')}
    back = np.diag([-1.0, -1.0, 1.0, 1.0]) @ OPTICAL
    poses = {'front': OPTICAL, 'rear': back}
    images = {name: Image(0, lens.frame_id, pixels) for name, lens in lenses.items()}
    rng = np.random.default_rng(3)
    points = np.zeros((300, 4), np.float32)
    points[:, :3] = rng.uniform((3, -15, 0), (35, 15, 1.5), (300, 3))
    points[:, 3] = rng.uniform(0, 1, 300)
    cloud = PointCloud(0, 'base_link', points)
    fused, in_images, feeds = expected(tiny, images, lenses, poses, cloud)
    assert len(fused) > 20
    assert all(len(boxes) for boxes in in_images.values())
    assert {'front', 'rear', 'lidar'} <= {name for names in fused.sources for name in names}
    server = Server(Path(tiny.out), monkeypatch)
    found = server.infer({**feeds, 'calibration': calibration(lenses, poses)})
    check_same(found, fused, in_images)
    assert list(server.config['perception'].output) == list(server.config['postprocess'].output)


def test_outputs_have_the_declared_types(tiny: Request, monkeypatch: Any) -> None:
    server = Server(Path(tiny.out), monkeypatch)
    lenses = {name: lens_of(name, 192, 128, 100.0) for name in ('front', 'rear')}
    poses = dict.fromkeys(lenses, OPTICAL)
    empty = {
        'image_front': np.zeros((1, 3, 64, 96), np.float32),
        'image_rear': np.zeros((1, 3, 64, 96), np.float32),
        'canvas': np.zeros((1, 4, 80, 80), np.float32),
        'calibration': calibration(lenses, poses),
    }
    found = server.infer(empty)
    for port in server.config['perception'].output:
        value = found[port.name]
        assert value.ndim == len(port.dims)
        assert all(d in (-1, n) for d, n in zip(port.dims, value.shape, strict=True))
        kind = {12: np.dtype(np.float64), 13: np.dtype(np.object_)}[port.data_type]
        assert value.dtype == kind
        assert len(value) == 0  # looked, and found nothing


def test_shipped_networks_on_a_real_frame(
    repository: Path, shared_data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    models = repository / 'models'
    request = Request(
        tmp_path / 'repo', models / 'apron_pointpillars.onnx', models / 'apron_yolox.onnx',
        cameras=('front',), link=True,
    )  # fmt: skip
    make_repository(request)
    frame = read_folder(shared_data / 'labelled')[0]
    image, cloud = frame.read_image(), frame.read_cloud()
    at_base = move_cloud(cloud, frame.calibration.lidar2base, 'base_link')
    height, width = image.data.shape[:2]
    lens = CameraModel('camera_front_optical', width, height, frame.calibration.matrix)
    lenses = {'front': lens}
    poses = {'front': frame.calibration.camera2base @ OPTICAL2CAMERA}
    images = {'front': Image(0, lens.frame_id, image.data, image.encoding)}
    still = PointCloud(0, 'base_link', at_base.points, at_base.fields)
    fused, in_images, feeds = expected(request, images, lenses, poses, still)
    assert len(fused) > 0
    server = Server(Path(request.out), monkeypatch)
    found = server.infer({**feeds, 'calibration': calibration(lenses, poses)})
    check_same(found, fused, in_images)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'camera_front': np.full((1, 6, 7), np.nan, np.float32)}, 'not finite'),
        ({'camera_front': np.zeros((1, 6, 8), np.float32)}, 'expected'),
        ({'camera_rear': None}, 'is missing from the request'),
        ({'calibration': np.array([b'{"front": {}}'], np.object_)}, "nothing of camera 'rear'"),
        ({'calibration': np.array([b'oops'], np.object_)}, 'calibration: '),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_answered_gets_an_error(
    change: dict[str, Any], says: str, tiny: Request, monkeypatch: Any
) -> None:
    server = Server(Path(tiny.out), monkeypatch)
    lenses = {name: lens_of(name, 192, 128, 100.0) for name in ('front', 'rear')}
    given = {
        'camera_front': np.zeros((1, 6, 7), np.float32),
        'camera_rear': np.zeros((1, 6, 7), np.float32),
        'lidar_scores': np.full((1, 4, 40, 40), -50, np.float32),
        'lidar_boxes': np.zeros((1, 14, 40, 40), np.float32),
        'lidar_directions': np.zeros((1, 4, 40, 40), np.float32),
        'calibration': calibration(lenses, dict.fromkeys(lenses, OPTICAL)),
    }
    good, bad = server.python.execute(
        [given, {k: v for k, v in {**given, **change}.items() if v is not None}]
    )
    assert good.error is None
    assert says in bad.error
    assert not bad.tensors


def test_a_new_calibration_counts_at_once(tiny: Request) -> None:
    run = Postprocess(Path(tiny.out) / 'postprocess' / '1')
    lenses = {name: lens_of(name, 192, 128, 100.0) for name in ('front', 'rear')}
    bright = np.zeros((1, 6, 7), np.float32)
    bright[0, 4] = [0.5, 0.5, 0.0, 0.0, 0.9, 0.0, 1.0]  # a car
    given = {
        'camera_front': bright,
        'camera_rear': np.zeros((1, 6, 7), np.float32),
        'lidar_scores': np.full((1, 4, 40, 40), -50, np.float32),
        'lidar_boxes': np.zeros((1, 14, 40, 40), np.float32),
        'lidar_directions': np.zeros((1, 4, 40, 40), np.float32),
    }
    high = OPTICAL.copy()
    high[2, 3] = 3.0
    poses = dict.fromkeys(lenses, OPTICAL)
    near = run({**given, 'calibration': calibration(lenses, poses)})['boxes']
    far = run({**given, 'calibration': calibration(lenses, {**poses, 'front': high})})['boxes']
    assert len(near) == len(far) == 1
    assert far[0, 0] > 1.3 * near[0, 0]


@pytest.mark.parametrize(
    ('section', 'values'),
    [('camera_front', {'ground_frame': 'ground'}), ('lidar_detector', {'target_frame': 'map'})],
)
def test_parameters_with_several_frames_are_refused(
    section: str, values: dict[str, str], tiny: Request, tmp_path: Path
) -> None:
    params = tmp_path / 'params.yaml'
    params.write_text(json.dumps({section: {'ros__parameters': values}}))
    with pytest.raises(ConfigError, match='expected the fusion_frame'):
        make_repository(
            Request(tmp_path / 'other', tiny.lidar, tiny.camera, cameras=('front',), params=params)
        )
    assert not (tmp_path / 'other').exists()


def test_thresholds_are_those_of_the_nodes(tiny: Request, tmp_path: Path) -> None:
    params = tmp_path / 'params.yaml'
    params.write_text(
        json.dumps({
            'camera_detector': {'ros__parameters': {'score_thresholds': {'car': 0.7}}},
            'camera_front': {'ros__parameters': {'nms_iou': 0.2}},
            'lidar_detector': {'ros__parameters': {'score_threshold': 0.9}},
        })
    )  # fmt: skip
    out = tmp_path / 'other'
    make_repository(
        Request(out, tiny.lidar, tiny.camera, cameras=('front', 'rear'), params=params)
    )
    run = Postprocess(out / 'postprocess' / '1')
    assert run.cameras['front'].config.score_thresholds['car'] == 0.7
    assert run.cameras['front'].config.nms_iou == 0.2
    assert run.cameras['rear'].config.nms_iou == CameraConfig().nms_iou
    assert run.lidar.config.score_threshold == 0.9
    assert run.lidar.config.nms_iou == LidarConfig().nms_iou
