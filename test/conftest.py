"""Fixtures of every test, and what keeps a test session's ROS 2 traffic to itself."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import IO, Any

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
ROS_AREAS = ('nodes', 'launch')
DOMAINS = range(1, 102)  # what ROS 2 allows on Linux without meeting ephemeral ports

_claim: pytest.StashKey[IO[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Keep DDS on loopback, in a domain that no other test session on this machine uses."""
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    else:
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # One domain a process: what shares the tests out to workers runs none itself, and would hand
    # its own down to all of them.
    shares_out = bool(config.getoption('numprocesses', None))
    if 'ROS_DOMAIN_ID' not in os.environ and not shares_out:
        domain, config.stash[_claim] = _claim_domain()
        os.environ['ROS_DOMAIN_ID'] = str(domain)
    if os.environ.get('AIRSIDE_EMULATED_GPU') == '1':
        import emulated_driver

        emulated_driver.install()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the domain back."""
    if _claim in config.stash:
        config.stash[_claim].close()
        del config.stash[_claim]
        del os.environ['ROS_DOMAIN_ID']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of nodes and launch files as one that needs ROS 2."""
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in ROS_AREAS:
            item.add_marker('ros')


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real recordings: $AIRSIDE_SHARED_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get('AIRSIDE_SHARED_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real recordings in {folder} (AIRSIDE_SHARED_DATA names another folder)')
    return folder


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the source tree."""
    return ROOT


@pytest.fixture(scope='session')
def tiny_models() -> ModuleType:
    """The module test/tiny_models.py: networks of a few bytes with predictable answers."""
    return _load('tiny_models')


@pytest.fixture(scope='session')
def ros_harness() -> ModuleType:
    """The module test/harness.py: drives nodes through their services."""
    return _load('harness')


@pytest.fixture(scope='session')
def browser() -> ModuleType:
    """The module test/browser.py: opens reports in headless Chromium."""
    return _load('browser')


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f'{name}.py')
    if spec is None or spec.loader is None:
        pytest.fail(f'test/{name}.py cannot be loaded')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=['emulator', pytest.param('gpu', marks=pytest.mark.gpu)])
def queue(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Where kernels run: on the CPU by the emulator, and on the GPU where there is one."""
    if request.param == 'emulator':
        import emulate
        from emulator_queue import EmulatorQueue

        if emulate.unavailable():
            pytest.skip(emulate.unavailable())
        with EmulatorQueue() as emulated:
            yield emulated
        return
    from airside_perception.cuda import runtime
    from airside_perception.cuda.queue import DeviceQueue

    if runtime.unavailable():
        pytest.skip(runtime.unavailable())
    runtime.use_device()
    with DeviceQueue() as device:
        yield device


@pytest.fixture
def rclpy_context() -> Iterator[object]:
    """An initialised rclpy, shut down after the test."""
    import rclpy  # only where a test asks for it: the core's tests run without ROS 2

    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()


def _claim_domain() -> tuple[int, IO[str]]:
    """Take a ROS domain for as long as the returned file is open."""
    first = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[first:], *DOMAINS[:first]):
        lock = Path(tempfile.gettempdir(), f'ros-domain-{domain}.lock').open('a')  # noqa: SIM115  kept open
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    pytest.exit(f'all ROS domains of {DOMAINS} are in use by test sessions', returncode=3)
