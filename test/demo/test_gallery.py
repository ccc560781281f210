"""The pictures of a live run, on a recording and results that are known."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from airside_perception.demo import gallery as shown
from airside_perception.demo.gallery import gallery
from airside_perception.demo.gif import can_write
from airside_perception.demo.stills import in_order, in_pairs, telling_moment
from airside_perception.errors import PerceptionError
from airside_perception.results import Result
from airside_perception.sim.rig import Rig

ROOT = Path(__file__).parents[2]
STILLS = ['bev.png', 'camera_front.png', 'camera_rear.png', 'camera_left.png', 'camera_right.png']


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    folder = tmp_path / 'readme'
    folder.mkdir()
    return folder


def test_pictures_of_the_moment_that_both_sensors_saw(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    paths = list(gallery(results, bag, rig, tmp_path))
    assert [path.name for path in paths] == STILLS + ['demo.gif'] * can_write()
    front = cv2.imread(str(tmp_path / 'camera_front.png'))
    assert front.shape == (768, 1280, 3)
    assert (front[40, 100:500] > 200).all()  # the upper edge of the 2D box, enlarged twice
    assert front.any(axis=2).mean() < 0.2
    assert not cv2.imread(str(tmp_path / 'camera_rear.png')).any()
    assert telling_moment(results, bag)[1] == pytest.approx(0.1)


def test_what_the_readme_shows(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path, readme: Path
) -> None:
    paths = list(gallery(results, bag, rig, tmp_path, readme))
    assert all(path.is_file() for path in paths)
    names = {path.name for path in readme.iterdir()}
    assert names == {'bev.jpg', 'cameras.jpg'} | ({'demo.gif'} if can_write() else set())
    four = cv2.imread(str(readme / 'cameras.jpg'))
    assert four.shape == (768, 1280, 3)  # 640 x 384 each: the front is the first
    assert (four[20, 60:240] > 150).all()
    assert four[384:].max() < 30
    if can_write():
        assert (readme / 'demo.gif').read_bytes() == (tmp_path / 'demo.gif').read_bytes()


def test_no_film_where_opencv_writes_none(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path, readme: Path, monkeypatch
) -> None:
    monkeypatch.setattr(shown, 'can_write', lambda: False)
    paths = list(gallery(results, bag, rig, tmp_path, readme))
    assert [path.name for path in paths] == [*STILLS, 'bev.jpg', 'cameras.jpg']


def test_results_of_other_stamps_are_named(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match='no stamp of /ground_truth/objects'):
        list(gallery(results[1:2], bag, rig, tmp_path))


def test_a_picture_that_cannot_be_written_is_named(
    results: list[Result], bag: Path, rig: Rig, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match='the picture cannot be written'):
        list(gallery(results, bag, rig, tmp_path / 'missing'))


def test_left_and_right_are_beside_each_other(rig: Rig) -> None:
    assert in_order(rig) == ['front', 'rear', 'left', 'right']


def test_pictures_in_pairs() -> None:
    views = [np.full((2, 3, 3), value, np.uint8) for value in (1, 2, 3)]
    sheet = in_pairs(views)
    assert sheet.shape == (4, 6, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2], [3, 0]]


def test_the_readme_shows_pictures_that_are_there_and_load_fast() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    names = re.findall(r'!\[[^\]]+\]\(([^)]+)\)', text)
    assert {f'resource/pictures/{name}' for name in ('demo.gif', 'bev.jpg', 'cameras.jpg')} <= set(
        names
    )
    for name in names:
        assert 0 < (ROOT / name).stat().st_size <= 3_000_000, name
