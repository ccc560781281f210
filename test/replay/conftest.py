"""Small recordings for the tests of replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from airside_perception.geometry import transform
from airside_perception.messages import (
    camera_info_message,
    image_message,
    point_cloud_message,
    transform_message,
)
from airside_perception.projection import CameraModel
from airside_perception.replay import kitti
from airside_perception.replay.bag import BagWriter
from airside_perception.types import Image, PointCloud

P2 = '700 0 40 42 0 700 20 0.2 0 0 1 0.003'
LABELS = """Car 0.00 0 1.0 10 5 30 15 1.5 1.6 4.0 2.0 1.6 20.0 -1.57
Pedestrian 0.00 0 0.0 40 5 45 15 1.8 0.6 0.8 -3.0 1.6 10.0 0.0
DontCare -1 -1 -10 50 5 60 15 -1 -1 -1 -1000 -1000 -1000 -10
"""


def calibration(shift: float = 0.0) -> str:
    """The lidar 0.3 m behind and 0.08 m above the camera, axes exactly aligned."""
    return (
        f'P0: 1\nP2: {P2}\nR0_rect: 1 0 0 0 1 0 0 0 1\n'
        f'Tr_velo_to_cam: 0 -1 0 {shift} 0 0 -1 -0.08 1 0 0 -0.3\n\n'
    )


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 80, 3), value, np.uint8))


def write_scan(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rng.random((50, 4), dtype=np.float32).tofile(path)


@pytest.fixture
def object_folder(tmp_path: Path) -> Path:
    """Two frames in KITTI's object layout."""
    folder = tmp_path / 'object'
    for index, name in enumerate(('000003', '000007')):
        write_image(folder / 'image_2' / f'{name}.png', 50 + index)
        write_scan(folder / 'velodyne' / f'{name}.bin', index)
        for kind, text in (('calib', calibration()), ('label_2', LABELS)):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f'{name}.txt').write_text(text)
    return folder


@pytest.fixture
def drive_folder(tmp_path: Path) -> Path:
    """Three frames of a drive."""
    folder = tmp_path / 'drive'
    for index in range(3):
        write_image(folder / 'image_02' / f'{index:010d}.png', 50 + index)
        write_scan(folder / 'velodyne' / f'{index:010d}.bin', index)
    (folder / 'calibration.yaml').write_text(
        'image_size: [80, 40]\n'
        'K: [[700, 0, 40], [0, 700, 20], [0, 0, 1]]\n'
        'rect_rotation: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\n'
        'lidar2camera: [[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.3], [0, 0, 0, 1]]\n'
        'lidar_height: 1.5\n'
    )
    return folder


FRAMES = 4
START_NS = 50_000_000_000
STEP_NS = 100_000_000
CAR_CELL = (0, 1)
"""Row and column of the bright part of the images: a car 5.6 m ahead of the camera."""


def street_image(stamp_ns: int, name: str, bright: int = 230) -> Image:
    """A dark image with one bright cell, in which the tiny network sees a car."""
    data = np.zeros((64, 96, 3), np.uint8)
    row, column = CAR_CELL
    data[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = bright
    return Image(stamp_ns, f'camera_{name}_optical', data)


def street_cloud(stamp_ns: int, x: float = 7.5, intensity: float = 0.6) -> PointCloud:
    """A few points on one car, in the frame of a lidar 1.5 m above the ground."""
    points = np.array([[x, 0.5, -1.0, intensity], [x + 0.1, 0.6, -0.8, intensity]], np.float32)
    return PointCloud(stamp_ns, 'lidar', points)


def street_camera(name: str) -> CameraModel:
    matrix = np.array([[60.0, 0.0, 48.0], [0.0, 60.0, 16.0], [0.0, 0.0, 1.0]])
    return CameraModel(f'camera_{name}_optical', 96, 64, matrix)


class Street:
    """Writes recordings of a car ahead, and leaves out or breaks what a test asks for.

    `left` looks along base_link like `front`; only the names differ.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cameras: tuple[str, ...] = ('front',)
        self.lidar = True
        self.frames = FRAMES
        self.skip: set[tuple[str, int]] = set()
        self.storage = 'mcap'
        self.change: Callable[[str, int, Any], Any] = lambda topic, index, message: message
        self.static = True
        self.count = 0

    def write(self) -> Path:
        self.count += 1
        path = self.folder / f'street{self.count}'
        with BagWriter(path, self.storage) as writer:
            self._types = writer.types
            if self.static:
                writer.write('/tf_static', self._mounts(), START_NS - 1)
            for index in range(self.frames):
                stamp_ns = START_NS + index * STEP_NS
                for topic, message in self._frame(stamp_ns):
                    message = self.change(topic, index, message)
                    if (topic, index) not in self.skip and message is not None:
                        writer.write(topic, message, stamp_ns)
        return path

    def _frame(self, stamp_ns: int) -> Iterator[tuple[str, Any]]:
        types = self._types
        for name in self.cameras:
            info = camera_info_message(street_camera(name), stamp_ns, types)
            yield f'/sensing/camera/{name}/camera_info', info
            image = street_image(stamp_ns, name)
            yield f'/sensing/camera/{name}/image', image_message(image, types)
        if self.lidar:
            yield '/sensing/lidar/points', point_cloud_message(street_cloud(stamp_ns), types)

    def _mounts(self) -> Any:
        up = transform(np.eye(3), np.array([0.0, 0.0, 1.5]))
        edges = [('lidar', up)]
        edges += [(f'camera_{name}_optical', up @ kitti.OPTICAL2CAMERA) for name in self.cameras]
        items = [
            transform_message('base_link', child, START_NS, matrix, self._types)
            for child, matrix in edges
        ]
        return self._types('tf2_msgs/msg/TFMessage')(transforms=items)


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return Street(tmp_path)


@pytest.fixture
def parameters(tmp_path: Path, tiny_models: Any) -> Callable[..., Path]:
    """A parameter file for the tiny networks: `parameters(bev_fusion={'cameras': ['left']})`."""
    networks = tmp_path / 'networks'
    networks.mkdir()
    camera = tiny_models.tiny_camera_model(networks)
    lidar = tiny_models.tiny_lidar_model(networks)

    def write(**changes: dict[str, Any]) -> Path:
        sections: dict[str, dict[str, Any]] = {
            'camera_detector': {'engine_path': str(camera)},
            'lidar_detector': {'engine_path': str(lidar)},
        }
        for node, values in changes.items():
            sections.setdefault(node, {}).update(values)
        path = tmp_path / 'parameters.yaml'
        content = {node: {'ros__parameters': values} for node, values in sections.items()}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write
