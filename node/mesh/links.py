"""Links: one long-lived framed stream a peer, opened by a hello, kept alive by pings.

Of two links that both sides opened at once, the one dialled by the smaller peer id stays.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from ...protocols.hello import Hello, HelloFacts, HelloRefused
from ...protocols.inference import PROTOCOL_ID
from ..channel import Channel, Handler
from .directory import Directory
from .host import Host
from .identity import Identity
from .strangers import Places
from .streams import PeerStream

log = logging.getLogger(__name__)

MAX_LINKS: Final = 256
_MAX_HELLOS: Final = 64
_MAX_HELLOS_OF_ONE: Final = 4
_HELLO_DEADLINE_S: Final = 5.0
_PING_EVERY_S: Final = 1.0
_SILENCE_S: Final = 5.0


@dataclass(eq=False)
class Link:
    """An open link; `dialler` is the peer id of the side that opened it."""

    peer_id: str
    dialler: str
    channel: Channel
    facts: HelloFacts


class Links:
    """All links of one node."""

    def __init__(
        self,
        host: Host,
        identity: Identity,
        cluster_key: bytes,
        own_facts: Callable[[], HelloFacts],
        directory: Directory,
        handler_for: Callable[[str], Handler],
        on_up: Callable[[Link], None],
    ) -> None:
        self._host = host
        self._identity = identity
        self._key = cluster_key
        self._own_facts = own_facts
        self._directory = directory
        self._handler_for = handler_for
        self._on_up = on_up
        self._links: dict[str, Link] = {}
        self._hellos = Places(_MAX_HELLOS)
        self._saying_hello: Counter[str] = Counter()
        host.on_stream(PROTOCOL_ID, self._accept)

    def get(self, peer_id: str) -> Link | None:
        link = self._links.get(peer_id)
        return None if link is None or link.channel.closed else link

    def all(self) -> list[Link]:
        return [link for link in self._links.values() if not link.channel.closed]

    async def dial(self, peer_id: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Opens a link to a connected peer and runs it to its end. Raises AccelError when it does not open."""
        stream = await self._host.open_stream(peer_id, PROTOCOL_ID)
        try:
            await self._run(stream, peer_id, dialler=True, task_status=task_status)
        finally:
            await stream.aclose()

    async def _accept(self, stream: PeerStream) -> None:
        if self._saying_hello[stream.peer_id] >= _MAX_HELLOS_OF_ONE:
            log.warning("turning away %s: %d hellos of it are under way", stream.peer_id, _MAX_HELLOS_OF_ONE)
            return
        try:
            await self._run(stream, stream.peer_id, dialler=False)
        except AccelError as error:
            level = logging.WARNING if isinstance(error, HelloRefused) else logging.INFO
            log.log(level, "no link with %s: %s", stream.peer_id, error)
            if isinstance(error, HelloRefused):
                await self._host.disconnect(stream.peer_id)

    async def _run(
        self,
        stream: PeerStream,
        peer_id: str,
        *,
        dialler: bool,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        facts, trailing = await self._in_its_place(stream, peer_id, dialler=dialler)
        channel = Channel(stream, dialler=dialler, handler=self._handler_for(peer_id), trailing=trailing)
        link = Link(peer_id, self._identity.peer_id if dialler else peer_id, channel, facts)
        if self._is_worse(link):
            raise AccelError(ErrorCode.BUSY, "a better link to this peer is open already")
        await self._run_link(link, task_status)

    async def _in_its_place(self, stream: PeerStream, peer_id: str, *, dialler: bool) -> tuple[HelloFacts, bytes]:
        """A hello, unless so many others come meanwhile that it must make room. Raises as `_say_hello` does."""
        self._saying_hello[peer_id] += 1
        try:
            with self._hellos.one():
                return await self._say_hello(stream, peer_id, dialler=dialler)
        finally:
            self._saying_hello[peer_id] -= 1
            if not self._saying_hello[peer_id]:
                del self._saying_hello[peer_id]
        raise AccelError(ErrorCode.BUSY, f"{_MAX_HELLOS} others began their hello since")

    async def _say_hello(self, stream: PeerStream, peer_id: str, *, dialler: bool) -> tuple[HelloFacts, bytes]:
        """Raises HelloRefused, ProtocolError, or AccelError peer-silent."""
        own = self._own_facts()
        theirs = _peer_id_bytes(peer_id)
        hello = Hello(own, self._key, dialler=dialler, own_peer_id=self._identity.peer_id_bytes, peer_id=theirs)
        with trio.move_on_after(_HELLO_DEADLINE_S):
            try:
                while True:
                    if out := hello.take_outgoing():
                        await stream.send_all(out)
                    if hello.done and hello.facts is not None:
                        return hello.facts, hello.take_rest()
                    if not (data := await stream.receive_some()):
                        raise AccelError(ErrorCode.PEER_LOST, "the peer left during the hello")
                    hello.receive(data)
            except (HelloRefused, ProtocolError):
                if out := hello.take_outgoing():
                    await stream.send_last(out)
                raise
        raise AccelError(ErrorCode.PEER_SILENT, f"the peer said no hello within {_HELLO_DEADLINE_S:g} s")

    def _is_worse(self, link: Link) -> bool:
        """Whether a link that is open already stays rather than this one; full tables take no new ones."""
        open_one = self.get(link.peer_id)
        if open_one is None:
            return len(self._links) >= MAX_LINKS
        first = min(link.peer_id, self._identity.peer_id)
        return link.dialler != first and open_one.dialler == first

    async def _run_link(self, link: Link, task_status: trio.TaskStatus[None]) -> None:
        if (replaced := self.get(link.peer_id)) is not None:
            replaced.channel.close()
        self._links[link.peer_id] = link
        self._directory.linked(link.peer_id, link.facts.node_name, link.facts.addresses)
        log.info("link with %s (%s) is up", link.peer_id, link.facts.node_name)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(link.channel.run)
                nursery.start_soon(self._keep_alive, link)
                task_status.started()
                self._on_up(link)
        finally:
            link.channel.close()
            if self._links.get(link.peer_id) is link:
                del self._links[link.peer_id]
                self._directory.unlinked(link.peer_id)
                log.info("link with %s (%s) is down", link.peer_id, link.facts.node_name)

    async def _keep_alive(self, link: Link) -> None:
        """Pings for as long as the link lives, and ends it when the peer has been silent."""
        try:
            while not link.channel.closed:
                self._directory.round_trip(link.peer_id, await link.channel.ping(timeout=_SILENCE_S))
                await trio.sleep(_PING_EVERY_S)
        except AccelError as error:
            if error.code == ErrorCode.PEER_SILENT:
                log.warning("%s (%s) is silent; dropping it", link.peer_id, link.facts.node_name)
                link.channel.close()
                await self._host.disconnect(link.peer_id)


def _peer_id_bytes(peer_id: str) -> bytes:
    from libp2p.peer.id import ID

    return bytes(ID.from_string(peer_id).to_bytes())
