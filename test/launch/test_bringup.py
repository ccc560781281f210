"""Retries of the bring-up, with nodes that are no processes."""

from __future__ import annotations

import asyncio
import itertools

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.nodes import bringup

PAUSE_S = 0.3


class Broken(bringup.Node):
    """A node that refuses to configure."""

    def connect(self, ros):
        self.tried = getattr(self, 'tried', [])

    def disconnect(self, ros):
        pass

    async def state(self, limit_s):
        return 'unconfigured'

    async def change(self, transition, before, after):
        self.tried.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1)
        return False


def test_news_of_other_nodes_do_not_shorten_the_pause_between_two_tries(monkeypatch):
    monkeypatch.setattr(bringup, 'Node', Broken)
    monkeypatch.setattr(bringup, 'POLL_S', 0.01)

    async def scene():
        made = bringup.BringUp([('/a', None), ('/b', None)], attempts=3, pause_s=PAUSE_S)
        first, second = made._nodes
        running = asyncio.create_task(made._wait_for_news(None))
        made._started(first)
        await asyncio.sleep(0.05)  # the first is being configured
        made._started(second)
        while min(len(getattr(node, 'tried', [])) for node in made._nodes) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(PAUSE_S + 0.1)
        running.cancel()
        return first.tried, second.tried

    for tried in asyncio.run(asyncio.wait_for(scene(), 20.0)):
        assert len(tried) == 3
        assert min(b - a for a, b in itertools.pairwise(tried)) >= PAUSE_S
