"""The driver functions that the package calls, against what the installed bindings offer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from airside_perception.cuda import kernels

PACKAGE = kernels.SOURCES.parent


def _calls() -> dict[str, set[int | None]]:
    """Names of driver functions called anywhere, with the number of arguments (None: starred)."""
    found: dict[str, set[int | None]] = {}
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.args[0].value
                if isinstance(name, str) and re.fullmatch(r'cu[A-Z]\w+', name):
                    starred = any(isinstance(value, ast.Starred) for value in node.args)
                    found.setdefault(name, set()).add(None if starred else len(node.args) - 1)
    return found


@pytest.fixture(scope='module')
def bindings():
    return pytest.importorskip('cuda.bindings.driver')


def test_calls_have_the_right_number_of_arguments(bindings):
    calls = _calls()
    assert len(calls) > 30
    for name, counts in calls.items():
        text = getattr(bindings, name).__doc__.split('\n', 1)[0]
        parameters = re.fullmatch(rf'{name}\((.*)\)', text).group(1)
        given = [part for part in parameters.split(',') if part.strip()]
        optional = sum('=' in part for part in given)
        for count in counts - {None}:
            assert len(given) - optional <= count <= len(given), (name, text, count)


def test_names_of_constants_and_fields(bindings):
    bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # noqa: B018  must exist
    kinds = bindings.CUgraphNodeType
    assert kinds.CU_GRAPH_NODE_TYPE_KERNEL != kinds.CU_GRAPH_NODE_TYPE_MEMCPY
    for name in (
        'COMPUTE_CAPABILITY_MAJOR',
        'COMPUTE_CAPABILITY_MINOR',
        'INTEGRATED',
        'MAX_SHARED_MEMORY_PER_BLOCK_OPTIN',
    ):
        assert hasattr(bindings.CUdevice_attribute, f'CU_DEVICE_ATTRIBUTE_{name}')
    for name in ('MAX_DYNAMIC_SHARED_SIZE_BYTES', 'SHARED_SIZE_BYTES'):
        assert hasattr(bindings.CUfunction_attribute, f'CU_FUNC_ATTRIBUTE_{name}')
    assert bindings.CU_MEMHOSTALLOC_PORTABLE | bindings.CU_MEMHOSTALLOC_DEVICEMAP == 3
    assert int(bindings.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    assert int(bindings.CUevent_flags.CU_EVENT_DISABLE_TIMING) == 2


def test_parameters_of_a_copy_read_and_change_as_numbers(bindings):
    parameters = bindings.CUDA_MEMCPY3D()
    assert not int(parameters.srcHost or 0)
    assert int(parameters.dstDevice) == int(parameters.srcDevice) == 0
    parameters.srcHost = 4096
    parameters.dstDevice = 8192
    parameters.WidthInBytes, parameters.Height, parameters.Depth = 100, 1, 1
    assert (int(parameters.srcHost), int(parameters.dstDevice)) == (4096, 8192)
    assert (parameters.WidthInBytes, parameters.Height, parameters.Depth) == (100, 1, 1)


def test_importing_touches_neither_bindings_nor_driver():
    code = (
        'import sys\n'
        "sys.modules['cuda'] = None\n"
        'import airside_perception.cuda.runtime as runtime\n'
        'import airside_perception.cuda.queue, airside_perception.cuda.kernels\n'
        'print(runtime.unavailable())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert 'no CUDA bindings for Python are installed' in done.stdout
