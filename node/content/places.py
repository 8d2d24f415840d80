"""Where the leaves of a model go in its partial folder, and which are there: the blocking half of a fetch.

The partial folder is its own journal. Whatever hashes right is kept, whoever wrote it and however that ended.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from ...protocols.errors import AccelError, ErrorCode
from .cid import RAW, cid_of
from .contents import Contents, FileEntry
from .disk import coded_errors, is_hole, read_at, write_at


class Places:
    """The leaves of all files, numbered through. A leaf that occurs again is written wherever it belongs at once."""

    def __init__(self, contents: Contents, folder: Path) -> None:
        """Raises AccelError hostile-content when one leaf is said to have two lengths."""
        self._contents = contents
        self._folder = folder
        self._ends = list(accumulate(file.leaf_count for file in contents.files))
        #: One byte a leaf: 1 where it is on disk, or will be as the repetition of an earlier one.
        self.have = bytearray(self._ends[-1])
        self._repeats: dict[int, list[int]] = {}
        self._note_repeats()

    def cid(self, leaf: int) -> bytes:
        return cid_of(RAW, self._digest(leaf))

    def size(self, leaf: int) -> int:
        """The bytes of the model that this leaf makes, wherever it occurs."""
        return self._locate(leaf)[2] * (1 + len(self._repeats.get(leaf, ())))

    def prepare(self) -> bool:
        """Makes the folders, and the files at their sizes without spending disk; whether something was there."""
        wanted = {self._folder / file.path: file.size for file in self._contents.files}
        with coded_errors():
            old = [path for path in self._folder.rglob("*") if path.is_symlink() or not path.is_dir()]
            for path in old:
                if path not in wanted or path.is_symlink():
                    path.unlink()
            for name in self._contents.empty_folders:
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            for path, size in wanted.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.truncate(size)
        return bool(old)

    def bytes_on_disk(self) -> int:
        """The disk that the folder takes already."""
        with coded_errors():
            return sum(path.lstat().st_blocks * 512 for path in self._folder.rglob("*"))

    def check(self, leaves: Iterable[int]) -> int:
        """Marks those of these leaves that are on disk; how many bytes of the model they make."""
        found = 0
        with coded_errors():
            for leaf in leaves:
                if not self.have[leaf] and all(self._is_there(place) for place in self._all_places(leaf)):
                    self.have[leaf] = 1
                    found += self.size(leaf)
        return found

    def keep(self, block: int, data: bytes) -> bool:
        """Writes a block where it belongs; False for one that is not what the leaf's CID says.

        Raises:
            AccelError: hostile-content when the block is the right one and the DAG told its length wrong; disk-full.
        """
        if hashlib.sha256(data).digest() != self._digest(block):
            return False
        path, _, length = self._locate(block)
        if len(data) != length:
            raise AccelError(
                ErrorCode.HOSTILE_CONTENT,
                f"refused: {path.name} is said to have a chunk of {length} bytes that has {len(data)}",
                "Whoever added this folder gave it wrong sizes: add it again.",
            )
        with coded_errors():
            for place in self._all_places(block):
                path, offset, _ = self._locate(place)
                write_at(path, offset, data)
        return True

    def fill(self, leaves: Iterable[int], find: Callable[[bytes], bytes | None]) -> int:
        """Writes those of these leaves that `find` knows by CID; how many bytes of the model they make."""
        written = 0
        for leaf in leaves:
            data = None if self.have[leaf] else find(self.cid(leaf))
            if data is not None and self.keep(leaf, data):
                self.have[leaf] = 1
                written += self.size(leaf)
        return written

    def _note_repeats(self) -> None:
        first: dict[bytes, int] = {}
        leaf = 0
        for file in self._contents.files:
            for number, digest in enumerate(file.split()):
                earlier = first.setdefault(digest, leaf)
                if earlier != leaf:
                    self._note_repeat(earlier, leaf, file.extent(number)[1])
                leaf += 1

    def _note_repeat(self, earlier: int, leaf: int, length: int) -> None:
        if self._locate(earlier)[2] != length:
            raise AccelError(ErrorCode.HOSTILE_CONTENT, "refused: one chunk is said to have two lengths")
        self._repeats.setdefault(earlier, []).append(leaf)
        self.have[leaf] = 1

    def _all_places(self, leaf: int) -> Iterable[int]:
        return (leaf, *self._repeats.get(leaf, ()))

    def _file(self, leaf: int) -> tuple[FileEntry, int]:
        """The file that has the leaf, and the leaf's number in it."""
        at = bisect_right(self._ends, leaf)
        file = self._contents.files[at]
        return file, leaf - self._ends[at] + file.leaf_count

    def _digest(self, leaf: int) -> bytes:
        file, number = self._file(leaf)
        return file.digest(number)

    def _locate(self, leaf: int) -> tuple[Path, int, int]:
        file, number = self._file(leaf)
        return (self._folder / file.path, *file.extent(number))

    def _is_there(self, leaf: int) -> bool:
        path, offset, length = self._locate(leaf)
        if length and is_hole(path, offset, length):
            return self._digest(leaf) == _zeros_digest(length)
        return hashlib.sha256(read_at(path, offset, length)).digest() == self._digest(leaf)


@lru_cache(maxsize=64)
def _zeros_digest(length: int) -> bytes:
    return hashlib.sha256(bytes(length)).digest()
