"""The tickets that were given out and not used yet: each opens one connection, soon. Pure: the clock is passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from ...protocols.bulk import TICKET_SIZE

LIFETIME_S: Final = 30.0
MOST: Final = 256
MOST_OF_ONE: Final = 8


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may ask for the blocks of which model; `key` is that of the asker's process."""

    peer_id: str
    model: bytes
    key: bytes


class Tickets:
    """A peer that asks for many loses its oldest, and costs others nothing until all are `MOST`."""

    def __init__(self) -> None:
        self._granted: dict[bytes, tuple[Grant, float]] = {}

    def __len__(self) -> int:
        return len(self._granted)

    def issue(self, grant: Grant, now: float) -> bytes:
        self._forget_old(now)
        own = [ticket for ticket, (other, _) in self._granted.items() if other.peer_id == grant.peer_id]
        for ticket in own[: len(own) + 1 - MOST_OF_ONE if len(own) >= MOST_OF_ONE else 0]:
            del self._granted[ticket]
        if len(self._granted) >= MOST:
            del self._granted[next(iter(self._granted))]
        ticket = os.urandom(TICKET_SIZE)
        self._granted[ticket] = grant, now + LIFETIME_S
        return ticket

    def take(self, ticket: bytes, now: float) -> Grant | None:
        """What the ticket is for, once; None for one that is unknown, used or too old."""
        self._forget_old(now)
        granted = self._granted.pop(ticket, None)
        return granted[0] if granted else None

    def _forget_old(self, now: float) -> None:
        for ticket in [ticket for ticket, (_, until) in self._granted.items() if until <= now]:
            del self._granted[ticket]
