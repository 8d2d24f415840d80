"""Builds UnixFS DAGs of every make there is, and some that there should not be, apart from the code that reads them.

Written after the specifications (IPLD dag-pb, UnixFS) and Kubo's importers; it knows nothing of the node's encoders.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ipfs_accel_node.node.content.murmur3 import hamt_hash

#: What a folder has, by name: a file's bytes, a symbolic link's target, or a folder.
Tree = Mapping[str, Any]

RAW, DIRECTORY, FILE, SYMLINK, HAMT = 0, 1, 2, 4, 5


def number(value: int) -> bytes:
    """A protobuf varint."""
    low = bytes([value & 127 | (128 if value > 127 else 0)])
    return low + (number(value >> 7) if value > 127 else b"")


def told(place: int, value: int) -> bytes:
    return number(place * 8) + number(value)


def held(place: int, value: bytes) -> bytes:
    return number(place * 8 + 2) + number(len(value)) + value


def dag_pb(links: Sequence[tuple[bytes, str, int]], data: bytes) -> bytes:
    """A node: links are (CID, name, Tsize)."""
    named = (held(1, cid) + held(2, name.encode()) + told(3, size) for cid, name, size in links)
    return b"".join(held(2, link) for link in named) + held(1, data)


@dataclass(frozen=True)
class Make:
    """How files and folders become blocks.

    `chunk` bytes a leaf, or up to that many by chance; `width` links a node; `layout` balanced, trickle or ragged;
    CID `version`; `leaves` raw, or wrapped as file, data, unsized, packed or odd; folders sharded by `fanout`; blocks
    up to `inline` bytes go into their CIDs; inner nodes have `own` bytes; `sizes` of links true, none or wrong.
    """

    chunk: int = 256
    varying: bool = False
    width: int = 3
    layout: str = "balanced"
    version: int = 1
    leaves: str = "raw"
    fanout: int = 0
    inline: int = 0
    own: int = 0
    sizes: str = "true"
    mtime: bool = False


@dataclass(frozen=True)
class Part:
    """A block that is there: `size` bytes of a file are below it, `total` bytes of blocks."""

    cid: bytes
    size: int
    total: int


@dataclass
class Builder:
    """Puts what it builds into `blocks`, by CID; `leaves` are the CIDs of those with bytes of files and no links."""

    make: Make
    blocks: dict[bytes, bytes] = field(default_factory=dict)
    leaves: set[bytes] = field(default_factory=set)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def root(self, tree: Tree) -> bytes:
        """The CID of the folder; a model's is never in its CID, whatever `inline` says."""
        cid = self.folder(tree).cid
        if cid[:1] != b"\x01" or cid[2]:
            return cid
        block = cid[-(cid[3] if cid[3] < 128 else 128) :]
        named = bytes((1, 0x70)) + b"\x12\x20" + hashlib.sha256(block).digest()
        self.blocks[named] = block
        return named

    # --- folders

    def folder(self, tree: Tree) -> Part:
        entries = [(name, self.entry(tree[name])) for name in sorted(tree, key=str.encode)]
        if self.make.fanout:
            return self.shard([(hamt_hash(name), name, part) for name, part in entries], 0)
        return self.node([(part, name) for name, part in entries], told(1, DIRECTORY) + self.times(), 0)

    def entry(self, content: Any) -> Part:
        if isinstance(content, str):
            return self.node([], told(1, SYMLINK) + held(2, content.encode()) + self.times(), 0)
        return self.file(content) if isinstance(content, bytes) else self.folder(content)

    def shard(self, entries: Sequence[tuple[int, str, Part]], used: int) -> Part:
        bits = self.make.fanout.bit_length() - 1
        width = len(f"{self.make.fanout - 1:X}")
        places: dict[int, list[tuple[int, str, Part]]] = {}
        for entry in entries:
            places.setdefault(entry[0] << used + bits >> 64 & self.make.fanout - 1, []).append(entry)
        links, taken = [], 0
        for place in sorted(places):
            (_, name, part), *more = places[place]
            taken |= 1 << place
            below = self.shard(places[place], used + bits) if more else part
            links.append((below, f"{place:0{width}X}{'' if more else name}"))
        bitfield = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
        return self.node(links, told(1, HAMT) + held(2, bitfield) + told(5, 0x22) + told(6, self.make.fanout), 0)

    # --- files

    def file(self, content: bytes) -> Part:
        leaves = [self.leaf(chunk) for chunk in self.chunks(content)]
        if len(leaves) == 1:
            return leaves[0]
        if self.make.layout == "trickle":
            return self.trickle(iter(leaves), 4)
        return self.ragged(leaves) if self.make.layout == "ragged" else self.balanced(leaves)

    def chunks(self, content: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(content) or at == 0:
            size = self.chance.randint(1, self.make.chunk) if self.make.varying else self.make.chunk
            yield content[at : at + size]
            at += size

    def leaf(self, chunk: bytes) -> Part:
        kind = self.make.leaves
        if kind == "raw":
            return self.keep(0x55, chunk, len(chunk), 0, leaf=True)
        data = held(2, chunk) if chunk else b""
        size = b"" if kind == "unsized" else told(3, len(chunk))
        wrapped = told(1, RAW if kind == "data" else FILE) + data + size
        if kind == "odd":
            wrapped = size + data + told(1, FILE)
        return self.keep(0x70, dag_pb([], wrapped + self.times()), len(chunk), 0, leaf=True)

    def balanced(self, parts: list[Part]) -> Part:
        while len(parts) > 1:
            parts = [self.join(parts[at : at + self.make.width]) for at in range(0, len(parts), self.make.width)]
        return parts[0]

    def ragged(self, parts: list[Part]) -> Part:
        """Each node has leaves, and one node with all that follow."""
        if len(parts) <= self.make.width:
            return self.join(parts)
        return self.join([*parts[: self.make.width], self.ragged(parts[self.make.width :])])

    def trickle(self, leaves: Iterator[Part], depth: int) -> Part:
        below = list(islice(leaves, self.make.width))
        for deeper in range(1, depth):
            for _ in range(2):
                first = next(leaves, None)
                if first is not None:
                    below.append(self.trickle(self.again(first, leaves), deeper))
        if depth == 4:
            while (first := next(leaves, None)) is not None:
                below.append(self.trickle(self.again(first, leaves), 3))
        return self.join(below)

    @staticmethod
    def again(first: Part, rest: Iterator[Part]) -> Iterator[Part]:
        yield first
        yield from rest

    def join(self, parts: list[Part]) -> Part:
        own = self.chance.randbytes(self.make.own)
        return self.joined(parts, own)

    def joined(self, parts: Sequence[Part], own: bytes = b"") -> Part:
        size = len(own) + sum(part.size for part in parts)
        below = b"".join(told(4, part.size) for part in parts)
        if self.make.leaves == "packed":
            below = held(4, b"".join(number(part.size) for part in parts))
        data = told(1, FILE) + (held(2, own) if own else b"") + told(3, size) + below
        return self.node([(part, "") for part in parts], data, size)

    # --- blocks

    def times(self) -> bytes:
        """Mode and time of change, as UnixFS 1.5 has them."""
        return told(7, 0o644) + held(8, told(1, 1_700_000_000)) if self.make.mtime else b""

    def node(self, links: Sequence[tuple[Part, str]], data: bytes, size: int) -> Part:
        linked = [(part.cid, name, self.tsize(part)) for part, name in links]
        return self.keep(0x70, dag_pb(linked, data), size, sum(part.total for part, _ in links))

    def tsize(self, part: Part) -> int:
        if self.make.sizes == "none":
            return 0
        return (
            part.total if self.make.sizes == "true" else self.chance.choice([0, 1, part.size, part.size + 99, 1 << 62])
        )

    def keep(self, codec: int, block: bytes, size: int, below: int, *, leaf: bool = False) -> Part:
        digest = hashlib.sha256(block).digest()
        if len(block) <= self.make.inline:
            return Part(bytes((1, codec, 0)) + number(len(block)) + block, size, len(block) + below)
        cid = (b"" if self.make.version == 0 and codec == 0x70 else bytes((1, codec))) + b"\x12\x20" + digest
        self.blocks[cid] = block
        if leaf:
            self.leaves.add(cid)
        return Part(cid, size, len(block) + below)
