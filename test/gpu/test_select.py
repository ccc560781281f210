"""The best candidates: those of a sort, whatever the order in which they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airside_perception.cuda.frame import FRAME
from airside_perception.cuda.suppress import MOST, MOST_PLACES, Suppression, key_of
from airside_perception.errors import DeviceError


def select(queue: Any, keys: np.ndarray, most: int) -> np.ndarray:
    """What the kernels put out."""
    frame = np.zeros(1, FRAME)
    frame['most'] = most
    selection = Suppression(queue, max(len(keys), 1))
    if len(keys):
        selection.keys = queue.upload(keys)
    selection.count = queue.upload(np.array([len(keys)], np.uint32))
    selection.select(queue.upload(frame))
    n = int(queue.download(selection.chosen)[0])
    return queue.download(selection.best)[:n]


def check(queue: Any, keys: np.ndarray, most: int) -> None:
    expected = np.sort(keys)[::-1][: min(most, MOST)]
    np.testing.assert_array_equal(select(queue, keys, most), expected)


def random_keys(n: int, seed: int = 0, digits: int = 1) -> np.ndarray:
    """Scores are rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=n) * 3, digits).astype(np.float32)
    return key_of(scores, rng.permutation(4 * n + 1)[:n], rng.integers(0, 128, n))


@pytest.mark.parametrize('n', [0, 1, 2, 31, 32, 33, 300, 1800, 2048, 2049, 4095, 4096])
@pytest.mark.parametrize('most', [1, 32, 1000, 10000])
def test_few(queue: Any, n: int, most: int) -> None:
    check(queue, random_keys(n, n), most)


@pytest.mark.parametrize('n', [4097, 5000, 12345, 70001])
@pytest.mark.parametrize('most', [1, 1000, 4096, 4097, 10000, 20000])
def test_many(queue: Any, n: int, most: int) -> None:
    check(queue, random_keys(n, n), most)


@pytest.mark.parametrize('n', [50, 4096, 4097, 30000])
@pytest.mark.parametrize('most', [1, 100, 9999])
def test_all_scores_are_equal(queue: Any, n: int, most: int) -> None:
    places = np.random.default_rng(n).permutation(2 * n)[:n]
    check(queue, key_of(np.full(n, -1.5, np.float32), places, places % 128), most)


@pytest.mark.parametrize('most', [3, 2000])
def test_scores_that_differ_in_the_last_bit(queue: Any, most: int) -> None:
    rng = np.random.default_rng(5)
    scores = (np.float32(2.0).view(np.uint32) + rng.integers(0, 40, 9000)).astype(np.uint32)
    check(queue, key_of(scores.view(np.float32), rng.permutation(9000), np.zeros(9000, int)), most)


def test_any_scores(queue: Any) -> None:
    rng = np.random.default_rng(6)
    scores = rng.integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    scores = scores[~np.isnan(scores)]
    places = rng.choice(MOST_PLACES, len(scores), replace=False)
    check(queue, key_of(scores, places, places % 128), 3000)


def test_every_place_of_a_network(queue: Any) -> None:
    """A threshold of 0."""
    check(queue, random_keys(321_408, digits=2), 1000)


def test_the_order_does_not_matter(queue: Any) -> None:
    keys = random_keys(9000, 7)
    first = select(queue, keys, 1000)
    for seed in range(3):
        again = select(queue, np.random.default_rng(seed).permutation(keys), 1000)
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize('most', [0, -1])
def test_nothing_is_asked_for(queue: Any, most: int) -> None:
    assert len(select(queue, random_keys(5000), most)) == 0


def test_too_many_places(queue: Any) -> None:
    with pytest.raises(DeviceError, match='33554433 places'):
        Suppression(queue, MOST_PLACES + 1)
