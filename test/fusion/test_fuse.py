from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.special import logit as scipy_logit

from airside_perception.config import FusionConfig
from airside_perception.fusion.fuse import (
    doubted_score,
    intersect,
    inverse_2x2,
    logit,
    penalised_score,
    place_probability,
    replace_place,
    sigmoid,
)


def spd(rng: np.random.Generator, n: int, size: int, spread: float = 1.5) -> np.ndarray:
    """Random covariances [N, size, size], some of them very elongated."""
    turn = np.array([np.linalg.qr(each)[0] for each in rng.normal(size=(n, size, size))])
    scale = np.exp(rng.normal(0, spread, (n, size)))
    return (turn * scale[:, None]) @ turn.transpose(0, 2, 1)


def test_log_odds() -> None:
    p = np.array([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    np.testing.assert_allclose(logit(p), scipy_logit(p))
    np.testing.assert_allclose(sigmoid(logit(p)), p)
    np.testing.assert_allclose(sigmoid(np.array([-3.0, 4.0])), expit([-3.0, 4.0]))


def test_inverse() -> None:
    p = spd(np.random.default_rng(0), 50, 2)
    np.testing.assert_allclose(inverse_2x2(p), np.linalg.inv(p), rtol=1e-9)


def test_the_weight_makes_the_determinant_smallest() -> None:
    rng = np.random.default_rng(1)
    pa, pb = spd(rng, 200, 2), spd(rng, 200, 2)
    a, b = rng.normal(size=(2, 200, 2))
    x, cov, w = intersect(a, pa, b, pb)
    inside = 0
    for k in range(200):
        ia, ib = np.linalg.inv(pa[k]), np.linalg.inv(pb[k])
        best = minimize_scalar(
            lambda v, ia=ia, ib=ib: -np.linalg.det(v * ia + (1 - v) * ib),
            bounds=(0, 1), method='bounded', options={'xatol': 1e-10},
        )  # fmt: skip
        assert w[k] == pytest.approx(best.x, abs=1e-4)
        expected = np.linalg.inv(w[k] * ia + (1 - w[k]) * ib)
        np.testing.assert_allclose(cov[k], expected, rtol=1e-7, atol=1e-12)
        state = expected @ (w[k] * ia @ a[k] + (1 - w[k]) * ib @ b[k])
        np.testing.assert_allclose(x[k], state, rtol=1e-7, atol=1e-9)
        inside += 0 < w[k] < 1
    assert 40 < inside < 190  # the sample has both kinds


def test_who_is_better_in_every_direction_is_taken_bit_by_bit() -> None:
    rng = np.random.default_rng(2)
    pa = spd(rng, 30, 2)
    pb = pa * 1.7
    a, b = rng.normal(size=(2, 30, 2))
    for (x, cov, w), weight in ((intersect(a, pa, b, pb), 1.0), (intersect(b, pb, a, pa), 0.0)):
        assert (w == weight).all()
        assert x.tobytes() == a.tobytes()
        assert cov.tobytes() == pa.tobytes()
    _, cov, w = intersect(a, pa, b, pa)  # equal: nothing is gained
    assert (w == 1.0).all()
    assert cov.tobytes() == pa.tobytes()


@pytest.mark.parametrize('rho', [-0.95, -0.5, 0.0, 0.5, 0.95])
def test_the_fused_covariance_is_honest_for_correlated_errors(rho) -> None:
    """NEES: the mean of e' P^-1 e is 2 for an honest covariance, larger for one too small."""
    rng = np.random.default_rng(4)
    n, pairs = 4000, spd(rng, 24, 2, 1.0).reshape(12, 2, 2, 2)
    kalman = []
    for pa, pb in pairs:
        u, v = rng.normal(size=(2, n, 2))
        ea = u @ np.linalg.cholesky(pa).T
        eb = (rho * u + np.sqrt(1 - rho**2) * v) @ np.linalg.cholesky(pb).T
        x, cov, _ = intersect(ea, np.tile(pa, (n, 1, 1)), eb, np.tile(pb, (n, 1, 1)))
        nees = np.einsum('ni,nij,nj->n', x, np.linalg.inv(cov), x).mean()
        assert nees < 2 * (1 + 4 / np.sqrt(n))  # four sigma of the mean
        ia, ib = np.linalg.inv(pa), np.linalg.inv(pb)
        state = (ea @ ia + eb @ ib) @ np.linalg.inv(ia + ib)
        kalman.append(np.einsum('ni,ij,nj->n', state, ia + ib, state).mean())
    if rho == 0.95:
        assert max(kalman) > 3  # what a Kalman update would claim is not so


@given(hnp.arrays(float, (6,), elements=st.floats(0.01, 100)), st.floats(-0.99, 0.99))
def test_the_result_is_positive_definite_and_no_larger_than_the_better(scale, rho) -> None:
    pa = np.array([[scale[0], 0], [0, scale[1]]])[None]
    off = rho * np.sqrt(scale[2] * scale[3])
    pb = np.array([[scale[2], off], [off, scale[3]]])[None]
    x, cov, w = intersect(scale[None, 4:], pa, scale[None, :2], pb)
    assert np.isfinite(x).all()
    assert (np.linalg.eigvalsh(cov) > 0).all()
    np.testing.assert_allclose(cov, cov.transpose(0, 2, 1), rtol=1e-9, atol=1e-12)
    assert 0 <= w[0] <= 1
    smaller = min(np.linalg.det(pa)[0], np.linalg.det(pb)[0])
    assert np.linalg.det(cov)[0] <= smaller * (1 + 1e-9)


def test_a_new_place_keeps_the_rest_given_the_place() -> None:
    rng = np.random.default_rng(5)
    p = spd(rng, 20, 4, 0.7)
    boxes = rng.normal(size=(20, 7)) * 0.1
    x, cov = boxes[:, :2] + 0.05, spd(rng, 20, 2, 0.7)
    moved, after = replace_place(boxes, p, x, cov)
    np.testing.assert_array_equal(moved[:, :2], x)
    np.testing.assert_array_equal(moved[:, 3:6], boxes[:, 3:6])
    np.testing.assert_allclose(after, after.transpose(0, 2, 1), atol=1e-12)
    assert (np.linalg.eigvalsh(after) > 0).all()
    np.testing.assert_array_equal(after[:, :2, :2], cov)
    for k in range(20):  # regression of the rest on the place, and what it leaves open, are kept
        before_gain = p[k, 2:, :2] @ np.linalg.inv(p[k, :2, :2])
        gain = after[k, 2:, :2] @ np.linalg.inv(cov[k])
        np.testing.assert_allclose(gain, before_gain, atol=1e-8)
        np.testing.assert_allclose(
            after[k, 2:, 2:] - gain @ after[k, :2, 2:],
            p[k, 2:, 2:] - before_gain @ p[k, :2, 2:], atol=1e-8,
        )  # fmt: skip
        np.testing.assert_allclose(
            moved[k, [2, 6]] - boxes[k, [2, 6]], before_gain @ (x[k] - boxes[k, :2]), atol=1e-9
        )


def test_z_and_yaw_that_do_not_depend_on_the_place_stay_bit_by_bit() -> None:
    boxes, p = np.array([[1.0, 2, 0.7, 4, 2, 1.5, 3.1]]), np.diag([1.0, 2, 0.3, 0.1])[None]
    moved, after = replace_place(boxes, p, np.array([[1.5, 2.5]]), 0.5 * np.eye(2)[None])
    assert moved[0, 2:].tobytes() == boxes[0, 2:].tobytes()
    assert after[0, 2:].tobytes() == p[0, 2:].tobytes()


def test_a_yaw_that_moves_stays_within_a_turn() -> None:
    p = np.eye(4)[None].copy()
    p[0, 3, 0] = p[0, 0, 3] = 0.9
    moved, _ = replace_place(
        np.array([[0.0, 0, 0, 4, 2, 1, 3.1]]), p, np.array([[1.0, 0]]), np.eye(2)[None]
    )
    assert moved[0, 6] == pytest.approx(3.1 + 0.9 - 2 * np.pi)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 10), st.floats(0, 1))
