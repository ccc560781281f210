from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from airside_perception.config import FusionConfig
from airside_perception.fusion.associate import (
    Labels,
    Places,
    assign,
    candidates,
    match_places,
    match_views,
)
from airside_perception.fusion.viewport import Seen

CONFIG = FusionConfig()


def places(xy, spread=None, label=None, group=None) -> Places:
    """Places with covariances [N, 2, 2], the unit matrix by default."""
    xy = np.asarray(xy, dtype=float).reshape(-1, 2)
    n = len(xy)
    p = np.tile(np.eye(2), (n, 1, 1)) if spread is None else np.asarray(spread)
    label = np.zeros(n, int) if label is None else np.asarray(label)
    group = np.zeros(n, int) if group is None else np.asarray(group)
    return Places(xy[:, 0], xy[:, 1], p[:, 0, 0], p[:, 0, 1], p[:, 1, 1], label, group)


def image(xyxy, lifted) -> Seen:
    xyxy, lifted = (np.asarray(a, dtype=float).reshape(-1, 4) for a in (xyxy, lifted))
    depth = np.ones(len(xyxy))
    return Seen(xyxy, xyxy.any(axis=1), depth, depth, lifted, lifted.any(axis=1), (100, 100))


def test_labels_number_classes_and_groups_without_regard_to_case() -> None:
    labels = Labels({'car': 'vehicle', 'truck': 'vehicle', 'person': 'person'})
    label, group = labels.numbers(('Car', 'truck', 'car', 'Tree', 'person', 'tree'))
    assert label.tolist() == [label[0], label[1], label[0], label[3], label[4], label[3]]
    assert len({*label.tolist()}) == 4
    assert group[0] == group[1] == group[2]
    assert len({group[0], group[3], group[4]}) == 3
    assert labels.belong(('CAR', 'tree', 'person'), ('vehicle', 'tree')).tolist() == [
        True, False, False,
    ]  # fmt: skip


def test_the_default_gate_is_99_percent_of_two_degrees_of_freedom() -> None:
    assert pytest.approx(chi2.ppf(0.99, 2), abs=0.005) == CONFIG.gate_chi2


def test_candidates_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(2, 40, 2, 2)) * [[3.0], [1.0]]
    spread = roots @ roots.transpose(0, 1, 3, 2) + 0.05 * np.eye(2)
    xy, group = rng.uniform(-12, 12, (2, 40, 2)), rng.integers(0, 3, (2, 40))
    a, b = (places(xy[k], spread[k], group=group[k]) for k in range(2))
    row, column, squared = candidates(a, b, 9.21)
    expected = {}
    for i in range(40):
        for j in range(40):
            gap = xy[0, i] - xy[1, j]
            d = gap @ np.linalg.inv(spread[0, i] + spread[1, j]) @ gap
            if group[0, i] == group[1, j] and d <= 9.21:
                expected[i, j] = d
    assert 20 < len(expected) < 600
    found = dict(zip(zip(row.tolist(), column.tolist(), strict=True), squared, strict=True))
    assert found == pytest.approx(expected)


def brute_force(cost: dict[tuple[int, int], float], limit: float, n: int, m: int) -> float:
    """The smallest sum of (cost - limit) over all one-to-one choices."""
    best = 0.0
    for k in range(1, min(n, m) + 1):
        for rows in combinations(range(n), k):
            for columns in permutations(range(m), k):
                pairs = list(zip(rows, columns, strict=True))
                if all(pair in cost for pair in pairs):
                    best = min(best, sum(cost[pair] - limit for pair in pairs))
    return best


