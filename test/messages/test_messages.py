"""Conversions, on rosbags' message classes and, where ROS is sourced, on rclpy's."""

from __future__ import annotations

import array
import importlib
import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from airside_perception import messages
from airside_perception.errors import MessageError
from airside_perception.geometry import from_quaternion, rotation_z, to_quaternion, transform
from airside_perception.projection import CameraModel
from airside_perception.replay.definitions import make_typestore, message_class
from airside_perception.types import Boxes2D, Boxes3D, Image, PointCloud

STAMP = 1_700_000_000_123_456_789
FLOAT32, FLOAT64, UINT8, UINT16, INT32 = 7, 8, 2, 4, 5


def _rosbags():
    store = make_typestore()
    return lambda name: message_class(store, name)


def _rclpy(name):
    package, folder, kind = name.split('/')
    return getattr(importlib.import_module(f'{package}.{folder}'), kind)


@pytest.fixture(params=['rosbags', 'rclpy'])
def types(request):
    if request.param == 'rosbags':
        return _rosbags()
    if importlib.util.find_spec('rclpy') is None:
        pytest.skip('no ROS 2 sourced: rclpy is not there')
    return _rclpy


def cloud_message(columns, *, height=1, pad_point=0, pad_row=0, big=False, **changes):
    """A duck-typed PointCloud2: columns are (name, datatype code, values)."""
    codes = {FLOAT32: 'f4', FLOAT64: 'f8', UINT8: 'u1', UINT16: 'u2', INT32: 'i4'}
    order = '>' if big else '<'
    dtype = np.dtype([(n, order + codes[c]) for n, c, _ in columns] + [('_', f'V{pad_point}')])
    count = len(columns[0][2])
    points = np.zeros(count, dtype)
    for name, _, values in columns:
        points[name] = values
    width = count // height
    rows = points.reshape(height, width)
    data = b''.join(row.tobytes() + bytes(pad_row) for row in rows)
    fields = [
        SimpleNamespace(name=n, offset=dtype.fields[n][1], datatype=c, count=1)
        for n, c, _ in columns
    ]
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id='lidar'),
        height=height, width=width, fields=fields, is_bigendian=big, point_step=dtype.itemsize,
        row_step=dtype.itemsize * width + pad_row, data=array.array('B', data), is_dense=True,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def xyz(count=6, seed=0):
    values = np.random.default_rng(seed).uniform(-20, 20, (4, count)).astype(np.float32)
    return [(n, FLOAT32, v) for n, v in zip(('x', 'y', 'z', 'intensity'), values, strict=True)]


def test_cloud_of_four_floats():
    columns = xyz()
    cloud = messages.point_cloud(cloud_message(columns))
    assert cloud.stamp_ns == 1_000_000_002
    assert cloud.frame_id == 'lidar'
    assert cloud.fields == ('x', 'y', 'z', 'intensity')
    assert_array_equal(cloud.points, np.stack([v for _, _, v in columns], axis=1))


@given(
    height=st.sampled_from([1, 2, 3]),
    pad_point=st.integers(0, 9),
    pad_row=st.integers(0, 20),
    big=st.booleans(),
    double=st.booleans(),
    intensity=st.sampled_from([None, FLOAT32, FLOAT64, UINT8, UINT16, INT32]),
    order=st.permutations(['x', 'y', 'z', 'ring', 'intensity']),
)
@settings(max_examples=60, deadline=None)
def test_cloud_of_any_layout(height, pad_point, pad_row, big, double, intensity, order):
    rng = np.random.default_rng(3)
    values = {n: rng.uniform(-9, 9, 6).astype(np.float32) for n in 'xyz'}
    values['intensity'] = rng.integers(0, 200, 6)
    values['ring'] = np.arange(6)
    kinds = {'x': FLOAT64 if double else FLOAT32, 'ring': UINT16, 'intensity': intensity}
    columns = [
        (n, kinds.get(n, FLOAT32), values[n]) for n in order if n != 'intensity' or intensity
    ]
    cloud = messages.point_cloud(
        cloud_message(columns, height=height, pad_point=pad_point, pad_row=pad_row, big=big)
    )
    names = ['x', 'y', 'z', *(['intensity'] if intensity else [])]
    assert cloud.fields == tuple(names)
    assert_array_equal(cloud.points, np.stack([values[n] for n in names], 1).astype(np.float32))


