"""camera_detector: images of one camera to 2D detections and to 3D detections on the ground."""

from __future__ import annotations

import sys
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray

from airside_perception import messages
from airside_perception.card import CameraCard
from airside_perception.config import CameraConfig
from airside_perception.engine import Engine
from airside_perception.errors import PerceptionError
from airside_perception.nodes.base import RESULT, SENSOR, message_type, run
from airside_perception.nodes.calibration import Calibration
from airside_perception.nodes.detector import DetectorNode
from airside_perception.nodes.diagnostics import Report
from airside_perception.nodes.lifting import Lifting
from airside_perception.types import Boxes2D


class CameraDetectorNode(DetectorNode[CameraConfig]):
    """Publishes `~/output/detections_2d` for every image that can be read.

    Then `~/output/detections`, where the calibration and the transform at the stamp are known.
    """

    card_type = CameraCard
    input_name = 'image'

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('camera_detector', CameraConfig, **kwargs)
        self._boxes2d = self.create_lifecycle_publisher(
            Detection2DArray, '~/output/detections_2d', RESULT
        )
        self._boxes3d = self.create_lifecycle_publisher(
            Detection3DArray, '~/output/detections', RESULT
        )
        self._picture = self.create_lifecycle_publisher(
            Image, '~/debug/image', QoSProfile(depth=1)
        )
        self.calibration = Calibration('')
        self._lifting = Lifting()

    def make_pipeline(self, network: Any, engine: Engine) -> Any:
        """The core's way of an image; OpenCV and ONNX Runtime load only now."""
        from airside_perception.pipeline import CameraPipeline

        return CameraPipeline(network, engine)

    def warm_up(self, pipeline: Any) -> None:
        """Runs the network on a grey image."""
        import numpy as np

        from airside_perception.types import Image as Frame

        card = pipeline.detector.card
        grey = np.full((card.height, card.width, 3), card.pad, np.uint8)
        pipeline.detector.detect(Frame(0, 'warm_up', grey))

    def subscribe(self) -> list[Any]:
        """The image, compressed or not, and its calibration."""
        topic = self.resolve_topic_name('~/input/image')
        kind = Image
        if self.config.compressed:
            topic, kind = f'{topic}/compressed', CompressedImage  # as image_transport names it
        self.calibration = Calibration(
            self.resolve_topic_name('~/input/camera_info'), self.config.rectified
        )
        image = self.create_subscription(kind, topic, self.take, self.input_qos)
        self.topic = image.topic_name
        self._lifting = Lifting()
        if messages.named_rectified(self.topic) and not self.config.rectified:
            self.get_logger().warning(
                f'{self.topic} is named like a rectified image; if it is one, set rectified: true'
            )
        info = self.create_subscription(
            CameraInfo, '~/input/camera_info', self.calibration.take, SENSOR
        )
        return [image, info]

    def detect(self, message: Any, pipeline: Any) -> int:
        """Publishes 2D boxes first: they need neither calibration nor transform."""
        read = messages.compressed_image if self.config.compressed else messages.image
        image = read(message)
        boxes = pipeline.detect(image)
        self._boxes2d.publish(messages.detections2d(boxes, message_type))
        try:
            solid = pipeline.lift(boxes, image, self.calibration.read(), self.tf)
            self._boxes3d.publish(messages.detections3d(solid, message_type))
            detector = pipeline.detector
            self._lifting.saw(len(boxes), detector.in_sky, image.frame_id, detector.tilt)
        except PerceptionError as error:
            self.failed(self.topic, type(error)(f'2D only: {error}'))
        if self._picture.get_subscription_count():
            self._draw(image, boxes)
        return image.stamp_ns

    def report(self, report: Report) -> None:
        """Adds what could not be lifted."""
        super().report(report)
        pipeline = self.pipeline
        if pipeline is not None:
            report.add('not_lifted', pipeline.detector.not_lifted)
            if self.active:
                self._lifting.find(report)

    def _draw(self, image: Any, boxes: Boxes2D) -> None:
        from airside_perception.camera.preprocess import to_bgr
        from airside_perception.nodes.drawing import draw_boxes
        from airside_perception.types import Image as Frame

        picture = Frame(image.stamp_ns, image.frame_id, draw_boxes(to_bgr(image), boxes))
        self._picture.publish(messages.image_message(picture, message_type))


def main() -> None:
    """Runs the node."""
    sys.exit(run(CameraDetectorNode))
