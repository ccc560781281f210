"""What several sensors know of one object, as one: covariance intersection and log-odds.

Lidar and cameras share the calibration, the ego motion and the clock, and cameras share a network:
their errors are correlated by an unknown amount, and a Kalman update would count what they share
twice. Covariance intersection (S. Julier, J. Uhlmann: A non-divergent estimation algorithm in the
presence of unknown correlations, ACC 1997) is consistent for every correlation.

Scores are weighed likewise. Independent sensors would add their log-odds; the weights of what a
camera adds are those of a logistic regression of "this lidar box is right" on the log-odds of the
lidar, on "a camera has a box of its class there" and on the log-odds of that (simulated drives,
seeds 5000 to 5099, which no network and no curve of scores was made with), rounded down so that
no condition of light or weather loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import erf

from airside_perception.config import FusionConfig
from airside_perception.fusion.align import unknown
from airside_perception.fusion.associate import Labels, Places
from airside_perception.fusion.viewport import Mask
from airside_perception.fusion.visibility import lidar_should_see
from airside_perception.geometry import wrap_angle
from airside_perception.types import YAW, Boxes3D, Float64, Int64, Z

YAW_VARIANCE = np.pi**2 / 3
"""Of a yaw of which nothing is known."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
FARTHEST = 5.0
"""Sigmas along an ellipse beyond which nothing is expected."""


def logit(probability: Float64) -> Float64:
    """Log-odds of probabilities in (0, 1)."""
    odds: Float64 = np.log(probability) - np.log1p(-probability)
    return odds


def sigmoid(log_odds: Float64) -> Float64:
    """Probabilities of log-odds."""
    probability: Float64 = 1.0 / (1.0 + np.exp(-log_odds))
    return probability


def inverse_2x2(p: Float64) -> Float64:
    """Inverses of matrices [N, 2, 2], in closed form."""
    adjugate = np.stack([p[:, 1, 1], -p[:, 0, 1], -p[:, 1, 0], p[:, 0, 0]], -1).reshape(-1, 2, 2)
    inverse: Float64 = (
        adjugate / (p[:, 0, 0] * p[:, 1, 1] - p[:, 0, 1] * p[:, 1, 0])[:, None, None]
    )
    return inverse


def intersect(
    a: Float64, cov_a: Float64, b: Float64, cov_b: Float64
) -> tuple[Float64, Float64, Float64]:
    """Covariance intersection of estimates a, b [N, 2] of the same points.

    P^-1 = w Pa^-1 + (1 - w) Pb^-1 and P^-1 x = w Pa^-1 a + (1 - w) Pb^-1 b, with the w in [0, 1]
    that makes det P smallest. In the plane det(P^-1) is a quadratic in w: with A = Pa^-1,
    B = Pb^-1, D = A - B it is det B + w tr(adj(B) D) + w^2 det D. Its maximum lies inside only
    where det D < 0; elsewhere one estimate is better in every direction and is taken as it is.

    Args:
        a: first estimates, with symmetric positive definite covariances `cov_a` [N, 2, 2].
        b: second estimates; the same.

    Returns:
        x [N, 2], P [N, 2, 2] and w [N]; where w is 1 (0), x and P are those of a (b) bit by bit.
    """
    information_a, information_b = inverse_2x2(cov_a), inverse_2x2(cov_b)
    d = information_a - information_b
    curve = d[:, 0, 0] * d[:, 1, 1] - d[:, 0, 1] * d[:, 1, 0]
    slope = (
        information_b[:, 0, 0] * d[:, 1, 1]
        + information_b[:, 1, 1] * d[:, 0, 0]
        - information_b[:, 0, 1] * d[:, 1, 0]
        - information_b[:, 1, 0] * d[:, 0, 1]
    )
    crossed = curve < 0.0
    peak = np.clip(slope / np.where(crossed, -2.0 * curve, 1.0), 0.0, 1.0)
    # curve + slope is det A - det B: which of two is better where one is better everywhere
    w = np.where(crossed, peak, np.where(curve + slope >= 0.0, 1.0, 0.0))
    part_a = w[:, None, None] * information_a
    part_b = (1.0 - w)[:, None, None] * information_b
    cov = inverse_2x2(part_a + part_b)
    x = (cov @ (part_a @ a[..., None] + part_b @ b[..., None]))[..., 0]
    only_a, only_b = (w == 1.0)[:, None], (w == 0.0)[:, None]
    x = np.where(only_a, a, np.where(only_b, b, x))
    cov = np.where(only_a[..., None], cov_a, np.where(only_b[..., None], cov_b, cov))
    return x, cov, w


