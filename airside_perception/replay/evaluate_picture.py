"""A frame from above, judged: points, objects that were found and missed, and false alarms."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

import cv2
import numpy as np

from airside_perception import messages
from airside_perception.errors import PerceptionError
from airside_perception.evaluate.worst import Verdict
from airside_perception.geometry import bev_corners, move_cloud
from airside_perception.replay.bag import BagReader
from airside_perception.replay.evaluate import Place
from airside_perception.replay.judge import FIXED
from airside_perception.replay.runner import read_transforms
from airside_perception.replay.settings import POINTS_TOPIC
from airside_perception.types import YAW, Float32, Float64

SIZE = 620
STYLE = """
.bev { background: #16181c; width: 100%; max-width: 620px; }
.bev polygon, .bev line { fill: none; stroke-width: 1.6; } .bev text { font: 11px system-ui; }
.bev circle { fill: none; stroke: #3a3f47; } .bev .ring { fill: #8a93a0; }
.bev .truth { stroke: #9aa3af; stroke-dasharray: 3 2; } .bev .missed { stroke: #ff5a4f; }
.bev .missed-fill { fill: #ff5a4f33; stroke: none; } .bev .right { stroke: #5fd38a; }
.bev .wrong { stroke: #ffb02e; } .bev .aside { stroke: #6b7280; }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; }
.frames figure { margin: 0; } .frames figcaption { font-size: 13px; }
.key i { display: inline-block; width: 1.6em; margin-right: .4em; border-top: 3px solid; }
.key span { margin-right: 1.2rem; white-space: nowrap; }
"""
KEY = (
    ('#5fd38a', 'detection that found an object'), ('#ffb02e', 'false alarm'),
    ('#ff5a4f', 'object that was missed'), ('#9aa3af', 'other object: found, or not asked for'),
    ('#6b7280', 'detection of an object that is not asked for'),
)  # fmt: skip


def key() -> str:
    """What the colours mean."""
    items = (f'<span><i style="border-color:{c}"></i>{escape(text)}</span>' for c, text in KEY)
    return f'<p class="key soft">{"".join(items)}</p>'


def bird_view(points: Float32 | None, verdict: Verdict, ahead: float) -> str:
    """A frame as SVG, x up and y left, the frame's origin in the centre.

    Args:
        points: float32 [N, 3 or more] in the frame of the boxes; None: not known.
        ahead: metres from the centre to the border.
    """
    middle, scale = SIZE / 2, SIZE / (2 * ahead)
    parts = []
    if points is not None:
        data = base64.b64encode(_png(points, ahead)).decode()
        parts.append(
            f'<image width="{SIZE}" height="{SIZE}" href="data:image/png;base64,{data}"/>'
        )
    for radius in range(20, int(ahead * 1.42), 20):
        parts.append(f'<circle cx="{middle}" cy="{middle}" r="{radius * scale:.1f}"/>')
        if radius < ahead:
            level = middle - radius * scale - 3
            parts.append(f'<text class="ring" x="{middle + 3}" y="{level:.1f}">{radius} m</text>')
    parts += _objects(verdict, scale)
    parts += _detections(verdict, scale)
    nose = f'{middle},{middle - 8} {middle - 5},{middle + 6} {middle + 5},{middle + 6}'
    parts.append(f'<polygon points="{nose}" style="fill:#e5e7eb"/>')
    return f'<svg class="bev" viewBox="0 0 {SIZE} {SIZE}" role="img">{"".join(parts)}</svg>'


def caption(verdict: Verdict) -> str:
    """What went wrong, in words."""
    truth, found = verdict.frame.truth, verdict.frame.found
    missed = [truth.classes[row] for row in np.flatnonzero(verdict.missed)]
    wrong = [found.classes[row] for row in np.flatnonzero(verdict.wrong)]
    parts = [_counted('missed', missed), _counted('false', wrong)]
    conditions = ', '.join(verdict.frame.conditions.values())
    name = f'{verdict.frame.name}{f" ({conditions})" if conditions else ""}'
    return f'{name}: {"; ".join(part for part in parts if part)}'


def clouds(places: Mapping[int, Place]) -> dict[int, Float32]:
    """{number of a frame: points of its cloud in the frame of its truth}, of those that have one.

    A bag without a lidar, or a cloud whose place is not known, gives a picture without points.
    """
    found: dict[int, Float32] = {}
    for bag in sorted({place.bag for place in places.values()}):
        wanted = {n: place for n, place in places.items() if place.bag == bag}
        found.update(_clouds_of(bag, wanted))
    return found


def _clouds_of(bag: Path, wanted: Mapping[int, Place]) -> Iterator[tuple[int, Float32]]:
    with BagReader(bag) as reader:
        transforms = read_transforms(reader)
        stamps = {place.moment.stamp_ns: number for number, place in wanted.items()}
        for record in reader.records([POINTS_TOPIC]):
            number = stamps.get(record.stamp_ns)
            if number is None:
                continue
            moment = wanted[number].moment
            try:
                cloud = messages.point_cloud(reader.message(record))
                matrix = transforms.lookup_between(
                    moment.frame_id, moment.stamp_ns, cloud.frame_id, cloud.stamp_ns, FIXED
                )
            except PerceptionError:
                continue
            yield number, move_cloud(cloud, matrix, moment.frame_id).points


def _png(points: Float32, ahead: float) -> bytes:
    """The points as a picture with a transparent ground, coloured by height."""
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    at = ((ahead - points[:, [1, 0]]) * (SIZE / (2 * ahead))).astype(np.int64)
    inside = ((at >= 0) & (at < SIZE)).all(axis=1)
    at, height = at[inside], points[inside, 2]
    order = np.argsort(height, kind='stable')  # the highest is seen from above
    shade = (110 + np.clip((height[order] + 0.3) / 5.0, 0.0, 1.0) * 140).astype(np.uint8)
    colours = cv2.applyColorMap(shade[:, None], cv2.COLORMAP_VIRIDIS)[:, 0] if len(shade) else 0
    picture[at[order, 1], at[order, 0], :3] = colours
    picture[at[order, 1], at[order, 0], 3] = 230
    done, data = cv2.imencode('.png', picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return data.tobytes() if done else b''


def _objects(verdict: Verdict, scale: float) -> Iterable[str]:
    truth = verdict.frame.truth
    for row, outline in enumerate(_pixels(bev_corners(truth.boxes), scale)):
        kind = 'missed' if verdict.missed[row] else 'truth'
        name = truth.classes[row]
        points = int(np.asarray(truth.points)[row])
        title = f'{name}{f", {points} points" if points >= 0 else ""}'
        if kind == 'missed':
            yield f'<polygon class="missed-fill" points="{_path(outline)}"/>'
            yield _label(outline, name, '#ff8a80')
        yield _shape(kind, outline, f'{kind}: {title}')


def _detections(verdict: Verdict, scale: float) -> Iterable[str]:
    found = verdict.frame.found
    outlines = _pixels(bev_corners(found.boxes), scale)
    for row, outline in enumerate(outlines):
        kind = 'right' if verdict.right[row] else 'wrong' if verdict.wrong[row] else 'aside'
        title = f'{found.classes[row]} {found.scores[row]:.2f}'
        yield _shape(kind, outline, title)
        centre, front = outline.mean(axis=0), outline[[0, 3]].mean(axis=0)
        yaw = found.boxes[row, YAW]
        tip = front - 6 * np.array([np.sin(yaw), np.cos(yaw)])
        yield (
            f'<line class="{kind}" x1="{centre[0]:.1f}" y1="{centre[1]:.1f}" x2="{tip[0]:.1f}" '
            f'y2="{tip[1]:.1f}"/>'
        )
        if kind == 'wrong':
            yield _label(outline, title, '#ffc766')


def _shape(kind: str, outline: Float64, title: str) -> str:
    return (
        f'<polygon class="{kind}" points="{_path(outline)}"><title>{escape(title)}</title>'
        '</polygon>'
    )


def _label(outline: Float64, text: str, colour: str) -> str:
    x, y = outline.max(axis=0)
    return f'<text x="{x + 2:.1f}" y="{y:.1f}" fill="{colour}">{escape(text)}</text>'


def _path(outline: Float64) -> str:
    return ' '.join(f'{x:.1f},{y:.1f}' for x, y in outline.tolist())


def _pixels(xy: Float64, scale: float) -> Float64:
    return np.stack([SIZE / 2 - xy[..., 1] * scale, SIZE / 2 - xy[..., 0] * scale], axis=-1)


def _counted(what: str, names: list[str]) -> str:
    if not names:
        return ''
    each = ', '.join(f'{names.count(name)} {name}' for name in sorted(set(names)))
    return f'{what} {each}'
