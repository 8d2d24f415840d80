"""Fetches a model by its CID from several sources at once: every block checked, whole or absent, resumable.

nodes of the DAG, level by level ─► the list of leaves ─► what is on disk already is hashed and kept
─► the rest from all sources at once, each block checked, then written ─► the folder becomes a model
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from .cid import format_cid, matches
from .contents import Contents
from .dag import DagWalk
from .disk import OnProgress
from .exchange import BlockSource, Exchange
from .layout import Origin
from .leaves import DIGEST
from .places import LeafMismatchError, Places
from .shares import Shares
from .standing import Standing
from .store import ModelStore

__all__ = ["BlockSource", "FetchReport", "Fetcher"]

log = logging.getLogger(__name__)

MakeRoom = Callable[[int], Awaitable[object]]
#: Makes a whole folder a model, with the name and the origin that whoever fetches gives it.
Adopt = Callable[[Path, Contents], object]

_PROGRESS_EVERY_S: Final = 0.1
#: A large model's nodes have about 50 KB each.
_NODE_BYTES: Final = 64 << 10
_CHECKED_AT_ONCE: Final = 64


@dataclass(frozen=True)
class FetchReport:
    """What a fetch moved: bytes of use by source, bytes that were on disk already, bytes of no use, seconds in all."""

    cid: bytes
    size: int
    kept: int
    surplus: int
    seconds: float
    by_source: dict[str, int]

    @property
    def already(self) -> bool:
        """Whether the model was there, so that there was nothing to do."""
        return self.seconds == 0.0


@dataclass(eq=False)
class _Running:
    """A fetch that others may wait for; its outcome stays None when it was cancelled."""

    listeners: list[OnProgress]
    ended: trio.Event = field(default_factory=trio.Event)
    outcome: FetchReport | AccelError | None = None

    def progress(self, state: str, done: int, total: int) -> None:
        for listener in self.listeners:
            listener(state, done, total)


class Fetcher:
    """Fetches into one store. Those that want one model share one fetch."""

    def __init__(self, store: ModelStore, make_room: MakeRoom | None = None) -> None:
        """`make_room(bytes)` removes what may go until so many more fit, or raises AccelError disk-full."""
        self._store = store
        self._make_room = make_room or self._check_room
        self._running: dict[bytes, _Running] = {}
        self._standing = Standing()

    async def fetch(
        self,
        cid: bytes,
        sources: Sequence[BlockSource],
        *,
        name: str | None = None,
        origin: Origin = Origin(),
        progress: OnProgress = lambda *_: None,
    ) -> FetchReport:
        """Makes the model be in the store. `progress` gets the state, and the bytes done and in all.

        One that is there is fetched when the store knows it to be damaged; its sound parts are kept, and it stays
        until it is whole again.

        Raises:
            AccelError: content-not-found or corrupt-content with what each source did, hostile-content,
                not-a-model, bad-input, bad-cid, disk-full.
        """
        while (running := self._running.get(cid)) is not None:
            outcome = await _follow(running, progress)
            if isinstance(outcome, AccelError):
                raise AccelError(outcome.code, outcome.message, outcome.hint)
            if outcome is not None:
                return outcome
        if (stored := self._store.get(cid)) is not None and cid not in self._store.damaged:
            return FetchReport(cid, stored.size, stored.size, 0, 0.0, {})
        return await self._lead(cid, sources, partial(self._store.adopt, name=name, origin=origin), progress)

    async def _check_room(self, size: int) -> None:
        await trio.to_thread.run_sync(self._store.check_space, size)

    async def _lead(
        self, cid: bytes, sources: Sequence[BlockSource], adopt: Adopt, progress: OnProgress
    ) -> FetchReport:
        running = self._running[cid] = _Running([progress])
        fetch = _Fetch(self._store, cid, self._standing, running.progress, self._make_room)
        try:
            running.outcome = await fetch.run(sources, adopt)
        except AccelError as error:
            running.outcome = error
            raise
        finally:
            del self._running[cid]
            running.ended.set()
        return running.outcome


async def _follow(running: _Running, progress: OnProgress) -> FetchReport | AccelError | None:
    running.listeners.append(progress)
    try:
        await running.ended.wait()
    finally:
        running.listeners.remove(progress)
    return running.outcome


class _Fetch:
    def __init__(
        self,
        store: ModelStore,
        cid: bytes,
        standing: Standing,
        progress: OnProgress,
        make_room: MakeRoom,
    ) -> None:
        self._store = store
        self._make_room = make_room
        self._cid = cid
        self._standing = standing
        self._exchange = Exchange([])
        self._progress = _Progress(progress)
        self._began = trio.current_time()

    async def run(self, sources: Sequence[BlockSource], adopt: Adopt) -> FetchReport:
        """Sources that did wrong in earlier fetches are asked when the others cannot give it all."""
        good, aside = self._standing.split(sources, trio.current_time())
        try:
            try:
                return await self._run(good, adopt)
            except AccelError as error:
                if not aside or error.code not in (ErrorCode.CONTENT_NOT_FOUND, ErrorCode.CORRUPT_CONTENT):
                    raise
                log.info("%s is not to be had without those left aside: %s", format_cid(self._cid), error.message)
            return await self._run([*good, *aside], adopt)
        except AccelError as error:
            raise AccelError(error.code, f"{format_cid(self._cid)}: {error.message}", error.hint) from error
        finally:
            for source, fault in self._exchange.faults.items():
                self._standing.note(source, fault, trio.current_time())

    async def _run(self, sources: Sequence[BlockSource], adopt: Adopt) -> FetchReport:
        self._exchange = self._exchange.anew(sources)
        try:
            return await self._exchange.run(partial(self._fetch, adopt, presume=True))
        except LeafMismatchError as error:
            log.info("%s is walked again, and nothing is presumed: %s", format_cid(self._cid), error.message)
        self._exchange = self._exchange.anew(sources)
        return await self._exchange.run(partial(self._fetch, adopt, presume=False))

    async def _fetch(self, adopt: Adopt, *, presume: bool) -> FetchReport:
        contents, found = await self._walk(presume=presume)
        leaves, kept = await self._prepare(contents, found)
        await self._exchange.get(leaves)
        self._progress.tell("storing", contents.size, contents.size)
        folder = await trio.to_thread.run_sync(self._store.partial, self._cid)
        await trio.to_thread.run_sync(adopt, folder, contents)
        await trio.to_thread.run_sync(shutil.rmtree, folder, True)
        seconds = trio.current_time() - self._began
        by_source = dict(self._exchange.by_source)
        return FetchReport(self._cid, contents.size, kept, self._exchange.surplus, seconds, by_source)

    async def _walk(self, *, presume: bool) -> tuple[Contents, dict[bytes, bytes]]:
        """The model without its leaves, and those leaves that came along; level by level."""
        walk = DagWalk(self._cid, presume=presume)
        found = 0
        while wanted := walk.wanted():
            self._progress.tell("listing", found, 0)
            await self._exchange.get(_Nodes(walk, wanted))
            found += len(wanted)
        return await trio.to_thread.run_sync(walk.finished), walk.found

    async def _prepare(self, contents: Contents, found: dict[bytes, bytes]) -> tuple[_Leaves, int]:
        """Space, folders and files for the model, and how many of its bytes were there before."""
        folder = await trio.to_thread.run_sync(self._store.partial, self._cid)
        places = await trio.to_thread.run_sync(Places, contents, folder)
        there = await trio.to_thread.run_sync(places.bytes_on_disk)
        await self._make_room(max(0, contents.size - there))
        kept = await self._gather(places, contents.size, _Known(self._store, found))
        return _Leaves(places, contents, kept, self._progress), kept

    async def _gather(self, places: Places, total: int, known: _Known) -> int:
        """Keeps what an earlier fetch left and what other models have; a little at a time, so it can be cancelled."""
        resumed = await trio.to_thread.run_sync(places.prepare)
        kept, every = 0, iter(range(len(places.have)))
        while some := list(islice(every, _CHECKED_AT_ONCE)):
            if resumed:
                kept += await trio.to_thread.run_sync(places.check, some)
            kept += await trio.to_thread.run_sync(places.fill, some, known)
            self._progress.tell("checking", kept, total)
        return kept


class _Known:
    """Leaves that nobody has to be asked for: those that came while walking, those of models that are here."""

    def __init__(self, store: ModelStore, found: Mapping[bytes, bytes]) -> None:
        self._store = store
        self._found = {hashlib.sha256(b"").digest(): b"", **found}

    def __call__(self, cid: bytes) -> bytes | None:
        data = self._found.get(cid[-DIGEST:])
        return self._store.read_block(cid) if data is None else data


class _Nodes:
    """The nodes of one level of the DAG, as work for an exchange."""

    def __init__(self, walk: DagWalk, wanted: list[bytes]) -> None:
        self.shares = Shares(bytearray(len(wanted)), _NODE_BYTES)
        self._walk = walk
        self._wanted = wanted
        self._adding = threading.Lock()

    def cid(self, block: int) -> bytes:
        return self._wanted[block]

    def keep(self, block: int, data: bytes) -> bool:
        if not matches(self._wanted[block], data):
            return False
        with self._adding:
            self._walk.add(self._wanted[block], data)
        return True

    def order(self, block: int) -> None:
        """The walk needs them here."""

    def kept(self, block: int) -> None:
        pass


class _Leaves:
    """The leaves that are not on disk, as work for an exchange."""

    def __init__(self, places: Places, contents: Contents, done: int, progress: _Progress) -> None:
        self.shares = Shares(places.have, max(file.chunk for file in contents.files))
        self._places = places
        self._done = done
        self._total = contents.size
        self._progress = progress
        self.cid = places.cid
        self.keep = places.keep
        self.order = places.order
        progress.tell("fetching", done, self._total)

    def kept(self, block: int) -> None:
        self._done += self._places.size(block)
        self._progress.tell("fetching", self._done, self._total)


class _Progress:
    """Passes progress on: each state when it begins and when it is done, in between not too often."""

    def __init__(self, listener: OnProgress) -> None:
        self._listener = listener
        self._state = ""
        self._next = 0.0

    def tell(self, state: str, done: int, total: int) -> None:
        now = trio.current_time()
        if state != self._state or done == total or now >= self._next:
            self._state, self._next = state, now + _PROGRESS_EVERY_S
            self._listener(state, done, total)
