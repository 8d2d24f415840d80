"""The call `bulk` of one peer: a ticket for a connection to this node's bulk process. All else goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...protocols.bulk import METHOD, TicketRequest
from ..channel import Handler
from ..exchanges import Incoming, IncomingCall
from .process import BulkProcess


class BulkDoor:
    """Stands before a peer's door, as only the link knows whose ticket it is."""

    def __init__(
        self, peer_id: str, bulk: BulkProcess, own_addresses: Callable[[], Iterable[str]], otherwise: Handler
    ) -> None:
        self._peer_id = peer_id
        self._bulk = bulk
        self._own_addresses = own_addresses
        self._otherwise = otherwise

    async def handle_request(self, incoming: Incoming) -> None:
        await self._otherwise.handle_request(incoming)

    async def handle_call(self, call: IncomingCall) -> Any:
        if call.method != METHOD:
            return await self._otherwise.handle_call(call)
        asked = TicketRequest.parse(call.arguments)
        return (await self._bulk.ticket(self._peer_id, asked, self._own_addresses())).answer()
