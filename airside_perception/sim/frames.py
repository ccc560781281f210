"""Simulated drives: what the rig sees, frame by frame.

Stamps start at a fixed time, and every sensor's noise follows from the seed, the frame and the
sensor, so the same seed gives the same bytes, however many threads share the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from airside_perception.sim.camera import Lens, Light, Picture, look, take, visible
from airside_perception.sim.caster import Caster, Open3DCaster
from airside_perception.sim.conditions import Conditions
from airside_perception.sim.lidar import Scan, rays
from airside_perception.sim.outline import Covered, cells, covered
from airside_perception.sim.rig import BASE, LIDAR, Rig
from airside_perception.sim.rolling import spin
from airside_perception.sim.scene import Objects, Scenario, Scene
from airside_perception.sim.shade import Lighting
from airside_perception.sim.truth import (
    BARELY_PIXELS,
    LEAST_PIXELS,
    Rays,
    Sight,
    details,
    towards,
)
from airside_perception.types import Boxes2D, Boxes3D, Float32, Float64, Image, Int64, PointCloud

START_NS = 1_700_000_000_000_000_000
RATE = 10
"""Frames a second."""
WORKERS = 2
"""Threads that share a frame's sensors."""
EVERY = 5
"""One in so many columns and rows of pixels is asked whether something hides an object; of the
lidar's firings it is every second one."""

Open = Callable[[Float32], Caster]
ONE_THREAD: Open = partial(Open3DCaster, threads=1)
"""Sensors run side by side: a caster that took all cores would only be in the way."""


@dataclass(frozen=True)
class Frame:
    """All that the rig measures at one stamp, and the truth.

    Attributes:
        stamp_ns: of everything in it: the end of the lidar's turn, the middle of the exposures.
        base2odom: float64 [4, 4], pose of the vehicle.
        twist: its speed (m/s) and turn rate (rad/s).
        cloud: in the frame `lidar`; its field `t` is the time of each point, seconds after the
            stamp, 0 or less.
        images, objects2d: by camera name; boxes around what is visible of each object. Of score 0
            are those of fewer than LEAST_PIXELS, down to BARELY_PIXELS: they need not be found.
        objects: every labelled object in reach, in base_link; scores are 1.
        velocities: float64 [N, 2] of `objects`, m/s in base_link's axes.
        sight: what the sensors got of `objects`.
        small: cones, chocks, foreign objects in reach.
        conditions: light and weather.
        details: the JSON of `truth.details`.
    """

    stamp_ns: int
    base2odom: Float64
    twist: tuple[float, float]
    cloud: PointCloud
    images: dict[str, Image]
    objects2d: dict[str, Boxes2D]
    objects: Boxes3D
    velocities: Float64
    sight: Sight
    small: Boxes3D
    conditions: Conditions
    details: str

    @property
    def points(self) -> Int64:
        """Lidar points on each of `objects`, int64 [N]."""
        return self.sight.points

    @property
    def pixels(self) -> Int64:
        """Pixels of each of `objects` in all images together, int64 [N]."""
        return self.sight.pixels

    @property
    def seen(self) -> Boxes3D:
        """The objects that returned a lidar point or are visible in a camera."""
        return self.objects.select(self.sight.seen)


@dataclass(frozen=True)
class _Shot:
    """What one camera got of a scene."""

    picture: Picture
    boxes: Boxes2D
    rays: Rays


@dataclass(frozen=True)
class _Turn:
    """What the lidar got of a scene."""

    scan: Scan
    rays: Rays


@dataclass(frozen=True)
class _Ways:
    """Rays [R, 3] of a sensor in base_link, and their `outline.cells` [R]: always those."""

    rays: Float32
    cells: Int64

    @staticmethod
    def of(rays: Float32) -> _Ways:
        """For rays in base_link."""
        return _Ways(rays, cells(rays))

    def towards(self, scene: Scene, caster: Caster, origin: Float64, seen: Covered) -> Rays:
        """See `truth.towards`."""
        return towards(scene, caster, origin, self.rays, seen.objects.take(self.cells))


