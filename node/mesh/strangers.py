"""Connections over which nobody has a link yet: a few at once, and not for long.

A stranger costs something before it has said a word, and may never say one. When there is no room for one more, the
one that came first goes: whoever means it has long had its hello by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

MAX_STRANGERS: Final = 40
#: How long a connection may stay without a link.
STRANGER_S: Final = 20.0
_LOOK_EVERY_S: Final = 1.0


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
    """The inbound connections of one host. `is_member` says whether a peer has a link."""

    def __init__(self, is_member: Callable[[str], bool]) -> None:
        self.is_member = is_member
        self.places = Places(MAX_STRANGERS)

    async def keep(self, scope: trio.CancelScope, peer_id: str, closed: trio.Event) -> None:
        """Returns when the connection is closed, or when it has had no link for too long."""
        alone_since = trio.current_time()
        while not closed.is_set():
            if self.is_member(peer_id):
                self.places.leave(scope)
                alone_since = trio.current_time()
            elif trio.current_time() - alone_since > STRANGER_S:
                return
            else:
                self.places.take(scope)
            with trio.move_on_after(_LOOK_EVERY_S):
                await closed.wait()
