"""TensorRT engines on the GPU, with whatever TensorRT is installed.

The engines come from `python test/gpu/plans.py FOLDER`; AIRSIDE_TEST_PLANS names the folder.
Version-compatible ones carry host code, which is therefore allowed here.
"""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from airside_perception.cuda import runtime
from airside_perception.engine import open_engine
from airside_perception.engine.capabilities import family_of, load_tensorrt
from airside_perception.engine.manifest import Manifest, manifest_path
from airside_perception.engine.tensorrt import TensorRTEngine
from airside_perception.errors import EngineError

NETWORK = {'tiny': 'tiny', 'plain': 'tiny', 'fp32': 'conv', 'fp16': 'conv', 'hwc8': 'conv',
           'batch': 'batch'}  # fmt: skip
MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., TensorRTEngine]


@pytest.fixture(scope='session')
def plans() -> Path:
    """Folder of engines."""
    if runtime.unavailable():
        pytest.skip(runtime.unavailable())
    folder = os.environ.get('AIRSIDE_TEST_PLANS', '')
    if not folder:
        pytest.skip('AIRSIDE_TEST_PLANS names no folder of engines (test/gpu/plans.py builds one)')
    try:
        _flavor(Path(folder))
    except EngineError as error:
        pytest.skip(str(error))
    return Path(folder)


@pytest.fixture
def open_plan(plans: Path) -> Open:
    """Function: opens an engine of the folder, or skips where this TensorRT cannot run it."""

    def opened(name: str) -> TensorRTEngine:
        _serves(plans / f'{name}.engine')
        return open_engine(plans / f'{name}.engine', allow_host_code=True)

    return opened


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """What a test allocates through us must be free after it."""
    before = runtime.live_bytes()
    yield
    gc.collect()
    assert runtime.live_bytes() == before


@pytest.fixture
def copied(plans: Path, tmp_path: Path) -> Callable[..., Path]:
    """Function: an engine with other bytes or another manifest, in a folder of its own."""

    def copy(name: str, data: bytes | None = None, **changes: object) -> Path:
        _serves(plans / f'{name}.engine')
        path = tmp_path / f'{name}.engine'
        path.write_bytes((plans / path.name).read_bytes() if data is None else data)
        manifest = Manifest.read(plans / path.name)
        replace(manifest, **changes).write(path)
        return path

    return copy


def _flavor(plans: Path) -> str:
    """Of the TensorRT that runs these engines here."""
    return load_tensorrt(family_of(Manifest.read(plans / 'tiny.engine').flavor)).flavor


def _serves(path: Path) -> None:
    flavor, compatible = _flavor(path.parent), Manifest.read(path).version_compatible
    if flavor in ('lean', 'dispatch') and not compatible:
        pytest.skip(f'{path.name} is not version compatible, {flavor} runs no others')


def _expected(plans: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(plans / f'{NETWORK[name]}.npz') as file:
        return dict(file)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / np.abs(expected).max())


def _feed(engine: TensorRTEngine, x: np.ndarray) -> dict[str, np.ndarray]:
    return {'x': x.astype(engine.inputs[0].dtype)}


@pytest.mark.usefixtures('nothing_left')
@pytest.mark.parametrize(
    ('name', 'tolerance'),
    [('tiny', 1e-6), ('plain', 1e-6), ('fp32', 1e-3), ('fp16', 1e-2), ('hwc8', 1e-2)],
)
def test_answers_as_onnx_runtime(
    open_plan: Open, plans: Path, name: str, tolerance: float
) -> None:
    expected = _expected(plans, name)
    with open_plan(name) as engine:
        runs = [engine.infer(_feed(engine, expected['x'])) for _ in range(5)]
        assert sorted(runs[0]) == sorted(set(expected) - {'x'})
        for output, value in runs[0].items():
            assert _error(value, expected[output]) <= tolerance, output
            for again in runs[1:]:
                assert_array_equal(again[output], value)
        assert engine.capturable, engine.info.notes
        assert engine.info.device.startswith(runtime.use_device().name)


def test_layouts(open_plan: Open) -> None:
    with open_plan('hwc8') as engine:
        x, y, z = (engine.tensor(name) for name in 'xyz')
        assert (x.layout, x.channels, x.dtype) == ('hwc8', 8, np.float16)
        assert (z.layout, z.channels, z.dtype) == ('hwc8', 8, np.float16)
        assert (y.layout, y.channels) == ('linear', 8)
        assert x.nbytes == 32 * 48 * 8 * 2


