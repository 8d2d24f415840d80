"""A model's DAG as its blocks come in: which blocks are still wanted, and in the end which files they make.

Pure: it is given blocks that match their CIDs and refuses what is hostile before any disk is spent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from .cid import DAG_PB, RAW, parts
from .importer import Imported, ImportedFile
from .unixfs import DIRECTORY, Node, decode

_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 100_000
_MAX_FILES: Final = 10_000
_MAX_CHUNK: Final = 2 << 20


@dataclass
class _File:
    """A file whose leaves are being listed: parts not yet opened stand in their order among the leaves."""

    path: str
    size: int
    leaves: list[tuple[bytes, int]] = field(default_factory=list)


class DagWalk:
    """Give it the blocks in `wanted()` until there are none; then `finished()` is the model without its leaves."""

    def __init__(self, root: bytes) -> None:
        if parts(root).codec != DAG_PB:
            _refuse("a model's CID names a folder, and this one names a single block")
        self._root = root
        self._nodes: dict[bytes, bytes] = {}
        self._decoded: dict[bytes, Node] = {}
        self._wanted: dict[bytes, None] = {root: None}

    def wanted(self) -> list[bytes]:
        return list(self._wanted)

    def add(self, cid: bytes, block: bytes) -> None:
        """Takes a block that was wanted. Raises AccelError hostile-content."""
        node = decode(block)
        self._nodes[cid] = block
        self._decoded[cid] = node
        del self._wanted[cid]
        if cid == self._root and node.kind != DIRECTORY:
            _refuse("a model's CID names a folder, and this one names a file")
        for link in node.links:
            inner = parts(link.cid)
            if inner.codec == DAG_PB and link.cid not in self._nodes and link.cid not in self._wanted:
                self._want(link.cid, inner.inline)
        if len(self._nodes) + len(self._wanted) > _MAX_NODES:
            _refuse(f"the folder has over {_MAX_NODES} nodes")

    def _want(self, cid: bytes, inline: bytes | None) -> None:
        self._wanted[cid] = None
        if inline is not None:
            self.add(cid, inline)

    def finished(self) -> Imported:
        """The model's files with their leaves in order, and its nodes. Raises AccelError hostile-content."""
        imported = Imported(self._root, [], self._nodes)
        self._list_folder(self._root, "", imported, 0)
        if not imported.files:
            _refuse("the folder has no files")
        return imported

    def _list_folder(self, cid: bytes, prefix: str, imported: Imported, depth: int) -> None:
        if depth > _MAX_DEPTH:
            _refuse(f"folders are nested deeper than {_MAX_DEPTH}")
        for link in self._decoded[cid].links:
            node = self._decoded.get(link.cid)
            if node is not None and node.kind == DIRECTORY:
                self._list_folder(link.cid, f"{prefix}{link.name}/", imported, depth + 1)
            else:
                imported.files.append(self._file(prefix + link.name, link.cid, link.size, node))
            if len(imported.files) > _MAX_FILES:
                _refuse(f"the folder has over {_MAX_FILES} files")

    def _file(self, path: str, cid: bytes, size: int, node: Node | None) -> ImportedFile:
        """A small file is one raw leaf, whose size the folder's link tells; a large one is a tree of them."""
        file = _File(path, size if node is None else node.file_size)
        self._list_leaves(cid, file.size, file, 0)
        sizes = [length for _, length in file.leaves]
        chunk = sizes[0] if sizes else _MAX_CHUNK
        if any(length != chunk for length in sizes[:-1]) or (sizes and sizes[-1] > chunk) or chunk > _MAX_CHUNK:
            _refuse(f"the chunks of {path} differ in size, or are over 2 MiB")
        return ImportedFile(path, file.size, [leaf for leaf, _ in file.leaves], max(chunk, 1))

    def _list_leaves(self, cid: bytes, size: int, file: _File, depth: int) -> None:
        if depth > _MAX_DEPTH or len(file.leaves) > _MAX_NODES * 64:
            _refuse(f"{file.path} is nested too deep, or has too many chunks")
        if parts(cid).codec == RAW:
            file.leaves.append((cid, size))
            return
        node = self._decoded[cid]
        if node.kind == DIRECTORY or node.data or node.file_size != size:
            _refuse(f"{file.path} is no file of raw chunks whose sizes add up")
        for link, inner_size in zip(node.links, node.block_sizes, strict=True):
            self._list_leaves(link.cid, inner_size, file, depth + 1)


def _refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "Import the folder anew: model add FOLDER.")
