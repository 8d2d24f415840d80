"""A model's DAG as its nodes come in: which are still wanted, and in the end which files they make.

Pure: it is given blocks that match their CIDs, and refuses what is hostile before any disk is spent. A node may be
named many times, so what is counted is every link that is followed, not every block.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from .cid import DAG_PB, RAW, Parts, parts
from .contents import Contents
from .importer import MAX_DEPTH, MAX_ENTRIES, MAX_PATH
from .leaves import Leaves
from .unixfs import DIRECTORY, MAX_BLOCK, MAX_SIZE, Node, decode

#: What the nodes of a model may take together; its leaves' nodes are 48 bytes a leaf.
_MAX_NODE_BYTES: Final = 128 << 20
_MAX_INNER_NODES: Final = 100_000
_MAX_LEAVES: Final = 2_000_000
_EMPTY: Final = hashlib.sha256(b"").digest()


class DagWalk:
    """Give it the blocks in `wanted()` until there are none; then `finished()` is the model without its leaves."""

    def __init__(self, root: bytes) -> None:
        """Raises AccelError bad-cid, or not-a-model for the CID of a single block."""
        named = parts(root)
        if named.codec != DAG_PB:
            raise AccelError(
                ErrorCode.NOT_A_MODEL,
                "this CID names a single block, and a model's CID names a folder",
                "Use the CID that `model add FOLDER` printed.",
            )
        self._contents = Contents(root)
        self._wanted: dict[bytes, None] = {}
        self._node_bytes = 0
        self._inner_nodes = self._leaves = self._entries = 0
        #: Leaves whose bytes are in their CIDs, by digest: nobody needs to be asked for them.
        self.inline: dict[bytes, bytes] = {}
        #: A node may be named often: the last few are not decoded again each time.
        self._decode = lru_cache(maxsize=16)(decode)
        self._want(root, named)

    def wanted(self) -> list[bytes]:
        return list(self._wanted)

    def add(self, cid: bytes, block: bytes) -> None:
        """Takes a block that was wanted. Raises AccelError hostile-content."""
        del self._wanted[cid]
        self._contents.nodes[cid] = block
        self._node_bytes += len(block)
        self._follow(decode(block))
        if self._node_bytes > _MAX_NODE_BYTES or len(self._contents.nodes) + len(self._wanted) > _MAX_INNER_NODES:
            _refuse("the folder has too many nodes")

    def _follow(self, node: Node) -> None:
        for link in node.links:
            named = parts(link.cid)
            if named.codec == DAG_PB and link.cid not in self._contents.nodes:
                self._want(link.cid, named)

    def _want(self, cid: bytes, named: Parts) -> None:
        if named.inline is None:
            self._wanted[cid] = None
        else:
            self._follow(decode(named.inline))

    def finished(self) -> Contents:
        """The model's files with their leaves in order, and its nodes. Raises AccelError hostile-content and others."""
        root = self._node(self._contents.root, parts(self._contents.root))
        if root.kind != DIRECTORY:
            raise AccelError(
                ErrorCode.NOT_A_MODEL, "this CID names a file, and a model's CID names a folder", "Add its folder."
            )
        self._list_folder(root, "", 0)
        if not self._contents.files:
            raise AccelError(ErrorCode.NOT_A_MODEL, "the folder has no files in it", "Check the CID.")
        if self._contents.size > MAX_SIZE:
            _refuse("the folder's size is absurd")
        return self._contents

    def _node(self, cid: bytes, named: Parts) -> Node:
        self._inner_nodes += 1
        if self._inner_nodes > _MAX_INNER_NODES:
            _refuse("the folder has too many nodes")
        return self._decode(self._contents.nodes[cid] if named.inline is None else named.inline)

    def _list_folder(self, folder: Node, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            _refuse(f"folders are nested deeper than {MAX_DEPTH}")
        for link in folder.links:
            self._entries += 1
            path = prefix + link.name
            if self._entries > MAX_ENTRIES or len(path.encode()) > MAX_PATH:
                _refuse(f"the folder has over {MAX_ENTRIES} entries, or a path over {MAX_PATH} bytes")
            self._list_entry(link.cid, path, link.size, depth)
        if not folder.links and prefix:
            self._contents.empty_folders.append(prefix[:-1])

    def _list_entry(self, cid: bytes, path: str, total: int, depth: int) -> None:
        """A small file is one raw leaf, whose size the folder's link tells; a large one is a tree of them."""
        named = parts(cid)
        leaves = Leaves(path)
        if named.codec == RAW:
            self._list_leaf(named, total, leaves)
        else:
            node = self._node(cid, named)
            if node.kind == DIRECTORY:
                self._list_folder(node, path + "/", depth + 1)
                return
            self._list_leaves(node, leaves, 0)
            if not node.links:
                leaves.add(_EMPTY, 0)
        self._contents.files.append(leaves.entry())

    def _list_leaves(self, node: Node, leaves: Leaves, depth: int) -> None:
        if node.data:
            raise AccelError(
                ErrorCode.BAD_INPUT,
                f"{leaves.path} has its bytes wrapped in dag-pb leaves, which cannot be kept as plain files",
                "Add the folder again with CID version 1 and raw leaves.",
            )
        for link, size in zip(node.links, node.block_sizes, strict=True):
            named = parts(link.cid)
            if named.codec == RAW:
                self._list_leaf(named, size, leaves)
            else:
                self._list_inner(link.cid, named, size, leaves, depth + 1)

    def _list_inner(self, cid: bytes, named: Parts, size: int, leaves: Leaves, depth: int) -> None:
        inner = self._node(cid, named)
        if depth > MAX_DEPTH or inner.kind == DIRECTORY or inner.file_size != size:
            _refuse(f"{leaves.path} is nested too deep, or the sizes of its parts do not add up")
        self._list_leaves(inner, leaves, depth)

    def _list_leaf(self, named: Parts, length: int, leaves: Leaves) -> None:
        self._leaves += 1
        if self._leaves > _MAX_LEAVES or length > MAX_BLOCK:
            _refuse("the folder has too many leaves, or one over 2 MiB")
        digest = named.digest
        if digest is None:
            inline = named.inline or b""
            digest = hashlib.sha256(inline).digest()
            self.inline[digest] = inline
        leaves.add(digest, length)


def _refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "Import the folder anew: model add FOLDER.")
