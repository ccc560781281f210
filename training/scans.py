"""Scans made on the accelerator: worlds seen by random lidars, varied as the real world varies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training.echoes import Loss, Met, Surfaces, echoes
from training.lidars import MOST_RINGS, Lidar
from training.past import Past, draw_motion, into_past, late, to_now
from training.raycast import cast, spin
from training.targets import Boxes

REACH = 120.0
GROUND = 1.0e4
"""Twice the area of a triangle that is the ground, square metres."""
LONGEST = 20.0
"""Length of the longest objects that are stretched, metres. What is longer are aircraft: of those
only the hull is labelled, so wings, fin, engines and gear would stay where they were, and so would
stairs, bridges and loaders at their doors."""
Draw = Callable[..., Tensor]


@dataclass(frozen=True)
class World:
    """A scene on the accelerator.

    Attributes:
        triangles: float32 [T, 3, 3], metres.
        material: int16 [T], row of `Surfaces`.
        owner: int32 [T], row of `boxes` that a triangle belongs to, -1: structure.
        boxes: float32 [M, 7].
        label: int64 [M].
        spots: float32 [P, 2], free places for the sensor.
        velocity: float32 [M, 2], over ground, m/s.
    """

    triangles: Tensor
    material: Tensor
    owner: Tensor
    boxes: Tensor
    label: Tensor
    spots: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Variation:
    """How much a training scan is varied; all zero for a plain one.

    Attributes:
        scale: of the whole scan, 1 +- this.
        stretch: of length, width and height of objects up to LONGEST, 1 +- this.
        slope: of the ground, standard deviation.
        waves: height of the ground's undulation, metres, most.
        banks: height of a bank or ditch beside the road, metres, most; half of the scans have one.
        tilt: of the sensor against its calibration, radians, standard deviation.
        lift: error of the calibrated height, metres, standard deviation.
        loss: what of a scan is lost, and the weather.
    """

    scale: float = 0.0
    stretch: float = 0.0
    slope: float = 0.0
    waves: float = 0.0
    banks: float = 0.0
    tilt: float = 0.0
    lift: float = 0.0
    loss: Loss = field(default_factory=Loss)


@dataclass(frozen=True)
class Batch:
    """One scan of every world.

    Attributes:
        points: float32 [N, 5], x, y, z in base_link, metres, intensity 0..1, and the age of their
            sweep in seconds, 0 for the newest, which comes first.
        scan: int64 [N], ascending.
        truth: the objects.
    """

    points: Tensor
    scan: Tensor
    truth: Boxes
    returns: Tensor
    """int64 [M], points of the newest sweep on every box."""


def make_batch(
    worlds: Sequence[World],
    lidars: Sequence[Lidar],
    places: Sequence[float],
    surfaces: Surfaces,
    variation: Variation,
    generator: torch.Generator,
    least_points: int,
    past: Past | None = None,
) -> Batch:
    """One scan of every world by the lidar of the same place in the list.

    The sensor stands on the free spot that `places` says (0..1, a share of their list), turned at
    random; the scan is mirrored half of the time. Boxes with fewer than `least_points` returns are
    kept and marked as not counted. With `past` sweeps everything moves, see `training.past`.
    """
    device = worlds[0].triangles.device
    scans = len(worlds)
    past = past or Past()
    sweeps = 1 + past.sweeps

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, device=device, generator=generator) * (high - low) + low

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    of_triangle = _index([len(world.triangles) for world in worlds], device)
    of_box = _index([len(world.boxes) for world in worlds], device)
    first_box = np.cumsum([0] + [len(world.boxes) for world in worlds])[:-1]
    triangles = torch.cat([world.triangles for world in worlds])
    material = torch.cat([world.material for world in worlds])
    owner = torch.cat(
        [
            torch.where(world.owner >= 0, world.owner + int(n), -1)
            for world, n in zip(worlds, first_box, strict=True)
        ]
    )
    boxes = torch.cat([world.boxes for world in worlds])
    velocity = torch.cat([world.velocity for world in worlds])
    label = torch.cat([world.label for world in worlds])
    spots = torch.stack(
        [
            world.spots[int(place * len(world.spots))]
            for world, place in zip(worlds, places, strict=True)
        ]
    )

    if variation.stretch and len(boxes):
        factors = 1 + variation.stretch * uniform(len(boxes), 3, low=-1.0)
        triangles, boxes = _stretch(triangles, owner, boxes, factors)

    # World to vehicle: shift, mirror, turn. Then the sensor, tilted as calibration does not know.
    yaw = uniform(scans, high=2 * math.pi)
    mirror = torch.where(uniform(scans) < 0.5, -1.0, 1.0)
    turn = _turn(yaw)
    turn[:, :, 1] *= mirror[:, None]
    shift = torch.cat([spots, torch.zeros(scans, 1, device=device)], dim=1)
    boxes = _move_boxes(boxes, shift[of_box], turn[of_box])
    own, velocity = velocity, (turn[of_box, :2, :2] @ velocity[:, :, None]).squeeze(2)
    height = torch.tensor([lidar.height for lidar in lidars], device=device)
    tilt = _tilt(normal(scans, 2) * variation.tilt)
    mount = torch.zeros(scans, 3, device=device)
    mount[:, 2] = height
    moved = (turn @ shift[:, :, None]).squeeze(2)
    motion = draw_motion(past, scans, uniform, normal) if past.sweeps else None
    if motion is None:
        triangles = _seen(triangles, of_triangle, tilt @ turn, tilt, moved + mount)
    else:
        carried = torch.nonzero(owner >= 0).flatten()
        who = owner[carried].long()
        ago = late(motion, boxes, of_box)
        seen = []
        for age, pose in zip(motion.age, motion.pose, strict=True):
            back = own * (ago + age[of_box])[:, None]
            then = triangles.clone()
            then[carried, :, :2] -= back[who][:, None]
            rotation, place = into_past(pose)
            offset = (rotation @ moved[:, :, None]).squeeze(2) - place + mount
            seen.append(_seen(then, of_triangle, tilt @ rotation @ turn, tilt, offset))
        triangles = torch.cat(seen)
        material, owner = material.repeat(sweeps), owner.repeat(sweeps)
        of_triangle = torch.cat([of_triangle + k * scans for k in range(sweeps)])

    elevations = np.zeros((scans, MOST_RINGS), np.float32)
    for row, lidar in zip(elevations, lidars, strict=True):
        row[: len(lidar.elevations)] = lidar.elevations
    lidars = list(lidars) * sweeps
    rings = torch.tensor([len(lidar.elevations) for lidar in lidars], device=device)
    firings = torch.tensor([lidar.firings for lidar in lidars], device=device)
    fan = torch.as_tensor(elevations, device=device).repeat(sweeps, 1)
    beams = spin(fan, rings, firings, uniform(scans * sweeps))
    distance, which = cast(triangles, of_triangle, beams, REACH)

    hit = torch.nonzero(which >= 0).flatten()
    edges = triangles[:, 1:] - triangles[:, :1]
    across = torch.linalg.cross(edges[:, 0], edges[:, 1])
    area = across.norm(dim=1)
    across = across / area.clamp(min=1e-12)[:, None]
    met = Met(
        hit,
        distance[hit],
        (across[which[hit]] * beams.directions[hit]).sum(1).abs(),
        material[which[hit]].long(),
        area[which[hit]] > GROUND,
    )
    back = echoes(met, beams, lidars, surfaces, variation.loss, generator, sweeps)
    solid = back.hit >= 0
    met_at = back.hit.clamp(min=0)
    who = torch.where(solid, owner[which[hit[met_at]]].long(), -1) if len(hit) else back.hit
    distance, direction, scan = back.distance, beams.directions[back.beam], beams.scan[back.beam]
    ring, azimuth = beams.row[back.beam], beams.azimuth[back.beam]
    sweep, scan = scan // scans, scan % scans

    noise = torch.tensor([lidar.noise for lidar in lidars[:scans]], device=device)
    bias = normal(scans, MOST_RINGS) * noise[:, None] * 0.5
    distance = distance + normal(len(scan)) * noise[scan] + bias[scan, ring]
    leaf = surfaces.depth[met.kind[met_at]] * solid if len(hit) else torch.zeros_like(distance)
    distance = distance + normal(len(scan)).abs() * leaf
    points = direction * distance[:, None]
    points[:, 2] += (height + normal(scans) * variation.lift)[scan]
    lag = torch.zeros_like(distance)
    if motion is not None:
        points = to_now(points, motion.odometry[sweep, scan])
        lag = motion.age[sweep, scan]

    slope, waves = normal(scans, 2) * variation.slope, _waves(uniform, scans, variation.waves)
    banks = _banks(uniform, scans, variation.banks)
    points[:, 2] += _ground(points, slope[scan], waves[scan], banks[scan])
    boxes[:, 2] += _ground(boxes, slope[of_box], waves[of_box], banks[of_box])
    scale = 1 + variation.scale * uniform(scans, low=-1.0)
    points = points * scale[scan][:, None]
    boxes[:, :6] *= scale[of_box][:, None]
    velocity = velocity * scale[of_box][:, None]

    # Some drivers give ring after ring, some firing after firing; pillars keep the first points.
    by_ring = uniform(scans) < 0.5
    key = torch.where(by_ring[scan], ring * 4096 + azimuth, azimuth * 4096 + ring)
    key += (scan * sweeps + sweep) * (4096 * 4096)
    order = torch.argsort(key)
    if motion is not None:
        order = order[motion.there[sweep, scan][order]]
    returns = torch.bincount(who[(who >= 0) & (sweep == 0)], minlength=len(boxes))
    truth = Boxes(boxes, label, of_box, returns >= least_points, velocity)
    points = torch.cat([points, back.intensity[:, None], lag[:, None]], dim=1)
    return Batch(points[order], scan[order], truth, returns)


def _seen(
    triangles: Tensor, scan: Tensor, to_sensor: Tensor, tilt: Tensor, offset: Tensor
) -> Tensor:
    """Triangles [T, 3, 3] of a world in the frames of sensors that are tilted at `offset`."""
    triangles = triangles @ to_sensor.transpose(1, 2)[scan]
    return triangles - (tilt @ offset[:, :, None]).squeeze(2)[scan][:, None]


def _index(sizes: Sequence[int], device: torch.device) -> Tensor:
    """[0] * sizes[0] + [1] * sizes[1] + ..., int64."""
    counts = torch.tensor(sizes, device=device)
    return torch.repeat_interleave(torch.arange(len(sizes), device=device), counts)


def _turn(yaw: Tensor) -> Tensor:
    """Rotations [S, 3, 3] about z by -yaw: a world into a vehicle that heads along yaw."""
    c, s, zero, one = torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack([c, s, zero, -s, c, zero, zero, zero, one], dim=1).view(-1, 3, 3)


def _tilt(angles: Tensor) -> Tensor:
    """Small rotations [S, 3, 3] about x and y by `angles` [S, 2], radians."""
    roll, pitch = angles.unbind(1)
    zero, one = torch.zeros_like(roll), torch.ones_like(roll)
    about_x = torch.stack(
        [
            one,
            zero,
            zero,
            zero,
            torch.cos(roll),
            -torch.sin(roll),
            zero,
            torch.sin(roll),
            torch.cos(roll),
        ],
        1,
    )
    about_y = torch.stack(
        [
            torch.cos(pitch),
            zero,
            torch.sin(pitch),
            zero,
            one,
            zero,
            -torch.sin(pitch),
            zero,
            torch.cos(pitch),
        ],
        1,
    )
    return about_x.view(-1, 3, 3) @ about_y.view(-1, 3, 3)


def _stretch(
    triangles: Tensor, owner: Tensor, boxes: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Objects scaled along their own axes about the middle of their underside, which stays.

    Those longer than LONGEST stay as they are.
    """
    factors = torch.where(boxes[:, 3:4] > LONGEST, 1.0, factors)
    axes = _turn(boxes[:, 6])
    linear = axes.transpose(1, 2) @ (factors[:, :, None] * axes)
    base = boxes[:, :3].clone()
    base[:, 2] = 0.0
    mine = torch.nonzero(owner >= 0).flatten()
    who = owner[mine].long()
    moved = triangles[mine] - base[who][:, None]
    triangles = triangles.index_copy(
        0, mine, moved @ linear.transpose(1, 2)[who] + base[who][:, None]
    )
    boxes = boxes.clone()
    boxes[:, 2] *= factors[:, 2]
    boxes[:, 3:6] *= factors
    return triangles, boxes


