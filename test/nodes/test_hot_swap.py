"""Another network under a configured node, set like any parameter, while clouds keep coming."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray

from airside_perception import messages, network
from airside_perception.errors import EngineError
from airside_perception.nodes.lidar_detector import LidarDetectorNode

NAME = '/lidar_detector'
T0 = 1_700_000_000_000_000_000
MS = 1_000_000
PERIOD_S = 0.03
OLD, NEW = 4.0, 8.0  # lengths of the cars that the networks find


@pytest.fixture
def models(tmp_path, tiny_models):
    """old.onnx finds cars of 4 m; new.onnx trucks of 8 m where the cars are, and persons."""
    tiny_models.tiny_lidar_model(tmp_path)
    for ending in ('onnx', 'yaml'):
        (tmp_path / f'tiny_lidar.{ending}').rename(tmp_path / f'old.{ending}')
    anchors = [
        {'class': 'car', 'size': [NEW, 2.5, 3.0], 'z': 1.5, 'yaws': [0.0]},
        {'class': 'person', 'size': [0.6, 0.6, 1.8], 'z': 0.9, 'yaws': [0.0]},
    ]
    tiny_models.tiny_lidar_model(
        tmp_path,
        name='new',
        output={'stride': 2, 'anchors': anchors},
        publish={'car': 'truck', 'person': 'person'},
        thresholds={'truck': 0.4, 'person': 0.35},
    )
    for ending in ('onnx', 'yaml'):
        (tmp_path / f'tiny_lidar.{ending}').rename(tmp_path / f'new.{ending}')
    return tmp_path


class Gate:
    """`open_engine` that waits at a gate, and engines that tell when they are closed."""

    def __init__(self, monkeypatch):
        self.waits = threading.Event()
        self.opens = threading.Event()
        self.opened, self.closed = [], []
        self.slow = ()
        self._open = network.open_engine
        monkeypatch.setattr(network, 'open_engine', self)

    def __call__(self, path, *arguments, **keywords):
        if path.name in self.slow:
            self.waits.set()
            assert self.opens.wait(20.0)
        engine = self._open(path, *arguments, **keywords)
        self.opened.append(path.name)
        close = engine.close

        def closing():
            self.closed.append(path.name)
            close()

        engine.close = closing
        return engine


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


class Traffic:
    """Clouds with stamps of their own, and the answers to them.

    Once one was answered the next waits for the answer to the last, so that a busy machine takes
    longer and drops nothing.
    """

    def __init__(self, harness, sensors):
        self.sent = []
        self.found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
        self._publisher = harness.publisher(PointCloud2, f'{NAME}/input/points')
        self._sensors = sensors
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        harness.until(lambda: self.found, 'the first answer')

    def _run(self):
        while not self._ended.wait(PERIOD_S):
            if self.found and not self._answered():
                continue
            stamp = T0 + len(self.sent) * MS
            self.sent.append(stamp)
            self._publisher.publish(self._sensors.cloud(stamp=stamp, frame='base_link'))

    def end(self, harness):
        self._ended.set()
        self._thread.join()
        harness.until(self._answered, 'the last answer')

    def _answered(self):
        """Whether the last cloud was."""
        stamp = self.found[-1].header.stamp
        return stamp.sec * 10**9 + stamp.nanosec == self.sent[-1]

    @property
    def answers(self):
        """(stamp, length of the car) of every answer, as they came."""
        boxes = [messages.boxes3d(message) for message in self.found]
        return [(item.stamp_ns, round(float(item.boxes[0, 3]), 3)) for item in boxes]


@pytest.fixture
def node(harness, models, gate):
    made = harness.add(LidarDetectorNode, engine_path=str(models / 'old.onnx'))
    harness.activate(made)
    return made


@pytest.fixture
def traffic(harness, sensors, node):
    made = Traffic(harness, sensors)
    yield made
    made._ended.set()
    made._thread.join()


def allow(harness, node):
    assert harness.set(node, allow_hot_swap=True).successful


def begin(harness, **values):
    """The request of `harness.set`, without waiting for the answer."""
    client = harness._clients.get('swap') or harness.node.create_client(
        SetParametersAtomically, f'{NAME}/set_parameters_atomically'
    )
    harness._clients['swap'] = client
    assert client.wait_for_service(timeout_sec=10.0)
    items = [
        Parameter(key.replace('__', '.'), value=value).to_parameter_msg()
        for key, value in values.items()
    ]
    assert all(isinstance(item, ParameterMessage) for item in items)
    return client.call_async(SetParametersAtomically.Request(parameters=items))


def answer(harness, future):
    harness.until(future.done, 'the answer')
    return future.result().result


def seen(harness, *names):
    """Values that `ros2 param get` shows."""
    values = harness.call(GetParameters, f'{NAME}/get_parameters', names=list(names)).values
    found = [value.string_value if value.type == 4 else value.double_value for value in values]
    return found[0] if len(found) == 1 else found


def test_without_leave_it_is_refused_with_the_ways_that_there_are(harness, node, models, gate):
    refused = harness.set(node, engine_path=str(models / 'new.onnx'))
    assert not refused.successful
    assert 'allow_hot_swap' in refused.reason
    assert 'cleanup' in refused.reason
    assert gate.opened == ['old.onnx']


def test_every_cloud_is_answered_once_by_the_old_network_or_the_new_one(
    harness, node, models, gate, traffic
):
    allow(harness, node)
    gate.slow = ('new.onnx',)
    old, new = str(models / 'old.onnx'), str(models / 'new.onnx')
    future = begin(harness, engine_path=new)
    assert gate.waits.wait(5.0)
    # the network is being opened: everything else goes on
    before = len(traffic.found)
    _, values = harness.diagnosis(
        node, lambda status, values: values['engine/state'] == 'swapping'
    )
    assert values['engine/swap'] == f'opening: {new}'
    assert values['engine/path'] == old
    assert seen(harness, 'engine_path') == old
    assert harness.set(node, nms_iou=0.2).successful
    harness.until(lambda: len(traffic.found) > before + 10, 'answers of the old network')
    assert not future.done()
    gate.opens.set()
    assert answer(harness, future).successful
    after = len(traffic.sent)
    assert seen(harness, 'engine_path') == new
    assert gate.closed == ['old.onnx']
    harness.until(lambda: len(traffic.sent) > after + 10, 'more clouds')
    traffic.end(harness)

    stamps = [stamp for stamp, _ in traffic.answers]
    assert stamps == sorted(set(stamps))
    first = traffic.sent.index(stamps[0])
    assert stamps == traffic.sent[first:]  # the sensor spoke before it was heard, perhaps
    lengths = [length for _, length in traffic.answers]
    took_over = lengths.index(NEW)
    assert lengths == [OLD] * took_over + [NEW] * (len(lengths) - took_over)
    assert all(length == NEW for stamp, length in traffic.answers if stamp >= traffic.sent[after])
    assert node.diagnostics.dropped_overrun == node.diagnostics.dropped_error == 0
    _, values = harness.diagnosis(node, lambda status, values: values['engine/state'] == 'ready')
    assert values['engine/swap'] == f'done: {new}'
    assert values['engine/path'] == new


@pytest.mark.parametrize('case', ['missing', 'corrupt', 'camera', 'no card', 'wrong card'])
def test_a_network_that_cannot_take_over_leaves_the_old_one_and_says_why(
    harness, node, models, gate, traffic, tiny_models, case
):
    path, said, card = models / 'new.onnx', '', models / 'new.yaml'
    if case == 'missing':
        path, said = models / 'nowhere.onnx', 'nowhere'
    elif case == 'corrupt':
        path.write_bytes(path.read_bytes()[:100])
        said = 'ONNX Runtime cannot load it'
    elif case == 'camera':
        path, said = tiny_models.tiny_camera_model(models), 'is no LidarCard'
    elif case == 'no card':
        card.unlink()
        said = 'no model card'
    else:
        text = card.read_text()
        card.write_text(text.replace('stride: 2', 'stride: 4'))
        assert card.read_text() != text
        said = 'contradicts its model card'
    allow(harness, node)
    refused = harness.set(node, engine_path=str(path), nms_iou=0.25)
    assert not refused.successful
    assert said in refused.reason
    before = len(traffic.found)
    harness.until(lambda: len(traffic.found) > before + 3, 'answers of the old network')
    assert traffic.answers[-1][1] == OLD
    assert seen(harness, 'engine_path') == str(models / 'old.onnx')
    assert node.config.nms_iou != 0.25
    _, values = harness.diagnosis(node, lambda status, values: 'failed' in values['engine/swap'])
    assert said in values['engine/swap']
    assert values['engine/state'] == 'ready'
    assert sorted(gate.closed) == sorted(gate.opened[1:])  # what was opened in vain is closed
    if case != 'missing':
        return
    assert harness.set(node, engine_path=str(models / 'new.onnx')).successful  # nothing is stuck


def test_a_second_network_waits_for_its_turn(harness, node, models, gate):
    allow(harness, node)
    gate.slow = ('new.onnx',)
    future = begin(harness, engine_path=str(models / 'new.onnx'))
    assert gate.waits.wait(5.0)
    refused = harness.set(node, engine_path=str(models / 'other.onnx'))
    assert not refused.successful
    assert 'new.onnx is not ready yet' in refused.reason
    gate.opens.set()
    assert answer(harness, future).successful
    assert gate.opened == ['old.onnx', 'new.onnx']


def test_a_set_is_checked_before_anything_is_opened(harness, node, models, gate):
    allow(harness, node)
    new = str(models / 'new.onnx')
    for values, said in (
        ({'nms_iou': 3.0}, 'nms_iou = 3.0: outside'),
        ({'target_frame': 'map'}, 'target_frame is fixed while the node is configured'),
        ({'dla_core': 7}, 'dla_core = 7: outside'),
        ({'no_such': 1}, 'no_such'),
        ({'allow_hot_swap': False}, 'allow_hot_swap'),
    ):
        refused = harness.set(node, engine_path=new, **values)
        assert not refused.successful
        assert said in refused.reason
    assert gate.opened == ['old.onnx']


def test_leave_and_card_may_come_with_the_network(harness, node, models, gate):
    card = models / 'elsewhere.yaml'
    (models / 'new.yaml').rename(card)
    done = harness.set(
        node,
        allow_hot_swap=True,
        engine_path=str(models / 'new.onnx'),
        card_path=str(card),
        nms_iou=0.33,
    )
    assert done.successful, done.reason
    assert (node.config.nms_iou, node.config.card_path) == (0.33, str(card))
    assert gate.closed == ['old.onnx']


def test_another_precision_or_core_opens_the_network_anew(harness, node, gate):
    allow(harness, node)
    assert harness.set(node, precision='fp16').successful
    assert harness.set(node, dla_core=1).successful
    assert harness.set(node, dla_core=1).successful  # as it is: nothing to do
    assert gate.opened == ['old.onnx'] * 3
    assert gate.closed == ['old.onnx'] * 2
    assert 'dla_core 1: not applicable' in ' '.join(node.engine.info.notes)


def test_thresholds_are_those_of_the_classes_of_the_new_network(harness, node, models):
    allow(harness, node)
    assert harness.set(node, score_thresholds__person=0.6, score_thresholds__car=0.7).successful
    assert harness.set(node, engine_path=str(models / 'new.onnx')).successful
    assert node.config.score_thresholds == {'truck': 0.4, 'person': 0.6}  # set by hand: it stays
    assert not node.has_parameter('score_thresholds.car')
    assert seen(harness, 'score_thresholds.truck', 'score_thresholds.person') == [0.4, 0.6]
    assert harness.set(node, score_thresholds__truck=0.45).successful
    refused = harness.set(node, score_thresholds__car=0.5)
    assert not refused.successful
    refused = harness.set(node, engine_path=str(models / 'old.onnx'), score_thresholds__truck=0.5)
    assert 'score_thresholds.truck: the new network has no such class' in refused.reason
    assert harness.set(node, engine_path=str(models / 'old.onnx')).successful
    assert node.config.score_thresholds == {'car': 0.3, 'person': 0.6}


def test_cleanup_ends_a_swap_and_what_comes_late_is_closed(harness, node, models, gate):
    allow(harness, node)
    gate.slow = ('new.onnx',)
    future = begin(harness, engine_path=str(models / 'new.onnx'))
    assert gate.waits.wait(5.0)
    assert harness.change(node, 'deactivate')
    assert harness.change(node, 'cleanup')
    refused = answer(harness, future)
    assert not refused.successful
    assert 'cleaned up' in refused.reason
    assert seen(harness, 'engine_path') == str(models / 'old.onnx')
    harness.activate(node)
    gate.opens.set()
    harness.until(lambda: 'new.onnx' in gate.closed, 'the end of the late network')
    assert node.engine.info.path == str(models / 'old.onnx')
    assert gate.closed.count('old.onnx') == 1


def test_an_inactive_node_swaps_too_and_transitions_go_through_meanwhile(
    harness, node, models, gate, sensors
):
    allow(harness, node)
    assert harness.change(node, 'deactivate')
    gate.slow = ('new.onnx',)
    future = begin(harness, engine_path=str(models / 'new.onnx'))
    assert gate.waits.wait(5.0)
    assert harness.change(node, 'activate')
    traffic = Traffic(harness, sensors)
    gate.opens.set()
    assert answer(harness, future).successful
    after = len(traffic.sent)
    harness.until(lambda: len(traffic.sent) > after + 2, 'more clouds')
    traffic.end(harness)
    assert traffic.answers[0][1] == OLD
    assert traffic.answers[-1][1] == NEW


def test_the_old_network_is_closed_after_its_last_frame_only(harness, node, models, gate, sensors):
    allow(harness, node)
    detector, entered, leave = node.pipeline.detector, threading.Event(), threading.Event()
    detect = detector.detect

    def slow(cloud):
        entered.set()
        assert leave.wait(10.0)
        assert not gate.closed
        return detect(cloud)

    detector.detect = slow
    found = harness.listen(Detection3DArray, f'{NAME}/output/detections')
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(stamp=T0, frame='base_link'))
    assert entered.wait(5.0)
    future = begin(harness, engine_path=str(models / 'new.onnx'))
    harness.until(lambda: node.engine.info.path.endswith('new.onnx'), 'the new network')
    assert seen(harness, 'engine_path') == str(models / 'new.onnx')  # of the next frame
    time.sleep(0.1)
    assert not gate.closed
    assert not future.done()
    leave.set()
    assert answer(harness, future).successful
    assert gate.closed == ['old.onnx']
    clouds.publish(sensors.cloud(stamp=T0 + MS, frame='base_link'))
    harness.until(lambda: len(found) == 2, 'both answers')
    lengths = [messages.boxes3d(item).boxes[0, 3] for item in found]
    np.testing.assert_allclose(lengths, [OLD, NEW])


def test_an_old_network_that_will_not_end_does_not_keep_the_answer(
    harness, node, models, gate, sensors, monkeypatch
):
    from airside_perception.nodes import swap

    monkeypatch.setattr(swap, 'LAST_FRAME_S', 0.2)
    allow(harness, node)
    entered, leave = threading.Event(), threading.Event()

    def stuck(cloud):
        entered.set()
        assert leave.wait(10.0)
        raise EngineError('stuck')

    node.pipeline.detector.detect = stuck
    clouds = harness.publisher(PointCloud2, f'{NAME}/input/points')
    clouds.publish(sensors.cloud(stamp=T0, frame='base_link'))
    assert entered.wait(5.0)
    assert harness.set(node, engine_path=str(models / 'new.onnx')).successful
    assert not gate.closed
    leave.set()
    harness.until(lambda: gate.closed == ['old.onnx'], 'the end of the old network')


def test_a_mistake_in_the_code_is_a_reason_and_not_the_end(harness, node, models, monkeypatch):
    allow(harness, node)

    def broken(pipeline):
        raise ZeroDivisionError('warm')

    monkeypatch.setattr(node, 'warm_up', broken)
    refused = harness.set(node, engine_path=str(models / 'new.onnx'))
    assert not refused.successful
    assert 'ZeroDivisionError' in refused.reason
    assert harness.state(node) == 'active'


def test_single_settings_swap_too(harness, node, models):
    from rcl_interfaces.srv import SetParameters

    allow(harness, node)
    items = [
        Parameter('engine_path', value=str(models / 'new.onnx')),
        Parameter('nms_iou', value=5.0),
        Parameter('engine_path', value='nowhere.onnx'),
    ]
    results = harness.call(
        SetParameters,
        f'{NAME}/set_parameters',
        parameters=[item.to_parameter_msg() for item in items],
    ).results
    assert [item.successful for item in results] == [True, False, False]
    assert node.config.engine_path == str(models / 'new.onnx')
