"""A scheduler with tasks waiting in it: who may go is told so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import trio

from ...protocols.errors import AccelError
from .scheduler import Refusal, Scheduler, Ticket, TicketState


class JobQueue:
    """The queue of one backend. Nothing is handed out while its worker is not `available`."""

    def __init__(self, available: Callable[[], bool]) -> None:
        self.scheduler = Scheduler(trio.current_time)
        self._available = available
        self._waiting: dict[Ticket, trio.Event] = {}
        self._closed: Callable[[], AccelError] | None = None

    def admit(self, predicted_s: float, remaining_s: float = inf) -> Ticket:
        """Raises AccelError busy, deadline-exceeded, or why the queue is closed."""
        if self._closed is not None:
            raise self._closed()
        answer = self.scheduler.admit(predicted_s, remaining_s)
        if isinstance(answer, Refusal):
            raise AccelError(answer.code, answer.message)
        return answer

    async def turn(self, ticket: Ticket) -> None:
        """Returns when the ticket may go to the worker. Raises AccelError when the queue was closed meanwhile."""
        ticket.eligible = True
        self.advance()
        while ticket.state is TicketState.QUEUED:
            if self._closed is not None:
                raise self._closed()
            handed = self._waiting[ticket] = trio.Event()
            try:
                await handed.wait()
            finally:
                del self._waiting[ticket]
        await trio.lowlevel.checkpoint_if_cancelled()

    def finish(self, ticket: Ticket) -> None:
        self.scheduler.finish(ticket)
        self.advance()

    def leave(self, ticket: Ticket) -> None:
        """Its caller is done with it; one that lingers is finished when the worker is free of it."""
        if ticket.state is not TicketState.LINGERING:
            self.finish(ticket)

    def requeue(self, ticket: Ticket) -> None:
        """The worker died before it came to this one."""
        self.scheduler.requeue(ticket)
        self.advance()

    def advance(self) -> None:
        """Hands out what may go now: after every change here, and when the worker is back."""
        self.scheduler.paused = not self._available()
        for ticket in self.scheduler.hand_out():
            if ticket in self._waiting:
                self._waiting[ticket].set()

    def close(self, why: Callable[[], AccelError]) -> None:
        """The backend has failed for good: all who wait are told why."""
        self._closed = why
        for event in self._waiting.values():
            event.set()

    @contextmanager
    def ticket(self, predicted_s: float) -> Iterator[Ticket]:
        """A place for work of the node's own."""
        ticket = self.admit(predicted_s)
        try:
            yield ticket
        finally:
            self.finish(ticket)
