"""Keeps this node linked: dials the addresses it was given, those it knew, and those its peers tell of.

Each target is dialled again with a growing, jittered pause for as long as it has no link. One that was only heard of
is given up after a bound; those the owner named, and those that were linked before, never are.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from .host import Host
from .links import Links

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.5
#: How long two nodes may stay apart when nothing tells either that the network between them is back.
_LONGEST_PAUSE_S: Final = 8.0
#: After a refusal for the wrong key; the owner may be about to mend it.
_STRANGER_PAUSE_S: Final = 60.0
_MOST_TRIES: Final = 12
_MAX_TARGETS: Final = 512
_LOOK_EVERY_S: Final = 0.25
_MAX_DIALS: Final = 8


@dataclass
class _Target:
    """Somebody to be linked with: every address known, and when to try next."""

    peer_id: str
    addresses: list[str] = field(default_factory=list)
    keep: bool = False
    tries: int = 0
    next_try: float = 0.0
    busy: bool = False
    failure: AccelError | None = None

    def hurry(self) -> None:
        self.tries, self.next_try = 0, 0.0


class Dialler:
    """All dialling of one node."""

    def __init__(self, host: Host, links: Links) -> None:
        self._host = host
        self._links = links
        self._targets: dict[str, _Target] = {}
        self._rng = random.Random()  # noqa: S311 — spreads tries in time
        self._dials = trio.CapacityLimiter(_MAX_DIALS)

    def want(self, addresses: list[str], *, keep: bool = False, heard: bool = False) -> None:
        """Adds addresses that end in `/p2p/<peer id>`; others, and this node's own, are ignored.

        `heard` says that the peer itself was just heard at them, so that it is dialled at once.
        """
        for address in addresses:
            peer_id = address.rpartition("/p2p/")[2] if "/p2p/" in address else ""
            if not peer_id or peer_id == self._host.peer_id or len(self._targets) >= _MAX_TARGETS:
                continue
            target = self._targets.setdefault(peer_id, _Target(peer_id))
            target.keep = target.keep or keep
            if address not in target.addresses:
                target.addresses = [address, *target.addresses][:8]
                target.hurry()
            if heard:
                target.hurry()

    def linked(self, peer_id: str) -> None:
        """A link is up: when it goes down, the first try comes soon, and others until it is up again."""
        if (target := self._targets.get(peer_id)) is not None:
            target.hurry()
            target.keep, target.failure = True, None

    def hurry(self) -> None:
        """The network has changed: who could not be reached may be within reach now."""
        for target in self._targets.values():
            target.hurry()

    def failures(self) -> dict[str, AccelError]:
        """Why those that are not linked are not, by the address tried first."""
        return {
            target.addresses[0]: target.failure
            for target in self._targets.values()
            if target.failure is not None and target.addresses and self._links.get(target.peer_id) is None
        }

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                for target in list(self._targets.values()):
                    if not target.busy and target.next_try <= now and self._links.get(target.peer_id) is None:
                        target.busy = True
                        nursery.start_soon(self._try, target)
                await trio.sleep(_LOOK_EVERY_S)

    async def _try(self, target: _Target) -> None:
        try:
            async with self._dials:
                await self._connect(target)
            await self._links.dial(target.peer_id)
            self._pause(target, _FIRST_PAUSE_S)
        except AccelError as error:
            log.info("%s is not linked: %s", target.peer_id, error)
            target.failure = error
            await self._drop_dead_connection(target, error)
            stranger = error.code in (ErrorCode.WRONG_CLUSTER_KEY, ErrorCode.VERSION_MISMATCH)
            self._pause(target, _STRANGER_PAUSE_S if stranger else self._backoff(target))
        except Exception as error:
            log.warning("dialling %s: %r", target.peer_id, error)
            self._pause(target, self._backoff(target))
        finally:
            target.busy = False

    async def _connect(self, target: _Target) -> None:
        failure = AccelError(ErrorCode.PEER_LOST, "no address is known")
        for address in list(target.addresses):
            try:
                await self._host.connect(address)
                return
            except AccelError as error:
                failure = error
        raise failure

    async def _drop_dead_connection(self, target: _Target, error: AccelError) -> None:
        """A connection on which no stream opens may be half open; libp2p would go on using it for ever."""
        if error.code in (ErrorCode.PEER_LOST, ErrorCode.PEER_SILENT) and self._links.get(target.peer_id) is None:
            await self._host.disconnect(target.peer_id)

    def _backoff(self, target: _Target) -> float:
        target.tries += 1
        if target.tries >= _MOST_TRIES and not target.keep:
            self._targets.pop(target.peer_id, None)
        return float(min(_FIRST_PAUSE_S * 2 ** min(target.tries, 10), _LONGEST_PAUSE_S))

    def _pause(self, target: _Target, seconds: float) -> None:
        target.next_try = trio.current_time() + seconds * self._rng.uniform(0.75, 1.25)
