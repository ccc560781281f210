"""Messages to arrays, images to network inputs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from airside_perception import messages
from airside_perception.camera.preprocess import Preprocessor
from airside_perception.card import CameraCard
from airside_perception.replay.definitions import make_typestore, message_class
from airside_perception.types import Image, PointCloud
from benchmarks.measure import Row, compare

MAX_RANGE = 100.0


def rows(only: str) -> list[Row]:
    """PointCloud2 and the letterbox."""
    return [row() for task, row in TASKS.items() if only in task]


def message_types() -> Callable[[str], Any]:
    """rclpy's classes where ROS is sourced, else rosbags'."""
    if importlib.util.find_spec('rclpy') is None:
        store = make_typestore()
        return lambda name: message_class(store, name)

    def find(name: str) -> Any:
        package, folder, kind = name.split('/')
        return getattr(importlib.import_module(f'{package}.{folder}'), kind)

    return find


def sweep(points: int = 120_000, seed: int = 0) -> np.ndarray:
    """float32 [points, 4]: rings on flat ground and walls, as a spinning lidar sees them."""
    rng = np.random.default_rng(seed)
    azimuth = np.linspace(-np.pi, np.pi, points)  # in the order of firing: all beams, then on
    beams = np.arange(points) % 64
    slope = np.tan(np.radians(-24.0 + beams * 26.0 / 63))
    ground = np.where(slope < -0.01, 1.9 / np.maximum(-slope, 1e-3), np.inf)
    wall = 8 + 40 * np.abs(np.sin(2 * azimuth)) + rng.normal(0, 0.3, points)
    reach = np.minimum(ground, wall)
    xyz = np.stack([reach * np.cos(azimuth), reach * np.sin(azimuth), 1.9 + reach * slope], axis=1)
    cloud = np.concatenate([xyz, rng.uniform(0, 1, (points, 1))], axis=1).astype(np.float32)
    cloud[rng.integers(0, points, points // 100)] = np.nan
    return cloud


def _cloud() -> Row:
    cloud = PointCloud(1, 'lidar', sweep())
    message = messages.point_cloud_message(cloud, message_types())
    others: dict[str, Callable[[], object]] = {}
    if importlib.util.find_spec('sensor_msgs_py') is not None:
        from sensor_msgs_py import point_cloud2

        def structured() -> object:
            found = point_cloud2.read_points(message, ('x', 'y', 'z', 'intensity'), skip_nans=True)
            points = np.stack([found[name] for name in ('x', 'y', 'z', 'intensity')], axis=1)
            return points[np.linalg.norm(points[:, :3], axis=1) < MAX_RANGE]

        def plain() -> object:
            points = point_cloud2.read_points_numpy(message, ('x', 'y', 'z', 'intensity'), True)
            return points[np.linalg.norm(points[:, :3], axis=1) < MAX_RANGE]

        others = {'sensor_msgs_py.read_points': structured, 'read_points_numpy': plain}
    return compare(
        CLOUD, 1.0, lambda: messages.point_cloud(message, max_range=MAX_RANGE), others, 30
    )


def _letterbox() -> Row:
    pixels = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    card = CameraCard('', 'bench', 'yolox', ('car',), {}, {}, height=384, width=640)
    prepare = Preprocessor(card)
    image = Image(1, 'camera', pixels)

    def numpy_way() -> object:
        ratio = min(384 / 720, 640 / 1280)
        small = cv2.resize(pixels, (int(1280 * ratio), int(720 * ratio)))
        padded = np.full((384, 640, 3), 114, np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32)

    def blob_way() -> object:
        params = cv2.dnn.Image2BlobParams()
        params.size = (640, 384)
        params.paddingmode = cv2.dnn.DNN_PMODE_LETTERBOX
        params.borderValue = (114, 114, 114, 0)
        return cv2.dnn.blobFromImageWithParams(pixels, params)

    return compare(
        LETTERBOX,
        4.0,
        lambda: prepare(image),
        {'cv2 + NumPy': numpy_way, 'cv2.dnn blob': blob_way},
        30,
    )


CLOUD = 'PointCloud2, 120,000 points, to array, range and NaN filter'
LETTERBOX = 'letterbox + normalise, 1280x720 to 640x384'
TASKS = {CLOUD: _cloud, LETTERBOX: _letterbox}
