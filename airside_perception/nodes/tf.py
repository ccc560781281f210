"""tf2 as the core's `TransformSource`: transforms at the stamp, with a bounded wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tf2_ros
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from airside_perception.errors import TransformError
from airside_perception.messages import rigid_transform, stamp_ns

JUMP_NS = 1_000_000_000
"""A transform that is this much older than the one before it says that time has jumped back."""


class TfSource:
    """Listens to /tf and /tf_static from construction to `close`.

    `lookup` waits for data that are still under way; call it from a worker thread, so that the
    executor can go on to receive them. Lookups in `one_wait` wait for as long as one.

    Attributes:
        timeout_ms: the longest wait of a lookup, or of all in `one_wait`; may be set at any time.
        jumps: how often time has jumped back, in /tf or on the node's clock; then the transforms
            are forgotten, but for the static ones, and `on_jump` is called.
    """

    def __init__(
        self,
        node: Node,
        timeout_ms: float = 50.0,
        cache_s: float = 10.0,
        on_jump: Callable[[], None] = lambda: None,
    ) -> None:
        self.timeout_ms = timeout_ms
        self.jumps = 0
        self._node = node
        self._on_jump = on_jump
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=cache_s))
        self._news = threading.Condition()
        self._newest: dict[str, int] = {}
        self._closed = False
        self._deadline: float | None = None
        back = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-JUMP_NS), on_clock_change=False
        )
        self._clock = node.get_clock().create_jump_callback(
            back, post_callback=self._on_clock_jump
        )
        group = ReentrantCallbackGroup()
        static = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(
                TFMessage, '/tf', self._on_tf, QoSProfile(depth=100), callback_group=group
            ),
            node.create_subscription(
                TFMessage, '/tf_static', self._on_static, static, callback_group=group
            ),
        ]

    def close(self) -> None:
        """Stops to listen and ends every wait; may be called again."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._clock.unregister()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    @contextmanager
    def one_wait(self) -> Iterator[None]:
        """What is looked up in this context waits until one deadline, counted from its start.

        After a lookup that has waited in vain the others are tried without any wait: what one
        missing transform costs, many cost together. For one thread at a time.
        """
        self._deadline = time.monotonic() + self.timeout_ms / 1e3
        try:
            yield
        finally:
            self._deadline = None

    def lookup(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """`source2target` at the stamp; see `transforms.TransformSource`."""
        if target == source:
            return np.eye(4)
        stamp = Time(nanoseconds=stamp_ns)
        return self._wait(
            lambda: self._buffer.lookup_transform_core(target, source, stamp),
            f'{source} -> {target}',
        )

    def lookup_between(
        self, target: str, target_ns: int, source: str, source_ns: int, fixed: str
    ) -> NDArray[np.float64]:
        """`source` at one stamp into `target` at another; see `transforms.TransformSource`."""
        if target == source and (target_ns == source_ns or target == fixed):
            return np.eye(4)
        stamps = Time(nanoseconds=target_ns), Time(nanoseconds=source_ns)
        return self._wait(
            lambda: self._buffer.lookup_transform_full_core(
                target, stamps[0], source, stamps[1], fixed
            ),
            f'{source} -> {target} through {fixed}',
        )

    def _wait(self, look: Any, what: str) -> NDArray[np.float64]:
        deadline = self._deadline
        if deadline is None:
            deadline = time.monotonic() + self.timeout_ms / 1e3
        with self._news:
            while True:
                try:
                    return rigid_transform(look())[3]
                except tf2_ros.TransformException as error:
                    left = deadline - time.monotonic()
                    if (
                        left <= 0
                        or self._closed
                        or isinstance(error, tf2_ros.InvalidArgumentException)
                    ):
                        waited = f' (waited {self.timeout_ms:g} ms)' if self.timeout_ms > 0 else ''
                        raise TransformError(f'no transform {what}{waited}: {error}') from error
                self._news.wait(left)

    def _on_tf(self, message: TFMessage) -> None:
        with self._news:
            for item in message.transforms:
                self._add(item)
            self._news.notify_all()

    def _add(self, item: TransformStamped) -> None:
        stamp, newest = stamp_ns(item.header.stamp), self._newest.get(item.child_frame_id, 0)
        if stamp < newest - JUMP_NS:
            self._jumped(
                f'/tf: time of {item.child_frame_id} jumped back by {(newest - stamp) / 1e9:.1f} s'
            )
            newest = 0
        self._newest[item.child_frame_id] = max(stamp, newest)
        self._buffer.set_transform(item, 'tf')

    def _on_clock_jump(self, _: object) -> None:
        with self._news:
            self._jumped('the clock jumped back')

    def _jumped(self, what: str) -> None:
        """Forgets every transform that is not static."""
        self.jumps += 1
        self._buffer.clear()
        self._newest.clear()
        self._node.get_logger().warning(f'{what}; transforms cleared')
        self._on_jump()

    def _on_static(self, message: TFMessage) -> None:
        with self._news:
            for item in message.transforms:
                self._buffer.set_transform_static(item, 'tf_static')
            self._news.notify_all()
