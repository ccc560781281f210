"""Plots for reports, as inline SVG: points in a plane, and steps from left to right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 880, 360
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 20, 52
STYLE = """
td.number, th.number { white-space: nowrap; overflow-wrap: normal; padding-left: .75rem; }
.plot text { font: 12px system-ui, sans-serif; fill: var(--soft); stroke: white; stroke-width: 3px;
  paint-order: stroke; }
.plot .label { fill: var(--ink); } .plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .axis { stroke: var(--soft); stroke-width: 1; }
.plot .limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
.plot .front { fill: none; stroke: var(--accent); stroke-width: 1.5; stroke-dasharray: 3 3; }
"""
TICKS, WIDEST = 6, 48.0


@dataclass(frozen=True)
class Point:
    """One point of a plot.

    Attributes:
        x, y: where.
        title: shown where the mouse is.
        label: beside it; empty: none.
        colour: CSS.
        radius: pixels.
        hollow: only its edge is drawn.
    """

    x: float
    y: float
    title: str
    label: str = ''
    colour: str = 'var(--accent)'
    radius: float = 5.0
    hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from `low` to `high`; `log` for powers of ten."""

    title: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1 and held within."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low) if high > low else 0.0

    def ticks(self) -> list[float]:
        """Round values along it."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            every = max(1, (last - first) // TICKS)
            return [10.0**n for n in range(first, last + 1, every) if self._inside(10.0**n)]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10.0 ** math.floor(math.log10(span / TICKS))
        step *= next(n for n in (1, 2, 5, 10) if span / (step * n) <= TICKS)
        first = math.ceil(self.low / step - 1e-9)
        count = int((self.high - first * step) / step + 1e-9)
        return [(first + n) * step for n in range(count + 1)]

    def _inside(self, value: float) -> bool:
        return self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)


def scatter(
    x: Axis, y: Axis, points: Sequence[Point], front: Sequence[tuple[float, float]] = (),
    limit: float | None = None, limit_title: str = '',
) -> str:  # fmt: skip
    """Points, a dashed line through some, and a limit across."""
    parts = [*_frame(x, y)]
    if front:
        path = ' '.join(f'{_x(x, a):.1f},{_y(y, b):.1f}' for a, b in front)
        parts.append(f'<polyline class="front" points="{path}"/>')
    parts += _limit(y, limit, limit_title)
    taken: list[tuple[float, float]] = []
    for point in points:
        parts += _point(x, y, point, taken)
    return _svg(parts)


def steps(
    y: Axis, points: Sequence[Point], limit: float | None = None, limit_title: str = '',
    x_title: str = '',
) -> str:  # fmt: skip
    """One column a point, in their order; `x` of the points is not looked at."""
    x = Axis(x_title, -0.5, max(len(points) - 0.5, 0.5))
    column = min(max(1.0, (WIDTH - LEFT - RIGHT) / max(len(points), 1) * 0.8), WIDEST)
    parts = [*_frame(x, y, numbers=False)]
    for place, point in enumerate(points):
        top, middle = _y(y, point.y), _x(x, float(place))
        parts.append(
            f'<rect x="{middle - column / 2:.1f}" y="{top:.1f}" width="{column:.1f}" '
            f'height="{max(HEIGHT - BOTTOM - top, 1.0):.1f}" style="fill:{escape(point.colour)}">'
            f'<title>{escape(point.title)}</title></rect>'
        )
    parts += _limit(y, limit, limit_title)
    return _svg(parts)


def number(value: float) -> str:
    """A number as it stands at an axis: short, and its neighbours still differ."""
    if not 0 < abs(value) < 1e-3:
        return f'{value:g}'
    digits, power = f'{value:.3e}'.split('e')
    return f'{digits.rstrip("0").rstrip(".")}e{int(power)}'


def _svg(parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">'
        f'{"".join(parts)}</svg>'
    )


def _frame(x: Axis, y: Axis, numbers: bool = True) -> Iterator[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in y.ticks():
        level = _y(y, value)
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>'
        yield (
            f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for value in x.ticks() if numbers else ():
        place = _x(x, value)
        yield f'<text x="{place:.1f}" y="{floor + 18}" text-anchor="middle">{number(value)}</text>'
        ends = f'y1="{floor}" y2="{floor + 4}"'
        yield f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" {ends}/>'
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>'
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{floor}"/>'
    middle = (LEFT + right) / 2
    below = HEIGHT - 10 if numbers else floor + 20
    yield f'<text x="{middle}" y="{below}" text-anchor="middle">{escape(x.title)}</text>'
    height = (TOP + floor) / 2
    yield (
        f'<text x="16" y="{height}" text-anchor="middle" '
        f'transform="rotate(-90 16 {height})">{escape(y.title)}</text>'
    )


def _limit(y: Axis, limit: float | None, title: str) -> list[str]:
    if limit is None or not y.low <= limit <= y.high:
        return []
    level = _y(y, limit)
    right = WIDTH - RIGHT
    return [
        f'<line class="limit" x1="{LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>',
        f'<text x="{LEFT + 8}" y="{level - 6:.1f}">{escape(title)}</text>',
    ]


def _point(x: Axis, y: Axis, point: Point, taken: list[tuple[float, float]]) -> list[str]:
    across, down = _x(x, point.x), _y(y, point.y)
    colour = escape(point.colour)
    paint = f'fill:none;stroke:{colour};stroke-width:1.5' if point.hollow else f'fill:{colour}'
    parts = [
        f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{point.radius}" style="{paint}">'
        f'<title>{escape(point.title)}</title></circle>'
    ]
    if point.label:
        level = down - 8
        while any(abs(a - across) < 110 and abs(b - level) < 13 for a, b in taken):
            level -= 13  # labels do not lie on one another
        taken.append((across, level))
        left = across > WIDTH - RIGHT - 120
        anchor, shift = ('end', -8) if left else ('start', 8)
        parts.append(
            f'<text class="label" x="{across + shift:.1f}" y="{level:.1f}" '
            f'text-anchor="{anchor}">{escape(point.label)}</text>'
        )
    return parts


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP)
