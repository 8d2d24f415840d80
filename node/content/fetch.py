"""Fetches a model by its CID from several sources at once: every block checked, whole or absent, resumable.

    nodes of the DAG, level by level ─► the list of leaves ─► what is on disk already is rehashed and kept
    ─► the rest is split among the sources, and stolen from slow ones at the end ─► the folder becomes a model

The partial folder is its own journal: after a kill, whatever hashes right is kept. A source that lies, stalls, lacks
a block or leaves costs its own share only.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import trio

from ...protocols.errors import AccelError, ErrorCode
from .cid import format_cid, matches
from .dag import DagWalk
from .importer import Imported
from .store import ModelStore

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
Deliver = Callable[[bytes, bytes | None], Awaitable[None]]

_FIRST_BATCH: Final = 4
_MOST_BATCH: Final = 16
_BATCH_S: Final = 0.3
_STALL_S: Final = 10.0
_PROGRESS_EVERY_S: Final = 0.1
_BUSY_WRITERS: Final = 4


class BlockSource(Protocol):
    """Somewhere blocks come from; `name` is a peer id or the like."""

    name: str

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Awaits `deliver(cid, block or None)` for each, in order. Raises AccelError when the source is lost."""
        ...


@dataclass(frozen=True)
class FetchReport:
    """What a fetch moved: bytes by source, bytes that were on disk already, seconds in all."""

    cid: bytes
    size: int
    kept: int
    seconds: float
    by_source: dict[str, int]


@dataclass(eq=False)
class _Leaf:
    """One block of file content and every place it goes to."""

    cid: bytes
    size: int
    targets: list[tuple[Path, int]]
    done: bool = False
    asked: set[str] = field(default_factory=set)


class _SourceError(Exception):
    """A source has to be dropped; the message says why."""


