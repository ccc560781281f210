"""What the graph said at each stamp of a recording, beside its sensors and the truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from airside_perception import messages
from airside_perception.replay.bag import BagReader
from airside_perception.results import SPACE, Result
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

OBJECTS = '/perception/objects'
TRUTH = '/ground_truth/objects'
CLOUD = '/sensing/lidar/points'
CONFIDENT = 0.3
"""Lowest score of a fused object that is drawn and counted."""


@dataclass(frozen=True)
class Moment:
    """One stamp of a drive.

    Attributes:
        stamp_ns: of everything in it.
        cloud: in the lidar's frame.
        images: by camera name.
        truth, found: what is there and what the fusion says, in base_link.
        flat: detections in images, of the cameras that said something.
    """

    stamp_ns: int
    cloud: PointCloud
    images: dict[str, Image]
    truth: Boxes3D
    found: Boxes3D
    flat: dict[str, Boxes2D]


def pairs(results: Iterable[Result], bag: Path) -> Iterator[tuple[Boxes3D, Boxes3D]]:
    """Truth and fused objects of every stamp that has both."""
    fused = {result.stamp_ns: result for result in results if result.topic == OBJECTS}
    with BagReader(bag) as reader:
        for record in reader.records({TRUTH}):
            truth = messages.boxes3d(reader.message(record))
            if truth.stamp_ns in fused:
                yield truth, boxes_3d(fused[truth.stamp_ns])


def moments(
    results: Iterable[Result], bag: Path, stamps: Collection[int] | None = None
) -> Iterator[Moment]:
    """The moments of a drive that have truth, fused objects and a cloud, by stamp.

    One after the other, as images of a whole drive are large; of `stamps` only, where given.
    """
    said: dict[int, dict[str, Result]] = {}
    for result in results:
        if stamps is None or result.stamp_ns in stamps:
            said.setdefault(result.stamp_ns, {})[result.topic] = result
    with BagReader(bag) as reader:
        wanted = {name for name in reader.topics if name in (CLOUD, TRUTH) or _camera(name)}
        got: dict[str, object] = {}
        now = None
        for record in reader.records(wanted):
            if record.stamp_ns != now:
                yield from _moment(now, got, said)
                now, got = record.stamp_ns, {}
            if now in said:
                got[record.topic] = reader.message(record)
        yield from _moment(now, got, said)


def boxes_3d(result: Result) -> Boxes3D:
    """The boxes of a result in space; covariances are not in a result file and are zero here."""
    items = result.detections
    return Boxes3D(
        result.stamp_ns,
        result.frame_id,
        np.array([[item[key] for key in SPACE] for item in items]),
        np.array([item['score'] for item in items]),
        tuple(item['class'] for item in items),
        np.zeros((len(items), 4, 4)),
        sources=tuple(tuple(item.get('sources', ())) for item in items),
    )


def _moment(
    stamp_ns: int | None, got: dict[str, object], said: dict[int, dict[str, Result]]
) -> Iterator[Moment]:
    """The moment of a stamp's messages, unless something is missing."""
    answers = said.get(stamp_ns, {}) if stamp_ns is not None else {}
    if stamp_ns is None or OBJECTS not in answers or not {CLOUD, TRUTH} <= got.keys():
        return
    yield Moment(
        stamp_ns,
        messages.point_cloud(got[CLOUD]),
        {name: messages.image(got[topic]) for topic in got if (name := _camera(topic))},
        messages.boxes3d(got[TRUTH]),
        boxes_3d(answers[OBJECTS]),
        {
            topic.split('/')[3]: _boxes_2d(result)
            for topic, result in answers.items()
            if topic.endswith('/detections_2d')
        },
    )


def _camera(topic: str) -> str:
    """Whose images a topic carries; empty for others."""
    return topic.split('/')[3] if topic.endswith('/image') else ''


def _boxes_2d(result: Result) -> Boxes2D:
    items = result.detections
    return Boxes2D(
        result.stamp_ns,
        result.frame_id,
        np.array([[item[key] for key in ('x1', 'y1', 'x2', 'y2')] for item in items]),
        np.array([item['score'] for item in items]),
        tuple(item['class'] for item in items),
    )
