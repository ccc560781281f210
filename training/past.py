"""Past sweeps of a training scan: where vehicle and objects were, and what odometry makes of it.

A network with the feature `time_lag` sees the newest sweep and those before it, brought to where
the vehicle is now as `airside_perception.lidar.sweeps` does it. What stands lies upon itself then;
what moves leaves a trail, from which its velocity can be read. Objects move straight on at their
velocity, the vehicle along an arc. The newest turn of the lidar ends at the stamp, as in the
simulator, so what moves is seen up to a period before it; which way the lidar turns and
where its turn begins is drawn, since sensors differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Draw = Callable[..., Tensor]


@dataclass(frozen=True)
class Past:
    """What sweeps there are beside the newest one.

    Attributes:
        sweeps: of each scan, most; 0: none.
        periods: seconds from one sweep to the next, one of these a scan.
        missing: share of scans that have fewer, as after a start or without odometry.
        speed: of the vehicle, m/s, most; every third scan stands.
        turn: of the vehicle, rad/s, most.
        drift: error of the odometry's speed, m/s, standard deviation.
        drift_turn: of its turn rate, rad/s, standard deviation.
    """

    sweeps: int = 0
    periods: tuple[float, ...] = (0.1,)
    missing: float = 0.0
    speed: float = 0.0
    turn: float = 0.0
    drift: float = 0.0
    drift_turn: float = 0.0


@dataclass(frozen=True)
class Motion:
    """One draw for S scans of 1 + K sweeps.

    Attributes:
        age: float32 [1 + K, S], seconds that a sweep is older than the newest, whose row is first.
        there: bool [1 + K, S], whether a scan has that sweep.
        pose, odometry: float32 [1 + K, S, 3], place (x, y) in metres and yaw of the vehicle at
            that sweep, in where it is now: as it was, and as the odometry says.
        start: float32 [S], azimuth in turns where the lidar's turn ends.
        way: float32 [S], 1: it turns counter-clockwise, seen from above; -1: clockwise.
        period: float32 [S], seconds.
    """

    age: Tensor
    there: Tensor
    pose: Tensor
    odometry: Tensor
    start: Tensor
    way: Tensor
    period: Tensor


def draw_motion(past: Past, scans: int, uniform: Draw, normal: Draw) -> Motion:
    """Motion of S scans; `uniform` and `normal` draw tensors of a shape."""
    first = uniform(scans)
    device = first.device
    periods = torch.tensor(past.periods, device=device)
    period = periods[(first * len(periods)).long().clamp(max=len(periods) - 1)]
    order = torch.arange(1 + past.sweeps, device=device)[:, None]
    age = order * period
    have = torch.where(
        uniform(scans) < past.missing, (uniform(scans) * past.sweeps).floor(), past.sweeps
    )
    speed = past.speed * (1.5 * uniform(scans) - 0.5).clamp(min=0)
    turn = past.turn * (2 * uniform(scans) - 1) * (speed > 0)
    told = speed + past.drift * normal(scans), turn + past.drift_turn * normal(scans)
    return Motion(
        age, order <= have, _arc(speed, turn, age), _arc(*told, age), uniform(scans),
        torch.where(uniform(scans) < 0.5, -1.0, 1.0), period,
    )  # fmt: skip


def _arc(speed: Tensor, turn: Tensor, age: Tensor) -> Tensor:
    """Poses [1 + K, S, 3] at ages [1 + K, S] before now: back along a circle, its chord."""
    yaw = -turn * age
    half = yaw / 2
    chord = -speed * age * torch.sinc(half / math.pi)
    return torch.stack([chord * torch.cos(half), chord * torch.sin(half), yaw], dim=-1)


def late(motion: Motion, boxes: Tensor, scan: Tensor) -> Tensor:
    """Seconds [M] from the stamp back to when the newest turn passed the centres of boxes.

    Args:
        boxes: float32 [M, 2 or more], x and y in the vehicle's frame.
        scan: int64 [M].
    """
    azimuth = torch.atan2(boxes[:, 1], boxes[:, 0]) / (2 * math.pi)
    left = torch.remainder((motion.start[scan] - azimuth) * motion.way[scan], 1.0)
    return left * motion.period[scan]


def into_past(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations [S, 3, 3] and shifts [S, 3] that bring points of now to the pose [S, 3]."""
    c, s, zero = torch.cos(pose[:, 2]), torch.sin(pose[:, 2]), torch.zeros_like(pose[:, 0])
    one = zero + 1
    rotation = torch.stack([c, s, zero, -s, c, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    place = torch.stack([pose[:, 0], pose[:, 1], zero], dim=1)
    return rotation, -(rotation @ place[:, :, None]).squeeze(2)


def to_now(points: Tensor, pose: Tensor) -> Tensor:
    """Points [N, 3] seen from the poses [N, 3], one each, in where the vehicle is now."""
    c, s = torch.cos(pose[:, 2]), torch.sin(pose[:, 2])
    x = c * points[:, 0] - s * points[:, 1] + pose[:, 0]
    y = s * points[:, 0] + c * points[:, 1] + pose[:, 1]
    return torch.stack([x, y, points[:, 2]], dim=1)
