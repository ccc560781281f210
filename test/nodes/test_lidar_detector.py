"""lidar_detector over DDS: clouds in any layout, transforms at the stamp, what it refuses."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import messages
from airside_perception.nodes.lidar_detector import LidarDetectorNode

NAME = '/lidar_detector'
TOPIC = f'{NAME}/input/points'
T0 = 1_700_000_000_000_000_000
MS = 1_000_000


class Lidar:
    def __init__(
        self, harness, sensors, networks, mounted=True, network='tiny_lidar.onnx', **parameters
    ):
        self.harness, self.sensors = harness, sensors
        self.node = harness.add(
            LidarDetectorNode, engine_path=str(networks / network), **parameters
        )
        self.found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
        harness.activate(self.node)
        self.clouds = harness.publisher(PointCloud2, TOPIC, qos_profile_sensor_data)
        self.stamp = T0
        if mounted:
            sensors.lidar_mount()
            self.see()

    def see(self, cloud=None):
        before = len(self.found)
        self.stamp += 100 * MS
        self.clouds.publish(cloud or self.sensors.cloud(stamp=self.stamp))
        self.harness.until(lambda: len(self.found) > before, 'detections')
        return messages.boxes3d(self.found[-1])

    def refuse(self, cloud, said):
        dropped, results = self.node.diagnostics.dropped_error, len(self.found)
        self.harness.forget_diagnostics()
        self.clouds.publish(cloud)
        status, values = self.harness.diagnosis(
            self.node, lambda status, values: said in status.message, fresh=False
        )
        assert values['last_error'].startswith(f'{TOPIC}: ')
        assert int(values['dropped/error']) == dropped + 1
        assert len(self.found) == results
        return status


@pytest.fixture
def lidar(harness, sensors, networks):
    return Lidar(harness, sensors, networks)


def test_a_cloud_is_taken_to_the_target_frame_at_its_stamp(lidar):
    found = lidar.see()
    assert (found.frame_id, found.stamp_ns) == ('base_link', lidar.stamp)
    # the point (5, 1, 0.5) of the lidar is at (6, 1, 2) in base_link
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [6.5, 1.5, 0.75, 4.0, 2.0, 1.5, 0.0], atol=1e-6)
    assert found.classes == ('car',)


class Moving(Lidar):
    """A vehicle that drives along x at 10 m/s, with a network that sees two sweeps."""

    def __init__(self, harness, sensors, networks, **parameters):
        from tf2_msgs.msg import TFMessage

        self._message = TFMessage
        super().__init__(
            harness, sensors, networks, network='tiny_velocity.onnx', mounted=False, **parameters
        )
        self.velocities = harness.listen(PointCloud2, f'{NAME}/output/velocities')
        self._tf = harness.publisher(TFMessage, '/tf', 100)
        sensors.lidar_mount()

    def drive(self, stamp):
        place = np.eye(4)
        place[0, 3] = (stamp - T0) / 1e8
        transform = messages.transform_message(
            'odom', 'base_link', stamp, place, self.sensors.types
        )
        self._tf.publish(self._message(transforms=[transform]))

    def look(self, *points):
        self.drive(self.stamp + 100 * MS)
        found = self.see(self.sensors.cloud(stamp=self.stamp + 100 * MS, points=points))
        self.harness.until(lambda: len(self.velocities) == len(self.found), 'velocities')
        return found


def test_velocities_of_a_network_that_sees_two_sweeps(harness, sensors, networks):
    from sensor_msgs_py import point_cloud2

    lidar = Moving(harness, sensors, networks)
    lidar.look((20.2, 1.0, 0.5, 0.9), (5.2, 1.0, 0.5, 0.9))
    found = lidar.look((10.2, 1.0, 0.5, 0.9))
    status, values = harness.diagnosis(lidar.node, lambda status, values: 'sweeps/past' in values)
    assert (values['sweeps/past'], values['sweeps/missing']) == ('1', 'none')
    assert 'sweeps' not in status.message
    message, detections = lidar.velocities[-1], lidar.found[-1]
    assert message.header == detections.header
    assert [field.name for field in message.fields] == ['x', 'y', 'z', 'vx', 'vy']
    rows = point_cloud2.read_points(message)
    np.testing.assert_array_equal(
        np.stack([rows[axis] for axis in 'xyz'], axis=1), found.boxes[:, :3].astype(np.float32)
    )
    # base_link is 1 m behind the lidar; of the last cloud, all is nearer by what was driven: 1 m
    by_place = dict(
        zip(found.boxes[:, 0].round(3), zip(rows['vx'], rows['vy'], strict=True), strict=True)
    )
    assert by_place == {
        11.5: pytest.approx((0.0, 0.25)),
        20.5: pytest.approx((1.0, 0.25)),
        5.5: pytest.approx((1.0, 0.25)),
    }


def test_without_odometry_it_goes_on_with_one_sweep_and_says_so(
    harness, sensors, networks, monkeypatch
):
    lidar = Moving(harness, sensors, networks, tf_timeout_ms=20.0)
    tf, log, between = lidar.node.tf, [], lidar.node.tf.lookup_between

    def note(*arguments):
        log.append(tf._deadline is not None)
        return between(*arguments)

    monkeypatch.setattr(tf, 'lookup_between', note)
    lidar.see(sensors.cloud(stamp=lidar.stamp + 100 * MS))
    status, values = harness.diagnosis(lidar.node, lambda status, values: 'sweeps/past' in values)
    assert values['sweeps/missing'] == 'no cloud before this one'
    assert 'sweeps' not in status.message
    assert log == []
    found = lidar.see(sensors.cloud(stamp=lidar.stamp + 100 * MS))
    assert len(found) == 1
    assert log == [True]  # in the one wait of this cloud
    status, values = harness.diagnosis(
        lidar.node, lambda status, values: 'sweeps/past 0' in status.message
    )
    assert status.level == b'\x01'
    missing = 'no transform base_link -> base_link through odom (waited 20 ms)'
    assert f'the network wants past sweeps: {missing}' in status.message
    assert values['sweeps/past'] == '0'
    lidar.drive(lidar.stamp)
    lidar.look((5.0, 1.0, 0.5, 0.9))
    status, values = harness.diagnosis(
        lidar.node, lambda status, values: values.get('sweeps/past') == '1'
    )
    assert 'sweeps' not in status.message


def test_clouds_too_far_apart_for_a_past_are_said_after_a_few(harness, sensors, networks):
    lidar = Moving(harness, sensors, networks, max_sweep_age=0.05)
    for _ in range(3):
        status, _ = harness.diagnosis(lidar.node, lambda *_: True)
        assert 'sweeps' not in status.message
        lidar.look((5.0, 1.0, 0.5, 0.9))
    status, _ = harness.diagnosis(lidar.node, lambda status, _: 'sweeps/past 0' in status.message)
    assert status.level == b'\x01'
    assert 'a sweep is 0.100 s old, max_sweep_age 0.05 s' in status.message


def test_a_blind_lidar_is_not_hidden_by_what_it_saw_before(harness, sensors, networks):
    lidar = Moving(harness, sensors, networks)
    assert len(lidar.look((5.0, 1.0, 0.5, 0.9))) == 1
    assert len(lidar.look((500.0, 1.0, 0.5, 0.9))) == 0
    status, values = harness.diagnosis(
        lidar.node, lambda status, _: 'points/usable 0 of 1' in status.message
    )
    assert status.level == b'\x01'
    assert values['sweeps/missing'] == 'no point of this cloud is in the range of the network'


def test_other_networks_publish_no_velocities(lidar):
    velocities = lidar.harness.listen(PointCloud2, f'{NAME}/output/velocities')
    _, values = lidar.harness.diagnosis(lidar.node, lambda status, values: 'num_pillars' in values)
    assert 'sweeps/past' not in values
    lidar.see()
    lidar.see()
    assert velocities == []


def test_without_a_target_frame_the_cloud_stays_in_its_own(harness, sensors, networks):
    lidar = Lidar(harness, sensors, networks, mounted=False, target_frame='')
    found = lidar.see()
    assert found.frame_id == 'lidar'
    np.testing.assert_allclose(found.boxes[0, :2], [5.5, 1.5])


def test_a_missing_and_an_old_transform_are_named_and_waited_for(harness, sensors, networks):
    from tf2_msgs.msg import TFMessage

    lidar = Lidar(harness, sensors, networks, mounted=False, tf_timeout_ms=500.0)
    publisher = harness.publisher(TFMessage, '/tf', 100)

    def move(stamp):
        transform = messages.transform_message(
            'base_link', 'lidar', stamp, np.eye(4), sensors.types
        )
        publisher.publish(TFMessage(transforms=[transform]))

    lidar.refuse(sensors.cloud(), 'no transform lidar -> base_link (waited 500 ms)')
    move(T0)
    move(T0 + 50 * MS)
    lidar.refuse(sensors.cloud(stamp=T0 - 500 * MS), 'extrapolation into the past')
    before = len(lidar.found)
    lidar.clouds.publish(sensors.cloud(stamp=T0 + 100 * MS))
    harness.until(lambda: lidar.node.diagnostics._inputs['points'].arrivals, 'the cloud')
    move(T0 + 150 * MS)  # comes after the cloud, as it does on a vehicle
    harness.until(lambda: len(lidar.found) > before, 'detections')


def bad_cloud(sensors, name):
    cloud = sensors.cloud(points=np.ones((10, 4)))
    if name == 'no x':
        cloud.fields[0].name = 'a'
    elif name == 'wrong type':
        cloud.fields[0].datatype = 2
    elif name == 'truncated':
        cloud.data = cloud.data[:-1]
    elif name == 'no intensity':
        cloud = sensors.cloud(points=np.ones((10, 3)))
    elif name == 'row_step':
        cloud.height, cloud.width, cloud.row_step = 2, 5, 16
    elif name == 'beyond the point':
        cloud.fields[2].offset = 100
    return cloud


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('no x', "no field 'x'"),
        ('wrong type', "'x' has datatype 2"),
        ('truncated', '159 bytes'),
        ('no intensity', "no field 'intensity'"),
        ('row_step', 'row_step is 16'),
        ('beyond the point', "'z' ends at byte 104"),
    ],
)
def test_a_bad_cloud_is_dropped_and_named(lidar, sensors, name, said):
    assert lidar.refuse(bad_cloud(sensors, name), said).level in (b'\x01', b'\x02')
    assert len(lidar.see()) == 1


def test_a_cloud_without_a_stamp_is_refused_though_there_is_a_newest_transform(lidar, sensors):
    status = lidar.refuse(sensors.cloud(stamp=0), 'header.stamp is 0')
    assert TOPIC in status.message


def test_odd_layouts_give_the_same_result(lidar, sensors):
    expected = lidar.see().boxes
    wide = sensors.cloud(stamp=lidar.stamp)
    values = np.frombuffer(bytes(wide.data), '<f4')
    wide.is_bigendian, wide.data = True, array.array('B', values.astype('>f4').tobytes())
    np.testing.assert_array_equal(lidar.see(wide).boxes, expected)
    rows = sensors.cloud(stamp=lidar.stamp)  # two rows of one point, with padding between them
    padded = bytes(rows.data) + b'\xff' * 12
    rows.height, rows.row_step, rows.data = 2, len(padded), array.array('B', padded * 2)
    np.testing.assert_array_equal(lidar.see(rows).boxes, expected)
    double = sensors.cloud(stamp=lidar.stamp)
    double.data = array.array('B', b''.join(v.astype('<f8').tobytes() for v in values) + bytes(8))
    for index, field in enumerate(double.fields):
        field.offset, field.datatype = 8 * index, 8
    double.point_step, double.row_step = 40, 40
    np.testing.assert_array_equal(lidar.see(double).boxes, expected)


def test_nothing_but_nan_and_no_points_at_all_are_empty_results(lidar, sensors):
    assert len(lidar.see(sensors.cloud(points=np.full((7, 4), np.nan)))) == 0
    assert len(lidar.see(sensors.cloud(points=np.full((7, 4), np.inf)))) == 0
    assert len(lidar.see(sensors.cloud(points=np.empty((0, 4))))) == 0


@pytest.mark.parametrize('far', [np.nan, 1000.0])
def test_a_cloud_without_a_usable_point_is_a_warning(lidar, sensors, far):
    harness = lidar.harness
    points = np.array([[5.0, 1.0, 0.5, 0.9], [far, 1.0, 0.5, 0.9]])
    lidar.see(sensors.cloud(points=points))
    _, values = harness.diagnosis(lidar.node, lambda _, values: values['points/received'] == '2')
    assert values['points/usable'] == '1'
    lidar.see(sensors.cloud(points=np.full((7, 4), far)))
    status, _ = harness.diagnosis(lidar.node, lambda _, values: values['points/usable'] == '0')
    assert status.level == b'\x01'
    assert 'points/usable 0 of 7' in status.message
    lidar.see(sensors.cloud(points=np.empty((0, 4))))  # an empty cloud is what it says it is
    status, _ = harness.diagnosis(lidar.node, lambda _, values: values['points/received'] == '0')
    assert 'points/usable' not in status.message


def test_the_body_of_the_vehicle_is_a_live_parameter(lidar, harness):
    assert len(lidar.see()) == 1  # of one point, at (6, 1, 2) in base_link
    assert harness.set(lidar.node, ego_box=[4.0, -1.5, 0.0, 8.0, 1.5, 3.0]).successful
    assert lidar.node.config.ego_box == (4.0, -1.5, 0.0, 8.0, 1.5, 3.0)
    assert len(lidar.see()) == 0
    status, _ = harness.diagnosis(lidar.node, lambda _, values: values['points/usable'] == '0')
    assert 'in ego_box' in status.message
    for box, said in (
        ([4.0, -1.5, 0.0, 4.0, 1.5, 3.0], 'x_min = 4 is not less than x_max = 4'),
        ([4.0, -1.5, 0.0, 8.0], 'expected [x_min, y_min, z_min, x_max, y_max, z_max]'),
        ([4.0, -1.5, 0.0, 8.0, 1.5, float('nan')], 'expected finite numbers'),
    ):
        result = harness.set(lidar.node, ego_box=box)
        assert not result.successful
        assert said in result.reason
    assert len(lidar.see()) == 0
    assert harness.set(lidar.node, ego_box=[0.0] * 6).successful
    assert len(lidar.see()) == 1


@pytest.mark.parametrize('given', [None, [3.0, -2.0, 0.0, 5.5, 2.0, 2.0], [3, -2, 0, 6, 2, 2]])
def test_the_body_of_the_vehicle_from_a_parameter_file(harness, sensors, networks, given):
    # None: what rclpy makes of [] in a file
    lidar = Lidar(harness, sensors, networks, ego_box=given)
    assert lidar.node.config.ego_box == tuple(map(float, given or [0.0] * 6))
    assert harness.set(lidar.node, ego_box=[1.0, -2.0, 0.0, 9.0, 2.0, 3.0]).successful
    assert len(lidar.see()) == 0


def test_five_million_points_do_no_harm(lidar, sensors):
    points = np.zeros((5_000_000, 4), np.float32)
    points[:, 0] = np.linspace(0.0, 14.0, len(points), dtype=np.float32)
    lidar.harness.until(lambda: lidar.clouds.get_subscription_count(), 'the subscription')
    message = sensors.cloud(stamp=T0, points=points)
    before = len(lidar.found)
    lidar.node.take(message)  # 80 MB are more than a test should send through DDS
    lidar.harness.until(lambda: len(lidar.found) > before, 'detections', timeout=15.0)
    assert len(messages.boxes3d(lidar.found[-1])) > 0
    assert len(lidar.see()) == 1


def test_more_pillars_than_the_network_takes_are_a_warning(
    harness, sensors, tmp_path, tiny_models
):
    grid = {'range': tiny_models.RANGE, 'pillar': [0.5, 0.5], 'max_points': 8, 'max_pillars': 3}
    tiny_models.tiny_lidar_model(tmp_path, input=grid)
    lidar = Lidar(harness, sensors, tmp_path)
    points = np.array([[x, 0.5, 0.0, 0.0] for x in range(1, 8)])
    lidar.see(sensors.cloud(points=points))
    status, _ = harness.diagnosis(
        lidar.node, lambda status, values: values.get('is_num_pillars_within_range') == 'False'
    )
    assert status.level == b'\x01'
    assert 'num_pillars 7, limit 3' in status.message


def test_a_silent_sensor_is_stale(lidar):
    status, values = lidar.harness.diagnosis(
        lidar.node, lambda status, values: status.level == b'\x03'
    )
    assert TOPIC in status.message
    assert float(values['input/points/age_ms']) > 1000


@pytest.mark.parametrize('name', ['sensor_data', 'reliable'])
def test_lost_parts_of_clouds_are_sent_again_where_the_parameter_says_so(
    harness, sensors, networks, name
):
    from rclpy.qos import ReliabilityPolicy

    node = harness.add(
        LidarDetectorNode, engine_path=str(networks / 'tiny_lidar.onnx'), input_qos=name
    )
    harness.activate(node)
    (info,) = node.get_subscriptions_info_by_topic(TOPIC)
    wanted = ReliabilityPolicy.RELIABLE if name == 'reliable' else ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.reliability == wanted
