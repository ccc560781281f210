"""Results beside what the sensors measured at the same stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from airside_perception.demo.moments import boxes_3d, moments, pairs
from airside_perception.results import Result
from airside_perception.sim.rig import Rig


def test_moments_have_all_of_their_stamp(results: list[Result], bag: Path, rig: Rig) -> None:
    first, second = moments(results, bag)
    assert (first.stamp_ns, second.stamp_ns) == (1_000_000_000, 1_100_000_000)
    assert first.found.classes == ('truck', 'person')
    assert second.found.classes == ('truck', 'car')
    assert second.truth.classes == ('truck', 'person', 'truck')
    assert len(second.cloud.points) == 5
    assert set(second.images) == set(rig.lenses)
    assert not first.flat
    np.testing.assert_allclose(second.flat['front'].xyxy, [[10, 20, 300, 200]])


def test_moments_of_some_stamps(results: list[Result], bag: Path) -> None:
    assert [moment.stamp_ns for moment in moments(results, bag, {1_100_000_000})] == [
        1_100_000_000
    ]
    assert not list(moments(results, bag, {5}))


def test_a_stamp_that_the_fusion_did_not_answer_is_no_moment(
    results: list[Result], bag: Path
) -> None:
    assert [moment.stamp_ns for moment in moments(results[1:], bag)] == [1_100_000_000]
    assert not list(moments(results[1:2], bag))


def test_pairs_of_truth_and_objects(results: list[Result], bag: Path) -> None:
    (truth, found), *others = pairs(results[1:], bag)
    assert not others
    assert truth.stamp_ns == found.stamp_ns == 1_100_000_000
    assert (len(truth), len(found)) == (3, 2)


def test_results_back_to_boxes(results: list[Result]) -> None:
    found = boxes_3d(results[2])
    assert found.classes == ('truck', 'car')
    assert found.sources == (('lidar', 'front'), ('lidar',))
    np.testing.assert_array_equal(found.boxes[:, 0], [10.0, 30.0])
