"""Average precision against stages as a picture: a panel for every set of real frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Figures = Mapping[str, Mapping[str, float]]
"""{class: its figures, of which `objects`, `ap` and `se` are drawn}."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520, 330, 52, 16, 34, 40
LINE = 20
COLOURS = {'car': (168, 95, 43), 'truck': (31, 121, 183), 'person': (47, 55, 179)}
"""Blue, green, red."""
INK, SOFT, GRID = (40, 40, 40), (120, 120, 120), (225, 225, 225)
APART = 0.06
"""Of the distance of two stages: how far the classes are drawn beside each other."""


@dataclass(frozen=True)
class Panel:
    """One set of frames: figures of every stage in order, and those of the references."""

    title: str
    stages: Sequence[Figures]
    references: Mapping[str, Figures]


def picture(panels: Sequence[Panel], stages: Sequence[str], notes: Sequence[str]) -> Pixels:
    """Two panels a row, below them what the letters of the stages mean, uint8 [H, W, 3].

    Args:
        stages: names; the first word of each stands below the axis.
        notes: lines of text.
    """
    drawn = [panel(item, [name.split()[0] for name in stages]) for item in panels]
    if len(drawn) % 2:
        drawn.append(np.full_like(drawn[0], 255))
    rows = [np.hstack(drawn[first : first + 2]) for first in range(0, len(drawn), 2)]
    lines = [*stages, *notes]
    foot = np.full((LINE * (len(lines) + 2), rows[0].shape[1], 3), 255, np.uint8)
    across = LEFT
    for name, colour in COLOURS.items():
        cv2.line(foot, (across, 12), (across + 24, 12), colour, 2, cv2.LINE_AA)
        _text(foot, name, (across + 30, 16), INK)
        across += 110
    _dashed(foot, across, across + 24, 12, SOFT)
    text = 'the reference; bars: standard error; hollow: one or two objects'
    _text(foot, text, (across + 30, 16), INK)
    for number, line in enumerate(lines):
        _text(foot, line, (LEFT, LINE * (number + 2)), INK if number < len(stages) else SOFT)
    return np.vstack([*rows, foot])


def panel(item: Panel, letters: Sequence[str]) -> Pixels:
    """AP from 0 to 1 of every class over the stages."""
    image: Pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        level = _y(share)
        cv2.line(image, (LEFT, level), (right, level), GRID, 1)
        _text(image, f'{share:g}', (12, level + 4), SOFT)
    cv2.line(image, (LEFT, TOP), (LEFT, floor), SOFT, 1)
    step = (right - LEFT) / max(len(letters), 1)
    for place, letter in enumerate(letters):
        _text(image, letter, (round(LEFT + (place + 0.5) * step) - 4, floor + 18), INK)
    counts = {name: item.stages[0][name]['objects'] for name in COLOURS}
    there = ', '.join(f'{count:.0f} {name}' for name, count in counts.items() if count)
    _text(image, f'{item.title}: {there}', (LEFT, 20), INK)
    for order, (name, colour) in enumerate(COLOURS.items()):
        if not counts[name]:
            continue
        for table in item.references.values():
            if np.isfinite(table[name]['ap']):
                _dashed(image, LEFT, right, _y(table[name]['ap']) + order - 1, colour)
        shift = APART * (order - 1)
        _curve(image, [table[name] for table in item.stages], colour, step, shift)
    return image


def _curve(
    image: Pixels,
    points: Sequence[Mapping[str, float]],
    colour: tuple[int, int, int],
    step: float,
    shift: float,
) -> None:
    places = [round(LEFT + (place + 0.5 + shift) * step) for place in range(len(points))]
    levels = [_y(point['ap']) for point in points]
    if np.isfinite([point['se'] for point in points]).all():
        corners = np.array([places, levels], np.int32).T.reshape(-1, 1, 2)
        cv2.polylines(image, [corners], False, colour, 2, cv2.LINE_AA)
    for x, y, point in zip(places, levels, points, strict=True):
        if not np.isfinite(point['se']):  # of one or two objects no line is drawn
            cv2.circle(image, (x, y), 4, colour, 1, cv2.LINE_AA)
            continue
        cv2.circle(image, (x, y), 4, colour, -1, cv2.LINE_AA)
        high, low = (_y(point['ap'] + sign * point['se']) for sign in (1, -1))
        cv2.line(image, (x, high), (x, low), colour, 1, cv2.LINE_AA)


def _y(value: float) -> int:
    return round(HEIGHT - BOTTOM - min(max(value, 0.0), 1.0) * (HEIGHT - BOTTOM - TOP))


def _dashed(image: Pixels, left: int, right: int, y: int, colour: tuple[int, int, int]) -> None:
    for x in range(left, right, 10):
        cv2.line(image, (x, y), (min(x + 5, right), y), colour, 1, cv2.LINE_AA)


def _text(image: Pixels, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
