"""Holds what the cluster's pins want of this node: fetches it, keeps it, and lets it go when others hold it.

Every node decides for itself by `placement.chosen`, from what it knows of the members. So that all decide alike they
wait, after a change, until they have heard of each other's part in it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.pins import PinChange
from ..content.placement import Member, Part, chosen
from ..content.store import ModelStore, StoredModel
from .book import PinBook
from .members import Members, OwnState

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_ROOM_EVERY_S: Final = 20.0
#: How long after a change a node waits at most for what others say to it.
_SETTLE_S: Final = 8.0
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 300.0
_TRIES: Final = 3


class Fetches(Protocol):
    """Makes a model be in the store; `Catalogue.ensure_here`."""

    async def __call__(self, cid: bytes, *, on_progress: Callable[[str, int, int, str], None]) -> None: ...


@dataclass
class _Trouble:
    """A pin that could not be fetched: how often in a row, why, and when it is tried again."""

    error: AccelError
    tries: int
    again_at: float


class PinKeeper:
    """The part of one node in the cluster's pins."""

    def __init__(
        self,
        peer_id: str,
        store: ModelStore,
        book: PinBook,
        members: Members,
        fetch: Fetches,
        *,
        grace_s: float,
        unseen: Callable[[], bool],
    ) -> None:
        """`unseen()` tells whether a member that was known before this start has not shown itself since."""
        self._peer_id = peer_id
        self._store = store
        self._book = book
        self._members = members
        self._fetch = fetch
        self._grace_s = grace_s
        self._unseen = unseen
        self._started_us = time.time_ns() // 1000
        self._began = trio.current_time()
        self._changed_at: dict[bytes, float] = {}
        self._room = 0
        self._wanted: dict[bytes, list[str]] = {}
        self._committed: set[bytes] = set()
        self._troubles: dict[bytes, _Trouble] = {}
        self._fetching: bytes | None = None
        self._percent = 0
        self._scope = trio.CancelScope()
        self._changed = trio.Event()
        book.listeners.append(lambda new: self._note([signed.change.cid for signed in new]))

    def state(self) -> OwnState:
        """What peers are told."""
        parts = {pin.cid: self._part(pin) for pin in self._book.pins.pins()}
        return OwnState(self._room, parts, self._fetching, self._percent)

    def wake(self) -> None:
        self._changed.set()

    def wanted(self, cid: bytes) -> list[str]:
        """The nodes that are to hold a pinned model, as this node sees it."""
        return list(self._wanted.get(cid, ()))

    def trouble(self, cid: bytes) -> AccelError | None:
        """Why this node does not hold what it should."""
        trouble = self._troubles.get(cid)
        return trouble.error if trouble else None

    def percent(self, cid: bytes) -> int | None:
        """How far this node is with fetching it; None when it does not."""
        return self._percent if cid == self._fetching else None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_room)
            nursery.start_soon(self._fetch_all)
            while True:
                self._changed = trio.Event()
                await self._decide()
                with trio.move_on_after(_LOOK_EVERY_S):
                    await self._changed.wait()

    async def _watch_room(self) -> None:
        while True:
            try:
                self._room = await trio.to_thread.run_sync(self._look_at_room)
            except AccelError as error:
                log.warning("how much room there is cannot be told: %s", error)
            await trio.sleep(_ROOM_EVERY_S)

    def _look_at_room(self) -> int:
        """What is left, and what would be if all went that nothing keeps here."""
        loose = sum(model.size for model in self._store.models() if not model.kept)
        return self._store.room().left + loose

    def _note(self, cids: list[bytes]) -> None:
        for cid in cids:
            self._changed_at[cid] = trio.current_time()
            self._troubles.pop(cid, None)
        self.wake()

    async def _decide(self) -> None:
        pins = self._book.pins.pins()
        for of_gone in (self._troubles, self._changed_at):
            for cid in of_gone.keys() - {pin.cid for pin in pins}:
                del of_gone[cid]
        self._wanted = {pin.cid: self._choose(pin) for pin in pins}
        mine = {cid for cid, nodes in self._wanted.items() if self._peer_id in nodes}
        self._committed = {pin.cid for pin in pins if pin.cid in mine and self._may_begin(pin)}
        if self._fetching is not None and self._fetching not in mine:
            self._scope.cancel()
        for model in self._store.models():
            if model.shared != (model.cid_bytes in mine):
                await self._mark(model, shared=model.cid_bytes in mine)

    def _choose(self, pin: PinChange) -> list[str]:
        own = Member(self._peer_id, self._room, self._part(pin))
        return chosen(pin, self._members.members_for(pin, own))

    def _may_begin(self, pin: PinChange) -> bool:
        """Whether enough is known to fetch something: what others hold, and who else there is."""
        if self._holds(pin.cid) or pin.cid in self._committed:
            return True
        now, digest = trio.current_time(), self._book.pins.digest()
        if pin.time < self._started_us and now - self._began < self._grace_s and self._unseen():
            return False
        settled = all(view.digest == digest for view in self._members.views().values())
        return settled or now - self._changed_at.get(pin.cid, self._began) > min(_SETTLE_S, self._grace_s)

    async def _mark(self, model: StoredModel, *, shared: bool) -> None:
        try:
            await trio.to_thread.run_sync(partial(self._store.share, model.cid_bytes, shared=shared))
        except AccelError as error:
            log.warning("%s: %s", model.name or model.cid, error)

    def _holds(self, cid: bytes) -> bool:
        return self._store.get(cid) is not None and cid not in self._store.damaged

    def _part(self, pin: PinChange) -> Part:
        if self._holds(pin.cid):
            return Part.HOLDS
        trouble = self._troubles.get(pin.cid)
        if trouble is not None and trouble.tries >= _TRIES and trio.current_time() < trouble.again_at:
            return Part.UNABLE
        return Part.FETCHING if pin.cid in self._committed else Part.NONE

    async def _fetch_all(self) -> None:
        """One model at a time, so that each is there as soon as can be."""
        while True:
            cid = self._next()
            if cid is None:
                await trio.sleep(_LOOK_EVERY_S / 4)
            else:
                await self._fetch_one(cid)

    def _next(self) -> bytes | None:
        now = trio.current_time()
        for cid in sorted(self._committed):
            trouble = self._troubles.get(cid)
            if not self._holds(cid) and (trouble is None or now >= trouble.again_at):
                return cid
        return None

    async def _fetch_one(self, cid: bytes) -> None:
        self._fetching, self._percent = cid, 0
        try:
            with trio.CancelScope() as self._scope:
                await self._fetch(cid, on_progress=self._progress)
                self._troubles.pop(cid, None)
                if (model := self._store.get(cid)) is not None:
                    await self._mark(model, shared=True)
        except AccelError as error:
            self._failed(cid, error)
        finally:
            self._fetching = None
            self.wake()

    def _progress(self, _state: str, done: int, total: int, _note: str) -> None:
        self._percent = 100 * done // total if total else 0

    def _failed(self, cid: bytes, error: AccelError) -> None:
        tries = self._troubles[cid].tries + 1 if cid in self._troubles else 1
        if error.code == ErrorCode.DISK_FULL:
            tries = max(tries, _TRIES)
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tries - 1)) if tries < _TRIES else _LONGEST_PAUSE_S
        self._troubles[cid] = _Trouble(error, tries, trio.current_time() + pause)
        log.warning("a pin of the cluster cannot be held here: %s", error)
