"""What this node knows of who holds which of the cluster's pins; no input or output, the clock is passed in.

A peer tells it as a state: a digest of the pins it knows and, in the order of their CIDs, one byte for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ...protocols.errors import ProtocolError
from ...protocols.pins import PinChange, PinSet
from ..content.placement import Member, Part

MAX_MEMBERS: Final = 1024
_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class OwnState:
    """What this node tells: room in bytes, its part in each pin, and how far it is with the one it fetches."""

    room: int = 0
    parts: dict[bytes, Part] = field(default_factory=dict)
    fetching: bytes | None = None
    percent: int = 0


@dataclass(slots=True)
class View:
    """A member as it last told; `seen_at` by this node's clock, `digest` of the pins that it spoke of."""

    name: str
    seen_at: float
    digest: bytes = b""
    room: int = 0
    parts: dict[bytes, Part] = field(default_factory=dict)
    fetching: bytes | None = None
    percent: int = 0


class Members:
    """All other members of the cluster, those that are gone for less than the grace among them."""

    def __init__(self, clock: Callable[[], float], grace_s: float) -> None:
        self._clock = clock
        self._grace_s = grace_s
        self._views: dict[str, View] = {}

    def views(self) -> dict[str, View]:
        """Those that count, by peer id."""
        now = self._clock()
        for peer_id in [peer for peer, view in self._views.items() if now - view.seen_at > self._grace_s]:
            del self._views[peer_id]
        return dict(self._views)

    def seen(self, peer_id: str, name: str) -> View | None:
        """Notes that there is a link with a member; None when there are too many."""
        if peer_id not in self._views and len(self._views) >= MAX_MEMBERS:
            return None
        view = self._views.setdefault(peer_id, View(name, 0.0))
        view.name, view.seen_at = name[:_MAX_NAME], self._clock()
        return view

    def told(self, peer_id: str, name: str, state: object, pins: PinSet) -> bool:
        """Takes a member's state; false when it speaks of other pins than these. Raises ProtocolError."""
        digest, room, parts, fetching, percent = _checked(state)
        view = self.seen(peer_id, name)
        if view is None:
            return True
        view.digest, view.room = digest, room
        if digest != pins.digest():
            return False
        known = pins.pins()
        if len(parts) != len(known):
            raise ProtocolError("a state of pins is of another length than the pins")
        view.parts = {pin.cid: Part(part) for pin, part in zip(known, parts, strict=True) if part}
        view.fetching = known[fetching].cid if 0 <= fetching < len(known) else None
        view.percent = percent
        return True

    def members_for(self, pin: PinChange, own: Member) -> list[Member]:
        """Everyone that counts for one pin, this node among them."""
        others = self.views().items()
        return [own, *(Member(peer, view.room, view.parts.get(pin.cid, Part.NONE)) for peer, view in others)]


def packed_state(pins: PinSet, own: OwnState) -> list[Any]:
    """[digest, room, a byte for each pin, place of the one that is fetched or -1, per cent of it]"""
    cids = [pin.cid for pin in pins.pins()]
    place = cids.index(own.fetching) if own.fetching in cids else -1
    return [pins.digest(), own.room, bytes(own.parts.get(cid, Part.NONE) for cid in cids), place, own.percent]


def _checked(state: object) -> tuple[bytes, int, bytes, int, int]:
    if not isinstance(state, list) or len(state) < 5:
        raise ProtocolError("a state of pins is none")
    digest, room, parts, fetching, percent = state[:5]
    numbers = all(type(each) is int and -1 <= each < 1 << 63 for each in (room, fetching, percent))
    if type(digest) is not bytes or type(parts) is not bytes or not numbers or max(parts, default=0) > max(Part):
        raise ProtocolError("a state of pins is malformed")
    return digest, room, parts, fetching, min(percent, 100)
