"""Orders: what the node has its bulk process fetch, and where in which files the bytes of each block go."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ...protocols.errors import AccelError, ErrorCode
from .disk import coded_errors, write_at
from .leaves import DIGEST, unwrap

#: A leaf in more places, or with more around its bytes, comes another way, so that an order stays small.
MOST_PLACES: Final = 8
MOST_AROUND: Final = 1024
#: So many bytes of orders go to the process at once; a call takes 256 KiB.
_PART_BYTES: Final = 128 << 10


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
    def packed_bytes(self) -> int:
        """About what it takes to say it, and never less."""
        places = sum(len(os.fsencode(path)) + 16 for path, _ in self.places)
        return len(self.cid) + len(self.head) + len(self.tail) + places + 32

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


def in_parts(orders: Iterable[Order]) -> Iterator[list[Order]]:
    """The same orders, as many at once as one call takes."""
    part: list[Order] = []
    size = 0
    for order in orders:
        if part and size + order.packed_bytes > _PART_BYTES:
            yield part
            part, size = [], 0
        part.append(order)
        size += order.packed_bytes
    if part:
        yield part
