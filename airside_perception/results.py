"""Results of a replay: one JSON line a message, equal bytes for equal detections.

    {"detections": [...], "frame_id": "base_link", "stamp_ns": 1317000000000000000, "topic": "..."}

A detection in space has `class`, `score`, `x`, `y`, `z`, `l`, `w`, `h`, `yaw`, `sources` where the
message is of the fusion, and where the velocity is known `vx`, `vy` over ground in the axes of the
frame; one in an image has `class`, `score`, `x1`, `y1`, `x2`, `y2`. Keys are sorted. Numbers are
rounded: metres and m/s to four decimals, radians and scores to six, pixels to three.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from airside_perception.errors import BagError
from airside_perception.types import Boxes2D, Boxes3D

METERS, RADIANS, SCORE, PIXELS = 4, 6, 6, 3
"""Decimals that are kept."""

SPACE = ('x', 'y', 'z', 'l', 'w', 'h', 'yaw')
VELOCITY = ('vx', 'vy')
IMAGE = ('x1', 'y1', 'x2', 'y2')
Detection = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """One message of a result file."""

    stamp_ns: int
    topic: str
    frame_id: str
    detections: tuple[Detection, ...]


def result_of(topic: str, boxes: Boxes2D | Boxes3D) -> Result:
    """Detections as they are written: in their order, rounded."""
    if isinstance(boxes, Boxes2D):
        flat: list[Detection] = [
            {
                'class': name,
                'score': _round(score, SCORE),
                **{key: _round(value, PIXELS) for key, value in zip(IMAGE, row, strict=True)},
            }
            for name, score, row in zip(boxes.classes, boxes.scores, boxes.xyxy, strict=True)
        ]
        return Result(boxes.stamp_ns, topic, boxes.frame_id, tuple(flat))
    found: list[Detection] = []
    for index, row in enumerate(boxes.boxes):
        item: dict[str, Any] = {
            key: _round(value, METERS) for key, value in zip(SPACE, row, strict=True)
        }
        item['yaw'] = _round(row[6], RADIANS)
        item.update({'class': boxes.classes[index], 'score': _round(boxes.scores[index], SCORE)})
        if boxes.sources[index]:
            item['sources'] = list(boxes.sources[index])
        velocity = boxes.velocities[index]
        if np.isfinite(velocity).all():
            item.update(zip(VELOCITY, (_round(value, METERS) for value in velocity), strict=True))
        found.append(item)
    return Result(boxes.stamp_ns, topic, boxes.frame_id, tuple(found))


def line(result: Result) -> str:
    """A result as its line of JSON."""
    content = {
        'stamp_ns': result.stamp_ns,
        'topic': result.topic,
        'frame_id': result.frame_id,
        'detections': list(result.detections),
    }
    return json.dumps(content, sort_keys=True, allow_nan=False) + '\n'


def meta_path(path: str | Path) -> Path:
    """Where the provenance of a result file lies."""
    return Path(f'{path}.meta.json')


class ResultWriter:
    """A result file, there under its name only once it is whole. A context manager.

    Raises:
        BagError: cannot be written, or is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise BagError(
                f'{self.path}: is a folder; name a file to write, such as a.jsonl in it'
            )
        self._part = self.path.with_name(f'.{self.path.name}.part')
        with _writable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open('w', encoding='utf-8', newline='\n')

    def write(self, result: Result) -> None:
        """Appends one message.

        Raises:
            BagError: the disk is full.
        """
        with _writable(self.path):
            self._file.write(line(result))

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with _writable(self.path):
                self._file.close()
                if kind is None:
                    os.replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A small file beside results, there under its name only once it is whole.

    Raises:
        BagError: cannot be written.
    """
    part = path.with_name(f'.{path.name}.part')
    try:
        with _writable(path):
            part.write_text(text, encoding='utf-8')
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_results(path: str | Path) -> list[Result]:
    """The messages of a result file, in its order.

    Raises:
        BagError: missing, not JSON lines, or a line that is no result.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BagError(f'{path}: not readable as results: {error}') from error
    found = []
    for number, text in enumerate(lines, 1):
        try:
            found.append(_parse(json.loads(text)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BagError(f'{path}: line {number} is no result: {_reason(error)}') from error
    if not found:
        raise BagError(f'{path}: no results in it')
    return found


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BagError(f'{path}: cannot be written: {error.strerror}') from error


def _parse(content: Any) -> Result:
    detections = tuple(content['detections'])
    for item in detections:
        keys = IMAGE if 'x1' in item else SPACE
        moving = VELOCITY if set(VELOCITY) & set(item) else ()
        for key in (*keys, *moving, 'score'):
            if isinstance(item[key], bool) or not math.isfinite(item[key]):
                raise ValueError(f'{key} is {item[key]!r}')
        if not isinstance(item['class'], str):
            raise ValueError(f'class is {item["class"]!r}')
    if len({'x1' in item for item in detections}) > 1:
        raise ValueError('detections in space and in an image are mixed')
    stamp_ns, topic, frame_id = content['stamp_ns'], content['topic'], content['frame_id']
    if type(stamp_ns) is not int or not isinstance(topic, str) or not isinstance(frame_id, str):
        raise ValueError(f'stamp_ns {stamp_ns!r}, topic {topic!r}, frame_id {frame_id!r}')
    return Result(stamp_ns, topic, frame_id, detections)


def _reason(error: Exception) -> str:
    return f'{error} is missing' if isinstance(error, KeyError) else str(error)


def _round(value: float, decimals: int) -> float:
    return round(float(value), decimals) + 0.0  # -0.0 becomes 0.0
