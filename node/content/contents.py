"""What a model is made of: its files with the digests of their leaves, its empty folders, and its dag-pb nodes.

Kept beside the folder in one file: `sha256 of the rest | msgpack [version, root, files, empty folders, nodes]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from ...protocols.errors import AccelError, ErrorCode

DIGEST: Final = 32
_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its path in the folder, its size, and the SHA-256 digests of its raw leaves, joined in order.

    Every leaf is `chunk` bytes but the last; an empty file has one empty leaf.
    """

    path: str
    size: int
    chunk: int
    digests: bytes

    @property
    def leaf_count(self) -> int:
        return len(self.digests) // DIGEST

    def digest(self, number: int) -> bytes:
        return self.digests[number * DIGEST : (number + 1) * DIGEST]

    def extent(self, number: int) -> tuple[int, int]:
        """Where in the file leaf `number` lies: (offset, length) in bytes."""
        offset = number * self.chunk
        return offset, min(self.chunk, self.size - offset)

    def find(self, digest: bytes) -> int | None:
        """The number of the first leaf of that digest."""
        at = self.digests.find(digest)
        while at % DIGEST:
            if at < 0:
                return None
            at = self.digests.find(digest, at + 1)
        return at // DIGEST

    def split(self) -> Iterator[bytes]:
        """The digests, one by one."""
        return (self.digests[at : at + DIGEST] for at in range(0, len(self.digests), DIGEST))


@dataclass
class Contents:
    """A folder's binary CID and what it takes to hold it: no byte of a file is in here. `nodes` by binary CID."""

    root: bytes = b""
    files: list[FileEntry] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    nodes: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    def pack(self) -> bytes:
        """The same bytes for the same model, however it came here."""
        files = [[file.path, file.size, file.chunk, file.digests] for file in self.files]
        packed: bytes = msgpack.packb([_VERSION, self.root, files, self.empty_folders, sorted(self.nodes.items())])
        return hashlib.sha256(packed).digest() + packed

    @classmethod
    def unpack(cls, data: bytes) -> Contents:
        """Raises AccelError corrupt-content for anything but what `pack` made."""
        view = memoryview(data)
        if hashlib.sha256(view[DIGEST:]).digest() != data[:DIGEST]:
            raise AccelError(ErrorCode.CORRUPT_CONTENT, "a model's list of blocks is damaged")
        fields: list[Any] = msgpack.unpackb(view[DIGEST:])
        if fields[0] != _VERSION:
            raise AccelError(ErrorCode.CORRUPT_CONTENT, f"a model's list of blocks is of version {fields[0]}")
        _, root, files, empty_folders, nodes = fields
        return cls(root, [FileEntry(*file) for file in files], empty_folders, dict(nodes))

    def is_whole(self, folder: Path) -> bool:
        """Whether `folder` has every file at its size; what is in them is checked when it is read."""
        return all(_has(folder / file.path, file.size) for file in self.files)


def _has(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False
