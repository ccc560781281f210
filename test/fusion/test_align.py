from __future__ import annotations

import numpy as np
import pytest

from airside_perception.config import FusionConfig
from airside_perception.errors import MessageError, TransformError
from airside_perception.fusion import CameraView, align, align_set
from airside_perception.fusion.align import check_boxes
from airside_perception.geometry import apply, invert, rotation_z, transform
from airside_perception.transforms import TransformBuffer

EARLY, LATE = 1_000_000_000, 1_100_000_000


@pytest.fixture
def drive(rig) -> TransformBuffer:
    """A vehicle that goes 2 m ahead and turns by 0.1 rad within the 0.1 s of the test."""
    buffer = TransformBuffer()
    buffer.set_static('base_link', 'camera_optical', rig.camera2base())
    buffer.set_static('base_link', 'lidar', transform(rotation_z(0.3), np.array([1.0, 0, 1.9])))
    buffer.add('odom', 'base_link', EARLY, transform(rotation_z(0.2), np.array([5.0, 7.0, 0])))
    buffer.add('odom', 'base_link', LATE, transform(rotation_z(0.3), np.array([7.0, 7.0, 0])))
    return buffer


class NoFixedFrame:
    """A rig without odometry: only lookups at one stamp succeed."""

    def __init__(self, source2target: np.ndarray) -> None:
        self.source2target = source2target

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        return self.source2target

    def lookup_between(self, target, target_ns, source, source_ns, fixed):
        raise TransformError(f'no frame {fixed!r}')


def test_boxes_that_are_there_already_come_back_as_they_are(rig) -> None:
    boxes = rig.boxes(('car', 10, 2), stamp=EARLY)
    source = NoFixedFrame(np.full((4, 4), np.nan))
    assert align(boxes, source, 'base_link', EARLY, 'odom', 3.0) is boxes


def test_at_one_stamp_no_fixed_frame_is_needed(rig) -> None:
    boxes = rig.boxes(('car', 10, 2), stamp=EARLY, frame='lidar')
    lidar2base = transform(rotation_z(0.5), np.array([1.0, 2.0, 3.0]))
    moved = align(boxes, NoFixedFrame(lidar2base), 'base_link', EARLY, 'odom', 3.0)
    np.testing.assert_allclose(moved.boxes[0, :3], apply(lidar2base, boxes.boxes[:, :3])[0])
    assert moved.boxes[0, 6] == pytest.approx(0.5)
    np.testing.assert_allclose(moved.covariances, boxes.covariances, atol=1e-12)
    assert (moved.frame_id, moved.stamp_ns) == ('base_link', EARLY)


def test_ego_motion_is_taken_out(rig, drive) -> None:
    parked = np.array([20.0, 9.0, 0.75])
    odom2early = invert(drive.lookup('odom', 'base_link', EARLY))
    odom2late = invert(drive.lookup('odom', 'base_link', LATE))
    x, y, _ = apply(odom2early, parked[None])[0]
    moved = align(
        rig.boxes(('car', x, y, -0.2), stamp=EARLY), drive, 'base_link', LATE, 'odom', 0.0
    )
    np.testing.assert_allclose(moved.boxes[0, :3], apply(odom2late, parked[None])[0], atol=1e-9)
    assert moved.boxes[0, 6] == pytest.approx(-0.3)  # 0 in odom
    assert moved.stamp_ns == LATE


@pytest.mark.parametrize('backwards', [False, True])
def test_objects_may_have_moved_meanwhile(rig, drive, backwards: bool) -> None:
    start, end = (LATE, EARLY) if backwards else (EARLY, LATE)
    boxes = rig.boxes(('car', 10, 2), stamp=start)
    still = align(boxes, drive, 'base_link', end, 'odom', 0.0)
    moving = align(boxes, drive, 'base_link', end, 'odom', 4.0)
    growth = (moving.covariances - still.covariances)[0]
    np.testing.assert_allclose(growth, np.diag([0.16, 0.16, 0, 0]), atol=1e-12)


def test_an_unknown_covariance_stays_unknown(rig, drive) -> None:
    boxes = rig.boxes(('car', 10, 2), stamp=EARLY, sigma=0.2)
    blank = type(boxes)(
        EARLY, 'base_link', boxes.boxes, boxes.scores, boxes.classes, np.zeros((1, 4, 4))
    )
    assert not align(blank, drive, 'base_link', LATE, 'odom', 4.0).covariances.any()


@pytest.mark.parametrize(
    ('frame', 'stamp', 'target'),
    [
        ('camera_left', EARLY, EARLY),
        ('base_link', EARLY, LATE + 10**9),
        ('base_link', 0, EARLY),
    ],
)
def test_a_transform_that_is_missing_is_an_error(rig, drive, frame, stamp, target) -> None:
    boxes = rig.boxes(('car', 10, 2), stamp=stamp, frame=frame)
    with pytest.raises(TransformError):
        align(boxes, drive, 'base_link', target, 'odom', 3.0)


def test_without_a_fixed_frame_other_stamps_are_an_error(rig) -> None:
    with pytest.raises(TransformError, match='odom'):
        align(
            rig.boxes(('car', 9, 0), stamp=EARLY), NoFixedFrame(np.eye(4)), 'base_link', LATE,
            'odom', 3.0,
        )  # fmt: skip


