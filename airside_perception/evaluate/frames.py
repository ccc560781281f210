"""One frame of an evaluation: what is there, what was found, and which part of it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.errors import MessageError
from airside_perception.types import Float64, Int64

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """Detections of one frame.

    Attributes:
        classes: N names.
        boxes: float64 [N, 7], (x, y, z of the centre, length, width, height, yaw), metres.
        scores: float64 [N].
        velocities: float64 [N, 2], m/s over ground; NaN where the detector has none.
        labelled: bool [N]; False: nobody labelled what there is: it may find an object, and is no
            false alarm if it finds none.
    """

    classes: tuple[str, ...]
    boxes: Float64
    scores: Float64
    velocities: Float64 | None = None
    labelled: Mask | None = None

    def __post_init__(self) -> None:
        _check(self, 'boxes', 7)
        _fill(self, 'velocities', (len(self.classes), 2), np.nan)
        _fill(self, 'labelled', (len(self.classes),), True)
        if np.shape(self.scores) != (len(self.classes),):
            raise MessageError(
                f'{len(self.classes)} detections have scores of shape {np.shape(self.scores)}'
            )

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, rows: Any) -> Found:
        """Those at `rows` (indices or a mask), in that order."""
        return replace(self, **_rows_of(self, rows))


@dataclass(frozen=True)
class Truth:
    """What is there in one frame.

    Attributes:
        classes, boxes, velocities: as those of `Found`, of N objects.
        visibility: float64 [N], 0..1, the share that no other object hides; NaN: not known.
        points: int64 [N], lidar points on each; -1: not known.
        asked: bool [N]; False: an object that need not be found, and may be once: what finds it
            is no false alarm.
    """

    classes: tuple[str, ...]
    boxes: Float64
    velocities: Float64 | None = None
    visibility: Float64 | None = None
    points: Int64 | None = None
    asked: Mask | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        _check(self, 'boxes', 7)
        _fill(self, 'velocities', (count, 2), np.nan)
        _fill(self, 'visibility', (count,), np.nan)
        _fill(self, 'points', (count,), -1)
        _fill(self, 'asked', (count,), True)

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, rows: Any) -> Truth:
        """Those at `rows` (indices or a mask), in that order."""
        return replace(self, **_rows_of(self, rows))


@dataclass(frozen=True)
class Frame:
    """Detections beside what is there.

    Attributes:
        name: where the frame comes from, for reports.
        conditions: e.g. {'weather': 'rain', 'light': 'night'}.
    """

    truth: Truth
    found: Found
    name: str = ''
    conditions: dict[str, str] = field(default_factory=dict)

    def within(self, ask: Callable[[Truth], Mask], keep: Callable[[Found], Mask]) -> Frame:
        """The same frame with only some objects asked for and only some detections.

        Objects that are not asked for stay, so that one detection of each is no false alarm.
        """
        asked = np.asarray(self.truth.asked) & ask(self.truth)
        truth = replace(self.truth, asked=asked)
        return replace(self, truth=truth, found=self.found.select(keep(self.found)))

    def in_range(self, nearest: float, farthest: float) -> Frame:
        """Only what is this far from the origin, seen from above, metres."""

        def inside(item: Truth | Found) -> Mask:
            far = np.hypot(item.boxes[:, 0], item.boxes[:, 1])
            mask: Mask = (far >= nearest) & (far < farthest)
            return mask

        return self.within(inside, inside)


def classes_of(frames: Iterable[Frame]) -> tuple[str, ...]:
    """Names of the objects that are asked for, sorted."""
    names: set[str] = set()
    for frame in frames:
        asked = np.asarray(frame.truth.asked)
        names |= {name for name, one in zip(frame.truth.classes, asked, strict=True) if one}
    return tuple(sorted(names))


def _check(item: Any, name: str, width: int) -> None:
    value = np.asarray(getattr(item, name), dtype=np.float64)
    if value.size == 0:
        value = value.reshape(0, width)
    if value.shape != (len(item.classes), width):
        raise MessageError(
            f'{len(item.classes)} classes have {name} of shape {value.shape}, expected '
            f'[{len(item.classes)}, {width}]'
        )
    if not np.isfinite(value).all():
        raise MessageError(f'{name} of an evaluation are not finite')
    object.__setattr__(item, name, value)


def _fill(item: Any, name: str, shape: tuple[int, ...], plain: Any) -> None:
    value = getattr(item, name)
    value = np.full(shape, plain) if value is None else np.asarray(value)
    if value.shape != shape:
        raise MessageError(f'{name} have shape {value.shape}, expected {shape}')
    object.__setattr__(item, name, value)


def _rows_of(item: Any, rows: Any) -> dict[str, Any]:
    index = np.arange(len(item))[rows]
    changes: dict[str, Any] = {'classes': tuple(item.classes[i] for i in index)}
    for name in item.__dataclass_fields__:
        if name != 'classes':
            changes[name] = getattr(item, name)[index]
    return changes
