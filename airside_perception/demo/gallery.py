"""The pictures that a run of the demo leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from airside_perception.demo.film import write_film
from airside_perception.demo.gif import can_write
from airside_perception.demo.stills import by_camera, from_above, in_pairs, save, telling_moment
from airside_perception.results import Result
from airside_perception.sim.rig import Rig

FILM = 'demo.gif'


def gallery(
    results: Sequence[Result], bag: Path, rig: Rig, out: Path, readme: Path | None = None
) -> Iterator[Path]:
    """Writes bev.png and a picture of each camera, then the film where OpenCV can write one.

    Args:
        results: of the run; bag: its drive; rig: that of the drive.
        out: folder.
        readme: folder for what the README shows: bev.jpg, cameras.jpg and the film.

    Raises:
        PerceptionError: there is nothing to show, or a file cannot be written.
    """
    moment, seconds = telling_moment(results, bag)
    above = from_above(moment, seconds, rig)
    yield save(out / 'bev.png', above)
    for name, picture in by_camera(moment, rig):
        yield save(out / f'camera_{name}.png', picture)
    if readme is not None:
        yield save(readme / 'bev.jpg', above)
        views = (picture for _, picture in by_camera(moment, rig, zoom=1.0))
        yield save(readme / 'cameras.jpg', in_pairs(views))
    if can_write():
        yield write_film(results, bag, rig, out / FILM)
        if readme is not None:
            yield Path(shutil.copy(out / FILM, readme / FILM))
