from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception.sim.rows import (
    bands,
    four,
    lay_over,
    merged,
    picked,
    planes,
    put,
    turned,
    wide,
)


def test_rows_of_three_get_an_empty_fourth():
    rows = np.arange(6.0).reshape(2, 3)
    assert_array_equal(four(rows), [[0, 1, 2, 0], [3, 4, 5, 0]])
    assert four(rows).dtype == np.float32


def test_planes_become_rows_in_any_shape():
    planes = tuple(np.random.default_rng(0).random((3, 5, 7), np.float32))
    assert_array_equal(merged(planes), np.stack(planes, axis=2))
    assert_array_equal(wide(planes[0][0], 4), np.repeat(planes[0][0][:, None], 4, axis=1))
    assert wide(np.empty(0, np.float32)).shape == (0, 4)


def test_rows_are_written_where_asked_and_nowhere_else():
    rows, values = np.zeros((5, 4), np.float32), np.ones((2, 4), np.float32)
    values[1, 2] = np.nan  # bits are moved, whatever they mean
    put(rows, np.array([3, 0]), values)
    assert_array_equal(rows[[3, 0]], values)
    assert not rows[[1, 2, 4]].any()


def test_bands_cover_a_picture_once_and_break_only_between_lines():
    pixels = np.zeros(67 * 5, int)
    for band in bands(67, 5):
        assert band.start % 10 == 0  # an even line
        pixels[band] += 1
    assert (pixels == 1).all()
    assert [line for band in bands(67) for line in range(band.start, band.stop)] == [*range(67)]


def test_light_is_laid_over_rows_where_asked():
    rows = np.random.default_rng(0).random((6, 4), np.float32)
    before, share = rows.copy(), np.array([0.25, 1.0], np.float32)
    light = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    lay_over(rows, np.array([4, 1]), share, light)
    assert_allclose(rows[4], 0.75 * before[4] + light[0], rtol=1e-6)
    assert_array_equal(rows[1], light[1])
    assert_array_equal(rows[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def test_vectors_are_turned_as_a_matrix_product_does():
    rng = np.random.default_rng(0)
    vectors, matrix = rng.normal(size=(40, 3)), rng.normal(size=(3, 3))
    assert_allclose(turned(vectors, matrix), vectors @ matrix, rtol=1e-12)
    assert turned(vectors.astype(np.float32), matrix.astype(np.float32)).dtype == np.float32


def test_planes_and_picked_rows_are_those_of_numpy():
    rng = np.random.default_rng(0)
    grid, vectors = rng.random((5, 7, 4), np.float32), rng.random((9, 3), np.float32)
    assert_array_equal(planes(grid), np.stack([grid[..., 0], grid[..., 1], grid[..., 2]]))
    assert_array_equal(planes(grid, 4)[3], grid[..., 3])
    found = picked(turned(vectors, np.eye(3, dtype=np.float32)), np.array([8, 0, 0, 3]))
    assert_array_equal(found, vectors[[8, 0, 0, 3]])
    assert found.T.flags.c_contiguous
