"""Orders: what the node has its bulk process fetch, and where in which files the bytes of each block go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ...protocols.errors import AccelError, ErrorCode
from .disk import coded_errors, start_writing_back, write_at
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

    @property
    def block_bytes(self) -> int:
        return len(self.head) + self.length + len(self.tail)

    def packed(self) -> list[Any]:
        return [self.cid, self.length, self.head, self.tail, [list(place) for place in self.places]]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Order:
        cid, length, head, tail, places = packed
        return cls(cid, length, head, tail, tuple((path, offset) for path, offset in places))

    def keep(self, block: bytes) -> Outcome:
        """Writes a block where it belongs, unless it is not what its CID says.

        Raises:
            AccelError: hostile-content when it is made in another way than was said; disk-full and the like.
        """
        if hashlib.sha256(block).digest() != self.cid[-DIGEST:]:
            return Outcome.WRONG
        data = unwrap(block, (self.head, self.tail), self.length)
        if data is None:
            raise AccelError(
                ErrorCode.HOSTILE_CONTENT,
                f"{self.places[0][0]} is said to have a leaf of {self.length} bytes, its block has {len(block)}",
            )
        with coded_errors():
            for path, offset in self.places:
                write_at(Path(path), [offset], data)
                start_writing_back(Path(path), offset, len(data))
        return Outcome.KEPT
