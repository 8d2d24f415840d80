"""What a worker computes next, and what it looks at meanwhile."""

from __future__ import annotations

import threading

import pytest
from ipfs_accel_node.node.serving.worker_queue import Work, WorkQueue


def job(number):
    return Work(number, lambda: None, look_ahead=lambda: None)


def operation(number):
    return Work(number, lambda: None)


@pytest.fixture
def queue():
    return WorkQueue()


def in_thread(call):
    """A thread that has called it or waits in it, and what came of it."""
    came = []
    thread = threading.Thread(target=lambda: came.append(call()), daemon=True)
    thread.start()
    return thread, came


def test_the_next_job_is_looked_at_while_one_is_computed_and_taken_after_that(queue):
    first, second, third = job(1), job(2), job(3)
    for each in (first, second, third):
        queue.put(each)
    assert queue.take() is first
    assert queue.take_ahead() is second
    queue.done(first)
    thread, came = in_thread(queue.take)
    thread.join(0.05)
    assert came == []
    queue.looked_at(second)
    thread.join(5)
    assert came == [second]
    assert queue.take_ahead() is third


@pytest.mark.parametrize(("current", "waits"), [(operation, job), (job, operation)])
def test_an_operation_has_the_worker_to_itself(queue, current, waits):
    first, second = current(1), waits(2)
    queue.put(first)
    queue.put(second)
    assert queue.take() is first
    thread, came = in_thread(queue.take_ahead)
    thread.join(0.05)
    assert came == []
    queue.done(first)
    assert queue.take() is second
    assert came == []


def test_a_job_is_looked_at_once(queue):
    first, second, third = job(1), job(2), job(3)
    queue.put(first)
    queue.put(second)
    queue.take()
    queue.looked_at(queue.take_ahead())
    queue.put(third)
    thread, came = in_thread(queue.take_ahead)
    thread.join(0.05)
    assert came == []
    queue.done(first)
    assert queue.take() is second
    thread.join(5)
    assert came == [third]


def test_what_is_cancelled_while_it_is_looked_at_is_dropped_and_then_released(queue):
    first, second, third = job(1), job(2), job(3)
    for each in (first, second, third):
        queue.put(each)
    queue.take()
    assert queue.take_ahead() is second
    released = []
    queue.cancel(2)
    queue.when_released(2, lambda: released.append(2))
    assert (second.cancelled, released) == (True, [])
    queue.looked_at(second)
    assert released == [2]
    queue.done(first)
    assert queue.take() is third
    queue.when_released(2, lambda: released.append("again"))
    assert released == [2, "again"]
