"""What the parameters ask of a machine: which networks, on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, FusionConfig, LidarConfig
from airside_perception.engine import ENGINE_SUFFIXES
from airside_perception.engine.capabilities import family_of
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.errors import EngineError, PerceptionError
from airside_perception.network import find_network
from airside_perception.params import CAMERA_NODE, ParameterFile, read_parameters
from airside_perception.resources import resource

SHIPPED = ('config', 'perception.yaml')
LIDAR_NODE, FUSION_NODE = 'lidar_detector', 'bev_fusion'


@dataclass(frozen=True)
class Use:
    """One node and what it runs.

    Attributes:
        node: its name.
        path: the network's file; empty where it cannot be found.
        tensorrt: it runs on TensorRT, else on ONNX Runtime.
        family: whose engines: tensorrt or rtx; empty: not known.
        dla_core: -1: none.
        builds: the engine is built where it is missing.
        problem: why the node would not start; empty: nothing is known against it.
    """

    node: str
    path: str
    tensorrt: bool = False
    family: str = ''
    dla_core: int = -1
    builds: bool = False
    problem: str = ''


@dataclass(frozen=True)
class Needs:
    """What a parameter file asks for."""

    path: str
    uses: tuple[Use, ...]

    @property
    def onnxruntime(self) -> tuple[str, ...]:
        """Nodes that need ONNX Runtime."""
        return tuple(use.node for use in self.uses if use.path and not use.tensorrt)

    @property
    def tensorrt(self) -> tuple[str, ...]:
        """Nodes that need TensorRT and a GPU."""
        return tuple(use.node for use in self.uses if use.tensorrt)

    @property
    def builders(self) -> tuple[str, ...]:
        """Nodes that build their engine where it is missing."""
        return tuple(use.node for use in self.uses if use.builds)

    @property
    def dla_cores(self) -> tuple[int, ...]:
        """DLA cores that are asked for."""
        return tuple(sorted({use.dla_core for use in self.uses if use.dla_core >= 0}))


def read_needs(params: str | Path | None = None) -> Needs:
    """What the nodes of a parameter file run.

    Args:
        params: ROS parameter file; None: the shipped one.

    Raises:
        ConfigError: the file cannot be read.
    """
    parameters = read_parameters(resource(*SHIPPED) if params is None else params)
    uses = []
    fusion = parameters.for_node(FUSION_NODE)
    if fusion.get('lidar', FusionConfig().lidar):
        uses += _use(parameters, LIDAR_NODE, LidarConfig, LidarCard)
    for camera in filter(None, fusion.get('cameras', FusionConfig().cameras)):
        uses += _use(parameters, CAMERA_NODE.format(camera), CameraConfig, CameraCard)
    return Needs(parameters.path, tuple(uses))


def _use(parameters: ParameterFile, node: str, kind: Any, card: Any) -> list[Use]:
    """What one node runs; nothing where it has no network."""
    values = parameters.for_node(node)
    if not values.get('engine_path'):
        return []
    try:
        network = find_network(kind, card, values)
    except PerceptionError as error:
        return [Use(node, '', problem=str(error))]
    config, path = network.config, network.path
    tensorrt = path.suffix in ENGINE_SUFFIXES
    builds = tensorrt and config.engine_build == 'missing'
    problem = ''
    if tensorrt and not path.is_file() and not builds:
        problem = f'{path}: no such engine, and engine_build is never'
    family = _family(path) if tensorrt and path.is_file() else ''
    return [Use(node, str(path), tensorrt, family, config.dla_core, builds, problem)]


def _family(path: Path) -> str:
    if not manifest_path(path).is_file():
        return ''
    try:
        return family_of(Manifest.read(path).flavor)
    except EngineError:
        return ''
