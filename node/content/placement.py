"""Who holds a pinned model: the same answer on every node that sees the same members, and few moves when they change.

Rendezvous hashing: a member draws for each model a number from the hash of both, so who is next after a loss is
agreed without a word. Members with more free space win more often. Who holds a model, or is fetching it, goes on
doing so for as long as there are not too many of them. Pure.

Source: highest random weight hashing, Thaler and Ravishankar 1998; its weighted form, Schindelhauer and Schomaker
2005; when to choose anew is as IPFS Cluster does it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from ...protocols.pins import EVERYWHERE, PinChange

_GIB: Final = 1 << 30


class Part(IntEnum):
    """What a member has to do with one model."""

    NONE = 0
    FETCHING = 1
    HOLDS = 2
    #: It could not get it, or has no room, and is not asked again for a while.
    UNABLE = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A node that counts: one that is here, or is gone for less than the grace. `room` in bytes."""

    node: str
    room: int
    part: Part = Part.NONE


def chosen(pin: PinChange, members: Iterable[Member]) -> list[str]:
    """The nodes that are to hold the model, those that have it first; fewer where there is no room for more."""
    ordered = sorted(members, key=lambda member: (-weight(pin.cid, member), member.node))
    committed = [member for part in (Part.HOLDS, Part.FETCHING) for member in ordered if member.part == part]
    able = [member for member in ordered if member.part == Part.NONE and member.room >= pin.size]
    if pin.maximum == EVERYWHERE:
        return [member.node for member in (*committed, *able)]
    if len(committed) < pin.minimum:
        committed += able[: pin.maximum - len(committed)]
    return [member.node for member in committed[: pin.maximum]]


def weight(cid: bytes, member: Member) -> float:
    """The greater, the sooner it is chosen.

    Room counts in powers of two, because members see each other's at different moments.
    """
    return (1 + math.floor(math.log2(1 + member.room / _GIB))) / _drawn(cid, member.node)


@lru_cache(maxsize=1 << 16)
def _drawn(cid: bytes, node: str) -> float:
    """-ln of a number between 0 and 1. It is asked for every second, and never changes."""
    drawn = int.from_bytes(hashlib.sha256(cid + node.encode()).digest()[:8]) + 0.5
    return -math.log(drawn / 2**64)
