"""The queue before one backend: who may go next, how long a newcomer will wait, and when to say no. Pure.

    QUEUED ──hand_out──► HANDED ──started──► COMPUTING ──finish──► gone
      │  ▲                  │                    │
      │  └─────requeue──────┤                    └──linger──► LINGERING ──finish──► gone
      └──abandon──► gone    └──linger──► LINGERING

First come, first served. At most `in_hand` tickets are with the worker, one computing and one waiting there, so
that it never idles for a round trip. A lingering ticket is one whose caller left while the worker was at it: it
keeps its place until the worker is free of it. An abandoned ticket is never handed out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import Final

CAPACITY: Final = 64
IN_HAND: Final = 2
#: What has overrun its prediction is taken to need this part of its elapsed time again.
_OVERRUN: Final = 0.25


class TicketState(Enum):
    QUEUED = auto()
    HANDED = auto()
    COMPUTING = auto()
    LINGERING = auto()
    GONE = auto()


@dataclass(eq=False)
class Ticket:
    """A place in the queue. `eligible` says that all it needs is here, so that it may be handed out.

    Attributes:
        predicted_s: the seconds that it is thought to compute, loading its model included.
        queue_length: how many were before it when it was admitted.
        expected_wait_s: how long they were thought to take then.
    """

    predicted_s: float
    queue_length: int
    expected_wait_s: float
    eligible: bool = False
    state: TicketState = TicketState.QUEUED
    started_at: float | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a job is not taken: `code` busy, or deadline-exceeded when no time is left at all."""

    code: str
    message: str


@dataclass
class Counts:
    """What came in is what went out and what is here."""

    admitted: int = 0
    finished: int = 0
    abandoned: int = 0
    refused: int = 0


_IN_HAND: Final = frozenset({TicketState.HANDED, TicketState.COMPUTING, TicketState.LINGERING})


@dataclass
class Scheduler:
    """The tickets of one backend. `paused` while its worker cannot take any."""

    clock: Callable[[], float]
    capacity: int = CAPACITY
    in_hand: int = IN_HAND
    paused: bool = False
    counts: Counts = field(default_factory=Counts)
    _tickets: dict[int, Ticket] = field(default_factory=dict)

    def admit(self, predicted_s: float, remaining_s: float = inf) -> Ticket | Refusal:
        """A ticket, or why there is none. Decided at once, and true until the next call."""
        refusal = self._refusal(remaining_s)
        if refusal is not None:
            self.counts.refused += 1
            return refusal
        # No job computes for longer than its own deadline, whatever work its caller says it is.
        ticket = Ticket(min(max(0.0, predicted_s), remaining_s), len(self._tickets), self.wait_s())
        # Their order of admission is the order of the dictionary, also for a ticket that comes back.
        self._tickets[id(ticket)] = ticket
        self.counts.admitted += 1
        return ticket

    def hand_out(self) -> list[Ticket]:
        """Those whose turn it is now; each is given out once."""
        if self.paused:
            return []
        room = self.in_hand - sum(each.state in _IN_HAND for each in self._tickets.values())
        waiting = [each for each in self._tickets.values() if each.state is TicketState.QUEUED and each.eligible]
        turns = waiting[: max(0, room)]
        for ticket in turns:
            ticket.state = TicketState.HANDED
        return turns

    def started(self, ticket: Ticket) -> None:
        """The worker has begun with it."""
        if ticket.state is TicketState.HANDED:
            ticket.state, ticket.started_at = TicketState.COMPUTING, self.clock()

    def requeue(self, ticket: Ticket) -> None:
        """The worker died before it began with this one: it takes its old place again."""
        if ticket.state is TicketState.HANDED:
            ticket.state = TicketState.QUEUED

    def linger(self, ticket: Ticket) -> None:
        """Its caller left, the worker may still be at it."""
        if ticket.state in (TicketState.HANDED, TicketState.COMPUTING):
            ticket.state = TicketState.LINGERING

    def finish(self, ticket: Ticket) -> None:
        """It is over, however it ended. Says nothing of one that is gone already."""
        if ticket.state is TicketState.GONE:
            return
        if ticket.state is TicketState.QUEUED:
            self.counts.abandoned += 1
        else:
            self.counts.finished += 1
        ticket.state = TicketState.GONE
        del self._tickets[id(ticket)]

    def wait_s(self) -> float:
        """Seconds until a job that came now would begin, as far as predictions hold."""
        return sum((self._remaining_s(each) for each in self._tickets.values()), 0.0)

    @property
    def length(self) -> int:
        """Jobs that wait or compute."""
        return len(self._tickets)

    @property
    def queued(self) -> int:
        """Jobs that were not handed out yet."""
        return sum(each.state is TicketState.QUEUED for each in self._tickets.values())

    def _refusal(self, remaining_s: float) -> Refusal | None:
        if remaining_s <= 0:
            return Refusal("deadline-exceeded", "the job came with no time left")
        if self.queued >= self.capacity:
            return Refusal("busy", f"{self.capacity} jobs wait here already")
        # Another node may have a shorter queue, so this is no deadline-exceeded, which would end the job.
        if (wait := self.wait_s()) >= remaining_s:
            return Refusal("busy", f"it would wait {wait:.1f} s here and has {remaining_s:.1f} s left")
        return None

    def _remaining_s(self, ticket: Ticket) -> float:
        if ticket.started_at is None:
            return ticket.predicted_s
        elapsed = self.clock() - ticket.started_at
        return max(ticket.predicted_s - elapsed, _OVERRUN * elapsed)