def test_cloud_filters_what_is_not_finite_or_out_of_range():
    columns = [
        ('x', FLOAT32, [1, np.nan, np.inf, 3, 30, 3e38, 2]),
        ('y', FLOAT32, [0, 0, 0, -np.inf, 0, 3e38, 0]),
        ('z', FLOAT32, [0, 0, 0, 0, 0, 0, 0]),
        ('intensity', FLOAT32, [0, 0, 0, 0, 0, 0, np.nan]),
    ]
    whole = messages.point_cloud(cloud_message(columns))
    assert_array_equal(whole.points[:, 0], [1, 30])
    assert whole.received == 7
    near = messages.point_cloud(cloud_message(columns), max_range=30.0)
    assert_array_equal(near.points[:, 0], [1])
    far = messages.point_cloud(cloud_message(columns), min_range=1.5)
    assert_array_equal(far.points[:, 0], [30])


def test_cloud_whose_intensity_nobody_needs():
    columns = [*xyz()[:3], ('intensity', FLOAT32, np.full(6, np.nan))]
    cloud = messages.point_cloud(cloud_message(columns), need=())
    assert cloud.fields == ('x', 'y', 'z')
    assert_array_equal(cloud.points, np.stack([v for _, _, v in columns[:3]], axis=1))
    assert len(messages.point_cloud(cloud_message(columns), need=('intensity',))) == 0


def test_cloud_without_points():
    cloud = messages.point_cloud(cloud_message([(n, FLOAT32, []) for n in 'xyz']))
    assert cloud.points.shape == (0, 3)
    assert len(cloud) == 0


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'fields': []}, "no field 'x'"),
        ({'width': 600}, 'announces'),
        ({'data': b''}, '0 bytes'),
        ({'point_step': 12, 'row_step': 72}, 'point_step is 12'),
        ({'height': 2, 'width': 3, 'row_step': 10}, 'row_step is 10'),
        ({'width': 2**31}, 'refused'),
    ],
)
def test_cloud_that_contradicts_itself(changes, said):
    with pytest.raises(MessageError, match=said):
        messages.point_cloud(cloud_message(xyz(), **changes))


def test_cloud_with_unusable_fields():
    integer = [('x', INT32, [1]), ('y', FLOAT32, [1]), ('z', FLOAT32, [1])]
    with pytest.raises(MessageError, match=r"'x' has datatype 5"):
        messages.point_cloud(cloud_message(integer))
    message = cloud_message(xyz())
    message.fields[1].datatype = 99
    with pytest.raises(MessageError, match='99'):
        messages.point_cloud(message)
    message = cloud_message(xyz())
    message.fields[1].count = 3
    with pytest.raises(MessageError, match='3 values'):
        messages.point_cloud(message)
    with pytest.raises(MessageError, match="no field 'intensity'"):
        messages.point_cloud(cloud_message(xyz()[:3]), need=('intensity',))


def image_like(data, height, width, encoding, step=None):
    raw = np.ascontiguousarray(data).tobytes()
    fields = {
        'header': SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=5), frame_id='optical'),
        'height': height, 'width': width, 'encoding': encoding, 'data': raw,
        'step': len(raw) // max(1, height) if step is None else step, 'is_bigendian': 0,
    }  # fmt: skip
    return SimpleNamespace(**fields)


