"""Where the leaves of a model go in its partial folder, and which are there: the blocking half of a fetch.

The partial folder is its own journal. Whatever hashes right is kept, whoever wrote it and however that ended.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import accumulate, groupby, islice
from pathlib import Path
from typing import NamedTuple

from ...protocols.errors import AccelError, ErrorCode
from .contents import Contents
from .disk import coded_errors, is_hole, read_at, write_at
from .leaves import BARE, FileEntry
from .orders import MOST_AROUND, MOST_PLACES, Order


class LeafMismatchError(AccelError):
    """A block is the one that a leaf's CID names, and has not the length or the make that was presumed of it."""


def as_mismatch(error: AccelError) -> AccelError:
    """What `Order.keep` raised, with a block of another make than was presumed told apart."""
    if error.code == ErrorCode.HOSTILE_CONTENT:
        return LeafMismatchError(error.code, error.message, error.hint)
    return error


class _Make(NamedTuple):
    """How many of a file's bytes a leaf has, and what is around them in its block."""

    length: int
    head: bytes
    tail: bytes


class Places:
    """The leaves of all files, numbered through. A leaf that occurs again is written wherever it belongs at once."""

    def __init__(self, contents: Contents, folder: Path) -> None:
        """Raises LeafMismatchError when one leaf is said to have two lengths."""
        self._contents = contents
        self._folder = folder
        self._ends = list(accumulate(file.leaf_count for file in contents.files))
        #: One byte a leaf: 1 where it is on disk, or will be as the repetition of an earlier one.
        self.have = bytearray(self._ends[-1])
        self._repeats: dict[int, list[int]] = {}
        #: The same leaf often repeats many times in a row.
        self._make = lru_cache(maxsize=16)(self._find_make)
        self._note_repeats()

    def cid(self, leaf: int) -> bytes:
        file, number = self._file(leaf)
        return file.cid(number)

    def size(self, leaf: int) -> int:
        """The bytes of the model that this leaf makes, wherever it occurs."""
        return self._make(leaf).length * (1 + len(self._repeats.get(leaf, ())))

    def prepare(self) -> bool:
        """Makes folders and links, and files at their sizes without spending disk; whether something was there."""
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
            for name, target in self._contents.links.items():
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self._folder / name).symlink_to(target)
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
                if not self.have[leaf] and self._is_everywhere(leaf):
                    self.have[leaf] = 1
                    found += self.size(leaf)
        return found

    def keep(self, block: int, data: bytes) -> bool:
        """Writes a block where it belongs; False for one that is not what the leaf's CID says.

        Raises:
            LeafMismatchError: the block is the right one, of another length or make than was said.
            AccelError: disk-full and the like.
        """
        file, number = self._file(block)
        if hashlib.sha256(data).digest() != file.digest(number):
            return False
        part = file.data(number, data)
        if part is None:
            said = file.extent(number)[1]
            raise _mismatch(f"{file.path} is said to have a leaf of {said} bytes, and its block has {len(data)}")
        with coded_errors():
            for file, numbers in self._all_places(block):
                write_at(self._folder / file.path, [file.extent(each)[0] for each in numbers], part)
        return True

    def order(self, leaf: int) -> Order | None:
        """The leaf for somebody else to fetch and write; None for one that is too much to say."""
        made = self._make(leaf)
        if len(self._repeats.get(leaf, ())) >= MOST_PLACES or len(made.head) + len(made.tail) > MOST_AROUND:
            return None
        places = (
            (str(self._folder / file.path), file.extent(number)[0])
            for file, numbers in self._all_places(leaf)
            for number in numbers
        )
        return Order(self.cid(leaf), made.length, made.head, made.tail, tuple(places))

    def fill(self, leaves: Iterable[int], find: Callable[[bytes], bytes | None]) -> int:
        """Writes those of these leaves that `find` knows by CID; how many bytes of the model they make."""
        written = 0
        for leaf in leaves:
            data = None if self.have[leaf] else find(self.cid(leaf))
            if data is not None and self.keep(leaf, data):
                self.have[leaf] = 1
                written += self.size(leaf)
        return written

    def _is_everywhere(self, leaf: int) -> bool:
        return all(self._is_there(file, number) for file, numbers in self._all_places(leaf) for number in numbers)

    def _note_repeats(self) -> None:
        """A raw leaf and a wrapped one of the same block are two: what they put into their files differs."""
        first: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        leaf = 0
        for file in self._contents.files:
            digests = file.split()
            for count, length, wrap in file.runs():
                firsts = first[wrap == BARE]
                for digest in islice(digests, count):
                    earlier = firsts.setdefault(digest, leaf)
                    if earlier != leaf:
                        self._note_repeat(earlier, leaf, _Make(length, *wrap.around(length)))
                    leaf += 1

    def _note_repeat(self, earlier: int, leaf: int, make: _Make) -> None:
        if self._make(earlier) != make:
            raise _mismatch("one leaf is said to have two lengths, or two makes")
        self._repeats.setdefault(earlier, []).append(leaf)
        self.have[leaf] = 1

    def _all_places(self, leaf: int) -> Iterator[tuple[FileEntry, list[int]]]:
        """The files that the leaf is in, each with the leaf's numbers in it."""
        for at, leaves in groupby((leaf, *self._repeats.get(leaf, ())), partial(bisect_right, self._ends)):
            file = self._contents.files[at]
            before = self._ends[at] - file.leaf_count
            yield file, [each - before for each in leaves]

    def _file(self, leaf: int) -> tuple[FileEntry, int]:
        """The file that has the leaf, and the leaf's number in it."""
        at = bisect_right(self._ends, leaf)
        file = self._contents.files[at]
        return file, leaf - self._ends[at] + file.leaf_count

    def _find_make(self, leaf: int) -> _Make:
        file, number = self._file(leaf)
        length = file.extent(number)[1]
        return _Make(length, *file.wrap(number).around(length))

    def _is_there(self, file: FileEntry, number: int) -> bool:
        path, (offset, length) = self._folder / file.path, file.extent(number)
        if length and is_hole(path, offset, length):
            return file.digest(number) == _zeros_digest(*file.wrap(number).around(length), length)
        return hashlib.sha256(file.block(number, read_at(path, offset, length))).digest() == file.digest(number)


@lru_cache(maxsize=64)
def _zeros_digest(head: bytes, tail: bytes, length: int) -> bytes:
    return hashlib.sha256(b"".join((head, bytes(length), tail))).digest()


def _mismatch(why: str) -> LeafMismatchError:
    return LeafMismatchError(
        ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "Whoever added this folder gave it wrong sizes: add it again."
    )
