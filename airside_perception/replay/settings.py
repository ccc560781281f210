"""What a replay runs: which sensors of a bag, with which networks and parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, FusionConfig, LidarConfig, fusion_priors
from airside_perception.errors import CardError, ConfigError
from airside_perception.messages import named_rectified
from airside_perception.network import Network, find_network, with_threads
from airside_perception.parameter import flat_values, from_values
from airside_perception.params import CAMERA_NODE, ParameterFile, read_parameters
from airside_perception.resources import resource

SHIPPED = ('config', 'perception.yaml')
LIDAR_NODE, FUSION_NODE = 'lidar_detector', 'bev_fusion'
POINTS_TOPIC = '/sensing/lidar/points'
IMAGE_TOPIC = re.compile(r'/sensing/camera/([a-z][a-z0-9_]*)/image(/compressed)?')
CAMERA_TOPIC = re.compile('/sensing/camera/([a-z][a-z0-9_]*)(/.+)')
THREADS = 2
"""CPU threads of a network whose parameters fix none: the same on every machine."""


@dataclass(frozen=True)
class Camera:
    """One camera of a replay."""

    name: str
    image_topic: str
    network: Network[CameraConfig, CameraCard]

    @property
    def compressed(self) -> bool:
        return self.image_topic.endswith('/compressed')

    @property
    def info_topic(self) -> str:
        return f'/sensing/camera/{self.name}/camera_info'


@dataclass(frozen=True)
class Settings:
    """A replay, decided.

    Attributes:
        parameters: the file that they are from.
        cameras: those that the parameters list (where they list none, all) and the bag has.
        lidar: None where the bag has no clouds.
        fusion: with the sources that there are.
        left_out: {sensor: why it is not used}.
    """

    parameters: ParameterFile
    cameras: tuple[Camera, ...]
    lidar: Network[LidarConfig, LidarCard] | None
    fusion: FusionConfig
    left_out: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """{node: {parameter: value}}, as JSON takes it."""
        values = {CAMERA_NODE.format(item.name): item.network.config for item in self.cameras}
        found = {name: flat_values(config) for name, config in values.items()}
        if self.lidar is not None:
            found[LIDAR_NODE] = flat_values(self.lidar.config)
        return {**found, FUSION_NODE: flat_values(self.fusion)}


def load_settings(
    topics: Collection[str], params: str | Path | None = None, threads: int = THREADS
) -> Settings:
    """Decides what to run on a bag.

    Args:
        topics: of the bag.
        params: ROS parameter file; None: the shipped configuration.
        threads: of networks whose parameters fix none.

    Raises:
        ConfigError: an unusable parameter file or value, a missing network, or a bag without any
            sensor that could be used.
    """
    parameters = read_parameters(resource(*SHIPPED) if params is None else params)
    found = {match[1]: match for match in map(IMAGE_TOPIC.fullmatch, sorted(topics)) if match}
    with _named(parameters, FUSION_NODE) as values:
        fusion = _fusion(values)
        listed = fusion.cameras if 'cameras' in values else tuple(found)
    known = dict.fromkeys((*listed, *found))  # their order is their rank
    parameters.check_nodes([LIDAR_NODE, FUSION_NODE, *map(CAMERA_NODE.format, known)])
    left_out: dict[str, str] = {}
    cameras = []
    for name in known:
        with _named(parameters, CAMERA_NODE.format(name)) as values:
            if name not in found:
                left_out[name] = 'not in the bag'
            elif name not in listed:
                left_out[name] = 'in the bag, but not among the cameras of the parameters'
            elif not values.get('engine_path'):
                left_out[name] = 'no engine_path: there is no network to run'
            else:
                network = with_threads(find_network(CameraConfig, CameraCard, values), threads)
                cameras.append(Camera(name, _image_topic(name, network.config, topics), network))
    lidar = None
    with _named(parameters, LIDAR_NODE) as values:
        if not fusion.lidar:
            left_out['lidar'] = 'the parameters switch it off'
        elif POINTS_TOPIC not in topics:
            left_out['lidar'] = 'not in the bag'
        else:
            lidar = with_threads(find_network(LidarConfig, LidarCard, values), threads)
    if not cameras and lidar is None:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in left_out.items())
        raise ConfigError(f'nothing to run: {reasons or "no sensor topics in the bag"}')
    names = tuple(camera.name for camera in cameras)
    # which images are rectified is asked of the cameras, so that the two cannot contradict
    fusion = replace(fusion, lidar=lidar is not None, cameras=names, rectified_cameras=())
    return Settings(parameters, tuple(cameras), lidar, fusion, left_out)


def rectified_cameras(
    topics: Collection[str], values_of: Callable[[str], Mapping[str, Any]]
) -> frozenset[str]:
    """Names of the cameras of a bag whose images are rectified, as their parameter says.

    Where nothing sets it, the topics do: all images of the camera are named as image_proc names
    rectified ones, such as `/sensing/camera/NAME/image_rect`.

    Args:
        topics: of the bag.
        values_of: the values for a node, by its name.
    """
    cameras: dict[str, list[str]] = {}
    for match in filter(None, map(CAMERA_TOPIC.fullmatch, topics)):
        cameras.setdefault(match[1], []).append(match[2])
    found = set()
    for name, own in cameras.items():
        images = [topic for topic in own if topic.startswith('/image')]
        named = bool(images) and all(map(named_rectified, images))
        if values_of(CAMERA_NODE.format(name)).get('rectified', named):
            found.add(name)
    return frozenset(found)


def _fusion(values: Mapping[str, Any]) -> FusionConfig:
    """The fusion's settings; a list of one empty name is how ROS writes an empty list."""
    classes = [name.partition('.')[2] for name in values if name.startswith('priors.')]
    plain = {key: [] if value == [''] else value for key, value in values.items()}
    prior = from_values(
        FusionConfig, {key: value for key, value in plain.items() if '.' not in key}
    ).prior
    return from_values(FusionConfig, plain, fusion_priors(classes, prior))


@contextmanager
def _named(parameters: ParameterFile, node: str) -> Iterator[dict[str, Any]]:
    """The values for a node; what is wrong with them names the file and the node."""
    try:
        yield parameters.for_node(node)
    except CardError:
        raise
    except ConfigError as error:
        raise ConfigError(f'{parameters.path}: {node}: {error}') from error


def _image_topic(name: str, config: CameraConfig, topics: Collection[str]) -> str:
    plain = f'/sensing/camera/{name}/image'
    compressed = f'{plain}/compressed'
    preferred, other = (compressed, plain) if config.compressed else (plain, compressed)
    return preferred if preferred in topics else other
