"""What all lifecycle nodes do alike: parameters, transitions, diagnostics, a clean end."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data

from airside_perception.errors import DeviceError, PerceptionError
from airside_perception.nodes.diagnostics import Diagnostics, Report
from airside_perception.nodes.opening import NotReadyError, lingering
from airside_perception.nodes.parameter_services import ParameterServices
from airside_perception.nodes.parameters import Parameters
from airside_perception.nodes.worker import Worker

Config = TypeVar('Config')

SENSOR = QoSProfile(
    depth=1,
    reliability=qos_profile_sensor_data.reliability,
    durability=qos_profile_sensor_data.durability,
)
"""Sensors: best effort, and only the newest message."""

RELIABLE_SENSOR = QoSProfile(depth=1)
"""The same with lost messages sent again, for sensors that publish reliably."""

RESULT = QoSProfile(depth=10)
"""Results: reliable, volatile."""


@functools.cache
def message_type(name: str) -> Any:
    """The rclpy class of a type name such as `std_msgs/msg/Header`."""
    package, kind, message = name.split('/')
    return getattr(importlib.import_module(f'{package}.{kind}'), message)


class PerceptionNode(LifecycleNode, Generic[Config]):
    """A lifecycle node whose transitions say why they fail, and leave nothing behind when they do.

    A node defines `on_open` (load and warm up), `on_start` (subscribe), `on_stop` (unsubscribe)
    and `on_free` (give everything back; must work after any of the others, and twice).

    Attributes:
        broken: why this process can do no more work; empty where it can.
        over: whether that has been told, and the process should end.
    """

    def __init__(self, name: str, config: type[Config], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.parameters = Parameters(self, config)
        self.diagnostics = Diagnostics(self, self.report)
        self.active = False
        self.broken = ''
        self.over = False
        self._parameter_services = ParameterServices(self, self.set_values)
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = functools.partial(self._on_change_state, service.callback)

    @property
    def config(self) -> Config:
        """The newest valid set of parameters."""
        return self.parameters.config

    def on_open(self) -> None:
        """Loads and warms up what the node needs."""

    def on_start(self) -> None:
        """Subscribes."""

    def on_stop(self) -> None:
        """Unsubscribes; nothing is published after it."""

    def on_free(self) -> None:
        """Gives everything back."""

    def report(self, report: Report) -> None:
        """Adds what this node has to say to its diagnostics; called once a second."""

    async def set_values(self, items: list[Parameter]) -> SetParametersResult:
        """Sets parameters as a whole or not at all.

        Raises:
            ParameterNotDeclaredException: there is no such parameter.
        """
        return self.set_parameters_atomically(items)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """unconfigured -> inactive."""
        result = self._transition('configure', self._open, TransitionCallbackReturn.FAILURE)
        if result != TransitionCallbackReturn.SUCCESS:
            self._release()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> active."""

        def start() -> None:
            super(PerceptionNode, self).on_activate(state)
            self.active = True
            self.on_start()

        result = self._transition('activate', start, TransitionCallbackReturn.FAILURE)
        if result != TransitionCallbackReturn.SUCCESS:
            self.active = False
            self._attempt(functools.partial(super().on_deactivate, state), self.on_stop)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """active -> inactive."""
        return self._transition(
            'deactivate', lambda: self._stop(state), TransitionCallbackReturn.ERROR
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """inactive -> unconfigured."""
        return self._transition('cleanup', self._free, TransitionCallbackReturn.ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Anything -> finalized."""

        def end() -> None:
            self._stop(state)
            self._free()

        return self._transition('shutdown', end, TransitionCallbackReturn.ERROR)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that ended in ERROR: back to unconfigured, with nothing held."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def check_lost(self, error: BaseException | None) -> bool:
        """Ends the process where this error has taken the GPU from it; from any thread.

        No call to the GPU works in this process any more, nor does another `configure` bring it
        back: who started the process must start another one.

        Returns:
            Whether it has.
        """
        cause = error
        while cause is not None and not (isinstance(cause, DeviceError) and cause.lost):
            cause = cause.__cause__ or cause.__context__
        executor = self.executor
        if cause is None:
            return False
        if not self.broken and executor is not None:
            self.broken = f'the GPU is lost to this process, which ends: {error}'
            self.get_logger().error(self.broken)
            executor.create_task(self._break_off)
        return True

    def _break_off(self) -> None:
        self.diagnostics.problem = self.broken
        self.diagnostics.last_words()
        self.over = True

    def close(self) -> None:
        """Frees everything, whatever the state; the node is not used after it."""
        if self.broken:  # what is on the GPU goes with the process
            self._attempt(self.on_stop)
        else:
            self._release()

    def make_worker(
        self, work: Callable[[Any], None], failed: Callable[[Any, Exception], None]
    ) -> Worker[Any]:
        """A worker whose messages diagnostics follow; arguments as those of `Worker`."""
        diagnostics = self.diagnostics
        return Worker(self.get_name(), work, failed, diagnostics.begun, diagnostics.ended)

    def guarded(self, topic: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that drops and reports what it cannot take, and never ends the node."""

        def call(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:  # noqa: BLE001  # an exception here would end the executor
                self.failed(topic, error)

        return call

    def failed(self, topic: str, error: Exception) -> None:
        """Counts a message that was dropped for an error, and says so once a second."""
        if not rclpy.ok(context=self.context):
            return  # publishers are gone while the process ends; that is no news
        if self.check_lost(error):
            return
        cause = str(error)
        if not isinstance(error, PerceptionError):
            cause = ''.join(traceback.format_exception(error)).rstrip()
        self.diagnostics.dropped(topic, cause)

    def _on_change_state(self, answer: Callable[..., Any], request: Any, response: Any) -> Any:
        """Refuses a transition that the state does not have: in rclpy it would end the process."""
        wanted = request.transition
        there = {item[1]: item[0] for item in self._state_machine.available_transitions}
        if wanted.label in there or (not wanted.label and wanted.id in there.values()):
            return answer(request, response)
        name, state = wanted.label or wanted.id, self._state_machine.current_state[1]
        self.get_logger().warning(
            f'transition {name} refused: the node is {state}, '
            f'which has {", ".join(sorted(there)) or "none"}'
        )
        response.success = False
        return response

    def _transition(
        self, name: str, step: Callable[[], None], failure: TransitionCallbackReturn
    ) -> TransitionCallbackReturn:
        try:
            step()
        except NotReadyError as error:
            self.get_logger().warning(f'{name} failed: {error}')
            return failure
        except PerceptionError as error:
            self.get_logger().error(f'{name} failed: {error}')
            self.diagnostics.problem = f'{name} failed: {error}'
            self.check_lost(error)
            return failure
        except Exception as error:  # noqa: BLE001  # rclpy swallows it without a word
            text = ''.join(traceback.format_exception(error)).rstrip()
            self.get_logger().error(f'{name} failed: {text}')
            self.diagnostics.problem = f'{name} failed: {error!r}'
            return failure
        self.diagnostics.problem = self.broken
        return TransitionCallbackReturn.SUCCESS

    def _open(self) -> None:
        if self.broken:
            raise PerceptionError(self.broken)
        self.on_open()

    def _stop(self, state: LifecycleState) -> None:
        self.active = False
        super().on_deactivate(state)  # first: a frame that will not end publishes nothing later
        self.on_stop()

    def _free(self) -> None:
        self.on_free()
        self.parameters.release()

    def _release(self) -> None:
        """Stops and frees as far as that goes, and logs what does not."""
        self.active = False
        self._attempt(self.on_stop, self.on_free, self.parameters.release)

    def _attempt(self, *steps: Callable[[], Any]) -> None:
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001  # the other steps must still run
                self.get_logger().error(f'not undone: {error}')


def run(make_node: Callable[[], PerceptionNode[Any]], args: list[str] | None = None) -> int:
    """The body of an executable: spins until SIGINT or SIGTERM, then frees everything.

    Returns:
        The exit status: 0 after a signal, 1 where rclpy refused to start. Where the GPU was lost
        it does not return: the process ends with 1.
    """
    node = None
    try:
        rclpy.init(args=args)
    except rclpy_implementation.RCLError as error:  # a parameter file that is none, for one
        sys.stderr.write(f'{str(error).splitlines()[0]}\n')
        return 1
    except KeyboardInterrupt:
        return 0
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not node.over:
            executor.spin_once()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError as error:  # what rclpy's own errors derive from
        if rclpy.ok():
            raise
        # the signal came while rclpy was about to use the context that it has shut down
        sys.stderr.write(f'ended by a signal ({str(error).splitlines()[0]})\n')
    finally:
        # A terminal and a launch file may both interrupt; once is enough. rclpy puts Python's own
        # handler back when it shuts down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    lost = node is not None and bool(node.broken)
    if lost or lingering():
        # A build that cannot be stopped would run into the end of the interpreter, and crash
        # there. So may what would free memory of a GPU that is lost.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if lost else 0)
    return 0
