"""Blocks between peers: streams of their own beside the link, so that a transfer never stands in a job's way."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio

from ...protocols.blocks import (
    PROTOCOL_ID,
    BlockAnswerer,
    BlockAsker,
    BlockMissing,
    BlockReceived,
    BlocksRefused,
    block_header,
    block_missing,
    blocks_refused,
)
from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from .directory import Directory
from .host import Host
from .streams import PIECE, PeerStream

log = logging.getLogger(__name__)

ReadBlock = Callable[[bytes], Awaitable[bytes | None]]
Deliver = Callable[[bytes, bytes | None], Awaitable[None]]

_MAX_STREAMS: Final = 4
_MAX_WAITING: Final = 256
_READ_AHEAD: Final = 2
_IDLE_S: Final = 120.0
#: The largest pause between two reads of an answer that is on its way.
_SILENCE_S: Final = 10.0


class BlockServer:
    """Answers WANT on block streams of peers that have a link."""

    def __init__(self, host: Host, read_block: ReadBlock, is_member: Callable[[str], bool]) -> None:
        self._read_block = read_block
        self._is_member = is_member
        self._streams: Counter[str] = Counter()
        host.on_stream(PROTOCOL_ID, self._serve)

    async def _serve(self, stream: PeerStream) -> None:
        peer_id = stream.peer_id
        if not self._is_member(peer_id):
            await stream.send_last(blocks_refused(ErrorCode.WRONG_CLUSTER_KEY, "blocks go to members only"))
            return
        if self._streams[peer_id] >= _MAX_STREAMS:
            await stream.send_last(blocks_refused(ErrorCode.BUSY, f"{_MAX_STREAMS} block streams are open already"))
            return
        self._streams[peer_id] += 1
        try:
            await self._answer(stream)
        except ProtocolError as error:
            await stream.send_last(blocks_refused(error.code, error.message))
        finally:
            self._streams[peer_id] -= 1

    async def _answer(self, stream: PeerStream) -> None:
        """Three tasks in a row, so that wants, disk and network all move at once, each a bounded step ahead."""
        wanted_in, wanted_out = trio.open_memory_channel[bytes](_MAX_WAITING)
        read_in, read_out = trio.open_memory_channel[tuple[bytes, bytes | None]](_READ_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_wanted, wanted_out, read_in)
            nursery.start_soon(_write_all, stream, read_out)
            answerer = BlockAnswerer()
            with trio.CancelScope() as idle:
                idle.deadline = trio.current_time() + _IDLE_S
                while data := await stream.receive_some():
                    for cid in answerer.receive(data):
                        await wanted_in.send(cid)
                    idle.deadline = trio.current_time() + _IDLE_S
            nursery.cancel_scope.cancel()

    async def _read_wanted(
        self, wanted: trio.MemoryReceiveChannel[bytes], blocks: trio.MemorySendChannel[tuple[bytes, bytes | None]]
    ) -> None:
        async for cid in wanted:
            await blocks.send((cid, await self._read_block(cid)))


async def _write_all(stream: PeerStream, blocks: trio.MemoryReceiveChannel[tuple[bytes, bytes | None]]) -> None:
    async for cid, block in blocks:
        if block is None:
            await stream.send_all(block_missing(cid))
            continue
        header = block_header(cid, len(block))
        first = PIECE - len(header)
        await stream.send_all(header + block[:first])
        if len(block) > first:
            await stream.send_all(block[first:])


class PeerBlocks:
    """A peer as a source of blocks. Its stream opens with the first fetch and is used by one fetch at a time."""

    def __init__(self, host: Host, directory: Directory, peer_id: str) -> None:
        self.name = peer_id
        self._host = host
        self._directory = directory
        self._stream: PeerStream | None = None
        self._asker = BlockAsker()

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError when the peer refuses, breaks the protocol, is silent or leaves."""
        began, size = time.monotonic(), 0
        try:
            async for cid, block in self._answers(cids):
                size += len(block or b"")
                await deliver(cid, block)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise AccelError(ErrorCode.PEER_LOST, f"the peer left: {error}") from None
        except BaseException:
            await self.aclose()
            raise
        self._directory.moved(self.name, size, time.monotonic() - began)

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    async def _answers(self, cids: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes | None]]:
        if self._stream is None:
            self._stream, self._asker = await self._host.open_stream(self.name, PROTOCOL_ID), BlockAsker()
            await self._stream.widen()
        stream = self._stream
        await stream.send_all(self._asker.want(cids))
        while self._asker.waiting or self._asker.in_block:
            data = b""
            with trio.move_on_after(_SILENCE_S) as silence:
                data = await stream.receive_some()
            if silence.cancelled_caught:
                raise AccelError(ErrorCode.PEER_SILENT, f"no block came for {_SILENCE_S:g} s")
            if not data:
                raise AccelError(ErrorCode.PEER_LOST, "the peer ended the transfer")
            for event in self._asker.receive(data):
                match event:
                    case BlockReceived(cid, block):
                        yield cid, bytes(block)
                    case BlockMissing(cid):
                        yield cid, None
                    case BlocksRefused(code, message):
                        raise AccelError(code, message)
