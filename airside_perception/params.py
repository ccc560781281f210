"""ROS parameter files without ROS: which values a node gets from one.

    /**:                        # every node
      ros__parameters: {tf_timeout_ms: 80.0}
    lidar_detector:             # one node
      ros__parameters:
        score_thresholds: {person: 0.2}
    camera_detector:            # every camera: the nodes are called camera_NAME
      ros__parameters: {nms_iou: 0.5}
    camera_front:
      ros__parameters: {score_threshold: 0.4}

As in ROS, `*` stands for one part of a node's name and `**` for any number of them, namespaces may
be nested mappings, and of several sections that match a node the later ones in the file win. Two
rules are this package's own: the section `camera_detector` counts for every camera, and the
min_range of the lidar detector is the lidar_min_range of a fusion that sets none.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from airside_perception.errors import ConfigError
from airside_perception.yaml_text import load_yaml

SECTION = 'ros__parameters'
CAMERA_NODE = 'camera_{}'
LIDAR_NODE, FUSION_NODE = 'lidar_detector', 'bev_fusion'
ALL_CAMERAS = 'camera_detector'
BUILT_IN = ('use_sim_time', 'start_type_description_service')
"""Parameters that every ROS node has, and that `ros2 param dump` writes with its own."""


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file, read.

    Attributes:
        path: as given.
        sha256: of its bytes.
        sections: (node name or pattern with a leading slash, {flat name: value}), in file order.
    """

    path: str
    sha256: str
    sections: tuple[tuple[str, Mapping[str, Any]], ...]

    def for_node(self, name: str) -> dict[str, Any]:
        """The values for the node `name` of the root namespace; not those that all nodes have."""
        values: dict[str, Any] = {}
        for pattern, own in self.sections:
            if _matches(pattern, name):
                values.update(own)
        if name == FUSION_NODE and 'min_range' in (lidar := self.for_node(LIDAR_NODE)):
            values.setdefault('lidar_min_range', lidar['min_range'])
        return {
            key: value
            for key, value in values.items()
            if key not in BUILT_IN and not key.startswith('qos_overrides.')
        }

    def check_nodes(self, names: Collection[str]) -> None:
        """Refuses sections that none of these nodes reads: a misspelt one would say nothing.

        Raises:
            ConfigError: names the section and what comes near.
        """
        for pattern, _ in self.sections:
            if not any(_matches(pattern, name) for name in (*names, ALL_CAMERAS)):
                known = [f'/{name}' for name in (*names, ALL_CAMERAS)]
                near = difflib.get_close_matches(pattern, known, 1)
                hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(known)}'
                raise ConfigError(f'{self.path}: no node reads the section {pattern!r}; {hint}')


def read_parameters(path: str | Path) -> ParameterFile:
    """Reads a parameter file.

    Raises:
        ConfigError: missing, not YAML, or not made of sections with `ros__parameters`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        content = load_yaml(data)
    except FileNotFoundError as error:
        raise ConfigError(f'{path}: no such parameter file') from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'{path}: not readable as YAML: {reason}') from error
    sections = tuple(_sections(str(path), '', {} if content is None else content))
    return ParameterFile(str(path), hashlib.sha256(data).hexdigest(), sections)


def _sections(path: str, name: str, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, dict):
        where = f'{name or "the file"} is {content!r}'
        raise ConfigError(f'{path}: {where}, expected a mapping of nodes with {SECTION!r}')
    for key, value in content.items():
        if key == SECTION:
            if not isinstance(value, dict):
                raise ConfigError(f'{path}: {SECTION!r} of {name!r} is {value!r}, not a mapping')
            yield name, dict(_flat('', value))
        else:
            yield from _sections(path, f'{name}/{str(key).strip("/")}', value)


def _flat(prefix: str, values: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f'{prefix}{key}.', value)
        else:
            yield f'{prefix}{key}', value


def _matches(pattern: str, name: str) -> bool:
    if pattern == f'/{ALL_CAMERAS}' and name.startswith(CAMERA_NODE.format('')):
        return True
    parts = []
    for part in pattern.strip('/').split('/'):
        parts.append({'**': '(/[^/]+)*', '*': '/[^/]+'}.get(part, f'/{re.escape(part)}'))
    return re.fullmatch(''.join(parts), f'/{name}') is not None
