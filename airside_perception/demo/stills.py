"""Pictures of one moment of a live run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from airside_perception.demo.moments import CONFIDENT, TRUTH, Moment, moments, pairs
from airside_perception.errors import PerceptionError
from airside_perception.geometry import invert, move_cloud
from airside_perception.replay.pictures import ZOOM, Picture, bird_view, camera_overlay
from airside_perception.results import Result
from airside_perception.sim.rig import Rig
from airside_perception.types import Boxes3D

ORDER = ('front', 'rear', 'left', 'right')
"""Cameras row by row: left and right stand above that side of the scene from above."""
QUALITY = 88
"""Of JPEG files."""


def telling_moment(results: Sequence[Result], bag: Path) -> tuple[Moment, float]:
    """The moment with most objects that lidar and camera saw, and its time, seconds.

    Raises:
        PerceptionError: no fused objects at any stamp of the simulated truth.
    """
    both = list(pairs(results, bag))
    if not both:
        raise PerceptionError(f'{bag}: no stamp of {TRUTH} has fused objects')
    truth, _ = max(both, key=lambda pair: _seen_twice(pair[1]))
    moment = next(moments(results, bag, {truth.stamp_ns}), None)
    if moment is None:
        raise PerceptionError(f'{bag}: no cloud at {truth.stamp_ns} ns, where most is seen')
    return moment, (moment.stamp_ns - results[0].stamp_ns) / 1e9


def _seen_twice(found: Boxes3D) -> int:
    clear = found.select(found.scores >= CONFIDENT)
    return sum(len(names) > 1 for names in clear.sources)


def from_above(moment: Moment, seconds: float, rig: Rig) -> Picture:
    """Points, objects and truth; `seconds` is the time to name."""
    cloud = move_cloud(moment.cloud, rig.lidar2base, moment.found.frame_id)
    title = f'airside_perception, simulated apron, t = {seconds:.1f} s'
    found = moment.found.select(moment.found.scores >= CONFIDENT)
    return bird_view(cloud.points, found, moment.truth, ahead=50.0, title=title)


def by_camera(moment: Moment, rig: Rig, zoom: float = ZOOM) -> Iterator[tuple[str, Picture]]:
    """Name and picture of each camera, with objects and with the boxes of its own network."""
    found = moment.found.select(moment.found.scores >= CONFIDENT)
    for name in in_order(rig):
        lens, boxes = rig.lenses[name], moment.flat.get(name)
        image, base2camera = moment.images[name].data, invert(lens.camera2base)
        yield name, camera_overlay(image, lens.model, base2camera, found, boxes, zoom=zoom)


def in_order(rig: Rig) -> list[str]:
    """The rig's cameras as they are shown: those of ORDER, then others."""
    return sorted(rig.lenses, key=lambda name: (*ORDER, name).index(name))


def in_pairs(views: Iterable[Picture]) -> Picture:
    """Pictures of one size, two in a row."""
    views = list(views)
    if len(views) % 2:
        views.append(np.zeros_like(views[0]))
    rows = [np.concatenate(views[at : at + 2], axis=1) for at in range(0, len(views), 2)]
    return np.concatenate(rows)


def save(path: Path, picture: Picture) -> Path:
    """Writes a picture; its ending says as what.

    Raises:
        PerceptionError: it cannot be written.
    """
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == '.jpg' else []
    if not cv2.imwrite(str(path), picture, settings):
        raise PerceptionError(f'{path}: the picture cannot be written')
    return path
