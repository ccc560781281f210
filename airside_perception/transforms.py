"""Where transforms come from: tf2 on a vehicle, a recording in replay; the core sees only this."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import TransformError
from airside_perception.geometry import from_quaternion, invert, to_quaternion, transform
from airside_perception.types import Float64

RIGID_TOLERANCE = 1e-4
"""Largest deviation of R R^T from 1; calibrations in files have few digits."""
SMALL_ANGLE = 1e-9


class TransformSource(Protocol):
    """Looks up rigid transforms by frame and stamp."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """`source2target`, float64 [4, 4]: maps points of `source` at `stamp_ns` into `target`.

        Raises:
            TransformError: unknown frame, or no data for that stamp. Never an identity in its
                place (only `target == source` is the identity).
        """
        ...

    def lookup_between(
        self, target: str, target_ns: int, source: str, source_ns: int, fixed: str
    ) -> NDArray[np.float64]:
        """`source` at `source_ns` into `target` at `target_ns`, through world-fixed frame `fixed`.

        Raises:
            TransformError: as `lookup`.
        """
        ...


class TransformBuffer:
    """A `TransformSource` filled from a recording or by hand, in any order of stamps.

    Frames form a forest: a frame has one parent. Between two stamps of a dynamic transform the
    translation is linear in time and the rotation turns at constant speed about a fixed axis
    (slerp), as in tf2; before the first and after the last stamp there is no answer.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._static: dict[str, Float64] = {}
        self._dynamic: dict[str, _Track] = {}

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all known frames, sorted."""
        return tuple(sorted({*self._parents, *self._parents.values()}))

    def set_static(self, parent: str, child: str, child2parent: Float64) -> None:
        """Sets a transform that holds at every stamp; an earlier one of that child is replaced.

        Raises:
            TransformError: the frames would not be a forest, or the matrix is not rigid.
        """
        self._connect(parent, child, child2parent)
        if child in self._dynamic:
            raise TransformError(
                f'frame {child!r} has transforms by stamp already, and now a static one'
            )
        self._static[child] = np.array(child2parent, dtype=np.float64)

    def add(self, parent: str, child: str, stamp_ns: int, child2parent: Float64) -> None:
        """Adds a transform at a stamp; an earlier one of that child and stamp is replaced.

        Raises:
            TransformError: the frames would not be a forest, or the matrix is not rigid.
        """
        self._connect(parent, child, child2parent)
        if child in self._static:
            raise TransformError(
                f'frame {child!r} has a static transform already, and now one by stamp'
            )
        self._dynamic.setdefault(child, _Track([], [])).insert(stamp_ns, child2parent)

    def clear(self) -> None:
        """Forgets every transform that is not static, as after a jump of the clock."""
        for child in self._dynamic:
            del self._parents[child]
        self._dynamic.clear()

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64:
        """`source2target` at the stamp; see `TransformSource.lookup`."""
        if target == source:
            return np.eye(4)
        up, down = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            raise TransformError(self._unconnected(target, source))
        source2common = self._chain(up[: up.index(common)], stamp_ns, target, source)
        target2common = self._chain(down[: down.index(common)], stamp_ns, target, source)
        return invert(target2common) @ source2common

    def lookup_between(
        self, target: str, target_ns: int, source: str, source_ns: int, fixed: str
    ) -> Float64:
        """See `TransformSource.lookup_between`."""
        if target_ns == source_ns:
            return self.lookup(target, source, source_ns)
        return self.lookup(target, fixed, target_ns) @ self.lookup(fixed, source, source_ns)

    def _connect(self, parent: str, child: str, child2parent: Float64) -> None:
        matrix = np.asarray(child2parent, dtype=np.float64)
        rotation = matrix[:3, :3]
        if (
            matrix.shape != (4, 4)
            or not np.isfinite(matrix).all()
            or np.abs(rotation @ rotation.T - np.eye(3)).max() > RIGID_TOLERANCE
            or np.linalg.det(rotation) < 0
        ):
            raise TransformError(
                f'transform {child!r} -> {parent!r} is not rigid: {matrix.tolist()}'
            )
        known = self._parents.get(child, parent)
        if known != parent:
            raise TransformError(f'frame {child!r} has two parents: {known!r} and {parent!r}')
        if child in self._ancestors(parent):
            raise TransformError(f'frames {child!r} and {parent!r} would be a loop')
        self._parents[child] = parent

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent and so on up to the root."""
        found = [frame]
        while found[-1] in self._parents:
            found.append(self._parents[found[-1]])
        return found

    def _chain(self, frames: list[str], stamp_ns: int, target: str, source: str) -> Float64:
        """The transforms of `frames` to their parents, one after another."""
        result = np.eye(4)
        for frame in frames:
            if frame in self._static:
                step = self._static[frame]
            else:
                track = self._dynamic[frame]
                first, last = track.stamps[0], track.stamps[-1]
                if not first <= stamp_ns <= last:
                    raise TransformError(
                        f'no transform {source!r} -> {target!r} at {stamp_ns} ns: '
                        f'{frame!r} -> {self._parents[frame]!r} is known from {first} to {last} ns'
                    )
                step = track.at(stamp_ns)
            result = step @ result
        return result

    def _unconnected(self, target: str, source: str) -> str:
        known = set(self.frames)
        missing = [repr(frame) for frame in (source, target) if frame not in known]
        reason = f'unknown frame {missing[0]}' if missing else 'they are not connected'
        frames = ', '.join(self.frames) or 'none'
        return f'no transform {source!r} -> {target!r}: {reason}; known frames: {frames}'


@dataclass
class _Track:
    """Poses of one child frame, sorted by stamp."""

    stamps: list[int]
    poses: list[Float64]

    def insert(self, stamp_ns: int, child2parent: Float64) -> None:
        index = bisect_left(self.stamps, stamp_ns)
        pose = np.array(child2parent, dtype=np.float64)
        if index < len(self.stamps) and self.stamps[index] == stamp_ns:
            self.poses[index] = pose
        else:
            self.stamps.insert(index, stamp_ns)
            self.poses.insert(index, pose)

    def at(self, stamp_ns: int) -> Float64:
        """The pose at a stamp that is not outside."""
        index = bisect_left(self.stamps, stamp_ns)
        if self.stamps[index] == stamp_ns:
            return self.poses[index]
        before, after = self.stamps[index - 1], self.stamps[index]
        return interpolate(
            self.poses[index - 1], self.poses[index], (stamp_ns - before) / (after - before)
        )


def interpolate(start: Float64, end: Float64, fraction: float) -> Float64:
    """Rigid transform [4, 4] at `fraction` of the way: linear translation, slerp of the rotation.

    The rotation takes the shorter way round. The angle between the two unit quaternions is
    2 atan2(|q1 - q0|, |q1 + q0|): accurate where the arc cosine of their product is not.
    """
    q0 = np.array(to_quaternion(start[:3, :3]))
    q1 = np.array(to_quaternion(end[:3, :3]))
    if q0 @ q1 < 0:
        q1 = -q1
    angle = 2 * float(np.arctan2(np.linalg.norm(q1 - q0), np.linalg.norm(q1 + q0)))
    if angle < SMALL_ANGLE:  # sin(x)/x is 1 in float64
        turn = q0 + fraction * (q1 - q0)
    else:
        turn = np.sin((1 - fraction) * angle) * q0 + np.sin(fraction * angle) * q1
        turn /= np.sin(angle)
    x, y, z, w = turn.tolist()
    translation = (1 - fraction) * start[:3, 3] + fraction * end[:3, 3]
    return transform(from_quaternion(x, y, z, w), translation)
