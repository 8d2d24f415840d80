"""The files, symbolic links and folders that a walked DAG makes.

A node may be named many times, so what is counted is every link that is followed, not every block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from .cid import is_raw
from .contents import Contents
from .gathered import MAX_INNER_NODES, Gathered, Leaf, digest_of, looks_like_leaf, refuse
from .leaves import BARE, DIGEST, Leaves, Wrap
from .local_folder import MAX_DEPTH, MAX_ENTRIES
from .sharded import Shard, read_shard
from .symlinks import check_links
from .unixfs import DIRECTORY, FILE, HAMT, MAX_BLOCK, MAX_PATH, SYMLINK, Link, Node

_MAX_LEAVES: Final = 2_000_000
#: Nodes that are named again are looked through again: eight times what they may take together.
_MAX_NODE_BYTES: Final = 1 << 30
_FOLDERS: Final = (DIRECTORY, HAMT)


class Listing:
    """Made for one call of `contents`."""

    def __init__(self, root: bytes, gathered: Gathered) -> None:
        self._contents = Contents(root, nodes=gathered.nodes)
        self._gathered = gathered
        self._folders = {""}
        self._inner_nodes = self._node_bytes = self._leaves = self._entries = 0

    def contents(self) -> Contents:
        """Raises AccelError hostile-content, or not-a-model for anything but a folder that has files."""
        contents, root = self._contents, self._look(self._contents.root)
        if not isinstance(root, Node) or root.kind not in _FOLDERS:
            raise AccelError(
                ErrorCode.NOT_A_MODEL, "this CID names a file, and a model's CID names a folder", "Add its folder."
            )
        self._list_folder(root, "", 0)
        if not contents.files:
            raise AccelError(ErrorCode.NOT_A_MODEL, "the folder has no files in it", "Check the CID.")
        check_links(contents.links, {file.path for file in contents.files}, self._folders)
        return contents

    def _look(self, cid: bytes) -> Node | Leaf | None:
        known = self._gathered.look(cid)
        if isinstance(known, Node):
            self._inner_nodes += 1
            self._node_bytes += len(self._gathered.nodes.get(cid, b""))
            if self._inner_nodes > MAX_INNER_NODES or self._node_bytes > _MAX_NODE_BYTES:
                refuse("the folder has too many nodes")
        return known

    # --- folders

    def _list_folder(self, folder: Node, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            refuse(f"folders are nested deeper than {MAX_DEPTH}")
        before = self._entries
        for link in self._entries_of(folder):
            self._entries += 1
            path = prefix + link.name
            if self._entries > MAX_ENTRIES or len(path.encode()) > MAX_PATH:
                refuse(f"the folder has over {MAX_ENTRIES} entries, or a path over {MAX_PATH} bytes")
            self._list_entry(link, path, depth)
        if self._entries == before and prefix:
            self._contents.empty_folders.append(prefix[:-1])

    def _entries_of(self, folder: Node) -> Iterator[Link]:
        return iter(folder.links) if folder.kind == DIRECTORY else self._entries_below(folder, Shard(folder.fanout))

    def _entries_below(self, node: Node, shard: Shard) -> Iterator[Link]:
        for link, below in read_shard(node, shard):
            if below is None:
                yield link
                continue
            inner = self._look(link.cid)
            if not isinstance(inner, Node) or inner.kind != HAMT:
                refuse("a folder's shard has something else below it")
            yield from self._entries_below(inner, below)

    def _list_entry(self, link: Link, path: str, depth: int) -> None:
        """A small file is one leaf. Of a raw one that was not met only the folder's link tells the size."""
        known = self._look(link.cid) or Leaf(link.size, BARE)
        if isinstance(known, Leaf):
            leaves = Leaves(path)
            self._add_leaf(link.cid, known, leaves)
            self._contents.files.append(leaves.entry())
        elif known.kind == SYMLINK:
            self._contents.links[path] = known.data.decode()
        elif known.kind in _FOLDERS:
            self._folders.add(path)
            self._list_folder(known, path + "/", depth + 1)
        else:
            leaves = Leaves(path)
            self._list_parts(link.cid, known, leaves, 0)
            self._contents.files.append(leaves.entry())

    # --- files

    def _list_parts(self, cid: bytes, node: Node, leaves: Leaves, depth: int) -> None:
        """A node's own bytes, which are seldom there, come before those below it."""
        if depth > MAX_DEPTH:
            refuse(f"{leaves.path} is nested too deep")
        if node.data:
            self._add_leaf(cid, self._gathered.own_bytes(cid, node), leaves)
        presumed: Wrap | None = None
        for link, size in zip(node.links, node.block_sizes, strict=True):
            known = self._look(link.cid)
            if known is None and not is_raw(link.cid):
                presumed = presumed or self._presume(node)
                known = Leaf(size, _beginning_with(link.cid[:-DIGEST], presumed))
            self._list_part(link.cid, known or Leaf(size, BARE), size, leaves, depth)

    def _list_part(self, cid: bytes, known: Node | Leaf, size: int, leaves: Leaves, depth: int) -> None:
        if isinstance(known, Leaf):
            if known.length != size:
                refuse(f"a leaf of {leaves.path} has {known.length} bytes, and is said to have {size}")
            self._add_leaf(cid, known, leaves)
        elif known.kind != FILE or known.file_size != size:
            refuse(f"the sizes of the parts of {leaves.path} do not add up, or one is no part of a file")
        else:
            self._list_parts(cid, known, leaves, depth + 1)

    def _presume(self, node: Node) -> Wrap:
        """How the first of those links that look like leaves is made: it was asked for."""
        for link, size in zip(node.links, node.block_sizes, strict=True):
            if looks_like_leaf(link, size):
                first = self._gathered.look(link.cid)
                if isinstance(first, Leaf):
                    return first.wrap
                break
        refuse("a file has a part that nothing is known of")

    def _add_leaf(self, cid: bytes, leaf: Leaf, leaves: Leaves) -> None:
        self._leaves += 1
        if self._leaves > _MAX_LEAVES or leaf.length > MAX_BLOCK:
            refuse("the folder has too many leaves, or one over 2 MiB")
        leaves.add(digest_of(cid), leaf.length, leaf.wrap)


def _beginning_with(start: bytes, wrap: Wrap) -> Wrap:
    return wrap if wrap.start == start else replace(wrap, start=start)
