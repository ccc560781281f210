"""The drive as a film: four cameras above the scene from above, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from airside_perception.demo.gif import write_gif
from airside_perception.demo.moments import CONFIDENT, Moment, moments
from airside_perception.demo.stills import in_order
from airside_perception.errors import PerceptionError
from airside_perception.geometry import invert, move_cloud
from airside_perception.replay.pictures import (
    BACKGROUND,
    EVIDENCE,
    FONT,
    TEXT,
    TRUTH,
    Picture,
    bird_view,
    camera_overlay,
    put_text,
)
from airside_perception.results import Result
from airside_perception.sim.rig import Rig
from airside_perception.types import Float32

WIDTH, CAMERA_WIDTH, CAMERA_HEIGHT = 800, 399, 204
"""Pixels; what a camera sees below is ground before the bumper."""
GAP = WIDTH - 2 * CAMERA_WIDTH
BAND, BIRD = 22, 336
"""Heights of the line of text and of the scene from above, pixels."""
AHEAD = 23.0
"""Metres from the vehicle to the upper border."""
FAR = 45.0
"""Objects beyond, metres, would be specks in the small camera pictures and are not drawn there."""
LAST_MS = 1000
GROUND, LOW = 4, 0.25
"""One in so many of the points is drawn that are lower than this, metres: the ground."""


def write_film(results: Sequence[Result], bag: Path, rig: Rig, path: Path) -> Path:
    """Writes the drive as a GIF, as fast as it was, and the last frame for a second.

    Raises:
        PerceptionError: no moment has all that a frame shows, or the file cannot be written.
    """
    shown = list(film(moments(results, bag), rig))
    if not shown:
        raise PerceptionError(f'{bag}: no stamp has a scan, truth and fused objects')
    stamps = [stamp_ns for stamp_ns, _ in shown]
    durations = [round((later - now) / 1e6) for now, later in pairwise(stamps)]
    kept = [*EVIDENCE.values(), TRUTH, TEXT, BACKGROUND]
    return write_gif(path, [frame for _, frame in shown], [*durations, LAST_MS], kept=kept)


def film(moments: Iterable[Moment], rig: Rig) -> Iterator[tuple[int, Picture]]:
    """Stamp (ns) and frame of each moment."""
    first = None
    for moment in moments:
        first = moment.stamp_ns if first is None else first
        yield moment.stamp_ns, frame(moment, rig, (moment.stamp_ns - first) / 1e9)


def frame(moment: Moment, rig: Rig, seconds: float) -> Picture:
    """One frame: uint8 BGR [H, WIDTH, 3]; `seconds` into the drive."""
    views = [_view(moment, rig, name) for name in in_order(rig)]
    rows = [_beside(views[at : at + 2]) for at in range(0, len(views), 2)]
    cloud = move_cloud(moment.cloud, rig.lidar2base, moment.found.frame_id)
    below = bird_view(
        _thinned(cloud.points),
        moment.found.select(moment.found.scores >= CONFIDENT),
        moment.truth,
        ahead=AHEAD,
        size=BIRD,
        width=WIDTH,
        title=None,
        scores=False,
    )
    return np.concatenate([*rows, _band(f'simulated apron, {seconds:.1f} s'), below])


def _view(moment: Moment, rig: Rig, name: str) -> Picture:
    """What a camera sees, with the objects that are near; [CAMERA_HEIGHT, CAMERA_WIDTH, 3]."""
    lens, found = rig.lenses[name], moment.found
    near = np.hypot(found.boxes[:, 0], found.boxes[:, 1]) <= FAR
    found = found.select(near & (found.scores >= CONFIDENT))
    zoom = CAMERA_WIDTH / lens.model.width
    image = _smooth(moment.images[name].data, zoom)
    base2camera = invert(lens.camera2base)
    view = camera_overlay(image, lens.model, base2camera, found, zoom=zoom, scores=False)
    view = view[:CAMERA_HEIGHT]
    put_text(view, name, (6, len(view) - 8), TEXT, 0.45)
    return view


def _smooth(image: Picture, zoom: float) -> Picture:
    """The image in the size of its view, without the grain, which would take most of the bytes."""
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.bilateralFilter(cv2.medianBlur(small, 3), 9, 35, 5), np.uint8)


def _thinned(points: Float32) -> Float32:
    """Points [N, 3 or more] above the ground, and some of the others."""
    drawn = (points[:, 2] > LOW) | (np.arange(len(points)) % GROUND == 0)
    return np.asarray(points[drawn], np.float32)


def _beside(views: list[Picture]) -> Picture:
    """Views on a row of WIDTH, with a gap between and below."""
    row = np.full((CAMERA_HEIGHT + GAP, WIDTH, 3), BACKGROUND, np.uint8)
    for at, view in enumerate(views):
        left = at * (CAMERA_WIDTH + GAP)
        row[: len(view), left : left + view.shape[1]] = view
    return row


def _band(title: str) -> Picture:
    """The title, and what the colours mean."""
    band = np.full((BAND, WIDTH, 3), BACKGROUND, np.uint8)
    cv2.putText(band, title, (8, 15), FONT, 0.45, TEXT, 1, cv2.LINE_AA)
    x = 250
    entries = {**{f'seen by {name}': color for name, color in EVIDENCE.items()}, 'truth': TRUTH}
    for name, color in entries.items():
        cv2.rectangle(band, (x, 5), (x + 11, 16), color, -1)
        cv2.putText(band, name, (x + 17, 15), FONT, 0.42, TEXT, 1, cv2.LINE_AA)
        x += 35 + cv2.getTextSize(name, FONT, 0.42, 1)[0][0]
    return band
