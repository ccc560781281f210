"""The services that set parameters, for nodes where a setting may take seconds to take effect.

rclpy's own answer when the call returns. These are coroutines: while one waits, the executor goes
on with everything else, with one thread. They have a callback group of their own, as a callback
that waits blocks the others of its group.
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
            return await self._set_values([Parameter.from_parameter_msg(item) for item in items])
        except ParameterNotDeclaredException as error:
            self._node.get_logger().warning(f'Failed to set parameters: {error}')
            return SetParametersResult(successful=False, reason=str(error))
