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
        due: when it may be tried again, on the clock of the event loop.
    """

    def __init__(self, name: str, action: Any) -> None:
        self.name = name
        self.action = action
        self.attempts = 0
        self.reason = ''
        self.due = 0.0
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
    """Configures all nodes at once, then activates them in their order, with retries.

    A node that gives the same reason twice gives it a third time: then somebody must mend it. One
    that builds its engine is asked again until it is ready, however long that takes.

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
        self._pending: list[Node] = []
        self._news = asyncio.Event()
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
        node.attempts, node.reason, node.due = 0, '', 0.0
        if node not in self._pending:
            self._pending.append(node)
        self._news.set()

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
            await self._wait_for_news(ros)
        except asyncio.CancelledError:
            # At shutdown launch cancels what runs, and then takes a cancelled task of its own for
            # the end of everything: it would leave the nodes running.
            self._logger.debug('ended by the shutdown')

    async def _wait_for_news(self, ros: Any) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(POLL_S)  # processes that start together are brought up together
            now = _now()
            pending = [node for node in self._nodes if node in self._pending and node.due <= now]
            self._pending = [node for node in self._pending if node not in pending]
            for node in pending:
                node.connect(ros)
            await self._bring_up(pending)
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(loop.run_in_executor(None, node.disconnect, ros) for node in pending)
            )

    async def _bring_up(self, nodes: list[Node]) -> None:
        reasons = await asyncio.gather(*(self._configure(node) for node in nodes))
        for node, reason in zip(nodes, reasons, strict=True):
            if not reason:
                reason = await self._activate(node)
            if not reason:
                self._logger.info(f'{node.name}: active')
                continue
            if node in self._pending:
                continue  # its process has been started anew meanwhile
            if BUSY in reason:
                self._logger.debug(f'{node.name}: {reason}')  # the node says so itself
                self._again(node, BUSY_PAUSE_S)
                continue
            node.attempts += 1
            known = reason == node.reason and not any(text in reason for text in PASSING)
            node.reason = reason
            if node.attempts < self._attempts and not known:
                self._logger.warning(
                    f'{node.name}: {reason} (try {node.attempts} of {self._attempts}, '
                    f'again in {self._pause_s:g} s)'
                )
                self._again(node, self._pause_s)
            else:
                self._logger.error(
                    f'{node.name}: cannot be brought to active: {reason}; '
                    'the other nodes go on without it'
                )

    def _again(self, node: Node, pause_s: float) -> None:
        node.due = _now() + pause_s
        self._pending.append(node)
        asyncio.get_running_loop().call_later(pause_s, self._news.set)

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
