"""The tables of a live run, on a recording and results that are known."""

from __future__ import annotations

from pathlib import Path

from airside_perception.demo.moments import OBJECTS
from airside_perception.demo.report import answered, recall_table, topic_table
from airside_perception.live import LiveRun
from airside_perception.results import Result

FLAT = '/perception/camera/front/detections_2d'


def test_topics_rates_latencies_and_evidence(results: list[Result], tmp_path: Path) -> None:
    run = LiveRun(tmp_path, tmp_path, 0, 0.5, {OBJECTS: [10.0, 30.0]})
    words = [line.split() for line in topic_table(results, run).splitlines()]
    assert [OBJECTS, '2', '10.0', '2.0', '20', '/', '30', 'ms'] in words
    assert [FLAT, '1', '0.0', '1.0'] in words
    assert ['lidar', '50%'] in words
    assert ['lidar', '+', 'front', '25%'] in words


def test_found_and_missed_and_surplus_objects(results: list[Result], bag: Path) -> None:
    table = recall_table(results, bag)
    words = [line.split() for line in table.splitlines()]
    assert ['truck', '2', 'of', '2', '100%'] in words
    assert ['person', '0', 'of', '2', '0%'] in words
    assert 'in 2 frames' in table
    assert '0.5 fused objects a frame there have no counterpart' in table


def test_scans_without_a_part_in_fused_objects_are_counted(
    results: list[Result], bag: Path
) -> None:
    assert answered(results, bag) == (2, 2)
    without = tuple({**item, 'sources': ['front']} for item in results[2].detections)
    late = Result(results[2].stamp_ns, OBJECTS, 'base_link', without)
    assert answered([*results[:2], late], bag) == (1, 2)
    assert answered(results[1:2], bag) == (0, 2)
