"""What full.launch.py makes of its arguments, without starting it."""

from __future__ import annotations

import importlib.util
import re

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, LogInfo
from launch_ros.parameter_descriptions import ParameterValue

from airside_perception.config import CameraConfig, FusionConfig, LidarConfig
from airside_perception.interface import NODES
from airside_perception.parameter import from_values
from airside_perception.params import read_parameters

ARGUMENTS = {
    'namespace', 'use_sim_time', 'params_file', 'autostart', 'use_camera', 'use_lidar',
    'use_fusion', 'use_rviz', 'log_level',
}  # fmt: skip


@pytest.fixture
def launch_file(repository, monkeypatch):
    spec = importlib.util.spec_from_file_location(
        'full_launch', repository / 'launch' / 'full.launch.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'LifecycleNode', Recorded)
    return module


class Recorded:
    """Stands in for LifecycleNode: keeps what the launch file asks for."""

    def __init__(self, **keys):
        self.keys = keys


class Made:
    """Nodes and notes that the launch file makes of some arguments."""

    def __init__(self, launch_file, **given):
        self.context = LaunchContext()
        for action in launch_file.generate_launch_description().entities:
            if isinstance(action, DeclareLaunchArgument):
                default = ''.join(part.perform(self.context) for part in action.default_value)
                self.context.launch_configurations[action.name] = given.get(action.name, default)
        self.context.launch_configurations['autostart'] = 'false'
        found = launch_file.launch_nodes(self.context)
        self.notes = [
            ''.join(part.perform(self.context) for part in item.msg)
            for item in found
            if isinstance(item, LogInfo)
        ]
        self.nodes = {
            f'{item.keys["namespace"].rstrip("/")}/{item.keys["name"]}': item.keys
            for item in found
            if isinstance(item, Recorded)
        }

    def remaps(self, name):
        """{topic of the node: topic of the vehicle}"""
        return dict(self.nodes[name]['remappings'])

    def parameters(self, name):
        """What the node is given, later ones over earlier ones."""
        values = {}
        for item in self.nodes[name]['parameters']:
            for key, value in item.items():
                values[key] = (
                    value.evaluate(self.context) if isinstance(value, ParameterValue) else value
                )
        return values


def test_every_argument_is_there_and_described(launch_file):
    declared = [
        a
        for a in launch_file.generate_launch_description().entities
        if isinstance(a, DeclareLaunchArgument)
    ]
    assert {item.name for item in declared} >= ARGUMENTS
    assert all(len(item.description) > 10 for item in declared)


def test_nodes_topics_and_parameters(launch_file, networks):
    made = Made(launch_file, params_file=f'{networks}/params.yaml', use_sim_time='true')
    assert list(made.nodes) == ['/lidar_detector', '/camera_front', '/camera_rear', '/bev_fusion']
    assert made.remaps('/camera_rear') == {
        '~/input/image': 'sensing/camera/rear/image',
        '~/input/camera_info': 'sensing/camera/rear/camera_info',
        '~/output/detections_2d': 'perception/camera/rear/detections_2d',
        '~/output/detections': 'perception/camera/rear/detections',
    }
    fusion = made.remaps('/bev_fusion')
    assert fusion['~/input/front/detections'] == 'perception/camera/front/detections'
    assert fusion['~/output/objects'] == 'perception/objects'
    assert fusion['~/debug/markers'] == 'perception/markers'
    front = made.parameters('/camera_front')
    assert front['engine_path'] == f'{networks}/tiny_camera.onnx'
    assert front['use_sim_time'] is True
    assert made.parameters('/bev_fusion')['cameras'] == ['front', 'rear']


def test_every_output_and_input_of_the_interface_is_remapped(launch_file, networks):
    made = Made(launch_file, params_file=f'{networks}/params.yaml')
    names = {
        'camera_detector': '/camera_front',
        'lidar_detector': '/lidar_detector',
        'bev_fusion': '/bev_fusion',
    }
    for node in NODES:
        remaps = made.remaps(names[node.name])
        for topic in (*node.inputs, *node.outputs):
            if topic.launched:
                ours, theirs = (
                    text.replace('<camera>', 'front') for text in (topic.name, topic.launched)
                )
                assert '/' + remaps[ours] == theirs


def test_a_namespace_and_other_topics(launch_file, networks):
    made = Made(
        launch_file, params_file=f'{networks}/params.yaml', namespace='tug_7',
        image_topic='/cam/{name}/raw', camera_info_topic='/cam/{name}/info',
        points_topic='/velodyne/points',
    )  # fmt: skip
    assert '/tug_7/camera_front' in made.nodes
    assert made.remaps('/tug_7/camera_front')['~/input/image'] == '/cam/front/raw'
    assert made.remaps('/tug_7/bev_fusion')['~/input/rear/camera_info'] == '/cam/rear/info'
    assert made.remaps('/tug_7/lidar_detector')['~/input/points'] == '/velodyne/points'
    assert made.remaps('/tug_7/bev_fusion')['~/output/objects'] == 'perception/objects'


@pytest.mark.parametrize(
    ('switch', 'nodes', 'lidar', 'cameras'),
    [
        ({'use_camera': 'false'}, {'/lidar_detector', '/bev_fusion'}, True, ['']),
        (
            {'use_lidar': 'false'},
            {'/camera_front', '/camera_rear', '/bev_fusion'},
            False,
            ['front', 'rear'],
        ),
        (
            {'use_fusion': 'false'},
            {'/camera_front', '/camera_rear', '/lidar_detector'},
            None,
            None,
        ),
        ({'use_camera': 'false', 'use_lidar': 'false'}, set(), None, None),
    ],
)
def test_switches_leave_out_nodes_and_the_fusion_knows(
    launch_file, networks, switch, nodes, lidar, cameras
):
    made = Made(launch_file, params_file=f'{networks}/params.yaml', **switch)
    assert set(made.nodes) == nodes
    if cameras:
        values = made.parameters('/bev_fusion')
        assert (values['lidar'], values['cameras']) == (lidar, cameras)
    if not nodes:
        assert made.notes == ['nothing to start: neither a lidar nor a camera is left']


def test_the_fusion_knows_whose_images_are_rectified(launch_file, networks):
    path = networks / 'params.yaml'
    made = Made(launch_file, params_file=str(path))
    assert made.parameters('/bev_fusion')['rectified_cameras'] == ['']
    path.write_text(path.read_text() + 'camera_rear: {ros__parameters: {rectified: true}}\n')
    made = Made(launch_file, params_file=str(path))
    assert made.parameters('/bev_fusion')['rectified_cameras'] == ['rear']
    assert made.parameters('/camera_rear')['rectified'] is True


def test_text_that_looks_like_something_else_stays_text(launch_file, networks):
    path = networks / 'params.yaml'
    path.write_text(
        path.read_text()
        + "camera_front: {ros__parameters: {ground_frame: 'on', card_path: '1e3'}}\n"
    )
    values = Made(launch_file, params_file=str(path)).parameters('/camera_front')
    assert (values['ground_frame'], values['card_path']) == ('on', '1e3')


def test_without_rviz_the_nodes_start_all_the_same(launch_file, networks):
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    made = Made(launch_file, params_file=f'{networks}/params.yaml', use_rviz='true')
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        assert made.notes == ['use_rviz: rviz2 is not installed; the nodes start without it']
    else:
        assert not made.notes
    assert len(made.nodes) == 4


def test_a_camera_without_a_network_is_left_out_aloud(launch_file, networks):
    path = networks / 'params.yaml'
    path.write_text(path.read_text() + "camera_rear: {ros__parameters: {engine_path: ''}}\n")
    made = Made(launch_file, params_file=str(path))
    assert '/camera_rear' not in made.nodes
    assert made.parameters('/bev_fusion')['cameras'] == ['front']
    assert made.notes == [f'camera rear is left out: {path} gives it no engine_path']


def test_the_shipped_configuration_starts_every_camera_that_it_lists(launch_file, repository):
    made = Made(launch_file)
    shipped = read_parameters(repository / 'config' / 'perception.yaml').for_node('bev_fusion')
    cameras = [f'/camera_{name}' for name in from_values(FusionConfig, shipped).cameras]
    assert list(made.nodes) == ['/lidar_detector', *cameras, '/bev_fusion']
    assert not made.notes


def examples(repository):
    """{where it stands: text} of every parameter file that is shipped or shown."""
    found = {
        path.name: path.read_text()
        for path in (repository / 'config').glob('*.yaml')
        if 'ros__parameters' in path.read_text()
    }
    blocks = re.findall(r'```yaml\n(.*?)```', (repository / 'README.md').read_text(), re.DOTALL)
    shown = [text for text in blocks if 'ros__parameters' in text]  # the others are cards
    found.update({f'README {n}': text for n, text in enumerate(shown)})
    plain, _, commented = found['perception.yaml'].partition('# For one camera:\n')
    found['perception.yaml, with one camera'] = plain + commented.replace('# ', '')
    return found


def test_every_parameter_file_that_is_shipped_or_shown_fits_the_settings(
    repository, launch_file, tmp_path
):
    shown = examples(repository)
    assert len(shown) == 4
    for name, text in shown.items():
        path = tmp_path / f'{name}.yaml'
        path.write_text(text)
        parameters = read_parameters(path)
        cameras = from_values(FusionConfig, parameters.for_node('bev_fusion')).cameras
        assert cameras
        made = Made(launch_file, params_file=str(path))
        expected = ['/lidar_detector', *(f'/camera_{item}' for item in cameras), '/bev_fusion']
        assert list(made.nodes) == expected
        for item in ('lidar_detector', *(f'camera_{camera}' for camera in cameras)):
            kind, card = (
                (LidarConfig, 'apron_centerpoint')
                if item == 'lidar_detector'
                else (CameraConfig, 'apron_yolox')
            )
            classes = yaml.safe_load((repository / 'models' / f'{card}.yaml').read_text())
            thresholds = dict.fromkeys(classes['classes'], 0.5)
            from_values(kind, parameters.for_node(item), {'score_thresholds': thresholds})


def test_the_view_shows_topics_that_there_are(repository, launch_file, networks):
    view = yaml.safe_load((repository / 'config' / 'airside.rviz').read_text())
    shown = [
        item['Topic']['Value']
        for item in view['Visualization Manager']['Displays']
        if 'Topic' in item
    ]
    made = Made(launch_file, params_file=f'{networks}/params.yaml')
    known = {theirs for name in made.nodes for theirs in made.remaps(name).values()}
    assert set(shown) - known == {'camera_front/debug/image'}  # a node's own topic, not remapped
