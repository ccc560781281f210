"""The second half of the detectors: what Triton has put out of the networks, to boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.preprocess import Letterbox
from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, LidarConfig
from airside_perception.engine import EngineInfo, TensorSpec
from airside_perception.engine.base import Backend, Tensors
from airside_perception.errors import EngineError
from airside_perception.lidar.detector import LidarDetector
from airside_perception.types import Boxes2D, Boxes3D, Image


class Served(Backend):
    """A network that runs elsewhere: what it put out is given, then `infer` returns it.

    Args:
        name: for messages.
        inputs, outputs: of the network.
    """

    def __init__(
        self, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        self._info = EngineInfo(name, 'triton', '', 'elsewhere', '')
        self._inputs, self._outputs = inputs, outputs
        self._answer: Tensors = {}

    def give(self, outputs: Tensors) -> None:
        """What `infer` is to return.

        Raises:
            EngineError: an output is missing, or has another shape or dtype.
        """
        for spec in self._outputs:
            value = outputs.get(spec.name)
            if value is None:
                raise EngineError(f'{self._info.path}: output {spec.name!r} is missing')
            if value.dtype != spec.dtype or not spec.accepts(value.shape):
                raise EngineError(
                    f'{self._info.path}: output {spec.name!r} is {value.dtype.name} '
                    f'{list(value.shape)}, expected {spec}'
                )
        self._answer = outputs

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """What was given last, whatever the feeds are."""
        return dict(self._answer)

    def close(self) -> None:
        """Nothing to free."""


class CameraHead(CameraDetector):
    """`CameraDetector` from the output of its network on.

    Raises:
        EngineError: the inputs and outputs are not those of the card.
    """

    def __init__(self, served: Served, card: CameraCard, config: CameraConfig) -> None:
        super().__init__(served, card, config)
        self._served = served
        self._preprocess: Any = self._where
        self._nothing = np.empty(0, np.float32)

    def decode(self, output: NDArray[Any], height: int, width: int, frame_id: str) -> Boxes2D:
        """Boxes of an image of this size, as `detect` gives them; stamp 0.

        Args:
            output: of the network, [1, cells, 5 + classes].

        Raises:
            EngineError: it has another shape or dtype, or is not finite.
        """
        self._served.give({self.card.output_name: output})
        size = np.zeros((height, width), np.uint8)  # pages that nobody touches
        return self.detect(Image(0, frame_id, size, 'mono8'))

    def _where(self, image: Image) -> tuple[NDArray[Any], Letterbox]:
        """Where the image lay in the input; the input itself was elsewhere."""
        height, width = image.data.shape
        return self._nothing, Letterbox.fit(height, width, self.card)


class LidarHead(LidarDetector):
    """`LidarDetector` from the outputs of its network on.

    Raises:
        EngineError: the inputs and outputs are not those of the card.
    """

    def __init__(self, served: Served, card: LidarCard, config: LidarConfig) -> None:
        super().__init__(served, card, config)
        self._served = served

    def decode(self, outputs: Mapping[str, NDArray[Any]], frame_id: str) -> Boxes3D:
        """Boxes in the frame in which the pillars were filled, as `detect` gives them; stamp 0.

        Raises:
            EngineError: another shape or dtype, or values that are not finite.
        """
        self._served.give(outputs)
        config = self.config
        found = self._decoder.decode(
            self._served.infer({}), self._labels.thresholds(config), config.max_candidates
        )
        kept = self._suppress(found, config)[: config.max_detections]
        return self._labels.publish(
            0,
            frame_id,
            found.boxes[kept],
            found.scores[kept],
            found.labels[kept],
            config,
            found.velocities[kept],
        )
