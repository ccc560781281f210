"""Small plots for reports, as inline SVG: lines over shares or distances, many in one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from airside_perception.types import Float64

WIDTH, HEIGHT = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 26, 38
COLOURS = ('#2b5fa8', '#2e7d4f', '#b7791f', '#b3372f', '#6b4fa0', '#3b8ea5', '#8a6d3b', '#5d6878')
STYLE = """
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .5rem;
  margin: .5rem 0; }
.panel { width: 100%; height: auto; }
.panel text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.panel .name { font-size: 12px; fill: var(--ink); font-weight: 600; }
.panel .grid { stroke: var(--line); } .panel .axis { stroke: var(--soft); }
.panel .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.panel .ideal { stroke: var(--soft); stroke-dasharray: 4 4; }
.legend span { display: inline-block; margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: 1.4em; height: 3px; vertical-align: middle;
  margin-right: .4em; }
"""


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: of the legend and of the text where the mouse is.
        x, y: float64 [N]; where y is NaN the line has a gap.
        colour: CSS.
        dots: whether every point is marked.
    """

    name: str
    x: Float64
    y: Float64
    colour: str
    dots: bool = False


@dataclass(frozen=True)
class Bars:
    """Columns behind the lines: their left and right edges [N] and heights [N] in 0..1."""

    left: Float64
    right: Float64
    height: Float64
    titles: tuple[str, ...]


def panel(
    name: str,
    titles: tuple[str, str],
    lines: Sequence[Line],
    farthest: float = 1.0,
    ideal: bool = False,
    bars: Bars | None = None,
) -> str:
    """A plot of lines; y from 0 to 1, x from 0 to `farthest`.

    Args:
        name: above it.
        titles: of the x and of the y axis.
        ideal: whether the diagonal is drawn.
    """
    parts = [*_frame(name, titles, farthest)]
    if bars is not None:
        rows = zip(bars.left, bars.right, bars.height, bars.titles, strict=True)
        for left, right, height, title in rows:
            across, top = _x(float(left), farthest), _y(float(height))
            parts.append(
                f'<rect x="{across:.1f}" y="{top:.1f}" '
                f'width="{max(_x(float(right), farthest) - across - 1, 1):.1f}" '
                f'height="{max(HEIGHT - BOTTOM - top, 0):.1f}" fill="var(--line)">'
                f'<title>{escape(title)}</title></rect>'
            )
    if ideal:
        parts.append(
            f'<line class="ideal" x1="{_x(0, farthest)}" y1="{_y(0)}" '
            f'x2="{_x(farthest, farthest)}" y2="{_y(1)}"/>'
        )
    for line in lines:
        parts += _line(line, farthest)
    return f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def legend(lines: Sequence[tuple[str, str]]) -> str:
    """Names and colours."""
    items = ''.join(
        f'<span><i style="background:{escape(colour)}"></i>{escape(name)}</span>'
        for name, colour in lines
    )
    return f'<p class="legend">{items}</p>'


def panels(plots: Sequence[str]) -> str:
    """Plots side by side, as many as fit."""
    return f'<div class="panels">{"".join(plots)}</div>'


def _frame(name: str, titles: tuple[str, str], farthest: float) -> list[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<text class="name" x="{LEFT}" y="14">{escape(name)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        level, across = _y(share), _x(share * farthest, farthest)
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>',
            f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{share:g}</text>',
            f'<text x="{across:.1f}" y="{floor + 14}" text-anchor="middle">'
            f'{share * farthest:g}</text>',
        ]
    middle = (LEFT + right) / 2
    parts += [
        f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{floor}"/>',
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(titles[0])}</text>',
        f'<text x="11" y="{(TOP + floor) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 11 {(TOP + floor) / 2})">{escape(titles[1])}</text>',
    ]
    return parts


def _line(line: Line, farthest: float) -> list[str]:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    parts, known = [], np.isfinite(x) & np.isfinite(y)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2).tolist():
        points = ' '.join(
            f'{_x(a, farthest):.1f},{_y(b):.1f}'
            for a, b in zip(x[start:stop].tolist(), y[start:stop].tolist(), strict=True)
        )
        parts.append(
            f'<polyline class="line" stroke="{escape(line.colour)}" points="{points}">'
            f'<title>{escape(line.name)}</title></polyline>'
        )
    for a, b in zip(x[known].tolist(), y[known].tolist(), strict=True) if line.dots else ():
        parts.append(
            f'<circle cx="{_x(a, farthest):.1f}" cy="{_y(b):.1f}" r="3" '
            f'fill="{escape(line.colour)}"><title>{escape(line.name)}: {b:.3f} at {a:.3g}</title>'
            '</circle>'
        )
    return parts


def _x(value: float, farthest: float) -> float:
    return LEFT + min(max(value / farthest, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - min(max(value, 0.0), 1.0) * (HEIGHT - BOTTOM - TOP)
