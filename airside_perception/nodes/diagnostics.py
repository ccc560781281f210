"""What a node counts and measures, and how it says so: /diagnostics and the debug topics."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

PERIOD_S = 1.0
LOG_PERIOD_S = 1.0
LAST_WORDS_S = 0.5
RATE_WINDOW_S = 5.0
SILENCE_S = 1.0
"""An input that has not spoken for this long counts as silent."""

DELAY_LIMIT_MS = 1000.0
"""Processing that has been too slow for this long is an error, not only a warning."""

HANG_LEAST_MS, HANG_TIMES, HANG_WAITS = 1000.0, 10.0, 2.0
"""A message hangs when it has been in work for longer than all of these: so long, so many times
`expected_time_ms`, so many times `tf_timeout_ms`, as it may wait for more than one transform."""

OVERRUN_WINDOW_S, OVERRUN_LIMIT_PCT, OVERRUN_LEAST = 5.0, 50.0, 5
"""Over so long a time, a larger share of overrun messages is a finding, if they are so many: two
sensors in a row that speak at once are none. Nor are the first moments of an activation."""


class Report:
    """One round of diagnostics: values, and the findings that decide level and message."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.findings: list[tuple[bytes, str]] = []

    def add(self, key: str, value: Any) -> None:
        """Shows a value; floats with a precision that one can read."""
        self.values[key] = f'{value:.4g}' if isinstance(value, float) else str(value)

    def find(self, level: bytes, text: str) -> None:
        """Raises the level to `level`, and says why."""
        self.findings.append((level, text))

    @property
    def level(self) -> bytes:
        """The worst of the findings."""
        return max((level for level, _ in self.findings), default=OK)

    @property
    def message(self) -> str:
        """All findings, the worst first."""
        ordered = sorted(self.findings, key=lambda item: item[0], reverse=True)
        return '; '.join(text for _, text in ordered) or 'running'


class Input:
    """When messages of one input arrived, on the steady clock."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.arrivals: deque[float] = deque(maxlen=1000)

    def age_s(self, now: float) -> float:
        """Seconds since the newest message; since the start where there was none."""
        return now - (self.arrivals[-1] if self.arrivals else self.since)

    def hz(self, now: float) -> float:
        """Messages a second over the last `RATE_WINDOW_S`."""
        while self.arrivals and self.arrivals[0] < now - RATE_WINDOW_S:
            if len(self.arrivals) == 1:
                return 0.0  # the newest one stays, for its age
            self.arrivals.popleft()
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(
            now - self.arrivals[0], self.arrivals[-1] - self.arrivals[0]
        )


class Work:
    """What the worker has done with the messages of the last `OVERRUN_WINDOW_S`."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.begun_at: float | None = None
        self.begun: deque[float] = deque(maxlen=10000)
        self.overrun: deque[float] = deque(maxlen=10000)

    def in_work_ms(self, now: float) -> float:
        """For how long the message that is in work now has been; 0 where none is."""
        return 0.0 if self.begun_at is None else (now - self.begun_at) * 1e3

    def overruns(self, now: float) -> tuple[int, int]:
        """How many messages were overrun, of how many."""
        for times in (self.begun, self.overrun):
            while times and times[0] < now - OVERRUN_WINDOW_S:
                times.popleft()
        return len(self.overrun), len(self.overrun) + len(self.begun)