class Fetcher:
    """Fetches into one store. Two that want one model share one fetch."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._running: dict[bytes, trio.Event] = {}

    async def fetch(
        self, cid: bytes, sources: Sequence[BlockSource], *, name: str | None, progress: OnProgress
    ) -> FetchReport:
        """Raises AccelError content-not-found, corrupt-content, hostile-content, disk-full."""
        while (running := self._running.get(cid)) is not None:
            progress("waiting", 0, 0)
            await running.wait()
            if (stored := self._store.get(cid)) is not None:
                return FetchReport(cid, stored.size, stored.size, 0.0, {})
        self._running[cid] = trio.Event()
        try:
            return await _Fetch(self._store, cid, sources, progress).run(name)
        finally:
            self._running.pop(cid).set()


class _Fetch:
    def __init__(self, store: ModelStore, cid: bytes, sources: Sequence[BlockSource], progress: OnProgress) -> None:
        self._store = store
        self._cid = cid
        self._sources = {source.name: source for source in sources}
        self._failures: dict[str, str] = {}
        self._progress = progress
        self._reported = 0.0
        self._pending: deque[_Leaf] = deque()
        self._in_flight: dict[str, dict[bytes, _Leaf]] = {}
        self._left = 0
        self._done_bytes = self._total_bytes = 0
        self._by_source: dict[str, int] = {}
        self._writers = trio.Semaphore(_BUSY_WRITERS)
        self._changed = trio.Event()
        self._lied = False

    async def run(self, name: str | None) -> FetchReport:
        began = time.monotonic()
        imported = await self._walk()
        folder = await trio.to_thread.run_sync(self._store.partial, self._cid)
        leaves = _leaves(imported, folder)
        self._total_bytes = sum(leaf.size * len(leaf.targets) for leaf in leaves)
        kept = await trio.to_thread.run_sync(self._prepare, imported, folder, leaves)
        self._done_bytes = kept
        self._pending.extend(leaf for leaf in leaves if not leaf.done)
        self._left = len(self._pending)
        await self._fetch_leaves()
        await trio.to_thread.run_sync(self._store.adopt, folder, imported, name)
        await trio.to_thread.run_sync(shutil.rmtree, folder, True)
        self._progress("fetching", self._total_bytes, self._total_bytes)
        return FetchReport(self._cid, imported.size, kept, time.monotonic() - began, self._by_source)

    # --- the nodes

    async def _walk(self) -> Imported:
        self._progress("listing", 0, 0)
        walk = DagWalk(self._cid)
        while wanted := walk.wanted():
            got = await self._get_nodes(wanted)
            for cid, block in got.items():
                walk.add(cid, block)
        return walk.finished()

    async def _get_nodes(self, wanted: list[bytes]) -> dict[bytes, bytes]:
        """All of these small blocks, from one source after the other as long as some are missing."""
        got: dict[bytes, bytes] = {}

        async def deliver(cid: bytes, block: bytes | None) -> None:
            if block is None:
                raise _SourceError("it lacks a block")
            if not matches(cid, block):
                raise _SourceError("it sent a block that is not what its CID says")
            got[cid] = block

        for source in list(self._sources.values()):
            missing = [cid for cid in wanted if cid not in got]
            if not missing:
                break
            await self._asking(source, missing, deliver)
        if any(cid not in got for cid in wanted):
            raise self._nobody_has_it()
        return got

    # --- the leaves

    def _prepare(self, imported: Imported, folder: Path, leaves: list[_Leaf]) -> int:
        """Makes the files at their sizes and marks what is already there; gives the bytes that are."""
        there = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
        self._store.check_space(max(0, imported.size - there))
        wanted = {folder / file.path: file.size for file in imported.files}
        old = {path for path in folder.rglob("*") if path.is_file()}
        for path in old - wanted.keys():
            path.unlink()
        for path, size in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(size)
        if old:
            for leaf in leaves:
                leaf.done = all(_holds(path, offset, leaf) for path, offset in leaf.targets)
        return sum(leaf.size * len(leaf.targets) for leaf in leaves if leaf.done)

    async def _fetch_leaves(self) -> None:
        async with trio.open_nursery() as nursery:
            for source in self._sources.values():
                nursery.start_soon(self._drain_source, source)
        if self._left:
            raise self._nobody_has_it()

    async def _drain_source(self, source: BlockSource) -> None:
        """Gets batch after batch from one source until nothing is left, or the source has to be dropped."""
        batch_size = _FIRST_BATCH
        flying = self._in_flight[source.name] = {}
        while self._left and source.name in self._sources:
            batch = self._next_batch(source.name, batch_size)
            if not batch:
                if not self._others_could_return_work(source.name):
                    break
                await self._changed.wait()
                continue
            flying.update({leaf.cid: leaf for leaf in batch})
            began = time.monotonic()
            await self._get_batch(source, batch)
            self._give_back(source.name)
            per_block = max(time.monotonic() - began, 1e-6) / len(batch)
            batch_size = min(max(_FIRST_BATCH, round(_BATCH_S / per_block)), _MOST_BATCH)

    async def _get_batch(self, source: BlockSource, batch: list[_Leaf]) -> None:
        by_cid = {leaf.cid: leaf for leaf in batch}
        async with trio.open_nursery() as nursery:

            async def deliver(cid: bytes, block: bytes | None) -> None:
                if block is not None:
                    await self._writers.acquire()
                    nursery.start_soon(self._keep, source, by_cid[cid], block)

            await self._asking(source, [leaf.cid for leaf in batch], deliver)

    async def _keep(self, source: BlockSource, leaf: _Leaf, block: bytes) -> None:
        """Checks a block and writes it in its places, away from the event loop."""
        try:
            sound = await trio.to_thread.run_sync(_check_and_write, leaf, block)
        finally:
            self._writers.release()
        if not sound:
            self._lied = True
            self._drop(source, "it sent a block that is not what its CID says")
        elif not leaf.done:
            leaf.done = True
            self._left -= 1
            self._done_bytes += leaf.size * len(leaf.targets)
            self._by_source[source.name] = self._by_source.get(source.name, 0) + leaf.size
            self._report()
            if not self._left:
                self._wake()

    def _next_batch(self, name: str, size: int) -> list[_Leaf]:
        """The next leaves for this source; at the end those that another one has been slow with."""
        batch: list[_Leaf] = []
        for _ in range(len(self._pending)):
            if len(batch) >= size:
                break
            leaf = self._pending.popleft()
            if name in leaf.asked:
                self._pending.append(leaf)
            elif not leaf.done:
                leaf.asked.add(name)
                batch.append(leaf)
        return batch or self._steal(name, size)

    def _steal(self, name: str, size: int) -> list[_Leaf]:
        others = [
            [leaf for leaf in flying.values() if not leaf.done and name not in leaf.asked]
            for other, flying in self._in_flight.items()
            if other != name
        ]
        slowest = max(others, key=len, default=[])
        stolen = slowest[-min(size, max(1, len(slowest) // 2)) :] if slowest else []
        for leaf in stolen:
            leaf.asked.add(name)
        return stolen

    def _others_could_return_work(self, name: str) -> bool:
        return any(flying for other, flying in self._in_flight.items() if other != name)

    def _give_back(self, name: str) -> None:
        """What a source did not deliver goes back for the others, unless one of them has it already."""
        flying = self._in_flight[name]
        elsewhere = {cid for other, leaves in self._in_flight.items() if other != name for cid in leaves}
        self._pending.extend(leaf for cid, leaf in flying.items() if not leaf.done and cid not in elsewhere)
        flying.clear()
        self._wake()

    # --- sources

    async def _asking(self, source: BlockSource, cids: list[bytes], deliver: Deliver) -> None:
        """Asks one source, with a deadline on its silence; whatever goes wrong drops that source and no more."""
        with trio.CancelScope(deadline=trio.current_time() + _STALL_S) as scope:

            async def delivered(cid: bytes, block: bytes | None) -> None:
                scope.deadline = trio.current_time() + _STALL_S
                await deliver(cid, block)

            try:
                await source.fetch(cids, delivered)
            except (_SourceError, AccelError) as error:
                self._drop(source, str(error))
        if scope.cancelled_caught:
            self._drop(source, f"it was silent for {_STALL_S:.0f} s")

    def _drop(self, source: BlockSource, why: str) -> None:
        if self._sources.pop(source.name, None) is not None:
            log.warning("no longer fetching from %s: %s", source.name, why)
            self._failures[source.name] = why
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _PROGRESS_EVERY_S:
            self._reported = now
            self._progress("fetching", self._done_bytes, self._total_bytes)

    def _nobody_has_it(self) -> AccelError:
        told = "; ".join(f"{name}: {why}" for name, why in self._failures.items()) or "no peer offers it"
        return AccelError(
            ErrorCode.CORRUPT_CONTENT if self._lied else ErrorCode.CONTENT_NOT_FOUND,
            f"{format_cid(self._cid)} cannot be fetched ({told})",
            "What came is kept, so that another try goes on from there: `ipfs-accel-node peers` shows who is there.",
        )


def _leaves(imported: Imported, folder: Path) -> list[_Leaf]:
    found: dict[bytes, _Leaf] = {}
    for cid, path, offset, size in _placed(imported, folder):
        leaf = found.setdefault(cid, _Leaf(cid, size, []))
        leaf.targets.append((path, offset))
    return list(found.values())


def _placed(imported: Imported, folder: Path) -> Iterator[tuple[bytes, Path, int, int]]:
    for file in imported.files:
        for number, cid in enumerate(file.leaves):
            offset = number * file.chunk
            yield cid, folder / file.path, offset, min(file.chunk, file.size - offset)


def _holds(path: Path, offset: int, leaf: _Leaf) -> bool:
    with path.open("rb", buffering=0) as file:
        return matches(leaf.cid, os.pread(file.fileno(), leaf.size, offset))


def _check_and_write(leaf: _Leaf, block: bytes) -> bool:
    if len(block) != leaf.size or not matches(leaf.cid, block):
        return False
    for path, offset in leaf.targets:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = 0
            while written < len(block):
                written += os.pwrite(descriptor, block[written:] if written else block, offset + written)
        finally:
            os.close(descriptor)
    return True
