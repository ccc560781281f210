"""Publishes a recording with /clock, as its sensors did: for a live graph with use_sim_time.

Messages go out as the bytes that were recorded, nothing is deserialised. All are reliable, so that
reliable and best-effort subscribers both match; latched topics (/tf_static) reach late ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from airside_perception.errors import BagError
from airside_perception.messages import time_message
from airside_perception.nodes.base import message_type

CLOCK_PERIOD_NS = 10_000_000
"""Of the recording's time, between two messages on /clock."""
LATCHED_DEPTH = 100
DEPTH = 10
POLL_S = 0.05
LINGER_S = 0.5
CLOCK_WAIT_S = 2.0
"""Longest wait for a subscriber of /clock once all topics have one."""
SETTLE_S = 0.3
"""Between the last subscriber that was found and the first message: one that is found has not
always found its publisher, which nothing here can see, and what it is sent until then is lost."""


class Recorded(Protocol):
    """A message as recorded; see `replay.bag.Record`."""

    @property
    def topic(self) -> str: ...

    @property
    def log_ns(self) -> int: ...

    @property
    def data(self) -> bytes: ...


def play(
    records: Callable[[], Iterable[Recorded]],
    topics: Mapping[str, tuple[str, bool]],
    rate: float = 1.0,
    loop: bool = False,
    wait_s: float = 0.0,
) -> int:
    """Publishes a recording until its end, or until the process is interrupted.

    Args:
        records: gives the messages in order of time; called once a round.
        topics: {name: (type, whether late subscribers get its messages)}.
        rate: times real time.
        loop: starts again at the end; the clock jumps back.
        wait_s: longest wait for a subscriber on every topic.

    Returns:
        Number of messages published, latched and /clock left out.

    Raises:
        BagError: a type of the recording is not installed.
    """
    rclpy.init()
    try:
        player = Player(topics, rate)
        try:
            player.wait(wait_s)
            while True:
                player.play_once(records())
                if not loop:
                    player.drain()
                    return player.published
        finally:
            player.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()


class Player(Node):
    """A node with one publisher a topic of the recording, and /clock.

    Attributes:
        published: messages so far, latched and /clock left out.
        late_s: the most that a message went out after its time.
    """

    def __init__(self, topics: Mapping[str, tuple[str, bool]], rate: float) -> None:
        super().__init__('replay_player')
        self.published = 0
        self.late_s = 0.0
        self._rate = rate
        self._latched = {name for name, (_, latched) in topics.items() if latched}
        self._outputs = {
            name: self.create_publisher(_installed(name, kind), name, _qos(latched))
            for name, (kind, latched) in topics.items()
            if name != '/clock'
        }
        self._clock_output = self.create_publisher(Clock, '/clock', QoSProfile(depth=DEPTH))

    def wait(self, timeout_s: float) -> None:
        """Waits until every topic has a subscriber, and says which have none in the end."""
        deadline = time.monotonic() + timeout_s
        while missing := self._unheard():
            if not rclpy.ok() or time.monotonic() >= deadline:
                if timeout_s > 0:
                    self.get_logger().warning(
                        f'after {timeout_s:g} s nobody listens to {", ".join(missing)}'
                    )
                return
            time.sleep(POLL_S)
        # Who takes the topics takes the time as well; discovery finds one after the other.
        moment = min(deadline, time.monotonic() + CLOCK_WAIT_S)
        while rclpy.ok() and time.monotonic() < moment:
            if self._clock_output.get_subscription_count():
                break
            time.sleep(POLL_S)
        if timeout_s > 0:
            self._sleep_until(time.monotonic() + SETTLE_S)

    def play_once(self, records: Iterable[Recorded]) -> None:
        """One round: latched messages at their first sight, all others in their time."""
        started, first_ns = time.monotonic(), None
        clock_ns = 0
        for record in records:
            if not rclpy.ok():
                raise ExternalShutdownException
            if first_ns is None:
                first_ns = clock_ns = record.log_ns
                started = time.monotonic()
                self._tick(clock_ns)
            while clock_ns + CLOCK_PERIOD_NS <= record.log_ns:
                clock_ns += CLOCK_PERIOD_NS
                self._sleep_until(started + (clock_ns - first_ns) / 1e9 / self._rate)
                self._tick(clock_ns)
            due = started + (record.log_ns - first_ns) / 1e9 / self._rate
            self._sleep_until(due)
            self.late_s = max(self.late_s, time.monotonic() - due)
            output = self._outputs.get(record.topic)
            if output is not None:
                output.publish(record.data)
                self.published += record.topic not in self._latched

    def drain(self, timeout_s: float = 2.0) -> None:
        """Waits until subscribers have taken what was published."""
        deadline = time.monotonic() + timeout_s
        for output in self._outputs.values():
            left = max(deadline - time.monotonic(), 0.0)
            output.wait_for_all_acked(Duration(seconds=left))
        # best-effort subscribers acknowledge nothing, and may read from this process's memory
        self._sleep_until(time.monotonic() + LINGER_S)

    def _tick(self, stamp_ns: int) -> None:
        self._clock_output.publish(Clock(clock=time_message(stamp_ns, message_type)))

    def _unheard(self) -> list[str]:
        return [
            name
            for name, output in self._outputs.items()
            if name not in self._latched and not output.get_subscription_count()
        ]

    @staticmethod
    def _sleep_until(when: float) -> None:
        left = when - time.monotonic()
        if left > 0:
            time.sleep(left)


def _qos(latched: bool) -> QoSProfile:
    if latched:
        return QoSProfile(depth=LATCHED_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=DEPTH)


def _installed(topic: str, name: str) -> type:
    try:
        kind: type = message_type(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BagError(
            f'{topic}: type {name} is not installed here; leave the topic out with --topics'
        ) from error
    return kind