class Diagnostics:
    """Counters of one node, published once a second on a steady clock; for any thread.

    Keys: `in_work_ms`, `processing_time_ms`, `is_processing_time_ms_in_expected_range`,
    `consecutive_processing_delay_ms`, `pipeline_latency_ms`, `input/<name>/{age_ms,hz}`,
    `processed`, `dropped/{overrun,overrun_pct,late,error}`, `last_error`, and what the node adds
    in `extra`.

    Args:
        node: its `active` and `config` are read.
        extra: adds what else there is to say.
        now: a steady clock, in seconds.

    Attributes:
        problem: why the last transition failed; empty where it did not.
        dropped_overrun: messages that a newer one replaced before their turn.
        dropped_late: messages that came after their set was fused.
        dropped_error: messages that could not be used.
    """

    def __init__(
        self,
        node: LifecycleNode,
        extra: Callable[[Report], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._extra = extra
        self._now = now
        self._lock = threading.RLock()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.problem = ''
        self.dropped_overrun = 0
        self.dropped_late = 0
        self.dropped_error = 0
        self.processed_count = 0
        self._inputs: dict[str, Input] = {}
        self._logged: dict[str, tuple[float, int]] = {}
        self._last_error: tuple[float, str] | None = None
        self._reported_errors = 0
        self._times: list[float] = []
        self._slowest: float | None = None
        self._limit_ms = float('inf')
        self._latency_ms = float('nan')
        self._slow_since: float | None = None
        self._cycle_at: float | None = None
        self._work = Work(now())
        self._array = node.create_publisher(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
        self._debug = {
            name: node.create_lifecycle_publisher(Float64, f'~/debug/{name}', QoSProfile(depth=10))
            for name in ('cyclic_time_ms', 'processing_time_ms', 'pipeline_latency_ms')
        }
        node.create_timer(PERIOD_S, self._tick, clock=self._steady)

    def watch(self, *names: str) -> None:
        """From now on these inputs are expected to speak; others are forgotten."""
        with self._lock:
            self._inputs = {name: Input(self._now()) for name in names}
            self._slow_since = self._cycle_at = None
            self._times, self._slowest = [], None
            self._work = Work(self._now())

    def received(self, name: str) -> None:
        """A message of input `name` has arrived."""
        with self._lock:
            if name in self._inputs:
                self._inputs[name].arrivals.append(self._now())

    def begun(self) -> None:
        """A message is in work from now on."""
        with self._lock:
            self._work.begun_at = self._now()
            self._work.begun.append(self._work.begun_at)

    def ended(self) -> None:
        """The message is no longer in work, whatever came of it."""
        with self._lock:
            self._work.begun_at = None

    def overrun(self) -> None:
        """A message was replaced by a newer one before its turn."""
        with self._lock:
            self.dropped_overrun += 1
            self._work.overrun.append(self._now())

    def late(self) -> None:
        """A message came after its set was made."""
        with self._lock:
            self.dropped_late += 1

    def dropped(self, topic: str, cause: str) -> None:
        """A message of `topic` could not be used: counted, and logged once a second a topic."""
        with self._lock:
            now = self._now()
            self.dropped_error += 1
            self._last_error = (now, f'{topic}: {cause}')
            logged_at, unsaid = self._logged.get(topic, (float('-inf'), 0))
            if now - logged_at < LOG_PERIOD_S:
                self._logged[topic] = (logged_at, unsaid + 1)
                return
            self._logged[topic] = (now, 0)
        more = f' ({unsaid} more since the last report)' if unsaid else ''
        self._node.get_logger().warning(f'{topic}: dropped: {cause}{more}')

    def processed(self, stamp_ns: int, processing_ms: float, limit_ms: float) -> None:
        """A result was published.

        Args:
            stamp_ns: of the input and the result, on the node's clock.
            processing_ms: from the start of the work to the result, on a steady clock.
            limit_ms: the longest time that is normal.
        """
        latency_ms = (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e6
        with self._lock:
            now = self._now()
            self.processed_count += 1
            self._times.append(processing_ms)
            self._limit_ms, self._latency_ms = limit_ms, latency_ms
            if processing_ms <= limit_ms:
                self._slow_since = None
            elif self._slow_since is None:
                self._slow_since = now - processing_ms / 1e3
            cycle_at, self._cycle_at = self._cycle_at, now
        if cycle_at is not None:
            self._publish_debug('cyclic_time_ms', (now - cycle_at) * 1e3)
        self._publish_debug('processing_time_ms', processing_ms)
        self._publish_debug('pipeline_latency_ms', latency_ms)

    def age_s(self, name: str) -> float:
        """Seconds since input `name` last spoke."""
        with self._lock:
            return self._inputs[name].age_s(self._now())

    def _tick(self) -> None:
        try:
            self.publish()
        except Exception as error:  # noqa: BLE001  # an exception in a timer would end the executor
            if self._node.context.ok():  # else the process ends, and the publishers went before
                self._node.get_logger().error(f'diagnostics: {error!r}')

    def publish(self) -> None:
        """Publishes one DiagnosticArray with one status."""
        report = Report()
        with self._lock:
            self._fill(report)
        self._extra(report)
        status = DiagnosticStatus(
            level=report.level,
            name=f'{self._node.get_fully_qualified_name().lstrip("/")}: perception',
            message=report.message,
            hardware_id=report.values.get('engine/device', 'none'),
            values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._array.publish(array)

    def last_words(self) -> None:
        """Publishes once more, and waits a moment for those who listen; then the process ends."""
        self._tick()
        with contextlib.suppress(Exception):  # not every middleware can tell
            self._array.wait_for_all_acked(Duration(seconds=LAST_WORDS_S))

    def _fill(self, report: Report) -> None:
        now = self._now()
        active = getattr(self._node, 'active', False)
        report.add('state', 'active' if active else 'not active')
        if self.problem:
            report.find(ERROR, self.problem)
        elif not active:
            report.find(STALE, 'not active')
        if active:
            hangs = self._fill_work(report, now)
            self._fill_times(report, hangs)
            for name, source in self._inputs.items():
                report.add(f'input/{name}/age_ms', source.age_s(now) * 1e3)
                report.add(f'input/{name}/hz', source.hz(now))
        report.add('processed', self.processed_count)
        report.add('dropped/overrun', self.dropped_overrun)
        report.add('dropped/late', self.dropped_late)
        report.add('dropped/error', self.dropped_error)
        fresh, self._reported_errors = (
            self.dropped_error - self._reported_errors,
            self.dropped_error,
        )
        if self._last_error:
            at, text = self._last_error
            report.add('last_error', text.splitlines()[-1] if '\n' in text else text)
            report.add('last_error_age_ms', (now - at) * 1e3)
            if active and fresh:
                level = WARN if self._times or not self._inputs else ERROR
                report.find(
                    level, f'{fresh} dropped since the last report: {report.values["last_error"]}'
                )
        self._times = []

    def _fill_work(self, report: Report, now: float) -> bool:
        """Whether the message in work hangs; then it is no news that others are overrun."""
        config = self._node.config
        spent_ms = self._work.in_work_ms(now)
        limit_ms = max(
            HANG_LEAST_MS, HANG_TIMES * config.expected_time_ms, HANG_WAITS * config.tf_timeout_ms
        )
        report.add('in_work_ms', spent_ms)
        overrun, count = self._work.overruns(now)
        share = 100.0 * overrun / count if count else 0.0
        report.add('dropped/overrun_pct', share)
        if spent_ms > limit_ms:
            report.find(
                ERROR,
                f'in_work_ms {spent_ms:.0f}, limit {limit_ms:.0f}: '
                'a message is still in work, nothing comes out',
            )
        elif (
            share > OVERRUN_LIMIT_PCT
            and overrun >= OVERRUN_LEAST
            and now - self._work.since >= OVERRUN_WINDOW_S
        ):
            report.find(
                WARN,
                f'dropped/overrun_pct {share:.0f}, limit {OVERRUN_LIMIT_PCT:.0f}: {overrun} of '
                f'{count} messages in {OVERRUN_WINDOW_S:g} s came while others were in work',
            )
        return spent_ms > limit_ms

    def _fill_times(self, report: Report, hangs: bool) -> None:
        self._slowest = max(self._times, default=self._slowest)
        if self._slowest is None or self._cycle_at is None:
            if hangs:
                report.add('is_processing_time_ms_in_expected_range', False)
            return
        # up to the last message: a sensor that is silent is not slow
        slow_since = self._cycle_at if self._slow_since is None else self._slow_since
        delay_ms = (self._cycle_at - slow_since) * 1e3
        good = self._slowest <= self._limit_ms
        report.add('processing_time_ms', self._slowest)
        report.add('is_processing_time_ms_in_expected_range', good and not hangs)
        report.add('consecutive_processing_delay_ms', delay_ms)
        report.add('pipeline_latency_ms', self._latency_ms)
        if not good:
            level = ERROR if delay_ms > DELAY_LIMIT_MS else WARN
            report.find(
                level, f'processing_time_ms {self._slowest:.1f}, limit {self._limit_ms:.1f}'
            )

    def silent_inputs(self, limit_s: float = SILENCE_S) -> list[tuple[str, float]]:
        """Inputs that have not spoken for more than `limit_s`, and for how many seconds."""
        with self._lock:
            ages = [(name, source.age_s(self._now())) for name, source in self._inputs.items()]
        return [(name, age) for name, age in ages if age > limit_s]

    def _publish_debug(self, name: str, value: float) -> None:
        self._debug[name].publish(Float64(data=value))
