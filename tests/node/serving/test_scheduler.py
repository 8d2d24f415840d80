"""The queue before a backend: its order, its bounds, and that no ticket is ever lost or given out twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ipfs_accel_node.node.serving.scheduler import Refusal, Scheduler, Ticket, TicketState


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_scheduler(**settings) -> tuple[Scheduler, Clock]:
    clock = Clock()
    return Scheduler(clock, **settings), clock


def admit(scheduler: Scheduler, predicted_s: float = 1.0, remaining_s: float = 1e9) -> Ticket:
    ticket = scheduler.admit(predicted_s, remaining_s)
    assert isinstance(ticket, Ticket)
    ticket.eligible = True
    return ticket


def test_the_wait_is_what_those_before_are_predicted_to_take():
    scheduler, clock = make_scheduler()
    first, second = admit(scheduler, 2.0), admit(scheduler, 3.0)
    assert (first.queue_length, first.expected_wait_s) == (0, 0.0)
    assert (second.queue_length, second.expected_wait_s) == (1, 2.0)
    assert scheduler.hand_out() == [first, second]
    scheduler.started(first)
    clock.now += 1.5
    assert scheduler.wait_s() == pytest.approx(3.5)
    scheduler.finish(first)
    assert scheduler.wait_s() == 3.0


def test_a_job_of_absurd_work_is_waited_for_no_longer_than_its_own_deadline():
    scheduler, _ = make_scheduler()
    admit(scheduler, 1e12, remaining_s=30.0)
    assert scheduler.wait_s() == 30.0


def test_a_job_that_overruns_is_not_predicted_to_end_at_once():
    scheduler, clock = make_scheduler()
    slow = admit(scheduler, 1.0)
    scheduler.hand_out()
    scheduler.started(slow)
    clock.now += 40
    assert scheduler.wait_s() == pytest.approx(10)


def test_only_two_are_in_hand_and_they_go_in_order():
    scheduler, _ = make_scheduler()
    tickets = [admit(scheduler) for _ in range(5)]
    assert scheduler.hand_out() == tickets[:2]
    assert scheduler.hand_out() == []
    scheduler.finish(tickets[1])
    assert scheduler.hand_out() == [tickets[2]]


def test_a_job_whose_inputs_are_not_here_holds_nobody_up():
    scheduler, _ = make_scheduler()
    slow_to_arrive, other = admit(scheduler), admit(scheduler)
    slow_to_arrive.eligible = False
    assert scheduler.hand_out() == [other]
    slow_to_arrive.eligible = True
    assert scheduler.hand_out() == [slow_to_arrive]


@pytest.mark.parametrize(
    ("queued", "remaining_s", "code"), [(3, 1e9, "busy"), (2, 1.9, "busy"), (0, 0.0, "deadline-exceeded")]
)
def test_refusals(queued, remaining_s, code):
    scheduler, _ = make_scheduler(capacity=3)
    for _ in range(queued):
        admit(scheduler, 1.0)
    refusal = scheduler.admit(0.1, remaining_s)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert scheduler.length == queued


def test_a_ticket_that_comes_back_has_its_old_place():
    scheduler, _ = make_scheduler()
    first, second, third = (admit(scheduler) for _ in range(3))
    scheduler.hand_out()
    scheduler.finish(first)
    scheduler.requeue(second)
    assert scheduler.hand_out() == [second, third]


def test_a_lingering_one_keeps_its_slot_until_the_worker_is_free_of_it():
    scheduler, _ = make_scheduler(in_hand=1)
    left, waiting = admit(scheduler), admit(scheduler)
    scheduler.hand_out()
    scheduler.linger(left)
    assert scheduler.hand_out() == []
    scheduler.finish(left)
    assert scheduler.hand_out() == [waiting]


def test_nothing_is_handed_out_while_the_worker_is_away():
    scheduler, _ = make_scheduler(paused=True)
    ticket = admit(scheduler)
    assert scheduler.hand_out() == []
    scheduler.paused = False
    assert scheduler.hand_out() == [ticket]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, every ticket is counted once and an abandoned one never comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.scheduler = Scheduler(self.clock, capacity=4)
        self.live: list[Ticket] = []
        self.over: set[int] = set()
        self.kept: list[Ticket] = []

    @rule(predicted=st.floats(0, 10), remaining=st.floats(-1, 100), eligible=st.booleans())
    def admit(self, predicted, remaining, eligible):
        answer = self.scheduler.admit(predicted, remaining)
        if isinstance(answer, Ticket):
            answer.eligible = eligible
            self.live.append(answer)
            self.kept.append(answer)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule()
    def hand_out(self):
        turns = self.scheduler.hand_out()
        assert not self.over & {id(each) for each in turns}
        assert all(each.eligible and each.state is TicketState.HANDED for each in turns)

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.scheduler.paused = paused

    @precondition(lambda self: self.live)
    @rule(data=st.data(), what=st.sampled_from(["started", "requeue", "linger", "finish", "eligible"]))
    def happen(self, data, what):
        ticket = data.draw(st.sampled_from(self.live))
        if what == "eligible":
            ticket.eligible = True
            return
        getattr(self.scheduler, what)(ticket)
        if what == "finish":
            self.scheduler.finish(ticket)
            self.live.remove(ticket)
            self.over.add(id(ticket))

    @invariant()
    def conserved(self):
        counts = self.scheduler.counts
        assert counts.admitted == counts.finished + counts.abandoned + self.scheduler.length
        assert self.scheduler.length == len(self.live)
        assert self.scheduler.queued <= 4 + 2
        in_hand = [each for each in self.live if each.state not in (TicketState.QUEUED, TicketState.GONE)]
        assert len(in_hand) <= 2
        assert self.scheduler.wait_s() >= 0


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
