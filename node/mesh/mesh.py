"""The mesh: everything between this node and its peers, behind one object.

Host (libp2p) ─┬─ Links (hello, channel, pings) ◄─ Dialler ◄─ join token, address book, mDNS, peers' addresses
               ├─ Gossip (adverts) ─► Directory
               ├─ BlockServer, PeerBlocks
               └─ Bitswap, IpfsPeer: blocks from and to those who are no members
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from ...protocols.advert import Advert
from ...protocols.errors import AccelError
from ...protocols.hello import HelloFacts
from ...protocols.sealing import cluster_id
from ..channel import Handler
from ..exchanges import Incoming, IncomingCall
from .address_book import AddressBook
from .bitswap import Bitswap, Served
from .block_streams import BlockServer, PeerBlocks, ReadBlock
from .dialling import Dialler
from .directory import Directory
from .gossip import Gossip
from .host import Host
from .identity import Identity
from .ipfs_peers import IpfsPeer, by_peer
from .links import Link, Links
from .mdns import announcing

log = logging.getLogger(__name__)

_ADVERT_TIMEOUT_S: Final = 5.0
_REFRESH_EVERY_S: Final = 5.0
#: An advert older than this is asked for over the link, whatever became of it on the topic.
_STALE_S: Final = 15.0
_MAX_TOLD: Final = 64
_LOOK_AT_NETWORK_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class MeshSettings:
    """Addresses are multiaddrs; those of `bootstrap` end in `/p2p/<peer id>`. `features` are told in each hello."""

    listen: list[str]
    bootstrap: list[str]
    mdns: bool
    node_name: str
    address_book: Path
    features: tuple[str, ...] = ()


class Mesh:
    """One node's part in the mesh."""

    def __init__(
        self,
        settings: MeshSettings,
        identity: Identity,
        cluster_key: bytes,
        *,
        handler_for: Callable[[str], Handler],
        read_block: ReadBlock,
        served: Served | None = None,
        on_link: Callable[[str], None],
    ) -> None:
        """`on_link` is told the name of each peer with which a link came up; `served` is for any IPFS peer."""
        self._settings = settings
        self._cluster = cluster_id(cluster_key)
        self._incarnation = time.time_ns()
        self._host = Host(identity)
        self._handler_for = handler_for
        self._on_link = on_link
        self._book = AddressBook(settings.address_book)
        self.directory = Directory(trio.current_time)
        self._links = Links(
            self._host, identity, cluster_key, self._facts, self.directory, self._answering, self._link_is_up
        )
        self._host.is_member = self._is_member
        self._dialler = Dialler(self._host, self._links)
        self._gossip = Gossip(self._host, identity, cluster_key, self._advertised)
        self._blocks = BlockServer(self._host, read_block, self._is_member)
        self.bitswap = Bitswap(self._host, served, self._is_member)
        self._host.guest = self.bitswap.guest
        self._nursery: trio.Nursery | None = None
        self.peer_id = identity.peer_id
        self.addresses: list[str] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens, dials and gossips until cancelled. Raises AccelError port-in-use, bad-config at the start."""
        self._dialler.want(self._settings.bootstrap, keep=True)
        for addresses in self._book.all().values():
            self._dialler.want(addresses)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._host.listening(self._settings.listen))
            self.addresses = self._host.addresses()
            await stack.enter_async_context(self._gossip.running())
            await stack.enter_async_context(self.bitswap.running())
            if self._settings.mdns and self.addresses:
                await stack.enter_async_context(announcing(self.peer_id, self._cluster, self.addresses, self._heard))
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._dialler.run)
                nursery.start_soon(self._refresh_adverts)
                nursery.start_soon(self._follow_network)
                task_status.started()

    def link(self, peer_id: str) -> Link | None:
        return self._links.get(peer_id)

    def links(self) -> list[Link]:
        return self._links.all()

    def remembered(self) -> set[str]:
        """The peer ids of all members that this node ever linked with, as far as its address book goes back."""
        return set(self._book.all())

    @property
    def is_sending(self) -> bool:
        """Whether a message waits to be read by a peer."""
        return any(link.channel.session.queued_bytes for link in self._links.all())

    def failures(self) -> dict[str, AccelError]:
        """Why peers that this node wants a link with have none, by address."""
        return self._dialler.failures()

    async def publish(self, advert: Advert) -> None:
        await self._gossip.publish(advert)

    def block_sources(self, peer_ids: Iterable[str]) -> list[PeerBlocks]:
        """The linked ones among these peers, as sources of blocks."""
        return [PeerBlocks(self._host, self.directory, peer) for peer in peer_ids if self._links.get(peer) is not None]

    def ipfs_sources(self, addresses: Iterable[str]) -> list[IpfsPeer]:
        """The IPFS peers at these addresses, as sources of blocks; this node itself is left out."""
        peers = by_peer(addresses).items()
        return [IpfsPeer(self._host, self.bitswap, peer, told) for peer, told in peers if peer != self.peer_id]

    # --- inside

    def _heard(self, addresses: list[str]) -> None:
        self._dialler.want(addresses, heard=True)

    def _is_member(self, peer_id: str) -> bool:
        return self._links.get(peer_id) is not None

    def _facts(self) -> HelloFacts:
        return HelloFacts(
            self._settings.node_name, self._incarnation, tuple(self.addresses[:16]), self._settings.features
        )

    def _answering(self, peer_id: str) -> Handler:
        return _LinkHandler(self, self._handler_for(peer_id))

    def _link_is_up(self, link: Link) -> None:
        """Tells each other at once what is known, so that a newcomer waits for no gossip."""
        self._dialler.linked(link.peer_id)
        self._book.put(link.peer_id, list(link.facts.addresses))
        self._dialler.want(list(link.facts.addresses))
        self._on_link(link.facts.node_name)
        if self._nursery is not None:
            self._nursery.start_soon(self._exchange, link)

    async def _exchange(self, link: Link) -> None:
        try:
            told = await link.channel.call("peers", {}, timeout=_ADVERT_TIMEOUT_S)
            self._dialler.want([str(address) for address in told[:_MAX_TOLD]])
            await self._ask_for_advert(link)
        except (AccelError, TypeError) as error:
            log.info("%s told nothing: %s", link.peer_id, error)

    async def _ask_for_advert(self, link: Link) -> None:
        sealed = await link.channel.call("advert", {}, timeout=_ADVERT_TIMEOUT_S)
        if isinstance(sealed, bytes) and sealed and self._gossip.take(sealed) != link.peer_id:
            log.warning("%s gave somebody else's advert", link.peer_id)

    async def _refresh_adverts(self) -> None:
        """Gossip is lossy: what did not come is asked for."""
        while True:
            await trio.sleep(_REFRESH_EVERY_S)
            for link in self._links.all():
                peer = self.directory.get(link.peer_id)
                if peer is None or trio.current_time() - peer.advert_at > _STALE_S:
                    try:
                        await self._ask_for_advert(link)
                    except AccelError as error:
                        log.info("%s gave no advert: %s", link.peer_id, error)

    async def _follow_network(self) -> None:
        """This machine may get other addresses: peers are told at the next hello, and who was away is tried at once."""
        while True:
            await trio.sleep(_LOOK_AT_NETWORK_EVERY_S)
            try:
                addresses = self._host.addresses()
            except OSError as error:
                log.warning("this machine's addresses cannot be read: %s", error)
                continue
            if addresses != self.addresses:
                log.info("the addresses are now %s", ", ".join(addresses))
                self.addresses = addresses
                self._dialler.hurry()

    def _advertised(self, peer_id: str, advert: Advert) -> None:
        self.directory.advertised(peer_id, advert)
        if self._links.get(peer_id) is None:
            self._dialler.want([each for each in advert.addresses if each.endswith(f"/p2p/{peer_id}")])

    async def answer_call(self, call: IncomingCall, otherwise: Handler) -> Any:
        """The calls that peers make of each other's mesh; any other goes to the node's own door."""
        match call.method:
            case "advert":
                return self._gossip.latest
            case "peers":
                return [address for link in self._links.all() for address in link.facts.addresses][:_MAX_TOLD]
            case _:
                return await otherwise.handle_call(call)


class _LinkHandler:
    """Answers what comes over one link: the mesh's own calls here, everything else at the node's door."""

    def __init__(self, mesh: Mesh, door: Handler) -> None:
        self._mesh = mesh
        self._door = door

    async def handle_request(self, incoming: Incoming) -> None:
        await self._door.handle_request(incoming)

    async def handle_call(self, call: IncomingCall) -> Any:
        return await self._mesh.answer_call(call, self._door)
