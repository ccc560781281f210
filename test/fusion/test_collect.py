from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside_perception.errors import ConfigError, MessageError
from airside_perception.fusion import Collector
from airside_perception.fusion.collect import Added

MS = 1_000_000
SOURCES = ('lidar', 'front', 'left')


def collector(sources=SOURCES, **changes) -> Collector[str]:
    values = {'deadline': 50, 'slop': 40, 'silence': 300, 'queue': 0, 'queue_size': 10, **changes}
    return Collector(
        sources,
        **{
            f'{name}_ns': values.pop(name) * MS
            for name in ('deadline', 'slop', 'silence', 'queue')
        },
        **values,
    )


def feed(item: Collector[str], *messages: tuple[str, int, int]) -> list[Added]:
    """Adds (source, stamp in ms, arrival in ms); the message is its source and stamp."""
    return [item.add(s, stamp * MS, f'{s} {stamp}', at * MS) for s, stamp, at in messages]


def flush(item: Collector[str], at: int) -> list[tuple[int, list[str], tuple[str, ...]]]:
    return [told(found) for found in item.flush(at * MS)]


def told(found) -> tuple[int, list[str], tuple[str, ...]]:
    return found.stamp_ns // MS, list(found.messages.values()), found.missing


def complete(item: Collector[str], **stamps: int):
    return item.complete({n: (ms * MS, f'{n} {ms}') for n, ms in stamps.items()})


def test_what_is_missing_is_waited_for_until_the_deadline() -> None:
    item = collector()
    feed(item, ('front', 0, 5), ('lidar', 0, 20))
    assert flush(item, 69) == []
    assert flush(item, 70) == [(0, ['lidar 0', 'front 0'], ('left',))]
    assert flush(item, 500) == []
    assert item.counts == {'incomplete': 1, 'missing.left': 1, **unused(lidar=0, front=0, left=0)}


def unused(**counts: int) -> dict[str, int]:
    return {f'unused.{name}': number for name, number in counts.items()}


def test_a_late_message_is_stale_and_not_taken_for_the_next_set() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('front', 0, 0))
    assert len(flush(item, 50)) == 1
    assert feed(item, ('left', 0, 60), ('left', 100, 110)) == [Added.STALE, Added.KEPT]
    assert item.counts['stale.left'] == 1
    feed(item, ('lidar', 100, 120), ('front', 100, 120))
    assert flush(item, 170) == [(100, ['lidar 100', 'front 100', 'left 100'], ())]


def test_a_late_message_a_little_newer_than_its_set_is_stale_too() -> None:
    item = collector()
    feed(item, ('left', -90, -80), ('lidar', 0, 0), ('front', 0, 0))
    assert len(flush(item, 50)) == 1
    assert feed(item, ('left', 10, 60), ('front', 60, 60)) == [Added.STALE, Added.KEPT]


def test_sets_of_the_synchroniser_are_made_once() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('front', 2, 0), ('left', 4, 0))
    assert flush(item, 10) == []  # complete: the synchroniser's
    first = complete(item, lidar=0, front=2, left=4)
    assert told(first) == (0, ['lidar 0', 'front 2', 'left 4'], ())
    assert complete(item, lidar=0, front=2, left=4) is None
    assert flush(item, 1000) == []
    assert item.counts['complete'] == 1


def test_a_flushed_message_is_in_no_set_of_the_synchroniser() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('front', 0, 0))
    assert len(flush(item, 50)) == 1
    feed(item, ('left', 30, 60))
    assert complete(item, lidar=0, front=0, left=30) is None
    feed(item, ('lidar', 100, 100), ('front', 100, 100), ('left', 100, 100))
    assert complete(item, lidar=100, front=0, left=100) is None
    assert complete(item, lidar=100, front=100, left=100) is not None


def test_at_the_deadline_a_set_that_no_synchroniser_made_goes_out() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('front', 0, 10), ('left', 0, 20))
    assert flush(item, 50) == [(0, ['lidar 0', 'front 0', 'left 0'], ())]
    assert complete(item, lidar=0, front=0, left=0) is None


