"""How sources behaved in earlier fetches: a bounded record by name, of which half is forgiven every ten minutes. Pure.

One that lied is left aside for long, one that stalled or left for a little, and no one is ever left aside for good.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Protocol, TypeVar

HALF_LIFE_S: Final = 600.0
MOST: Final = 1024
#: At this much a source is asked only when the others do not suffice.
ASIDE: Final = 2.0


class Fault(IntEnum):
    """What a source did, by how much it counts."""

    FAILED = 4
    LIED = 16


class Named(Protocol):
    name: str


S = TypeVar("S", bound=Named)


class Standing:
    """The clock, in seconds, is passed in."""

    def __init__(self) -> None:
        self._faults: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def note(self, name: str, fault: Fault, now: float) -> None:
        self._faults[name] = self.faults(name, now) + fault, now
        self._faults.move_to_end(name)
        if len(self._faults) > MOST:
            self._faults.popitem(last=False)

    def faults(self, name: str, now: float) -> float:
        """What is held against a source still."""
        faults, at = self._faults.get(name, (0.0, now))
        return faults * math.exp2(-max(now - at, 0.0) / HALF_LIFE_S)

    def split(self, sources: Sequence[S], now: float) -> tuple[list[S], list[S]]:
        """Those to ask, and those to ask when these do not suffice; when all are at fault, all are to be asked."""
        good = [source for source in sources if self.faults(source.name, now) < ASIDE]
        return (good, [source for source in sources if source not in good]) if good else (list(sources), [])
