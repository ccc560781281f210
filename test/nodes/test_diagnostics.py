"""The counters and levels of diagnostics, with a clock of the test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.nodes.diagnostics import ERROR, OK, STALE, WARN, Diagnostics, Report


class Clock:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s

    def now(self):
        return self

    nanoseconds = 5_000_000_000

    def to_msg(self):
        raise AssertionError('not published here')


class Logger:
    def __init__(self):
        self.lines = []

    def warning(self, text):
        self.lines.append(text)


class Node:
    """As much of a lifecycle node as diagnostics use."""

    def __init__(self):
        self.active = True
        self.config = SimpleNamespace(expected_time_ms=50.0, tf_timeout_ms=50.0)
        self.logger, self.published = Logger(), []

    def create_publisher(self, *_):
        return self

    create_lifecycle_publisher = create_publisher

    def create_timer(self, *_, **__):
        return None

    def publish(self, message):
        self.published.append(message.data)

    def get_clock(self):
        return Clock()

    def get_logger(self):
        return self.logger


@pytest.fixture
def made():
    node, clock = Node(), Clock()
    diagnostics = Diagnostics(node, lambda report: None, clock)
    diagnostics.watch('image')
    return diagnostics, node, clock


def report(diagnostics):
    found = Report()
    diagnostics._fill(found)
    return found


def test_nothing_yet_is_ok(made):
    found = report(made[0])
    assert (found.level, found.message) == (OK, 'running')
    assert 'processing_time_ms' not in found.values


def test_not_active_is_stale_and_a_failed_transition_is_an_error(made):
    diagnostics, node, _ = made
    node.active = False
    assert report(diagnostics).level == STALE
    diagnostics.problem = 'configure failed: no network'
    found = report(diagnostics)
    assert (found.level, found.message) == (ERROR, 'configure failed: no network')


def test_slow_processing_warns_and_becomes_an_error_after_a_second(made):
    diagnostics, _, clock = made
    diagnostics.processed(0, 20.0, limit_ms=50.0)
    diagnostics.processed(0, 10.0, limit_ms=50.0)
    found = report(diagnostics)
    assert found.values['processing_time_ms'] == '20'  # the worst since the last report
    assert found.values['is_processing_time_ms_in_expected_range'] == 'True'
    assert found.level == OK
    diagnostics.processed(0, 80.0, limit_ms=50.0)
    found = report(diagnostics)
    assert found.level == WARN
    assert found.message == 'processing_time_ms 80.0, limit 50.0'
    assert float(found.values['consecutive_processing_delay_ms']) == pytest.approx(80.0)
    clock.s += 1.2
    diagnostics.processed(0, 90.0, limit_ms=50.0)
    found = report(diagnostics)
    assert found.level == ERROR
    assert float(found.values['consecutive_processing_delay_ms']) == pytest.approx(1280.0)
    diagnostics.processed(0, 30.0, limit_ms=50.0)
    assert report(diagnostics).values['consecutive_processing_delay_ms'] == '0'


def test_a_sensor_that_falls_silent_is_not_slow(made):
    diagnostics, _, clock = made
    diagnostics.processed(0, 80.0, limit_ms=50.0)
    clock.s += 10.0
    found = report(diagnostics)
    assert found.level == WARN
    assert float(found.values['consecutive_processing_delay_ms']) == pytest.approx(80.0)


def test_times_of_an_earlier_activation_are_forgotten(made):
    diagnostics, _, _ = made
    diagnostics.processed(0, 80.0, limit_ms=50.0)
    assert report(diagnostics).level == WARN
    diagnostics.watch('image')
    found = report(diagnostics)
    assert found.level == OK
    assert 'processing_time_ms' not in found.values


def test_latency_is_on_the_clock_of_the_stamps_and_cycles_on_the_steady_one(made):
    diagnostics, node, clock = made
    diagnostics.processed(4_900_000_000, 20.0, limit_ms=50.0)
    assert node.published == [20.0, pytest.approx(100.0)]
    clock.s += 0.25
    diagnostics.processed(4_900_000_000, 20.0, limit_ms=50.0)
    assert node.published[2] == pytest.approx(250.0)
    assert report(diagnostics).values['pipeline_latency_ms'] == '100'


def test_drops_are_counted_and_said_once_a_second_a_topic(made):
    diagnostics, node, clock = made
    for _ in range(5):
        diagnostics.dropped('/image', 'truncated')
    diagnostics.dropped('/info', 'no calibration')
    assert node.logger.lines == ['/image: dropped: truncated', '/info: dropped: no calibration']
    found = report(diagnostics)
    assert found.values['dropped/error'] == '6'
    assert found.level == ERROR  # and nothing was processed
    assert found.message == '6 dropped since the last report: /info: no calibration'
    clock.s += 1.1
    diagnostics.dropped('/image', 'truncated')
    assert node.logger.lines[-1] == '/image: dropped: truncated (4 more since the last report)'
    diagnostics.processed(0, 1.0, limit_ms=50.0)
    assert report(diagnostics).level == WARN
    found = report(diagnostics)
    assert found.level == OK  # nothing new
    assert found.values['last_error'] == '/image: truncated'


def test_rates_and_ages_of_inputs(made):
    diagnostics, _, clock = made
    for _ in range(21):
        diagnostics.received('image')
        clock.s += 0.1
    found = report(diagnostics)
    assert float(found.values['input/image/hz']) == pytest.approx(20 / 2.1, rel=1e-3)
    assert float(found.values['input/image/age_ms']) == pytest.approx(100.0)
    assert diagnostics.silent_inputs() == []
    clock.s += 10.0
    found = report(diagnostics)
    assert found.values['input/image/hz'] == '0'
    assert float(found.values['input/image/age_ms']) == pytest.approx(10_100.0, rel=1e-3)
    assert diagnostics.silent_inputs(0.5) == [('image', pytest.approx(10.1))]
    diagnostics.received('another')  # nobody watches that one
    assert 'input/another/hz' not in report(diagnostics).values


@pytest.mark.parametrize(
    ('expected_ms', 'tf_ms', 'limit_ms'),
    [(50.0, 50.0, 1000.0), (300.0, 50.0, 3000.0), (50.0, 1000.0, 2000.0)],
)
def test_a_message_that_is_in_work_for_too_long_is_an_error(made, expected_ms, tf_ms, limit_ms):
    diagnostics, node, clock = made
    node.config = SimpleNamespace(expected_time_ms=expected_ms, tf_timeout_ms=tf_ms)
    diagnostics.processed(0, 20.0, limit_ms=expected_ms)
    diagnostics.begun()
    clock.s += limit_ms / 1e3 - 0.1
    found = report(diagnostics)
    assert (found.level, found.message) == (OK, 'running')
    assert float(found.values['in_work_ms']) == pytest.approx(limit_ms - 100.0)
    clock.s += 0.2
    found = report(diagnostics)
    assert found.level == ERROR
    assert found.message == (
        f'in_work_ms {limit_ms + 100:.0f}, limit {limit_ms:.0f}: '
        'a message is still in work, nothing comes out'
    )
    assert found.values['is_processing_time_ms_in_expected_range'] == 'False'
    node.active = False
    assert report(diagnostics).level == STALE
    node.active = True
    diagnostics.ended()
    found = report(diagnostics)
    assert (found.level, found.values['in_work_ms']) == (OK, '0')
    assert found.values['is_processing_time_ms_in_expected_range'] == 'True'


def test_the_first_message_that_hangs_is_an_error_too(made):
    diagnostics, _, clock = made
    diagnostics.begun()
    clock.s += 1.1
    found = report(diagnostics)
    assert found.level == ERROR
    assert found.values['is_processing_time_ms_in_expected_range'] == 'False'


def feed(diagnostics, clock, seconds, hz, worked_on):
    """Messages at a rate, of which every `worked_on`-th is worked on and the others overrun."""
    for number in range(round(seconds * hz)):
        if number % worked_on == 0:
            diagnostics.begun()
            diagnostics.ended()
        else:
            diagnostics.overrun()
        clock.s += 1 / hz


def test_most_messages_overrun_for_some_time_is_a_warning(made):
    diagnostics, _, clock = made
    feed(diagnostics, clock, 20.0, hz=10.0, worked_on=3)
    found = report(diagnostics)
    assert found.level == WARN
    assert float(found.values['dropped/overrun_pct']) == pytest.approx(66.0, abs=2.0)
    assert found.message.startswith('dropped/overrun_pct 6')
    assert ', limit 50: 3' in found.message
    assert ' messages in 5 s came while others were in work' in found.message
    feed(diagnostics, clock, 5.1, hz=10.0, worked_on=1)
    found = report(diagnostics)
    assert (found.level, found.values['dropped/overrun_pct']) == (OK, '0')


@pytest.mark.parametrize(
    ('seconds', 'hz', 'worked_on'),
    [
        (20.0, 10.0, 2),  # half of them, not more
        (4.0, 30.0, 3),  # just activated
        (20.0, 1.0, 3),  # too few to tell
    ],
)
def test_some_messages_overrun_are_none(made, seconds, hz, worked_on):
    diagnostics, _, clock = made
    feed(diagnostics, clock, seconds, hz, worked_on)
    assert report(diagnostics).level == OK


def test_one_pause_is_no_overrun(made):
    diagnostics, _, clock = made
    feed(diagnostics, clock, 10.0, hz=30.0, worked_on=1)
    feed(diagnostics, clock, 1.0, hz=30.0, worked_on=30)
    assert report(diagnostics).level == OK
