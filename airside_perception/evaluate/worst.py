"""Which frames went worst, and what went wrong in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airside_perception.evaluate.breakdown import asked_objects, hit_objects
from airside_perception.evaluate.frames import Frame, Mask
from airside_perception.evaluate.question import Question, reached


@dataclass(frozen=True)
class Verdict:
    """One frame at the thresholds.

    Attributes:
        number: of the frame.
        frame: with the objects and detections in range, these at their thresholds.
        found, missed: bool [N], objects; neither: not asked for.
        right: bool [M], detections that found an object of their own.
        wrong: bool [M], false alarms; neither: near an object that is not asked for.
    """

    number: int
    frame: Frame
    found: Mask
    missed: Mask
    right: Mask
    wrong: Mask

    @property
    def mistakes(self) -> int:
        """Misses and false alarms."""
        return int(self.missed.sum() + self.wrong.sum())


def worst(frames: Sequence[Frame], question: Question, count: int) -> list[Verdict]:
    """The frames with the most mistakes, at most `count`, the worst first; none without any."""
    verdicts = judge(frames, question)
    order = sorted(verdicts, key=lambda item: (-item.mistakes, item.number))
    return [item for item in order[:count] if item.mistakes]


def judge(frames: Sequence[Frame], question: Question) -> list[Verdict]:
    """Every frame at the thresholds."""
    near = [_strong(frame.in_range(0.0, question.max_range), question) for frame in frames]
    matches = {name: reached(near, name) for name in question.classes}
    hit = hit_objects(near, matches, question)
    right = [np.zeros(len(frame.found), bool) for frame in near]
    wrong = [np.zeros(len(frame.found), bool) for frame in near]
    for item in matches.values():
        for number, row, good in zip(item.frames, item.rows, item.hits, strict=True):
            (right if good else wrong)[int(number)][int(row)] = True
    found = []
    for number, frame in enumerate(near):
        missed = asked_objects(frame, question) & ~hit[number]
        found.append(Verdict(number, frame, hit[number], missed, right[number], wrong[number]))
    return found


def _strong(frame: Frame, question: Question) -> Frame:
    detections = frame.found
    lowest = np.array([question.threshold(name) for name in detections.classes])
    keep = np.asarray(detections.scores) >= lowest if len(detections) else np.zeros(0, bool)
    return Frame(frame.truth, detections.select(keep), frame.name, frame.conditions)
