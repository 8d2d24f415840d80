"""Inputs and results too large for one frame: how much of one may be sent, and how much of one has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import ProtocolError

#: What may be sent of a body before its receiver grants more, in bytes.
WINDOW: Final = 256 * 1024


@dataclass(slots=True)
class OutgoingBody:
    """A body on its way out: the part not yet sent, and what may be sent of it now."""

    rest: memoryview
    credit: int = WINDOW


class IncomingBody:
    """A body on its way in, never more than it announced and was granted."""

    __slots__ = ("data", "expected", "granted")

    def __init__(self, expected: int) -> None:
        self.data = bytearray()
        self.expected = expected
        self.granted = min(WINDOW, expected)

    def add(self, data: bytes) -> None:
        if len(self.data) + len(data) > self.granted:
            raise ProtocolError("a body goes beyond its credit")
        self.data += data

    @property
    def complete(self) -> bool:
        return len(self.data) == self.expected

    def next_grant(self) -> int:
        """What to grant now, 0 for nothing: a window whenever less than half of one is left."""
        left = self.granted - len(self.data)
        more = min(WINDOW, self.expected - self.granted) if left <= WINDOW // 2 else 0
        self.granted += more
        return more
