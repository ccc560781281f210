"""Drives nodes through the services that people use, from a node of the test's own.

Tests of nodes and of launch files get these classes as fixtures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CAMERA = 'optical'
HEIGHT, WIDTH = 64, 96
SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


class Harness:
    """Nodes under test and a node of the test's own, in one process, spun by one thread."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor

        self.context = Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = rclpy.create_node('tester', context=self.context)
        self.executor.add_node(self.node)
        self.nodes: list[Any] = []
        self._clients: dict[str, Any] = {}
        self._topics: dict[str, Any] = {}
        self._diagnostics: Any = None
        self._thread = threading.Thread(target=self._spin)
        self._stopping = False
        self._thread.start()

    def _spin(self) -> None:
        while not self._stopping:
            self.executor.spin_once(timeout_sec=0.05)

    def add(self, kind: Any, **parameters: Any) -> Any:
        """A node of class `kind` with these parameters, as if from a parameter file."""
        from rclpy.parameter import Parameter

        overrides = [
            Parameter(name.replace('__', '.'), value=value) for name, value in parameters.items()
        ]
        node = kind(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(node)
        self.executor.wake()
        self.nodes.append(node)
        return node

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """Calls a service and waits for the answer."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
            assert client.wait_for_service(timeout_sec=30.0), name
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, f'an answer of {name}')
        return future.result()

    def change(self, node: Any, transition: str) -> bool:
        """configure, activate, deactivate, cleanup or shutdown, through the service."""
        return self.change_of(node.get_fully_qualified_name(), transition)

    def change_of(self, name: str, transition: str) -> bool:
        """The same, for a node of another process."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = Transition(label=transition)
        return bool(self.call(ChangeState, f'{name}/change_state', transition=request).success)

    def state(self, node: Any) -> str:
        from lifecycle_msgs.srv import GetState

        return self.call(
            GetState, f'{node.get_fully_qualified_name()}/get_state'
        ).current_state.label

    def activate(self, node: Any) -> None:
        assert self.change(node, 'configure')
        assert self.change(node, 'activate')

    def set(self, node: Any, **values: Any) -> Any:
        """The call that rqt_reconfigure makes; `a__b` names the parameter a.b."""
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter

        items = [
            Parameter(key.replace('__', '.'), value=value).to_parameter_msg()
            for key, value in values.items()
        ]
        name = f'{node.get_fully_qualified_name()}/set_parameters_atomically'
        return self.call(SetParametersAtomically, name, parameters=items).result

    def listen(self, kind: Any, topic: str) -> list[Any]:
        """Everything that is published on a topic from now on."""
        got: list[Any] = []
        self._topics[topic] = self.node.create_subscription(kind, topic, got.append, 50)
        self.executor.wake()
        return got

    def publisher(self, kind: Any, topic: str, qos: Any = 10) -> Any:
        """A publisher that has found its subscribers."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(publisher.get_subscription_count, f'a subscriber of {topic}')
        return publisher

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
        """Waits until the condition holds, and returns what it returned."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.01)
        raise AssertionError(f'waited {timeout} s for {what}')

    def forget_diagnostics(self) -> list[Any]:
        """What is reported counts from here on."""
        from diagnostic_msgs.msg import DiagnosticArray

        if self._diagnostics is None:
            self._diagnostics = self.listen(DiagnosticArray, '/diagnostics')
        self._diagnostics.clear()
        return self._diagnostics

    def diagnosis(
        self, node: Any, condition: Callable[[Any, dict[str, str]], Any], fresh: bool = True
    ) -> tuple[Any, dict[str, str]]:
        """The first status of a node for which the condition holds, and its values."""
        return self.diagnosis_of(node.get_fully_qualified_name(), condition, fresh)

    def diagnosis_of(
        self, name: str, condition: Callable[[Any, dict[str, str]], Any], fresh: bool = True
    ) -> tuple[Any, dict[str, str]]:
        """The same, for a node of another process."""
        from diagnostic_msgs.msg import DiagnosticArray

        got = self.forget_diagnostics() if fresh else self._diagnostics
        patience = time.monotonic() + 10.0
        again: list[Any] = []

        def find() -> Any:
            if not got and not again and time.monotonic() > patience:
                # Every node reports once a second: a subscription that heard none for ten seconds
                # was lost in discovery, which a second one tells from a node that says nothing.
                again.append(
                    self.node.create_subscription(DiagnosticArray, '/diagnostics', got.append, 50)
                )
                self.executor.wake()
            for array in list(got):
                for status in array.status:
                    values = {item.key: item.value for item in status.values}
                    if status.name.startswith(f'{name.lstrip("/")}:') and condition(
                        status, values
                    ):
                        return status, values
            return None

        try:
            return self.until(find, f'diagnostics of {name}')
        except AssertionError as error:
            count = self.node.count_publishers('/diagnostics')
            raise AssertionError(f'{error}; {count} publishers; last {got[-1:]}') from None
        finally:
            for subscription in again:
                self.node.destroy_subscription(subscription)

    def close(self) -> None:
        import rclpy

        self._stopping = True
        self._thread.join()
        for node in self.nodes:
            node.close()
            node.destroy_node()
            # keeps the C node, seen by the tests that follow, for as long as the object lives
            node._state_machine.destroy_when_not_in_use()
        self.node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)


