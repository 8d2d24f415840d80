"""Where the blocks of a model can come from: peers of the cluster, then what is outside it.

Outside somebody learns what is asked for. So while peers say that they have a model nobody there is asked, unless a
person named an IPFS peer, or the peers do not give it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from ..protocols.bulk import FEATURE, METHOD, Ticket, TicketRequest
from .bulk.peer import ClosingSource, DirectPeer
from .bulk.process import BulkProcess
from .content.outside import Outside
from .content.store import Origin
from .known_model import KnownModel
from .mesh.block_streams import PeerBlocks
from .mesh.mesh import Mesh
from .origins import origin_at

_LINK_GRACE_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.05
#: Less than this is over before a bulk connection is open.
_BULK_BYTES: Final = 8 << 20
#: The peer may have to start a process first.
_TICKET_DEADLINE_S: Final = 15.0


@dataclass(frozen=True)
class Found:
    """The sources of one model: those asked `first`, those `later` when the first do not give it; what members say."""

    first: Sequence[ClosingSource]
    later: Sequence[ClosingSource]
    origin: Origin


class FetchSources:
    """Finds sources for one node."""

    def __init__(
        self, mesh: Mesh, bulk: BulkProcess, outside: Outside = Outside(), ipfs_peers: Sequence[str] = ()
    ) -> None:
        """`ipfs_peers` are addresses of IPFS peers that are asked for what nobody in the cluster has."""
        self._mesh = mesh
        self._bulk = bulk
        self._outside = outside
        self._ipfs_peers = ipfs_peers

    @asynccontextmanager
    async def of(self, model: KnownModel, named: Sequence[str] = ()) -> AsyncIterator[Found]:
        """The sources of a model while inside; `named` are addresses of IPFS peers that a person gave."""
        members = await self._members(model, alone=not named)
        said = await origin_at(self._mesh, [each.name for each in members], model.cid, is_new=model.here is None)
        gated = said.gated or (model.here is not None and model.here.origin.gated)
        chosen: list[ClosingSource] = [*self._mesh.ipfs_sources(named)]
        others: list[ClosingSource] = []
        if not gated:
            others = [*self._mesh.ipfs_sources(self._ipfs_peers), *self._outside.sources(model.cid, named)]
        suffices = bool(named) or bool(members and model.holders)
        try:
            if suffices:
                yield Found([*members, *chosen], others, said)
            else:
                yield Found([*members, *others], [], said)
        finally:
            for source in (*members, *chosen, *others):
                await source.aclose()

    async def _members(self, model: KnownModel, *, alone: bool) -> list[ClosingSource]:
        """Those that hold it, or everyone when nobody says so. A holder just heard of gets a moment to be linked,
        unless there are others to fetch from, and they are not `alone`."""
        with trio.move_on_after(_LINK_GRACE_S if alone else 0):
            while not (sources := self._mesh.block_sources(model.holders or self._linked())) and model.holders:
                await trio.sleep(_LOOK_EVERY_S)
            return [self._directly(model, source) for source in sources]
        return []

    def _directly(self, model: KnownModel, blocks: PeerBlocks) -> ClosingSource:
        """The peer with its bulk connection, where it has one and the model is worth it."""
        link = self._mesh.link(blocks.name)
        if model.size < _BULK_BYTES or link is None or FEATURE not in link.facts.features:
            return blocks

        async def ask(key: bytes) -> Ticket:
            asked = TicketRequest(model.cid, key).arguments()
            return Ticket.parse(await link.channel.call(METHOD, asked, timeout=_TICKET_DEADLINE_S))

        return DirectPeer(blocks, self._bulk, ask, self._mesh.directory.moved)

    def _linked(self) -> Iterable[str]:
        return [peer.peer_id for peer in self._mesh.directory.peers() if peer.linked]