def test_a_set_older_than_the_last_is_not_made() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('lidar', 100, 100))
    assert complete(item, lidar=100, front=100, left=100) is not None
    assert complete(item, lidar=0, front=0, left=0) is None
    assert item.counts['unused.lidar'] == 1  # overtaken


def test_a_set_has_one_message_of_every_source() -> None:
    with pytest.raises(MessageError, match='expected'):
        complete(collector(), lidar=0, front=0)


def test_the_nearest_message_within_the_slop_is_taken() -> None:
    item = collector()
    feed(item, ('front', 40, 41), ('front', 73, 74), ('front', 106, 107), ('front', 139, 140))
    feed(item, ('left', 50, 51), ('lidar', 100, 150))
    assert flush(item, 200) == [(100, ['lidar 100', 'front 106'], ('left',))]
    assert item.counts['unused.front'] == 2
    assert item.counts['unused.left'] == 1


def test_a_camera_faster_than_the_lidar_does_not_pace() -> None:
    item = collector(('lidar', 'front'))
    made = []
    for ms in range(0, 400, 33):
        feed(item, ('front', ms, ms))
        if ms % 99 == 0:
            feed(item, ('lidar', ms, ms))
        made += flush(item, ms)
        made += flush(item, ms + 16)
    made += flush(item, 500)
    assert [stamp for stamp, *_ in made] == [0, 99, 198, 297, 396]
    assert all(not missing for *_, missing in made)


def test_a_source_that_was_killed_is_missed_and_then_not_waited_for() -> None:
    item = collector()
    made = []
    for k in range(12):
        now = 100 * k
        live = SOURCES if k < 3 or k > 8 else SOURCES[:2]
        feed(item, *((s, now, now + 5) for s in live))
        found = flush(item, now + 5)
        if len(live) == 3 and not found:
            assert complete(item, **dict.fromkeys(SOURCES, now)) is not None
            continue
        late = flush(item, now + 60)
        made.append((k, len(found), len(late)))
    # at first at the deadline, then, when it has been silent for 300 ms, at once
    assert made == [(3, 0, 1), (4, 0, 1), (5, 0, 1), (6, 1, 0), (7, 1, 0), (8, 1, 0)]
    assert item.counts['missing.left'] == 6


def test_without_the_lidar_the_next_in_rank_paces_after_a_while() -> None:
    item = collector(('lidar', 'front', 'left'))
    made = []
    for k in range(8):
        now = 100 * k
        feed(item, *((s, now, now) for s in (SOURCES if k < 2 else SOURCES[1:])))
        made += [told(found) for found in item.flush((now + 60) * MS)]
    assert [stamp for stamp, *_ in made] == [0, 100, 200, 300, 400, 500, 600, 700]
    assert made[1][2] == ()
    assert made[2][2] == ('lidar',)
    assert item.counts['missing.lidar'] == 6


def test_at_the_start_all_are_waited_for() -> None:
    item = collector(complete_sets=True)
    feed(item, ('front', 0, 0), ('left', 0, 10))
    assert flush(item, 55) == []
    feed(item, ('lidar', 0, 60))
    assert flush(item, 60) == [(0, ['lidar 0', 'front 0', 'left 0'], ())]


def test_sources_that_fall_silent_leave_nothing_behind() -> None:
    item = collector(('lidar', 'front'))
    feed(item, ('front', 0, 0))
    assert flush(item, 1000) == [(0, ['front 0'], ('lidar',))]
    assert flush(item, 2000) == []


def test_a_source_that_was_passed_over_is_not_waited_for() -> None:
    item = collector(('lidar', 'front'))
    feed(item, ('lidar', 0, 0), ('front', 100, 10))
    assert flush(item, 10) == [(0, ['lidar 0'], ('front',))]