@pytest.mark.usefixtures('nothing_left')
@pytest.mark.parametrize('name', ['fp32', 'fp16', 'hwc8'])
def test_with_and_without_a_graph_the_same_bytes(open_plan: Open, plans: Path, name: str) -> None:
    with open_plan(name) as engine, runtime.Stream() as stream:
        feed = _feed(engine, _expected(plans, name)['x'])
        engine.infer(feed)  # leaves the input on the device; by a graph
        y = engine.tensor('y')
        found = np.empty(y.shape, y.dtype)

        def run(step: Callable[[], None]) -> np.ndarray:
            found.fill(0)
            step()
            runtime.copy_to_host(found.ctypes.data, y.address, y.nbytes, stream)
            stream.synchronize()
            return found.copy()

        alone = run(lambda: engine.enqueue(stream))
        with runtime.Graph.capture(stream, lambda: engine.enqueue(stream)) as graph:
            recorded = run(lambda: graph.launch(stream))
            assert graph.kernels > 0
        assert_array_equal(alone, recorded)
        assert_array_equal(alone, engine.infer(feed)['y'])


@pytest.mark.usefixtures('nothing_left')
def test_two_profiles(open_plan: Open, plans: Path) -> None:
    expected = _expected(plans, 'batch')
    with open_plan('batch') as engine:
        assert engine.inputs[0].shape == (-1, 3, 32, 48)
        for batch in (1, 1, 1, 2, 2, 8, 8, 8, 3, 2, 5, 5, 1, 1):
            found = engine.infer({'x': expected['x'][:batch]})
            for output, value in found.items():
                assert _error(value, expected[output][:batch]) <= 1e-3, (batch, output)
        assert engine.capturable, engine.info.notes
        with pytest.raises(EngineError, match=r"'x' is \[9, 3, 32, 48\], its profiles allow"):
            engine.infer({'x': np.zeros((9, 3, 32, 48), np.float32)})
        assert engine.infer({'x': expected['x'][:4]})['y'].shape == (4, 8, 32, 48)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda x: {}, "input 'x' is missing"),
        (lambda x: {'x': x, 'w': x}, "no input 'w'"),
        (lambda x: {'x': x.astype(np.float64)}, "'x' is float64"),
        (lambda x: {'x': x[:, :, 1:]}, r"'x' is float32 \[1, 3, 31, 48\]"),
    ],
)
def test_wrong_feeds(open_plan: Open, plans: Path, change: Callable, said: str) -> None:
    x = _expected(plans, 'fp32')['x']
    with open_plan('fp32') as engine:
        with pytest.raises(EngineError, match=said):
            engine.infer(change(x))
        engine.infer({'x': x})
    with pytest.raises(EngineError, match='the engine is closed'):
        engine.infer({'x': x})


@pytest.mark.usefixtures('nothing_left')
def test_flipped_bytes(plans: Path, copied: Callable[..., Path]) -> None:
    """Wherever a byte is flipped, the manifest knows, and TensorRT never sees it."""
    data = (plans / 'fp32.engine').read_bytes()
    for place in (0, 1, len(data) - 1, *np.random.default_rng(0).integers(0, len(data), 20)):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        with pytest.raises(EngineError, match=r'its bytes are not those .* Build it again'):
            open_engine(copied('fp32', bytes(flipped)), allow_host_code=True)


OPEN_UNCHECKED = """
import sys
from pathlib import Path
from airside_perception.engine import open_engine
from airside_perception.errors import EngineError
try:
    open_engine(Path(sys.argv[1]), allow_host_code=True, check_manifest=False)
    print('opened')
except EngineError as error:
    print('refused:', error)
"""


