"""Bytes over one libp2p stream between two processes, with everything that this project mends of py-libp2p: no blocks,
no hashing, no disk. What a transfer over links could reach at its best."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
from ipfs_accel_node.node.mesh.host import Host
from ipfs_accel_node.node.mesh.identity import Identity, load_or_create
from ipfs_accel_node.node.mesh.streams import PIECE, PeerStream

_PROTOCOL = "/ipfs-accel-node/bench/1.0.0"
_MIB = 1 << 20


def rate(size: int) -> float:
    """MiB a second of `size` bytes."""
    command = [sys.executable, "-m", "bench.raw_link", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        try:
            address = json.loads(sender.stdout.readline())
            return size / _MIB / trio.run(_receive, address, size)
        finally:
            sender.kill()


async def _receive(address: str, size: int) -> float:
    host = Host(_anybody())
    async with host.listening(["/ip4/127.0.0.1/tcp/0"]):
        stream = await host.open_stream(await host.connect(address), _PROTOCOL)
        await stream.widen()
        began = time.perf_counter()
        while size > 0 and (data := await stream.receive_some()):
            size -= len(data)
        return time.perf_counter() - began


async def _send(size: int) -> None:
    host = Host(_anybody())
    piece = bytes(PIECE)

    async def pour(stream: PeerStream) -> None:
        for _ in range(0, size, PIECE):
            await stream.send_all(piece)
        await trio.sleep_forever()

    host.on_stream(_PROTOCOL, pour)
    async with host.listening(["/ip4/127.0.0.1/tcp/0"]):
        print(json.dumps(host.addresses()[0]), flush=True)
        await trio.sleep_forever()


def _anybody() -> Identity:
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        return load_or_create(Path(folder) / "identity.key")


if __name__ == "__main__":
    trio.run(_send, int(sys.argv[1]))
