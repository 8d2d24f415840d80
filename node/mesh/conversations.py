"""What is said to one IPFS peer and heard of it: one stream of our own to it, what it wants, what it was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from ...protocols.bitswap import PROTOCOL_ID, BlockCame, Presence, Want, encode_wants
from ...protocols.bitswap_ledger import Asked, Ledger
from ...protocols.errors import AccelError, ErrorCode
from .host import Host
from .streams import PIECE, PeerStream

#: A piece of 64 KB that is not taken for so long has a peer that does not read.
_WRITE_DEADLINE_S: Final = 20.0
_LAST_WORDS_S: Final = 2.0

Answers = trio.MemoryReceiveChannel[tuple[bytes, bytes | None]]


class Conversation:
    """With one peer. `listen` reads a stream to its end; `nursery` is the conversation's own."""

    def __init__(self, host: Host, peer_id: str, listen: Callable[[PeerStream], Awaitable[None]]) -> None:
        self.peer_id = peer_id
        self.ledger = Ledger()
        #: Set when there is something in the ledger.
        self.wanted = trio.Event()
        self.heard_at = self._said_at = trio.current_time()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.nursery: trio.Nursery | None = None
        self._host = host
        self._listen = listen
        self._stream: PeerStream | None = None
        self._speaking = trio.Lock()
        self._asked: dict[Asked, trio.MemorySendChannel[tuple[bytes, bytes | None]]] = {}
        self._taken_back: set[bytes] = set()

    @property
    def active_at(self) -> float:
        """When anything last came or went."""
        return max(self.heard_at, self._said_at)

    @property
    def asks(self) -> bool:
        """Whether a block may be on its way here."""
        return bool(self._asked)

    @asynccontextmanager
    async def asking(self, cids: Sequence[bytes]) -> AsyncIterator[Answers]:
        """Asks for blocks and gives what comes, (CID, block or None) each; what has not come at the end is taken back.

        The answers end early when the peer is lost. Raises AccelError peer-lost, peer-silent.
        """
        asked = Asked(cids)
        self._asked[asked], answers = trio.open_memory_channel[tuple[bytes, bytes | None]](0)
        try:
            self._taken_back.difference_update(cids)
            await self.say(encode_wants(Want(cid, send_dont_have=True) for cid in cids))
            yield answers
        finally:
            answers.close()
            self._take_back(asked)

    async def answered(self, event: BlockCame | Presence) -> bool:
        """Hands on what came to whoever asked for it, and waits until it is taken; false when nobody did."""
        was_asked = False
        for asked, answers in list(self._asked.items()):
            if isinstance(event, BlockCame):
                block, cids = event.data, asked.came(hashlib.sha256(event.data).digest())
            else:
                block, cids = None, asked.lacking(event)
            for cid in cids:
                was_asked = True
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await answers.send((cid, block))
        return was_asked

    async def say(self, message: bytes) -> None:
        """Sends a message. Raises AccelError peer-lost; peer-silent when it is not read."""
        async with self._speaking:
            stream = self._stream or await self._open()
            try:
                for at in range(0, len(message), PIECE):
                    with trio.fail_after(_WRITE_DEADLINE_S):
                        await stream.send_all(message[at : at + PIECE])
                    self._said_at = trio.current_time()
            except BaseException as error:  # half a message may be out, so nothing more can be said there
                self._stream = None
                await stream.aclose()
                raise _told(error) from None

    async def aclose(self) -> None:
        """Says what is left to say, if the peer reads it, and ends the stream. Whoever asked for something is told."""
        await self._say_taken_back()
        with trio.move_on_after(_LAST_WORDS_S):
            if self._stream is not None:
                with suppress(trio.BrokenResourceError):
                    await self._stream.send_last(b"")
        if self._stream is not None:
            await self._stream.aclose()
        self._lose()
        self.nursery = None
        self.ended.set()

    def _lose(self) -> None:
        for answers in self._asked.values():
            answers.close()

    def _take_back(self, asked: Asked) -> None:
        del self._asked[asked]
        wanted = {cid for other in self._asked for cid in other.cids()}
        self._taken_back.update(cid for cid in asked.cids() if cid not in wanted)
        if self._taken_back and self.nursery is not None and not self.scope.cancel_called:
            self.nursery.start_soon(self._say_taken_back)

    async def _say_taken_back(self) -> None:
        """Also while the conversation ends; a peer that is lost will not send them anyway."""
        cids, self._taken_back = self._taken_back, set()
        if cids and self._stream is not None:
            with trio.move_on_after(_LAST_WORDS_S, shield=True), suppress(AccelError):
                await self.say(encode_wants(Want(cid, cancel=True) for cid in cids))

    async def _open(self) -> PeerStream:
        self._stream = await self._host.open_stream(self.peer_id, PROTOCOL_ID)
        if self.nursery is not None:
            self.nursery.start_soon(self._listen_to_own, self._stream)
        return self._stream

    async def _listen_to_own(self, stream: PeerStream) -> None:
        """Some answer on the stream that they were asked on. Its end is how the loss of a peer shows."""
        await self._listen(stream)
        if not stream.is_open:
            if self._stream is stream:
                self._stream = None
            self._lose()


def _told(error: BaseException) -> BaseException:
    match error:
        case trio.TooSlowError():
            return AccelError(ErrorCode.PEER_SILENT, f"the peer read nothing for {_WRITE_DEADLINE_S:g} s")
        case trio.BrokenResourceError() | trio.ClosedResourceError():
            return AccelError(ErrorCode.PEER_LOST, "the peer left")
        case _:
            return error
