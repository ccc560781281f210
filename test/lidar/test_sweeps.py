"""Past sweeps beside the newest: where their points lie, in which order, what may be missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from airside_perception.card import LidarCard
from airside_perception.config import LidarConfig
from airside_perception.errors import MessageError, TransformError
from airside_perception.geometry import apply, invert, rotation_z, transform
from airside_perception.lidar.pillars import Grid
from airside_perception.lidar.sweeps import Sweeps
from airside_perception.transforms import TransformBuffer
from airside_perception.types import PointCloud

MakeCard = Callable[..., LidarCard]
MS = 1_000_000
T0 = 1_700_000_000_000 * MS
FEATURES = ('x', 'y', 'z', 'time_lag', 'xc', 'yc', 'zc', 'xp', 'yp')
WITH_INTENSITY = ('x', 'y', 'z', 'intensity', 'time_lag')


def base2odom(stamp_ns: int) -> np.ndarray:
    """A vehicle on a curve at 8 m/s that rolls a little, 500 m from the origin of odom."""
    t = (stamp_ns - T0) / 1e9
    turn = rotation_z(1.0 + 0.5 * t)
    roll = 0.05 * np.sin(3 * t)
    c, s = np.cos(roll), np.sin(roll)
    place = np.array([500.0 + 16 * np.sin(0.5 * t), -300.0 - 16 * np.cos(0.5 * t), 0.1])
    return transform(turn @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), place)


def driven(stamps: list[int]) -> TransformBuffer:
    buffer = TransformBuffer()
    for stamp in stamps:
        buffer.add('odom', 'base_link', stamp, base2odom(stamp))
    return buffer


def seen(world: np.ndarray, stamp: int) -> PointCloud:
    """What stands at these places [N, 3] of odom, seen from the vehicle, intensity 0, 1, 2, ..."""
    points = apply(invert(base2odom(stamp)), world)
    return cloud(np.column_stack([points, np.arange(len(points))]), stamp)


def cloud(points: Any, stamp: int, frame: str = 'base_link') -> PointCloud:
    return PointCloud(stamp, frame, np.asarray(points, np.float32).reshape(-1, 4))


@pytest.fixture(name='make_card')
def card_of_a_wide_range(make_card: MakeCard) -> MakeCard:
    return partial(make_card, limits=(-64.0, -64.0, -3.0, 64.0, 64.0, 5.0))


@pytest.fixture
def world() -> np.ndarray:
    rng = np.random.default_rng(4)
    return rng.uniform([470, -340, 0], [530, -280, 4], (500, 3))


@pytest.fixture
def static() -> TransformBuffer:
    """A vehicle that stands still, at every stamp."""
    buffer = TransformBuffer()
    buffer.set_static('odom', 'base_link', np.eye(4))
    return buffer


@pytest.mark.parametrize('features', [FEATURES, WITH_INTENSITY])
def test_what_stands_still_falls_onto_itself(
    make_card: MakeCard, world: np.ndarray, features: tuple[str, ...]
) -> None:
    card = make_card(features=features, past_sweeps=2)
    sweeps, config = Sweeps(card), LidarConfig()
    stamps = [T0, T0 + 100 * MS, T0 + 210 * MS, T0 + 300 * MS]
    transforms = driven(stamps)
    for stamp in stamps:
        joined = sweeps.join(seen(world, stamp), config, transforms)
    assert (sweeps.last_sweeps, sweeps.last_missing, sweeps.last_error) == (2, '', None)
    assert joined.fields == card.point_columns
    assert (joined.stamp_ns, joined.frame_id, joined.received) == (stamps[-1], 'base_link', 500)
    now = apply(invert(base2odom(stamps[-1])), world)
    for sweep, age in enumerate([0.0, 0.09, 0.2]):  # the newest first, then by age
        part = joined.points[500 * sweep : 500 * (sweep + 1)]
        np.testing.assert_allclose(part[:, :3], now, atol=2e-5)
        np.testing.assert_allclose(part[:, -1], age, rtol=1e-6)
        if features is WITH_INTENSITY:
            assert part[:, 3].tolist() == list(range(500))
    assert len(joined) == 1500


def test_without_odometry_a_named_target_frame_leaves_motion_out(
    make_card: MakeCard, world: np.ndarray
) -> None:
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=1))
    config = LidarConfig(fixed_frame='base_link')
    for stamp in (T0, T0 + 100 * MS):
        joined = sweeps.join(seen(world, stamp), config, TransformBuffer())
    np.testing.assert_array_equal(joined.points[500:, :3], seen(world, T0).points[:, :3])


def test_full_pillars_keep_the_newest_points(make_card: MakeCard, static: TransformBuffer) -> None:
    card = make_card(features=FEATURES, past_sweeps=1, max_points=4)
    sweeps = Sweeps(card)
    place = [[0.1, 0.1, 0.5, 0.0]]
    sweeps.join(cloud(place * 6, T0), LidarConfig(), static)
    joined = sweeps.join(cloud(place * 3, T0 + 100 * MS), LidarConfig(), static)
    pillars = Grid.of(card).fill(joined.points)
    assert pillars.members.tolist() == [0, 1, 2, 3]  # all of the newest, then the first past one
    assert joined.points[pillars.members, 3].tolist() == pytest.approx([0, 0, 0, 0.1])


@pytest.mark.parametrize('leave_out', [{'ego_box': (-1, -1, 0, 1, 1, 2)}, {'min_range': 1.0}])
def test_the_own_body_is_left_out_where_it_was(
    make_card: MakeCard, leave_out: dict[str, Any]
) -> None:
    card = make_card(features=FEATURES, past_sweeps=1)
    transforms = TransformBuffer()
    for stamp, x in ((T0, 0.0), (T0 + 100 * MS, 3.0)):
        transforms.add('odom', 'base_link', stamp, transform(np.eye(3), np.array([x, 0, 0])))
    sweeps, config = Sweeps(card), LidarConfig(**leave_out)
    points = [[0.5, 0.2, 1.0, 0.0], [6.0, 0.0, 1.0, 0.0]]  # the roof, and a crate
    first = sweeps.join(cloud(points, T0), config, transforms)
    assert first.points.tolist() == [[6.0, 0.0, 1.0, 0.0]]
    points[1][0] = 3.0
    joined = sweeps.join(cloud(points, T0 + 100 * MS), config, transforms)
    np.testing.assert_allclose(joined.points, [[3, 0, 1, 0], [3, 0, 1, 0.1]], atol=1e-6)


def test_only_what_is_wanted_and_not_too_old(make_card: MakeCard, static: TransformBuffer) -> None:
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=3))
    counts, missing = [], []
    for step, config in enumerate(
        [LidarConfig()] * 5
        + [LidarConfig(past_sweeps=2), LidarConfig(past_sweeps=0), LidarConfig(max_sweep_age=0.15)]
    ):
        joined = sweeps.join(cloud([[1, 0, 0, 0]], T0 + step * 100 * MS), config, static)
        assert len(joined) == 1 + sweeps.last_sweeps
        counts.append(sweeps.last_sweeps)
        missing.append(sweeps.last_missing)
    assert counts == [0, 1, 2, 3, 3, 2, 0, 1]
    assert missing[:3] == [
        'no cloud before this one',
        'clouds before this one: only 1',
        'clouds before this one: only 2',
    ]
    assert missing[3:7] == [''] * 4
    assert missing[7] == 'a sweep is 0.200 s old, max_sweep_age 0.15 s'
    assert sweeps.last_error is None


def test_a_gap_of_the_odometry_costs_the_past_and_no_more(
    make_card: MakeCard, world: np.ndarray
) -> None:
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=2))
    stamps = [T0 + n * 100 * MS for n in range(4)]
    known = driven(stamps)
    sweeps.join(seen(world, stamps[0]), LidarConfig(), known)
    joined = sweeps.join(seen(world, stamps[1]), LidarConfig(), driven(stamps[:1]))
    assert (len(joined), sweeps.last_sweeps) == (500, 0)
    assert isinstance(sweeps.last_error, TransformError)
    assert sweeps.last_missing == str(sweeps.last_error)
    assert "'base_link' -> 'odom' is known from" in sweeps.last_missing
    joined = sweeps.join(seen(world, stamps[2]), LidarConfig(), driven(stamps[1:]))
    assert (len(joined), sweeps.last_sweeps) == (1000, 1)  # the first one is out of reach
    assert isinstance(sweeps.last_error, TransformError)
    sweeps.join(seen(world, stamps[3]), LidarConfig(), known)
    assert (sweeps.last_sweeps, sweeps.last_missing, sweeps.last_error) == (2, '', None)


def test_a_missing_transform_is_told_though_others_are_too_old(
    make_card: MakeCard, world: np.ndarray
) -> None:
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=5))
    for step in range(6):
        sweeps.join(seen(world, T0 + step * 100 * MS), LidarConfig(), TransformBuffer())
    assert sweeps.last_sweeps == 0
    assert sweeps.last_missing == str(sweeps.last_error)
    assert "unknown frame 'odom'" in sweeps.last_missing


def test_a_message_that_was_sent_twice_is_one_sweep(
    make_card: MakeCard, static: TransformBuffer
) -> None:
    sweeps, config = Sweeps(make_card(features=FEATURES, past_sweeps=3)), LidarConfig()
    for x, stamp in ((1, 0), (2, 100), (3, 100)):
        joined = sweeps.join(cloud([[x, 0, 0, 0]], T0 + stamp * MS), config, static)
    assert joined.points[:, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize('back', [1, 5000])
def test_a_jump_back_in_time_clears_the_past(
    make_card: MakeCard, static: TransformBuffer, back: int
) -> None:
    sweeps, config = Sweeps(make_card(features=FEATURES, past_sweeps=3)), LidarConfig()
    for step in range(3):
        sweeps.join(cloud([[1, 0, 0, 0]], T0 + step * 100 * MS), config, static)
    again = T0 + (200 - back) * MS
    assert len(sweeps.join(cloud([[2, 0, 0, 0]], again), config, static)) == 1
    assert sweeps.last_missing == f'the stamp went back by {back / 1e3:.3f} s'
    joined = sweeps.join(cloud([[3, 0, 0, 0]], again + 100 * MS), config, static)
    assert joined.points[:, 0].tolist() == [3.0, 2.0]


def test_another_frame_clears_the_past(make_card: MakeCard, static: TransformBuffer) -> None:
    sweeps, config = Sweeps(make_card(features=FEATURES, past_sweeps=3)), LidarConfig()
    sweeps.join(cloud([[1, 0, 0, 0]], T0, 'roof'), config, static)
    assert len(sweeps.join(cloud([[1, 0, 0, 0]], T0 + 100 * MS), config, static)) == 1
    assert sweeps.last_missing == "the last cloud was in frame 'roof'"
    assert len(sweeps.join(cloud([[1, 0, 0, 0]], T0 + 200 * MS), config, static)) == 2


BLIND = 'no point of this cloud is in the range of the network'


@pytest.mark.parametrize('nothing', [[], [[64.1, 0, 0, 0]] * 5000, [[1, 0, 5.5, 0]]])
def test_a_cloud_that_shows_nothing_is_alone(
    make_card: MakeCard, static: TransformBuffer, nothing: list[list[float]]
) -> None:
    """What was there before is not said to be there still."""
    sweeps, config = Sweeps(make_card(features=FEATURES, past_sweeps=2)), LidarConfig()
    sweeps.join(cloud([[1, 0, 0, 0]], T0), config, static)
    for step, alone in ((1, 2), (2, 3)):
        joined = sweeps.join(cloud(nothing, T0 + step * 100 * MS), config, static)
        assert len(joined) == len(nothing)
        assert (sweeps.last_sweeps, sweeps.last_missing) == (0, BLIND)
        assert sweeps.alone == alone
    sweeps.join(cloud(nothing, T0 + 250 * MS), LidarConfig(past_sweeps=0), static)
    assert (sweeps.last_missing, sweeps.alone) == ('', 0)  # nothing is wanted
    again = sweeps.join(cloud([*nothing, [2, 0, 0, 0]], T0 + 300 * MS), config, static)
    assert len(again) == 3 * len(nothing) + 1
    assert (sweeps.last_sweeps, sweeps.alone) == (2, 0)


@pytest.mark.parametrize(
    'config', [LidarConfig(ego_box=(0.5, -1.0, -1.0, 2.0, 1.0, 2.0)), LidarConfig(min_range=2.0)]
)
def test_another_body_clears_the_past(
    make_card: MakeCard, static: TransformBuffer, config: LidarConfig
) -> None:
    """Sweeps that still show it would have it found where it was."""
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=1))
    both = [[1, 0, 0, 0], [5, 0, 0, 0]]
    assert len(sweeps.join(cloud(both, T0), LidarConfig(), static)) == 2
    assert len(sweeps.join(cloud(both, T0 + 100 * MS), config, static)) == 1
    assert sweeps.last_missing == 'min_range or ego_box has changed'
    assert len(sweeps.join(cloud(both, T0 + 200 * MS), config, static)) == 2
    assert sweeps.last_missing == ''


def test_the_own_body_is_not_what_a_cloud_shows(
    make_card: MakeCard, static: TransformBuffer
) -> None:
    sweeps = Sweeps(make_card(features=FEATURES, past_sweeps=1))
    config = LidarConfig(ego_box=(-1.0, -1.0, -1.0, 2.0, 1.0, 2.0))
    sweeps.join(cloud([[1, 0, 0, 0], [5, 0, 0, 0]], T0), config, static)
    assert len(sweeps.join(cloud([[1, 0, 0, 0]], T0 + 100 * MS), config, static)) == 0
    assert sweeps.last_missing == BLIND


def test_a_needed_intensity(make_card: MakeCard, static: TransformBuffer) -> None:
    sweeps = Sweeps(make_card(features=WITH_INTENSITY, past_sweeps=1))
    bare = PointCloud(T0, 'base_link', np.ones((1, 3), np.float32), ('x', 'y', 'z'))
    with pytest.raises(MessageError, match='needs intensity'):
        sweeps.join(bare, LidarConfig(), static)
