"""Lidar boxes beside what an image network answers; see `benchmarks.transfer_drive`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

drive = pytest.importorskip('benchmarks.transfer_drive', reason='run from the source tree')
from benchmarks.lidar_frames import Found  # noqa: E402  (after the check for the source tree)
from benchmarks.transfer_camera import Sight  # noqa: E402

MATRIX = np.array([[700.0, 0.0, 600.0], [0.0, 700.0, 180.0], [0.0, 0.0, 1.0]])
# x forward, y left, z up to z forward, x right, y down, 1.7 m above the ground
BASE2CAMERA = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.7], [1, 0, 0, 0], [0, 0, 0, 1]])
SIZE = (1242, 375)


def boxes_of(*places: tuple[float, float]) -> Any:
    """Cars of 4 x 2 x 1.5 m that head along x."""
    rows = np.array([[x, y, 0.75, 4.0, 2.0, 1.5, 0.0] for x, y in places])
    return Found(('car',) * len(rows), np.full(len(rows), 0.5), rows)


def test_a_box_is_drawn_as_a_pinhole_shows_it() -> None:
    found = drive.seen(drive.Drive((), MATRIX, BASE2CAMERA), boxes_of((20.0, 3.0)), SIZE)
    # its left side is at y = 4 m, nearest at x = 18 m; its right side at y = 2 m, farthest at 22 m
    left, right = 600 - 700 * 4 / 18, 600 - 700 * 2 / 22
    top, bottom = 180 + 700 * 0.2 / 22, 180 + 700 * 1.7 / 18
    np.testing.assert_allclose(found.boxes, [[left, top, right, bottom]], atol=1e-9)


def test_what_the_image_cannot_show_is_left_out() -> None:
    places = [(20.0, 0.0), (-20.0, 0.0), (31.0, 0.0), (8.0, 20.0), (1.0, 0.0)]
    found = drive.seen(drive.Drive((), MATRIX, BASE2CAMERA), boxes_of(*places), SIZE)
    assert len(found.boxes) == 1  # the others: behind, beyond 30 m, beside, around the camera


def sight(*items: tuple[str, tuple[float, ...]]) -> Any:
    return Sight(
        np.zeros((375, 1242, 3), np.uint8),
        tuple((name,) for name, _ in items),
        np.array([box for _, box in items], float),
        np.ones(len(items), bool),
        np.empty((0, 4)),
    )


def test_only_whole_answers_as_high_as_at_30_m_are_asked_for() -> None:
    given = sight(
        ('car', (100, 100, 160, 136)),  # 36 px; a car at 30 m has 700 * 1.5 / 30 = 35
        ('car', (200, 100, 260, 134)),
        ('truck', (300, 100, 360, 136)),  # half as high as a truck at 30 m
        ('car', (0, 100, 90, 190)),  # cut by the side
        ('person', (500, 100, 520, 160)),
    )
    made = drive.near(given, 700.0)
    assert made.asked.tolist() == [True, False, False, False, True]
    assert made.names[0] == ('car', 'truck')
    assert made.names[2] == ('truck', 'car')
    assert made.names[4] == ('person',)


def test_agreement_is_full_for_boxes_that_lie_on_the_answers() -> None:
    taken = drive.Drive((), MATRIX, BASE2CAMERA)
    found = boxes_of((15.0, 3.0), (20.0, -4.0), (12.0, -1.0))
    shown = drive.seen(taken, found, SIZE)
    answers = drive.near(sight(*(('car', box) for box in shown.boxes)), 700.0)
    moments = (drive.Moment(np.zeros((0, 4), np.float32), answers),)
    table = drive.figures(drive.frames(drive.Drive(moments, MATRIX, BASE2CAMERA), [found]))
    assert table['car']['objects'] == 3
    assert table['car']['ap'] == pytest.approx(1.0)
    nothing = Found((), np.empty(0), np.empty((0, 7)))
    none = drive.figures(drive.frames(drive.Drive(moments, MATRIX, BASE2CAMERA), [nothing]))
    assert none['car']['ap'] == 0.0


def test_the_scans_fit_the_images(shared_data: Path) -> None:
    """Boxes around the points that fall into an answer's middle overlap that answer."""
    taken = drive.load(shared_data)
    assert len(taken.moments) == 10
    moment = taken.moments[0]
    assert isinstance(moment.sight, Sight)
    assert moment.sight.asked.sum() >= 3
    cars = [
        box
        for box, names, asked in zip(
            moment.sight.boxes, moment.sight.names, moment.sight.asked, strict=True
        )
        if asked and names[0] == 'car'
    ]
    assert cars
    for x1, y1, x2, y2 in cars:
        camera = moment.points[:, :3].astype(float) @ taken.base2camera[:3, :3].T
        camera += taken.base2camera[:3, 3]
        pixels = camera @ taken.matrix.T
        with np.errstate(divide='ignore', invalid='ignore'):
            u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
        lower = y1 + 0.5 * (y2 - y1)  # glass gives no echo
        inside = (camera[:, 2] > 1) & (u > x1) & (u < x2) & (v > lower) & (v < y2)
        assert inside.sum() > 20
        depth = np.median(camera[inside, 2])
        # as far as its height in the image says, to within the heights of cars
        assert depth == pytest.approx(taken.matrix[1, 1] * 1.5 / (y2 - y1), rel=0.35)
