"""The ways of one message through the core: what a node does between callback and publication.

Nothing here knows ROS or recordings; transforms come from a `TransformSource`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from airside_perception.camera.detector import CameraDetector
from airside_perception.camera.preprocess import image_size
from airside_perception.card import CameraCard, LidarCard
from airside_perception.config import CameraConfig, FusionConfig, LidarConfig
from airside_perception.engine import Engine
from airside_perception.errors import MessageError, PerceptionError, TransformError
from airside_perception.fusion.align import align_set
from airside_perception.fusion.fusion import Fusion, FusionResult
from airside_perception.geometry import move_cloud
from airside_perception.lidar.detector import LidarDetector
from airside_perception.lidar.sweeps import Sweeps
from airside_perception.network import Network
from airside_perception.projection import CameraModel
from airside_perception.timing import Laps
from airside_perception.transforms import TransformSource
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

if TYPE_CHECKING:
    from airside_perception.camera.gpu import CudaCameraDetector
    from airside_perception.lidar.gpu import CudaLidarDetector


class CameraPipeline:
    """Images of one camera to boxes in the image and on the ground."""

    def __init__(self, network: Network[CameraConfig, CameraCard], engine: Engine) -> None:
        self._engine = engine
        self.detector = _camera_detector(network, engine)

    def close(self) -> None:
        """Closes the detector, then its engine; may be called again."""
        try:
            self.detector.close()
        finally:
            self._engine.close()

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
    """Clouds of one lidar to boxes in the target frame.

    Attributes:
        sweeps: what the network sees beside the newest cloud; None: it sees one sweep.
    """

    def __init__(self, network: Network[LidarConfig, LidarCard], engine: Engine) -> None:
        self._engine = engine
        self.detector = _lidar_detector(network, engine)
        self.sweeps = Sweeps(network.card) if network.card.past_sweeps else None

    def close(self) -> None:
        """Closes the detector, then its engine; may be called again."""
        try:
            self.detector.close()
        finally:
            self._engine.close()

    @property
    def needed_fields(self) -> tuple[str, ...]:
        """Fields beside x, y, z that clouds must have."""
        return ('intensity',) if self.detector.card.needs_intensity else ()

    def detect(self, cloud: PointCloud, transforms: TransformSource) -> Boxes3D:
        """Boxes in the target frame at the stamp of the cloud.

        A past sweep whose motion is not known is left out, which `sweeps` tells. Without any,
        a network that wants them can only guess velocities: they are NaN then.

        Raises:
            TransformError: the place of the lidar at that stamp is not known.
            MessageError, EngineError: as `LidarDetector.detect`.
        """
        if self.sweeps is not None:
            return self._detect_in_several(self.sweeps, cloud, transforms)
        target = self.detector.config.target_frame
        if target in ('', cloud.frame_id):
            return self.detector.detect(cloud)
        lidar2target = transforms.lookup(target, cloud.frame_id, cloud.stamp_ns)
        return self.detector.detect(cloud, lidar2target)

    def _detect_in_several(
        self, sweeps: Sweeps, cloud: PointCloud, transforms: TransformSource
    ) -> Boxes3D:
        config, laps = self.detector.config, Laps()
        if config.target_frame not in ('', cloud.frame_id):
            lidar2target = transforms.lookup(config.target_frame, cloud.frame_id, cloud.stamp_ns)
            cloud = move_cloud(cloud, lidar2target, config.target_frame)
        joined = sweeps.join(cloud, config, transforms)
        laps('sweeps')
        boxes = self.detector.detect(joined)
        self.detector.timings = {**laps.ms, **self.detector.timings}
        if not sweeps.last_sweeps:
            boxes = replace(boxes, velocities=np.full((len(boxes), 2), np.nan))
        return boxes


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
            aligned.lidar,
            aligned.cameras,
            aligned.stamp_ns,
            aligned.frame_id,
            aligned.lidar_origin,
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


def _camera_detector(
    network: Network[CameraConfig, CameraCard], engine: Engine
) -> CameraDetector | CudaCameraDetector:
    """On the device where the engine has its tensors there, else on the CPU."""
    device = _on_device(engine)
    if device is None:
        return CameraDetector(engine, network.card, network.config)
    from airside_perception.camera.gpu import CudaCameraDetector

    return CudaCameraDetector(device, network.card, network.config)


def _lidar_detector(
    network: Network[LidarConfig, LidarCard], engine: Engine
) -> LidarDetector | CudaLidarDetector:
    device = _on_device(engine)
    if device is None:
        return LidarDetector(engine, network.card, network.config)
    from airside_perception.lidar.gpu import CudaLidarDetector

    return CudaLidarDetector(device, network.card, network.config)


def _on_device(engine: Engine) -> Any:
    """The engine where its tensors lie on the device, as a `TensorRTEngine`'s do; else None."""
    return engine if hasattr(engine, 'tensor') else None
