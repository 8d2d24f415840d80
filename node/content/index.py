"""From a block's CID to its bytes: nodes from memory, leaves out of the finished files and checked."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...protocols.errors import AccelError
from .cid import format_cid, parts
from .contents import Contents, leads_to
from .disk import read_at
from .leaves import FileEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _HeldFile:
    path: Path
    entry: FileEntry
    open: bool


class BlockIndex:
    """The blocks of all stored models. About 140 bytes of memory a leaf: 14 MB for 100 GB of models in 1 MiB chunks."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, bytes] = {}
        self._open_nodes: set[bytes] = set()
        #: By a leaf's digest where it is: the place of its file in `_files` << 32 | its number in that file.
        self._holders: dict[bytes, int] = {}
        self._files: list[_HeldFile] = []
        self._damaged: set[bytes] = set()

    def add(self, folder: Path, contents: Contents, *, is_open: bool = True) -> None:
        """`is_open` says that the blocks may go to anybody. Raises AccelError bad-cid when it names nodes wrongly."""
        for cid, block in contents.nodes.items():
            digest = parts(cid).digest
            if digest is not None:
                self._nodes[digest] = block
                if is_open:
                    self._open_nodes.add(digest)
        for entry in contents.files:
            place = len(self._files) << 32
            self._files.append(_HeldFile(folder / entry.path, entry, is_open))
            for digest in entry.split():
                known = self._holders.setdefault(digest, place)
                if is_open and not self._files[known >> 32].open:
                    self._holders[digest] = place
                place += 1

    def is_open(self, cid: bytes) -> bool:
        """Whether a model that may go to anybody has the block. Looks at no file."""
        try:
            digest = parts(cid).digest
        except AccelError:
            return False
        if digest is None or digest in self._open_nodes:
            return digest is not None
        place = self._holders.get(digest)
        return place is not None and self._files[place >> 32].open

    def read(self, cid: bytes) -> bytes | None:
        """The block, or None when no stored model has it sound. What is damaged on disk is logged, once a block.

        A block goes by its digest, whatever version and codec the CID has.
        """
        try:
            named = parts(cid)
        except AccelError:
            return None
        if named.digest is None:
            return named.inline
        if (node := self._nodes.get(named.digest)) is not None:
            return node
        place = self._holders.get(named.digest)
        if place is None:
            return None
        first = self._files[place >> 32]
        block = self._read_from(first, place & 0xFFFFFFFF, cid)
        if block is None:
            block = next(self._read_elsewhere(first, named.digest, cid), None)
        return block

    def _read_elsewhere(self, damaged: _HeldFile, digest: bytes, cid: bytes) -> Iterator[bytes]:
        for held in self._files:
            number = held.entry.find(digest) if held is not damaged else None
            block = None if number is None else self._read_from(held, number, cid)
            if block is not None:
                yield block

    def _read_from(self, held: _HeldFile, number: int, cid: bytes) -> bytes | None:
        offset, length = held.entry.extent(number)
        digest = held.entry.digest(number)
        try:
            block = held.entry.block(number, read_at(held.path, offset, length))
            why = "" if hashlib.sha256(block).digest() == digest else "its bytes have changed"
        except OSError as error:
            why = str(error)
        if not why:
            self._damaged.discard(digest)
            return block
        if digest not in self._damaged:
            self._damaged.add(digest)
            log.error("%s is damaged at byte %d (%s): %s is not served", held.path, offset, why, format_cid(cid))
        return None


def checked_files(folder: Path, contents: Contents) -> Iterator[tuple[str, int, bool]]:
    """Reads a model: the path in `folder` of each file and link, its size, whether it is what `contents` says."""
    for path, target in contents.links.items():
        yield path, 0, leads_to(folder / path, target)
    for entry in contents.files:
        yield entry.path, entry.size, _is_sound(folder / entry.path, entry)


def _is_sound(path: Path, entry: FileEntry) -> bool:
    try:
        return all(_is_leaf(path, entry, number, digest) for number, digest in enumerate(entry.split()))
    except OSError:
        return False


def _is_leaf(path: Path, entry: FileEntry, number: int, digest: bytes) -> bool:
    block = entry.block(number, read_at(path, *entry.extent(number)))
    return hashlib.sha256(block).digest() == digest
