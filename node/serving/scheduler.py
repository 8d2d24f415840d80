"""The queue before one backend: who is next, how long a newcomer will wait, and when to say no. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...protocols.errors import AccelError, ErrorCode

CAPACITY: Final = 64
IN_HAND: Final = 2


@dataclass(eq=False)
class Ticket:
    """A place in the queue; `predicted_s` is what the job is thought to take."""

    predicted_s: float
    started_at: float | None = None


class Scheduler:
    """First come, first served; at most `IN_HAND` jobs are with the worker."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []

    @property
    def queued(self) -> int:
        return len(self._tickets)

    def expected_wait_s(self, now: float) -> float:
        """Seconds until a job that came now would begin, as far as predictions hold."""
        return sum(
            each.predicted_s if each.started_at is None else max(0.0, each.predicted_s - (now - each.started_at))
            for each in self._tickets
        )

    def admit(self, predicted_s: float, remaining_s: float, now: float) -> Ticket:
        """Raises AccelError busy when the queue is full, or too long for the time that is left."""
        if len(self._tickets) >= CAPACITY:
            raise AccelError(ErrorCode.BUSY, f"{CAPACITY} jobs wait here already")
        if (wait := self.expected_wait_s(now)) >= remaining_s:
            raise AccelError(ErrorCode.BUSY, f"it would wait {wait:.1f} s here and has {remaining_s:.1f} s left")
        ticket = Ticket(max(0.0, predicted_s))
        self._tickets.append(ticket)
        return ticket

    def start_next(self, now: float) -> Ticket | None:
        """The next job whose turn it is, once; None while `IN_HAND` are with the worker."""
        if sum(each.started_at is not None for each in self._tickets) >= IN_HAND:
            return None
        for ticket in self._tickets:
            if ticket.started_at is None:
                ticket.started_at = now
                return ticket
        return None

    def leave(self, ticket: Ticket) -> None:
        """It is over, however it ended."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