@pytest.mark.parametrize(
    ('encoding', 'shape'),
    [('bgr8', (4, 6, 3)), ('rgba8', (4, 6, 4)), ('mono8', (4, 6)), ('uyvy', (4, 6, 2))],
)
def test_image_with_and_without_row_padding(encoding, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = messages.image(image_like(pixels, 4, 6, encoding))
    assert_array_equal(found.data, pixels)
    row = pixels[0].size
    padded = np.zeros((4, row + 7), np.uint8)
    padded[:, :row] = pixels.reshape(4, -1)
    found = messages.image(image_like(padded, 4, 6, encoding))
    assert found.encoding == encoding
    assert found.stamp_ns == 5
    assert_array_equal(found.data, pixels)


def test_image_nv12_has_half_a_plane_more():
    pixels = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4)
    found = messages.image(image_like(pixels, 4, 4, 'nv12', step=4))
    assert_array_equal(found.data, pixels)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'encoding': 'bayer_rggb8'}, 'bayer_rggb8'),
        ({'step': 5}, 'step is 5'),
        ({'height': 0}, '6 x 0'),
        ({'width': 0}, '0 x 4'),
        ({'data': b'123'}, '3 bytes'),
    ],
)
def test_image_that_cannot_be_read(changes, said):
    pixels = np.zeros((4, 6, 3), np.uint8)
    whole = {'data': pixels, 'height': 4, 'width': 6, 'encoding': 'bgr8', 'step': 18}
    with pytest.raises(MessageError, match=said):
        messages.image(image_like(**{**whole, **changes}))


def compressed(data):
    head = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=0), frame_id='optical')
    return SimpleNamespace(header=head, format='jpeg', data=data)


