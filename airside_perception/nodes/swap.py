"""Another network under a configured node: opened beside the old one, in service between frames.

The service that sets the parameters answers when the new network is in service and the old one
has done its last frame, or with the reason why it is not. Until then the parameters say what the
old network was opened with. Nobody waits in the executor or the worker meanwhile: the new network
opens and warms up in a thread of its own, and the service is a coroutine. Both networks are in
memory for that time.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidHandle
from rclpy.parameter import Parameter
from rclpy.task import Future

from airside_perception.errors import PerceptionError
from airside_perception.nodes.opening import BUSY, Made, NotReadyError, Opening, Say
from airside_perception.nodes.serving import Serving

LAST_FRAME_S = 5.0
"""How long the answer waits for the last frame of the old network."""


class Swap:
    """Replaces the network of a detector node; all calls are in the thread of the executor.

    Attributes:
        state: for diagnostics: none, what is being opened, or how the last one ended.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._opening: Opening[Serving] | None = None
        self._last = 'none'

    @property
    def running(self) -> bool:
        """Whether a network is being opened to take over."""
        return self._opening is not None

    @property
    def state(self) -> str:
        """What is being opened, else how the last one ended."""
        opening = self._opening
        return self._last if opening is None else f'{opening.stage}: {opening.what}'

    def cancel(self) -> None:
        """The node gives its network back: none takes over any more."""
        if self._opening is not None:
            self._opening.cancel('the node was cleaned up meanwhile')

    async def set(self, items: list[Parameter]) -> SetParametersResult:
        """Sets parameters as a whole or not at all; those of a network come with that network.

        Raises:
            ParameterNotDeclaredException: there is no such parameter.
        """
        node = self._node
        if not node.parameters.swaps(items):
            return node.set_parameters_atomically(items)
        for item in items:
            node.get_parameter(item.name)  # raises where it is not declared
        try:
            config = node.parameters.preview(items)
            if self._opening is not None:
                raise NotReadyError(
                    f'{self._opening.what} {BUSY} ({self._opening.stage}): one network at a time'
                )
            before = node.serving
            if before is None:
                raise NotReadyError(f'the network of the node {BUSY}: nothing to take over from')
            return await self._replace(before, config, items)
        except Exception as error:  # noqa: BLE001  # an exception here would end the executor
            return self._refuse(error)

    async def _replace(
        self, before: Serving, config: Any, items: list[Parameter]
    ) -> SetParametersResult:
        node = self._node

        def make(say: Say) -> Serving:
            network = node.find_network(config)
            return node.open_network(network, say, network.why_build())

        self._opening = opening = Opening(config.engine_path, make)
        try:
            await self._ended(opening)
        finally:
            self._opening = None
        if opening.error is not None:
            self._last = f'failed: {opening.what}: {str(opening.error) or opening.error!r}'
            raise opening.error
        fresh: Any = opening.made
        if node.serving is not before:
            self._close(fresh).start()
            raise PerceptionError('the node was cleaned up meanwhile')
        result = SetParametersResult()

        def apply() -> bool:
            nonlocal result
            thresholds = fresh.network.config.score_thresholds
            result = node.parameters.swap(items, {'score_thresholds': thresholds})
            return result.successful

        if not node.replace_serving(fresh, apply):
            self._close(fresh).start()
            raise PerceptionError(result.reason)
        self._last = f'done: {fresh.network.path}'
        node.get_logger().info(f'{fresh.network.path} took over from {before.network.path}')
        await self._ended(self._close(before), LAST_FRAME_S)
        return result

    def _refuse(self, error: Exception) -> SetParametersResult:
        known = isinstance(error, PerceptionError)
        reason = str(error) if known else ''.join(traceback.format_exception(error)).rstrip()
        self._node.get_logger().warning(f'set parameters: refused: {reason}')
        self._node.check_lost(error)
        return SetParametersResult(successful=False, reason=str(error) if known else repr(error))

    async def _ended(self, opening: Opening[Made], limit_s: float | None = None) -> None:
        """Starts it and waits for its end, or at most `limit_s`, while the executor goes on."""
        executor = self._node.executor
        future = Future(executor=executor)
        # some versions of rclpy look after a coroutine only when something else wakes them up
        future.add_done_callback(lambda _: None)

        def end() -> None:
            with contextlib.suppress(InvalidHandle):  # the executor is no more
                if not future.done():
                    future.set_result(None)

        opening.done = end
        opening.start()
        timer = None
        if limit_s is not None:
            timer = threading.Timer(limit_s, end)
            timer.daemon = True
            timer.start()
        await future
        if timer is not None:
            timer.cancel()

    def _close(self, serving: Serving) -> Opening[Serving]:
        """Closes a network after its last frame, in a thread that is not started yet."""

        def close(say: Say) -> Serving:
            try:
                serving.close()
            except Exception as error:  # noqa: BLE001  # nobody else would ever hear of it
                self._node.get_logger().error(f'{serving.network.path}: not closed: {error!r}')
            return serving

        return Opening(f'{serving.network.path} (closing)', close)
