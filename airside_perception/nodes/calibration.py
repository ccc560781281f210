"""Camera models out of camera_info, made again only when the calibration changes."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CameraInfo

from airside_perception import messages
from airside_perception.errors import MessageError
from airside_perception.projection import CameraModel


class Calibration:
    """The newest camera_info of one topic, and the camera model that it describes.

    `take` may be called from another thread than `read`.

    Args:
        rectified: whether the image is; see `messages.camera_model`.
    """

    def __init__(self, topic: str, rectified: bool = False) -> None:
        self.topic = topic
        self.rectified = rectified
        self._newest: CameraInfo | None = None
        self._content: tuple[Any, ...] = ()
        self._camera: CameraModel | None = None

    @property
    def known(self) -> bool:
        """Whether any camera_info has come."""
        return self._newest is not None

    def take(self, message: CameraInfo) -> None:
        """The subscription's callback."""
        self._newest = message

    def read(self) -> CameraModel:
        """The camera model, the same object until the calibration changes.

        Raises:
            MessageError: there is no camera_info yet, or it is no calibration.
        """
        info = self._newest
        if info is None:
            raise MessageError(f'no calibration yet on {self.topic}')
        content = (
            info.header.frame_id, info.width, info.height, info.distortion_model,
            bytes(info.k), bytes(info.d), bytes(info.r), bytes(info.p),
        )  # fmt: skip
        if self._camera is None or content != self._content:
            self._camera = None
            try:
                self._camera = messages.camera_model(info, self.rectified)
            except MessageError as error:
                raise MessageError(f'{self.topic}: {error}') from error
            self._content = content
        return self._camera