@pytest.mark.parametrize(
    ('before', 'due'), [((-100, -5), True), ((-200, -30), True), ((-35, -20), False)]
)
def test_a_complete_set_is_due_when_nothing_nearer_can_come(before, due) -> None:
    item = collector(('lidar', 'front'), complete_sets=True)
    feed(item, *(('front', ms, ms) for ms in before), ('lidar', 0, 1))
    assert len(flush(item, 2)) == due  # a camera that sends every 15 ms has a nearer one soon


def test_a_clock_or_a_stamp_that_jumps_back_clears_everything() -> None:
    item = collector()
    feed(item, ('lidar', 5000, 10), ('front', 5000, 10))
    assert feed(item, ('lidar', 100, 20)) == [Added.RESET]
    assert item.counts['resets'] == 1
    assert flush(item, 70) == [(100, ['lidar 100'], ('front', 'left'))]
    feed(item, ('lidar', 200, 5000))
    assert feed(item, ('lidar', 300, 100)) == [Added.RESET]
    assert flush(item, 151) == [(300, ['lidar 300'], ('front', 'left'))]


def test_disorder_is_not_a_jump() -> None:
    item = collector(('lidar',))
    assert feed(item, ('lidar', 100, 0), ('lidar', 0, 1)) == [Added.KEPT, Added.KEPT]
    assert [stamp for stamp, *_ in flush(item, 60)] == [0, 100]
    assert feed(item, ('lidar', 50, 70)) == [Added.STALE]


def test_the_queue_is_bounded() -> None:
    item = collector(('lidar', 'front'), queue_size=3)
    feed(item, *(('front', ms, 0) for ms in (0, 10, 20, 30)))
    assert item.counts['unused.front'] == 1
    feed(item, ('lidar', 0, 1))
    assert flush(item, 51)[0][1] == ['lidar 0', 'front 10']


