"""Orders: what the node has its bulk process fetch, and where in which files the bytes of each block go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ...protocols.errors import AccelError, ErrorCode
from .disk import coded_errors, write_at
from .leaves import DIGEST, unwrap

#: A leaf that is in more places than these comes another way, so that an order stays small.
MOST_PLACES: Final = 64


class Outcome(StrEnum):
    """What became of an ordered block."""

    KEPT = "kept"
    MISSING = "missing"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Order:
    """A block by its binary CID: `head`, `length` bytes that go to each of `places` (file, offset), and `tail`."""

    cid: bytes
    length: int
    head: bytes
    tail: bytes
    places: tuple[tuple[str, int], ...]

    def packed(self) -> list[Any]:
        return [self.cid, self.length, self.head, self.tail, [list(place) for place in self.places]]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Order:
        cid, length, head, tail, places = packed
        return cls(cid, length, head, tail, tuple((path, offset) for path, offset in places))

    def keep(self, block: bytes | memoryview) -> Outcome:
        """Writes a block where it belongs, unless it is not what its CID says.

        Raises:
            AccelError: hostile-content when it is made in another way than was said; disk-full and the like.
        """
        if hashlib.sha256(block).digest() != self.cid[-DIGEST:]:
            return Outcome.WRONG
        data = self._data(block)
        with coded_errors():
            for path, places in groupby(self.places, itemgetter(0)):
                write_at(Path(path), [offset for _, offset in places], data, write_back=True)
        return Outcome.KEPT

    def _data(self, block: bytes | memoryview) -> bytes | memoryview:
        if self.head or self.tail:
            data: bytes | memoryview | None = unwrap(bytes(block), (self.head, self.tail), self.length)
        else:
            data = block if len(block) == self.length else None
        if data is None:
            path = Path(self.places[0][0]).name
            raise AccelError(
                ErrorCode.HOSTILE_CONTENT,
                f"{path} is said to have a leaf of {self.length} bytes, and its block has {len(block)}",
            )
        return data
