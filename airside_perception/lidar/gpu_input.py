"""What a cloud and the settings of a detector look like to the GPU: one block, one copy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.cuda.frame import FRAME, LABELS
from airside_perception.cuda.queue import Queue
from airside_perception.errors import ConfigError
from airside_perception.lidar.candidates import logits_of
from airside_perception.lidar.ego import ego_box
from airside_perception.lidar.labels import Labels, points_for
from airside_perception.types import Float64, PointCloud

HEADER = FRAME.itemsize
POINT = 16
"""Bytes of a point: x, y, z and intensity or time_lag as float32."""
BATCH = 8192
"""Points are copied in multiples of this, 2 us each: a recorded graph needs no change then for
clouds of nearly one size, which costs more."""


class CloudBlock:
    """Page-locked memory for a frame and its points, and the place on the device where they go.

    Attributes:
        frame: the `cuda.frame.FRAME` on the device.
        points: float32 [capacity, 4] on the device.
        dropped: points of the last cloud that were beyond the capacity.
    """

    def __init__(self, queue: Queue, card: LidarCard, labels: Labels, capacity: int) -> None:
        if len(card.classes) > LABELS:
            raise ConfigError(f'{card.name}: {len(card.classes)} classes; the GPU takes {LABELS}')
        size = HEADER + POINT * capacity
        self._queue, self._card, self._labels = queue, card, labels
        self._capacity = capacity
        self._pinned = queue.pinned(size, np.uint8)
        self._device = queue.alloc(size, np.uint8)
        self.frame = self._device.part(0, (1,), FRAME)
        self.points = self._device.part(HEADER, (capacity, 4), np.float32)
        host: NDArray[np.uint8] = self._pinned.array
        self._host_frame = host[:HEADER].view(FRAME)
        self._host_points = host[HEADER:].view(np.float32).reshape(capacity, 4)
        self._host_frame[:] = np.zeros(1, FRAME)
        self._host_frame['groups'][0, : len(labels.groups)] = labels.groups
        self._host_frame['thresholds'] = np.inf
        self._config: LidarConfig | None = None
        self.dropped = 0

    def pack(
        self, cloud: PointCloud, config: LidarConfig, lidar2target: Float64 | None = None
    ) -> int:
        """Writes a cloud and the settings; returns the number of bytes that are to be copied.

        Args:
            lidar2target: [4, 4] from the frame of the cloud to that of the network; None: they
                are one.

        Raises:
            MessageError: the network needs the intensity, and the cloud has none.
        """
        columns = len(self._card.point_columns)
        points = points_for(self._card, cloud)
        n = min(len(points), self._capacity)
        if points.shape[1] == 4:
            self._host_points[:n] = points[:n]  # one block if the cloud is one
        else:
            self._host_points[:n, :columns] = points[:n, :columns]
        self._host_frame['points'] = n
        self.dropped = len(points) - n
        self._host_frame['moved'] = lidar2target is not None
        if lidar2target is not None:
            self._host_frame['motion'] = lidar2target[:3]
        if config is not self._config:
            self._set(config)
        return HEADER + POINT * min(-(-n // BATCH) * BATCH, self._capacity)

    def copy_in(self, nbytes: int | None = None) -> None:
        """Enqueues the copy of the first bytes, None: of all, as a graph records it."""
        self._queue.copy_in(self._device, self._pinned, nbytes)

    def _set(self, config: LidarConfig) -> None:
        frame = self._host_frame
        frame['most'] = config.max_candidates
        frame['max_detections'] = config.max_detections
        frame['min_range2'] = np.float32(config.min_range**2)
        frame['ego_low'][0], frame['ego_high'][0] = ego_box(config)
        frame['intensity_scale'] = config.intensity_scale if self._card.needs_intensity else 1.0
        frame['nms_iou'] = config.nms_iou
        frame['nms_iou_across'] = config.nms_iou_across
        thresholds = logits_of(self._labels.thresholds(config))
        frame['thresholds'][0, : len(thresholds)] = thresholds
        self._config = config