@given(
    st.integers(1, 4), st.integers(1, 4),
    st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.floats(0, 5), max_size=12),
)  # fmt: skip
def test_the_assignment_is_the_best_of_all(n, m, cost) -> None:
    cost = {pair: value for pair, value in cost.items() if pair[0] < n and pair[1] < m}
    row, column = (np.array([pair[k] for pair in cost], dtype=np.int64) for k in range(2))
    values = np.array(list(cost.values()))
    first, second = assign(row, column, values, 3.0)
    chosen = list(zip(first.tolist(), second.tolist(), strict=True))
    assert set(chosen) <= set(cost)  # no gated pair
    assert all(cost[pair] < 3.0 for pair in chosen)
    assert len(set(first.tolist())) == len(set(second.tolist())) == len(chosen)
    assert sorted(first.tolist()) == first.tolist()
    total = sum(cost[pair] - 3.0 for pair in chosen)
    assert total == pytest.approx(brute_force(cost, 3.0, n, m), abs=1e-9)


def test_one_good_match_is_better_than_two_bad_ones() -> None:
    row, column = np.array([0, 0, 1]), np.array([0, 1, 0])
    first, second = assign(row, column, np.array([0.1, 2.4, 2.4]), 2.5)
    assert (first.tolist(), second.tolist()) == ([0], [0])


def test_nothing_to_assign() -> None:
    none = np.empty(0, dtype=np.int64)
    first, second = assign(none, none, np.empty(0), 1.0)
    assert len(first) == len(second) == 0
    row, column = match_places(places([]), places([[0, 0]]), CONFIG)
    assert len(row) == len(column) == 0


def test_of_two_in_one_place_the_image_decides() -> None:
    lidar, camera = places([[10, 0], [10, 0.5]]), places([[10, 0.2], [10, 0.3]])
    left, right = [10, 10, 30, 40], [50, 10, 70, 40]
    row, column = match_views(lidar, camera, image([left, right], [right, left]), CONFIG)
    assert (row.tolist(), column.tolist()) == ([0, 1], [1, 0])


def test_of_two_in_one_part_of_the_image_the_place_decides() -> None:
    lidar, camera = places([[10, 0], [13, 0]]), places([[13, 0], [10, 0]])
    same = [10, 10, 30, 40]
    row, column = match_views(lidar, camera, image([same, same], [same, same]), CONFIG)
    assert (row.tolist(), column.tolist()) == ([0, 1], [1, 0])


def test_the_same_class_is_preferred_and_another_group_never_chosen() -> None:
    lidar = places([[10, 0]], label=[2])
    camera = places([[10, 0], [10, 0.1], [10, 0]], label=[1, 2, 3], group=[0, 0, 1])
    _, column = match_places(lidar, camera, CONFIG)
    assert column.tolist() == [1]
    _, column = match_places(lidar, camera, replace(CONFIG, class_cost=0.0))
    assert column.tolist() == [0]
    only_other = Places(**{k: v[2:] for k, v in camera.__dict__.items()})
    assert len(match_places(lidar, only_other, CONFIG)[0]) == 0


@pytest.mark.parametrize(
    ('lidar_box', 'camera_box', 'gap', 'matches'),
    [
        ([10, 10, 30, 40], [10, 10, 30, 40], 0.0, True),
        ([10, 10, 30, 40], [60, 10, 90, 40], 0.0, False),  # elsewhere in the image
        ([10, 10, 30, 40], [10, 10, 30, 40], 4.4, False),  # 3.1 sigma
        ([10, 10, 30, 40], [10, 10, 30, 40], 4.2, True),
        ([0, 0, 0, 0], [10, 10, 30, 40], 0.0, False),  # not in this image
        ([10, 10, 30, 40], [0, 0, 0, 0], 0.0, False),
    ],
)
def test_gates(lidar_box, camera_box, gap, matches) -> None:
    row, _ = match_views(
        places([[10, 0]]), places([[10, gap]]), image([lidar_box], [camera_box]), CONFIG
    )
    assert len(row) == matches


def test_the_limit_of_the_cost_gates_too() -> None:
    a, b = places([[0, 0]]), places([[2, 0]])
    assert len(match_places(a, b, CONFIG)[0]) == 1  # sqrt(2) sigma: 0.47
    assert len(match_places(a, b, replace(CONFIG, gate_cost=0.4))[0]) == 0
