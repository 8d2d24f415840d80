"""The leaves of a file: their digests, how long each is, and how its block is made of the file's bytes.

A leaf's block is `head + bytes of the file + tail`. A raw leaf has neither; a dag-pb leaf has its bytes in a UnixFS
message. What is alike is kept once for as many leaves as follow each other, so a file of equal chunks takes 32 bytes
a leaf, and one whose chunks all differ 56.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from ...protocols.varint import varint
from .cid import V0, V1_DAG_PB, V1_RAW
from .unixfs import FILE, RAW_DATA

DIGEST: Final = 32
#: What there is before the digest in the CID of a leaf.
STARTS: Final = (V1_RAW, V1_DAG_PB, V0)


@dataclass(frozen=True, slots=True)
class Wrap:
    """How a leaf's block is made of its bytes, and its CID of its digest.

    `start` is what comes before the digest in the CID. With a `kind` (UnixFS type 2 File or 0 Raw) head and tail are
    what Kubo and the JavaScript importer write around that many bytes, `sized` with their number at the end; without
    one they are `head` and `tail` as they stand.
    """

    start: bytes = V1_RAW
    kind: int | None = None
    sized: bool = True
    head: bytes = b""
    tail: bytes = b""

    def around(self, length: int) -> tuple[bytes, bytes]:
        """(head, tail) of a block that has `length` bytes of the file."""
        return (self.head, self.tail) if self.kind is None else _around(self.kind, self.sized, length)

    def block_size(self, length: int) -> int:
        """The bytes of a block that has `length` bytes of the file."""
        head, tail = self.around(length)
        return len(head) + length + len(tail)

    def digest(self, data: bytes | memoryview) -> bytes:
        """The SHA-256 digest of the block around these bytes, which are not copied."""
        head, tail = self.around(len(data))
        hashed = hashlib.sha256(head)
        hashed.update(data)
        hashed.update(tail)
        return hashed.digest()


#: A raw leaf is its bytes.
BARE: Final = Wrap()


@lru_cache(maxsize=4096)
def _around(kind: int, sized: bool, length: int) -> tuple[bytes, bytes]:
    opening = b"\x08" + varint(kind) + (b"\x12" + varint(length) if length else b"")
    tail = b"\x18" + varint(length) if sized else b""
    return b"\x0a" + varint(len(opening) + length + len(tail)) + opening, tail


def wrap_of(start: bytes, block: bytes, data: bytes) -> Wrap:
    """How `block`, whose CID begins with `start`, is made of the file's bytes `data`, which are in it."""
    for kind in (FILE, RAW_DATA):
        for sized in (True, False):
            wrap = Wrap(start, kind, sized)
            if unwrap(block, wrap.around(len(data)), len(data)) is not None:
                return wrap
    at = block.find(data)
    return Wrap(start, head=block[:at], tail=block[at + len(data) :])


def unwrap(block: bytes, around: tuple[bytes, bytes], length: int) -> bytes | None:
    """The file's bytes in a block of that make; None for a block of another."""
    head, tail = around
    if len(block) != len(head) + length + len(tail) or not (block.startswith(head) and block.endswith(tail)):
        return None
    return block[len(head) : len(head) + length] if head or tail else block


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its path in the folder, its size, and its leaves in order; an empty file has one empty leaf at least.

    `digests` are the SHA-256 digests of the leaves' blocks, joined. Leaf `firsts[r]` and those up to the next run
    have `lengths[r]` bytes each, lie one after the other from `offsets[r]` on, and are made as `wraps[r]` says. A leaf
    whose block is in its CID goes by that block's digest, as if it were not.
    """

    path: str
    size: int
    digests: bytes
    firsts: array[int]
    offsets: array[int]
    lengths: array[int]
    wraps: list[Wrap]

    @property
    def leaf_count(self) -> int:
        return len(self.digests) // DIGEST

    @property
    def chunk(self) -> int:
        """The most bytes of the file that one leaf has."""
        return max(self.lengths)

    def digest(self, number: int) -> bytes:
        return self.digests[number * DIGEST : (number + 1) * DIGEST]

    def cid(self, number: int) -> bytes:
        """The binary CID of leaf `number`, of the version and codec that its link had."""
        return self.wrap(number).start + self.digest(number)

    def wrap(self, number: int) -> Wrap:
        return self.wraps[bisect_right(self.firsts, number) - 1]

    def extent(self, number: int) -> tuple[int, int]:
        """Where in the file leaf `number` lies: (offset, length) in bytes."""
        run = bisect_right(self.firsts, number) - 1
        length = self.lengths[run]
        return self.offsets[run] + (number - self.firsts[run]) * length, length

    def block(self, number: int, data: bytes) -> bytes:
        """The block of leaf `number`, given the bytes at its extent."""
        head, tail = self.wrap(number).around(len(data))
        return b"".join((head, data, tail)) if head or tail else data

    def data(self, number: int, block: bytes) -> bytes | None:
        """The bytes at the extent of leaf `number`, given its block; None when the block is made in another way."""
        length = self.extent(number)[1]
        return unwrap(block, self.wrap(number).around(length), length)

    def find(self, digest: bytes) -> int | None:
        """The number of the first leaf of that digest. It looks through all of them."""
        at = self.digests.find(digest)
        while at % DIGEST:
            if at < 0:
                return None
            at = self.digests.find(digest, at + 1)
        return at // DIGEST

    def split(self) -> Iterator[bytes]:
        """The digests, one by one."""
        return (self.digests[at : at + DIGEST] for at in range(0, len(self.digests), DIGEST))

    def runs(self) -> Iterator[tuple[int, int, Wrap]]:
        """(leaves, bytes each, how they are made) of each run."""
        ends = [*self.firsts[1:], self.leaf_count]
        counts = (end - first for first, end in zip(self.firsts, ends, strict=True))
        return zip(counts, self.lengths, self.wraps, strict=True)


@dataclass
class Leaves:
    """Makes a `FileEntry` of its leaves, given one by one or many alike at once."""

    path: str
    size: int = 0
    _digests: bytearray = field(default_factory=bytearray)
    _firsts: array[int] = field(default_factory=lambda: array("I"))
    _offsets: array[int] = field(default_factory=lambda: array("Q"))
    _lengths: array[int] = field(default_factory=lambda: array("I"))
    _wraps: list[Wrap] = field(default_factory=list)

    def add(self, digests: bytes, length: int, wrap: Wrap = BARE) -> None:
        """Takes one leaf, or several of that length and make: the digests of their blocks, joined."""
        if not self._wraps or self._lengths[-1] != length or not _same(self._wraps[-1], wrap):
            self._firsts.append(len(self._digests) // DIGEST)
            self._offsets.append(self.size)
            self._lengths.append(length)
            self._wraps.append(wrap)
        self._digests += digests
        self.size += length * (len(digests) // DIGEST)

    def entry(self) -> FileEntry:
        return FileEntry(
            self.path, self.size, bytes(self._digests), self._firsts, self._offsets, self._lengths, self._wraps
        )


def _same(wrap: Wrap, other: Wrap) -> bool:
    return wrap is other or wrap == other  # comparing fields takes as long as all else about a leaf
