"""What of a folder on this disk makes its CID: which files count, which links are kept, followed or refused.

Left out is every entry whose name begins with a dot. A symbolic link that stays inside the folder is kept as a link.
In a snapshot of the Hugging Face cache every file is a link into the cache's own `blobs`: those are followed. Any
other link that leaves the folder is refused, and so is one that leads to what is left out, to nothing or in a circle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from ...backends.hub_cache import blobs_of
from ...protocols.errors import AccelError, ErrorCode
from .symlinks import check_links
from .unixfs import MAX_PATH, check_name

MAX_DEPTH: Final = 32
MAX_ENTRIES: Final = 50_000


@dataclass
class Folder:
    """One folder as it is to be imported, by name: its files' real paths, its folders, its links' targets."""

    files: dict[str, Path] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        return sorted([*self.files, *self.folders, *self.links], key=str.encode)

    def all_files(self) -> list[Path]:
        found = list(self.files.values())
        for folder in self.folders.values():
            found += folder.all_files()
        return found

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.all_files())


def list_folder(path: Path) -> Folder:
    """What of `path` makes its CID. Raises AccelError bad-input, too-large, OSError."""
    root = path.resolve()
    if not root.is_dir():
        _refuse(f"{path} is no folder", "Give the folder that has the config.json.")
    listed = _Lister(root).listed()
    if not listed.all_files():
        _refuse(f"{path} has no files in it", "Files whose names begin with a dot are left out.")
    return listed


class _Lister:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = blobs_of(root)
        self._files: set[str] = set()
        self._folders = {""}
        self._links: dict[str, str] = {}
        self._entries = 0

    def listed(self) -> Folder:
        folder = self._list(self._root, "", 0)
        try:
            check_links(self._links, self._files, self._folders)
        except AccelError as error:
            _refuse(
                error.message.removeprefix("refused: "),
                "Make a copy with real files first: cp -rL FOLDER COPY (or download with `hf download --local-dir`).",
            )
        return folder

    def _list(self, real: Path, prefix: str, depth: int) -> Folder:
        if depth > MAX_DEPTH:
            _refuse(f"{prefix} is nested deeper than {MAX_DEPTH} folders", "Move the model up.")
        folder = Folder()
        with os.scandir(real) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    self._take(entry, prefix, folder, depth)
        return folder

    def _take(self, entry: os.DirEntry[str], prefix: str, folder: Folder, depth: int) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise AccelError(ErrorCode.TOO_LARGE, f"the folder has over {MAX_ENTRIES} entries", "Split it.")
        path = prefix + entry.name
        _check_local_name(path, entry.name)
        real = self._blob(entry) if entry.is_symlink() else Path(entry.path)
        if real is None:
            folder.links[entry.name] = self._links[path] = _target(entry, path)
        elif real.is_file():
            folder.files[entry.name] = real
            self._files.add(path)
        elif real.is_dir() and not entry.is_symlink():
            self._folders.add(path)
            folder.folders[entry.name] = self._list(real, path + "/", depth + 1)
        else:
            _refuse(f"{path} is neither a file nor a folder", "Remove it, or the link that leads nowhere.")

    def _blob(self, link: os.DirEntry[str]) -> Path | None:
        """The file in the cache's `blobs` that a link of a snapshot leads to; None for any other link."""
        try:
            real = Path(link.path).resolve()
        except (OSError, RuntimeError):  # it leads round in a circle
            return None
        return real if self._blobs in real.parents else None


def _target(link: os.DirEntry[str], path: str) -> str:
    target = os.readlink(link.path)  # noqa: PTH115 - a Path would make ./x of it x
    try:
        too_long = len(target.encode()) > MAX_PATH
    except UnicodeEncodeError:
        _refuse(f"where the link {path} leads is no text", "Remove it.")
    if too_long:
        _refuse(f"the link {path} has a target over {MAX_PATH} bytes", "Remove it.")
    return target


def _check_local_name(path: str, name: str) -> None:
    try:
        check_name(name)
    except (AccelError, UnicodeEncodeError):
        _refuse(f"{path!r} is not a name that every system can hold", "Rename it.")
    if len(path.encode()) > MAX_PATH:
        _refuse(f"the path {path[:60]}… is over {MAX_PATH} bytes", "Move the model up.")


def _refuse(message: str, hint: str) -> NoReturn:
    raise AccelError(ErrorCode.BAD_INPUT, message, hint) from None
