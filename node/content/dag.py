"""A model's DAG as its nodes come in: which are still wanted, and which of them turn out to be leaves.

Pure: it is given blocks that match their CIDs. `listing` makes files of what is gathered here, and refuses what is
hostile before any disk is spent.

A CID does not tell a dag-pb leaf from a node with leaves below it, and a leaf's bytes are not to be fetched twice nor
held in memory. So what a link says of sizes is presumed: a leaf's block is hardly larger than its bytes. Of those
links of a node that look like leaves only the first is asked for, and shows how the others are made. When the others
come and are something else, the model is walked again and nothing is presumed: see `fetch`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from .cid import DAG_PB, inline_of, is_raw, parts
from .contents import Contents
from .gathered import MAX_INNER_NODES, Gathered, Leaf, digest_of, looks_like_leaf, read, refuse
from .leaves import DIGEST
from .listing import Listing
from .unixfs import FILE, MAX_BLOCK, Link, Node

#: What the nodes of a model may take together, and what is around the bytes of leaves: nodes are 50 bytes a leaf.
_MAX_NODE_BYTES: Final = 128 << 20
#: Nodes and leaves that are asked for while walking.
_MAX_ASKED: Final = 600_000
#: Leaves that were met are kept up to so many bytes, so that they need not be asked for again.
_MAX_FOUND: Final = 64 << 20
_EMPTY: Final = hashlib.sha256(b"").digest()


class DagWalk:
    """Give it the blocks in `wanted()` until there are none; then `finished()` is the model without its leaves.

    Without `presume` every dag-pb block is asked for, and leaves that no node tells the size of.
    """

    def __init__(self, root: bytes, *, presume: bool = True) -> None:
        """Raises AccelError bad-cid, or not-a-model for the CID of a single block."""
        named = parts(root)
        if named.codec != DAG_PB or named.digest is None:
            raise AccelError(
                ErrorCode.NOT_A_MODEL,
                "this CID names a single block, and a model's CID names a folder",
                "Use the CID that `model add FOLDER` printed.",
            )
        self._root = root
        self._presume = presume
        self._gathered = Gathered()
        self._wanted: dict[bytes, None] = {}
        self._node_bytes = self._found_bytes = self._inline = 0
        #: By the CID of a presumed leaf that is asked for those of the nodes whose others are presumed to be alike.
        self._alike: dict[bytes, list[bytes]] = {}
        self._want(root)

    @property
    def found(self) -> dict[bytes, bytes]:
        """Blocks of leaves that came along, by digest: they need not be asked for."""
        return self._gathered.found

    def wanted(self) -> list[bytes]:
        return list(self._wanted)

    def add(self, cid: bytes, block: bytes) -> None:
        """Takes a block that was wanted. Raises AccelError hostile-content."""
        del self._wanted[cid]
        known = read(cid[:-DIGEST], parts(cid).codec, block)
        if isinstance(known, Leaf):
            self._meet(cid, known, block)
        else:
            self._gathered.nodes[cid] = block
            self._node_bytes += len(block)
            self._follow(cid, known, block)
        for parent in self._alike.pop(cid, ()):
            self._check_alike(cid, parent)
        self._check_bounds()

    def _check_bounds(self) -> None:
        nodes, leaves = len(self._gathered.nodes), len(self._gathered.leaves)
        too_many = max(nodes, self._inline) > MAX_INNER_NODES or nodes + leaves + len(self._wanted) > _MAX_ASKED
        if too_many or self._node_bytes > _MAX_NODE_BYTES:
            refuse("the folder has too many nodes")

    def finished(self) -> Contents:
        """The model's files with their leaves in order, and its nodes. Raises AccelError hostile-content and others."""
        return Listing(self._root, self._gathered).contents()

    def _meet(self, cid: bytes, leaf: Leaf, block: bytes) -> None:
        self._gathered.leaves[cid] = leaf
        self._node_bytes += len(leaf.wrap.head) + len(leaf.wrap.tail)
        if self._found_bytes + len(block) <= _MAX_FOUND:
            self._found_bytes += len(block)
            self._gathered.found[cid[-DIGEST:]] = block

    def _follow(self, cid: bytes, node: Node, block: bytes) -> None:
        if node.kind != FILE:
            for link in node.links:
                self._follow_entry(link)
            return
        if node.data:
            self._gathered.found[digest_of(cid)] = block
        self._follow_parts(cid, node)

    def _follow_entry(self, link: Link) -> None:
        """A raw entry is a file of one leaf; only the link's Tsize tells how long it is."""
        named = parts(link.cid)
        told = 0 < link.size <= MAX_BLOCK or named.digest == _EMPTY
        if named.codec == DAG_PB or named.inline is not None or not (self._presume and told):
            self._want(link.cid)

    def _follow_parts(self, cid: bytes, node: Node) -> None:
        first: bytes | None = None
        for link, size in zip(node.links, node.block_sizes, strict=True):
            if self._presume and looks_like_leaf(link, size):
                first = first or link.cid
            elif not is_raw(link.cid) or inline_of(link.cid) is not None:
                self._want(link.cid)
        if first is not None:
            self._want(first)
            if first in self._wanted:
                self._alike.setdefault(first, []).append(cid)
            else:
                self._check_alike(first, cid)

    def _check_alike(self, first: bytes, parent: bytes) -> None:
        """Asks for the others as well when the first is no leaf, or is made in a way that tells nothing of them."""
        met, node = self._gathered.leaves.get(first), self._gathered.look(parent)
        if isinstance(node, Node) and (met is None or met.wrap.kind is None):
            for link, size in zip(node.links, node.block_sizes, strict=True):
                if looks_like_leaf(link, size):
                    self._want(link.cid)

    def _want(self, cid: bytes) -> None:
        if cid in self._gathered.nodes or cid in self._gathered.leaves:
            return
        inline = inline_of(cid)
        if inline is None:
            self._wanted[cid] = None
            return
        self._inline += 1
        known = self._gathered.look(cid)
        if isinstance(known, Node):
            self._follow(cid, known, inline)
        else:
            self._gathered.found[digest_of(cid)] = inline