def replace_place(
    boxes: Float64, covariances: Float64, x: Float64, cov: Float64
) -> tuple[Float64, Float64]:
    """Boxes [N, 7] and covariances [N, 4, 4] whose x, y became `x` [N, 2] with `cov` [N, 2, 2].

    z and yaw follow x, y as far as they are correlated with them: with G = P_rx P_xx^-1, the rest
    r given x stays as it was: r' = r + G (x' - x), P_rr' = P_rr + G (P' - P_xx) G^T,
    P_rx' = G P'. The result is positive definite where the inputs are.
    """
    old = covariances[:, :2, :2]
    gain = covariances[:, 2:, :2] @ inverse_2x2(old)
    moved = (gain @ (x - boxes[:, :2])[..., None])[..., 0]
    boxes, covariances = boxes.copy(), covariances.copy()
    boxes[:, :2] = x
    boxes[:, Z] += moved[:, 0]
    boxes[:, YAW] = np.where(moved[:, 1], wrap_angle(boxes[:, YAW] + moved[:, 1]), boxes[:, YAW])
    covariances[:, 2:, 2:] += gain @ (cov - old) @ gain.transpose(0, 2, 1)
    covariances[:, 2:, :2] = gain @ cov
    covariances[:, :2, 2:] = covariances[:, 2:, :2].transpose(0, 2, 1)
    covariances[:, :2, :2] = cov
    return boxes, covariances


def penalised_score(scores: Float64, config: FusionConfig) -> Float64:
    """Scores [N] less `penalty` in log-odds, but not below `penalty_floor`, and never raised."""
    if config.penalty == 0.0:
        return scores
    limit = config.score_limit
    lower = sigmoid(logit(np.clip(scores, limit, 1.0 - limit)) - config.penalty)
    return np.minimum(scores, np.maximum(lower, config.penalty_floor))


def doubted_score(scores: Float64, expected: Mask, cov: Float64, config: FusionConfig) -> Float64:
    """Scores [N] of what cameras see with covariance `cov` [N, 2, 2], and the lidar does not.

    Log-odds less `lidar_silence` where the lidar is `expected` [N] to see it; the probability that
    they give is then that of an object, and is multiplied by that of its place
    (`place_probability`).
    """
    limit = config.score_limit
    silence = np.where(expected, config.lidar_silence, 0.0)
    there = sigmoid(logit(np.clip(scores, limit, 1.0 - limit)) - silence)
    there *= place_probability(cov, config.place_tolerance)
    return np.minimum(scores, np.maximum(there, limit))


def place_probability(cov: Float64, tolerance: float) -> Float64:
    """Probability [N] that an error with covariance [N, 2, 2] is at most `tolerance`; 1 for 0.

    The integral over the disc: the error function across the ellipse, by Gauss and Legendre's
    rule along it.
    """
    if tolerance == 0.0:
        return np.ones(len(cov))
    across, along = np.sqrt(np.maximum(np.linalg.eigvalsh(cov), 1e-12)).T[..., None]
    reach = np.minimum(tolerance, FARTHEST * along)
    y = reach * NODES
    density = np.exp(-0.5 * (y / along) ** 2) / (np.sqrt(2.0 * np.pi) * along)
    inside = erf(np.sqrt(tolerance**2 - y**2) / (np.sqrt(2.0) * across))
    probability: Float64 = np.minimum((reach * density * inside) @ WEIGHTS, 1.0)
    return probability


