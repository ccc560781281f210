"""Results of a replay beside the truth of its bag: frames, as `evaluate` takes them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from airside_perception import messages
from airside_perception.card import ModelCard
from airside_perception.errors import TransformError
from airside_perception.evaluate.frames import Found, Frame, Mask, Truth
from airside_perception.evaluate.images import flat
from airside_perception.geometry import apply, move_boxes
from airside_perception.projection import CameraModel
from airside_perception.replay.bag import BagReader
from airside_perception.replay.runner import CAMERA_TOPIC, LIDAR_TOPIC, OBJECTS_TOPIC
from airside_perception.replay.truth import Moment
from airside_perception.results import IMAGE, SPACE, Detection, Result
from airside_perception.transforms import TransformBuffer
from airside_perception.types import Boxes2D, Boxes3D

SYNC_NS = 50_000_000
"""Detections are compared with the truth nearest in time, at most so far from it."""
FIXED = 'odom'


@dataclass
class Judged:
    """Frames of one topic: one for every moment of the truth.

    Attributes:
        frames: in the order of the moments; without a message, nothing is found there.
        silent: moments without a message.
        strays: messages without a truth near them, or that cannot be brought to its frame.
    """

    frames: list[Frame] = field(default_factory=list)
    silent: int = 0
    strays: int = 0


class View:
    """What one camera has in its image.

    Args:
        camera: its lens.
        transforms: of the recording.
    """

    def __init__(self, camera: CameraModel, transforms: TransformBuffer) -> None:
        self._camera, self._transforms = camera, transforms

    def sees(self, moment: Moment) -> Mask:
        """Which objects have their centre in the image, bool [N].

        Hidden ones are left out where the truth says that they are hidden from all cameras.

        Raises:
            TransformError: the place of the camera is not known.
        """
        camera = self._camera
        frame2camera = self._transforms.lookup(camera.frame_id, moment.frame_id, moment.stamp_ns)
        pixels, valid = camera.project(apply(frame2camera, moment.truth.boxes[:, :3]))
        with np.errstate(invalid='ignore'):
            inside = (pixels >= 0).all(axis=1) & (pixels < (camera.width, camera.height)).all(1)
        hidden = np.asarray(moment.in_cameras) == 0.0
        return np.asarray(valid & inside & ~hidden if len(hidden) else valid & inside)


def judge(
    moments: Sequence[Moment],
    results: Iterable[Result],
    transforms: TransformBuffer,
    aliases: Mapping[str, str],
    views: Mapping[str, View],
    name: str = '',
) -> dict[str, Judged]:
    """Frames of every topic with detections in space.

    Args:
        moments: the truth, by stamp.
        results: of a replay of the same bag.
        transforms: of that bag, where detections are in another frame or at another stamp.
        aliases: {class of the truth: class that the networks call it}.
        views: {topic: its camera}; only what is in the image is asked for.
        name: of the bag, for the names of the frames.
    """
    stamps = [moment.stamp_ns for moment in moments]
    found: dict[str, Judged] = {}
    answers: dict[str, dict[int, Found]] = {}
    for result in results:
        if result.topic.endswith('_2d') or any('x1' in item for item in result.detections):
            continue
        judged = found.setdefault(result.topic, Judged())
        place = _nearest(stamps, result.stamp_ns)
        try:
            if place < 0:
                raise TransformError('no truth near its stamp')
            answer = _brought(result, moments[place], transforms)
        except TransformError:
            judged.strays += 1
        else:
            answers.setdefault(result.topic, {})[place] = answer
    for topic, judged in found.items():
        known = answers.get(topic, {})
        judged.silent = len(moments) - len(known)
        for place, moment in enumerate(moments):
            truth = _asked(moment, aliases, views.get(topic))
            passed = (moment.stamp_ns - stamps[0]) * 1e-9
            judged.frames.append(
                Frame(truth, known.get(place, NOTHING), f'{name} +{passed:.1f} s',
                      moment.conditions)
            )  # fmt: skip
    return {topic: found[topic] for topic in sorted(found, key=rank)}


def judge_images(
    visible: Mapping[int, Boxes2D],
    results: Iterable[Result],
    aliases: Mapping[str, str],
    name: str = '',
) -> Judged:
    """Frames of flat boxes (`evaluate.images`) of one camera: one for every image of the truth.

    Args:
        visible: {stamp of an image: what can be seen in it}; of score 0 is what need not be found.
        results: of that camera's topic with boxes in the image.
        aliases, name: as in `judge`.
    """
    answers = {result.stamp_ns: result for result in results}
    judged = Judged()
    start = min(visible, default=0)
    for stamp_ns, boxes in sorted(visible.items()):
        names = tuple(aliases.get(n, n) for n in boxes.classes)
        truth = Truth(names, flat(boxes.xyxy), asked=boxes.scores > 0.0)
        answer = answers.pop(stamp_ns, None)
        judged.silent += answer is None
        found = NOTHING if answer is None else _flat_found(answer.detections)
        judged.frames.append(Frame(truth, found, f'{name} +{(stamp_ns - start) * 1e-9:.1f} s'))
    judged.strays = len(answers)
    return judged


def _flat_found(detections: Sequence[Detection]) -> Found:
    corners = np.array([[item[key] for key in IMAGE] for item in detections], np.float64)
    names = tuple(str(item['class']) for item in detections)
    return Found(names, flat(corners), np.array([item['score'] for item in detections]))


def rank(topic: str) -> tuple[int, str]:
    """The order of topics in reports: fused objects, lidar, cameras by name, others."""
    first = (OBJECTS_TOPIC, LIDAR_TOPIC)
    return (first.index(topic) if topic in first else len(first), topic)


def aliases_of(cards: Iterable[ModelCard]) -> dict[str, str]:
    """{class of the truth: name that the networks publish for it}.

    A card says so by `publish` (labels of the network that are published under another name) and
    by `about: simulated_classes` ({published class: [classes of the simulator]}).
    """
    found: dict[str, str] = {}
    for card in cards:
        groups: Any = card.about.get('simulated_classes', {})
        for outer, names in groups.items() if isinstance(groups, Mapping) else ():
            found.update({str(name): str(outer) for name in names})
        found.update({label: name for label, name in card.publish.items() if name})
    return found


def lenses(reader: BagReader, transforms: TransformBuffer) -> dict[str, View]:
    """{topic of the boxes of a camera: its view}, of every camera of a bag with a calibration.

    Raises:
        BagError: the bag is damaged.
        MessageError: a camera_info that is none.
    """
    known: dict[str, View] = {}
    topics = {
        topic: topic.split('/')[3]
        for topic in reader.topics
        if topic.startswith('/sensing/camera/') and topic.endswith('/camera_info')
    }
    for record in reader.records(topics):
        name = CAMERA_TOPIC.format(topics[record.topic])
        if name not in known:
            known[name] = View(messages.camera_model(reader.message(record)), transforms)
    return known


NOTHING = Found((), np.empty((0, 7)), np.empty(0))


def found_of(detections: Sequence[Detection]) -> Found:
    """Detections in space of one result; velocities where they are there as `vx`, `vy`."""
    boxes = np.array([[item[key] for key in SPACE] for item in detections], np.float64)
    nan = float('nan')
    speeds = [(item.get('vx', nan), item.get('vy', nan)) for item in detections]
    return Found(
        tuple(str(item['class']) for item in detections),
        boxes.reshape(-1, 7),
        np.array([item['score'] for item in detections], np.float64),
        np.array(speeds, np.float64).reshape(-1, 2),
    )


def _asked(moment: Moment, aliases: Mapping[str, str], view: View | None) -> Truth:
    truth = moment.truth
    truth = replace(truth, classes=tuple(aliases.get(name, name) for name in truth.classes))
    if view is None:
        return truth
    return replace(truth, asked=np.asarray(truth.asked) & view.sees(moment))


def _nearest(stamps: Sequence[int], stamp_ns: int) -> int:
    """Place of the stamp that is nearest, -1 where none is near."""
    after = bisect_left(stamps, stamp_ns)
    near = [place for place in (after - 1, after) if 0 <= place < len(stamps)]
    place = min(near, key=lambda place: abs(stamps[place] - stamp_ns), default=-1)
    return place if place >= 0 and abs(stamps[place] - stamp_ns) <= SYNC_NS else -1


def _brought(result: Result, moment: Moment, transforms: TransformBuffer) -> Found:
    """Detections in the frame and at the stamp of the truth; objects themselves stay."""
    found = found_of(result.detections)
    if (result.frame_id, result.stamp_ns) == (moment.frame_id, moment.stamp_ns) or not len(found):
        return found
    moved = transforms.lookup_between(
        moment.frame_id, moment.stamp_ns, result.frame_id, result.stamp_ns, FIXED
    )
    plain = Boxes3D(
        result.stamp_ns, result.frame_id, found.boxes, found.scores, found.classes,
        np.zeros((len(found), 4, 4)),
    )  # fmt: skip
    turned = np.asarray(found.velocities) @ moved[:2, :2].T
    return replace(found, boxes=move_boxes(plain, moved, moment.frame_id).boxes, velocities=turned)
