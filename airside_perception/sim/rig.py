"""The sensors of the simulated vehicle and where they are mounted, read from YAML."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from airside_perception.errors import ConfigError, PerceptionError
from airside_perception.geometry import transform
from airside_perception.projection import CameraModel
from airside_perception.sim.camera import Lens
from airside_perception.sim.lidar import PRESETS, LidarSpec
from airside_perception.sim.mesh import rotation
from airside_perception.types import Float64

BASE, LIDAR, ODOM = 'base_link', 'lidar', 'odom'
OPTICAL2CAMERA = transform(
    np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3)
)
"""Optical axes (z forward, x right, y down) in those of the camera's body (x forward, y left)."""

_MOUNT = {'position', 'yaw', 'pitch'}
_CAMERA = {*_MOUNT, 'width', 'height', 'focal', 'distortion'}


@dataclass(frozen=True)
class Rig:
    """One lidar and any number of cameras.

    Attributes:
        spec, lidar2base: the lidar and its pose, float64 [4, 4].
        lenses: cameras by name; their frames are `camera_<name>_optical`.
        deskewed: whether the driver takes the vehicle's own motion out of a turn; see `rolling`.
    """

    spec: LidarSpec
    lidar2base: Float64
    lenses: dict[str, Lens]
    deskewed: bool = True

    def static_transforms(self) -> list[tuple[str, str, Float64]]:
        """(parent, child, child2parent [4, 4]) of all mountings."""
        found = [(BASE, LIDAR, self.lidar2base)]
        for name, lens in self.lenses.items():
            camera2base = lens.camera2base @ np.linalg.inv(OPTICAL2CAMERA)
            found.append((BASE, f'camera_{name}', camera2base))
            found.append((f'camera_{name}', f'camera_{name}_optical', OPTICAL2CAMERA))
        return found


def load_rig(path: Path) -> Rig:
    """The rig of a YAML file like `config/rig.yaml`.

    Raises:
        ConfigError: no file or no YAML; a key is missing, unknown or has a wrong value.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'{path}: not readable as a rig: {error}') from error
    try:
        top = _keys(tree, {'lidar', 'cameras'}, 'the rig')
        lidar = _keys(top['lidar'], {*_MOUNT, 'preset'}, 'lidar', {'deskewed'})
        if lidar['preset'] not in PRESETS:
            raise ConfigError(f'preset {lidar["preset"]!r} is not one of {", ".join(PRESETS)}')
        cameras = {} if top['cameras'] is None else top['cameras']
        if not isinstance(cameras, Mapping):
            raise ConfigError(f'cameras are {cameras!r}, expected a mapping of names')
        lenses = {
            str(name): _lens(str(name), _keys(item, _CAMERA, f'cameras.{name}'))
            for name, item in cameras.items()
        }
        deskewed = lidar.get('deskewed', True)
        if not isinstance(deskewed, bool):
            raise ConfigError(f'deskewed is {deskewed!r}, expected true or false')
        return Rig(PRESETS[lidar['preset']], _mount(lidar), lenses, deskewed)
    except (PerceptionError, TypeError, ValueError) as error:
        raise ConfigError(f'{path}: {error}') from error


def _keys(
    item: Any, names: set[str], what: str, optional: Collection[str] = ()
) -> Mapping[str, Any]:
    """`item`, if it is a mapping with these keys, the optional ones perhaps, and no others."""
    if not isinstance(item, Mapping):
        raise ConfigError(f'{what} is {item!r}, expected a mapping')
    if set(item) - set(optional) != names:
        missing = sorted(names - set(item))
        unknown = sorted(set(map(str, item)) - names - set(optional))
        raise ConfigError(f'{what}: missing keys {missing}, unknown keys {unknown}')
    return item


def _mount(item: Mapping[str, Any]) -> Float64:
    """Pose [4, 4] in base_link."""
    position = np.array(item['position'], dtype=np.float64)
    yaw, pitch = np.deg2rad([float(item['yaw']), float(item['pitch'])])
    if position.shape != (3,) or not np.isfinite([*position, yaw, pitch]).all():
        raise ConfigError(f'mounting {item!r} is not three metres and two angles')
    return transform(rotation(yaw, pitch), position)


def _lens(name: str, item: Mapping[str, Any]) -> Lens:
    width, height, focal = int(item['width']), int(item['height']), float(item['focal'])
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    model = CameraModel(f'camera_{name}_optical', width, height, matrix, tuple(item['distortion']))
    return Lens(model, _mount(item) @ OPTICAL2CAMERA)
