"""What needs a GPU: skipped, with the reason, where there is none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airside_perception.cuda import kernels, runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
EMULATOR = HERE.parent / 'emulator'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here, but those that run on the emulator too."""
    for item in items:
        if item.path.is_relative_to(HERE) and not _emulated(item):
            item.add_marker('gpu')


def _emulated(item: pytest.Item) -> bool:
    call = getattr(item, 'callspec', None)
    return call is not None and 'emulator' in call.params.values()


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    """Skip where there is no GPU; else use it in the test's thread."""
    if request.node.get_closest_marker('gpu') is not None:
        if runtime.unavailable():
            pytest.skip(runtime.unavailable())
        runtime.use_device()


@pytest.fixture
def resources() -> Iterator[ExitStack]:
    """Engines and detectors, closed in the right order; nothing is left then."""
    before = runtime.live_bytes()
    with ExitStack() as stack:
        yield stack
    assert runtime.live_bytes() == before


@pytest.fixture
def device() -> runtime.Device:
    """The GPU."""
    return runtime.use_device()


@pytest.fixture
def selftest_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The emulator's own test kernels in place of the package's."""
    folder = tmp_path / 'sources'
    folder.mkdir()
    for path in (EMULATOR / 'selftest.cu', *kernels.SOURCES.glob('*.cuh')):
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernels, 'SOURCES', folder)
    return folder


@pytest.fixture(params=['emulator', 'gpu'])
def selftest(request: pytest.FixtureRequest, selftest_sources: Path) -> Iterator[Any]:
    """A queue for the kernels of selftest.cu, on the emulator and on the GPU."""
    if request.param == 'gpu':
        from airside_perception.cuda.queue import DeviceQueue

        with DeviceQueue() as queue:
            yield queue
        return
    import emulate
    from emulator_queue import EmulatorQueue

    if emulate.unavailable():
        pytest.skip(emulate.unavailable())
    with EmulatorQueue(folder=selftest_sources) as queue:
        yield queue
