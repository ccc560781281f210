"""The emulator itself: it computes what CUDA defines and refuses what a GPU forbids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulate import Emulation, EmulationError, emulate, unavailable
from emulator_queue import EmulatorQueue

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())


@pytest.fixture(scope='module')
def kernels() -> Emulation:
    return emulate('selftest.cu', folder=HERE)


@pytest.fixture
def queue() -> EmulatorQueue:
    return EmulatorQueue(folder=HERE)


@pytest.mark.parametrize('n', [1, 127, 128, 1000])
def test_sums_over_warps_and_shared_memory(kernels, n):
    values = np.arange(n, dtype=np.float32)
    sums = np.full(-(-n // 128), np.nan, np.float32)
    kernels.kernel('sum_blocks')(len(sums), 128, values, np.int32(n), sums, seed=n)
    expected = [values[i : i + 128].sum() for i in range(0, n, 128)]
    np.testing.assert_array_equal(sums, expected)


def test_dynamic_shared_memory(kernels):
    values = np.arange(512, dtype=np.int32)
    kernels.kernel('reverse_blocks')(4, 128, values, shared=512)
    np.testing.assert_array_equal(values, np.arange(512).reshape(4, 128)[:, ::-1].ravel())


def test_too_little_dynamic_shared_memory_is_found(kernels):
    with pytest.raises(EmulationError, match='beyond the dynamic shared memory'):
        kernels.kernel('reverse_blocks')(1, 128, np.zeros(128, np.int32), shared=500)


def test_ballot_and_atomics_in_an_order_that_the_seed_draws(kernels):
    values = np.random.default_rng(1).integers(0, 100, 1001).astype(np.uint32)
    lists = []
    for seed in range(3):
        chosen, count = np.zeros(1001, np.uint32), np.zeros(1, np.uint32)
        kernels.kernel('append_odd')(8, 128, values, np.uint32(1001), chosen, count, seed=seed)
        lists.append(chosen[: count[0]])
        np.testing.assert_array_equal(np.sort(lists[-1]), np.flatnonzero(values & 1))
    assert any((lists[0] != other).any() for other in lists[1:])


def test_running_sums(kernels):
    values = np.random.default_rng(2).integers(-9, 9, 64).astype(np.int32)
    sums = np.zeros_like(values)
    kernels.kernel('running_sums')(2, 32, values, sums)
    np.testing.assert_array_equal(sums, values.reshape(2, 32).cumsum(axis=1).ravel())


def test_atomics_in_shared_and_global_memory(kernels):
    values = np.random.default_rng(3).integers(0, 1000, 5000).astype(np.uint32)
    bins, weight = np.zeros(16, np.uint64), np.zeros(1, np.float32)
    kernels.kernel('histogram')(6, 64, values, np.uint32(5000), bins, weight)
    np.testing.assert_array_equal(bins, np.bincount(values & 15, minlength=16))
    assert weight[0] == 5000


def test_two_dimensions(kernels):
    out = np.zeros((6, 10), np.uint32)
    kernels.kernel('coordinates')((5, 2), (2, 3), out)
    np.testing.assert_array_equal(out, np.arange(6)[:, None] << 16 | np.arange(10))


def test_the_last_block(kernels):
    ticket, total = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    kernels.kernel('last_block')(50, 32, np.zeros(50, np.uint32), ticket, total, seed=4)
    assert total[0] == sum(range(50))


def test_halves_and_keys(kernels):
    bits = np.random.default_rng(4).integers(0, 2**32, 100_000, np.uint64).astype(np.uint32)
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    near = np.nextafter(exact, np.float32(0))
    middle = (exact[:-1] + exact[1:]) / 2
    values = np.concatenate([bits.view(np.float32), exact, near, middle])
    values = np.append(values[~np.isnan(values)], np.float32([np.inf, -np.inf, -0.0]))
    n = values.size
    half, back = np.zeros(n, np.uint16), np.zeros(n, np.float32)
    keys = np.zeros(n, np.uint32)
    blocks = -(-n // 256)
    kernels.kernel('halves')(blocks, 256, values, np.int32(n), half, back, keys)
    with np.errstate(over='ignore'):
        np.testing.assert_array_equal(half.view(np.float16), values.astype(np.float16))
    np.testing.assert_array_equal(back, half.view(np.float16).astype(np.float32))
    order = np.argsort(values)
    rises = np.diff(values[order]) > 0
    np.testing.assert_array_equal(np.diff(keys[order].astype(np.int64)) > 0, rises)
    assert (keys > 0).all()


def test_contraction_changes_only_what_may_be_contracted():
    a, b, c = np.random.default_rng(5).normal(size=(3, 4096)).astype(np.float32)
    plain, rounded = np.zeros_like(a), np.zeros_like(a)
    for contract in (False, True):
        kernel = emulate('selftest.cu', folder=HERE, contract=contract).kernel('products')
        kernel(16, 256, a, b, c, plain, rounded)
        np.testing.assert_array_equal(rounded, a * b + c)
        if not contract:
            np.testing.assert_array_equal(plain, rounded)


def test_conversions_beyond_the_range(kernels):
    values = np.array([-1.5, 2.5, 3e9, -3e9, np.nan, np.inf], np.float32)
    out, wide = np.zeros(6, np.int32), np.zeros(6, np.int64)
    kernels.kernel('converted')(1, 6, values, out, wide)
    assert out.tolist() == [-2, 2, 2**31 - 1, -(2**31), 0, 2**31 - 1]
    assert wide[:2].tolist() == [-3 << 31, 5 << 31]


@pytest.mark.parametrize(
    ('name', 'threads', 'message'),
    [
        ('deadlock', 64, '48 wait at __syncthreads and 16 in operations of their warp'),
        ('different_operations', 32, 'different warp operations'),
        ('not_in_mask', 32, 'not in the mask'),
    ],
)
def test_diverging_threads_are_found(kernels, name, threads, message):
    with pytest.raises(EmulationError, match=message):
        kernels.kernel(name)(1, threads, np.zeros(64, np.int32))


def test_a_missing_barrier_shows(kernels):
    values, out = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    kernels.kernel('without_barrier')(1, 128, values, out)
    assert (out != values[::-1]).any()


def test_misaligned_access_and_undefined_casts_are_found(kernels):
    with pytest.raises(EmulationError, match=r'selftest\.cu:\d+: misaligned'):
        kernels.kernel('misaligned')(1, 1, np.zeros(64, np.uint8), np.zeros(1, np.float32))
    with pytest.raises(EmulationError, match='beyond the integer'):
        kernels.kernel('cast')(1, 1, np.array([np.nan], np.float32), np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((np.zeros(4, np.float32), np.int32(1)), 'takes 3 arguments, 2 given'),
        ((np.zeros(4, np.float32), 1, np.zeros(1, np.float32)), 'no array and no NumPy scalar'),
        ((np.zeros(4, np.float32), np.int64(1), np.zeros(1, np.float32)), 'is i8, .* takes i4'),
        ((np.zeros(4, np.float64), np.int32(1), np.zeros(1, np.float32)), 'float64'),
        ((np.zeros((4, 2), np.float32).T, np.int32(1), np.zeros(1, np.float32)), 'contiguous'),
    ],
)
def test_wrong_arguments_are_named(kernels, arguments, message):
    with pytest.raises(TypeError, match=message):
        kernels.kernel('sum_blocks')(1, 32, *arguments)


def test_unknown_kernels_and_launches_are_named(kernels):
    with pytest.raises(EmulationError, match="no kernel 'nothing'"):
        kernels.kernel('nothing')
    with pytest.raises(EmulationError, match='cannot be launched'):
        kernels.kernel('coordinates')(1, 1025, np.zeros(2048, np.uint32))


def test_a_queue_copies_and_clears(queue):
    device = queue.upload(np.arange(512, dtype=np.int32))
    queue.launch('selftest.cu', (), 'reverse_blocks', 4, 128, device, shared=512)
    assert queue.download(device)[0] == 127
    pinned = queue.pinned(512, np.int32)
    queue.copy_out(pinned, device)
    assert pinned.array[127] == 0
    queue.clear(device)
    assert not queue.download(device).any()
    assert queue.launches == ['selftest.cu:reverse_blocks']


def test_memory_of_a_queue_starts_as_nan_and_is_guarded(queue):
    out = queue.alloc(8, np.float32)
    assert np.isnan(queue.download(out)).all()
    assert out.address % 256 == 0
    queue.launch('selftest.cu', (), 'beyond', 1, 1, out, np.int32(7))
    with pytest.raises(EmulationError, match='outside an array of 32 bytes'):
        queue.launch('selftest.cu', (), 'beyond', 1, 1, out, np.int32(8))


def test_a_recording_runs_as_often_as_it_is_launched(queue):
    device, pinned = queue.alloc(128, np.int32), queue.pinned(128, np.int32)
    pinned.array[:] = np.arange(128)
    queue.clear(device)

    def record() -> None:
        queue.copy_in(device, pinned)
        queue.launch('selftest.cu', (), 'reverse_blocks', 1, 128, device, shared=512)

    recording = queue.capture(record)
    assert (recording.nodes, recording.kernels, recording.copies) == (2, 1, 1)
    assert queue.sources == {('selftest.cu', ())}
    assert queue.download(device)[0] == 127  # the first run, before the capture
    pinned.array[:] = 5
    recording.set_copy_bytes(4 * 64)
    recording.launch()
    np.testing.assert_array_equal(queue.download(device)[64:], 5)
    np.testing.assert_array_equal(queue.download(device)[:64], np.arange(64))
    with pytest.raises(EmulationError, match='where 512 were recorded'):
        recording.set_copy_bytes(513)


@pytest.mark.parametrize('seed', [0, 1])
def test_a_branch_runs_at_once_or_at_its_merge(seed):
    queue = EmulatorQueue(seed, folder=HERE)
    order = []
    with queue.branch():
        queue.call(lambda _: order.append('branch'))
    queue.call(lambda _: order.append('main'))
    with pytest.raises(EmulationError, match='never merged'):
        queue.synchronize()
    queue.merge()
    assert order == (['branch', 'main'] if seed == 0 else ['main', 'branch'])
