"""GIFs: the file's blocks are read here by the rules of GIF89a, its pixels by OpenCV's reader."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from airside_perception.demo.gif import can_write, palette, quantised, write_gif
from airside_perception.errors import PerceptionError

writes = pytest.mark.skipif(not can_write(), reason='this OpenCV writes no animated GIF')
ORANGE = (60, 150, 250)


def frames(count: int = 4) -> list[np.ndarray]:
    """A blue to white slope, one even grey half, and an orange square that moves."""
    slope = np.linspace(0, 255, 60).astype(np.uint8)
    found = []
    for number in range(count):
        frame = np.full((40, 60, 3), (101, 102, 103), np.uint8)
        frame[:20] = np.stack([np.full(60, 255, np.uint8), slope, slope], axis=1)
        frame[30:33, 5 * number : 5 * number + 3] = ORANGE
        found.append(frame)
    return found


def blocks(content: bytes) -> dict:
    """Size, loops and delays (1/100 s) of a GIF89a, and how many pictures it has."""
    assert content[:6] == b'GIF89a'
    size = tuple(int.from_bytes(content[at : at + 2], 'little') for at in (6, 8))
    table = 3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0
    at, delays, pictures, loops = 13 + table, [], 0, None

    def passed(at: int) -> int:
        while content[at]:
            at += content[at] + 1
        return at + 1

    while content[at] != 0x3B:
        if content[at] == 0x21:
            if content[at + 1] == 0xF9:
                delays.append(int.from_bytes(content[at + 4 : at + 6], 'little'))
            if content[at + 3 : at + 14] == b'NETSCAPE2.0':
                loops = int.from_bytes(content[at + 16 : at + 18], 'little')
            at = passed(at + 2)
        else:
            assert content[at] == 0x2C
            flags = content[at + 9]
            at = passed(at + 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
            pictures += 1
    return {'size': size, 'loops': loops, 'delays': delays, 'pictures': pictures}


@writes
def test_the_file_is_an_animation_that_goes_on(tmp_path: Path) -> None:
    path = write_gif(tmp_path / 'a.gif', frames(), [100, 50, 100, 1000], 32)
    assert blocks(path.read_bytes()) == {
        'size': (60, 40), 'loops': 0, 'delays': [10, 5, 10, 100], 'pictures': 4,
    }  # fmt: skip


@writes
def test_its_frames_come_back_in_their_colours_without_dithering(tmp_path: Path) -> None:
    given = frames()
    path = write_gif(tmp_path / 'a.gif', given, [100] * 4, 32, [ORANGE])
    done, animation = cv2.imreadanimation(str(path))
    assert done
    read = [np.asarray(frame)[..., :3] for frame in animation.frames]
    assert len(read) == 4
    expected = quantised(given, palette(given, 32, [ORANGE]))
    for frame, of, number in zip(read, expected, range(4), strict=True):
        np.testing.assert_array_equal(frame, of)
        assert len(np.unique(frame[22:28].reshape(-1, 3), axis=0)) == 1  # the even grey
        assert np.abs(frame[25, 30].astype(int) - (101, 102, 103)).max() <= 4
        np.testing.assert_array_equal(frame[31, 5 * number + 1], ORANGE)
        columns = frame[10].astype(int).sum(axis=1)
        assert (np.diff(columns) >= 0).all()  # the slope rises, in steps
    assert (read[0] != read[3]).any()


def test_the_palette_keeps_what_it_must() -> None:
    table = palette(frames(), 16, [ORANGE, (1, 2, 255)])
    rows = table.tolist()
    assert len(rows) <= 16
    assert len({tuple(row) for row in rows}) == len(rows)
    assert [60, 150, 250] in rows
    assert [0, 2, 254] in rows or [0, 2, 256] in rows
    assert not (table % 2).any()


def test_pixels_take_the_nearest_colour() -> None:
    table = np.array([[0, 0, 0], [200, 200, 200], [0, 0, 250]], np.uint8)
    frame = np.array([[[5, 9, 2], [180, 240, 190], [40, 30, 200]]], np.uint8)
    np.testing.assert_array_equal(quantised([frame], table)[0], table[None, [0, 1, 2]])


@writes
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r'missing/a\.gif: the animation cannot be written'):
        write_gif(tmp_path / 'missing' / 'a.gif', frames(), [100] * 4, 16)
