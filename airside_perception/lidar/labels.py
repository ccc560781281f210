"""From the labels of a network to what is published, and the thresholds that they must reach."""

from __future__ import annotations

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.errors import MessageError
from airside_perception.types import Boxes3D, Float64, Int64, PointCloud


class Labels:
    """The labels of one network.

    Attributes:
        names: published class of each label, '' where it is dropped.
        groups: of the suppression: labels that are published under one name are one class to it.
    """

    def __init__(self, card: LidarCard) -> None:
        names = [card.published_name(label) for label in range(len(card.classes))]
        self.names = np.array(names)
        self.groups = np.array([names.index(name) for name in names])
        self._defaults = card.thresholds

    def thresholds(self, config: LidarConfig) -> list[float]:
        """Lowest score of every label; no score reaches that of a label that is dropped.

        So a dropped label takes no published one's place, neither at its anchor nor among the
        candidates.
        """
        own = {**self._defaults, **config.score_thresholds, '': 1.0}
        return [max(config.score_threshold, own.get(name, 0.0)) for name in self.names.tolist()]

    def publish(
        self,
        stamp_ns: int,
        frame_id: str,
        boxes: Float64,
        scores: Float64,
        labels: Int64,
        config: LidarConfig,
    ) -> Boxes3D:
        """Boxes [N, 7] with their scores [N] and label indices [N]."""
        return Boxes3D(
            stamp_ns,
            frame_id,
            boxes,
            scores,
            tuple(self.names[labels].tolist()),
            _covariances(boxes, config),
        )


def intensity_column(card: LidarCard, cloud: PointCloud) -> int:
    """Where the intensity is, that the network needs.

    Raises:
        MessageError: the cloud has none.
    """
    if 'intensity' not in cloud.fields:
        raise MessageError(
            f'the cloud has the fields {", ".join(cloud.fields)}, but {card.name} '
            'needs intensity: use a network without it, or let the driver publish it'
        )
    return cloud.fields.index('intensity')


def _covariances(boxes: Float64, config: LidarConfig) -> Float64:
    """Covariances [N, 4, 4] of (x, y, z, yaw): equal along all axes, growing with range."""
    range_m = np.hypot(boxes[:, 0], boxes[:, 1])
    sigma = config.position_sigma + config.position_sigma_per_m * range_m
    covariances = np.zeros((len(boxes), 4, 4))
    covariances[:, [0, 1, 2], [0, 1, 2]] = np.square(sigma)[:, None]
    covariances[:, 3, 3] = config.yaw_sigma**2
    return covariances
