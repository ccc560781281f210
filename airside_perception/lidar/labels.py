"""From the labels of a network to what is published, and the thresholds that they must reach.

Also what it takes of a cloud.
"""

from __future__ import annotations

import numpy as np

from airside_perception.card import LidarCard
from airside_perception.card.scores import network_threshold, published_scores
from airside_perception.config import LidarConfig
from airside_perception.errors import MessageError
from airside_perception.types import YAW, Boxes3D, Float32, Float64, Int64, PointCloud, by_score


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
        self._card = card
        self._known: tuple[LidarConfig | None, list[float]] = None, []

    def thresholds(self, config: LidarConfig) -> list[float]:
        """Lowest score of the network for every label, see `card.scores`.

        No score reaches that of a label that is dropped. So a dropped label takes no published
        one's place, neither at its anchor nor among the candidates.
        """
        if config is not self._known[0]:
            own = {**self._card.thresholds, **config.score_thresholds, '': 1.0}
            lowest = [
                (name, max(config.score_threshold, own.get(name, 0.0)))
                for name in self.names.tolist()
            ]
            needed = [min(network_threshold(self._card, *item), 1.0) for item in lowest]
            self._known = config, needed
        return self._known[1]

    def publish(
        self,
        stamp_ns: int,
        frame_id: str,
        boxes: Float64,
        scores: Float64,
        labels: Int64,
        config: LidarConfig,
        velocities: Float64,
    ) -> Boxes3D:
        """Boxes [N, 7] with the network's scores [N] and label indices [N], best first.

        Velocities [N, 2] are those of `Boxes3D`.
        """
        if self._card.calibration:
            scores = published_scores(self._card, self.names[labels].tolist(), scores)
        found = Boxes3D(
            stamp_ns,
            frame_id,
            boxes,
            scores,
            tuple(self.names[labels].tolist()),
            self._covariances(boxes, labels, config),
            velocities=velocities,
        )
        return found.select(by_score(scores)) if self._card.calibration else found

    def _covariances(self, boxes: Float64, labels: Int64, config: LidarConfig) -> Float64:
        """Covariances [N, 4, 4] of (x, y, z, yaw): of the card for a class, growing with range."""
        plain = (config.position_sigma, config.position_sigma, config.yaw_sigma)
        known = [self._card.sigmas.get(name, plain) for name in self.names.tolist()]
        sigmas = np.array(known).reshape(-1, 3)[labels]
        growth = config.position_sigma_per_m * np.hypot(boxes[:, 0], boxes[:, 1])
        along, across = np.square(sigmas[:, :2] + growth[:, None]).T
        c, s = np.cos(boxes[:, YAW]), np.sin(boxes[:, YAW])
        covariances = np.zeros((len(boxes), 4, 4))
        covariances[:, 0, 0] = across + (along - across) * c * c  # equal ones stay bit by bit
        covariances[:, 1, 1] = across + (along - across) * s * s
        covariances[:, 0, 1] = covariances[:, 1, 0] = (along - across) * c * s
        covariances[:, 2, 2] = np.square(config.position_sigma + growth)
        covariances[:, 3, 3] = np.square(sigmas[:, 2])
        return covariances


def points_for(card: LidarCard, cloud: PointCloud) -> Float32:
    """The points [N, C or more] of a cloud, with the C columns `card.point_columns`.

    Of one sweep, which says no `time_lag`, it is 0.

    Raises:
        MessageError: the network needs the intensity, and the cloud has none.
    """
    columns, fields = card.point_columns, cloud.fields
    if fields[: len(columns)] == columns:
        return cloud.points
    if card.needs_intensity and 'intensity' not in fields:
        raise MessageError(
            f'the cloud has the fields {", ".join(fields)}, but {card.name} '
            'needs intensity: use a network without it, or let the driver publish it'
        )
    points = np.zeros((len(cloud), len(columns)), np.float32)
    for place, name in enumerate(columns):
        if name in fields:
            points[:, place] = cloud.points[:, fields.index(name)]
    return points