@pytest.mark.parametrize('name', ['plain', 'fp32'])
@pytest.mark.parametrize('share', [0.0, 0.001, 0.5, 0.999])
def test_truncated(plans: Path, copied: Callable[..., Path], name: str, share: float) -> None:
    data = (plans / f'{name}.engine').read_bytes()
    data = data[: int(share * len(data))]
    path = copied(name, data)
    with pytest.raises(EngineError, match='its bytes are not those that were built'):
        open_engine(path)
    # and where the manifest was made to fit, TensorRT refuses: in a process that may end
    path = copied(name, data, engine_sha256=hashlib.sha256(data).hexdigest())
    done = subprocess.run(
        [sys.executable, '-c', OPEN_UNCHECKED, path],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert 'opened' not in done.stdout
    assert done.returncode < 0 or 'cannot load it' in done.stdout, done.stderr[-500:]


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'sm': 'sm_87', 'gpu': 'Orin'}, r'built for Orin \(sm_87\), this is .* \(sm_\d+\)'),
        ({'dla_core': 0}, 'built for DLA core 0, asked for the GPU'),
        (
            {'tensorrt': '99.0.0'},
            r'built by TensorRT \w+ 99\.0\.0, this is',
        ),
    ],
)
def test_engines_of_another_machine(copied: Callable[..., Path], change: dict, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        open_engine(copied('fp32', **change), allow_host_code=True)
    assert 'Build it again: ' in str(caught.value)


def test_without_a_manifest(copied: Callable[..., Path]) -> None:
    path = copied('fp32')
    manifest_path(path).unlink()
    with pytest.raises(EngineError, match='no manifest'):
        open_engine(path)


def test_host_code_must_be_allowed(plans: Path) -> None:
    if not Manifest.read(plans / 'fp32.engine').host_code:
        pytest.skip('these engines carry none')
    with pytest.raises(EngineError, match='allow_host_code allows it'):
        open_engine(plans / 'fp32.engine')


def test_a_dla_that_is_not_there(copied: Callable[..., Path]) -> None:
    path = copied('fp32', dla_core=0)
    with pytest.raises(EngineError, match=r'DLA core 0 is asked for, this machine has 0'):
        open_engine(path, dla_core=0, allow_host_code=True)


@pytest.mark.usefixtures('nothing_left')
def test_out_of_device_memory(open_plan: Open, plans: Path) -> None:
    """With the GPU's memory taken, opening fails with a reason; afterwards it works again."""
    expected = _expected(plans, 'batch')
    with open_plan('batch') as engine:
        engine.infer({'x': expected['x']})
    with ExitStack() as taken:
        size = runtime.use_device().free_memory()
        while size >= MIB:
            try:
                taken.enter_context(runtime.DeviceArray((size,), np.uint8))
            except EngineError:
                size //= 2
        full = runtime.live_bytes()
        with pytest.raises(EngineError) as caught:
            open_plan('batch')
        assert str(caught.value)
        del caught
        gc.collect()
        assert runtime.live_bytes() == full
    with open_plan('batch') as engine:
        found = engine.infer({'x': expected['x']})
        assert _error(found['y'], expected['y']) <= 1e-3


def _resident() -> int:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.usefixtures('nothing_left')
def test_a_thousand_openings(open_plan: Open, plans: Path, record_property: Callable) -> None:
    """Host and device memory stay flat over 1,000 openings (100 s at most, 100 cycles at least).

    Tolerance, after 50 cycles for pools to fill: 4 MiB of device memory in all; of the host's
    16 KiB a cycle, and 16 MiB in all.
    """
    name = 'plain' if _flavor(plans) in ('full', 'rtx') else 'tiny'
    x = _expected(plans, name)['x']
    device = runtime.use_device()

    def cycle() -> None:
        with open_plan(name) as engine:
            engine.infer({'x': x})

    for _ in range(50):
        cycle()
    gc.collect()
    host, free = _resident(), device.free_memory()
    ends, cycles = time.monotonic() + 100, 0
    while cycles < 1000 and (time.monotonic() < ends or cycles < 100):
        cycle()
        cycles += 1
    gc.collect()
    grown, taken = _resident() - host, free - device.free_memory()
    record_property('cycles', cycles)
    record_property('host_bytes', grown)
    record_property('device_bytes', taken)
    assert taken <= 4 * MIB, f'{taken:,} bytes of the GPU over {cycles} openings'
    assert grown <= 16 * MIB, f'{grown:,} bytes of the host over {cycles} openings'
    assert grown <= 16384 * cycles, f'{grown:,} bytes of the host over {cycles} openings'


@pytest.mark.usefixtures('nothing_left')
def test_two_threads_share_an_engine(open_plan: Open, plans: Path) -> None:
    expected = _expected(plans, 'batch')
    wrong: list[str] = []
    with open_plan('batch') as engine:

        def work(first: int, batch: int) -> None:
            try:
                for _ in range(50):
                    x = expected['x'][first : first + batch]
                    found = engine.infer({'x': x})['y']
                    if _error(found, expected['y'][first : first + batch]) > 1e-3:
                        wrong.append(f'answers of another thread: {first}')
            except EngineError as error:
                wrong.append(str(error))

        threads = [threading.Thread(target=work, args=args) for args in ((0, 2), (4, 2), (0, 4))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.usefixtures('nothing_left')
def test_two_engines_side_by_side(open_plan: Open, plans: Path) -> None:
    expected = _expected(plans, 'fp32')
    with open_plan('fp32') as one, open_plan('fp16') as other:
        for _ in range(3):
            exact, half = (e.infer(_feed(e, expected['x']))['y'] for e in (one, other))
            assert _error(exact, expected['y']) <= 1e-3
            assert _error(half, expected['y']) <= 1e-2
