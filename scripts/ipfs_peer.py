"""An IPFS peer for the tests, which behaves as Kubo from 0.37 on, over a real libp2p host.

It speaks with the protobuf messages that come with libp2p, so that the node's own are held against others.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import trio
from ipfs_accel_node.node.mesh import identity
from ipfs_accel_node.node.mesh.host import Host
from ipfs_accel_node.node.mesh.strangers import Guest
from ipfs_accel_node.node.mesh.streams import PeerStream
from ipfs_accel_node.protocols.bitswap import PROTOCOL_ID
from ipfs_accel_node.protocols.varint import varint


class BlocksByCid(Protocol):
    def get(self, cid: bytes, /) -> bytes | None: ...


def new_message() -> Any:
    from libp2p.bitswap.pb.bitswap_pb2 import Message

    message = Message()
    message.wantlist.full = False
    return message


def wanting(*cids: bytes, have: bool = False) -> Any:
    message = new_message()
    for cid in cids:
        message.wantlist.entries.add(block=cid, priority=1, wantType=int(have), sendDontHave=True)
    return message


def framed(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return varint(len(data)) + data


async def messages(stream: PeerStream) -> AsyncIterator[Any]:
    """The messages of a stream to its end."""
    waiting = b""
    while data := await stream.receive_some():
        waiting += data
        while (place := _first(waiting)) is not None and place[1] <= len(waiting):
            message = new_message()
            message.ParseFromString(waiting[slice(*place)])
            waiting = waiting[place[1] :]
            yield message


def _first(data: bytes) -> tuple[int, int] | None:
    """Where the first message begins and ends; None when not even its length is there."""
    length = shift = 0
    for at, byte in enumerate(data):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return at + 1, at + 1 + length
    return None


class IpfsPeer:
    """As Kubo from 0.37 on: all that it says goes over the one stream that it opened first."""

    def __init__(self, host: Host, blocks: BlocksByCid) -> None:
        self.host = host
        self.blocks = blocks
        self._heard, self.heard = trio.open_memory_channel[Any](1000)
        self.wants: list[bytes] = []
        self._streams: dict[str, PeerStream] = {}
        host.on_stream(PROTOCOL_ID, self._listen)

    @property
    def address(self) -> str:
        return self.host.addresses()[0]

    async def stream(self, peer_id: str) -> PeerStream:
        if peer_id not in self._streams:
            self._streams[peer_id] = await self.host.open_stream(peer_id, PROTOCOL_ID)
        return self._streams[peer_id]

    async def say(self, peer_id: str, message: Any) -> None:
        await (await self.stream(peer_id)).send_all(framed(message))

    def begin_anew(self) -> None:
        """The next message goes over another stream."""
        self._streams.clear()

    async def answer(self, peer_id: str, message: Any) -> None:
        for entry in message.wantlist.entries:
            if entry.cancel:
                continue
            self.wants.append(entry.block)
            reply = new_message()
            if (block := self.blocks.get(entry.block)) is not None:
                reply.payload.add(prefix=entry.block[:-32], data=block)
            else:
                reply.blockPresences.add(cid=entry.block, type=1)
            await self.say(peer_id, reply)

    async def _listen(self, stream: PeerStream) -> None:
        async for message in messages(stream):
            assert message.HasField("wantlist")
            self._heard.send_nowait(message)
            await self.answer(stream.peer_id, message)


class Deaf(IpfsPeer):
    """Takes streams, and reads nothing."""

    async def _listen(self, stream: PeerStream) -> None:  # noqa: ARG002
        await trio.sleep_forever()


@asynccontextmanager
async def ipfs_peer(
    folder: Path, blocks: BlocksByCid | None = None, kind: type[IpfsPeer] = IpfsPeer
) -> AsyncIterator[IpfsPeer]:
    """One that listens on loopback; its identity is kept in `folder`."""
    host = Host(identity.load_or_create(folder / f"{os.urandom(4).hex()}.key"))
    host.guest = lambda _peer_id: Guest.SOURCE  # keeps connections, and takes as many streams as there may be
    async with host.listening(["/ip4/127.0.0.1/tcp/0"]):
        yield kind(host, {} if blocks is None else blocks)
