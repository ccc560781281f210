"""What is there and how much of it the sensors could see; written into a bag and read again.

Detection3DArray has no room for velocity, visibility and points, so beside `/ground_truth/objects`
a bag holds `/ground_truth/details`, std_msgs/String: one JSON object a frame with `stamp_ns`, the
`conditions`, and lists `objects` and `small` of everything within reach. Each entry has `id`,
`class`, `box` (x, y, z, length, width, height, yaw in base_link), `velocity` (vx, vy, m/s over
ground in base_link's axes), `points`, `pixels`, and the shares of the rays towards it that nothing
else hides: `visibility`, `lidar_visibility`, `camera_visibility`, null where no ray points at it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import BagError
from airside_perception.evaluate.frames import Truth
from airside_perception.replay.bag import BagReader
from airside_perception.sim.caster import Caster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.outline import cells, covered
from airside_perception.sim.scene import Objects, Scene
from airside_perception.types import Float32, Float64, Int64

DETAILS = '/ground_truth/details'
LEAST_PIXELS = 20
"""Smallest visible part of an object that counts as seen by a camera."""
BARELY_PIXELS = 6
"""Smallest visible part of an object that may be found in a picture, and need not be."""


@dataclass(frozen=True)
class Rays:
    """Rays of one sensor towards each of N objects, int64 [N]: that meet it first, or at all."""

    first: Int64
    any: Int64

    def __add__(self, other: Rays) -> Rays:
        return Rays(self.first + other.first, self.any + other.any)

    @property
    def share(self) -> Float64:
        """First of any, float64 [N]; NaN where no ray points at the object."""
        share = np.full(len(self.any), np.nan)
        np.divide(self.first, self.any, out=share, where=self.any > 0)
        return share

    @staticmethod
    def none(count: int) -> Rays:
        """Of a sensor that sees nothing."""
        return Rays(np.zeros(count, np.int64), np.zeros(count, np.int64))


def towards(
    scene: Scene,
    caster: Caster,
    origin: Float64,
    directions: Float32,
    near: NDArray[np.bool_] | None = None,
) -> Rays:
    """How many of the rays [R] from `origin` meet each object of a scene first, and at all.

    What an object hides of itself is not hidden: its far side needs no ray of its own. `near` [R]
    are the rays that may meet an object, if known: `outline.covered`.
    """
    if near is None:
        near = covered(scene, origin).objects.take(cells(directions))
    count = len(scene.objects)
    directions = directions.compress(near, axis=0)
    ray, triangle, distance = caster.through(origin, directions)
    if not len(ray) or not count:
        return Rays.none(count)
    owner = scene.instance.take(triangle)
    start = np.flatnonzero(np.diff(ray, prepend=-1))
    nearest = np.repeat(np.minimum.reduceat(distance, start), np.diff(start, append=len(ray)))
    mine = owner >= 0
    met = np.zeros((len(directions), count), bool)
    met[ray[mine], owner[mine]] = True
    first = np.zeros_like(met)
    mine &= distance == nearest
    first[ray[mine], owner[mine]] = True
    return Rays(first.sum(axis=0), met.sum(axis=0))


@dataclass(frozen=True)
class Sight:
    """What the sensors got of N objects.

    Attributes:
        points: int64 [N], lidar points; pixels: int64 [N], in all pictures together.
        lidar, cameras: rays towards them.
    """

    points: Int64
    pixels: Int64
    lidar: Rays
    cameras: Rays

    @property
    def visibility(self) -> Float64:
        """Share of all rays towards each object that meet nothing else first, float64 [N]."""
        return (self.lidar + self.cameras).share

    @property
    def seen(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether it returned a point, or shows in a picture, bool [N]."""
        return np.asarray((self.points > 0) | (self.pixels >= LEAST_PIXELS))


def details(
    stamp_ns: int, conditions: Conditions, objects: Objects, sight: Sight, small: Objects,
    small_sight: Sight,
) -> str:  # fmt: skip
    """The JSON of one frame; see the module."""
    tree = {
        'stamp_ns': stamp_ns,
        'conditions': asdict(conditions),
        'objects': _rows(objects, sight),
        'small': _rows(small, small_sight),
    }
    return json.dumps(tree, separators=(',', ':'))


@dataclass(frozen=True)
class TruthFrame:
    """One frame of a bag's ground truth.

    Attributes:
        stamp_ns: of the frame; boxes are in base_link at that time.
        objects: everything labelled within reach; asked for is what some sensor saw.
        small: cones, chocks and foreign objects.
        ids: of `objects`, the same for an object in all frames.
        pixels: int64 [N] of `objects`.
        conditions: as in `Conditions`.
    """

    stamp_ns: int
    objects: Truth
    small: Truth
    ids: tuple[int, ...]
    pixels: Int64
    conditions: Mapping[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """Light and weather, as reports of an evaluation split frames."""
        return {name: str(self.conditions[name]) for name in ('light', 'weather')}


def read_truth(bag: str | Path) -> Iterator[TruthFrame]:
    """The ground truth of a bag that the simulator wrote, frame by frame.

    Raises:
        BagError: no such bag, no ground truth in it, or damaged.
    """
    with BagReader(bag) as reader:
        if DETAILS not in reader.topics:
            raise BagError(
                f'{bag}: has no {DETAILS}; `python -m airside_perception.sim` writes it'
            )
        for record in reader.records([DETAILS]):
            try:
                yield _frame(json.loads(reader.message(record).data))
            except (KeyError, TypeError, ValueError) as error:
                where = f'{bag}: {DETAILS} at {record.log_ns} ns'
                raise BagError(f'{where} is no ground truth: {error!r}') from error


def _rows(objects: Objects, sight: Sight) -> list[dict[str, Any]]:
    shares = (sight.visibility, sight.lidar.share, sight.cameras.share)
    return [
        {
            'id': int(objects.ids[n]),
            'class': name,
            'box': objects.boxes[n].tolist(),
            'velocity': objects.velocities[n].tolist(),
            'points': int(sight.points[n]),
            'pixels': int(sight.pixels[n]),
            **{
                key: None if np.isnan(share[n]) else round(float(share[n]), 4)
                for key, share in zip(
                    ('visibility', 'lidar_visibility', 'camera_visibility'), shares, strict=True
                )
            },
        }
        for n, name in enumerate(objects.classes)
    ]


def _frame(tree: Mapping[str, Any]) -> TruthFrame:
    objects = tree['objects']
    pixels = np.array([item['pixels'] for item in objects], np.int64)
    return TruthFrame(
        int(tree['stamp_ns']),
        _truth(objects),
        _truth(tree['small']),
        tuple(int(item['id']) for item in objects),
        pixels,
        tree['conditions'],
    )


def _truth(items: Sequence[Mapping[str, Any]]) -> Truth:
    share = [np.nan if item['visibility'] is None else item['visibility'] for item in items]
    points = np.array([item['points'] for item in items], np.int64)
    pixels = np.array([item['pixels'] for item in items], np.int64)
    return Truth(
        tuple(str(item['class']) for item in items),
        np.array([item['box'] for item in items], np.float64).reshape(-1, 7),
        np.array([item['velocity'] for item in items], np.float64).reshape(-1, 2),
        np.array(share, np.float64),
        points,
        (points > 0) | (pixels >= LEAST_PIXELS),
    )
