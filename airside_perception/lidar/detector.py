"""The lidar detector: a point cloud to boxes in space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.engine.base import Engine, require
from airside_perception.errors import EngineError
from airside_perception.geometry import move_cloud
from airside_perception.lidar.anchors import AnchorDecoder
from airside_perception.lidar.candidates import Candidates
from airside_perception.lidar.centers import CenterDecoder
from airside_perception.lidar.ego import without_ego
from airside_perception.lidar.encoder import Encoder
from airside_perception.lidar.labels import Labels, points_for
from airside_perception.lidar.pillars import Grid
from airside_perception.overlap import nms_bev
from airside_perception.timing import Laps
from airside_perception.types import Boxes3D, Float32, Float64, Int64, PointCloud


class LidarDetector:
    """Runs one network on pillars, PointPillars or CenterPoint, on the clouds of one lidar.

    Attributes:
        card: of the network.
        config: may be replaced between two clouds.
        timings: {stage: ms} of the last cloud: move (of the cloud to the network's frame, where it
            is not in it), pillars, encoder, engine, decode, nms.
        last_pillars: occupied pillars of the last cloud, also those beyond `card.max_pillars`.
        last_usable: points of the last cloud within the range of the network.
        last_dropped_points: 0: clouds of any size are taken whole.

    Raises:
        EngineError: the inputs and outputs of the engine are not those of the card.
    """

    def __init__(self, engine: Engine, card: LidarCard, config: LidarConfig) -> None:
        self.card = card
        self.config = config
        self.timings: dict[str, float] = {}
        self.last_pillars = 0
        self.last_usable = 0
        self.last_dropped_points = 0
        self._engine = engine
        self._dtype = check_engine(engine, card)
        self._grid = Grid.of(card)
        self._encoder = Encoder(card)
        self._decoder = AnchorDecoder(card) if card.centers is None else CenterDecoder(card)
        self._labels = Labels(card)

    def detect(self, cloud: PointCloud, lidar2target: Float64 | None = None) -> Boxes3D:
        """Objects in a cloud, best first, in the frame of the network.

        Args:
            cloud: in any frame.
            lidar2target: [4, 4] from that frame to `config.target_frame`, which is that of the
                network; None: the cloud is in the network's frame.

        Raises:
            MessageError: the cloud has no intensity, and the network needs it.
            EngineError: the network failed or put out values that are not finite.
        """
        config, laps = self.config, Laps()
        if lidar2target is not None:
            cloud = move_cloud(cloud, lidar2target, config.target_frame)
            laps('move')
        points = self._usable(cloud, config)
        pillars = self._grid.fill(points)
        laps('pillars')
        canvas = self._encoder.encode(points, pillars, config.intensity_scale)
        laps('encoder')
        outputs = self._engine.infer({self.card.input_name: self._as_input(canvas)})
        laps('engine')
        found = self._decoder.decode(
            outputs, self._labels.thresholds(config), config.max_candidates
        )
        laps('decode')
        kept = self._suppress(found, config)[: config.max_detections]
        laps('nms')
        self.last_pillars, self.last_usable = pillars.occupied, pillars.in_range
        self.timings = laps.ms
        return self._labels.publish(
            cloud.stamp_ns,
            cloud.frame_id,
            found.boxes[kept],
            found.scores[kept],
            found.labels[kept],
            config,
            found.velocities[kept],
        )

    def close(self) -> None:
        """Frees nothing: the engine belongs to whoever opened it. May be called again."""

    def _as_input(self, canvas: Float32) -> NDArray[Any]:
        """The canvas in the type of the engine's input; features too large for it are infinite."""
        with np.errstate(over='ignore'):
            return canvas.astype(self._dtype, copy=False)

    def _usable(self, cloud: PointCloud, config: LidarConfig) -> Float32:
        """Points [N, C or more] with the columns that the network needs, see `points_for`."""
        return without_ego(points_for(self.card, cloud), config)

    def _suppress(self, found: Candidates, config: LidarConfig) -> Int64:
        """Candidates that are published, best first: one a place and class, and one a place.

        First within each class. Then across classes, where more overlap is asked for: an IoU above
        t means that neither footprint is larger than 1 / t times the other, so the box of a
        vehicle cannot suppress the person beside it, while a truck and a bus at one place are one
        object.
        """
        published = np.flatnonzero(self._labels.names[found.labels] != '')
        boxes, scores = found.boxes[published], found.scores[published]
        groups = self._labels.groups[found.labels[published]]
        kept = nms_bev(boxes, scores, config.nms_iou, groups)
        across = max(config.nms_iou, config.nms_iou_across)
        kept = kept[nms_bev(boxes[kept], scores[kept], across)]
        chosen: Int64 = published[kept]
        return chosen


def check_engine(engine: Engine, card: LidarCard) -> np.dtype[Any]:
    """Compares an engine with its card; returns the type of the canvas.

    Raises:
        EngineError: an input or output is missing, or not what the card says.
    """
    canvas = require(engine, 'input', card.input_name, (1, len(card.bias), *card.grid))
    outputs = [
        require(engine, 'output', name, (1, channels, *card.output_grid))
        for name, channels in card.outputs.items()
    ]
    for kind, spec in [('input', canvas), *(('output', spec) for spec in outputs)]:
        if spec.dtype not in (np.float32, np.float16):
            raise EngineError(f'{engine.info.path}: {kind} {spec}; expected float32 or float16')
    return canvas.dtype
