"""The ways of one message through the core: what a node does between callback and publication.

Nothing here knows ROS or recordings; transforms come from a `TransformSource`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.preprocess import image_size
from airside_perception.card import CameraCard, LidarCard, ModelCard, find_card
from airside_perception.config import CameraConfig, EngineConfig, FusionConfig, LidarConfig
from airside_perception.engine import Engine, open_engine
from airside_perception.errors import ConfigError, MessageError, PerceptionError, TransformError
from airside_perception.fusion.align import align_set
from airside_perception.fusion.fusion import Fusion, FusionResult
from airside_perception.geometry import move_cloud
from airside_perception.lidar.detector import LidarDetector
from airside_perception.parameter import from_values
from airside_perception.projection import CameraModel
from airside_perception.resources import model_file
from airside_perception.transforms import TransformSource
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

Config = TypeVar('Config', bound=EngineConfig)
Card = TypeVar('Card', bound=ModelCard)


@dataclass(frozen=True)
class Network(Generic[Config, Card]):
    """What a detector runs: its settings, complete with those of the classes, and its files."""

    config: Config
    card: Card
    path: Path

    def open(self) -> Engine:
        """Opens the network.

        Raises:
            EngineError: as `open_engine`.
        """
        config = self.config
        return open_engine(self.path, config.dla_core, config.precision, config.threads)


def find_network(
    kind: type[Config], card_type: type[Card], values: Mapping[str, Any]
) -> Network[Config, Card]:
    """The network that flat parameter values name, with its card and its settings.

    Args:
        kind: `CameraConfig` or `LidarConfig`.
        card_type: what its cards are.
        values: {parameter: value}; the classes of the card add `score_thresholds.CLASS`.

    Raises:
        ConfigError: unknown parameter, wrong value, no network, or a card of another kind.
    """
    plain = from_values(kind, {k: v for k, v in values.items() if '.' not in k})
    path = model_file(plain.engine_path)
    card = find_card(path, str(model_file(plain.card_path)) if plain.card_path else '')
    if not isinstance(card, card_type):
        raise ConfigError(
            f'{card.path}: architecture {card.architecture} is no {card_type.__name__}'
        )
    thresholds = {name: card.thresholds.get(name, 0.0) for name in card.published}
    return Network(from_values(kind, values, {'score_thresholds': thresholds}), card, path)


class CameraPipeline:
    """Images of one camera to boxes in the image and on the ground."""

    def __init__(self, network: Network[CameraConfig, CameraCard], engine: Engine) -> None:
        self.detector = CameraDetector(engine, network.card, network.config)

    def detect(self, image: Image) -> Boxes2D:
        """See `CameraDetector.detect`."""
        return self.detector.detect(image)

    def lift(
        self, boxes: Boxes2D, image: Image, camera: CameraModel, transforms: TransformSource
    ) -> Boxes3D:
        """Boxes of `image` on the ground.

        Raises:
            MessageError: the calibration is for another size or frame than that of the image.
            TransformError: the place of the camera at the stamp of the image is not known.
        """
        check_camera(camera, image)
        ground = self.detector.config.ground_frame
        camera2ground = transforms.lookup(ground, image.frame_id, image.stamp_ns)
        return self.detector.lift(boxes, camera, camera2ground)


class LidarPipeline:
    """Clouds of one lidar to boxes in the target frame."""

    def __init__(self, network: Network[LidarConfig, LidarCard], engine: Engine) -> None:
        self.detector = LidarDetector(engine, network.card, network.config)

    @property
    def needed_fields(self) -> tuple[str, ...]:
        """Fields beside x, y, z that clouds must have."""
        return ('intensity',) if self.detector.card.needs_intensity else ()

    def detect(self, cloud: PointCloud, transforms: TransformSource) -> Boxes3D:
        """Boxes in the target frame at the stamp of the cloud.

        Raises:
            TransformError: the place of the lidar at that stamp is not known.
            MessageError, EngineError: as `LidarDetector.detect`.
        """
        target = self.detector.config.target_frame or cloud.frame_id
        if cloud.frame_id != target:
            lidar2target = transforms.lookup(target, cloud.frame_id, cloud.stamp_ns)
            cloud = move_cloud(cloud, lidar2target, target)
        return self.detector.detect(cloud)


class FusionPipeline:
    """Sets of detections to fused objects."""

    def __init__(self, config: FusionConfig) -> None:
        self.fusion = Fusion(config)

    def fuse(
        self,
        detections: Mapping[str, Boxes3D],
        cameras: Mapping[str, CameraModel],
        transforms: TransformSource,
        stamp_ns: int,
    ) -> tuple[FusionResult, Mapping[str, PerceptionError]]:
        """One set, see `fusion.align.align_set` and `Fusion.fuse`.

        Returns:
            The objects, and why a source is missing among them or took part without its lens.

        Raises:
            TransformError: no source at all could be brought to the fusion frame: that is no
                answer, not an answer without objects.
        """
        aligned = align_set(detections, cameras, transforms, self.fusion.config, stamp_ns)
        if aligned.lidar is None and not aligned.cameras:
            reasons = '; '.join(f'{name}: {error}' for name, error in aligned.failures.items())
            raise TransformError(f'nothing to fuse: {reasons}')
        result = self.fusion.fuse(
            aligned.lidar, aligned.cameras, aligned.stamp_ns, aligned.frame_id
        )
        return result, aligned.failures


def check_camera(camera: CameraModel, image: Image) -> None:
    """Compares a calibration with the image that it is to be used for.

    Raises:
        MessageError: another size or frame.
    """
    rows, columns = image_size(image)
    if (camera.height, camera.width) != (rows, columns):
        raise MessageError(
            f'image of {columns} x {rows} pixels, but camera_info is for '
            f'{camera.width} x {camera.height}'
        )
    if camera.frame_id not in ('', image.frame_id):
        raise MessageError(
            f'image of frame {image.frame_id!r}, but camera_info is for {camera.frame_id!r}'
        )


def with_threads(network: Network[Config, Card], threads: int) -> Network[Config, Card]:
    """The same network on a fixed number of CPU threads, unless its settings fix one already."""
    if network.config.threads:
        return network
    return replace(network, config=replace(network.config, threads=threads))