class Objects:
    """All boxes of one set, lidar first, while they become objects: a row may absorb others.

    A row that absorbed nothing leaves as it came, bit by bit. A row that did has
      place: the covariance intersection of all;
      z, sizes, yaw: of the lidar, or of the camera that knows the place best (smallest det P);
      score: log-odds of the lidar + g1 + `repeat_weight` (g2 + ...), the largest first, where
        g = `match_evidence` + `camera_weight` e is what a camera adds and
        e = logit(score) - logit(prior of the class), or `class_weight` g where it is of another
        class; without a lidar, the prior's log-odds + e1 + `repeat_weight` (e2 + ...);
      class: the one with the largest sum of votes over all sensors, e of the lidar, g of a camera
        (without a lidar, e); on a tie, its own.

    Attributes:
        first: all boxes as they came; `first.sources` names the sensor of each.
        x, p: float64 [T, 2] and [T, 2, 2], places so far.
        joined, absorbed: bool [T], rows that absorbed others, and rows that were.
    """

    def __init__(
        self, first: Boxes3D, lidar_rows: int, labels: Labels, config: FusionConfig
    ) -> None:
        n = len(first)
        self.first, self._lidar_rows, self._config = first, lidar_rows, config
        self._label, self._group = label, _ = labels.numbers(first.classes)
        self._names = names = labels.names
        self._covariances = first.covariances.copy()
        self._covariances[unknown(first.covariances)] = np.diag(
            [config.unknown_sigma**2] * 3 + [YAW_VARIANCE]
        )
        self.x, self.p = first.boxes[:, :2].copy(), self._covariances[:, :2, :2].copy()
        self.joined, self.absorbed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self._detail = np.arange(n)
        self._sources = list(first.sources)
        priors = {name.casefold(): value for name, value in config.priors.items()}
        prior = np.array([priors.get(name.casefold(), config.prior) for name in names])
        prior = logit(prior[label]) if n else np.zeros(0)
        self._log_odds = logit(np.clip(first.scores, config.score_limit, 1 - config.score_limit))
        self._evidence = self._log_odds - prior
        is_lidar = np.arange(n) < lidar_rows
        self._base = np.where(is_lidar, self._log_odds, prior)
        self._best = np.where(is_lidar, -np.inf, self._evidence)
        self._total = np.where(is_lidar, 0.0, self._evidence)
        self._votes = np.full((n, len(names)), -np.inf)
        self._votes[np.arange(n), label] = self._evidence

    def places(self, rows: Int64) -> Places:
        """The places of `rows` as they are now."""
        x, p = self.x[rows], self.p[rows]
        cross = (p[:, 0, 1] + p[:, 1, 0]) / 2
        columns = (x[:, 0], x[:, 1], p[:, 0, 0], cross, p[:, 1, 1])
        return Places(*columns, label=self._label[rows], group=self._group[rows])

    def join_all(self, mates: Sequence[tuple[Int64, Int64]]) -> None:
        """For each camera, rows absorb its rows, as in `join`; a row absorbs in that order.

        Done in rounds: first of every row its first, then its second, and so on.
        """
        rows = np.concatenate([np.empty(0, np.int64), *(row for row, _ in mates)])
        others = np.concatenate([np.empty(0, np.int64), *(other for _, other in mates)])
        order = np.argsort(rows, kind='stable')
        rows, others = rows[order], others[order]
        turn = np.arange(len(rows)) - np.searchsorted(rows, rows)
        for number in range(int(turn.max(initial=-1)) + 1):
            self.join(rows[turn == number], others[turn == number])

    def join(self, rows: Int64, others: Int64) -> None:
        """Rows `rows` absorb the rows `others` of one camera, one each, none twice."""
        self.x[rows], self.p[rows], _ = intersect(
            self.x[rows], self.p[rows], self.x[others], self.p[others]
        )
        self.joined[rows] = self.absorbed[others] = True
        sharper = (rows >= self._lidar_rows) & (
            self._area(others) < self._area(self._detail[rows])
        )
        self._detail[rows] = np.where(sharper, others, self._detail[rows])
        vote, label = self._evidence[others], self._label[others]
        config, has_lidar = self._config, rows < self._lidar_rows
        vote = np.where(has_lidar, config.match_evidence + config.camera_weight * vote, vote)
        other_class = has_lidar & (label != self._label[rows])
        gain = np.where(other_class, config.class_weight * vote, vote)
        self._best[rows] = np.maximum(self._best[rows], gain)
        self._total[rows] += gain
        votes = self._votes[rows, label]
        self._votes[rows, label] = np.where(np.isinf(votes), 0.0, votes) + vote
        for row, other in zip(rows.tolist(), others.tolist(), strict=True):
            self._sources[row] += self.first.sources[other]

    def result(
        self, penalised: Int64, doubted: Int64, lidar_origin: Float64 | None = None
    ) -> Boxes3D:
        """All rows, the absorbed ones too, as they are now.

        Args:
            penalised: lidar rows that a camera should see and does not.
            doubted: camera rows beside a lidar that answers.
            lidar_origin: [2], where the lidar is; None: not known.
        """
        rows, config = np.flatnonzero(self.joined), self._config
        boxes, covariances = self.first.boxes.copy(), self.first.covariances.copy()
        scores, classes = self.first.scores.copy(), list(self.first.classes)
        boxes[rows], covariances[rows] = replace_place(
            boxes[self._detail[rows]],
            self._covariances[self._detail[rows]],
            self.x[rows],
            self.p[rows],
        )
        best, total = self._best[rows], self._total[rows]
        log_odds = self._base[rows] + best + config.repeat_weight * (total - best)
        scores[rows] = np.clip(sigmoid(log_odds), config.score_limit, 1.0 - config.score_limit)
        scores[penalised] = penalised_score(scores[penalised], config)
        place = covariances[doubted, :2, :2]
        place[unknown(place)] = config.unknown_sigma**2 * np.eye(2)
        expected = lidar_should_see(
            boxes[doubted], boxes[: self._lidar_rows], lidar_origin, config
        )
        scores[doubted] = doubted_score(scores[doubted], expected, place, config)
        for row in rows.tolist():
            votes = self._votes[row]
            if votes[self._label[row]] < votes.max():
                classes[row] = self._names[int(votes.argmax())]
        return replace(
            self.first,
            boxes=boxes,
            covariances=covariances,
            scores=scores,
            classes=tuple(classes),
            sources=tuple(self._sources),
        )

    def _area(self, rows: Int64) -> Float64:
        """det P [N] of x, y as they came: how badly a place is known."""
        p = self._covariances[rows]
        area: Float64 = p[:, 0, 0] * p[:, 1, 1] - p[:, 0, 1] * p[:, 1, 0]
        return area
