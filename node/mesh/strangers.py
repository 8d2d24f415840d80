"""Connections over which nobody has a link yet: a few at once, and not for long.

A stranger costs something before it has said a word, and may never say one. When there is no room for one more, the
one that came first goes: whoever means it has long had its hello by then. Guests, with whom blocks are exchanged,
have places of their own, so that neither takes the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

import trio

MAX_STRANGERS: Final = 40
#: Peers; a guest's connections may be two, as both sides may have dialled.
MAX_GUESTS: Final = 16
#: How long a connection may stay without a link.
STRANGER_S: Final = 20.0
_LOOK_EVERY_S: Final = 1.0


class Guest(Enum):
    """What a peer is to this node besides being a member of its cluster or not."""

    NO = "it is to say its hello, or go"
    WELCOME = "it may stay while there is room"
    SPEAKING = "blocks are exchanged with it"
    SOURCE = "this node fetches from it"


class Places:
    """Room for so many; who comes when it is full takes the place of the one who came first, which is cancelled."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[trio.CancelScope, None] = {}

    @contextmanager
    def one(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self.take(scope)
            try:
                yield scope
            finally:
                self.leave(scope)

    def take(self, scope: trio.CancelScope) -> None:
        if scope not in self._taken and len(self._taken) >= self._most:
            first = next(iter(self._taken))
            del self._taken[first]
            first.cancel()
        self._taken.setdefault(scope)

    def leave(self, scope: trio.CancelScope) -> None:
        self._taken.pop(scope, None)


class Strangers:
    """The inbound connections of one host. `is_member` says whether a peer has a link, `guest` what else it is."""

    def __init__(
        self, is_member: Callable[[str], bool], guest: Callable[[str], Guest] = lambda _peer_id: Guest.NO
    ) -> None:
        self.is_member = is_member
        self.guest = guest
        self.places = Places(MAX_STRANGERS)
        self.guests = Places(2 * MAX_GUESTS)

    async def keep(self, scope: trio.CancelScope, peer_id: str, closed: trio.Event) -> None:
        """Returns when the connection is closed, or when it has had no link for too long and is no guest."""
        alone_since = trio.current_time()
        try:
            while not closed.is_set():
                guest = self.guest(peer_id)
                if self.is_member(peer_id):
                    self._put(scope, None)
                    alone_since = trio.current_time()
                elif guest in (Guest.SPEAKING, Guest.SOURCE):
                    self._put(scope, self.guests)
                    alone_since = trio.current_time()
                elif guest is Guest.NO and trio.current_time() - alone_since > STRANGER_S:
                    return
                else:
                    self._put(scope, self.places)
                with trio.move_on_after(_LOOK_EVERY_S):
                    await closed.wait()
        finally:
            self._put(scope, None)

    def _put(self, scope: trio.CancelScope, where: Places | None) -> None:
        """Into one kind of place, out of every other."""
        for places in (self.places, self.guests):
            if places is not where:
                places.leave(scope)
        if where is not None:
            where.take(scope)
