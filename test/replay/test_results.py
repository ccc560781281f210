"""Result files: one line a message, rounded, whole or not at all, and read back strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from airside_perception.errors import BagError
from airside_perception.results import (
    ResultWriter,
    line,
    meta_path,
    read_results,
    result_of,
    write_text,
)
from airside_perception.types import Boxes2D, Boxes3D


def solid() -> Boxes3D:
    boxes = np.array([[1.00004, -0.00001, 0.5, 4.0, 2.0, 1.5, 0.1234567]])
    return Boxes3D(5, 'base_link', boxes, np.array([0.1 + 0.2]), ('car',), np.zeros((1, 4, 4)))


def test_a_line_has_the_keys_of_the_schema_and_rounded_numbers() -> None:
    text = line(result_of('/objects', replace(solid(), sources=(('lidar', 'front'),))))
    assert text == (
        '{"detections": [{"class": "car", "h": 1.5, "l": 4.0, "score": 0.3, '
        '"sources": ["lidar", "front"], "w": 2.0, "x": 1.0, "y": 0.0, "yaw": 0.123457, '
        '"z": 0.5}], "frame_id": "base_link", "stamp_ns": 5, "topic": "/objects"}\n'
    )


def test_velocities_are_written_where_they_are_known(tmp_path: Path) -> None:
    speeds = np.array([[1.23456, -0.00001]])
    known = result_of('/lidar', replace(solid(), velocities=speeds))
    assert (known.detections[0]['vx'], known.detections[0]['vy']) == (1.2346, 0.0)
    assert not {'vx', 'vy'} & set(result_of('/lidar', solid()).detections[0])
    with ResultWriter(tmp_path / 'a.jsonl') as writer:
        writer.write(known)
    assert read_results(tmp_path / 'a.jsonl') == [known]
    text = (tmp_path / 'a.jsonl').read_text()
    for wrong in (text.replace('"vx": 1.2346, ', ''), text.replace('1.2346', 'true')):
        (tmp_path / 'b.jsonl').write_text(wrong)
        with pytest.raises(BagError, match=r'line 1 is no result: .*vx'):
            read_results(tmp_path / 'b.jsonl')


def test_sources_are_left_out_where_nobody_named_them() -> None:
    assert 'sources' not in result_of('/lidar', solid()).detections[0]


def test_boxes_in_an_image() -> None:
    boxes = Boxes2D(5, 'camera', np.array([[1.23456, 2, 3, 4]]), np.array([0.5]), ('car',))
    found = json.loads(line(result_of('/boxes', boxes)))['detections']
    assert found == [{'class': 'car', 'score': 0.5, 'x1': 1.235, 'y1': 2.0, 'x2': 3.0, 'y2': 4.0}]


def test_nothing_found_is_a_message_too(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / 'deep' / 'a.jsonl') as writer:
        writer.write(result_of('/objects', Boxes3D.empty(7, 'base_link')))
    (result,) = read_results(tmp_path / 'deep' / 'a.jsonl')
    assert (result.stamp_ns, result.topic, result.detections) == (7, '/objects', ())


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = result_of('/objects', solid())
    with ResultWriter(tmp_path / 'a.jsonl') as writer:
        writer.write(written)
        assert not (tmp_path / 'a.jsonl').exists()
    assert read_results(tmp_path / 'a.jsonl') == [written]
    assert meta_path(tmp_path / 'a.jsonl').name == 'a.jsonl.meta.json'


def test_nothing_is_left_of_a_broken_off_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with ResultWriter(tmp_path / 'a.jsonl') as writer:
            writer.write(result_of('/objects', solid()))
            raise RuntimeError('in the middle')

    with pytest.raises(RuntimeError, match='in the middle'):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError, match='cannot be written'):
        ResultWriter(tmp_path / 'file' / 'a.jsonl')


def test_a_folder_in_place_of_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    for folder in (tmp_path, Path('.'), Path('/')):
        with pytest.raises(BagError, match='is a folder; name a file'):
            ResultWriter(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_take_its_name_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path / 'a.jsonl')
    (tmp_path / 'a.jsonl').mkdir()  # somebody was faster
    with pytest.raises(BagError, match='cannot be written'), writer:
        writer.write(result_of('/objects', solid()))
    with pytest.raises(BagError, match='cannot be written'):
        write_text(tmp_path / 'a.jsonl', 'text')
    assert [path.name for path in tmp_path.iterdir()] == ['a.jsonl']


GOOD = json.loads(line(result_of('/objects', solid())))


def changed(**values: object) -> str:
    return json.dumps({**GOOD, **values})


def changed_detection(**values: object) -> str:
    return changed(detections=[{**GOOD['detections'][0], **values}])


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('', 'no results in it'),
        ('{', 'line 1 is no result'),
        ('[]', 'line 1 is no result'),
        ('{"stamp_ns": 1}', "'detections' is missing"),
        (changed(stamp_ns='1'), "stamp_ns '1'"),
        (changed(topic=None), 'topic None'),
        (changed(detections=[{}]), "'x' is missing"),
        (changed(detections=[{'x1': 1}]), "'y1' is missing"),
        (changed_detection(x=float('nan')), 'x is nan'),
        (changed_detection(score=True), 'score is True'),
        (changed_detection(y='2'), 'must be real number'),
        (changed_detection(**{'class': 3}), 'class is 3'),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / 'a.jsonl').write_text(text)
    with pytest.raises(BagError, match=problem):
        read_results(tmp_path / 'a.jsonl')


def test_mixed_detections_are_no_result(tmp_path: Path) -> None:
    flat = {'class': 'car', 'score': 1, 'x1': 1, 'y1': 1, 'x2': 2, 'y2': 2}
    (tmp_path / 'a.jsonl').write_text(changed(detections=[GOOD['detections'][0], flat]))
    with pytest.raises(BagError, match='are mixed'):
        read_results(tmp_path / 'a.jsonl')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='not readable as results'):
        read_results(tmp_path / 'a.jsonl')
