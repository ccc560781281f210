"""What colcon installed: the shared files, the executables, and the `ros2` command beside them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(shutil.which('ros2') is None, reason='no ros2 on the PATH'),
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'airside_perception'

LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration


def generate_launch_description():
    process = ExecuteProcess(
        cmd=['sh', '-c', LaunchConfiguration('command')], output='screen'
    )
    return LaunchDescription([
        DeclareLaunchArgument('command', default_value='echo started', description='what to run'),
        DeclareLaunchArgument('needed', description='has no default', choices=['yes', 'no']),
        process,
        RegisterEventHandler(OnProcessExit(
            target_action=process,
            on_exit=lambda event, context: EmitEvent(event=Shutdown(reason='ended'))
            if event.returncode <= 0 else raise_(event.returncode),
        )),
    ])


def raise_(code):
    raise RuntimeError(f'the process returned {code}')
"""

LIFECYCLE_NODE = """
import rclpy
from rclpy.lifecycle import LifecycleNode

rclpy.init()
node = LifecycleNode('worker')
print('ready', flush=True)
try:
    rclpy.spin(node)
except KeyboardInterrupt:
    pass
"""


@pytest.fixture
def launch_file(tmp_path: Path) -> Path:
    path = tmp_path / 'some.launch.py'
    path.write_text(LAUNCH_FILE)
    return path


def ros2(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ['ros2', *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_shared_files_are_installed() -> None:
    from ament_index_python.packages import get_package_share_directory

    share = Path(get_package_share_directory(PACKAGE))
    assert share != ROOT
    for name in ('config', 'launch', 'models'):
        assert files(share / name) == files(ROOT / name), f'{name}/ differs: build again'


def test_executables_are_installed_for_this_python() -> None:
    result = ros2('pkg', 'executables', PACKAGE, '--full-path')
    scripts = [Path(line) for line in result.stdout.split()]
    assert {script.name for script in scripts} == {
        'camera_detector', 'lidar_detector', 'bev_fusion', 'replay', 'engine',
    }  # fmt: skip
    for script in scripts:
        interpreter = script.read_text().splitlines()[0].removeprefix('#!')
        assert Path(interpreter).parent == Path(sys.executable).parent


@pytest.mark.parametrize('executable', ['engine', 'replay'])
def test_command_lines_run_as_executables_and_as_modules(executable: str) -> None:
    installed = ros2('run', PACKAGE, executable, '--help')
    assert installed.returncode == 0, installed.stderr
    assert 'usage' in installed.stdout
    package = {'engine': 'deploy', 'replay': 'replay'}[executable]
    without_ros = {
        name: value for name, value in os.environ.items()
        if name not in ('PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'ROS_DISTRO')
    }  # fmt: skip
    module = subprocess.run(
        [sys.executable, '-m', f'{PACKAGE}.{package}', '--help'],
        capture_output=True, text=True, check=False, env=without_ros, cwd='/', timeout=60,
    )  # fmt: skip
    assert module.returncode == 0, module.stderr
    assert 'usage' in module.stdout


@pytest.mark.parametrize(
    'verb',
    [('node', 'list'), ('param', 'set'), ('topic', 'hz'), ('service', 'call')],
    ids=' '.join,
)
def test_verbs_of_the_ros2_command_load(verb: tuple[str, str]) -> None:
    result = ros2(*verb, '--help')
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout


def test_launch_shows_arguments(launch_file: Path) -> None:
    result = ros2('launch', str(launch_file), '--show-args')
    assert result.returncode == 0, result.stderr
    for part in ("'command':", 'what to run', "(default: 'echo started')", "'needed':"):
        assert part in result.stdout


def test_launch_passes_arguments_and_ends_with_success(launch_file: Path) -> None:
    result = ros2('launch', str(launch_file), 'needed:=yes', 'command:=echo "a b" := c')
    assert result.returncode == 0, result.stderr
    assert 'a b := c' in result.stdout


def test_launch_passes_failure_on(launch_file: Path) -> None:
    assert ros2('launch', str(launch_file), 'needed:=yes', 'command:=exit 3').returncode != 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('no_such_package', 'some.launch.py'), 'no_such_package'),
        ((PACKAGE, 'no_such.launch.py'), 'no_such.launch.py'),
        ((PACKAGE,), PACKAGE),
    ],
)
def test_launch_names_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    result = ros2('launch', *arguments)
    assert result.returncode != 0
    assert message in result.stderr


def test_launch_ends_with_success_on_sigint(launch_file: Path) -> None:
    with subprocess.Popen(
        ['ros2', 'launch', str(launch_file), 'needed:=no', 'command:=echo ready; exec sleep 60'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while 'ready' not in (line := process.stdout.readline()):
            assert line, 'the launch ended before its process started'
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_lifecycle_verbs_drive_a_node() -> None:
    with subprocess.Popen(
        [sys.executable, '-c', LIFECYCLE_NODE], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == 'ready\n'
            assert '/worker' in ros2('lifecycle', 'nodes').stdout
            refused = ros2('lifecycle', 'set', '/worker', 'activate')
            assert refused.returncode != 0
            assert ros2('lifecycle', 'set', '/worker', 'configure').returncode == 0
            assert 'inactive' in ros2('lifecycle', 'get', '/worker').stdout
            assert ros2('lifecycle', 'set', '/worker', 'activate').returncode == 0
            assert 'active [3]' in ros2('lifecycle', 'get', '/worker').stdout
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
