"""Several sweeps as one cloud, for networks that see past ones beside the newest.

A past sweep was taken from elsewhere: its points are moved by the odometry to where they are now,
seen from the target frame at the newest stamp. What stands still falls onto itself then, and what
moves leaves a trail, from which the network tells velocities. `time_lag` says how old the sweep of
a point is, in seconds, as in the densification of Autoware's lidar_centerpoint.

The newest sweep stands first and older ones follow by age: where a pillar has too many points, it
keeps the first (rule 4 of `lidar.pillars`), which are the newest.

The vehicle's own body is left out of every sweep at its own stamp: moved, it would be elsewhere.

Where the newest sweep shows the network nothing, it is alone: what is found is said to be there at
its stamp, and a blind lidar shall not be hidden by what it saw before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.errors import TransformError
from airside_perception.geometry import move_cloud
from airside_perception.lidar.ego import without_ego
from airside_perception.lidar.labels import points_for
from airside_perception.lidar.pillars import Grid
from airside_perception.transforms import TransformSource
from airside_perception.types import PointCloud

NS_PER_S = 1_000_000_000


class Sweeps:
    """The past sweeps of one lidar, for one network.

    Attributes:
        last_sweeps: past sweeps that the last cloud was joined with.
        last_missing: why they were not as many as wanted; '' where they were.
        last_error: the transform that was missing for the newest such one; None: none was.
        alone: clouds in a row without any past sweep, though some are wanted.
    """

    def __init__(self, card: LidarCard) -> None:
        self.last_sweeps = 0
        self.last_missing = ''
        self.last_error: TransformError | None = None
        self.alone = 0
        self._card = card
        self._grid = Grid.of(card)
        self._past: deque[PointCloud] = deque(maxlen=card.past_sweeps)  # the newest first
        self._body: tuple[float, ...] = ()  # what they were taken without

    def join(
        self, cloud: PointCloud, config: LidarConfig, transforms: TransformSource
    ) -> PointCloud:
        """The cloud with the past sweeps that can be had, and remembers it.

        Args:
            cloud: the newest sweep, in the target frame at its stamp.

        Returns:
            A cloud whose fields are `card.point_columns`, in the same frame.

        Raises:
            MessageError: the network needs the intensity, and the cloud has none.
        """
        points = without_ego(points_for(self._card, cloud), config)
        newest = replace(cloud, points=points, fields=self._card.point_columns)
        self.last_missing, self.last_error = '', None
        self._forget(newest, (config.min_range, *config.ego_box))
        past = self._moved(newest, config, transforms)
        self.last_sweeps = len(past)
        self.alone = 0 if past or not self.last_missing else self.alone + 1
        self._past.appendleft(newest)
        return replace(newest, points=np.concatenate([points, *(item.points for item in past)]))

    def _forget(self, newest: PointCloud, body: tuple[float, ...]) -> None:
        """Drops what is no past of this cloud.

        After a jump back in time, in another frame, or with another body of the vehicle left out.
        """
        changed, self._body = body != self._body, body
        if not self._past:
            self.last_missing = 'no cloud before this one'
            return
        last = self._past[0]
        if last.frame_id != newest.frame_id:
            self.last_missing = f'the last cloud was in frame {last.frame_id!r}'
        elif changed:
            self.last_missing = 'min_range or ego_box has changed'
        elif newest.stamp_ns == last.stamp_ns:  # a message that was sent twice
            self._past.popleft()
            return
        elif newest.stamp_ns < last.stamp_ns:
            back = (last.stamp_ns - newest.stamp_ns) / NS_PER_S
            self.last_missing = f'the stamp went back by {back:.3f} s'
        else:
            return
        self._past.clear()

    def _moved(
        self, newest: PointCloud, config: LidarConfig, transforms: TransformSource
    ) -> list[PointCloud]:
        """Past sweeps where their points are now, the newest first."""
        frame, now = newest.frame_id, newest.stamp_ns
        wanted = min(self._card.past_sweeps, config.past_sweeps)
        found: list[PointCloud] = []
        if wanted and not self._grid.any_inside(newest.points):
            self.last_missing = 'no point of this cloud is in the range of the network'
            return found
        for past in list(self._past)[:wanted]:
            age = (now - past.stamp_ns) / NS_PER_S
            if age > config.max_sweep_age:
                self.last_missing = (
                    f'a sweep is {age:.3f} s old, max_sweep_age {config.max_sweep_age:g} s'
                )
                break
            try:
                past2now = transforms.lookup_between(
                    frame, now, frame, past.stamp_ns, config.fixed_frame
                )
            except TransformError as error:
                self.last_error = self.last_error or error  # the first is the one waited for
                continue
            moved = move_cloud(past, past2now, frame)
            moved.points[:, -1] = age
            found.append(moved)
        if len(found) == wanted:
            self.last_missing = ''
        elif self.last_error is not None:  # says more than that others are too old
            self.last_missing = str(self.last_error)
        elif not self.last_missing:
            self.last_missing = f'clouds before this one: only {len(self._past)}'
        return found