def test_a_set_takes_the_stamp_of_its_first_source_and_each_camera_its_own(rig, drive) -> None:
    config = FusionConfig(cameras=('front', 'rear'))
    detections = {
        'rear': rig.boxes(('car', -9, 0), stamp=LATE),
        'front': rig.boxes(('car', 9, 0), stamp=EARLY),
        'lidar': rig.boxes(('car', 9, 0), stamp=LATE, frame='lidar'),
    }
    aligned = align_set(detections, {'front': rig.lens()}, drive, config)
    assert (aligned.stamp_ns, aligned.frame_id, aligned.failures) == (LATE, 'base_link', {})
    assert aligned.lidar is not None
    assert aligned.lidar.frame_id == 'base_link'
    front, rear = aligned.cameras['front'], aligned.cameras['rear']
    assert front.boxes.stamp_ns == LATE
    expected = drive.lookup_between('camera_optical', EARLY, 'base_link', LATE, 'odom')
    np.testing.assert_array_equal(front.fusion2camera, expected)
    assert (rear.camera, rear.fusion2camera) == (None, None)


def test_at_one_stamp_the_camera_needs_no_fixed_frame(rig) -> None:
    detections = {'front': rig.boxes(('car', 9, 0), stamp=EARLY)}
    pose = rig.camera2base()
    aligned = align_set(
        detections, {'front': rig.lens()}, NoFixedFrame(invert(pose)), FusionConfig()
    )
    np.testing.assert_array_equal(aligned.cameras['front'].fusion2camera, invert(pose))
    assert aligned.lidar is None


def test_who_cannot_be_aligned_is_left_out_and_named(rig, drive) -> None:
    config = FusionConfig(cameras=('front', 'left', 'rear'))
    detections = {
        'lidar': rig.boxes(('car', 9, 0), stamp=EARLY, frame='lidar_2'),
        'front': rig.boxes(('car', 9, 0), stamp=EARLY),
        'left': rig.boxes(('car', 9, 0, 0.0, 1.5), stamp=EARLY),
        'rear': rig.boxes(('car', 9, 0), stamp=EARLY),
    }
    stranger = rig.lens()
    object.__setattr__(stranger, 'frame_id', 'camera_rear_optical')
    aligned = align_set(detections, {'rear': stranger}, drive, config)
    assert aligned.lidar is None
    assert sorted(aligned.cameras) == ['front', 'rear']
    assert sorted(aligned.failures) == ['left', 'lidar', 'rear']
    assert 'lidar_2' in str(aligned.failures['lidar'])
    assert 'score 1.5' in str(aligned.failures['left'])
    assert isinstance(aligned.failures['rear'], TransformError)
    assert aligned.cameras['rear'].camera is None  # its places still count


def test_the_lidar_is_where_its_frame_is(rig, drive) -> None:
    detections = {'lidar': rig.boxes(('car', 9, 0), stamp=EARLY)}

    def aligned(boxes=None, **settings):
        config = FusionConfig(**settings)
        return align_set({'lidar': boxes} if boxes else detections, {}, drive, config)

    assert aligned().lidar_origin.tolist() == [0.0, 0.0]  # of the frame of its boxes
    assert aligned(lidar_frame='lidar').lidar_origin.tolist() == [1.0, 0.0]
    own = rig.boxes(('car', 9, 0), stamp=EARLY, frame='lidar')
    assert aligned(own).lidar_origin.tolist() == [1.0, 0.0]
    lost = aligned(lidar_frame='roof')
    assert lost.lidar_origin is None
    assert lost.lidar is not None
    assert 'roof' in str(lost.failures['lidar'])
    without = aligned(lidar_frame='roof', lidar_shadow=False)
    assert (without.lidar_origin, without.failures) == (None, {})


def test_a_set_is_of_known_sources_and_not_empty(rig, drive) -> None:
    with pytest.raises(MessageError, match='front'):
        align_set({}, {}, drive, FusionConfig())
    with pytest.raises(MessageError, match='left'):
        align_set({'left': rig.boxes(('car', 9, 0))}, {}, drive, FusionConfig())


def test_a_view_has_a_lens_and_a_transform_or_neither(rig) -> None:
    with pytest.raises(MessageError, match='neither'):
        CameraView(rig.boxes(('car', 9, 0)), camera=rig.lens())
    with pytest.raises(MessageError, match='neither'):
        CameraView(rig.boxes(('car', 9, 0)), fusion2camera=np.eye(4))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'boxes': [[np.nan, 0, 0, 1, 1, 1, 0]]}, 'not finite'),
        ({'covariances': np.full((1, 4, 4), np.inf)}, 'not finite'),
        ({'scores': [-0.1]}, 'score -0.1'),
        ({'scores': [np.nan]}, 'score nan'),
        ({'boxes': [[9.0, 0, 0, 1, -1, 1, 0]]}, r'car at \(9.0, 0.0\) has a negative size'),
        ({'covariances': [np.diag([1.0, -1, 1, 1])]}, 'not positive definite'),
        ({'covariances': [np.diag([0.0, 0, 1, 1])]}, 'not positive definite'),
        ({'covariances': [np.ones((4, 4))]}, 'not positive definite'),
    ],
)
def test_boxes_that_cannot_be_weighed_are_refused(rig, change, text) -> None:
    good = rig.boxes(('car', 9, 0))
    check_boxes(good)
    bad = type(good)(**{**good.__dict__, **change, 'sources': (('front',),)})
    with pytest.raises(MessageError, match=text):
        check_boxes(bad)
