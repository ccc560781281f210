"""The topics that the README lists are those that nodes have."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.interface import NODES
from airside_perception.nodes.bev_fusion import BevFusionNode
from airside_perception.nodes.camera_detector import CameraDetectorNode
from airside_perception.nodes.lidar_detector import LidarDetectorNode

OWN = ('/rosout', '/parameter_events', '/clock')


def listed(topics, name):
    """{topic: type} of the table, for a camera `front`, as the node `name` resolves them."""
    found = {}
    for topic in topics:
        package, kind = topic.type.split('/')
        resolved = topic.name.replace('~', f'/{name}').replace('<camera>', 'front')
        found[resolved] = f'{package}/msg/{kind}'
    return found


def real(pairs):
    return {
        topic: kinds[0]
        for topic, kinds in pairs
        if topic not in OWN and not topic.endswith('/transition_event')
    }


@pytest.mark.parametrize(
    ('kind', 'parameters'),
    [
        (CameraDetectorNode, {'engine_path': 'tiny_camera.onnx'}),
        (LidarDetectorNode, {'engine_path': 'tiny_lidar.onnx'}),
        (BevFusionNode, {'cameras': ['front']}),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_topics_are_those_of_the_table(harness, networks, kind, parameters):
    if 'engine_path' in parameters:
        parameters = {'engine_path': str(networks / parameters['engine_path'])}
    node = harness.add(kind, **parameters)
    harness.activate(node)
    table = next(item for item in NODES if item.name == node.get_name())
    name, space = node.get_name(), node.get_namespace()
    graph = harness.node
    wanted_out, wanted_in = listed(table.outputs, name), listed(table.inputs, name)
    harness.until(
        lambda: (
            real(graph.get_publisher_names_and_types_by_node(name, space)) == wanted_out
            and real(graph.get_subscriber_names_and_types_by_node(name, space)) == wanted_in
        ),
        f'{wanted_out} and {wanted_in}',
    )
