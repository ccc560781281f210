"""`ros2 lifecycle`: list lifecycle nodes, show their states, ask for transitions."""

from __future__ import annotations

import argparse
import time
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from ros2cli.command import CommandExtension

SERVICE_TYPE = 'lifecycle_msgs/srv/GetState'
WAIT_S = 5.0


class LifecycleCommand(CommandExtension):
    """List lifecycle nodes, show and change their states."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the command line."""
        verbs = parser.add_subparsers(dest='verb', metavar='verb', required=True)
        verbs.add_parser('nodes', help='list the lifecycle nodes')
        get = verbs.add_parser('get', help='print the state of one node, or of all')
        get.add_argument('node', nargs='?')
        show = verbs.add_parser('list', help='print the transitions that a node can make now')
        show.add_argument('node')
        change = verbs.add_parser('set', help='ask a node for a transition')
        change.add_argument('node')
        change.add_argument('transition', help='configure, activate, deactivate, cleanup, ...')

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | str:
        """Carry out the verb; what is returned is the exit status or a message of failure."""
        rclpy.init()
        client = _Client()
        try:
            if args.verb == 'nodes':
                print('\n'.join(client.nodes()))
            elif args.verb == 'get':
                for name in [_absolute(args.node)] if args.node else client.nodes():
                    print(f'{name}: {client.state(name)}')
            elif args.verb == 'list':
                for label, goal in client.transitions(_absolute(args.node)):
                    print(f'{label} -> {goal}')
            else:
                return client.change(_absolute(args.node), args.transition)
        finally:
            client.close()
            rclpy.try_shutdown()
        return 0


class _Client:
    """The services that every lifecycle node offers, called one at a time."""

    def __init__(self) -> None:
        self._node = rclpy.create_node('ros2_lifecycle_cli')

    def close(self) -> None:
        self._node.destroy_node()

    def nodes(self) -> list[str]:
        """Names of the lifecycle nodes; nodes are given a second to be discovered."""
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            rclpy.spin_once(self._node, timeout_sec=0.1)
        suffix = '/get_state'
        return sorted(
            name[: -len(suffix)]
            for name, types in self._node.get_service_names_and_types()
            if SERVICE_TYPE in types and name.endswith(suffix)
        )

    def state(self, name: str) -> str:
        state = self._call(GetState, f'{name}/get_state', GetState.Request()).current_state
        return f'{state.label} [{state.id}]'

    def transitions(self, name: str) -> list[tuple[str, str]]:
        response = self._call(
            GetAvailableTransitions,
            f'{name}/get_available_transitions',
            GetAvailableTransitions.Request(),
        )
        return [(t.transition.label, t.goal_state.label) for t in response.available_transitions]

    def change(self, name: str, transition: str) -> int | str:
        possible = [label for label, _ in self.transitions(name)]
        if transition not in possible:
            return f"{name} cannot '{transition}' now; it can: {', '.join(possible)}"
        request = ChangeState.Request(transition=Transition(label=transition))
        if not self._call(ChangeState, f'{name}/change_state', request, wait_s=60.0).success:
            return f"{name} refused or failed '{transition}': {self.state(name)}"
        print(f'{name}: {self.state(name)}')
        return 0

    def _call(self, service: Any, name: str, request: Any, wait_s: float = WAIT_S) -> Any:
        client = self._node.create_client(service, name)
        try:
            if not client.wait_for_service(timeout_sec=WAIT_S):
                raise RuntimeError(f'no service {name}: is that a lifecycle node, and running?')
            future = client.call_async(request)
            rclpy.spin_until_future_complete(self._node, future, timeout_sec=wait_s)
            if not future.done():
                raise RuntimeError(f'{name} did not answer within {wait_s:g} s')
            return future.result()
        finally:
            self._node.destroy_client(client)


def _absolute(name: str) -> str:
    return name if name.startswith('/') else f'/{name}'
