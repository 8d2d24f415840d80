"""Bitswap with IPFS peers, who are strangers to the cluster: Kubo and others fetch here, and this node from them.

    a peer's streams ──► decoder ─┬─ wants ──► its ledger ──► read ──► answers ──► our stream to it
    (any number)                  └─ blocks, "don't have" ──► whoever asked for them

Without `served`, streams are taken only from peers that this node fetches from just then: Kubo answers on streams of
its own. What nobody asked for is never kept, and nothing is asked on behalf of anyone else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, Protocol

import trio

from ...protocols.bitswap import PROTOCOL_ID, BlockCame, Decoder, Event, Presence, Want, encode_answer
from ...protocols.bitswap_ledger import Ledger
from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from .conversations import Conversation
from .host import Host
from .pace import Pace
from .strangers import MAX_GUESTS, Guest
from .streams import PeerStream

log = logging.getLogger(__name__)

#: Small blocks go together into messages of about this size, in bytes; a large one has its own.
_MESSAGE: Final = 256 << 10
#: Of peers that nothing is fetched from; each holds at most three answers, as read, as said and on its way.
_MOST_GUESTS: Final = MAX_GUESTS
#: A guest that has said and been told nothing for so long makes room for another.
_REST_S: Final = 5.0
#: How long a conversation stays without a stream from its peer, or anything to answer.
_IDLE_S: Final = 30.0
_READ: Final = 64 << 10
#: What a peer that only wants may say: bytes a second, and at once. 1,024 wants have about 50 KB.
_RATE: Final = 128 << 10
_AT_ONCE: Final = 512 << 10


class Served(Protocol):
    """The blocks that anybody may have."""

    def has(self, cid: bytes) -> bool:
        """Quick enough for an event loop."""
        ...

    async def read(self, cid: bytes) -> bytes | None: ...


class Bitswap:
    """All that this node says in Bitswap."""

    def __init__(self, host: Host, served: Served | None, is_member: Callable[[str], bool]) -> None:
        self._host = host
        self._served = served
        self._is_member = is_member
        self._conversations: dict[str, Conversation] = {}
        self._sources: Counter[str] = Counter()
        #: How many streams of each peer are open.
        self._streams: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None
        #: Bytes of blocks that went out.
        self.sent = 0
        if served is not None:
            host.on_stream(PROTOCOL_ID, self._hear)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    def guest(self, peer_id: str) -> Guest:
        if peer_id in self._sources:
            return Guest.SOURCE
        if peer_id in self._conversations:
            return Guest.SPEAKING
        return Guest.NO if self._served is None else Guest.WELCOME

    @property
    def guests(self) -> int:
        """How many IPFS peers are spoken with."""
        return len(self._conversations)

    @contextmanager
    def source(self, peer_id: str) -> Iterator[None]:
        """Takes the streams of a peer for as long as something is fetched from it."""
        if self._served is None and not self._sources:
            self._host.on_stream(PROTOCOL_ID, self._hear)
        self._sources[peer_id] += 1
        try:
            yield
        finally:
            _one_less(self._sources, peer_id)
            if self._served is None and not self._sources:
                self._host.off_stream(PROTOCOL_ID)

    def conversation(self, peer_id: str) -> Conversation:
        """The one with this peer, begun if need be. Raises AccelError peer-lost while the node stops."""
        if self._nursery is None:
            raise AccelError(ErrorCode.PEER_LOST, "this node is stopping")
        known = self._conversations.get(peer_id)
        if known is None or known.scope.cancel_called:
            conversation = Conversation(self._host, peer_id, partial(self._read_all, peer_id))
            self._conversations[peer_id] = conversation
            self._nursery.start_soon(self._run, conversation)
        return self._conversations[peer_id]

    async def leave(self, peer_id: str) -> bool:
        """Ends the conversation with a peer that nothing is fetched from any more; false when it goes on."""
        conversation = self._conversations.get(peer_id)
        if conversation is None:
            return True
        if peer_id in self._sources or (self._served is not None and peer_id in self._streams):
            return False
        conversation.scope.cancel()
        await conversation.ended.wait()
        return True

    # --- what comes

    async def _hear(self, stream: PeerStream) -> None:
        peer_id = stream.peer_id
        if not self._may_speak(peer_id) or not self._has_room(peer_id):
            return
        self._streams[peer_id] += 1
        try:
            await self._read_all(peer_id, stream)
        finally:
            _one_less(self._streams, peer_id)

    def _may_speak(self, peer_id: str) -> bool:
        return self._served is not None or peer_id in self._sources

    def _has_room(self, peer_id: str) -> bool:
        """Whether there is a place for a guest. When there are as many as may, the one longest at rest makes room."""
        staying = [each for each in self._conversations.values() if not each.scope.cancel_called]
        others = [each for each in staying if each.peer_id not in self._sources]
        if peer_id in self._conversations or peer_id in self._sources or len(others) < _MOST_GUESTS:
            return True
        idle = min(others, key=lambda each: each.active_at)
        if self._nursery is None or trio.current_time() - idle.active_at < _REST_S:
            log.info("%s has to wait: %d IPFS peers are spoken with", peer_id, len(others))
            return False
        idle.scope.cancel()
        if not self._is_member(idle.peer_id):
            self._nursery.start_soon(self._host.disconnect, idle.peer_id)
        return True

    async def _read_all(self, peer_id: str, stream: PeerStream) -> None:
        decoder, pace = Decoder(takes_blocks=False), Pace(_RATE, _AT_ONCE)
        try:
            while (data := await stream.receive_some(_READ)) and self._may_speak(peer_id):
                conversation = self.conversation(peer_id)
                conversation.heard_at = trio.current_time()
                decoder.takes_blocks = conversation.asks
                for event in decoder.receive(data):
                    await self._take(event, conversation)
                if peer_id not in self._sources:
                    await pace.wait_for(len(data))
        except (ProtocolError, trio.BrokenResourceError) as error:
            log.info("a Bitswap stream of %s ended: %s", peer_id, error)

    async def _take(self, event: Event, conversation: Conversation) -> None:
        if isinstance(event, (BlockCame, Presence)):
            await conversation.answered(event)
        elif self._served is not None:
            conversation.ledger.hear(event)
            if conversation.ledger:
                conversation.wanted.set()

    # --- what is answered

    async def _run(self, conversation: Conversation) -> None:
        """Answers what a peer wants, until nothing has been said for a while, or it does not read."""
        peer_id, failed = conversation.peer_id, False
        try:
            with conversation.scope:
                async with trio.open_nursery() as nursery:
                    conversation.nursery = nursery
                    answers_in, answers_out = trio.open_memory_channel[bytes](0)
                    nursery.start_soon(_say_all, conversation, answers_out)
                    await self._answer_all(conversation, answers_in)
                    nursery.cancel_scope.cancel()
        except* AccelError as group:
            failed = True
            log.info("no longer speaking with %s: %s", peer_id, group.exceptions[0])
        except* Exception:
            failed = True
            log.exception("speaking with %s failed", peer_id)
        finally:
            if self._conversations.get(peer_id) is conversation:
                del self._conversations[peer_id]
            with trio.CancelScope(shield=True):
                await conversation.aclose()
        if failed and not self._is_member(peer_id):
            await self._host.disconnect(peer_id)

    async def _answer_all(self, conversation: Conversation, answers: trio.MemorySendChannel[bytes]) -> None:
        while True:
            with trio.move_on_after(_IDLE_S) as idle:
                await conversation.wanted.wait()
            if idle.cancelled_caught and not {conversation.peer_id} & (self._streams.keys() | self._sources.keys()):
                return
            while conversation.ledger:
                if answer := await self._next_answer(conversation.ledger):
                    await answers.send(answer)
            conversation.wanted = trio.Event()

    async def _next_answer(self, ledger: Ledger) -> bytes:
        """A message that answers some of what a peer wants; empty when there is nothing to say of that."""
        blocks: list[tuple[bytes, bytes]] = []
        presences: list[Presence] = []
        size = 0
        while size < _MESSAGE and (want := ledger.take()) is not None:
            size += len(want.cid) + 8
            has, block = await self._look_up(want)
            if block is not None:
                blocks.append((want.cid, block))
                size += len(block)
                self.sent += len(block)
            elif has or want.send_dont_have:
                presences.append(Presence(want.cid, has))
        return encode_answer(blocks, presences) if blocks or presences else b""

    async def _look_up(self, want: Want) -> tuple[bool, bytes | None]:
        """Whether the block is there, and the block itself if that is what is wanted."""
        if self._served is None:
            return False, None
        if want.have or not self._served.has(want.cid):
            await trio.lowlevel.checkpoint()
            return self._served.has(want.cid), None
        block = await self._served.read(want.cid)
        return block is not None, block


def _one_less(counter: Counter[str], peer_id: str) -> None:
    counter[peer_id] -= 1
    if not counter[peer_id]:
        del counter[peer_id]


async def _say_all(conversation: Conversation, answers: trio.MemoryReceiveChannel[bytes]) -> None:
    async for answer in answers:
        await conversation.say(answer)
