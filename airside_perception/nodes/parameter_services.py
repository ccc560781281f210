"""The services that set parameters: a setting may take seconds, and no request ends the node.

rclpy's own answer when the call returns. These are coroutines: while one waits, the executor goes
on with everything else, with one thread. They have a callback group of their own, as a callback
that waits blocks the others of its group. And what rclpy's own raise on a request that it cannot
read goes through the executor to the end of the process; here it is a refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters

from airside_perception.errors import ConfigError

Setter = Callable[[list[Parameter]], Awaitable[SetParametersResult]]


class ParameterServices:
    """Puts `~/set_parameters` and `~/set_parameters_atomically` in the place of rclpy's.

    Args:
        node: whose services they are; before it is spun.
        set_values: takes a set as a whole or not at all.
    """

    def __init__(self, node: Node, set_values: Setter) -> None:
        self._node = node
        self._set_values = set_values
        group = ReentrantCallbackGroup()
        own = {SetParameters: self._each, SetParametersAtomically: self._together}
        for service in list(node.services):
            if service.srv_type in own:
                node.destroy_service(service)
        for kind, name in (
            (SetParameters, 'set_parameters'),
            (SetParametersAtomically, 'set_parameters_atomically'),
        ):
            node.create_service(
                kind, f'{node.get_name()}/{name}', own[kind],
                qos_profile=qos_profile_parameters, callback_group=group,
            )  # fmt: skip

    async def _each(self, request: Any, response: Any) -> Any:
        for message in request.parameters:
            response.results.append(await self._set([message]))
        return response

    async def _together(self, request: Any, response: Any) -> Any:
        response.result = await self._set(request.parameters)
        return response

    async def _set(self, items: Any) -> SetParametersResult:
        try:
            return await self._set_values([_parameter(item) for item in items])
        except ConfigError as error:
            reason = str(error)
        except ParameterNotDeclaredException:  # which does not name it on every distribution
            unknown = [item.name for item in items if not self._node.has_parameter(item.name)]
            reason = f'unknown parameter {", ".join(map(repr, unknown))}'
        self._node.get_logger().warning(f'Failed to set parameters: {reason}')
        return SetParametersResult(successful=False, reason=reason)


def _parameter(message: Any) -> Parameter:
    try:
        return Parameter.from_parameter_msg(message)
    except ValueError as error:
        kind = message.value.type
        raise ConfigError(f'{message.name}: parameters have no type {kind}') from error
