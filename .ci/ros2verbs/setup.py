"""Verbs of the `ros2` command that the ROS 2 wheel lacks. A vehicle's ROS 2 has its own."""

from __future__ import annotations

from setuptools import setup

setup(
    name='airside_ros2verbs',
    version='0.1.0',
    license='Apache-2.0',
    packages=['airside_ros2verbs'],
    entry_points={
        'ros2cli.command': [
            'launch = airside_ros2verbs.launch:LaunchCommand',
            'lifecycle = airside_ros2verbs.lifecycle:LifecycleCommand',
        ],
    },
)
