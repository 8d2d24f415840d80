"""Gets blocks from several sources at once. What goes wrong with one costs its own share only.

    a task a source: take a batch ─► source.fetch ─► deliver ─► bounded queue ─► a few threads hash and write

A source that sends wrong bytes is dropped at once, so is one that is silent; one that is lost or busy gets a few
more tries, with pauses. `Exchange.get` ends when all blocks are there, or when no source is left that has the rest.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar, runtime_checkable

import trio

from ...protocols.errors import AccelError, ErrorCode
from .orders import Order, Outcome
from .shares import Answer, Shares
from .standing import Fault
from .unixfs import MAX_BLOCK

log = logging.getLogger(__name__)

T = TypeVar("T")
Deliver = Callable[[bytes, bytes | None], Awaitable[None]]
#: Told (CID, outcome, bytes of the block) of each order that a source wrote itself, or could not.
Settled = Callable[[bytes, Outcome, int], None]

#: A source is dropped when no whole block of it comes for so long; 1 MiB in that time is 35 KB/s.
SILENCE_S: Final = 30.0
_TRIES: Final = 3
_PAUSE_S: Final = 0.5
_IDLE_LOOK_S: Final = 0.1
#: Bounds memory: each of these holds at most one block of 2 MiB.
_ACTIVE_SOURCES: Final = 12
_QUEUED_BLOCKS: Final = 6
_WRITERS: Final = 3
_FORGIVEN_GAPS: Final = 16


class BlockSource(Protocol):
    """Somewhere blocks come from; `name` is a peer id or the like."""

    name: str

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Awaits `deliver(cid, block or None)` for each as it comes. Raises AccelError when the source is lost.

        It is called once at a time, and may be cancelled at any await.
        """
        ...


@runtime_checkable
class WritingSource(BlockSource, Protocol):
    """One that can also write blocks where they belong, so that they need not pass through here."""

    async def write(self, orders: Sequence[Order], settled: Settled) -> bool:
        """Calls `settled` for each, in order. False when it has no way to do so now for those that are left.

        Raises:
            AccelError: the source is lost.
            FetchEndsError: no source's blocks can be written.
        """
        ...


class FetchEndsError(Exception):
    """What goes wrong with every source alike, as `error`."""

    def __init__(self, error: AccelError) -> None:
        super().__init__(str(error))
        self.error = error


class Work(Protocol):
    """Blocks to get, numbered; `keep` runs in threads, several at once."""

    shares: Shares

    def cid(self, block: int) -> bytes: ...

    def keep(self, block: int, data: bytes) -> bool:
        """Checks and keeps a block; False when it is not what its CID says. Raises AccelError to end everything."""
        ...

    def order(self, block: int) -> Order | None:
        """The block for a source to write itself; None where it has to come here."""
        ...

    def kept(self, block: int) -> None:
        """Told on the event loop of each block that was kept."""
        ...


@dataclass(eq=False)
class _Peer:
    """A source and how it has behaved."""

    source: BlockSource
    strikes: int = 0
    gaps: int = 0
    delivered: int = 0
    asking: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def name(self) -> str:
        return self.source.name


@dataclass(frozen=True)
class _Landed:
    peer: _Peer
    work: Work
    block: int
    data: bytes