def drive(item: Collector[str], until: int, **messages: list[tuple[int, int]]) -> list:
    """(time, stamp, sources) of sets, looked for every 5 ms; of (stamp, arrival) by source."""
    events = sorted((at, name, ms) for name, found in messages.items() for ms, at in found)
    made = []
    for now in range(0, until, 5):
        while events and events[0][0] <= now:
            _, name, ms = events.pop(0)
            feed(item, (name, ms, now))
        made += [(now, g.stamp_ns // MS, tuple(g.messages)) for g in item.flush(now * MS)]
    return made


def every(period: int, start: int = 0, end: int = 3000, *, late: int = 0) -> list[tuple[int, int]]:
    """(stamp, arrival) of a source, milliseconds."""
    return [(ms, ms + late) for ms in range(start, end, period)]


def test_what_came_lately_waits_for_a_lidar_that_takes_long() -> None:
    lidar, front = every(100, late=450), every(33, late=20)
    short = collector(('lidar', 'front'), silence=1000, complete_sets=True)
    assert {sources for *_, sources in drive(short, 3000, lidar=lidar, front=front)} == {
        ('lidar',)
    }
    item = collector(('lidar', 'front'), silence=1000, queue=1000, complete_sets=True)
    made = drive(item, 3000, lidar=lidar, front=front)
    assert len(made) == 26
    assert all(sources == ('lidar', 'front') for *_, sources in made)
    assert item.attendance('front').share == 1.0
    assert item.attendance('front').delay_ns < -400 * MS


def test_a_queue_of_a_duration_is_bounded_all_the_same() -> None:
    item = collector(('lidar', 'front'), queue_size=3, queue=1000)
    feed(item, *(('front', ms, ms) for ms in range(100)))
    assert len(item._waiting['front']) == 30
    assert item.counts['unused.front'] == 70
    feed(item, ('front', 2000, 2000))
    assert len(item._waiting['front']) == 3


def test_a_camera_that_fits_no_set_is_known_by_its_offset() -> None:
    item = collector(('lidar', 'front'), silence=1000)
    made = drive(item, 3000, lidar=every(100, late=30), front=every(100, 50, late=20))
    assert all(sources == ('lidar',) for *_, sources in made)
    seen = item.attendance('front')
    assert (seen.taken, seen.share, abs(seen.offset_ns)) == (0, 0.0, 50 * MS)


def test_a_lidar_whose_stamps_stand_still_stops_nobody_else() -> None:
    item = collector(('lidar', 'front'))
    frozen = [(0, at) for at in range(0, 3000, 100)]
    made = drive(item, 3000, lidar=frozen, front=every(100))
    assert [stamp for _, stamp, _ in made] == list(range(0, 3000, 100))
    assert item.counts['repeated.lidar'] == 29
    assert item.still_ns('lidar') == 2900 * MS
    assert item.still_ns('front') == 0


def test_when_the_lidar_dies_the_cameras_go_on_at_once_and_back_when_it_returns() -> None:
    item = collector(('lidar', 'front'), silence=1000, complete_sets=True)
    lidar = [*every(100, 0, 1000, late=30), *every(100, 3000, 3500, late=30)]
    made = drive(item, 4000, lidar=lidar, front=every(100, 0, 4000, late=20))
    stamps = [stamp for _, stamp, _ in made]
    assert stamps == list(range(0, 4000, 100))
    ages = [now - stamp for now, stamp, _ in made]
    assert ages[:10] == [30] * 10
    assert max(ages) == 80  # the lidar's own 30 and the deadline
    alone = [stamp for _, stamp, sources in made if sources == ('front',)]
    # one set more than the lidar was away: while it counted as silent nobody waited for it
    assert alone == [*range(1000, 3100, 100), *range(3500, 4000, 100)]
    assert item.counts['unused.front'] == 0


@pytest.mark.parametrize('late', [30, 450])
def test_a_scan_that_is_lost_costs_one_set_and_no_other_scan(late) -> None:
    item = collector(('lidar', 'front'), silence=1000, queue=1000, complete_sets=True)
    lidar = [(ms, at) for ms, at in every(100, late=late) if ms != 1500]
    made = drive(item, 3000, lidar=lidar, front=every(100, late=20))
    alone = [(now, stamp) for now, stamp, sources in made if sources == ('front',)]
    assert alone == [(1500 + late + 50, 1500)]
    assert item.counts['stale.lidar'] == 0


def test_a_scan_that_is_late_comes_after_its_set() -> None:
    item = collector(('lidar', 'front'), silence=1000, complete_sets=True)
    lidar = [(ms, at + 90 * (ms == 1500)) for ms, at in every(100, late=30)]
    made = drive(item, 3000, lidar=lidar, front=every(100, late=20))
    assert [stamp for _, stamp, _ in made] == list(range(0, 3000, 100))
    assert [stamp for _, stamp, sources in made if sources == ('front',)] == [1500]
    assert item.counts['stale.lidar'] == 1


def test_a_lidar_that_is_never_regular_is_given_the_time_that_it_takes() -> None:
    item = collector(('lidar', 'front'), silence=1000, complete_sets=True)
    lidar = [(ms, ms + 30) for ms in range(0, 3000, 100) if ms % 500 in (0, 100, 300)]
    made = drive(item, 3000, lidar=lidar, front=every(100, late=20))
    alone = [stamp for _, stamp, sources in made if sources == ('front',)]
    assert alone == [200]  # the first time
    assert len(made) == len(lidar) + 1


def test_when_all_but_the_last_die_each_stands_in_for_those_above() -> None:
    item = collector(silence=1000, complete_sets=True)
    ends = {'lidar': 500, 'front': 600, 'left': 2000}
    made = drive(item, 2100, **{name: every(100, 0, end, late=9) for name, end in ends.items()})
    assert [stamp for _, stamp, _ in made] == list(range(0, 2000, 100))
    assert max(now - stamp for now, stamp, _ in made) < 200


def test_messages_of_one_stamp_are_one_message() -> None:
    item = collector(('lidar', 'front'))
    assert feed(item, ('lidar', 0, 0), ('lidar', 0, 1)) == [Added.KEPT, Added.STALE]
    assert item.still_ns('lidar') == 1 * MS
    feed(item, ('lidar', 100, 100))
    assert item.still_ns('lidar') == 0


def test_a_lidar_with_another_clock_does_not_hold_up_the_cameras() -> None:
    item = collector(('lidar', 'front'))
    slow = [(ms - 500_000, ms) for ms in range(1000, 3000, 100)]
    made = drive(item, 3000, lidar=slow, front=every(100))
    assert [stamp for _, stamp, _ in made] == list(range(0, 3000, 100))
    assert item.attendance('lidar').offset_ns < -499_000 * MS


def test_the_end_of_a_recording_drains_what_waits() -> None:
    item = collector()
    feed(item, ('lidar', 0, 0), ('front', 0, 0), ('front', 100, 100), ('left', 200, 200))
    assert [told(found) for found in item.drain()] == [
        (0, ['lidar 0', 'front 0'], ('left',)),
        (100, ['front 100'], ('lidar', 'left')),
        (200, ['left 200'], ('lidar', 'front')),
    ]
    assert item.drain() == []


def test_the_next_deadline() -> None:
    item = collector()
    assert item.next_deadline_ns(0) is None
    feed(item, ('lidar', 0, 10), ('front', 0, 20))
    assert item.next_deadline_ns(0) == 60 * MS
    assert item.next_deadline_ns(60 * MS) == 70 * MS
    assert item.next_deadline_ns(70 * MS) == 310 * MS + 1  # then the lidar counts as silent
    assert item.next_deadline_ns(311 * MS) is None


def test_the_next_deadline_is_when_a_late_lidar_is_given_up_too() -> None:
    item = collector(('lidar', 'front'), silence=1000)
    feed(item, ('lidar', 0, 30), ('lidar', 100, 130), ('front', 200, 220))
    flush(item, 220)
    assert item.next_deadline_ns(220 * MS) == 270 * MS
    assert flush(item, 270) == []
    assert item.next_deadline_ns(270 * MS) == 280 * MS
    assert flush(item, 280) == [(200, ['front 200'], ('lidar',))]


def test_wrong_sources() -> None:
    with pytest.raises(MessageError, match='rear'):
        feed(collector(), ('rear', 0, 0))
    for sources in ((), ('a', 'a')):
        with pytest.raises(ConfigError, match='at least one'):
            collector(sources)


event = st.tuples(
    st.sampled_from(SOURCES), st.integers(-80, 80), st.integers(0, 60), st.booleans()
)


@settings(max_examples=200)
@given(st.lists(event, max_size=40), st.booleans())
def test_every_message_has_one_fate(events, complete_sets) -> None:
    item = collector(complete_sets=complete_sets, queue_size=5)
    now, kept, used, stamps, jumped = 0, [], [], [], False
    added = set()
    for source, offset, wait, flushes in events:
        now += wait
        stamp = max(now + offset, 0)
        if (source, stamp) in added:
            continue  # the same message twice is no message
        added.add((source, stamp))
        (outcome,) = feed(item, (source, stamp, now))
        jumped |= outcome is Added.RESET
        if outcome is not Added.STALE:
            kept.append(f'{source} {stamp}')
        found = item.flush(now * MS) if flushes else []
        stamps += [each.stamp_ns for each in found]
        used += [message for each in found for message in each.messages.values()]
        for each in found:
            assert set(each.missing) | set(each.messages) == set(SOURCES)
            own = [int(message.split()[1]) for message in each.messages.values()]
            assert all(abs(ms - each.stamp_ns // MS) <= 40 for ms in own)
    found = item.drain()
    stamps += [each.stamp_ns for each in found]
    used += [message for each in found for message in each.messages.values()]
    assert not jumped
    assert len(used) == len(set(used))
    assert set(used) <= set(kept)
    assert stamps == sorted(set(stamps))
    lost = sum(item.counts[f'unused.{source}'] for source in SOURCES)
    assert len(used) + lost == len(kept)