class Sensors:
    """Messages of a small vehicle: a camera 2 m above the ground looking forward, and a lidar."""

    def __init__(self, harness: Harness) -> None:
        from tf2_msgs.msg import TFMessage

        from airside_perception.nodes.base import message_type

        self.harness = harness
        self.types = message_type
        self._tf_kind = TFMessage
        self._tf: dict[str, Any] = {}

    def image(
        self, brightness: int = 255, stamp: int = T0, frame: str = CAMERA, encoding: str = 'bgr8'
    ) -> Any:
        from airside_perception.messages import image_message
        from airside_perception.types import Image

        shape = (HEIGHT, WIDTH) if encoding == 'mono8' else (HEIGHT, WIDTH, 3)
        return image_message(
            Image(stamp, frame, np.full(shape, brightness, np.uint8), encoding), self.types
        )

    def info(
        self, stamp: int = T0, width: int = WIDTH, focal: float = 60.0, frame: str = CAMERA
    ) -> Any:
        from sensor_msgs.msg import CameraInfo

        info = CameraInfo(width=width, height=HEIGHT, distortion_model='plumb_bob', d=[0.0] * 5)
        info.header = self.types('std_msgs/msg/Header')(frame_id=frame)
        info.k = np.array(
            [focal, 0, WIDTH / 2, 0, focal, 20.0, 0, 0, 1 if focal else 0], dtype=np.float64
        )
        return info

    def cloud(
        self, stamp: int = T0, points: Any = ((5.0, 1.0, 0.5, 0.9),), frame: str = 'lidar'
    ) -> Any:
        from airside_perception.messages import point_cloud_message
        from airside_perception.types import PointCloud

        values = np.asarray(points, np.float32)
        names = ('x', 'y', 'z', 'intensity')[: values.shape[1]]
        return point_cloud_message(PointCloud(stamp, frame, values, names), self.types)

    def static(self, frame: str, child2parent: Any, parent: str = 'base_link') -> None:
        """Publishes a static transform, latched."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        from airside_perception.messages import transform_message

        qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = self._tf.get(frame)
        if publisher is None:
            publisher = self._tf[frame] = self.harness.node.create_publisher(
                self._tf_kind, '/tf_static', qos
            )
        message = transform_message(
            parent, frame, 0, np.asarray(child2parent, np.float64), self.types
        )
        publisher.publish(self._tf_kind(transforms=[message]))

    def camera_mount(self) -> None:
        """base_link -> optical frame: 2 m up, looking along x."""
        mount = np.eye(4)
        mount[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        mount[:3, 3] = (1.0, 0.0, 2.0)
        self.static(CAMERA, mount)

    def lidar_mount(self) -> None:
        """base_link -> lidar: 1 m forward, 1.5 m up."""
        mount = np.eye(4)
        mount[:3, 3] = (1.0, 0.0, 1.5)
        self.static('lidar', mount)
