"""The two queues that jobs pass: the node's, and the one inside the worker."""

from __future__ import annotations

import threading

import pytest
import trio
from ipfs_accel_node.node.serving.job_queue import JobQueue
from ipfs_accel_node.node.serving.scheduler import TicketState
from ipfs_accel_node.node.serving.worker_queue import MOST_WAITING, Work, WorkQueue
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode


class Turns:
    """Jobs that note when their turn came."""

    def __init__(self, available=True):
        self.available = available
        self.queue = JobQueue(lambda: self.available)
        self.had: list[int] = []

    async def one(self, number):
        ticket = self.queue.admit(1.0)
        try:
            await self.queue.turn(ticket)
            self.had.append(number)
            await trio.sleep(1)
        finally:
            self.queue.leave(ticket)


async def test_turns_come_in_order_two_at_a_time(autojump_clock):
    turns = Turns()
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(turns.one, number)
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(turns.had) == [0, 1]
        assert turns.queue.scheduler.wait_s() == 6.0
    # Both of a pair may go at once, and trio wakes them in any order.
    assert [sorted(turns.had[place : place + 2]) for place in (0, 2, 4)] == [[0, 1], [2, 3], [4, 5]]
    assert turns.queue.scheduler.length == 0


async def test_one_that_leaves_is_passed_over(autojump_clock):
    turns = Turns(available=False)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            await turns.one(0)
        nursery.start_soon(turns.one, 1)
        await trio.testing.wait_all_tasks_blocked()
        turns.available = True
        turns.queue.advance()
    assert turns.had == [1]
    counts = turns.queue.scheduler.counts
    assert (counts.admitted, counts.abandoned, counts.finished) == (2, 1, 1)


async def test_closing_tells_those_who_wait_and_those_who_come(autojump_clock):
    turns = Turns(available=False)
    codes = []

    async def one():
        with pytest.raises(AccelError) as caught:
            await turns.one(0)
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        turns.queue.close(lambda: AccelError(ErrorCode.NO_BACKEND, "it is gone"))
    await one()
    assert codes == ["no-backend", "no-backend"]
    assert turns.queue.scheduler.length == 0


async def test_a_ticket_handed_out_while_its_caller_leaves_is_given_back(autojump_clock):
    turns = Turns(available=False)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.one, 0)
            await trio.testing.wait_all_tasks_blocked()
            turns.available = True
            turns.queue.advance()
            scope.cancel()
    assert turns.queue.scheduler.length == 0
    assert turns.queue.admit(0.0).state is TicketState.QUEUED


def make_work(request_id):
    return Work(request_id, lambda: None)


def test_cancelled_work_is_dropped_where_it_waits_and_told_where_it_runs():
    queue = WorkQueue()
    running, waiting, other = make_work(1), make_work(3), make_work(5)
    assert all(queue.put(each) for each in (running, waiting, other))
    assert queue.take() is running
    queue.cancel(3)
    queue.cancel(1)
    assert (running.cancelled, waiting.cancelled) == (True, False)
    queue.done(running)
    assert queue.take() is other


def test_released_is_answered_when_the_work_is_over_or_at_once_where_there_is_none():
    queue, answers = WorkQueue(), []
    work = make_work(1)
    queue.put(work)
    queue.take()
    queue.when_released(1, lambda: answers.append("one"))
    queue.when_released(3, lambda: answers.append("three"))
    assert answers == ["three"]
    queue.done(work)
    assert answers == ["three", "one"]


def test_the_workers_queue_is_bounded():
    queue = WorkQueue()
    assert [queue.put(make_work(number)) for number in range(MOST_WAITING + 1)] == [True] * MOST_WAITING + [False]


def test_taking_waits_for_work():
    queue, taken = WorkQueue(), []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    work = make_work(1)
    queue.put(work)
    thread.join(5)
    assert taken == [work]
