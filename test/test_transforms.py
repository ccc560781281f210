"""The transform buffer against scipy's Slerp and, where ROS 2 is sourced, against tf2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from airside_perception.errors import TransformError
from airside_perception.geometry import invert, transform
from airside_perception.transforms import TransformBuffer, interpolate
from airside_perception.types import Float64

SECOND = 1_000_000_000


def pose(rng: np.random.Generator) -> Float64:
    return transform(
        Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix(), rng.normal(size=3)
    )


def moved(x: float, yaw: float = 0.0) -> Float64:
    return transform(Rotation.from_euler('z', yaw).as_matrix(), np.array([x, 0.0, 0.0]))


@pytest.fixture
def vehicle() -> TransformBuffer:
    """odom -> base_link moves by 1 m/s; lidar and camera are fixed to it."""
    buffer = TransformBuffer()
    for step in (2, 0, 1):  # stamps need not come in order
        buffer.add('odom', 'base_link', step * SECOND, moved(float(step)))
    buffer.set_static('base_link', 'lidar', moved(0.5))
    buffer.set_static('base_link', 'camera', moved(1.5, np.pi / 2))
    return buffer


def test_chains_up_and_down(vehicle: TransformBuffer) -> None:
    np.testing.assert_allclose(vehicle.lookup('base_link', 'lidar', 7), moved(0.5))
    np.testing.assert_allclose(vehicle.lookup('odom', 'lidar', SECOND), moved(1.5))
    np.testing.assert_allclose(vehicle.lookup('lidar', 'odom', SECOND), invert(moved(1.5)))
    expected = invert(moved(1.5, np.pi / 2)) @ moved(0.5)
    np.testing.assert_allclose(vehicle.lookup('camera', 'lidar', 0), expected, atol=1e-12)


def test_interpolates_between_stamps(vehicle: TransformBuffer) -> None:
    found = vehicle.lookup('odom', 'base_link', 1_250_000_000)
    np.testing.assert_allclose(found, moved(1.25), atol=1e-12)


def test_between_two_stamps_through_the_fixed_frame(vehicle: TransformBuffer) -> None:
    """What was 0 m ahead of the lidar at 0 s is 2 m behind it at 2 s."""
    found = vehicle.lookup_between('lidar', 2 * SECOND, 'lidar', 0, 'odom')
    np.testing.assert_allclose(found, moved(-2.0), atol=1e-12)
    same = vehicle.lookup_between('lidar', 9 * SECOND, 'lidar', 9 * SECOND, 'odom')
    np.testing.assert_array_equal(same, np.eye(4))


def test_static_branches_need_no_dynamic_data(vehicle: TransformBuffer) -> None:
    vehicle.clear()
    np.testing.assert_allclose(vehicle.lookup('base_link', 'lidar', 99 * SECOND), moved(0.5))
    with pytest.raises(TransformError, match="unknown frame 'odom'"):
        vehicle.lookup('odom', 'lidar', SECOND)
    vehicle.add('map', 'base_link', 0, moved(3.0))
    np.testing.assert_allclose(vehicle.lookup('map', 'lidar', 0), moved(3.5))


@pytest.mark.parametrize(
    ('stamp', 'span'), [(-1, 'from 0 to 2000000000'), (2 * SECOND + 1, 'from 0 to')]
)
def test_outside_the_known_stamps_there_is_no_answer(
    vehicle: TransformBuffer, stamp: int, span: str
) -> None:
    with pytest.raises(TransformError, match=span) as error:
        vehicle.lookup('odom', 'lidar', stamp)
    for word in ("'lidar'", "'odom'", "'base_link'", f'{stamp} ns'):
        assert word in str(error.value)


def test_one_stamp_answers_for_itself_only() -> None:
    buffer = TransformBuffer()
    buffer.add('base_link', 'camera', 5, moved(1.0))
    np.testing.assert_allclose(buffer.lookup('base_link', 'camera', 5), moved(1.0))
    with pytest.raises(TransformError, match='from 5 to 5 ns'):
        buffer.lookup('base_link', 'camera', 6)


def test_unknown_and_unconnected_frames_are_named(vehicle: TransformBuffer) -> None:
    with pytest.raises(
        TransformError, match="unknown frame 'radar'; known frames: base_link, camera"
    ):
        vehicle.lookup('odom', 'radar', 0)
    vehicle.set_static('hangar', 'door', moved(1.0))
    with pytest.raises(TransformError, match='not connected'):
        vehicle.lookup('door', 'lidar', 0)
    with pytest.raises(TransformError, match='known frames: none'):
        TransformBuffer().lookup('a', 'b', 0)


def test_a_frame_is_its_own_identity() -> None:
    np.testing.assert_array_equal(TransformBuffer().lookup('a', 'a', 0), np.eye(4))


def test_later_values_replace_earlier_ones(vehicle: TransformBuffer) -> None:
    vehicle.set_static('base_link', 'lidar', moved(0.7))
    vehicle.add('odom', 'base_link', SECOND, moved(5.0))
    np.testing.assert_allclose(vehicle.lookup('odom', 'lidar', SECOND), moved(5.7))


def test_stored_matrices_are_copies() -> None:
    buffer, matrix = TransformBuffer(), moved(1.0)
    buffer.set_static('a', 'b', matrix)
    matrix[0, 3] = 9.0
    np.testing.assert_allclose(buffer.lookup('a', 'b', 0), moved(1.0))


@pytest.mark.parametrize(
    ('parent', 'child', 'matrix', 'problem'),
    [
        ('odom', 'lidar', np.eye(4), "two parents: 'base_link' and 'odom'"),
        ('lidar', 'odom', np.eye(4), 'loop'),
        ('tool', 'tool', np.eye(4), 'loop'),
        ('base_link', 'tool', np.diag([1.0, 1.0, 2.0, 1.0]), 'not rigid'),
        ('base_link', 'tool', np.diag([1.0, 1.0, -1.0, 1.0]), 'not rigid'),
        ('base_link', 'tool', np.full((4, 4), np.nan), 'not rigid'),
        ('base_link', 'tool', np.eye(3), 'not rigid'),
        ('odom', 'base_link', np.eye(4), 'by stamp already'),
    ],
)
def test_what_is_no_tree_or_no_rigid_motion_is_refused(
    vehicle: TransformBuffer, parent: str, child: str, matrix: Float64, problem: str
) -> None:
    with pytest.raises(TransformError, match=problem):
        vehicle.set_static(parent, child, matrix)


def test_a_static_frame_takes_no_stamps(vehicle: TransformBuffer) -> None:
    with pytest.raises(TransformError, match='static transform already'):
        vehicle.add('base_link', 'lidar', 0, np.eye(4))


@given(
    st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6),
    st.floats(0.0, 1.0),
    st.sampled_from([1.0, 1e-3, 1e-6, 1e-9]),
)
def test_slerp_is_scipys(values: list[float], fraction: float, scale: float) -> None:
    start = Rotation.from_rotvec(values[:3])
    end = start * Rotation.from_rotvec(np.array(values[3:]) * scale)
    if (start.inv() * end).magnitude() > 3.1:
        return  # near half a turn the way round is not unique
    found = interpolate(
        transform(start.as_matrix(), np.array(values[:3])),
        transform(end.as_matrix(), np.array(values[3:])),
        fraction,
    )
    expected = Slerp([0.0, 1.0], Rotation.concatenate([start, end]))(fraction).as_matrix()
    np.testing.assert_allclose(found[:3, :3], expected, atol=1e-9)
    between = np.array(values[:3]) * (1 - fraction) + np.array(values[3:]) * fraction
    np.testing.assert_allclose(found[:3, 3], between, atol=1e-12)


@pytest.mark.ros
def test_agrees_with_tf2() -> None:
    tf2_ros = pytest.importorskip('tf2_ros', reason='ROS 2 is not sourced')
    messages = pytest.importorskip('geometry_msgs.msg')
    time = pytest.importorskip('rclpy.time').Time
    from airside_perception.messages import rigid_transform, transform_message

    kinds = {'Header': pytest.importorskip('std_msgs.msg').Header}
    kinds['Time'] = pytest.importorskip('builtin_interfaces.msg').Time

    def types(name: str) -> object:
        short = name.rsplit('/', 1)[-1]
        return kinds.get(short) or getattr(messages, short)

    rng = np.random.default_rng(3)
    ours, theirs = TransformBuffer(), tf2_ros.Buffer()
    for step in range(4):
        matrix = pose(rng)
        ours.add('odom', 'base_link', step * SECOND, matrix)
        message = transform_message('odom', 'base_link', step * SECOND, matrix, types)
        theirs.set_transform(message, 'test')
    for child in ('lidar', 'camera'):
        matrix = pose(rng)
        ours.set_static('base_link', child, matrix)
        message = transform_message('base_link', child, 0, matrix, types)
        theirs.set_transform_static(message, 'test')
    for stamp in (*rng.integers(1, 3 * SECOND, 20).tolist(), SECOND, 3 * SECOND):
        for target, source in (('odom', 'lidar'), ('camera', 'odom'), ('camera', 'lidar')):
            answer = theirs.lookup_transform_core(target, source, time(nanoseconds=stamp))
            expected = rigid_transform(answer)[3]
            np.testing.assert_allclose(ours.lookup(target, source, stamp), expected, atol=1e-9)
    there, here = time(nanoseconds=2 * SECOND + 5), time(nanoseconds=SECOND // 3)
    answer = theirs.lookup_transform_full_core('lidar', there, 'camera', here, 'odom')
    found = ours.lookup_between('lidar', 2 * SECOND + 5, 'camera', SECOND // 3, 'odom')
    np.testing.assert_allclose(found, rigid_transform(answer)[3], atol=1e-9)
    with pytest.raises(tf2_ros.ExtrapolationException):
        theirs.lookup_transform_core('odom', 'lidar', time(nanoseconds=4 * SECOND))
    with pytest.raises(TransformError):
        ours.lookup('odom', 'lidar', 4 * SECOND)
