"""What this node knows of its peers: links, round trips, adverts. No input or output; the clock is passed in.

Of two adverts the newer (incarnation, counter) wins. An advert expires by this node's own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ...protocols.advert import Advert, BackendState, ModelInfo, Offer

EXPIRY_S: Final = 35.0
#: A peer that was not heard of for so long is forgotten.
FORGET_S: Final = 600.0
MAX_PEERS: Final = 1024
_WEIGHT: Final = 0.2
#: A quick answer says more of the path than a slow one, which a busy moment at either end can make.
_QUICK_WEIGHT: Final = 0.6
_SLOW_WEIGHT: Final = 0.1


@dataclass
class Peer:
    """A peer as it looks now. Times in seconds of the directory's clock, bandwidth in bytes a second."""

    peer_id: str
    name: str = ""
    linked: bool = False
    rtt_s: float = 0.0
    bandwidth: float | None = None
    last_heard: float = 0.0
    advert: Advert | None = None
    advert_at: float = float("-inf")
    known_addresses: tuple[str, ...] = field(default=())

    @property
    def state(self) -> str:
        return self.advert.state if self.advert else "unknown"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.advert.addresses if self.advert else self.known_addresses

    @property
    def backends(self) -> tuple[BackendState, ...]:
        return self.advert.backends if self.advert else ()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return self.advert.models if self.advert else ()

    @property
    def offers(self) -> tuple[Offer, ...]:
        return self.advert.offers if self.advert else ()


class Directory:
    """All peers of one node."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._peers: dict[str, Peer] = {}

    def get(self, peer_id: str) -> Peer | None:
        return self._peers.get(peer_id)

    def peers(self) -> Iterator[Peer]:
        """Those that are linked or were heard of lately; what they advertised long ago is left out."""
        now = self._clock()
        for peer in list(self._peers.values()):
            if peer.advert is not None and now - peer.advert_at > EXPIRY_S:
                peer.advert = None
            if not peer.linked and now - peer.last_heard > FORGET_S:
                del self._peers[peer.peer_id]
            else:
                yield peer

    def linked(self, peer_id: str, name: str, addresses: tuple[str, ...]) -> None:
        if (peer := self._heard(peer_id)) is not None:
            peer.linked, peer.name, peer.known_addresses = True, name, addresses

    def unlinked(self, peer_id: str) -> None:
        """A peer without a link offers nothing; its next advert comes with its next link."""
        if (peer := self._peers.get(peer_id)) is not None:
            peer.linked, peer.advert = False, None

    def round_trip(self, peer_id: str, seconds: float) -> None:
        if (peer := self._heard(peer_id)) is not None:
            weight = _QUICK_WEIGHT if seconds < peer.rtt_s else _SLOW_WEIGHT
            peer.rtt_s = seconds if not peer.rtt_s else peer.rtt_s + weight * (seconds - peer.rtt_s)

    def moved(self, peer_id: str, size: int, seconds: float) -> None:
        """Learns a peer's bandwidth from `size` bytes that came from it in `seconds`."""
        if (peer := self._peers.get(peer_id)) is not None and size >= 1 << 20 and seconds > 0:
            rate = size / seconds
            peer.bandwidth = rate if peer.bandwidth is None else peer.bandwidth + _WEIGHT * (rate - peer.bandwidth)

    def advertised(self, peer_id: str, advert: Advert) -> bool:
        """Takes an advert; false when a newer one is known already."""
        peer = self._heard(peer_id)
        if peer is None or (peer.advert is not None and advert.age_key <= peer.advert.age_key):
            return False
        peer.advert, peer.advert_at, peer.name = advert, self._clock(), advert.node_name
        return True

    def _heard(self, peer_id: str) -> Peer | None:
        if peer_id not in self._peers and len(self._peers) >= MAX_PEERS:
            return None
        peer = self._peers.setdefault(peer_id, Peer(peer_id))
        peer.last_heard = self._clock()
        return peer
