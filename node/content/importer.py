"""From a folder to its CID: the profile `unixfs-v1-2025` (IPIP-0499), read in one pass while it is copied.

CIDv1, raw leaves, chunks of 1 MiB, 1024 links a node, balanced. Hidden files are left out. A link inside the
folder is followed; one that leads out of it is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from ...protocols.errors import AccelError, ErrorCode
from .cid import DAG_PB, RAW, make_cid
from .unixfs import Link, check_name, encode_directory, encode_file

CHUNK: Final = 1 << 20
WIDTH: Final = 1024
#: Kubo shards a folder whose node is larger; sharded folders are not written here.
MAX_DIRECTORY_BLOCK: Final = 256 * 1024
_MAX_DEPTH: Final = 32
_MAX_FILES: Final = 10_000
_RAW_PREFIX: Final = bytes((1, RAW, 0x12, 0x20))

OnBytes = Callable[[int], None]


@dataclass
class ImportedFile:
    """A file of the folder: its path in it, its size, its leaves' CIDs in order, each but the last `chunk` bytes."""

    path: str
    size: int
    leaves: list[bytes]
    chunk: int = CHUNK


@dataclass
class Imported:
    """A folder's CID, its files, and the dag-pb blocks that are in none of them."""

    root: bytes = b""
    files: list[ImportedFile] = field(default_factory=list)
    nodes: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class _Placed:
    """Something with a CID: `total` is its Tsize, `size` its file bytes."""

    cid: bytes
    total: int
    size: int


def list_files(folder: Path) -> list[tuple[str, Path]]:
    """The files that make the folder's CID, as (path in it, real path), sorted. Raises AccelError."""
    root = folder.resolve()
    if not root.is_dir():
        raise AccelError(ErrorCode.BAD_INPUT, f"{folder} is no folder", "Give the folder that has the config.json.")
    found: list[tuple[str, Path]] = []
    _walk(root, root, "", found, 0)
    if not found:
        raise AccelError(ErrorCode.BAD_INPUT, f"{folder} has no files in it")
    return found


def _walk(root: Path, folder: Path, prefix: str, found: list[tuple[str, Path]], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise AccelError(ErrorCode.BAD_INPUT, f"{prefix} is nested deeper than {_MAX_DEPTH} folders")
    for entry in sorted(os.scandir(folder), key=lambda each: each.name.encode()):
        if entry.name.startswith("."):
            continue
        check_name(entry.name)
        path, real = prefix + entry.name, Path(entry.path).resolve()
        if entry.is_symlink() and root not in real.parents:
            raise AccelError(
                ErrorCode.BAD_INPUT, f"the link {path} leads out of the folder", "Copy what it points to in its place."
            )
        if real.is_dir():
            _walk(root, real, path + "/", found, depth + 1)
        elif real.is_file():
            found.append((path, real))
        else:
            raise AccelError(ErrorCode.BAD_INPUT, f"{path} is neither a file nor a folder")
        if len(found) > _MAX_FILES:
            raise AccelError(ErrorCode.TOO_LARGE, f"the folder has over {_MAX_FILES} files")


def import_folder(folder: Path, copy_to: Path | None = None, on_bytes: OnBytes = lambda _count: None) -> Imported:
    """Hashes the folder, and copies it to `copy_to` in the same pass when that is given. Raises AccelError."""
    imported = Imported()
    tree: dict[str, object] = {}
    for path, real in list_files(folder):
        target = copy_to / path if copy_to else None
        file, placed = _import_file(path, real, target, imported, on_bytes)
        imported.files.append(file)
        _insert(tree, path.split("/"), placed)
    imported.root = _import_tree(tree, imported).cid
    return imported


def _insert(tree: dict[str, object], path: list[str], placed: _Placed) -> None:
    for part in path[:-1]:
        inner = tree.setdefault(part, {})
        assert isinstance(inner, dict)  # noqa: S101
        tree = inner
    tree[path[-1]] = placed


def _import_tree(tree: dict[str, object], imported: Imported) -> _Placed:
    links = []
    for name, entry in tree.items():
        placed = entry if isinstance(entry, _Placed) else _import_tree(entry, imported)  # type: ignore[arg-type]
        links.append(Link(placed.cid, name, placed.total))
    block = encode_directory(links)
    if len(block) > MAX_DIRECTORY_BLOCK:
        raise AccelError(ErrorCode.TOO_LARGE, "a folder has too many entries for one block", "Split it.")
    return _keep(block, imported, sum(link.size for link in links), 0)


def _import_file(
    path: str, real: Path, target: Path | None, imported: Imported, on_bytes: OnBytes
) -> tuple[ImportedFile, _Placed]:
    leaves: list[_Placed] = []
    with real.open("rb", buffering=0) as source:
        copy = _create(target) if target else None
        try:
            _read_leaves(source, copy, leaves, on_bytes)
        finally:
            if copy is not None:
                copy.close()
    placed = _balance(leaves, imported)
    return ImportedFile(path, placed.size, [leaf.cid for leaf in leaves]), placed


def _create(target: Path) -> BinaryIO:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("xb", buffering=0)


def _read_leaves(source: BinaryIO, copy: BinaryIO | None, leaves: list[_Placed], on_bytes: OnBytes) -> None:
    buffer = bytearray(CHUNK)
    with memoryview(buffer) as view:
        while (size := _fill(source, view)) or not leaves:
            chunk = view[:size]
            leaves.append(_Placed(_RAW_PREFIX + hashlib.sha256(chunk).digest(), size, size))
            if copy is not None:
                _write_all(copy, chunk)
            on_bytes(size)
            if size < CHUNK:
                break


def _fill(source: BinaryIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (count := source.readinto(view[filled:])):  # type: ignore[attr-defined]
        filled += count
    return filled


def _write_all(copy: BinaryIO, chunk: memoryview) -> None:
    written = 0
    while written < len(chunk):
        written += copy.write(chunk[written:])


def _balance(level: list[_Placed], imported: Imported) -> _Placed:
    """Joins leaves under nodes of at most `WIDTH` links until one is left; all leaves are at one depth."""
    while len(level) > 1:
        level = [_join(level[at : at + WIDTH], imported) for at in range(0, len(level), WIDTH)]
    return level[0]


def _join(below: list[_Placed], imported: Imported) -> _Placed:
    block = encode_file([Link(each.cid, "", each.total) for each in below], [each.size for each in below])
    return _keep(block, imported, sum(each.total for each in below), sum(each.size for each in below))


def _keep(block: bytes, imported: Imported, below: int, size: int) -> _Placed:
    cid = make_cid(DAG_PB, block)
    imported.nodes[cid] = block
    return _Placed(cid, len(block) + below, size)
