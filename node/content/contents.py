"""What a model is made of: its files with the digests of their leaves, its links and empty folders, its dag-pb nodes.

Kept beside the folder in one file:

    sha256 of the rest | msgpack [3, root, wraps, files, empty folders, links, nodes]
    wraps: [number of the CID's start, UnixFS type or nil, sized, head, tail] of each make of leaf
    files: [path, digests, runs], a run being three u32 in little endian: leaves, bytes each, number of the wrap
    links: [path, target];  nodes: [CID, block]

Version 2, which had raw leaves of one length only, is read too.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from ...protocols.errors import AccelError, ErrorCode
from .leaves import DIGEST, STARTS, FileEntry, Leaves, Wrap

_VERSION: Final = 3
_RUN: Final = struct.Struct("<III")


@dataclass
class Contents:
    """A folder's binary CID and what it takes to hold it: no byte of a file need be in here.

    `links` are the symbolic ones, target by path; `nodes` are blocks by binary CID: folders, shards of folders, links,
    and of files those with links in them.
    """

    root: bytes = b""
    files: list[FileEntry] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    def pack(self) -> bytes:
        """The same bytes for the same model, however it came here."""
        wraps: dict[Wrap, int] = {}
        files = [_pack_file(file, wraps) for file in sorted(self.files, key=_by_folder)]
        makes = [[STARTS.index(each.start), each.kind, each.sized, each.head, each.tail] for each in wraps]
        links, nodes = sorted(self.links.items()), sorted(self.nodes.items())
        packed: bytes = msgpack.packb([_VERSION, self.root, makes, files, sorted(self.empty_folders), links, nodes])
        return hashlib.sha256(packed).digest() + packed

    @classmethod
    def unpack(cls, data: bytes) -> Contents:
        """Raises AccelError corrupt-content for anything but what `pack` made."""
        view = memoryview(data)
        if hashlib.sha256(view[DIGEST:]).digest() != data[:DIGEST]:
            raise AccelError(ErrorCode.CORRUPT_CONTENT, "a model's list of blocks is damaged")
        fields: list[Any] = msgpack.unpackb(view[DIGEST:])
        if fields[0] == 2:
            _, root, files, empty_folders, nodes = fields
            return cls(root, [_of_equal_leaves(*file) for file in files], empty_folders, dict(nodes))
        if fields[0] != _VERSION:
            raise AccelError(ErrorCode.CORRUPT_CONTENT, f"a model's list of blocks is of version {fields[0]}")
        _, root, makes, files, empty_folders, links, nodes = fields
        wraps = [Wrap(STARTS[start], *make) for start, *make in makes]
        return cls(root, [_unpack_file(file, wraps) for file in files], empty_folders, dict(nodes), dict(links))

    def is_whole(self, folder: Path) -> bool:
        """Whether `folder` has every link, and every file at its size; what is in them is checked when it is read."""
        files = all(_has(folder / file.path, file.size) for file in self.files)
        return files and all(leads_to(folder / path, target) for path, target in self.links.items())


def _by_folder(file: FileEntry) -> list[bytes]:
    """Sorts files as a walk through folders in order of their names meets them."""
    return file.path.encode().split(b"/")


def _pack_file(file: FileEntry, wraps: dict[Wrap, int]) -> list[Any]:
    runs = bytearray()
    for count, length, wrap in file.runs():
        runs += _RUN.pack(count, length, wraps.setdefault(wrap, len(wraps)))
    return [file.path, file.digests, bytes(runs)]


def _unpack_file(packed: list[Any], wraps: list[Wrap]) -> FileEntry:
    path, digests, runs = packed
    leaves, at = Leaves(path), 0
    for count, length, wrap in _RUN.iter_unpack(runs):
        leaves.add(digests[at : at + count * DIGEST], length, wraps[wrap])
        at += count * DIGEST
    return leaves.entry()


def _of_equal_leaves(path: str, size: int, chunk: int, digests: bytes) -> FileEntry:
    """As version 2 had it: every leaf is raw and has `chunk` bytes, but for the last."""
    leaves, last = Leaves(path), len(digests) - DIGEST
    if last:
        leaves.add(digests[:last], chunk)
    leaves.add(digests[last:], size - leaves.size)
    return leaves.entry()


def leads_to(path: Path, target: str) -> bool:
    """Whether there is a symbolic link to `target` at `path`."""
    try:
        return os.readlink(path) == target  # noqa: PTH115 - a Path would make ./x of it x
    except OSError:
        return False


def _has(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False
