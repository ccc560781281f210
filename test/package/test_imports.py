"""Imports point one way: a module uses only its own layer and the layers above it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'airside_perception'
SOURCES = sorted((ROOT / PACKAGE).rglob('*.py'))

# From top to bottom. A module may import from rows above its own; names in one row are apart.
LAYERS = (
    ('errors', 'closing'),
    ('files', 'html', 'yaml_text'),
    ('types',),
    ('timing',),
    ('resources', 'params'),
    ('parameter',),
    ('config',),
    ('interface',),
    ('geometry',),
    ('projection',),
    ('overlap',),
    ('evaluate',),
    ('transforms',),
    ('card',),
    ('cuda',),
    ('engine',),
    ('camera', 'lidar', 'fusion'),
    ('messages', 'results'),
    ('network',),
    ('pipeline',),
    ('nodes',),
    ('replay',),
    ('deploy',),
    ('sim',),
    ('live',),
    ('demo',),
)
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}

# Beyond the order: these pairs lie in it, and still must not meet.
FORBIDDEN = {('sim', 'nodes'), ('deploy', 'nodes'), ('replay', 'nodes')}
# A command line may hand over to a node when its verb is called, and only then.
LAZY = {(f'{PACKAGE}.replay.__main__', f'{PACKAGE}.nodes.player')}

ROS_ROOTS = {
    'ament_index_python', 'builtin_interfaces', 'launch', 'launch_ros', 'lifecycle_msgs',
    'message_filters', 'rcl_interfaces', 'rclpy', 'rosidl_runtime_py', 'rosgraph_msgs',
    'sensor_msgs', 'sensor_msgs_py', 'tf2_ros',
}  # fmt: skip
ROS_SUFFIXES = ('_msgs', '_srvs')
GPU_ROOTS = {'cuda', 'cupy', 'pycuda', 'tensorrt', 'torch', 'torchvision'}
GPU_MODULES = (f'{PACKAGE}.engine.tensorrt', f'{PACKAGE}.cuda')
NOT_INSTALLED = {'benchmarks', 'test', 'training'}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def layer(module: str) -> str | None:
    """First name below the package; the package itself, without one, is no layer."""
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else None


def imported(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Every module that `tree` names in an import, at any depth, relative ones resolved."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = module.split('.')
                keep = len(parents) - node.level + (1 if is_package else 0)
                base = '.'.join([*parents[:keep], *([base] if base else [])])
            # `from package import submodule` names a module, too.
            found.update(
                f'{base}.{alias.name}' if base == PACKAGE else base for alias in node.names
            )
    return found


def at_module_level(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    """The imports that run when the module is imported: not in functions, nor for types only."""
    found: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test):
            pending.extend(node.orelse)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= imported(node, module, is_package)
        else:
            pending.extend(ast.iter_child_nodes(node))
    return found


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """Say what in `source` breaks the rules, were it the text of `module`."""
    tree = ast.parse(source)
    everywhere = imported(tree, module, is_package)
    on_import = at_module_level(tree, module, is_package)
    own = layer(module)
    broken = []
    for name in sorted(everywhere):
        root = name.split('.')[0]
        if root == PACKAGE:
            broken += _layer_violation(module, own, name)
        if root in NOT_INSTALLED:
            broken.append(f'{module} imports {name}, which is not installed with the package')
        if (root in ROS_ROOTS or root.endswith(ROS_SUFFIXES)) and not _may_use_ros(module):
            broken.append(f'{module} imports {name}: ROS 2 belongs in nodes/')
    for name in sorted(on_import):
        if (module, name) in LAZY:
            broken.append(f'{module} imports {name} when it is imported')
        if name.split('.')[0] in GPU_ROOTS and not module.startswith(GPU_MODULES):
            broken.append(f'{module} imports {name} when it is imported')
    return broken


def _may_use_ros(module: str) -> bool:
    return layer(module) == 'nodes'


def _layer_violation(module: str, own: str | None, name: str) -> list[str]:
    other = layer(name)
    if other is None or other == own:
        return []
    if other.startswith('__'):
        return []  # a dunder of the package itself
    if own is None:
        return [f'{module} imports {name}: the package itself imports nothing']
    for unknown in (own, other):
        if unknown not in ROW:
            return [f"{module} imports {name}: '{unknown}' has no place in the table of layers"]
    if ROW[other] > ROW[own]:
        return [f'{module} imports {name}, which lies below it']
    if ROW[other] == ROW[own]:
        return [f'{module} imports {name}: they are kept apart']
    if (own, other) in FORBIDDEN and (module, name) not in LAZY:
        return [f'{module} imports {name}: {own} and {other} are kept apart']
    return []


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    source = path.read_text(encoding='utf-8')
    assert violations(module_name(path), source, path.name == '__init__.py') == []


def test_every_module_has_a_layer() -> None:
    layers = {layer(module_name(path)) for path in SOURCES} - {None}
    assert layers <= set(ROW)


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('camera.yolox', 'from airside_perception.lidar import pillars'),
        ('camera.yolox', 'from airside_perception.fusion.associate import match'),
        ('geometry', 'from airside_perception import camera'),
        ('geometry', 'import airside_perception.engine.base'),
        ('geometry', 'def f():\n    from airside_perception.engine import base'),
        ('lidar.detector', 'from ..camera import yolox'),
        ('lidar.detector', 'from .. import camera'),
        ('lidar.detector', 'import rclpy'),
        ('messages', 'from sensor_msgs.msg import Image'),
        ('messages', 'def f():\n    import vision_msgs.msg'),
        ('demo', 'import rclpy'),
        ('sim.apron', 'from airside_perception.nodes.player import play'),
        ('replay.runner', 'from airside_perception.nodes.base import Node'),
        ('replay.__main__', 'from airside_perception.nodes.player import play'),
        ('replay.__main__', 'def f():\n    from airside_perception.nodes.base import Node'),
        ('engine.onnx', 'import tensorrt'),
        ('engine.base', 'try:\n    import torch\nexcept ImportError:\n    torch = None'),
        ('replay.report', 'import benchmarks'),
        ('newcomer', 'from airside_perception import errors'),
    ],
)
def test_rule_finds(module: str, source: str) -> None:
    assert violations(f'{PACKAGE}.{module}', source) != []


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('camera.yolox', 'from .lift import lift\nfrom airside_perception.types import Image'),
        ('nodes.base', 'import rclpy\nfrom airside_perception import messages'),
        ('engine.tensorrt', 'import tensorrt'),
        ('cuda.runtime', 'from cuda import cudart'),
        ('engine.build', 'def f():\n    import tensorrt'),
        ('engine.build', 'if TYPE_CHECKING:\n    import torch'),
        ('demo', 'from airside_perception.replay import bag'),
        ('sim.apron', 'from airside_perception.replay.bag import BagWriter'),
        ('replay.__main__', 'def f():\n    from airside_perception.nodes.player import play'),
    ],
)
def test_rule_allows(module: str, source: str) -> None:
    assert violations(f'{PACKAGE}.{module}', source) == []


IMPORT_CORE = """
import importlib, pkgutil, sys

class Blocked:
    roots = {roots!r}
    def find_spec(self, name, path=None, target=None):
        root = name.split('.')[0]
        if root in self.roots or root.endswith({suffixes!r}):
            raise ImportError(name + ' is blocked')

sys.meta_path.insert(0, Blocked())
import airside_perception
for module in pkgutil.walk_packages(airside_perception.__path__, 'airside_perception.'):
    if not module.name.startswith({nodes!r}) and not module.name.endswith('.__main__'):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_core_imports_without_ros_and_gpu() -> None:
    optional = {'open3d'}  # only simulated drives need it, and only when they are made
    program = IMPORT_CORE.format(
        roots=ROS_ROOTS | GPU_ROOTS | optional,
        suffixes=ROS_SUFFIXES,
        nodes=f'{PACKAGE}.nodes',
    )
    ros = ('PYTHONPATH', 'AMENT_PREFIX_PATH', 'LD_LIBRARY_PATH', 'ROS_DISTRO')
    environment = {name: value for name, value in os.environ.items() if name not in ros}
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert {f'{PACKAGE}.errors', f'{PACKAGE}.geometry'} <= set(result.stdout.split())
