"""Clouds of a recording with the past sweeps that a network sees beside them.

As the lidar node has them: the recorded clouds before a frame, moved by the recording's odometry
and joined by `lidar.sweeps`, with the node's default settings but for the fixed frame. Which
frames are asked for, and in which order, changes nothing: a frame is joined with its neighbours in
the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.deploy.sources import BagSource
from airside_perception.errors import PerceptionError
from airside_perception.lidar.sweeps import Sweeps
from airside_perception.types import PointCloud


class JoinedSource:
    """The clouds of one topic, each with those before it; see `sources.Source`.

    Args:
        source: of clouds, with all fields that the network needs; closed with this one.
        card: of a network with past sweeps.
        fixed_frame: as the parameter of the lidar node.

    Attributes:
        lead: so many frames at the beginning have not all past sweeps before them.
        settings: what else than the recording says how clouds are joined.
    """

    def __init__(self, source: BagSource, card: LidarCard, fixed_frame: str = 'odom') -> None:
        self.kind = source.kind
        self._source, self._card = source, card
        self._config = LidarConfig(fixed_frame=fixed_frame)
        self._wanted = min(card.past_sweeps, self._config.past_sweeps)
        self.lead = self._wanted
        self.settings = f'{self._wanted} {self._config.fixed_frame} {self._config.max_sweep_age}'
        self._near: dict[int, PointCloud | PerceptionError] = {}
        self._read: set[int] = set()
        self._fewer: dict[int, str] = {}
        self._broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._source)

    @property
    def note(self) -> str:
        """How many of the frames that were read have fewer past sweeps, and why; '' where none."""
        if not self._fewer:
            return ''
        reason = next(iter((self._broken or self._fewer).values()))
        return (
            f'{len(self._fewer)} of {len(self._read)} frames have fewer past sweeps than the '
            f'{self._wanted} that the network sees: {reason}'
        )

    def name(self, index: int) -> str:
        """Where a frame comes from."""
        self._approach(index)
        return self._source.name(index)

    def read(self, index: int) -> PointCloud:
        """A cloud with the columns `card.point_columns`, in the frame of the network.

        Raises:
            PerceptionError: it cannot be read; names it. A past sweep that cannot be is left out.
        """
        self._approach(index)
        newest = self._near.get(index)
        if not isinstance(newest, PointCloud):
            newest = self._near[index] = cast(PointCloud, self._source.read(index))
        sweeps = Sweeps(self._card)
        broken = ''
        for past in range(max(0, index - self._wanted), index):
            cloud = self._near[past]
            if isinstance(cloud, PerceptionError):
                broken = str(cloud)
            else:
                sweeps.join(cloud, self._config, self._source.transforms)
        joined = sweeps.join(newest, self._config, self._source.transforms)
        self._read.add(index)
        if sweeps.last_sweeps < self._wanted:
            self._fewer[index] = broken or sweeps.last_missing
            if broken or sweeps.last_error is not None:
                self._broken[index] = self._fewer[index]
        return joined

    def files(self, indices: Sequence[int]) -> list[Path]:
        """The files of the recording."""
        return self._source.files(indices)

    def close(self) -> None:
        """Closes the recording; may be called again."""
        self._near.clear()
        self._source.close()

    def _approach(self, index: int) -> None:
        """Reads the clouds before a frame, so that the recording need not be gone back in."""
        first = max(0, index - self._wanted)
        self._near = {at: item for at, item in self._near.items() if first <= at <= index}
        for past in range(first, index):
            if past not in self._near:
                try:
                    self._near[past] = cast(PointCloud, self._source.read(past))
                except PerceptionError as error:
                    self._near[past] = error
