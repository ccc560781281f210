"""The camera detector: image to boxes in the image to boxes on the ground."""

from __future__ import annotations

import numpy as np

from airside_perception.camera.lift import in_sky, lift
from airside_perception.camera.preprocess import Letterbox, Preprocessor
from airside_perception.camera.yolox import Candidates, YoloxDecoder
from airside_perception.card import CameraCard
from airside_perception.card.scores import network_threshold, published_scores
from airside_perception.config import CameraConfig
from airside_perception.engine.base import Engine, require
from airside_perception.errors import EngineError
from airside_perception.overlap import nms_2d
from airside_perception.projection import CameraModel
from airside_perception.timing import Laps
from airside_perception.types import Boxes2D, Boxes3D, Float64, Image, by_score


class CameraNetwork:
    """What detection on the CPU and on the GPU share: the checks, the end of it, the lift.

    Attributes:
        card: of the network.
        config: may be replaced between two images.
        timings: {stage: ms} of the last image.
        not_lifted: 2D boxes of the last `lift` that have no place on the ground in range.
        in_sky: those of them that are far above the horizon, see `camera.lift.in_sky`.
        tilt: radians between the optical axis and the vertical in the last `lift`, 0 to pi / 2.

    Raises:
        EngineError: the inputs and outputs of the engine are not those of the card.
    """

    def __init__(self, engine: Engine, card: CameraCard, config: CameraConfig) -> None:
        self.card = card
        self.config = config
        self.timings: dict[str, float] = {}
        self.not_lifted = self.in_sky = 0
        self.tilt = 0.0
        self._engine = engine
        self._decode = YoloxDecoder(card)
        given = require(engine, 'input', card.input_name, (1, 3, card.height, card.width))
        output = require(engine, 'output', card.output_name, self._decode.shape)
        for kind, spec in (('input', given), ('output', output)):
            if spec.dtype not in (np.float32, np.float16):
                raise EngineError(
                    f'{engine.info.path}: {kind} {spec}; a YOLOX network takes float32 or float16'
                )
        self._input_dtype = given.dtype

    def lift(self, boxes: Boxes2D, camera: CameraModel, camera2ground: Float64) -> Boxes3D:
        """Boxes of an image on the plane z = 0 of `config.ground_frame`; see `camera.lift`.

        Raises:
            TransformError: the camera is not above the ground.
        """
        laps = Laps()
        lifted = lift(boxes, camera, camera2ground, self.card.sizes, self.config)
        self.not_lifted = len(boxes) - len(lifted)
        self.in_sky = int(in_sky(boxes, camera, camera2ground).sum()) if self.not_lifted else 0
        self.tilt = float(np.arccos(min(abs(camera2ground[2, 2]), 1.0)))
        laps('lift')
        self.timings.update(laps.ms)
        return lifted

    def _thresholds(self, config: CameraConfig) -> Float64:
        """Lowest score of the network for every published class, see `card.scores`."""
        own = {**self.card.thresholds, **config.score_thresholds}
        lowest = [max(config.score_threshold, own.get(name, 0.0)) for name in self.card.published]
        if self.card.calibration:
            pairs = zip(self.card.published, lowest, strict=True)
            lowest = [network_threshold(self.card, *pair) for pair in pairs]
        return np.array(lowest)

    def _answer(
        self, image: Image, letterbox: Letterbox, kept: Candidates, config: CameraConfig
    ) -> Boxes2D:
        """The boxes that are left after suppression, `xyxy` in pixels of the image."""
        xyxy = letterbox.clip(kept.xyxy)
        visible = np.flatnonzero((xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]))
        seen = visible[: config.max_detections]
        names = tuple(self.card.published[i] for i in kept.classes[seen])
        scores = published_scores(self.card, names, kept.scores[seen])
        boxes = Boxes2D(image.stamp_ns, image.frame_id, xyxy[seen], scores, names)
        return boxes.select(by_score(scores)) if self.card.calibration else boxes


class CameraDetector(CameraNetwork):
    """Runs one YOLOX-family network on the images of one camera.

    `timings` has the stages preprocess, engine, decode, nms, and after `lift` that.

    Raises:
        EngineError: as `CameraNetwork`.
    """

    def __init__(self, engine: Engine, card: CameraCard, config: CameraConfig) -> None:
        super().__init__(engine, card, config)
        self._preprocess = Preprocessor(card, self._input_dtype)

    def detect(self, image: Image) -> Boxes2D:
        """Objects in an image, best first, in its own pixels and clipped to it.

        Raises:
            MessageError: the encoding of the image is not known, or its data contradicts it.
            EngineError: the network failed or returned no numbers.
        """
        config, laps = self.config, Laps()
        tensor, letterbox = self._preprocess(image)
        laps('preprocess')
        output = self._engine.infer({self.card.input_name: tensor})[self.card.output_name]
        laps('engine')
        candidates = self._decode(output, self._thresholds(config), config.max_candidates)
        laps('decode')
        kept = _suppressed(letterbox, candidates, config)
        boxes = self._answer(image, letterbox, kept, config)
        laps('nms')
        self.timings = laps.ms
        return boxes

    def close(self) -> None:
        """Frees nothing: the engine belongs to whoever opened it. May be called again."""


def _suppressed(letterbox: Letterbox, found: Candidates, config: CameraConfig) -> Candidates:
    """Candidates that no better one overlaps too much, `xyxy` in pixels of the image."""
    xyxy = letterbox.to_image(found.xyxy)
    kept = nms_2d(xyxy, found.scores, config.nms_iou, found.classes)
    across = max(config.nms_iou, config.nms_iou_across)
    kept = kept[nms_2d(xyxy[kept], found.scores[kept], across)]
    return Candidates(xyxy[kept], found.scores[kept], found.classes[kept])
