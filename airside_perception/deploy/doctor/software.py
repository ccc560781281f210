"""The parameters themselves, Python packages and ROS 2."""

from __future__ import annotations

from collections.abc import Callable

from airside_perception.deploy.doctor.check import OK, PROBLEM, WARNING, Check
from airside_perception.deploy.doctor.host import Host
from airside_perception.deploy.doctor.needs import Needs


def look_at_parameters(host: Host, needs: Needs) -> list[Check]:
    """What the parameters name, and whether it is there."""
    checks = []
    if not needs.uses:
        return [
            Check(
                'parameters',
                WARNING,
                'no node has a network: nothing is asked for',
                'name one in engine_path',
            )
        ]
    for use in needs.uses:
        if use.problem:
            checks.append(
                Check(
                    'parameters',
                    PROBLEM,
                    f'{use.node}: {use.problem}',
                    'mend the parameter, or build the engine: engine build MODEL.onnx',
                )
            )
    by = {'ONNX Runtime': needs.onnxruntime, 'TensorRT': needs.tensorrt}
    words = [f'{", ".join(nodes)} on {what}' for what, nodes in by.items() if nodes]
    return [*checks, Check('parameters', OK, '; '.join(words))] if words else checks


def _package(
    name: str, module: str, package: str, needed: Callable[[Needs], bool], without: str
) -> Callable[[Host, Needs], list[Check]]:
    """A look at one Python package."""

    def look(host: Host, needs: Needs) -> list[Check]:
        try:
            return [Check(name, OK, host.installed(module))]
        except Exception as error:  # noqa: BLE001  a broken package raises anything
            why = ' '.join(str(error).split()) or type(error).__name__
            state = PROBLEM if needed(needs) else WARNING
            return [Check(name, state, f'cannot be used: {why}', f'{package}; {without}')]

    return look


def look_at_ros(host: Host, needs: Needs) -> list[Check]:
    """ROS 2; tools and replay run without."""
    distribution = host.environment.get('ROS_DISTRO', '')
    try:
        host.installed('rclpy')
    except Exception as error:  # noqa: BLE001  as above
        why = ' '.join(str(error).split()) or type(error).__name__
        sourced = f'ROS_DISTRO is {distribution}' if distribution else 'no ROS 2 is sourced'
        return [
            Check(
                'ROS 2',
                WARNING,
                f'{sourced}: {why}',
                '. /opt/ros/humble/setup.bash (or jazzy); tools and replay run without',
            )
        ]
    middleware = host.environment.get('RMW_IMPLEMENTATION', 'its default')
    return [Check('ROS 2', OK, f'{distribution or "unknown"}, middleware {middleware}')]


PACKAGES = (
    _package(
        'ONNX Runtime',
        'onnxruntime',
        'pip install onnxruntime',
        lambda needs: bool(needs.onnxruntime),
        '.onnx networks do not run',
    ),
    _package(
        'onnx',
        'onnx',
        'pip install onnx',
        lambda needs: bool(needs.builders),
        'engines cannot be built',
    ),
    _package(
        'OpenCV',
        'cv2',
        'sudo apt-get install python3-opencv, or pip install opencv-python-headless',
        lambda needs: True,
        'no camera works',
    ),
    _package('NumPy', 'numpy', 'pip install numpy', lambda needs: True, 'nothing works'),
    _package('SciPy', 'scipy', 'pip install scipy', lambda needs: True, 'nothing is fused'),
)
"""Looks at the packages that everything stands on."""
