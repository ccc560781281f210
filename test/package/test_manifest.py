"""package.xml, setup.py and the pinned requirements say the same, and what the code uses."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'airside_perception'
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()

# Import name -> rosdep key, where they differ.
KEYS = {
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'onnxruntime': 'python3-onnxruntime-pip',
    'open3d': 'python3-open3d-pip',
    'rosbags': 'python3-rosbags-pip',
    'scipy': 'python3-scipy',
    'tf2_ros': 'tf2_ros_py',  # tf2_ros is the C++ library, which does not pull in Python's
    'yaml': 'python3-yaml',
}
NO_KEY = {
    'onnx',  # PyPI only; package.xml says so
    'onnx_graphsurgeon', 'onnxscript', 'torch',  # likewise: for verbs of `engine`
    # Part of JetPack or of a GPU's software, and imported only where it is used.
    'cuda', 'tensorrt',
}  # fmt: skip
NOT_IMPORTED = {
    'builtin_interfaces',  # stamps are made by the name of their type
    'ros2launch',  # the command that users start the launch files with
}


def depends(*tags: str) -> set[str]:
    return {element.text or '' for tag in tags for element in MANIFEST.iter(tag)}


def third_party_imports() -> dict[str, str]:
    """Import roots that are neither ours nor Python's, with one file that uses each."""
    found: dict[str, str] = {}
    for path in [*(ROOT / PACKAGE).rglob('*.py'), *(ROOT / 'launch').rglob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                root = name.split('.')[0]
                if root != PACKAGE and root not in sys.stdlib_module_names:
                    found.setdefault(root, str(path.relative_to(ROOT)))
    return found


def test_every_import_is_a_declared_dependency() -> None:
    declared = depends('depend', 'exec_depend', 'test_depend')
    missing = {
        root: where
        for root, where in third_party_imports().items()
        if root not in NO_KEY and KEYS.get(root, root) not in declared
    }
    assert missing == {}


def test_every_declared_dependency_is_used() -> None:
    used = {KEYS.get(root, root) for root in third_party_imports()} | NOT_IMPORTED
    assert depends('depend', 'exec_depend') - used == set()


def test_setup_and_manifest_agree() -> None:
    pytest.importorskip('setuptools', reason='building needs setuptools, the core does not')
    fields = ('name', 'version', 'license', 'maintainer', 'maintainer-email')
    result = subprocess.run(
        [sys.executable, 'setup.py', '--quiet', *(f'--{field}' for field in fields)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    maintainer = MANIFEST.find('maintainer')
    assert maintainer is not None
    assert MANIFEST.get('format') == '3'
    assert result.stdout.split('\n')[:5] == [
        MANIFEST.findtext('name'),
        MANIFEST.findtext('version'),
        MANIFEST.findtext('license'),
        maintainer.text,
        maintainer.get('email'),
    ]
    assert MANIFEST.findtext('export/build_type') == 'ament_python'


ENTRY_POINT = re.compile(r"f'(\w+) = \{PACKAGE\}\.([\w.]+):main'")


def entry_points() -> list[tuple[str, str]]:
    return ENTRY_POINT.findall((ROOT / 'setup.py').read_text())


def test_the_five_executables_are_there() -> None:
    names = {name for name, _ in entry_points()}
    assert names == {'camera_detector', 'lidar_detector', 'bev_fusion', 'replay', 'engine'}


@pytest.mark.parametrize(('name', 'module'), entry_points())
def test_executables_have_a_main(name: str, module: str) -> None:
    path = (ROOT / PACKAGE).joinpath(*module.split('.')).with_suffix('.py')
    tree = ast.parse(path.read_text(encoding='utf-8'))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert 'main' in functions, f'{path} defines no main() for the executable {name}'


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / '.ci' / name).read_text().splitlines()
    matches = (re.fullmatch(r'([\w.-]+)==([\w.]+)', line) for line in lines)
    return {match[1].lower().replace('_', '-'): match[2] for match in matches if match}


def test_pinned_versions_agree() -> None:
    wanted, constrained = pins('requirements.txt'), pins('constraints.txt')
    assert {'numpy', 'onnxruntime', 'rosbags', 'pytest'} <= set(wanted)
    assert {name: constrained.get(name) for name in wanted} == wanted
