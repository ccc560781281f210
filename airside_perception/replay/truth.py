"""What is really there, as a recording says it.

`/ground_truth/objects` (Detection3DArray) holds every object that some sensor could see;
`/ground_truth/camera/NAME/objects` (Detection2DArray) what is visible in an image: with score 1
what must be found, with score 0 what need not be and may be. What these messages have no room for
may stand in `/ground_truth/details` (std_msgs/String), one JSON object a stamp, which then takes
the place of the first:

    {"stamp_ns": 1, "conditions": {"light": "night", "weather": "rain"}, "objects": [
     {"class": "car", "box": [x, y, z, length, width, height, yaw], "velocity": [vx, vy],
      "points": 12, "pixels": 340, "visibility": 0.8, "camera_visibility": null}], "small": []}

Boxes are in the frame of `/ground_truth/objects`. Only class and box must be there; what is
missing or null is not known: visibility and velocity NaN, points -1, no conditions. An object
without a point and with few pixels need not be found, and may be once; `"asked": false` says so of
any.

Labels that cover one camera's image only, and not all of it, say so, too:

     "labelled": {"camera": "front", "ignored": [[left, top, right, bottom]]}

A detection elsewhere, or with more than half of its rectangle in an ignored one, may find an
object, and is no false alarm if it finds none. Without this, labels are all around.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from airside_perception import messages
from airside_perception.errors import BagError, MessageError
from airside_perception.evaluate.frames import Mask, Truth
from airside_perception.replay.bag import BagReader
from airside_perception.types import Boxes2D, Float64

TRUTH_TOPIC = '/ground_truth/objects'
DETAILS_TOPIC = '/ground_truth/details'
IMAGE_TRUTH_TOPIC = '/ground_truth/camera/{}/objects'
CONDITIONS = ('light', 'weather')
LEAST_PIXELS = 20
"""Smallest visible part of an object that counts as seen by a camera."""
MOST_IGNORED = 0.5
"""Largest part of a detection's rectangle in a region that nobody labelled."""


@dataclass(frozen=True)
class Labelled:
    """Where labels are, if not all around.

    Attributes:
        camera: name of the camera in whose image they are.
        ignored: float64 [N, 4], rectangles in that image that hold what nobody labelled, pixels:
            left, top, right, bottom.
    """

    camera: str
    ignored: Float64

    def covers(self, xyxy: Float64) -> Mask:
        """Which rectangles [N, 4] in the image have at most half of their area in any ignored one.

        KITTI's development kit (`evaluate_object.cpp`, computeStatistics) leaves a detection out
        that has more than 0.5 of its own area there, of cars 0.7; here it is 0.5 of all.
        """
        low = np.maximum(xyxy[:, None, :2], self.ignored[:, :2])
        high = np.minimum(xyxy[:, None, 2:], self.ignored[:, 2:])
        shared = np.prod(np.maximum(high - low, 0.0), axis=2)
        area = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1)
        return np.asarray(~(shared > MOST_IGNORED * area[:, None]).any(axis=1))


@dataclass(frozen=True)
class Moment:
    """What is there at one stamp.

    Attributes:
        stamp_ns, frame_id: of the boxes.
        truth: the objects.
        conditions: e.g. {'weather': 'rain', 'light': 'night'}.
        in_cameras: float64 [N], share of each object that nothing hides from the cameras, NaN:
            not known.
        labelled: where the labels are; None: all around.
    """

    stamp_ns: int
    frame_id: str
    truth: Truth
    conditions: dict[str, str] = field(default_factory=dict)
    in_cameras: Float64 = field(default_factory=lambda: np.empty(0))
    labelled: Labelled | None = None


