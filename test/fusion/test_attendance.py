from __future__ import annotations

import pytest

from airside_perception.fusion.attendance import MESSAGES, SETS, Register

MS = 1_000_000


def drive(sets: int, *, offset: int = 0, delay: int = 0, every: int = 1, taken=lambda k: True):
    """A lidar at 10 Hz that makes sets, and a camera beside it; milliseconds."""
    register = Register(('lidar', 'front'))
    for k in range(sets):
        at = 100 * k
        register.heard('lidar', at * MS, (at + 30) * MS)
        if k % every == 0:
            register.heard('front', (at + offset) * MS, (at + 30 + delay) * MS)
        register.made(at * MS, 'lidar', ('lidar', 'front') if taken(k) else ('lidar',))
    return register.attendance('front')


@pytest.mark.parametrize(('offset', 'near'), [(45, 45), (-30, -30), (80, -20)])
def test_offsets_are_those_of_the_nearest_message(offset, near) -> None:
    seen = drive(30, offset=offset, delay=12, taken=lambda k: False)
    assert (seen.sets, seen.taken, seen.share) == (SETS, 0, 0.0)
    assert seen.expected >= SETS - 1
    assert seen.offset_ns == near * MS
    assert seen.delay_ns == (12 if near == offset else -88) * MS


def test_a_slow_source_can_be_in_as_many_sets_as_it_sends_messages() -> None:
    seen = drive(31, every=5, taken=lambda k: k % 5 == 0)
    assert (seen.taken, seen.expected, seen.share) == (4, 4, 1.0)


def test_a_late_source_shows_its_delay() -> None:
    seen = drive(30, delay=120, taken=lambda k: False)
    assert (seen.share, seen.offset_ns, seen.delay_ns) == (0.0, 0.0, 120 * MS)


def test_before_the_first_set_there_is_nothing_to_tell() -> None:
    register = Register(('lidar', 'front'))
    assert register.attendance('front') is None
    register.heard('lidar', 0, 0)
    register.made(0, 'lidar', ('lidar',))
    assert register.attendance('front') is None
    assert register.attendance('lidar').share == 1.0


def test_what_is_remembered_is_bounded() -> None:
    register = Register(('lidar',))
    for k in range(2 * MESSAGES):
        register.heard('lidar', k, k)
        register.made(k, 'lidar', ('lidar',))
    register.made(0, 'lidar', ('lidar',))  # of a message that is forgotten
    assert register.attendance('lidar').sets == SETS
    assert len(register._messages['lidar']) == MESSAGES
