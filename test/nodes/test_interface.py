"""The nodes have the topics that the interface describes, and no others."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.interface import NODES
from airside_perception.nodes.bev_fusion import BevFusionNode
from airside_perception.nodes.camera_detector import CameraDetectorNode
from airside_perception.nodes.lidar_detector import LidarDetectorNode

KINDS = {
    'camera_detector': (CameraDetectorNode, 'tiny_camera.onnx'),
    'lidar_detector': (LidarDetectorNode, 'tiny_lidar.onnx'),
    'bev_fusion': (BevFusionNode, ''),
}
OF_EVERY_NODE = {'/parameter_events', '/rosout', '/clock'}


@pytest.mark.parametrize('described', NODES, ids=lambda node: node.name)
def test_topics_and_types_of_a_running_node(harness, networks, described):
    kind, network = KINDS[described.name]
    node = harness.add(kind, **({'engine_path': str(networks / network)} if network else {}))
    harness.activate(node)

    def of(topics):
        names = {}
        for topic in topics:
            name = topic.name.replace('<camera>', 'front').replace('~', f'/{described.name}')
            package, message = topic.type.split('/')
            names[name] = [f'{package}/msg/{message}']
        return names

    def found(get):
        topics = dict(get(described.name, '/'))
        return {
            name: types
            for name, types in topics.items()
            if name not in OF_EVERY_NODE and not name.endswith('/transition_event')
        }

    inputs, outputs = of(described.inputs), of(described.outputs)
    harness.until(
        lambda: found(harness.node.get_subscriber_names_and_types_by_node) == inputs,
        f'the inputs {inputs}',
    )
    assert found(harness.node.get_publisher_names_and_types_by_node) == outputs
