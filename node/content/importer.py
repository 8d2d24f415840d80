"""From a folder to its CID: the profile `unixfs-v1-2025` (IPIP-0499), read in one pass while it is copied.

CIDv1, raw leaves, chunks of 1 MiB, 1024 links a node, balanced. Hidden files are left out, empty folders are not.
A link inside the folder is followed; one that leads out of it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from .cid import DAG_PB, RAW, cid_of, make_cid
from .contents import Contents
from .copying import Copier
from .leaves import FileEntry, Leaves
from .unixfs import MAX_PATH, Link, check_name, encode_directory, encode_file

CHUNK: Final = 1 << 20
WIDTH: Final = 1024
#: The profile shards a folder whose block is larger; sharded folders are not written here.
MAX_DIRECTORY_BLOCK: Final = 256 << 10
MAX_DEPTH: Final = 32
MAX_ENTRIES: Final = 50_000

OnBytes = Callable[[int], None]


@dataclass
class Folder:
    """One folder as it is to be imported: its files' real paths, and its folders, by name."""

    files: dict[str, Path] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)

    def names(self) -> list[str]:
        return sorted([*self.files, *self.folders], key=str.encode)

    def all_files(self) -> list[Path]:
        found = list(self.files.values())
        for folder in self.folders.values():
            found += folder.all_files()
        return found

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.all_files())


@dataclass(frozen=True, slots=True)
class _Placed:
    """Something with a CID: `total` is its Tsize, `size` its file bytes."""

    cid: bytes
    total: int
    size: int


def list_folder(path: Path) -> Folder:
    """What of `path` makes its CID. Raises AccelError bad-input, too-large, OSError."""
    root = path.resolve()
    if not root.is_dir():
        _refuse(f"{path} is no folder", "Give the folder that has the config.json.")
    listed = _Lister(root).list(root, "", ())
    if not listed.all_files():
        _refuse(f"{path} has no files in it", "Files whose names begin with a dot are left out.")
    return listed


class _Lister:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries = 0

    def list(self, real: Path, prefix: str, above: tuple[Path, ...]) -> Folder:
        if real in above:
            _refuse(f"the link {prefix[:-1]} leads back to a folder that it is in", "Remove that link.")
        if len(above) > MAX_DEPTH:
            _refuse(f"{prefix} is nested deeper than {MAX_DEPTH} folders", "Move the model up.")
        folder = Folder()
        with os.scandir(real) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    self._take(entry, prefix, folder, (*above, real))
        return folder

    def _take(self, entry: os.DirEntry[str], prefix: str, folder: Folder, above: tuple[Path, ...]) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise AccelError(ErrorCode.TOO_LARGE, f"the folder has over {MAX_ENTRIES} entries", "Split it.")
        path = prefix + entry.name
        _check_local_name(path, entry.name)
        real = self._follow(Path(entry.path), path) if entry.is_symlink() else Path(entry.path)
        if real.is_dir():
            folder.folders[entry.name] = self.list(real, path + "/", above)
        elif real.is_file():
            folder.files[entry.name] = real
        else:
            _refuse(f"{path} is neither a file nor a folder", "Remove it, or the link that leads nowhere.")

    def _follow(self, link: Path, path: str) -> Path:
        real = link.resolve()
        if self._root not in real.parents and real != self._root:
            _refuse(
                f"the link {path} leads out of the folder",
                "Make a copy with real files first: cp -rL FOLDER COPY (or download with `hf download --local-dir`).",
            )
        return real


def _check_local_name(path: str, name: str) -> None:
    try:
        check_name(name)
    except (AccelError, UnicodeEncodeError):
        _refuse(f"{path!r} is not a name that every system can hold", "Rename it.")
    if len(path.encode()) > MAX_PATH:
        _refuse(f"the path {path[:60]}… is over {MAX_PATH} bytes", "Move the model up.")


def _refuse(message: str, hint: str) -> NoReturn:
    raise AccelError(ErrorCode.BAD_INPUT, message, hint)


def import_folder(path: Path) -> Contents:
    """What a folder is made of, and so its CID. Raises AccelError bad-input, too-large, OSError."""
    return import_listed(list_folder(path))


def import_listed(folder: Folder, copy_to: Path | None = None, on_bytes: OnBytes = lambda _count: None) -> Contents:
    """Hashes a listed folder, and copies it to `copy_to` in the same pass when that is given.

    Raises:
        AccelError: too-large.
        OSError: it cannot be read, or the copy cannot be written.
    """
    with Copier(CHUNK) as copier:
        importing = _Import(copier, on_bytes)
        importing.contents.root = importing.folder(folder, "", copy_to).cid
    return importing.contents


class _Import:
    def __init__(self, copier: Copier, on_bytes: OnBytes) -> None:
        self.contents = Contents()
        self._copier = copier
        self._on_bytes = on_bytes

    def folder(self, folder: Folder, prefix: str, copy_to: Path | None) -> _Placed:
        if copy_to is not None:
            copy_to.mkdir(exist_ok=True)
        links = []
        for name in folder.names():
            path, target = prefix + name, copy_to / name if copy_to else None
            inner = folder.folders.get(name)
            if inner is not None:
                placed = self.folder(inner, path + "/", target)
            else:
                placed = self._file(path, folder.files[name], target)
            links.append(Link(placed.cid, name, placed.total))
        if not links:
            self.contents.empty_folders.append(prefix[:-1])
        block = encode_directory(links)
        if len(block) > MAX_DIRECTORY_BLOCK:
            raise AccelError(ErrorCode.TOO_LARGE, f"{prefix or 'the folder'} has too many entries", "Split it.")
        return self._keep(block, sum(link.size for link in links), 0)

    def _file(self, path: str, real: Path, target: Path | None) -> _Placed:
        leaves = Leaves(path)
        for digest, length in self._copier.digests(real, target):
            leaves.add(digest, length)
            self._on_bytes(length)
        entry = leaves.entry()
        self.contents.files.append(entry)
        return self._balance(entry)

    def _balance(self, entry: FileEntry) -> _Placed:
        """Joins leaves under nodes of at most `WIDTH` links until one is left; all leaves are at one depth."""
        leaves = (
            _Placed(cid_of(RAW, digest), length, length)
            for digest, (_, length) in zip(entry.split(), map(entry.extent, range(entry.leaf_count)), strict=True)
        )
        if entry.leaf_count == 1:
            return next(leaves)
        level = self._join_all(leaves)
        while len(level) > 1:
            level = self._join_all(level)
        return level[0]

    def _join_all(self, level: Iterable[_Placed]) -> list[_Placed]:
        below = iter(level)
        return [self._join(group) for group in iter(lambda: list(islice(below, WIDTH)), [])]

    def _join(self, below: list[_Placed]) -> _Placed:
        block = encode_file([Link(each.cid, "", each.total) for each in below], [each.size for each in below])
        return self._keep(block, sum(each.total for each in below), sum(each.size for each in below))

    def _keep(self, block: bytes, below: int, size: int) -> _Placed:
        cid = make_cid(DAG_PB, block)
        self.contents.nodes[cid] = block
        return _Placed(cid, len(block) + below, size)
