"""A node that ends with an error is started again, and brought to active again."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

LAUNCH = """
import sys
from launch import LaunchDescription
from launch.actions import ExecuteProcess
from airside_perception.nodes.bringup import BringUp

NODE = '''
import pathlib
from airside_perception import pipeline
from airside_perception.errors import DeviceError
from airside_perception.nodes.lidar_detector import main

first = pathlib.Path('{folder}/first')
if not first.exists():
    first.touch()

    def lose(*arguments):
        raise DeviceError('cuStreamSynchronize: CUDA_ERROR_LAUNCH_FAILED: unspecified failure')

    pipeline.LidarPipeline.detect = lose
main()
'''

def generate_launch_description():
    node = ExecuteProcess(
        cmd=[
            sys.executable, '-c', NODE, '--ros-args',
            '-p', 'engine_path:={folder}/tiny_lidar.onnx', '-p', 'target_frame:=""',
        ],
        output='screen', respawn=True, respawn_delay=0.1,
    )
    return LaunchDescription([*BringUp([('/lidar_detector', node)]).entities(), node])
"""
"""A lidar_detector that loses its GPU with its first cloud, but not when it is started again."""


def test_a_node_that_has_lost_its_gpu_serves_again(launch, networks, harness, sensors, tmp_path):
    file = tmp_path / 'lost.launch.py'
    file.write_text(LAUNCH.replace('{folder}', str(networks)))
    graph = launch(file=file)
    graph.said('/lidar_detector: active')
    found = harness.listen(Detection3DArray, '/lidar_detector/output/detections')
    clouds = harness.node.create_publisher(PointCloud2, '/lidar_detector/input/points', 10)
    harness.node.create_timer(0.1, lambda: clouds.publish(sensors.cloud()))
    graph.said('the GPU is lost to this process, which ends')
    graph.said('process has died')
    graph.said('/lidar_detector: active', times=2)
    harness.until(lambda: found, 'detections of the second process')
    assert graph.interrupt() == 0, graph.lines
