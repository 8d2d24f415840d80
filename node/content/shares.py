"""Who fetches which block: pure bookkeeping, told of everything that happens, with the clock passed in.

    waiting ─take─► asked of a source ─answered─► landed ─settled─► done
       ▲                 │    ▲                     │
       └── gave up, lacks it  └─ stolen: asked of a second source as well ──┘ was not what its CID says

Batches grow with a source's speed and shrink as the work runs out, so equal sources end together. One that has
nothing to do takes over, from the sources that would need longest, what it would have sooner itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

FIRST_BATCH: Final = 4
#: How much work a source is given at once, and at most how many bytes.
_BATCH_S: Final = 1.0
_BATCH_BYTES: Final = 32 << 20
_MOST_BLOCKS: Final = 64
_NEWEST_WEIGHT: Final = 0.3
#: A source of unknown speed is expected to need as long as this for a block.
_GUESS_S: Final = 0.25


class Answer(Enum):
    WELCOME = "to be checked and settled"
    SURPLUS = "another source was sooner"
    UNASKED = "nobody asked this source for it"


@dataclass
class _Flight:
    """What one source was asked for and has not answered, in that order."""

    blocks: dict[int, None] = field(default_factory=dict)
    pace: float | None = None
    heard_at: float = 0.0

    def expected(self, position: int, now: float) -> float:
        """Seconds until the block at `position` comes; a source that is overdue may need as long again."""
        waited = now - self.heard_at
        return max((position + 1) * (_GUESS_S if self.pace is None else self.pace) - waited, waited)


class Shares:
    """Splits the blocks 0 … n-1 that `have` marks with 0 among sources known by name.

    `block_bytes` is about what one block has. `have` is the caller's and is set to 1 by `settled`.
    """

    def __init__(self, have: bytearray, block_bytes: int) -> None:
        self._have = have
        self._most = max(1, min(_MOST_BLOCKS, _BATCH_BYTES // max(block_bytes, 1)))
        self._fresh = 0
        self._back: deque[int] = deque()
        self._landed: set[int] = set()
        self._flights: dict[str, _Flight] = {}
        self._lacking: dict[int, set[str]] = {}
        self.left = have.count(0)
        self._waiting = self.left

    def take(self, source: str, now: float, sources: int) -> list[int]:
        """The blocks to ask this one of `sources` sources for next, which has answered what it was asked before."""
        flight = self._flights.setdefault(source, _Flight())
        limit = self._limit(flight, sources)
        batch = self._take_back(source, limit)
        batch += self._take_fresh(limit - len(batch))
        self._waiting -= len(batch)
        if not batch:
            batch = self._steal(source, flight, now)
        flight.blocks = dict.fromkeys(batch)
        flight.heard_at = now
        return batch

    def answered(self, source: str, block: int, now: float, *, present: bool) -> Answer:
        """A source sent the block, or said that it lacks it."""
        flight = self._flights[source]
        if block not in flight.blocks:
            return Answer.UNASKED
        del flight.blocks[block]
        took, flight.heard_at = now - flight.heard_at, now
        if not present:
            self._lacking.setdefault(block, set()).add(source)
            self._return(block)
            return Answer.SURPLUS
        flight.pace = took if flight.pace is None else flight.pace + (took - flight.pace) * _NEWEST_WEIGHT
        if self._have[block] or block in self._landed:
            return Answer.SURPLUS
        self._landed.add(block)
        return Answer.WELCOME

    def resumed(self, source: str, now: float) -> None:
        """The source could not go on until now, and not by its own fault."""
        self._flights[source].heard_at = now

    def settled(self, block: int, *, sound: bool) -> None:
        """A welcome block was checked and is on disk, or was not what its CID says."""
        self._landed.discard(block)
        if sound:
            self._have[block] = 1
            self.left -= 1
        else:
            self._return(block)

    def give_up(self, source: str) -> int:
        """The source will not answer what it still has; how many blocks that is."""
        flight = self._flights.setdefault(source, _Flight())
        blocks, flight.blocks = flight.blocks, {}
        for block in blocks:
            self._return(block)
        return len(blocks)

    def unobtainable(self, sources: Set[str]) -> int:
        """How many blocks none of these sources has."""
        if not sources:
            return self.left
        return sum(1 for block, lacking in self._lacking.items() if not self._is_safe(block) and lacking >= sources)

    def lacked_by(self, source: str) -> int:
        return sum(1 for lacking in self._lacking.values() if source in lacking)

    def _limit(self, flight: _Flight, sources: int) -> int:
        by_speed = FIRST_BATCH if flight.pace is None else round(_BATCH_S / max(flight.pace, 1e-6))
        return max(1, min(by_speed, self._most, self._waiting // (2 * max(sources, 1))))

    def _take_back(self, source: str, limit: int) -> list[int]:
        taken: list[int] = []
        for _ in range(len(self._back)):
            if len(taken) >= limit:
                break
            block = self._back.popleft()
            if source in self._lacking.get(block, ()):
                self._back.append(block)
            else:
                taken.append(block)
        return taken

    def _take_fresh(self, limit: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < limit and (block := self._have.find(0, self._fresh)) >= 0:
            taken.append(block)
            self._fresh = block + 1
        return taken

    def _steal(self, source: str, thief: _Flight, now: float) -> list[int]:
        """Blocks asked of others that would be here sooner from this source; those that are furthest off first."""
        expected: dict[int, float] = {}
        for name, flight in self._flights.items():
            for position, block in enumerate(flight.blocks if name != source else ()):
                if not self._is_safe(block) and source not in self._lacking.get(block, ()):
                    seconds = flight.expected(position, now)
                    expected[block] = min(expected.get(block, seconds), seconds)
        pace = _GUESS_S if thief.pace is None else thief.pace
        furthest = sorted(expected, key=lambda block: expected[block], reverse=True)[: self._most]
        return [block for number, block in enumerate(furthest) if expected[block] > (number + 1) * pace * 1.25 + 0.01]

    def _is_safe(self, block: int) -> bool:
        return bool(self._have[block]) or block in self._landed

    def _return(self, block: int) -> None:
        if not self._is_safe(block) and not any(block in flight.blocks for flight in self._flights.values()):
            self._back.append(block)
            self._waiting += 1
