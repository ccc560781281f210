"""Kernels that try what the emulator offers give the same on a GPU: the emulator is right."""

from __future__ import annotations

import functools

import numpy as np
import pytest

FILE = 'selftest.cu'


@pytest.fixture
def launch(selftest):
    return functools.partial(selftest.launch, FILE, ())


@pytest.mark.parametrize('n', [1, 127, 128, 1000])
def test_sums_over_warps_and_shared_memory(selftest, launch, n):
    values = np.arange(n, dtype=np.float32)
    sums = selftest.alloc(-(-n // 128), np.float32)
    launch('sum_blocks', -(-n // 128), 128, selftest.upload(values), np.int32(n), sums)
    expected = [values[i : i + 128].sum() for i in range(0, n, 128)]
    np.testing.assert_array_equal(selftest.download(sums), expected)


def test_dynamic_shared_memory(selftest, launch):
    values = np.arange(512, dtype=np.int32)
    device = selftest.upload(values)
    launch('reverse_blocks', 4, 128, device, shared=512)
    launch('reverse_blocks', 4, 128, device, shared=512)
    launch('reverse_blocks', 4, 128, device, shared=100_000)  # more than is there unasked
    expected = values.reshape(4, 128)[:, ::-1].ravel()
    np.testing.assert_array_equal(selftest.download(device), expected)


def test_ballot_and_atomics(selftest, launch):
    values = np.random.default_rng(1).integers(0, 100, 1001).astype(np.uint32)
    chosen, count = selftest.alloc(1001, np.uint32), selftest.upload(np.zeros(1, np.uint32))
    launch('append_odd', 8, 128, selftest.upload(values), np.uint32(1001), chosen, count)
    found = selftest.download(chosen)[: selftest.download(count)[0]]
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(values & 1))


def test_running_sums(selftest, launch):
    values = np.random.default_rng(2).integers(-9, 9, 64).astype(np.int32)
    sums = selftest.alloc(64, np.int32)
    launch('running_sums', 2, 32, selftest.upload(values), sums)
    expected = values.reshape(2, 32).cumsum(axis=1).ravel()
    np.testing.assert_array_equal(selftest.download(sums), expected)


def test_atomics_in_shared_and_global_memory(selftest, launch):
    values = np.random.default_rng(3).integers(0, 1000, 5000).astype(np.uint32)
    bins = selftest.upload(np.zeros(16, np.uint64))
    weight = selftest.upload(np.zeros(1, np.float32))
    launch('histogram', 6, 64, selftest.upload(values), np.uint32(5000), bins, weight)
    expected = np.bincount(values & 15, minlength=16)
    np.testing.assert_array_equal(selftest.download(bins), expected)
    assert selftest.download(weight)[0] == 5000


def test_two_dimensions(selftest, launch):
    out = selftest.alloc((6, 10), np.uint32)
    launch('coordinates', (5, 2), (2, 3), out)
    expected = np.arange(6)[:, None] << 16 | np.arange(10)
    np.testing.assert_array_equal(selftest.download(out), expected)


def test_the_last_block(selftest, launch):
    ticket, total = (selftest.upload(np.zeros(1, np.uint32)) for _ in range(2))
    launch('last_block', 50, 32, selftest.alloc(50, np.uint32), ticket, total)
    assert selftest.download(total)[0] == sum(range(50))


def test_halves_and_keys(selftest, launch):
    bits = np.random.default_rng(4).integers(0, 2**32, 100_000, np.uint64).astype(np.uint32)
    exact = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    values = np.concatenate([bits.view(np.float32), exact, (exact[:-1] + exact[1:]) / 2])
    values = np.append(values[~np.isnan(values)], np.float32([np.inf, -np.inf, -0.0]))
    n = values.size
    half, back = selftest.alloc(n, np.uint16), selftest.alloc(n, np.float32)
    keys = selftest.alloc(n, np.uint32)
    device = selftest.upload(values)
    launch('halves', -(-n // 256), 256, device, np.int32(n), half, back, keys)
    rounded = selftest.download(half).view(np.float16)
    with np.errstate(over='ignore'):
        np.testing.assert_array_equal(rounded, values.astype(np.float16))
    np.testing.assert_array_equal(selftest.download(back), rounded.astype(np.float32))
    order = np.argsort(values)
    rises = np.diff(values[order]) > 0
    sorted_keys = selftest.download(keys)[order].astype(np.int64)
    np.testing.assert_array_equal(np.diff(sorted_keys) > 0, rises)
    assert (sorted_keys > 0).all()


def test_rounded_products(selftest, launch):
    a, b, c = np.random.default_rng(5).normal(size=(3, 4096)).astype(np.float32)
    plain, rounded = selftest.alloc(4096, np.float32), selftest.alloc(4096, np.float32)
    launch('products', 16, 256, *(selftest.upload(values) for values in (a, b, c)), plain, rounded)
    np.testing.assert_array_equal(selftest.download(rounded), a * b + c)
    np.testing.assert_allclose(selftest.download(plain), a * b + c, rtol=1e-6, atol=2e-6)


def test_conversions_beyond_the_range(selftest, launch):
    values = np.array([-1.5, 2.5, 3e9, -3e9, np.nan, np.inf], np.float32)
    out, wide = selftest.alloc(6, np.int32), selftest.alloc(6, np.int64)
    launch('converted', 1, 6, selftest.upload(values), out, wide)
    expected = [-2, 2, 2**31 - 1, -(2**31), 0, 2**31 - 1]
    assert selftest.download(out).tolist() == expected
    most = 2**63 - 1
    assert selftest.download(wide).tolist() == [
        -3 << 31,
        5 << 31,
        most,
        -most - 1,
        -most - 1,
        most,
    ]


def test_a_recording_with_a_branch(selftest, launch):
    device, pinned = selftest.alloc(128, np.int32), selftest.pinned(128, np.int32)
    other, back = selftest.alloc(128, np.int32), selftest.pinned(128, np.int32)
    pinned.array[:] = np.arange(128)
    selftest.clear(device)

    def record() -> None:
        with selftest.branch():
            selftest.clear(other)
        selftest.copy_in(device, pinned)
        launch('reverse_blocks', 1, 128, device, shared=512)
        selftest.merge()
        selftest.copy(other, device, 4 * 100)
        selftest.copy_out(back, other)

    recording = selftest.capture(record)
    assert (recording.nodes, recording.kernels) == (5, 1)
    expected = np.where(np.arange(128) < 100, np.arange(128)[::-1], 0)
    np.testing.assert_array_equal(back.array, expected)  # of the run before the capture
    pinned.array[:] = 5
    recording.set_copy_bytes(4 * 64)
    for _ in range(3):
        recording.launch()
    selftest.synchronize()
    # the first half is 5; the second is what two reversals and the copy left, ends with 5 again
    device_now = selftest.download(device)
    assert (back.array[100:] == 0).all()
    np.testing.assert_array_equal(back.array[:100], device_now[:100])
    recording.set_copy_bytes(4 * 128)
    recording.launch()
    np.testing.assert_array_equal(selftest.download(device), 5)
    recording.close()