class Exchange:
    """The sources of one fetch. `by_source` and `surplus` count bytes that were of use, and that were not."""

    def __init__(self, sources: Sequence[BlockSource]) -> None:
        self._peers = {source.name: _Peer(source) for source in sources}
        self._ended: dict[str, str] = {}
        self._lied = False
        self._failure: AccelError | None = None
        self._work: Work | None = None
        self._changed = trio.Event()
        self._slots = trio.Semaphore(_ACTIVE_SOURCES)
        self._queue, self._queued = trio.open_memory_channel[_Landed](_QUEUED_BLOCKS)
        self.by_source: Counter[str] = Counter()
        self.surplus = 0
        #: Sources that were dropped, and how badly they behaved.
        self.faults: dict[str, Fault] = {}

    async def run(self, use: Callable[[], Awaitable[T]]) -> T:
        """Runs `use`, which calls `get`, while the sources are at its disposal. Raises what `use` raises."""
        outcome: list[T] = []
        failure: AccelError | None = None
        async with trio.open_nursery() as nursery:
            for peer in list(self._peers.values()):
                nursery.start_soon(self._use_source, peer)
            for _ in range(_WRITERS):
                nursery.start_soon(self._settle_all)
            try:
                outcome.append(await use())
            except AccelError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome[0]

    def anew(self, sources: Sequence[BlockSource]) -> Exchange:
        """An exchange with these sources, that goes on counting."""
        other = Exchange(sources)
        other.by_source, other.surplus, other.faults = self.by_source, self.surplus, self.faults
        return other

    async def get(self, work: Work) -> None:
        """Returns when all of the work's blocks are kept.

        Raises:
            AccelError: content-not-found or corrupt-content, with what each source did; or what `keep` raised.
        """
        self._work = work
        self._wake()
        while work.shares.left:
            if self._failure is not None:
                raise self._failure
            if missing := work.shares.unobtainable(self._peers.keys()):
                raise self._out_of_sources(work, missing)
            await self._changed.wait()

    # --- one source

    async def _use_source(self, peer: _Peer) -> None:
        """Asks for batch after batch until the source is dropped, or the exchange ends."""
        while peer.name in self._peers:
            changed = self._changed
            async with self._slots:
                asked = await self._ask_next(peer)
            if not asked:
                with trio.move_on_after(_IDLE_LOOK_S if self._work and self._work.shares.left else math.inf):
                    await changed.wait()
            elif peer.strikes:
                await trio.sleep(_PAUSE_S * 2 ** (peer.strikes - 1))

    async def _ask_next(self, peer: _Peer) -> bool:
        work = self._work
        batch = work.shares.take(peer.name, trio.current_time(), len(self._peers)) if work else []
        if work is None or not batch:
            return False
        trouble = await self._ask(peer, work, batch)
        unanswered = work.shares.give_up(peer.name)
        if unanswered:
            self._wake()
        if trouble or unanswered:
            self._strike(peer, trouble or "it ended without an answer")
        return True

    async def _ask(self, peer: _Peer, work: Work, batch: list[int]) -> str:
        """Asks for a batch; what went wrong, if anything did."""
        numbers = {work.cid(block): block for block in batch}

        async def deliver(cid: bytes, data: bytes | None) -> None:
            await self._deliver(peer, work, numbers.get(cid, -1), data)

        peer.asking = trio.CancelScope(deadline=trio.current_time() + SILENCE_S)
        try:
            with peer.asking:
                if rest := await self._write(peer, work, numbers):
                    await peer.source.fetch(rest, deliver)
        except FetchEndsError as error:
            self._fail(error.error)
        except AccelError as error:
            return f"{error.message} [{error.code}]"
        except Exception as error:  # a source that fails in a way of its own must not end the others
            log.exception("source %s failed", peer.name)
            return f"{type(error).__name__}: {error}"
        if peer.asking.cancelled_caught:
            self._drop(peer, f"it was silent for {SILENCE_S:g} s")
        return ""

    async def _write(self, peer: _Peer, work: Work, numbers: dict[bytes, int]) -> list[bytes]:
        """Lets the source write what it can; the CIDs that it has to be asked for otherwise."""
        cids = list(numbers)
        if not isinstance(peer.source, WritingSource):
            return cids
        orders = [order for cid in cids if (order := work.order(numbers[cid])) is not None]
        told: set[bytes] = set()

        def settled(cid: bytes, outcome: Outcome, size: int) -> None:
            told.add(cid)
            self._written(peer, work, numbers[cid], outcome, size)

        if orders and await peer.source.write(orders, settled):
            told.update(order.cid for order in orders)
        return [cid for cid in cids if cid not in told]

    def _written(self, peer: _Peer, work: Work, block: int, outcome: Outcome, size: int) -> None:
        """What `_deliver` and `_settle` do, for a block that was checked and written already."""
        now = trio.current_time()
        peer.asking.deadline = now + SILENCE_S
        answer = work.shares.answered(peer.name, block, now, present=outcome is not Outcome.MISSING)
        if outcome is Outcome.MISSING:
            self._note_gap(peer)
        elif answer is Answer.WELCOME:
            self._settle(peer, work, block, size, sound=outcome is Outcome.KEPT)
        elif outcome is Outcome.WRONG:
            self._note_lie(peer, size)
        else:
            self.surplus += size

    async def _deliver(self, peer: _Peer, work: Work, block: int, data: bytes | None) -> None:
        now = trio.current_time()
        too_large = data is not None and len(data) > MAX_BLOCK
        answer = Answer.UNASKED if too_large else work.shares.answered(peer.name, block, now, present=data is not None)
        if answer is Answer.UNASKED:
            self._drop(peer, "it sent a block that it was not asked for, or over 2 MiB", Fault.LIED)
        elif data is None:
            self._note_gap(peer)
        elif answer is Answer.SURPLUS:
            self.surplus += len(data)
        else:
            peer.asking.deadline = math.inf  # while this side is the slow one
            await self._queue.send(_Landed(peer, work, block, data))
            now = trio.current_time()
            work.shares.resumed(peer.name, now)
        peer.asking.deadline = now + SILENCE_S
        await trio.lowlevel.checkpoint_if_cancelled()

    # --- what came

    async def _settle_all(self) -> None:
        async for landed in self._queued:
            try:
                sound = await trio.to_thread.run_sync(landed.work.keep, landed.block, landed.data)
            except AccelError as error:
                self._fail(error)
                continue
            self._settle(landed.peer, landed.work, landed.block, len(landed.data), sound=sound)

    def _settle(self, peer: _Peer, work: Work, block: int, size: int, *, sound: bool) -> None:
        work.shares.settled(block, sound=sound)
        if sound:
            peer.strikes = 0
            peer.delivered += 1
            self.by_source[peer.name] += size
            work.kept(block)
        else:
            self._note_lie(peer, size)
        if not sound or not work.shares.left:
            self._wake()

    def _fail(self, error: AccelError) -> None:
        self._failure = self._failure or error
        self._wake()

    # --- what became of a source

    def _note_lie(self, peer: _Peer, size: int) -> None:
        self._lied = True
        self.surplus += size
        self._drop(peer, "it sent a block that is not what its CID says", Fault.LIED)

    def _note_gap(self, peer: _Peer) -> None:
        peer.gaps += 1
        if peer.gaps > peer.delivered + _FORGIVEN_GAPS:
            self._drop(peer, f"it lacks {peer.gaps} blocks")
        self._wake()

    def _strike(self, peer: _Peer, why: str) -> None:
        peer.strikes += 1
        if peer.strikes >= _TRIES:
            self._drop(peer, why)
        else:
            log.info("%s: %s; it is tried again", peer.name, why)

    def _drop(self, peer: _Peer, why: str, fault: Fault = Fault.FAILED) -> None:
        if self._peers.pop(peer.name, None) is not None:
            log.warning("no longer fetching from %s: %s", peer.name, why)
            self._ended[peer.name] = why
            self.faults[peer.name] = max(fault, self.faults.get(peer.name, fault))
        peer.asking.cancel()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _out_of_sources(self, work: Work, missing: int) -> AccelError:
        why = dict(self._ended)
        for name in self._peers:
            why[name] = f"it lacks {work.shares.lacked_by(name)} blocks"
        told = "; ".join(f"{name}: {each}" for name, each in why.items()) or "no peer offers it"
        return AccelError(
            ErrorCode.CORRUPT_CONTENT if self._lied else ErrorCode.CONTENT_NOT_FOUND,
            f"{missing} blocks cannot be had ({told})",
            "What came is kept, so that another try goes on from there: `ipfs-accel-node peers` shows who is there.",
        )
