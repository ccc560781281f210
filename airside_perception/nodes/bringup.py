"""Brings lifecycle nodes of a launch file to active, again when one was respawned.

Works on Humble and Jazzy: only process events and the nodes' own lifecycle services are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from typing import Any

from launch import LaunchContext
from launch.actions import OpaqueCoroutine, RegisterEventHandler
from launch.event_handlers import OnProcessStart, OnShutdown
from launch.logging import get_logger
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile

from airside_perception.nodes.opening import BUSY

POLL_S = 0.05
ANSWER_S = 1.0
"""How long a node that is not in a transition may take to answer."""

START_S = 20.0
"""How long a process may take until its services answer."""

TRANSITION_S = 300.0
"""How long a transition may take: large networks are slow to load."""

ORDER_S = 5.0
"""How long a node that could be activated waits for those before it, when all start together."""

BUSY_PAUSE_S = 5.0
"""Between two questions whether a node that builds its engine is ready."""

SILENT, UNSAID = 'did not answer', 'gave no reason'
PASSING = (SILENT, UNSAID, 'in work', 'OUT_OF_MEMORY')
"""In reasons that may pass by themselves, even if they come twice."""

ERROR = 40
"""Level of rcl_interfaces/Log; its constants are bytes on some distributions."""


class Node:
    """The lifecycle of one node, seen from outside.

    Attributes:
        name: fully qualified.
        attempts: how often it was tried since its process started; tries that were only too early
            do not count.
        reason: why the last try failed.
        started: set when its process has started, and it has not been tried since.
        known: whether its process has started at all.
        settled: set once its first try has ended, one way or another.
    """

    def __init__(self, name: str, action: Any) -> None:
        self.name = name
        self.action = action
        self.attempts = 0
        self.reason = ''
        self.started = asyncio.Event()
        self.known = False
        self.settled = asyncio.Event()
        self._change: Any = None
        self._get: Any = None

    def connect(self, ros: Any) -> None:
        """Makes the clients."""
        self._change = ros.create_client(ChangeState, f'{self.name}/change_state')
        self._get = ros.create_client(GetState, f'{self.name}/get_state')

    def disconnect(self, ros: Any) -> None:
        """Gives the clients back.

        A client that has written to a process that died waits for it when it is destroyed, up to a
        second on Cyclone DDS. That would delay the end of the launch, if it were left until then.
        """
        ros.destroy_client(self._change)
        ros.destroy_client(self._get)

    async def state(self, limit_s: float) -> str:
        """The label of its state; empty where it does not answer in time."""
        end = _now() + limit_s
        while _now() < end:
            if self._get.service_is_ready():
                answer = await _result(
                    self._get.call_async(GetState.Request()), min(ANSWER_S, limit_s)
                )
                if answer is not None:
                    return str(answer.current_state.label)
            await asyncio.sleep(POLL_S)
        return ''

    async def change(self, transition: int, before: str, after: str) -> bool:
        """Makes a transition; False where the node refused or took more than `TRANSITION_S`."""
        request = ChangeState.Request(transition=Transition(id=transition))
        end = _now() + TRANSITION_S
        while _now() < end:
            future = self._change.call_async(request)
            while _now() < end:
                answer = await _result(future, ANSWER_S)
                if answer is not None:
                    # refused may be the second of two that were both on their way
                    return bool(answer.success) or await self.state(ANSWER_S) == after
                # no answer yet: it works, or the request went to a process that died before
                state = await self.state(ANSWER_S)
                if state == after:
                    return True
                if state == before and not future.done():
                    break
        return False


class BringUp:
    """Configures and activates each node by itself, with retries: none waits for another's end.

    Nodes that start together are activated in their order, as far as none is waited for longer
    than `ORDER_S`. A node whose process was started anew waits for none.

    A node that gives the same reason twice gives it a third time: then somebody must mend it. One
    that builds its engine is asked again until it is ready, however long that takes.

    A node that is moved by hand later is left where it is.

    Args:
        nodes: (fully qualified name, launch action) in the order of activation.
        attempts: most tries for each start of a process.
        pause_s: between two tries.
    """

    def __init__(
        self, nodes: Iterable[tuple[str, Any]], attempts: int = 5, pause_s: float = 2.0
    ) -> None:
        self._nodes = [Node(name, action) for name, action in nodes]
        self._attempts = attempts
        self._pause_s = pause_s
        self._errors: dict[str, str] = {}
        self._logger = get_logger('bringup')

    def entities(self) -> list[Any]:
        """What a launch description needs: put these before the nodes."""
        handlers = [
            RegisterEventHandler(
                OnProcessStart(
                    target_action=node.action,
                    on_start=lambda event, context, node=node: self._started(node),
                )
            )
            for node in self._nodes
        ]
        return [*handlers, OpaqueCoroutine(coroutine=self._run)]

    def _started(self, node: Node) -> None:
        node.attempts, node.reason, node.known = 0, '', True
        node.started.set()

    def _interrupt(self, event: Any, context: LaunchContext) -> None:
        # Launch itself sees signals another way. Python's own answer to an impatient second
        # ctrl-c, KeyboardInterrupt, would strike amid launch's handlers: the end would never come.
        with contextlib.suppress(ValueError):  # not in the main thread, where signals arrive
            signal.signal(signal.SIGINT, lambda number, frame: None)
        for node in self._nodes:
            details = node.action.process_details
            if details is not None and node.action.return_code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(details['pid'], signal.SIGINT)

    async def _run(self, context: LaunchContext) -> None:
        ros = get_ros_node(context)
        ros.create_subscription(Log, '/rosout', self._on_log, QoSProfile(depth=100))
        # handlers run in reverse order: this one comes before launch closes its own ROS node,
        # which takes a second or more, and before it thinks of interrupting processes
        context.register_event_handler(OnShutdown(on_shutdown=self._interrupt))
        try:
            await asyncio.gather(*(self._drive(node, ros) for node in self._nodes))
        except asyncio.CancelledError:
            # At shutdown launch cancels what runs, and then takes a cancelled task of its own for
            # the end of everything: it would leave the nodes running.
            self._logger.debug('ended by the shutdown')

    async def _drive(self, node: Node, ros: Any) -> None:
        """Brings one node up whenever its process has started, until the launch ends."""
        loop, pause_s = asyncio.get_running_loop(), None
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(node.started.wait(), pause_s)
            node.started.clear()
            await asyncio.sleep(POLL_S)  # processes that start together are brought up together
            try:
                node.connect(ros)
                pause_s = await self._bring_up(node)
                node.settled.set()
                await loop.run_in_executor(None, node.disconnect, ros)
            except Exception as error:  # noqa: BLE001  # the launch and the other nodes go on
                self._logger.error(f'{node.name}: not brought up: {error!r}')
                pause_s = None
                node.settled.set()

    async def _bring_up(self, node: Node) -> float | None:
        """Tries once; the seconds until the next try, None where there need be none."""
        reason = await self._configure(node)
        if not reason:
            await self._wait_for_order(node)
            reason = await self._activate(node)
        if node.started.is_set():
            return None  # its process has been started anew meanwhile: that counts
        if not reason:
            self._logger.info(f'{node.name}: active')
            return None
        if BUSY in reason:
            self._logger.debug(f'{node.name}: {reason}')  # the node says so itself
            return BUSY_PAUSE_S
        node.attempts += 1
        known = reason == node.reason and not any(text in reason for text in PASSING)
        node.reason = reason
        if node.attempts < self._attempts and not known:
            self._logger.warning(
                f'{node.name}: {reason} (try {node.attempts} of {self._attempts}, '
                f'again in {self._pause_s:g} s)'
            )
            return self._pause_s
        self._logger.error(
            f'{node.name}: cannot be brought to active: {reason}; the other nodes go on without it'
        )
        return None

    async def _wait_for_order(self, node: Node) -> None:
        """Waits a moment until those before it had their first try, where this is its own."""
        if node.settled.is_set():
            return
        before = self._nodes[: self._nodes.index(node)]
        first = asyncio.gather(*(item.settled.wait() for item in before if item.known))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(first, ORDER_S)

    async def _configure(self, node: Node) -> str:
        """Why the node is neither inactive nor active now; empty where it is."""
        state = await node.state(START_S)
        if not state:
            return f'its lifecycle services {SILENT} within {START_S:g} s'
        if state in ('inactive', 'active'):
            return ''
        if state != 'unconfigured':
            return f'it is {state}, not unconfigured'
        return await self._change(
            node, 'configure', Transition.TRANSITION_CONFIGURE, 'unconfigured', 'inactive'
        )

    async def _activate(self, node: Node) -> str:
        """Why the node is not active now; empty where it is."""
        state = await node.state(ANSWER_S)
        if state == 'active':
            return ''
        if state != 'inactive':  # somebody else, or an error, has moved it
            return f'it is {state}, not inactive' if state else f'its lifecycle services {SILENT}'
        return await self._change(
            node, 'activate', Transition.TRANSITION_ACTIVATE, 'inactive', 'active'
        )

    async def _change(
        self, node: Node, label: str, transition: int, before: str, after: str
    ) -> str:
        self._errors.pop(node.name, None)
        if await node.change(transition, before, after):
            return ''
        for _ in range(10):
            if node.name in self._errors:
                return self._errors[node.name]
            await asyncio.sleep(POLL_S)  # the log takes another way than the answer
        return f'{label} failed; the node {UNSAID}'

    def _on_log(self, message: Log) -> None:
        level = message.level if isinstance(message.level, int) else message.level[0]
        if level >= ERROR or BUSY in message.msg:
            self._errors['/' + message.name.replace('.', '/')] = message.msg.splitlines()[-1]


async def _result(future: Any, limit_s: float) -> Any:
    """The result of an rclpy future that another thread completes; None after `limit_s`."""
    end = _now() + limit_s
    while not future.done():
        if _now() > end:
            return None
        await asyncio.sleep(POLL_S)
    return future.result()


def _now() -> float:
    return asyncio.get_running_loop().time()
