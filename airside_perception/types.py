"""What flows through the core: frozen struct-of-arrays, checked once when they are made.

Stamps are integer nanoseconds of the sensor's clock. Frames follow REP-103 and REP-105: metres,
radians, x forward, y left, z up. A 3D box is (x, y, z, length, width, height, yaw): the centre of
the box, its full extents and the rotation about z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import MessageError

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

X, Y, Z, LENGTH, WIDTH, HEIGHT, YAW = range(7)


def _array(value: Any, name: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """`value` as a read-only array of `dtype`, with -1 rows allowed where `shape` says None."""
    array = np.asarray(value, dtype=dtype)
    if array.size == 0 and array.ndim != len(shape):
        array = array.reshape([0 if n is None else n for n in shape])
    if array.ndim != len(shape) or any(
        n is not None and n != m for n, m in zip(shape, array.shape, strict=True)
    ):
        raise MessageError(f'{name} has shape {array.shape}, expected {shape}')
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Image:
    """One camera image as it came: `data` uint8 [H, W] or [H, W, C] in ROS `encoding`."""

    stamp_ns: int
    frame_id: str
    data: NDArray[np.uint8]
    encoding: str = 'bgr8'

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim not in (2, 3) or self.data.size == 0:
            raise MessageError(
                f'image has dtype {self.data.dtype} and shape {self.data.shape}; '
                'expected uint8 [H, W(, C)], not empty'
            )


@dataclass(frozen=True)
class PointCloud:
    """One lidar sweep: `points` float32 [N, len(fields)], metres in `frame_id`, all finite.

    `fields` names the columns; the first three are x, y, z. With `time_lag` (seconds) there are
    several sweeps, see `lidar.sweeps`; the stamp is that of the newest. `received` is the number
    of points in its message before NaN, infinite and out-of-range points were left out.
    """

    stamp_ns: int
    frame_id: str
    points: Float32
    fields: tuple[str, ...] = ('x', 'y', 'z', 'intensity')
    received: int = -1

    def __post_init__(self) -> None:
        if self.fields[:3] != ('x', 'y', 'z'):
            raise MessageError(f'point fields start with {self.fields[:3]}, expected x, y, z')
        if self.points.dtype != np.float32 or self.points.shape[1:] != (len(self.fields),):
            raise MessageError(
                f'points are {self.points.dtype} {self.points.shape}; '
                f'expected float32 [N, {len(self.fields)}]'
            )
        if self.received < 0:
            object.__setattr__(self, 'received', len(self.points))

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Boxes2D:
    """Detections in an image.

    `xyxy` is float64 [N, 4]: left, top, right, bottom in pixels of the original image, as edges:
    the first pixel reaches from 0 to 1. A `projection.CameraModel` has its centre at 0, half less.
    """

    stamp_ns: int
    frame_id: str
    xyxy: Float64
    scores: Float64
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.classes)
        object.__setattr__(self, 'xyxy', _array(self.xyxy, 'xyxy', np.float64, (n, 4)))
        object.__setattr__(self, 'scores', _array(self.scores, 'scores', np.float64, (n,)))
        object.__setattr__(self, 'classes', tuple(self.classes))

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, rows: Any) -> Boxes2D:
        """The boxes at `rows` (indices or a mask), in that order."""
        index = np.arange(len(self))[rows]
        return replace(
            self,
            xyxy=self.xyxy[index],
            scores=self.scores[index],
            classes=tuple(self.classes[i] for i in index),
        )


@dataclass(frozen=True)
class Boxes3D:
    """Detections in space, one row a box.

    Attributes:
        boxes: float64 [N, 7], (x, y, z of the centre, length, width, height, yaw) in `frame_id`.
        scores: float64 [N], existence probability in [0, 1].
        classes: N class names.
        covariances: float64 [N, 4, 4] of (x, y, z, yaw) in `frame_id`, m^2, m rad, rad^2.
        ids: N track identities, empty strings until tracked.
        sources: N tuples with the names of the sensors whose evidence the box carries; empty
            tuples where unknown. Not part of `vision_msgs`; shown in markers and replay files.
        velocities: float64 [N, 2], vx and vy of the centre in m/s over ground, in the axes of
            `frame_id`; NaN where unknown, which is the default. Not part of `vision_msgs`.
    """

    stamp_ns: int
    frame_id: str
    boxes: Float64
    scores: Float64
    classes: tuple[str, ...]
    covariances: Float64
    ids: tuple[str, ...] = ()
    sources: tuple[tuple[str, ...], ...] = ()
    velocities: Float64 = field(default_factory=lambda: np.empty((0, 2)))

    def __post_init__(self) -> None:
        n = len(self.classes)
        object.__setattr__(self, 'boxes', _array(self.boxes, 'boxes', np.float64, (n, 7)))
        object.__setattr__(self, 'scores', _array(self.scores, 'scores', np.float64, (n,)))
        object.__setattr__(self, 'classes', tuple(self.classes))
        object.__setattr__(
            self, 'covariances', _array(self.covariances, 'covariances', np.float64, (n, 4, 4))
        )
        object.__setattr__(self, 'ids', tuple(self.ids) or ('',) * n)
        object.__setattr__(self, 'sources', tuple(self.sources) or ((),) * n)
        over_ground = self.velocities if np.size(self.velocities) else np.full((n, 2), np.nan)
        object.__setattr__(
            self, 'velocities', _array(over_ground, 'velocities', np.float64, (n, 2))
        )
        if len(self.ids) != n or len(self.sources) != n:
            raise MessageError(
                f'{len(self.ids)} ids and {len(self.sources)} sources for {n} boxes'
            )

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, rows: Any) -> Boxes3D:
        """The boxes at `rows` (indices or a mask), in that order."""
        index = np.arange(len(self))[rows]
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            classes=tuple(self.classes[i] for i in index),
            covariances=self.covariances[index],
            ids=tuple(self.ids[i] for i in index),
            sources=tuple(self.sources[i] for i in index),
            velocities=self.velocities[index],
        )

    @staticmethod
    def empty(stamp_ns: int, frame_id: str) -> Boxes3D:
        """An array that says: looked, and found nothing."""
        return Boxes3D(stamp_ns, frame_id, np.empty((0, 7)), np.empty(0), (), np.empty((0, 4, 4)))


def by_score(scores: Sequence[float] | Float64) -> Int64:
    """Indices that sort scores downwards; equal scores keep their order."""
    return np.argsort(-np.asarray(scores, dtype=np.float64), kind='stable')
