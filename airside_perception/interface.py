"""What the nodes offer, as data: topics and parameters. The tables of the README are made from it.

`python -m airside_perception.interface README.md` writes them anew; a test compares them with the
text, and another one compares the topics with those of running nodes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from airside_perception.config import CameraConfig, FusionConfig, LidarConfig, Parameter, specs

BEGIN, END = '<!-- interface: generated -->', '<!-- interface: end -->'


@dataclass(frozen=True)
class Topic:
    """One topic of a node.

    Attributes:
        name: relative to the node, `<camera>` for the name of a camera.
        launched: what `full.launch.py` remaps it to; empty: it stays.
    """

    name: str
    type: str
    about: str
    launched: str = ''


@dataclass(frozen=True)
class Node:
    """One node: what it is for, its settings, its topics."""

    name: str
    about: str
    config: type
    inputs: tuple[Topic, ...]
    outputs: tuple[Topic, ...]


DEBUG = (
    Topic(
        '~/debug/processing_time_ms',
        'std_msgs/Float64',
        'steady time from taking a message to its result',
    ),
    Topic(
        '~/debug/pipeline_latency_ms', 'std_msgs/Float64', 'node clock at publication minus stamp'
    ),
    Topic('~/debug/cyclic_time_ms', 'std_msgs/Float64', 'steady time between two results'),
    Topic('/diagnostics', 'diagnostic_msgs/DiagnosticArray', 'once a second, see below'),
)
TF = (
    Topic('/tf', 'tf2_msgs/TFMessage', 'transforms that move'),
    Topic('/tf_static', 'tf2_msgs/TFMessage', 'transforms that do not'),
)

NODES = (
    Node(
        'camera_detector',
        'Images of one camera to boxes in the image, and to boxes on the ground plane.',
        CameraConfig,
        (
            Topic('~/input/image', 'sensor_msgs/Image', 'as the lens makes it; the rectified image only with `rectified: true`. With `compressed: true` it is `~/input/image/compressed`, sensor_msgs/CompressedImage', '/sensing/camera/<camera>/image'),
            Topic('~/input/camera_info', 'sensor_msgs/CameraInfo', 'calibration: K and D (plumb_bob, rational_polynomial or equidistant); with `rectified: true` P and R', '/sensing/camera/<camera>/camera_info'),
            *TF,
        ),
        (
            Topic('~/output/detections_2d', 'vision_msgs/Detection2DArray', 'boxes in pixels of the image', '/perception/camera/<camera>/detections_2d'),
            Topic('~/output/detections', 'vision_msgs/Detection3DArray', 'boxes on the ground plane with anisotropic covariance', '/perception/camera/<camera>/detections'),
            Topic('~/debug/image', 'sensor_msgs/Image', 'the image with its boxes; made only while somebody looks'),
            *DEBUG,
        ),
    ),
    Node(
        'lidar_detector',
        'Point clouds of one lidar to boxes in space.',
        LidarConfig,
        (
            Topic('~/input/points', 'sensor_msgs/PointCloud2', 'x, y, z, and intensity where the network needs it; any layout, deskewed to `header.stamp`', '/sensing/lidar/points'),
            *TF,
        ),
        (
            Topic('~/output/detections', 'vision_msgs/Detection3DArray', 'boxes in `target_frame`', '/perception/lidar/detections'),
            Topic('~/output/velocities', 'sensor_msgs/PointCloud2', 'x, y, z of every detection and vx, vy in m/s over ground, in its order; only of networks with velocities', '/perception/lidar/velocities'),
            *DEBUG,
        ),
    ),
    Node(
        'bev_fusion',
        "Late fusion of all detections in bird's-eye view.",
        FusionConfig,
        (
            Topic('~/input/lidar/detections', 'vision_msgs/Detection3DArray', 'of lidar_detector', '/perception/lidar/detections'),
            Topic('~/input/<camera>/detections', 'vision_msgs/Detection3DArray', 'of each camera_detector', '/perception/camera/<camera>/detections'),
            Topic('~/input/<camera>/camera_info', 'sensor_msgs/CameraInfo', 'for matching in the image plane; see `rectified_cameras`', '/sensing/camera/<camera>/camera_info'),
            *TF,
        ),
        (
            Topic('~/output/objects', 'vision_msgs/Detection3DArray', 'fused objects in `fusion_frame`', '/perception/objects'),
            Topic('~/debug/markers', 'visualization_msgs/MarkerArray', 'for RViz; namespaces name the evidence', '/perception/markers'),
            *DEBUG,
        ),
    ),
)  # fmt: skip


def reference() -> str:
    """Topics and parameters of every node as Markdown."""
    return '\n'.join(_node(node) for node in NODES).rstrip() + '\n'


def updated(text: str) -> str:
    """`text` with the part between the two marks made anew.

    Raises:
        ValueError: a mark is missing.
    """
    before, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    return f'{before}{BEGIN}\n\n{reference()}\n{rest}'


def _node(node: Node) -> str:
    lines = [f'### `{node.name}`', '', node.about, '']
    lines += ['| topic | type | after `full.launch.py` | what |', '|---|---|---|---|']
    lines += [_topic('in', item) for item in node.inputs]
    lines += [_topic('out', item) for item in node.outputs]
    lines += ['', '| parameter | default | range | live | what |', '|---|---|---|---|---|']
    lines += [
        _parameter(item)
        for item in specs(
            node.config, {'score_thresholds': {'<class>': 0.0}, 'priors': {'<class>': 0.1}}
        )
    ]
    return '\n'.join([*lines, '', ''])


def _topic(way: str, topic: Topic) -> str:
    launched = f'`{topic.launched}`' if topic.launched else ''
    return f'| {way} `{topic.name}` | {topic.type} | {launched} | {topic.about} |'


def _parameter(item: Parameter) -> str:
    if item.choices:
        bounds = ', '.join(f'`{choice}`' for choice in item.choices)
    elif item.low is not None and item.high is not None:
        bounds = f'{item.low:.7g} to {item.high:.7g} {item.unit}'.rstrip()
    else:
        bounds = ''
    default = list(item.default) if isinstance(item.default, tuple) else item.default
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    if item.name.endswith('.<class>'):
        shown = 'model card' if item.name.startswith('score') else shown
    about = item.description.replace(' Class: <class>.', '').replace('|', '\\|')
    return (
        f'| `{item.name}` | {f"`{shown}`" if shown else ""} | {bounds} | {_live(item)} | {about} |'
    )


def _live(item: Parameter) -> str:
    """When it may change: at any time, under a new network, or (empty) while unconfigured."""
    return 'yes' if item.live else 'swap' if item.swap else ''


def main(arguments: list[str]) -> None:
    """Rewrites the tables in the file that is named."""
    path = Path(arguments[0])
    path.write_text(updated(path.read_text(encoding='utf-8')), encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
