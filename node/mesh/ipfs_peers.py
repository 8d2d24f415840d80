"""IPFS peers that were named by their addresses, as sources of blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from .bitswap import Bitswap
from .conversations import Conversation
from .host import Host

Deliver = Callable[[bytes, bytes | None], Awaitable[None]]

_LEAVE_S: Final = 5.0
#: The largest pause in what a peer sends while it owes a block.
_SILENCE_S: Final = 10.0


class IpfsPeer:
    """One peer, connected with the first fetch. `name` is its peer id; `addresses` end in it."""

    def __init__(self, host: Host, bitswap: Bitswap, peer_id: str, addresses: Sequence[str]) -> None:
        self.name = peer_id
        self._host = host
        self._bitswap = bitswap
        self._addresses = addresses
        self._dialled = False
        self._taking = ExitStack()
        self._taken = False

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError when the peer cannot be reached, leaves, is silent or does not speak Bitswap."""
        await self._connect()
        conversation = self._bitswap.conversation(self.name)
        async with conversation.asking(cids) as answers:
            for _ in cids:
                cid, block = await _next(conversation, answers)
                await deliver(cid, block)

    async def aclose(self) -> None:
        """Leaves the peer, also when cancelled, and hangs up if this side had called and nobody else is there."""
        self._taking.close()
        with trio.move_on_after(_LEAVE_S, shield=True):
            if await self._bitswap.leave(self.name) and self._dialled and not self._host.is_member(self.name):
                await self._host.disconnect(self.name)

    async def _connect(self) -> None:
        """The peer's streams are taken from before the first word on: it may speak as soon as it is connected."""
        if not self._taken:
            self._taken = True
            self._taking.enter_context(self._bitswap.source(self.name))
        failure: AccelError | None = None
        for address in self._addresses:
            if self._host.is_connected(self.name):
                return
            try:
                await self._host.connect(address)
                self._dialled = True
                return
            except AccelError as error:
                failure = error
        if failure is not None:
            raise failure


async def _next(
    conversation: Conversation, answers: trio.MemoryReceiveChannel[tuple[bytes, bytes | None]]
) -> tuple[bytes, bytes | None]:
    """What comes next. Raises AccelError peer-silent, peer-lost."""
    deadline = trio.current_time() + _SILENCE_S
    try:
        while trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                return await answers.receive()
            deadline = max(deadline, conversation.heard_at + _SILENCE_S)
        raise AccelError(ErrorCode.PEER_SILENT, f"nothing came for {_SILENCE_S:g} s")
    except trio.EndOfChannel:
        raise AccelError(ErrorCode.PEER_LOST, "the peer left") from None


def by_peer(addresses: Iterable[str]) -> dict[str, list[str]]:
    """The addresses of each peer; those that end in no peer id are left out."""
    found: dict[str, list[str]] = {}
    for address in addresses:
        _, has_id, peer_id = address.rpartition("/p2p/")
        if has_id and peer_id:
            found.setdefault(peer_id, []).append(address)
    return found
