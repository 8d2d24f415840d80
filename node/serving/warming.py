"""Loads and measures the models that are wanted, in the background, one at a time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from ..content.cid import format_cid
from .bell import Bell
from .measurements import MachineLock
from .measuring import BUDGET_S
from .memory import Memory
from .residency import Resident
from .slots import UNKNOWN_LOAD_S, Slot

log = logging.getLogger(__name__)

_LOCK_DEADLINE_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.05
#: How long measuring a model waits for the jobs that want it.
_JOBS_FIRST_S: Final = 30.0
#: How soon the background looks again for what it put off, in seconds.
_AGAIN_AFTER_S: Final = 5.0


class Warmer:
    """What `wanted` names becomes warm and measured on every backend that runs its task.

    A model that was measured before is only loaded where it fits beside the others; one that was not may push idle
    ones out, for nobody can be told how fast it is before. Each is measured while no other node of this machine is.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        wanted: Mapping[bytes, str],
        memory: Memory,
        on_change: Callable[[], None],
        lock: MachineLock,
    ) -> None:
        self._slots = slots
        self._wanted = wanted
        self._memory = memory
        self._news = Bell()
        self._on_change = on_change
        self._lock = lock
        self._current: tuple[bytes, trio.CancelScope] | None = None
        self._paused = False

    async def run(self) -> None:
        while True:
            work = None if self._paused else next(self._work(), None)
            if work is None:
                with trio.move_on_after(_AGAIN_AFTER_S):
                    await self._news.wait()
            else:
                await self._warm(*work)
                self._on_change()

    def look_again(self) -> None:
        """Something changed that may be worth warming a model for."""
        self._news.ring()

    def pause(self, paused: bool) -> None:
        """Stops what goes on in the background and begins nothing, until told otherwise."""
        self._paused = paused
        if paused and self._current is not None:
            self._current[1].cancel()
        self.look_again()

    def has_work_for(self, cid: bytes) -> bool:
        at_it = self._current is not None and self._current[0] == cid
        return at_it or any(resident.cid == cid for _, resident in self._work())

    def leave(self, cid: bytes) -> None:
        """Stops what goes on with the model in the background."""
        if self._current is not None and self._current[0] == cid:
            self._current[1].cancel()

    def _work(self) -> Iterator[tuple[Slot, Resident]]:
        now = trio.current_time()
        for cid, task in list(self._wanted.items()):
            for slot in self._slots:
                resident = slot.resident(cid)
                settled = resident.is_warm and resident.measurement is not None
                due = resident.put_off_until <= now
                if slot.is_ready_for(task) and resident.error is None and not settled and due:
                    yield slot, resident

    async def _warm(self, slot: Slot, resident: Resident) -> None:
        strikes = resident.strikes
        with trio.CancelScope() as scope:
            self._current = resident.cid, scope
            try:
                await self._bring_in(slot, resident)
                if resident.measurement is None and resident.is_warm:
                    await self._measure(slot, resident)
            except AccelError as error:
                log.warning("%s is not warm on %s: %s", format_cid(resident.cid), slot.name, error)
                if resident.strikes == strikes:
                    # What counts against the model ends by itself; the rest must not go round and round.
                    resident.put_off_until = trio.current_time() + _AGAIN_AFTER_S
            finally:
                self._current = None

    async def _bring_in(self, slot: Slot, resident: Resident) -> None:
        if resident.measurement is not None and not await self._memory.fits_beside(slot, resident):
            resident.put_off_until = trio.current_time() + _AGAIN_AFTER_S
            return
        with slot.queue.ticket(resident.load_s or UNKNOWN_LOAD_S) as ticket:
            await slot.queue.turn(ticket)
            with slot.using(resident):
                await self._memory.load(slot, resident)

    async def _measure(self, slot: Slot, resident: Resident) -> None:
        # Who waited while the model was loaded need not wait until it is measured too.
        with trio.move_on_after(_JOBS_FIRST_S):
            while resident.jobs:
                await trio.sleep(_LOOK_EVERY_S)
        async with self._alone():
            with slot.queue.ticket(BUDGET_S) as ticket:
                await slot.queue.turn(ticket)
                with slot.using(resident):
                    await self._memory.load(slot, resident)
                    await slot.measure(resident)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Raises AccelError busy when another node of this machine keeps measuring for too long."""
        with trio.move_on_after(_LOCK_DEADLINE_S) as waiting:
            while not self._lock.try_acquire():
                await trio.sleep(_LOOK_EVERY_S)
        if waiting.cancelled_caught:
            raise AccelError(ErrorCode.BUSY, "another node of this machine keeps measuring")
        try:
            yield
        finally:
            self._lock.release()