def _move_boxes(boxes: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    centre = (turn @ boxes[:, :3, None]).squeeze(2) - (turn @ shift[:, :, None]).squeeze(2)
    heading = torch.stack(
        [torch.cos(boxes[:, 6]), torch.sin(boxes[:, 6]), torch.zeros_like(boxes[:, 6])], 1
    )
    heading = (turn @ heading[:, :, None]).squeeze(2)
    angle = torch.atan2(heading[:, 1], heading[:, 0])
    return torch.cat([centre, boxes[:, 3:6], angle[:, None]], dim=1)


def _waves(uniform: Draw, scans: int, most: float) -> Tensor:
    """Three plane waves a scan: [S, 3, 4] of wave number x and y (1/m), phase, height (m)."""
    number = 2 * math.pi / (20 * torch.exp(uniform(scans, 3) * 1.8))
    angle, phase = uniform(scans, 3) * 2 * math.pi, uniform(scans, 3) * 2 * math.pi
    height = uniform(scans, 3) * uniform(scans, 1) * most / 3
    return torch.stack(
        [number * torch.cos(angle), number * torch.sin(angle), phase, height], dim=2
    )


def _banks(uniform: Draw, scans: int, most: float) -> Tensor:
    """A bank or ditch a scan: [S, 5] of direction (x, y), distance (m), width (m), height (m)."""
    angle = uniform(scans) * 2 * math.pi
    height = (uniform(scans) * 1.5 - 0.5) * most * (uniform(scans) < 0.5)
    width = 2 + 8 * uniform(scans) + 2 * height.abs()
    return torch.stack(
        [torch.cos(angle), torch.sin(angle), 4 + 20 * uniform(scans), width, height], dim=1
    )


def _ground(places: Tensor, slope: Tensor, waves: Tensor, banks: Tensor) -> Tensor:
    """Height of the ground [N] at places [N, 2 or more], zero under the sensor."""
    x, y = places[:, 0], places[:, 1]
    kx, ky, phase, height = waves.unbind(2)
    bend = torch.sin(kx * x[:, None] + ky * y[:, None] + phase) - torch.sin(phase)
    dx, dy, start, width, rise = banks.unbind(1)
    share = ((dx * x + dy * y - start) / width).clamp(0, 1)
    bank = rise * share.square() * (3 - 2 * share)
    return (slope * places[:, :2]).sum(1) + (height * bend).sum(1) + bank
