"""Whether the boxes of a camera find their place on the ground: a wrong frame gives none."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from airside_perception.nodes.diagnostics import WARN, Report

LIMIT_S = 5.0
"""Boxes that have been in the sky for this long, and no other, say that the camera is not where
its transform says; a gap of as long between boxes says nothing."""
NEAR_VERTICAL_DEG = 30.0
"""An axis this near to the vertical is hardly that of a camera."""


class Lifting:
    """What became of the boxes of one camera's images; for any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._first: float | None = None
        self._last = 0.0
        self._count = 0
        self._frame, self._tilt = '', 0.0

    def saw(self, boxes: int, in_sky: int, frame: str, tilt: float) -> None:
        """One image was lifted.

        Args:
            boxes: in the image; none say nothing.
            in_sky: how many of them, see `camera.detector.CameraNetwork`.
            frame: of the image.
            tilt: radians between its z axis and the vertical.
        """
        with self._lock:
            if 0 < boxes == in_sky:
                now = self._now()
                if self._first is None or now - self._last > LIMIT_S:
                    self._first, self._count = now, 0
                self._last = now
                self._count += boxes
                self._frame, self._tilt = frame, math.degrees(tilt)
            elif boxes:
                self._first = None

    def find(self, report: Report) -> None:
        """Adds for how long all boxes have been in the sky, and what that may mean."""
        with self._lock:
            first, last = self._first, self._last
            lasted = 0.0 if first is None or self._now() - last > LIMIT_S else last - first
            count, frame, tilt = self._count, self._frame, self._tilt
        report.add('not_lifted_s', lasted)
        if lasted <= LIMIT_S:
            return
        hint = 'are camera_info and the transform right?'
        if tilt < NEAR_VERTICAL_DEG:
            hint = (
                f'is frame_id {frame!r} an optical frame (z forward)? Its z axis is {tilt:.0f} '
                'degrees from the vertical'
            )
        report.find(
            WARN,
            f'not_lifted_s {lasted:.1f}, limit {LIMIT_S:g}: all {count} boxes lie in the sky and '
            f'have no place on the ground; {hint}',
        )