@dataclass(frozen=True)
class _Pending:
    """A frame whose sensors are at work."""

    stamp_ns: int
    scene: Scene
    turn: Future[_Turn]
    shots: Mapping[str, Future[_Shot]]

    def cancel(self) -> None:
        """What has not begun is not begun."""
        self.turn.cancel()
        for shot in self.shots.values():
            shot.cancel()


def drive(
    scenario: Scenario,
    rig: Rig,
    seconds: float,
    seed: int,
    conditions: Conditions | None = None,
    open_caster: Open = ONE_THREAD,
    workers: int = WORKERS,
) -> Iterator[Frame]:
    """Frames of a drive of `seconds` at RATE, made by `workers` threads.

    `seed` is that of the sensors' noise. Threads wait for each other in Python; `processes.drive`
    is for long drives.
    """
    conditions = conditions or Conditions()
    rigged = Rigged(scenario, rig, seed, conditions, open_caster)
    with without_cv2_threads(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[_Pending] = deque()
        try:
            for number in range(round(seconds * RATE)):
                waiting.append(rigged.start(number, pool))
                if len(waiting) > 1:  # the next frame is at work while this one is used
                    yield rigged.finished(waiting.popleft())
            while waiting:
                yield rigged.finished(waiting.popleft())
        finally:
            for pending in waiting:
                pending.cancel()


@contextmanager
def without_cv2_threads() -> Iterator[None]:
    """Sensors run side by side: threads of OpenCV, which wait busily, would only be in the way."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


class Rigged:
    """A rig in a scenario, with what its sensors keep from frame to frame; see `drive`."""

    def __init__(
        self, scenario: Scenario, rig: Rig, seed: int, conditions: Conditions, open_caster: Open
    ) -> None:
        self._scenario, self._rig, self._seed = scenario, rig, seed
        self._conditions, self._open = conditions, open_caster
        self._looks = {name: _Ways.of(look(lens)) for name, lens in rig.lenses.items()}
        self._asked = {
            name: _Ways.of(_some(self._looks[name].rays, lens))
            for name, lens in rig.lenses.items()
        }
        turn = rig.lidar2base[:3, :3].astype(np.float32)
        beams = rays(rig.spec).reshape(rig.spec.azimuths, -1, 3)[::2].reshape(-1, 3)
        self._beams = _Ways.of((beams @ turn.T).astype(np.float32))

    def frame(self, number: int, pool: ThreadPoolExecutor) -> Frame:
        """Frame `number`, by the threads of `pool`."""
        return self.finished(self.start(number, pool))

    def start(self, number: int, pool: ThreadPoolExecutor) -> _Pending:
        """Sets the sensors to work on frame `number`."""
        stamp_ns = START_NS + number * (1_000_000_000 // RATE)
        scene = self._scenario.at(number / RATE)
        caster = self._open(scene.triangles)
        lighting = Lighting.of(scene, Light(), self._conditions)
        turn = pool.submit(self._turn, scene, caster, number)
        shots = {
            name: pool.submit(
                self._shot, name, lens, scene, caster, lighting, stamp_ns, number, row
            )
            for row, (name, lens) in enumerate(self._rig.lenses.items(), 1)
        }
        return _Pending(stamp_ns, scene, turn, shots)

    def _turn(self, scene: Scene, caster: Caster, number: int) -> _Turn:
        rig = self._rig
        noise = np.random.default_rng([self._seed, number])
        sweep = spin(
            rig.spec,
            self._scenario,
            scene,
            number / RATE,
            caster,
            self._open,
            rig.lidar2base,
            noise,
            self._conditions,
            rig.deskewed,
        )
        origin = rig.lidar2base[:3, 3]
        seen = covered(scene, origin)
        return _Turn(sweep, self._beams.towards(scene, caster, origin, seen))

    def _shot(
        self,
        name: str,
        lens: Lens,
        scene: Scene,
        caster: Caster,
        lighting: Lighting,
        stamp_ns: int,
        number: int,
        row: int,
    ) -> _Shot:
        noise = np.random.default_rng([self._seed, number, row])
        drops = np.random.default_rng([self._seed, 99, row])
        origin, ways = lens.camera2base[:3, 3], self._looks[name]
        seen = covered(scene, origin)
        near = seen.anything.take(ways.cells)
        picture = take(lens, scene, caster, lighting, noise, ways.rays, drops, near)
        hidden = self._asked[name].towards(scene, caster, origin, seen)
        frame_id = lens.model.frame_id
        boxes = visible(picture, scene, stamp_ns, frame_id, LEAST_PIXELS, BARELY_PIXELS)
        return _Shot(picture, boxes, hidden)

    def finished(self, pending: _Pending) -> Frame:
        """The frame, once all sensors are done."""
        scene, stamp_ns = pending.scene, pending.stamp_ns
        turn = pending.turn.result()
        shots = {name: job.result() for name, job in pending.shots.items()}
        count = len(scene.objects)
        pixels, cameras = np.zeros(count, np.int64), Rays.none(count)
        small_pixels = np.zeros(len(scene.small), np.int64)
        for shot in shots.values():
            shown = shot.picture.shown(scene)
            pixels += _by(scene.instance, shown, count)
            small_pixels += _of_actors(scene, scene.small, shown)
            cameras = cameras + shot.rays
        sight = Sight(turn.scan.counts(count), pixels, turn.rays, cameras)
        unknown = Rays.none(len(scene.small))
        hit = turn.scan.triangle[turn.scan.triangle >= 0]
        met = np.bincount(hit, minlength=len(scene.triangles))
        small_points = _of_actors(scene, scene.small, met)
        small = Sight(small_points, small_pixels, unknown, unknown)
        points = np.column_stack([turn.scan.points, turn.scan.time])
        fields = ('x', 'y', 'z', 'intensity', 't')
        frames = {name: lens.model.frame_id for name, lens in self._rig.lenses.items()}
        return Frame(
            stamp_ns=stamp_ns,
            base2odom=scene.base2world,
            twist=scene.twist,
            cloud=PointCloud(stamp_ns, LIDAR, points.astype(np.float32, copy=False), fields),
            images={n: Image(stamp_ns, frames[n], s.picture.image) for n, s in shots.items()},
            objects2d={name: shot.boxes for name, shot in shots.items()},
            objects=_boxes(scene.objects, stamp_ns),
            velocities=scene.objects.velocities,
            sight=sight,
            small=_boxes(scene.small, stamp_ns),
            conditions=self._conditions,
            details=details(stamp_ns, self._conditions, scene.objects, sight, scene.small, small),
        )


def _some(look: Float32, lens: Lens) -> Float32:
    """One in EVERY rows and columns of the rays [H * W, 3] of a camera."""
    grid = look.reshape(lens.model.height, lens.model.width, 3)
    return np.ascontiguousarray(grid[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY]).reshape(-1, 3)


def _of_actors(scene: Scene, objects: Objects, counts: Int64) -> Int64:
    """What each of `objects` has, int64 [N], of `counts` [T] of the triangles."""
    if not len(objects):
        return np.zeros(0, np.int64)
    return _by(scene.actor, counts, int(objects.ids.max()) + 1)[objects.ids]


def _by(owner: NDArray[np.int32], counts: Int64, owners: int) -> Int64:
    """Sums int64 [owners] of `counts` [T] by the `owner` [T] of each triangle, -1: nobody."""
    sums = np.bincount(owner + 1, counts, owners + 1)[1:]
    return np.asarray(sums, dtype=np.int64)


def _boxes(objects: Objects, stamp_ns: int) -> Boxes3D:
    count = len(objects)
    return Boxes3D(
        stamp_ns,
        BASE,
        objects.boxes,
        np.ones(count),
        objects.classes,
        np.broadcast_to(1e-6 * np.eye(4), (count, 4, 4)),
        ids=tuple(str(i) for i in objects.ids.tolist()),
    )
