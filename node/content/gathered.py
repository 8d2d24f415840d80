"""What is known of a model's DAG while and after it is walked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from .cid import RAW, V1_DAG_PB, inline_of, is_raw
from .leaves import BARE, DIGEST, Wrap, wrap_of
from .unixfs import MAX_BLOCK, Link, Node, decode

MAX_INNER_NODES: Final = 100_000
#: A leaf's wrapping has up to 34 bytes, a node with one link below it over 50.
_MAX_WRAPPING: Final = 48


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that was met: how many bytes of the file it has, and how its block is made of them."""

    length: int
    wrap: Wrap


@dataclass
class Gathered:
    """By CID the blocks of nodes with links, of folders and of links, and what is known of leaves that were met.

    `found` has blocks of leaves by digest, which nobody needs to be asked for.
    """

    nodes: dict[bytes, bytes] = field(default_factory=dict)
    leaves: dict[bytes, Leaf] = field(default_factory=dict)
    found: dict[bytes, bytes] = field(default_factory=dict)
    _own: dict[bytes, Leaf] = field(default_factory=dict)
    #: A node may be named often: the last few are not decoded again each time.
    _decode: Callable[[bytes], Node] = field(default_factory=lambda: lru_cache(maxsize=16)(decode))

    def look(self, cid: bytes) -> Node | Leaf | None:
        """What a CID is that was met, or has its block in it; None for one that was not met."""
        if (leaf := self.leaves.get(cid)) is not None:
            return leaf
        if (block := self.nodes.get(cid)) is not None:
            return self._decode(block)
        inline = inline_of(cid)
        return None if inline is None else read(V1_DAG_PB, cid[1], inline)

    def own_bytes(self, cid: bytes, node: Node) -> Leaf:
        """The bytes of the file that a node with links has itself: a leaf whose block is that node's."""
        if (leaf := self._own.get(cid)) is None:
            inline = inline_of(cid)
            start, block = (cid[:-DIGEST], self.nodes[cid]) if inline is None else (V1_DAG_PB, inline)
            leaf = self._own[cid] = Leaf(len(node.data), wrap_of(start, block, node.data))
        return leaf


def read(start: bytes, codec: int, block: bytes) -> Node | Leaf:
    """A block whose CID has that codec, and begins so. Raises AccelError hostile-content."""
    if codec == RAW:
        return Leaf(len(block), BARE)
    node = decode(block)
    return Leaf(len(node.data), wrap_of(start, block, node.data)) if node.is_leaf else node


def digest_of(cid: bytes) -> bytes:
    """The SHA-256 digest of the block that a CID names, or has in it."""
    inline = inline_of(cid)
    return cid[-DIGEST:] if inline is None else hashlib.sha256(inline).digest()


def looks_like_leaf(link: Link, size: int) -> bool:
    """Whether a link of a file's node, with `size` bytes of the file below it, is presumed to lead to a dag-pb leaf."""
    fits = size <= MAX_BLOCK and link.size - size < _MAX_WRAPPING
    return fits and not is_raw(link.cid) and inline_of(link.cid) is None


def refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "The content is not a sound UnixFS folder.")
