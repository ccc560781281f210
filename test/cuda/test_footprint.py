"""Overlap of pairs of boxes on the device: single precision within its bound, decisions exact."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from emulate import emulate, unavailable

from airside_perception.overlap import footprint_overlap

SLACK = 5e-7  # footprint.cuh; the largest error seen is 6.2e-8
SIDES = {
    'vehicles': lambda rng, n: rng.uniform(0.4, 12.0, (n, 2)),
    'aircraft and persons': lambda rng, n: rng.choice([0.5, 36.0, 80.0], (n, 2)),
    'needles': lambda rng, n: 10.0 ** np.stack([rng.uniform(0, 2, n), rng.uniform(-4, 0, n)], 1),
    'any': lambda rng, n: 10.0 ** rng.uniform(-4, 2, (n, 2)),
    'degenerate': lambda rng, n: rng.choice([0.0, 1e-4, 1e-30, 2.0, 80.0], (n, 2)),
}
YAWS = {
    'any': lambda rng, n: rng.uniform(-7, 7, n),
    'aligned': lambda rng, n: rng.choice([0.0, np.pi / 2, np.pi, -np.pi / 2], n),
    'nearly parallel': lambda rng, n: (
        0.7 + 10.0 ** rng.uniform(-9, -2, n) * rng.choice([1, -1], n)
    ),
}

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())


class Probe(NamedTuple):
    rough: np.ndarray
    exact: np.ndarray
    slack: np.ndarray
    maybe: np.ndarray
    more: np.ndarray


def probe(better: np.ndarray, worse: np.ndarray, iou: np.ndarray, contract: bool) -> Probe:
    """What the kernels know about the pairs of boxes float32 [n, 8]."""
    n = len(better)
    found = Probe(*(np.zeros(n, kind) for kind in ('f4', 'f8', 'f4', 'u1', 'u1')))
    kernels = emulate('footprint_probe.cu', folder=Path(__file__).parent, contract=contract)
    kernels.kernel('probe')(
        -(-n // 256), 256, better, worse, np.int32(n), found.rough, found.exact, found.slack,
        iou, found.maybe, found.more,
    )  # fmt: skip
    return found


def pairs(sides: str, yaws: str, n: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 [n, 8] of which many overlap, around (130, -70)."""
    rng = np.random.default_rng(len(sides) + 100 * len(yaws))
    boxes = np.zeros((2, n, 8))
    for one in boxes:
        one[:, 3:5] = SIDES[sides](rng, n)
        one[:, 6] = YAWS[yaws](rng, n)
    reach = np.abs(boxes[:, :, 3:5]).sum(axis=(0, 2))[:, None]
    shift = rng.choice([0.0, 0.25, 0.5], (n, 2)) * rng.choice([-1, 0, 1], (n, 2))
    shift += 0.1 * rng.normal(size=(n, 2)) * rng.choice([0.0, 1.0], (n, 1))
    boxes[0, :, :2] = [130.0, -70.0]
    boxes[1, :, :2] = boxes[0, :, :2] + shift * reach
    first, second = boxes.astype(np.float32)
    return first, second


@pytest.mark.parametrize('contract', [False, True])
@pytest.mark.parametrize('yaws', YAWS)
@pytest.mark.parametrize('sides', SIDES)
def test_pairs(sides: str, yaws: str, contract: bool) -> None:
    better, worse = pairs(sides, yaws)
    limits = np.float32([0.0, 1e-6, 0.1, 0.3, 0.5, 0.99])[np.arange(len(better)) % 6]
    found = probe(better, worse, limits, contract)
    a, b = better[:, :7].astype(np.float64), worse[:, :7].astype(np.float64)
    shared = footprint_overlap(a, b)
    areas = a[:, 3] * a[:, 4] + b[:, 3] * b[:, 4]
    extent = (a[:, 3:5].sum(axis=1) + b[:, 3:5].sum(axis=1)) / 2
    np.testing.assert_allclose(found.slack, SLACK * extent**2, rtol=1e-5, atol=1e-37)
    assert (abs(found.rough - shared) <= 0.3 * found.slack + 1e-37).all()
    np.testing.assert_allclose(found.exact, shared, rtol=1e-9, atol=1e-9 * extent.max() ** 2)
    more = shared > limits * (areas - shared)
    # needle points in large boxes: what float64 says is rounding as well, and of no consequence
    sure = abs(shared - limits * (areas - shared)) > 1e-13 * extent**2
    sure |= sides != 'degenerate'
    np.testing.assert_array_equal(found.more[sure], more[sure])
    assert found.maybe[more & sure].all()
    assert sides == 'degenerate' or 0.02 < more.mean() < 0.98


def test_boxes_far_apart_are_not_looked_at_closely() -> None:
    better, worse = pairs('vehicles', 'any')
    worse[:, 0] += 60.0
    limits = np.full(len(better), 0.1, np.float32)
    assert not probe(better, worse, limits, False).maybe.any()


def test_values_that_are_not_finite_overlap_nothing() -> None:
    box = np.float32([[1, 2, 0, 4, 2, 1, 0.3, 0.9]])
    for column in (0, 1, 3, 4, 6):
        for value in (np.nan, np.inf, -np.inf):
            other = box.copy()
            other[0, column] = value
            for pair in ((box, other), (other, box), (other, other)):
                found = probe(*pair, np.float32([0.1]), False)
                assert not (found.maybe & found.more).any()