def test_compressed_images():
    pixels = np.full((32, 48, 3), (10, 120, 240), np.uint8)
    jpeg = cv2.imencode('.jpg', pixels)[1].tobytes()
    found = messages.compressed_image(compressed(jpeg))
    assert found.encoding == 'bgr8'
    assert_allclose(found.data, pixels, atol=4)
    padded = messages.compressed_image(compressed(jpeg + bytes(500)))
    assert_array_equal(padded.data, found.data)
    png = cv2.imencode('.png', pixels)[1].tobytes()
    assert_array_equal(messages.compressed_image(compressed(png)).data, pixels)
    for bad, said in ((b'', 'empty'), (jpeg[: len(jpeg) // 2], 'truncated'), (b'no', 'decoded')):
        with pytest.raises(MessageError, match=said):
            messages.compressed_image(compressed(bad))


def boxes(count=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-50, 50, (count, 7))
    rows[:, 3:6] = rng.uniform(0.3, 9, (count, 3))
    rows[:, 6] = rng.uniform(-3.1, 3.1, count)
    root = rng.normal(size=(count, 4, 4))
    covariances = root @ root.transpose(0, 2, 1)
    scores = np.sort(rng.uniform(0, 1, count))[::-1]
    return Boxes3D(STAMP, 'base_link', rows, scores, ('car', 'person', 'bus')[:count], covariances)


def test_what_has_no_stamp_is_refused():
    types, pixels = _rosbags(), np.zeros((4, 6, 3), np.uint8)
    jpeg = cv2.imencode('.jpg', pixels)[1].tobytes()
    flat = Boxes2D(STAMP, 'optical', np.array([[1.0, 2, 3, 4]]), np.array([0.5]), ('car',))
    for read, message in (
        (messages.image, image_like(pixels, 4, 6, 'bgr8')),
        (messages.compressed_image, compressed(jpeg)),
        (messages.point_cloud, cloud_message(xyz())),
        (messages.boxes3d, messages.detections3d(boxes(), types)),
        (messages.boxes2d, messages.detections2d(flat, types)),
    ):
        message.header.stamp.sec, message.header.stamp.nanosec = 0, 1
        assert read(message).stamp_ns == 1
        message.header.stamp.nanosec = 0
        with pytest.raises(MessageError, match=r'header\.stamp is 0'):
            read(message)


def test_detections_3d_round_trip(types):
    given_boxes = boxes()
    message = messages.detections3d(given_boxes, types)
    found = messages.boxes3d(message)
    assert found.stamp_ns == STAMP
    assert found.frame_id == 'base_link'
    assert found.classes == given_boxes.classes
    assert_allclose(found.boxes, given_boxes.boxes, atol=1e-12)
    assert_array_equal(found.scores, given_boxes.scores)
    assert_array_equal(found.covariances, given_boxes.covariances)
    for item in message.detections:
        assert item.header.frame_id == 'base_link'
        assert item.results[0].pose.pose.position.x == item.bbox.center.position.x
        assert np.asarray(item.results[0].pose.covariance).shape == (36,)
        assert item.id == ''


def test_detections_are_published_by_score(types):
    shuffled = boxes().select([2, 0, 1])
    message = messages.detections3d(shuffled, types)
    scores = [item.results[0].hypothesis.score for item in message.detections]
    assert scores == sorted(scores, reverse=True)
    assert message.detections[0].results[0].hypothesis.class_id == 'car'


def test_velocities_are_points_in_the_order_of_the_detections(types):
    given_velocities = np.array([[1.5, -2.25], [np.nan, np.nan], [0.0, 30.0]])
    shuffled = replace(boxes(), velocities=given_velocities).select([2, 0, 1])
    message = messages.velocities_message(shuffled, types)
    assert message.header == messages.detections3d(shuffled, types).header
    assert [field.name for field in message.fields] == ['x', 'y', 'z', 'vx', 'vy']
    assert {field.datatype for field in message.fields} == {7}
    assert (message.width, message.point_step, message.is_dense) == (3, 20, False)
    rows = np.frombuffer(bytes(message.data), np.float32).reshape(3, 5)
    assert_array_equal(rows[:, :3], boxes().boxes[:, :3].astype(np.float32))  # best first
    assert_array_equal(rows[:, 3:], given_velocities.astype(np.float32))
    assert_array_equal(messages.velocities(message), given_velocities)
    none = messages.velocities_message(Boxes3D.empty(STAMP, 'base_link'), types)
    assert messages.velocities(none).shape == (0, 2)
    with pytest.raises(MessageError, match="no field 'vx'"):
        messages.velocities(messages.point_cloud_message(PointCloud(
            STAMP, 'lidar', np.zeros((1, 3), np.float32), ('x', 'y', 'z')
        ), types))  # fmt: skip
    assert (none.width, len(none.data), none.is_dense) == (0, 0, True)


def test_no_detections_is_an_answer(types):
    message = messages.detections3d(Boxes3D.empty(STAMP, 'base_link'), types)
    assert list(message.detections) == []
    assert len(messages.boxes3d(message)) == 0


def test_detections_2d_round_trip(types):
    xyxy = np.array([[1.0, 2.0, 30.5, 40.25], [5.0, 6.0, 7.0, 8.0]])
    flat = Boxes2D(STAMP, 'optical', xyxy, np.array([0.9, 0.4]), ('car', 'person'))
    found = messages.boxes2d(messages.detections2d(flat, types))
    assert_allclose(found.xyxy, xyxy, atol=1e-12)
    assert_array_equal(found.scores, flat.scores)
    assert found.classes == flat.classes


@pytest.mark.parametrize('value', [np.nan, np.inf, -1.0])
def test_detections_with_impossible_values_are_refused(value):
    message = messages.detections3d(boxes(), _rosbags())
    message.detections[1].bbox.size.x = value
    with pytest.raises(MessageError, match='detection 1'):
        messages.boxes3d(message)
    message = messages.detections3d(boxes(), _rosbags())
    message.detections[2].results[0].hypothesis.score = value
    with pytest.raises(MessageError, match='detection 2'):
        messages.boxes3d(message)


def test_detections_without_a_rotation_are_refused():
    message = messages.detections3d(boxes(), _rosbags())
    turn = message.detections[1].bbox.center.orientation
    turn.z = turn.w = 0.0
    with pytest.raises(MessageError, match=r'detection 1: quaternion \(.*\) is not a rotation'):
        messages.boxes3d(message)


def test_detections_without_hypothesis_or_of_another_frame_are_refused():
    message = messages.detections3d(boxes(), _rosbags())
    message.detections[0].results.clear()
    with pytest.raises(MessageError, match='no hypothesis'):
        messages.boxes3d(message)
    message = messages.detections3d(boxes(), _rosbags())
    message.detections[0].header.frame_id = 'map'
    with pytest.raises(MessageError, match="'map'"):
        messages.boxes3d(message)
    flat = Boxes2D(STAMP, 'optical', np.array([[1.0, 2, 3, 4]]), np.array([0.5]), ('car',))
    message = messages.detections2d(flat, _rosbags())
    message.detections[0].results.clear()
    with pytest.raises(MessageError, match='no hypothesis'):
        messages.boxes2d(message)


def test_sensor_messages_round_trip(types):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    found = messages.image(messages.image_message(Image(STAMP, 'optical', pixels), types))
    assert_array_equal(found.data, pixels)
    assert found.stamp_ns == STAMP
    points = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    cloud = messages.point_cloud(
        messages.point_cloud_message(PointCloud(STAMP, 'lidar', points), types)
    )
    assert_array_equal(cloud.points, points)
    matrix = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    camera = CameraModel('optical', 640, 480, matrix, (0.1, -0.2, 0.0, 0.001, 0.0), 'plumb_bob')
    again = messages.camera_model(messages.camera_info_message(camera, STAMP, types))
    assert_array_equal(again.matrix, matrix)
    assert again.distortion == camera.distortion
    assert (again.width, again.height, again.model) == (640, 480, 'plumb_bob')


def test_a_rectified_image_has_another_camera_than_the_lens(types):
    matrix = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    lens = CameraModel('optical', 640, 480, matrix, (0.1, -0.2, 0.0, 0.001, 0.0), 'plumb_bob')
    info = messages.camera_info_message(lens, STAMP, types)
    info.p = np.array([430.0, 0, 310, -50.0, 0, 440, 250, 0, 0, 0, 1, 0])  # right of a stereo pair
    info.r = rotation_z(0.1).reshape(9)
    found = messages.camera_model(info, rectified=True)
    assert_array_equal(found.matrix, [[430, 0, 310], [0, 440, 250], [0, 0, 1]])
    assert_array_equal(found.rotation, rotation_z(0.1))
    assert (found.frame_id, found.width, found.height) == ('optical', 640, 480)
    assert found.distortion == ()
    again = messages.camera_model(messages.camera_info_message(found, STAMP, types), True)
    assert_array_equal((again.matrix, again.rotation), (found.matrix, found.rotation))
    raw = messages.camera_model(info)
    assert_array_equal(raw.matrix, matrix)
    assert_array_equal(raw.rotation, np.eye(3))
    assert raw.distortion == lens.distortion
    info.k = np.zeros(9)  # nobody needs it
    assert_array_equal(messages.camera_model(info, True).matrix, found.matrix)
    info.p = np.zeros(12)
    with pytest.raises(MessageError, match='P with fx = 0, fy = 0: it describes no rectified'):
        messages.camera_model(info, True)


def test_lens_without_a_model_is_perfect_only_without_coefficients():
    lens = CameraModel('optical', 64, 48, np.diag([50.0, 50, 1]), (), 'plumb_bob')
    info = messages.camera_info_message(lens, STAMP, _rosbags())
    info.distortion_model, info.d = '', np.zeros(5)
    assert messages.camera_model(info).distortion == ()
    info.d = np.array([0.1, 0, 0, 0, 0])
    with pytest.raises(MessageError, match="distortion model ''"):
        messages.camera_model(info)
    info.k = np.zeros(9)
    info.d = np.zeros(5)
    with pytest.raises(MessageError, match='not calibrated'):
        messages.camera_model(info)


def test_transform_round_trip(types):
    lidar2base = transform(rotation_z(2.5), np.array([1.0, -2.0, 3.0]))
    message = messages.transform_message('base_link', 'lidar', STAMP, lidar2base, types)
    parent, child, stamp, found = messages.rigid_transform(message)
    assert (parent, child, stamp) == ('base_link', 'lidar', STAMP)
    assert_allclose(found, lidar2base, atol=1e-12)


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)
)
@settings(max_examples=100, deadline=None)
def test_quaternions_against_scipy(q):
    from scipy.spatial.transform import Rotation

    rotation = from_quaternion(*q)
    assert_allclose(rotation, Rotation.from_quat(q).as_matrix(), atol=1e-12)
    assert_allclose(from_quaternion(*to_quaternion(rotation)), rotation, atol=1e-9)
    assert to_quaternion(rotation)[3] >= 0
