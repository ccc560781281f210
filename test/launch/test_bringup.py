"""Retries of the bring-up, with nodes that are no processes."""

from __future__ import annotations

import asyncio
import itertools

import pytest

pytest.importorskip('rclpy', reason='needs a sourced ROS 2')

from airside_perception.nodes import bringup
from airside_perception.nodes.opening import BUSY

PAUSE_S = 0.3


async def drive(made):
    """Every node by itself, as in a launch."""
    await asyncio.gather(*(made._drive(node, None) for node in made._nodes))


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
        running = asyncio.create_task(drive(made))
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


class Moody(Broken):
    """A node that refuses with one reason after another, and then with the last for ever."""

    reasons = ()
    bringup = None

    async def change(self, transition, before, after):
        self.tried.append(asyncio.get_running_loop().time())
        reason = self.reasons[min(len(self.tried), len(self.reasons)) - 1]
        if not reason:
            return True
        self.bringup._errors[self.name] = reason
        return False


def tries(monkeypatch, reasons, seconds):
    """How often a node with these reasons is tried, in that many seconds."""
    monkeypatch.setattr(bringup, 'Node', Moody)
    monkeypatch.setattr(bringup, 'POLL_S', 0.01)
    monkeypatch.setattr(bringup, 'BUSY_PAUSE_S', 0.05)
    monkeypatch.setattr(Moody, 'reasons', reasons)

    async def scene():
        made = bringup.BringUp([('/a', None)], attempts=5, pause_s=0.05)
        monkeypatch.setattr(Moody, 'bringup', made)
        running = asyncio.create_task(drive(made))
        made._started(made._nodes[0])
        await asyncio.sleep(seconds)
        running.cancel()
        return len(made._nodes[0].tried)

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ('reasons', 'count'),
    [
        (['configure failed: no model card'], 2),
        (['configure failed: no model card', 'configure failed: no network'], 3),
        ([f'reason {number}' for number in range(9)], 5),
        (['cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory'], 5),
        (['lidar_detector: a frame from before is still in work'], 5),
    ],
)
def test_a_reason_that_comes_twice_will_come_again(monkeypatch, reasons, count):
    assert tries(monkeypatch, reasons, seconds=1.5) == count


def test_a_node_that_builds_its_engine_is_waited_for_without_being_counted(monkeypatch):
    building = [f'activate failed: x.engine {BUSY}: building {n} %' for n in (0, 0, 0, 40, 40, 60)]
    assert tries(monkeypatch, [*building, ''], seconds=1.5) > len(building)


class Moved(Broken):
    """A node that goes back to unconfigured by itself, once, when it has just been configured."""

    def connect(self, ros):
        if not hasattr(self, 'now'):
            self.now, self.asked = 'unconfigured', []

    async def state(self, limit_s):
        if self.asked == ['unconfigured -> inactive']:
            self.now = 'unconfigured'
        return self.now

    async def change(self, transition, before, after):
        assert self.now == before
        self.asked.append(f'{before} -> {after}')
        self.now = after
        return True


def test_a_node_is_activated_from_inactive_only(monkeypatch):
    monkeypatch.setattr(bringup, 'Node', Moved)

    async def scene():
        made = bringup.BringUp([('/a', None)], pause_s=0.01)
        running = asyncio.create_task(drive(made))
        made._started(made._nodes[0])
        while getattr(made._nodes[0], 'now', '') != 'active':
            await asyncio.sleep(0.01)
        running.cancel()
        return made._nodes[0]

    node = asyncio.run(asyncio.wait_for(scene(), 20.0))
    assert node.asked == [
        'unconfigured -> inactive', 'unconfigured -> inactive', 'inactive -> active',
    ]  # fmt: skip
    assert node.reason == 'it is unconfigured, not inactive'


class Paced(Broken):
    """A node with transitions that take until they are let through; all is written down."""

    log = ()

    def connect(self, ros):
        if not hasattr(self, 'gate'):
            self.gate = asyncio.Event()
            self.gate.set()
        self.now = 'unconfigured'

    async def state(self, limit_s):
        return self.now

    async def change(self, transition, before, after):
        self.log.append((self.name, f'to {after}'))
        await self.gate.wait()
        self.now = after
        self.log.append((self.name, after))
        return True


@pytest.fixture
def paced(monkeypatch):
    monkeypatch.setattr(bringup, 'Node', Paced)
    monkeypatch.setattr(bringup, 'POLL_S', 0.01)
    monkeypatch.setattr(Paced, 'log', [])
    return Paced.log


def play(scene):
    """Runs a scene with the bring-up of two nodes."""

    async def run():
        made = bringup.BringUp([('/a', None), ('/b', None)])
        for node in made._nodes:
            node.connect(None)
        running = asyncio.create_task(drive(made))
        await scene(made, *made._nodes)
        running.cancel()

    asyncio.run(asyncio.wait_for(run(), 20.0))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def test_nodes_that_start_together_are_activated_in_their_order(paced):
    async def scene(made, first, second):
        first.gate.clear()
        made._started(first)
        made._started(second)
        await until(lambda: ('/b', 'inactive') in paced)
        await until(lambda: ('/a', 'to inactive') in paced)
        first.gate.set()
        await until(lambda: ('/b', 'active') in paced)

    play(scene)
    ends = [item for item in paced if item[1] == 'active']
    assert ends == [('/a', 'active'), ('/b', 'active')]
    assert paced.index(('/a', 'active')) < paced.index(('/b', 'to active'))


async def past_one_that_hangs(made, first, second, paced):
    """Until the second node is active, while the first hangs in configure."""
    first.gate.clear()
    made._started(first)
    made._started(second)
    await until(lambda: ('/b', 'active') in paced)


def test_a_node_that_hangs_in_configure_holds_no_other(paced, monkeypatch):
    monkeypatch.setattr(bringup, 'ORDER_S', 0.05)

    async def scene(made, first, second):
        await past_one_that_hangs(made, first, second, paced)

    play(scene)
    assert ('/a', 'inactive') not in paced


def test_a_node_that_was_started_anew_waits_for_none(paced, monkeypatch):
    monkeypatch.setattr(bringup, 'ORDER_S', 0.05)

    async def scene(made, first, second):
        await past_one_that_hangs(made, first, second, paced)
        paced.clear()
        monkeypatch.setattr(bringup, 'ORDER_S', 1000.0)
        made._started(second)
        await until(lambda: ('/b', 'active') in paced)
        first.gate.set()
        await until(lambda: ('/a', 'active') in paced)

    play(scene)


def test_an_error_in_one_bring_up_ends_no_other(paced, monkeypatch):
    async def scene(made, first, second):
        def fail(ros):
            raise RuntimeError('a bug')

        first.connect = fail
        made._started(first)
        made._started(second)
        await until(lambda: ('/b', 'active') in paced)
        del first.connect
        made._started(first)
        await until(lambda: ('/a', 'active') in paced)

    play(scene)
