"""What a camera of a recording has in its image."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping

import numpy as np

from airside_perception import messages
from airside_perception.evaluate.frames import Mask
from airside_perception.fusion.viewport import Viewport, see
from airside_perception.geometry import apply
from airside_perception.projection import CameraModel
from airside_perception.replay.bag import BagReader
from airside_perception.replay.runner import CAMERA_TOPIC, Calibration
from airside_perception.replay.truth import Labelled, Moment
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Float64


class View:
    """What one camera has in its image.

    Args:
        cameras: {stamp: its lens from then on}, not empty.
        transforms: of the recording.
    """

    def __init__(self, cameras: Mapping[int, CameraModel], transforms: TransformBuffer) -> None:
        self._stamps = sorted(cameras)
        self._cameras, self._transforms = dict(cameras), transforms

    def sees(self, moment: Moment) -> Mask:
        """Which objects have their centre in the image, bool [N].

        Hidden ones are left out where the truth says that they are hidden from all cameras.

        Raises:
            TransformError: the place of the camera is not known.
        """
        camera, frame2camera = self._at(moment)
        inside = _inside(camera, frame2camera, moment.truth.boxes)
        hidden = np.asarray(moment.in_cameras) == 0.0
        return inside & ~hidden if len(hidden) else inside

    def labelled(self, moment: Moment, labelled: Labelled, boxes: Float64) -> Mask:
        """Which boxes [N, 7] lie where there are labels, bool [N].

        Those with the centre in the image, of whose rectangle there no ignored one holds more
        than a half.

        Raises:
            TransformError: the place of the camera is not known.
        """
        camera, frame2camera = self._at(moment)
        none = np.empty((0, 7))
        (seen,) = see([Viewport.of(camera)], [frame2camera], boxes, [none])
        return _inside(camera, frame2camera, boxes) & labelled.covers(seen.xyxy)

    def _at(self, moment: Moment) -> tuple[CameraModel, Float64]:
        """The lens, and the transform from the frame of the truth to it, [4, 4]."""
        place = max(bisect_right(self._stamps, moment.stamp_ns) - 1, 0)
        camera = self._cameras[self._stamps[place]]
        return camera, self._transforms.lookup(camera.frame_id, moment.frame_id, moment.stamp_ns)


def lenses(
    reader: BagReader, transforms: TransformBuffer, rectified: Collection[str] = ()
) -> dict[str, View]:
    """{topic of the boxes of a camera: its view}, of every camera of a bag with a calibration.

    Args:
        transforms: of the bag.
        rectified: names of the cameras whose images are; see `settings.rectified_cameras`.

    Raises:
        BagError: the bag is damaged.
        MessageError: a camera_info that is none.
    """
    topics = {
        topic: topic.split('/')[3]
        for topic in reader.topics
        if topic.startswith('/sensing/camera/') and topic.endswith('/camera_info')
    }
    newest = {topic: Calibration(topic, name in rectified) for topic, name in topics.items()}
    known: dict[str, dict[int, CameraModel]] = {}
    for record in reader.records(topics):
        message, before = reader.message(record), newest[record.topic].camera
        newest[record.topic].take(record.data, message)
        camera = newest[record.topic].read()
        if camera is not before:
            cameras = known.setdefault(CAMERA_TOPIC.format(topics[record.topic]), {})
            cameras[messages.stamp_ns(message.header.stamp)] = camera
    return {topic: View(cameras, transforms) for topic, cameras in known.items()}


def _inside(camera: CameraModel, frame2camera: Float64, boxes: Float64) -> Mask:
    """Which boxes [N, 7] have their centre in the image."""
    pixels, valid = camera.project(apply(frame2camera, boxes[:, :3]))
    with np.errstate(invalid='ignore'):
        inside = (pixels >= 0).all(axis=1) & (pixels < (camera.width, camera.height)).all(axis=1)
    return np.asarray(valid & inside)
