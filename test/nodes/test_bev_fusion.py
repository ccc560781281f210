"""bev_fusion over DDS: complete sets, the deadline, sources that die and come back, bad input."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from airside_perception import messages
from airside_perception.nodes import bev_fusion
from airside_perception.nodes.base import message_type
from airside_perception.nodes.bev_fusion import BevFusionNode
from airside_perception.nodes.diagnostics import Report
from airside_perception.types import Boxes3D

NAME = '/bev_fusion'
T0 = 1_700_000_000_000_000_000
MS = 1_000_000


def boxes(stamp, places, score=0.6, frame='base_link', name='car'):
    rows = np.array([[x, y, 0.75, 4.2, 1.8, 1.5, 0.0] for x, y in places]).reshape(-1, 7)
    covariances = np.tile(np.diag([0.3, 0.3, 0.1, 0.1]), (len(rows), 1, 1))
    found = Boxes3D(
        stamp, frame, rows, np.full(len(rows), score), (name,) * len(rows), covariances
    )
    return messages.detections3d(found, message_type)


class Fusion:
    def __init__(self, harness, cameras=('front',), **parameters):
        self.harness = harness
        self.cameras = cameras
        # the times of a machine that does other things besides; fixed_frame: no odometry here
        parameters = {
            'deadline_ms': 300.0,
            'silence_ms': 2000.0,
            'fixed_frame': 'base_link',
            **parameters,
        }
        self.node = harness.add(BevFusionNode, cameras=list(cameras), **parameters)
        self.objects = harness.listen(Detection3DArray, f'{NAME}/output/objects')
        harness.activate(self.node)
        self.inputs = {
            name: harness.publisher(Detection3DArray, f'{NAME}/input/{name}/detections')
            for name in ('lidar', *cameras)
        }
        harness.until(lambda: self.node._objects.get_subscription_count(), 'the listener')
        self.stamp = T0

    def send(self, **places):
        """Sends boxes at these places, {source: [(x, y), ...]}, all of one new stamp."""
        self.stamp += 100 * MS
        for name, found in places.items():
            self.inputs[name].publish(boxes(self.stamp, found))
        return self.stamp

    def result(self, stamp):
        """The objects of that stamp."""

        def find():
            return [item for item in self.objects if messages.stamp_ns(item.header.stamp) == stamp]

        return messages.boxes3d(self.harness.until(find, f'objects of {stamp}')[0])

    def diagnosis(self, condition):
        return self.harness.diagnosis(self.node, condition)


@pytest.fixture
def fusion(harness):
    return Fusion(harness)


def test_a_complete_set_is_fused_at_once(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=5000.0, silence_ms=5000.0).successful
    stamp = fusion.send(lidar=[(10.0, 0.0), (20.0, 5.0)], front=[(10.3, 0.1)])
    found = fusion.result(stamp)  # long before the deadline
    assert found.frame_id == 'base_link'
    assert len(found) == 2
    assert found.scores[0] > 0.6  # two sensors see it
    assert found.scores[1] == pytest.approx(0.6)
    _, values = fusion.diagnosis(lambda status, values: values.get('fusion/matched') == '1')
    assert (values['fusion/lidar_only'], values['fusion/camera_only']) == ('1', '0')
    assert values['sets/complete'] == '1'


def test_cameras_on_both_sides_of_the_lidar_do_not_wait_for_the_deadline(harness, monkeypatch):
    still = SimpleNamespace(monotonic_ns=lambda: T0, perf_counter=time.perf_counter)
    monkeypatch.setattr(bev_fusion, 'time', still)  # no deadline ever passes
    fusion = Fusion(harness, ('front', 'left'))
    for _ in range(3):
        fusion.stamp += 100 * MS
        for name, offset in (('front', -30), ('left', 30), ('lidar', 0)):
            fusion.inputs[name].publish(boxes(fusion.stamp + offset * MS, [(10.0, 0.0)]))
    _, values = fusion.diagnosis(lambda status, values: values.get('sets/complete') == '3')
    assert 'sets/incomplete' not in values


def test_a_lidar_that_takes_long_finds_the_messages_of_a_fast_camera(harness):
    fusion = Fusion(harness, queue_size=2, queue_ms=10_000.0, silence_ms=60_000.0)
    for k in range(15):
        fusion.inputs['front'].publish(boxes(T0 + 33 * k * MS, [(10.2, 0.0)]))
        harness.until(
            lambda k=k: len(fusion.node._collector._waiting['front']) == k + 1, 'the message'
        )
    fusion.inputs['lidar'].publish(boxes(T0, [(10.0, 0.0)]))
    (score,) = fusion.result(T0).scores
    assert score > 0.6


def test_boxes_that_nothing_matches_pass_unchanged(fusion):
    stamp = fusion.send(lidar=[(10.0, 0.0)], front=[(40.0, -20.0)])
    sent = messages.boxes3d(boxes(stamp, [(10.0, 0.0), (40.0, -20.0)]))
    found = fusion.result(stamp)
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order], sent.boxes, atol=1e-12)
    np.testing.assert_allclose(found.covariances[order], sent.covariances, atol=1e-12)
    assert found.classes == ('car', 'car')


def test_empty_sets_are_published_too(fusion):
    assert len(fusion.result(fusion.send(lidar=[], front=[]))) == 0


def test_the_deadline_flushes_what_there_is_and_a_source_that_comes_back_is_used(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=50.0, silence_ms=300.0).successful
    assert len(fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[(10.2, 0.0)]))) == 1

    def lidar_alone():
        return fusion.result(fusion.send(lidar=[(10.0, 0.0)]))

    assert lidar_alone().scores[0] == pytest.approx(0.6)
    status, values = None, {}
    while status is None or status.level == b'\x00':
        lidar_alone()
        status, values = fusion.diagnosis(lambda status, values: True)
    assert status.level == b'\x01'
    assert 'nothing on /bev_fusion/input/front/detections' in status.message
    assert 'limit 300' in status.message
    assert float(values['input/front/age_ms']) > 300
    assert int(values['sets/missing/front']) >= 1

    # nobody waits for a silent source, nor for a lidar that the test has kept waiting: the first
    # messages may come after their set
    def both():
        return fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[(10.2, 0.0)])).scores[0] > 0.6

    fusion.harness.until(both, 'a set of both')
    fusion.send(lidar=[], front=[])
    status, values = fusion.diagnosis(
        lambda status, values: 'input/front/age_ms' not in status.message
    )
    assert status.level in (b'\x00', b'\x02')  # ERROR: by now both may be silent again


def test_without_a_lidar_cameras_go_on_and_diagnostics_call_it_an_error(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=20.0, silence_ms=100.0).successful
    fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[]))

    def camera_alone():
        fusion.send(front=[(15.0, 1.0)])
        return (
            fusion.objects and messages.stamp_ns(fusion.objects[-1].header.stamp) > T0 + 200 * MS
        )

    fusion.harness.until(camera_alone, 'objects without the lidar')
    assert messages.boxes3d(fusion.objects[-1]).boxes[0, 0] == pytest.approx(15.0)
    status, _ = fusion.diagnosis(lambda status, values: 'input/lidar/age_ms' in status.message)
    assert status.level == b'\x02'


def test_the_first_camera_paces_as_soon_as_the_lidar_is_overdue(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=50.0, silence_ms=60000.0).successful
    for _ in range(3):
        fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[]))
    stamp = fusion.send(front=[(15.0, 1.0)])
    (place,) = fusion.result(stamp).boxes  # brought by the alarm, long before 60 s
    assert place[0] == 15.0

    def both():
        stamp = fusion.send(lidar=[(10.0, 0.0)], front=[(10.2, 0.0)])
        (score,) = fusion.result(stamp).scores
        return score > 0.6

    fusion.harness.until(both, 'a set of both again')
    stamps = [messages.stamp_ns(item.header.stamp) for item in fusion.objects]
    assert stamps == sorted(set(stamps))


def test_late_messages_are_counted_and_change_nothing(fusion):
    stamp = fusion.send(lidar=[(10.0, 0.0)])
    assert len(fusion.result(stamp)) == 1  # at the deadline, without the camera
    fusion.inputs['front'].publish(boxes(stamp, [(10.2, 0.0)]))
    _, values = fusion.diagnosis(lambda status, values: values['dropped/late'] == '1')
    assert values['sets/stale/front'] == '1'
    fusion.result(fusion.send(lidar=[], front=[]))
    assert [messages.stamp_ns(item.header.stamp) for item in fusion.objects] == [
        stamp,
        stamp + 100 * MS,
    ]


def test_a_source_with_bad_boxes_is_left_out_and_named(fusion):
    fusion.stamp += 100 * MS
    bad = boxes(fusion.stamp, [(10.0, 0.0)])
    bad.detections[0].bbox.center.position.x = float('nan')
    fusion.inputs['front'].publish(bad)
    fusion.inputs['lidar'].publish(boxes(fusion.stamp, [(20.0, 0.0)]))
    assert fusion.result(fusion.stamp).boxes[0, 0] == 20.0
    _, values = fusion.diagnosis(
        lambda status, values: values.get('last_error', '').startswith(
            '/bev_fusion/input/front/detections: '
        )
    )
    assert values['dropped/error'] == '1'


def test_without_a_transform_a_source_is_left_out_and_named(fusion):
    fusion.stamp += 100 * MS
    fusion.inputs['front'].publish(boxes(fusion.stamp, [(10.0, 0.0)], frame='nowhere'))
    fusion.inputs['lidar'].publish(boxes(fusion.stamp, [(20.0, 0.0)]))
    assert len(fusion.result(fusion.stamp)) == 1
    fusion.diagnosis(
        lambda status, values: 'no transform nowhere -> base_link' in values.get('last_error', '')
    )
    fusion.stamp += 100 * MS
    before = fusion.node.diagnostics.dropped_error
    for name in fusion.inputs:
        fusion.inputs[name].publish(boxes(fusion.stamp, [(10.0, 0.0)], frame='nowhere'))
    fusion.diagnosis(lambda status, values: int(values['dropped/error']) == before + 1)
    assert 'nothing to fuse' in fusion.node.diagnostics._last_error[1]
    assert fusion.stamp not in [messages.stamp_ns(item.header.stamp) for item in fusion.objects]


def test_stamps_that_jump_back_start_anew(fusion, capfd):
    fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[]))
    fusion.stamp = T0 - 3600 * 1000 * MS
    for _ in range(2):  # the first message of each source is still of the old time
        stamp = fusion.send(lidar=[(12.0, 0.0)], front=[(12.1, 0.0)])
    assert len(fusion.result(stamp)) == 1
    assert 'jumped back' in capfd.readouterr().err
    _, values = fusion.diagnosis(lambda status, values: 'sets/resets' in values)
    assert values['sets/resets'] == '1'


def test_time_of_transforms_that_jumps_back_clears_transforms_and_sets(harness, fusion):
    publisher = harness.publisher(TFMessage, '/tf', 100)

    def move(stamp):
        transform = messages.transform_message('odom', 'base_link', stamp, np.eye(4), message_type)
        publisher.publish(TFMessage(transforms=[transform]))

    tf = fusion.node._tf
    move(T0)
    move(T0 + 100 * MS)
    harness.until(
        lambda: len(tf._newest) == 1 and tf._newest['base_link'] == T0 + 100 * MS, 'transforms'
    )
    np.testing.assert_array_equal(tf.lookup('odom', 'base_link', T0 + 50 * MS), np.eye(4))
    move(T0 - 3600 * 1000 * MS)
    fusion.diagnosis(lambda status, values: values.get('time_jumps') == '1')
    with pytest.raises(Exception, match='no transform base_link -> odom'):
        tf.lookup('odom', 'base_link', T0 + 50 * MS)


def test_boxes_are_taken_to_the_time_of_the_lidar(harness):
    fusion = Fusion(harness, fixed_frame='odom')
    publisher = harness.publisher(TFMessage, '/tf', 100)
    for k in range(10):  # 10 m/s forward
        pose = np.eye(4)
        pose[0, 3] = k * 1.0
        transform = messages.transform_message(
            'odom', 'base_link', T0 + k * 100 * MS, pose, message_type
        )
        publisher.publish(TFMessage(transforms=[transform]))
    harness.until(
        lambda: fusion.node._tf._newest.get('base_link') == T0 + 900 * MS, 'the transforms'
    )
    fusion.inputs['front'].publish(boxes(T0 + 500 * MS, [(10.0, 0.0)]))
    fusion.inputs['lidar'].publish(boxes(T0 + 530 * MS, []))
    found = fusion.result(T0 + 530 * MS)
    assert found.boxes[0, 0] == pytest.approx(9.7)  # 0.3 m nearer after 30 ms
    assert found.covariances[0, 0, 0] > 0.3


def test_a_camera_whose_stamps_fit_no_set_is_named_with_its_offset(fusion):
    def send():
        stamp = fusion.send(lidar=[(10.0, 0.0)])
        fusion.inputs['front'].publish(boxes(stamp + 50 * MS, [(10.2, 0.0)]))
        fusion.harness.until(lambda: newest(fusion) >= stamp, 'its set')
        return [text for text in findings(fusion) if text.startswith('input/front/share_pct')]

    (text,) = fusion.harness.until(send, 'the finding')
    assert re.match(r'input/front/share_pct \d+, limit 50: in \d+ of the last \d+ sets; ', text)
    assert re.search(r'its stamps are [+-]50\.0 ms off \(median; sync_slop_ms 40\)', text)
    status, values = fusion.diagnosis(
        lambda status, values: send() and 'input/front/share_pct' in status.message
    )
    assert status.level == b'\x01'
    assert abs(float(values['input/front/offset_ms'])) == 50.0
    assert float(values['input/front/share_pct']) < 50.0


def newest(fusion):
    """The stamp of the newest objects."""
    return max((messages.stamp_ns(item.header.stamp) for item in fusion.objects), default=0)


def findings(fusion):
    """What the node would say now of its inputs."""
    report = Report()
    fusion.node.report(report)
    return [text for _, text in report.findings]


def test_stamps_that_stand_still_are_an_error_of_their_source(fusion):
    def send():
        for name in fusion.inputs:
            fusion.inputs[name].publish(boxes(T0, [(10.0, 0.0)]))

    def find():
        send()
        found = findings(fusion)
        return len(found) == 3 and found

    found = sorted(fusion.harness.until(find, 'three findings'))
    for text, name in zip(found, ('front', 'lidar'), strict=False):
        assert text.startswith(f'input/{name}/still_ms ')
        assert text.endswith(
            f'limit 1000: the stamps on {NAME}/input/{name}/detections do not advance'
        )
    assert found[2].startswith('nothing published for ')
    status, values = fusion.diagnosis(
        lambda status, values: send() or 'do not advance' in status.message
    )
    assert status.level == b'\x02'
    assert int(values['sets/repeated/lidar']) > 1


def test_sets_without_a_result_are_an_error(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=20.0, tf_timeout_ms=0.0).successful

    def find():
        fusion.stamp += 100 * MS
        for name in fusion.inputs:
            fusion.inputs[name].publish(boxes(fusion.stamp, [(10.0, 0.0)], frame='nowhere'))
        return [text for text in findings(fusion) if text.startswith('nothing published')]

    (text,) = fusion.harness.until(find, 'the finding')
    assert 'limit 1.0, in which messages arrived and ' in text
    fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[]))
    assert not any(text.startswith('nothing published') for text in findings(fusion))


def test_what_waits_for_a_source_that_may_still_come_is_no_error(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=5000.0, silence_ms=60000.0).successful
    started = time.monotonic()

    def send():
        fusion.send(front=[(10.0, 0.0)])
        assert findings(fusion) == []
        return time.monotonic() > started + 1.5

    fusion.harness.until(send, 'more than the second that is allowed')
    assert not fusion.objects


def test_a_camera_without_a_camera_info_is_named(fusion, sensors):
    def send():
        fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[]))
        return findings(fusion)

    (text,) = fusion.harness.until(send, 'the finding')
    assert text.startswith('input/front/calibrated False for ')
    assert text.endswith(
        f'limit 2.0: nothing on {NAME}/input/front/camera_info; its boxes are matched by their '
        'places alone'
    )
    infos = fusion.harness.publisher(
        CameraInfo, f'{NAME}/input/front/camera_info', qos_profile_sensor_data
    )
    fusion.harness.until(
        lambda: infos.publish(sensors.info()) or not send(), 'no finding any longer'
    )


def test_the_sources_of_a_set_wait_together_for_their_transforms(harness, monkeypatch):
    fusion = Fusion(harness, cameras=('front', 'left'), fixed_frame='odom')
    tf, deadlines = fusion.node._tf, []
    between = tf.lookup_between

    def looked_up(*arguments):
        deadlines.append(tf._deadline)
        return between(*arguments)

    monkeypatch.setattr(tf, 'lookup_between', looked_up)
    for name in ('front', 'left'):
        fusion.inputs[name].publish(boxes(T0 + 500 * MS, [(10.0, 0.0)]))
    fusion.inputs['lidar'].publish(boxes(T0 + 530 * MS, []))
    fusion.result(T0 + 530 * MS)
    assert len(deadlines) == 2
    assert deadlines[0] == deadlines[1]
    assert deadlines[0] is not None
    assert tf._deadline is None


def test_live_settings_count_from_the_next_set_on(fusion):
    places = {'lidar': [(10.0, 0.0)], 'front': [(12.0, 0.0)]}
    assert len(fusion.result(fusion.send(**places))) == 1
    assert fusion.harness.set(fusion.node, gate_chi2=0.1).successful
    assert len(fusion.result(fusion.send(**places))) == 2
    refused = fusion.harness.set(fusion.node, silence_ms=10.0)  # shorter than the deadline
    assert not refused.successful
    assert 'silence_ms = 10 is shorter than deadline_ms = 300' in refused.reason
    refused = fusion.harness.set(fusion.node, cameras=['front', 'rear'])
    assert 'cleanup' in refused.reason


def test_a_class_can_have_a_prior_of_its_own_from_a_file(harness):
    node = harness.add(BevFusionNode, priors__person=0.3)
    assert harness.change(node, 'configure')
    assert node.config.priors == {'person': 0.3}
    assert harness.set(node, priors__person=0.2).successful
    assert node.config.priors == {'person': 0.2}


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'priors__persn': 0.3}, "unknown parameter 'priors.persn'"),
        ({'cameras': ['Front Left']}, "'Front Left' cannot be part of a topic"),
        ({'cameras': ['a', 'a']}, 'names differ'),
        ({'cameras': [''], 'lidar': False}, 'nothing to fuse'),
        (
            {'deadline_ms': 400.0, 'silence_ms': 300.0},
            'silence_ms = 300 is shorter than deadline_ms = 400',
        ),
    ],
)
def test_a_wrong_parameter_file_fails_configure_in_one_line(harness, capfd, parameters, said):
    node = harness.add(BevFusionNode, **parameters)
    assert not harness.change(node, 'configure')
    lines = [line for line in capfd.readouterr().err.splitlines() if 'ERROR' in line]
    assert len(lines) == 1
    assert said in lines[0]


def test_one_lidar_and_no_camera(harness):
    node = harness.add(BevFusionNode, cameras=[''])  # ROS has no type for an empty list
    objects = harness.listen(Detection3DArray, f'{NAME}/output/objects')
    harness.activate(node)
    assert node.config.sources == ('lidar',)
    publisher = harness.publisher(Detection3DArray, f'{NAME}/input/lidar/detections')
    harness.until(node._objects.get_subscription_count, 'the listener')
    publisher.publish(boxes(T0, [(10.0, 0.0)]))
    assert len(harness.until(lambda: objects, 'objects')[0].detections) == 1


def test_markers_tell_the_evidence(fusion):
    got = fusion.harness.listen(MarkerArray, f'{NAME}/debug/markers')
    fusion.harness.until(lambda: fusion.node._markers.get_subscription_count(), 'the listener')
    fusion.send(lidar=[(10.0, 0.0), (30.0, 5.0)], front=[(10.2, 0.0), (50.0, -9.0)])
    array = fusion.harness.until(lambda: got, 'markers')[0].markers
    assert array[0].action == Marker.DELETEALL
    by_space = {}
    for marker in array[1:]:
        by_space.setdefault(marker.ns, []).append(marker)
    assert {name: len(found) for name, found in by_space.items()} == {
        'lidar+camera': 1, 'lidar': 1, 'camera': 1, 'label': 3, 'covariance': 3
    }  # fmt: skip
    assert sorted(marker.id for marker in by_space['label']) == [0, 1, 2]
    assert by_space['label'][0].text.startswith('car 0.')
    assert by_space['label'][0].text.endswith('lidar+front')
    assert by_space['lidar'][0].pose.position.x == pytest.approx(30.0)
    assert array[1].lifetime.nanosec == 300 * MS


def test_boxes_without_a_stamp_are_refused_and_what_waits_stays(fusion):
    assert fusion.harness.set(fusion.node, deadline_ms=5000.0, silence_ms=5000.0).successful
    fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[(10.2, 0.0)]))
    stamp = fusion.send(lidar=[(10.0, 0.0)])
    received = fusion.node.diagnostics._inputs['lidar'].arrivals
    fusion.harness.until(lambda: len(received) == 2, 'the boxes of the lidar')
    fusion.inputs['front'].publish(boxes(0, [(10.2, 0.0)]))
    fusion.diagnosis(
        lambda status, values: values.get('last_error', '').startswith(
            '/bev_fusion/input/front/detections: header.stamp is 0'
        )
    )
    fusion.inputs['front'].publish(boxes(stamp, [(10.2, 0.0)]))
    assert fusion.result(stamp).scores[0] > 0.6  # both: the lidar's had waited


def test_the_lens_of_a_rectified_image_is_another(harness, sensors):
    fusion = Fusion(harness, cameras=('front', 'rear'), rectified_cameras=['rear'])
    info = sensors.info(focal=60.0)
    info.p = np.array([50.0, 0, 48, 0, 0, 50.0, 24, 0, 0, 0, 1, 0])
    info.r = np.eye(3).reshape(9)
    for name, focal in (('front', 60.0), ('rear', 50.0)):
        infos = harness.publisher(
            CameraInfo, f'{NAME}/input/{name}/camera_info', qos_profile_sensor_data
        )
        infos.publish(info)
        harness.until(lambda: fusion.node._calibrations[name].known, 'the calibration')  # noqa: B023  called at once
        assert fusion.node._calibrations[name].read().matrix[0, 0] == focal


def test_a_camera_info_that_is_none_is_named_and_positions_still_count(fusion, sensors):
    infos = fusion.harness.publisher(
        CameraInfo, f'{NAME}/input/front/camera_info', qos_profile_sensor_data
    )
    infos.publish(sensors.info(focal=0.0))
    fusion.diagnosis(lambda status, values: values['input/front/calibrated'] == 'True')
    assert len(fusion.result(fusion.send(lidar=[(10.0, 0.0)], front=[(10.2, 0.0)]))) == 1
    fusion.diagnosis(
        lambda status, values: values.get('last_error', '').startswith(
            '/bev_fusion/input/front/camera_info: '
        )
    )