def read_truth(reader: BagReader) -> list[Moment]:
    """The ground truth of a bag, by stamp.

    Raises:
        BagError: there is none, or it is damaged.
        MessageError: an object that is no box.
    """
    details, found = _details(reader), []
    for record in reader.records([TRUTH_TOPIC]):
        boxes = messages.boxes3d(reader.message(record))
        known = details.get(boxes.stamp_ns)
        if known is None:
            plain = Truth(boxes.classes, boxes.boxes)
            unknown = np.full(len(boxes), np.nan)
            found.append(Moment(boxes.stamp_ns, boxes.frame_id, plain, {}, unknown))
            continue
        try:
            found.append(_detailed(boxes.stamp_ns, boxes.frame_id, known))
        except (ValueError, KeyError, TypeError, AttributeError, MessageError) as error:
            raise _damaged(reader, boxes.stamp_ns, error) from error
    if not found:
        raise BagError(
            f'{reader.path}: no ground truth on {TRUTH_TOPIC}; drives of '
            '`python -m airside_perception.sim` have it'
        )
    return sorted(found, key=lambda moment: moment.stamp_ns)


def read_image_truth(reader: BagReader, camera: str) -> dict[int, Boxes2D]:
    """{stamp of an image: what is visible in it}; empty where the bag does not say.

    Boxes of score 0 need not be found, and may be.

    Raises:
        BagError: damaged.
        MessageError: an object that is no box.
    """
    records = reader.records([IMAGE_TRUTH_TOPIC.format(camera)])
    boxes = [messages.boxes2d(reader.message(record)) for record in records]
    return {item.stamp_ns: item for item in boxes}


def read_labelled(reader: BagReader, camera: str) -> dict[int, Labelled]:
    """{stamp: where the labels are} of the stamps whose labels cover this camera's image only.

    Raises:
        BagError: damaged.
    """
    found = {}
    for stamp_ns, content in _details(reader).items():
        try:
            labelled = _labelled(content)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(reader, stamp_ns, error) from error
        if labelled is not None and labelled.camera == camera:
            found[stamp_ns] = labelled
    return found


def _details(reader: BagReader) -> dict[int, Mapping[str, Any]]:
    """{stamp: its JSON object}."""
    details: dict[int, Mapping[str, Any]] = {}
    for record in reader.records([DETAILS_TOPIC]):
        try:
            content = json.loads(reader.message(record).data)
            details[int(content['stamp_ns'])] = content
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(reader, record.log_ns, error) from error
    return details


def _labelled(content: Mapping[str, Any]) -> Labelled | None:
    given = content.get('labelled')
    if given is None:
        return None
    ignored = np.array(given.get('ignored', []), np.float64).reshape(-1, 4)
    return Labelled(str(given['camera']), ignored)


def _detailed(stamp_ns: int, frame_id: str, content: Mapping[str, Any]) -> Moment:
    items = [*content['objects'], *content.get('small', ())]
    points = np.array([-1 if (n := item.get('points')) is None else n for item in items], np.int64)
    pixels = [item.get('pixels') for item in items]
    seen = [
        (count != 0 if shown is None else count > 0 or shown >= LEAST_PIXELS)
        and item.get('asked') is not False
        for count, shown, item in zip(points.tolist(), pixels, items, strict=True)
    ]
    truth = Truth(
        tuple(str(item['class']) for item in items),
        np.array([item['box'] for item in items], np.float64).reshape(-1, 7),
        np.array([item.get('velocity') or (np.nan, np.nan) for item in items], np.float64).reshape(
            -1, 2
        ),
        _shares(items, 'visibility'),
        points,
        np.array(seen, bool),
    )
    given = content.get('conditions', {})
    conditions = {name: str(given[name]) for name in CONDITIONS if name in given}
    in_cameras = _shares(items, 'camera_visibility')
    return Moment(stamp_ns, frame_id, truth, conditions, in_cameras, _labelled(content))


def _shares(items: Sequence[Mapping[str, Any]], key: str) -> Float64:
    values = [item.get(key) for item in items]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _damaged(reader: BagReader, stamp_ns: int, error: Exception) -> BagError:
    return BagError(f'{reader.path}: {DETAILS_TOPIC} at {stamp_ns} ns is no truth: {error!r}')