def test_the_penalty_lowers_but_not_below_its_floor(score, penalty, floor) -> None:
    config = replace(FusionConfig(), penalty=penalty, penalty_floor=floor)
    (after,) = penalised_score(np.array([score]), config)
    assert after <= score
    assert after >= min(score, floor)
    if penalty == 0:
        assert after == score


def test_the_probability_of_a_place_is_that_of_samples() -> None:
    rng = np.random.default_rng(6)
    errors = rng.normal(size=(200_000, 2))
    for cov in spd(rng, 12, 2, 1.0):
        apart = np.hypot(*(errors @ np.linalg.cholesky(cov).T).T)
        for tolerance in (0.5, 2.0):
            (found,) = place_probability(cov[None], tolerance)
            assert found == pytest.approx((apart <= tolerance).mean(), abs=0.005)
    assert place_probability(np.eye(2)[None] * 1e4, 0.0).tolist() == [1.0]


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 10), st.floats(0, 50), st.floats(0.01, 100))
def test_doubt_never_raises_a_score(score, silence, tolerance, variance) -> None:
    config = replace(FusionConfig(), lidar_silence=silence, place_tolerance=tolerance)
    cov = np.diag([variance, 1.0])[None]
    (after,) = doubted_score(np.array([score]), np.array([True]), cov, config)
    (spared,) = doubted_score(np.array([score]), np.array([False]), cov, config)
    assert after <= spared
    assert 0.0 <= after <= score
