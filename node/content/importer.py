"""From a folder to its CID under a profile, read in one pass while it is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .contents import Contents
from .copying import Copier
from .leaves import FileEntry, Leaves
from .local_folder import Folder, list_folder
from .profiles import DEFAULT, Profile
from .sharded import write_shards
from .unixfs import Link, encode_directory, encode_file, encode_symlink

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Placed:
    """Something with a CID: `total` is its Tsize, `size` its file bytes."""

    cid: bytes
    total: int
    size: int


def import_folder(path: Path, profile: Profile = DEFAULT) -> Contents:
    """What a folder is made of, and so its CID. Raises AccelError bad-input, too-large, OSError."""
    return import_listed(list_folder(path), profile=profile)


def import_listed(
    folder: Folder,
    copy_to: Path | None = None,
    on_bytes: OnBytes = lambda _count: None,
    *,
    profile: Profile = DEFAULT,
) -> Contents:
    """Hashes a listed folder, and copies it to `copy_to` in the same pass when that is given.

    Raises:
        AccelError: hostile-content for names that hash alike on purpose.
        OSError: it cannot be read, or the copy cannot be written.
    """
    with Copier(profile.chunk) as copier:
        importing = _Import(profile, copier, on_bytes)
        importing.contents.root = importing.folder(folder, "", copy_to).cid
    return importing.contents


class _Import:
    def __init__(self, profile: Profile, copier: Copier, on_bytes: OnBytes) -> None:
        self.contents = Contents()
        self._profile = profile
        self._copier = copier
        self._on_bytes = on_bytes

    def folder(self, folder: Folder, prefix: str, copy_to: Path | None) -> _Placed:
        if copy_to is not None:
            copy_to.mkdir(exist_ok=True)
        links = []
        for name in folder.names():
            path, target = prefix + name, copy_to / name if copy_to else None
            if name in folder.folders:
                placed = self.folder(folder.folders[name], path + "/", target)
            elif name in folder.links:
                placed = self._link(path, folder.links[name], target)
            else:
                placed = self._file(path, folder.files[name], target)
            links.append(Link(placed.cid, name, placed.total))
        if not links:
            self.contents.empty_folders.append(prefix[:-1])
        return self._join_entries(links)

    def _join_entries(self, links: list[Link]) -> _Placed:
        if not self._profile.shards(links):
            return self._keep(encode_directory(links), sum(link.size for link in links), 0)
        shard = write_shards(links, self._profile.fanout, self._keep_shard)
        return _Placed(shard.cid, shard.size, 0)

    def _link(self, path: str, leads_to: str, target: Path | None) -> _Placed:
        self.contents.links[path] = leads_to
        if target is not None:
            target.symlink_to(leads_to)
        return self._keep(encode_symlink(leads_to), 0, 0)

    def _file(self, path: str, real: Path, target: Path | None) -> _Placed:
        leaves, leaf = Leaves(path), self._profile.leaf
        for digest, length in self._copier.digests(real, target, leaf.digest):
            leaves.add(digest, length, leaf)
            self._on_bytes(length)
        entry = leaves.entry()
        self.contents.files.append(entry)
        return self._balance(entry)

    def _balance(self, entry: FileEntry) -> _Placed:
        """Joins leaves under nodes of at most `width` links until one is left; all leaves are at one depth."""
        leaf = self._profile.leaf
        leaves = (
            _Placed(leaf.start + digest, leaf.block_size(length), length)
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
        return [self._join(group) for group in iter(lambda: list(islice(below, self._profile.width)), [])]

    def _join(self, below: list[_Placed]) -> _Placed:
        block = encode_file([Link(each.cid, "", each.total) for each in below], [each.size for each in below])
        return self._keep(block, sum(each.total for each in below), sum(each.size for each in below))

    def _keep_shard(self, block: bytes, below: int) -> Link:
        placed = self._keep(block, below, 0)
        return Link(placed.cid, "", placed.total)

    def _keep(self, block: bytes, below: int, size: int) -> _Placed:
        cid = self._profile.cid(block)
        self.contents.nodes[cid] = block
        return _Placed(cid, len(block) + below, size)
