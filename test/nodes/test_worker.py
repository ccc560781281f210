"""The worker thread, without ROS."""

from __future__ import annotations

import threading

import pytest

from airside_perception.errors import PerceptionError
from airside_perception.nodes.worker import Worker


class Log:
    def __init__(self):
        self.done, self.failed = [], []
        self.entered, self.free = threading.Semaphore(0), threading.Semaphore(0)

    def work(self, item):
        self.entered.release()
        assert self.free.acquire(timeout=5.0)
        if item == 'bad':
            raise ValueError(item)
        self.done.append(item)

    def fail(self, item, error):
        self.failed.append((item, repr(error)))


@pytest.fixture
def log():
    return Log()


def test_the_newest_item_wins(log):
    worker = Worker('test', log.work, log.fail)
    worker.start()
    assert worker.put(1) is False
    assert log.entered.acquire(timeout=5.0)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    log.free.release()
    assert log.entered.acquire(timeout=5.0)
    log.free.release()
    worker.stop()
    assert log.done == [1, 4]


def test_an_error_ends_the_item_and_not_the_thread(log):
    worker = Worker('test', log.work, log.fail)
    worker.start()
    for item in ('bad', 'good'):
        worker.put(item)
        assert log.entered.acquire(timeout=5.0)
        log.free.release()
    worker.stop()
    assert log.failed == [('bad', "ValueError('bad')")]
    assert log.done == ['good']


def test_no_second_thread_while_an_item_will_not_end(log):
    worker = Worker('test', log.work, log.fail)
    worker.start()
    worker.put('slow')
    assert log.entered.acquire(timeout=5.0)
    with pytest.raises(PerceptionError, match='did not finish'):
        worker.stop(timeout=0.01)
    with pytest.raises(PerceptionError, match='still in work'):
        worker.start()
    log.free.release()
    worker._thread.join(5.0)
    worker.stop()
    worker.start()
    worker.put('next')
    log.free.release()
    assert log.entered.acquire(timeout=5.0)
    worker.stop()
    assert log.done == ['slow', 'next']


def test_stop_finishes_the_item_in_work_and_forgets_the_waiting_one(log):
    worker = Worker('test', log.work, log.fail)
    worker.start()
    worker.put(1)
    assert log.entered.acquire(timeout=5.0)
    worker.put(2)
    with pytest.raises(
        PerceptionError, match=r'test: the frame in work did not finish within 0.01 s'
    ):
        worker.stop(timeout=0.01)
    with pytest.raises(PerceptionError, match='test: a frame from before is still in work'):
        worker.stop(timeout=1e6)  # does not wait again
    log.free.release()
    worker._thread.join(5.0)
    worker.stop()
    worker.stop()
    assert log.done == [1]
    worker.start()
    worker.put(3)
    assert log.entered.acquire(timeout=5.0)
    log.free.release()
    worker.stop()
    assert log.done == [1, 3]


def test_begin_and_end_of_every_item_are_told(log):
    begun, ended = threading.Semaphore(0), threading.Semaphore(0)
    worker = Worker('test', log.work, log.fail, begun.release, ended.release)
    worker.start()
    for item in ('good', 'bad'):
        worker.put(item)
        assert log.entered.acquire(timeout=5.0)
        assert begun.acquire(blocking=False)
        assert not ended.acquire(blocking=False)
        log.free.release()
        assert ended.acquire(timeout=5.0)
    worker.stop()
    assert len(log.failed) == len(log.done) == 1


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_what_killed_the_thread_has_begun_and_never_ends():
    told = []

    def fatal(item, error):
        raise ValueError('a bug')

    def ended():
        told.append('ended')

    worker = Worker('test', lambda item: 1 / 0, fatal, lambda: told.append('begun'), ended)
    worker.start()
    worker.put(1)
    worker._thread.join(5.0)
    assert told == ['begun']
    worker.stop()
