"""The whole graph: one detector for each camera, one for the lidar, and their fusion.

Which cameras there are, and every setting, is in one ROS parameter file (`params_file`): the list
`cameras` of `bev_fusion` names them, the section `camera_detector` holds what they share, and a
section `camera_<name>` what is special to one. A camera without `engine_path` is left out.
"""

from __future__ import annotations

from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from airside_perception.config import FusionConfig
from airside_perception.interface import NODES
from airside_perception.nodes.bringup import BringUp
from airside_perception.parameter import from_values
from airside_perception.params import CAMERA_NODE, read_parameters
from airside_perception.resources import resource

PACKAGE = 'airside_perception'
BOOLEAN = ['true', 'false', 'True', 'False']
RESPAWN_DELAY_S = 1.0


def generate_launch_description() -> LaunchDescription:
    def switch(name: str, default: str, text: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(
            name, default_value=default, description=text, choices=BOOLEAN
        )

    def text(name: str, default: str, about: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=about)

    shipped = str(resource('config', 'perception.yaml'))
    return LaunchDescription([
        text('namespace', '', 'Namespace of the nodes and of all topics below.'),
        switch('use_sim_time', 'false', 'Take the time from /clock, as in a replay.'),
        text('params_file', shipped, 'ROS parameter file; it names the cameras, too.'),
        switch('autostart', 'true', 'Bring every node to active; false: they wait unconfigured.'),
        switch('use_camera', 'true', 'Start the camera detectors.'),
        switch('use_lidar', 'true', 'Start the lidar detector.'),
        switch('use_fusion', 'true', 'Start the fusion.'),
        switch('use_rviz', 'false', 'Start RViz with a view of the results.'),
        switch('respawn', 'true', 'Start a node again that died.'),
        DeclareLaunchArgument(
            'log_level', default_value='info', description='Lowest level of log messages.',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
        ),
        text('image_topic', 'sensing/camera/{name}/image', 'Images of the camera {name}.'),
        text('camera_info_topic', 'sensing/camera/{name}/camera_info', 'Their calibration.'),
        text('points_topic', 'sensing/lidar/points', 'Point clouds.'),
        OpaqueFunction(function=launch_nodes),
    ])  # fmt: skip


def launch_nodes(context: LaunchContext) -> list[Any]:
    """The nodes that the arguments and the parameter file ask for."""

    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def on(name: str) -> bool:
        return argument(name).lower() == 'true'

    parameters = read_parameters(argument('params_file'))
    fusion = parameters.for_node('bev_fusion')
    named = _cameras(fusion)
    parameters.check_nodes(['lidar_detector', 'bev_fusion', *map(CAMERA_NODE.format, named)])
    cameras, notes = [], []
    for name in named if on('use_camera') else []:
        if parameters.for_node(CAMERA_NODE.format(name)).get('engine_path'):
            cameras.append(name)
        else:
            notes.append(
                LogInfo(
                    msg=f'camera {name} is left out: {parameters.path} gives it no engine_path'
                )
            )
    lidar = on('use_lidar') and bool(fusion.get('lidar', True))

    topics = {
        '/sensing/camera/<camera>/image': argument('image_topic').replace('{name}', '<camera>'),
        '/sensing/camera/<camera>/camera_info': argument('camera_info_topic').replace(
            '{name}', '<camera>'
        ),
        '/sensing/lidar/points': argument('points_topic'),
    }
    namespace = '/' + argument('namespace').strip('/')
    nodes: list[tuple[str, LifecycleNode]] = []

    def add(executable: str, name: str, of: list[str], **special: Any) -> None:
        values = {**parameters.for_node(name), **special}
        node = LifecycleNode(
            package=PACKAGE, executable=executable, name=name, namespace=namespace,
            parameters=[{'use_sim_time': on('use_sim_time')}, *_parameters(values)],
            remappings=_remappings(executable, of, topics),
            ros_arguments=['--log-level', argument('log_level')],
            output='screen', respawn=on('respawn'), respawn_delay=RESPAWN_DELAY_S,
        )  # fmt: skip
        nodes.append((f'{namespace.rstrip("/")}/{name}', node))

    if lidar:
        add('lidar_detector', 'lidar_detector', [])
    for name in cameras:
        add('camera_detector', CAMERA_NODE.format(name), [name])
    if on('use_fusion') and (lidar or cameras):
        of = {name: parameters.for_node(CAMERA_NODE.format(name)) for name in cameras}
        rectified = [name for name in cameras if of[name].get('rectified')]
        add(
            'bev_fusion', 'bev_fusion', cameras, lidar=lidar, cameras=cameras or [''],
            rectified_cameras=rectified or [''],
        )  # fmt: skip
    if not nodes:
        notes.append(LogInfo(msg='nothing to start: neither a lidar nor a camera is left'))
    bringup = BringUp(nodes).entities() if on('autostart') and nodes else []
    return [
        *notes,
        *bringup,
        *(node for _, node in nodes),
        *(_rviz(namespace) if on('use_rviz') else []),
    ]


def _cameras(fusion: dict[str, Any]) -> tuple[str, ...]:
    """The cameras that the parameters of the fusion list; checked, as topics are made of them."""
    listed = fusion.get('cameras', list(FusionConfig().cameras))
    if isinstance(listed, list):  # ROS has no empty list of strings: [''] stands for it
        listed = [name for name in listed if name]
    return from_values(FusionConfig, {'cameras': listed}).cameras


def _parameters(values: dict[str, Any]) -> list[dict[str, Any]]:
    """As launch_ros takes them, with text kept as text: it would read '1' and 'on' as YAML."""
    kinds = {str: str, list: list[str]}
    typed = {}
    for name, value in values.items():
        plain = isinstance(value, str) or (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        )
        typed[name] = ParameterValue(value, value_type=kinds[type(value)]) if plain else value
    return [typed] if typed else []


def _remappings(
    executable: str, cameras: list[str], topics: dict[str, str]
) -> list[tuple[str, str]]:
    """From the node's own topics to those of the vehicle, relative to the namespace."""
    node = next(item for item in NODES if item.name == executable)
    found = []
    for topic in (*node.inputs, *node.outputs):
        target = topics.get(topic.launched, topic.launched.lstrip('/'))
        names = cameras if '<camera>' in topic.name + target else ['']
        found += [
            (topic.name.replace('<camera>', name), target.replace('<camera>', name))
            for name in names
            if target
        ]
    return found


def _rviz(namespace: str) -> list[Any]:
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        return [LogInfo(msg='use_rviz: rviz2 is not installed; the nodes start without it')]
    view = str(resource('config', 'airside.rviz'))
    return [
        Node(
            package='rviz2',
            executable='rviz2',
            namespace=namespace,
            arguments=['-d', view],
            output='screen',
        )
    ]
