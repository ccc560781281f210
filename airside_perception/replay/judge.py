"""Results of a replay beside the truth of its bag: frames, as `evaluate` takes them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from airside_perception.card import ModelCard
from airside_perception.errors import BagError, TransformError
from airside_perception.evaluate.frames import Found, Frame, Truth
from airside_perception.evaluate.images import flat
from airside_perception.geometry import move_boxes
from airside_perception.replay.runner import CAMERA_TOPIC, LIDAR_TOPIC, OBJECTS_TOPIC
from airside_perception.replay.truth import Labelled, Moment
from airside_perception.replay.view import View
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

    @property
    def unlabelled(self) -> int:
        """Detections where nobody labelled what there is."""
        return sum(int((~np.asarray(frame.found.labelled)).sum()) for frame in self.frames)


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
        views: {topic of a camera: its view}; that topic is asked for what is in the image only.
        name: of the bag, for the names of the frames.

    Raises:
        BagError: labels cover the image of a camera that is not among `views`.
        TransformError: the place of a camera is not known.
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
            seen = _marked(known.get(place, NOTHING), moment, views)
            passed = (moment.stamp_ns - stamps[0]) * 1e-9
            judged.frames.append(Frame(truth, seen, f'{name} +{passed:.1f} s', moment.conditions))
    return {topic: found[topic] for topic in sorted(found, key=rank)}


def judge_images(
    visible: Mapping[int, Boxes2D],
    results: Iterable[Result],
    aliases: Mapping[str, str],
    name: str = '',
    labelled: Mapping[int, Labelled] | None = None,
) -> Judged:
    """Frames of flat boxes (`evaluate.images`) of one camera: one for every image of the truth.

    Args:
        visible: {stamp of an image: what can be seen in it}; of score 0 is what need not be found.
        results: of that camera's topic with boxes in the image.
        aliases, name: as in `judge`.
        labelled: {stamp of an image: where its labels are}; elsewhere they are all over it.
    """
    labelled = labelled or {}
    answers = {result.stamp_ns: result for result in results}
    judged = Judged()
    start = min(visible, default=0)
    for stamp_ns, boxes in sorted(visible.items()):
        names = tuple(aliases.get(n, n) for n in boxes.classes)
        truth = Truth(names, flat(boxes.xyxy), asked=boxes.scores > 0.0)
        answer = answers.pop(stamp_ns, None)
        judged.silent += answer is None
        where = labelled.get(stamp_ns)
        found = NOTHING if answer is None else _flat_found(answer.detections, where)
        judged.frames.append(Frame(truth, found, f'{name} +{(stamp_ns - start) * 1e-9:.1f} s'))
    judged.strays = len(answers)
    return judged


def _flat_found(detections: Sequence[Detection], where: Labelled | None) -> Found:
    corners = np.array([[item[key] for key in IMAGE] for item in detections], np.float64)
    names = tuple(str(item['class']) for item in detections)
    scores = np.array([item['score'] for item in detections])
    labelled = None if where is None else where.covers(corners.reshape(-1, 4))
    return Found(names, flat(corners), scores, labelled=labelled)


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


def _marked(found: Found, moment: Moment, views: Mapping[str, View]) -> Found:
    """Detections, with which of them lie where there are labels."""
    if moment.labelled is None:
        return found
    view = views.get(CAMERA_TOPIC.format(moment.labelled.camera))
    if view is None:
        raise BagError(
            f'labels cover the image of camera {moment.labelled.camera!r}, which has no '
            'camera_info in the bag'
        )
    return replace(found, labelled=view.labelled(moment, moment.labelled, found.boxes))


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
        np.zeros((len(found), 4, 4)), velocities=np.asarray(found.velocities),
    )  # fmt: skip
    there = move_boxes(plain, moved, moment.frame_id)
    return replace(found, boxes=there.boxes, velocities=there.velocities)
