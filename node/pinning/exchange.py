"""Tells peers of changes of pins, and asks them for what was missed: over links, in bounded pieces.

A change goes to every linked peer at once, and from there to theirs. Every few seconds each asks each for its state;
where the digests differ, the parts of the set that differ are fetched. So a node that was away has caught up when it
has a link, and what is lost on the way comes a little later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from ...protocols.errors import AccelError, ProtocolError
from ...protocols.pins import BUCKETS, SignedChange
from ..api.local import Operation
from ..exchanges import IncomingCall
from ..mesh.links import Link
from ..mesh.mesh import Mesh
from .book import PinBook
from .members import Members, OwnState, packed_state

log = logging.getLogger(__name__)

_EVERY_S: Final = 3.0
_LOOK_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 64
#: Bytes of sealed changes in one message.
_MAX_TOLD: Final = 128 << 10


class PinExchange:
    """Keeps this node's book and its peers' alike, and knows the peers' states."""

    def __init__(self, mesh: Mesh, book: PinBook, members: Members, own_state: Callable[[], OwnState]) -> None:
        self._mesh = mesh
        self._book = book
        self._members = members
        self._own_state = own_state
        self._nursery: trio.Nursery | None = None
        self._asking: set[Link] = set()
        self._asked_at: dict[Link, float] = {}
        #: Told when a peer's state came.
        self.on_state: Callable[[], None] = lambda: None
        book.listeners.append(self._spread)

    def calls(self) -> dict[str, Operation]:
        """What peers may ask for."""
        return {
            "pins.state": self._state,
            "pins.digests": self._digests,
            "pins.changes": self._changes,
            "pins.tell": self._told,
        }

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                self._ask_all(nursery)
                await trio.sleep(_LOOK_EVERY_S)

    def _ask_all(self, nursery: trio.Nursery) -> None:
        links = self._mesh.links()
        now = trio.current_time()
        self._asked_at = {link: self._asked_at.get(link, float("-inf")) for link in links}
        for link in links:
            self._members.seen(link.peer_id, link.facts.node_name)
            if now - self._asked_at[link] >= _EVERY_S and link not in self._asking and len(self._asking) < _AT_ONCE:
                self._asked_at[link] = now
                self._asking.add(link)
                nursery.start_soon(self._ask, link)

    async def _ask(self, link: Link) -> None:
        try:
            name, call = link.facts.node_name, partial(link.channel.call, timeout=_TIMEOUT_S)
            if not self._members.told(link.peer_id, name, await call("pins.state", {}), self._book.pins):
                differing = self._book.pins.differing(await call("pins.digests", {}))
                for number in differing:
                    changes = await call("pins.changes", {"bucket": number})
                    await self._book.take(changes if isinstance(changes, list) else ())
                self._members.told(link.peer_id, name, await call("pins.state", {}), self._book.pins)
            self.on_state()
        except ProtocolError as error:
            log.warning("%s told of pins what cannot be: %s", link.peer_id, error)
        except AccelError as error:
            log.info("%s told nothing of pins: %s", link.peer_id, error)
        finally:
            self._asking.discard(link)

    def _spread(self, new: list[SignedChange]) -> None:
        """To everyone; those who knew it say nothing further."""
        if self._nursery is not None:
            for link in self._mesh.links():
                self._nursery.start_soon(self._tell, link, [signed.sealed for signed in new])

    async def _tell(self, link: Link, sealed: list[bytes]) -> None:
        """What does not fit into one message is asked for a little later."""
        fitting, size = [], 0
        for each in sealed:
            size += len(each)
            if size <= _MAX_TOLD:
                fitting.append(each)
        try:
            await link.channel.call("pins.tell", {"changes": fitting}, timeout=_TIMEOUT_S)
        except AccelError as error:
            log.info("%s did not hear of a pin: %s", link.peer_id, error)

    async def _state(self, call: IncomingCall) -> list[Any]:  # noqa: ARG002
        return packed_state(self._book.pins, self._own_state())

    async def _digests(self, call: IncomingCall) -> list[bytes]:  # noqa: ARG002
        return self._book.pins.bucket_digests()

    async def _changes(self, call: IncomingCall) -> list[bytes]:
        number = _argument(call, "bucket")
        if type(number) is not int or not 0 <= number < BUCKETS:
            raise ProtocolError(f"pins have {BUCKETS} buckets")
        return self._book.pins.bucket(number)

    async def _told(self, call: IncomingCall) -> int:
        changes = _argument(call, "changes")
        if not isinstance(changes, list):
            raise ProtocolError("changes of pins are a list")
        return await self._book.take(changes)


def _argument(call: IncomingCall, name: str) -> Any:
    return call.arguments.get(name) if isinstance(call.arguments, dict) else None
