"""The memory that loaded models take together: brings models in, and others out to make room."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ...backends.interface import BackendError
from ...backends.loading import inspect
from ...protocols.errors import AccelError, ErrorCode
from ..content.cid import format_cid
from .bell import Bell
from .residency import LEAST_BYTES, Place, Resident, fits, victims
from .slots import Slot
from .worker_jobs import OnProgress

#: The part of the machine's memory that models may take where its owner said nothing.
_DEFAULT_PART: Final = 0.6
_CLEAR_DEADLINE_S: Final = 60.0


def default_limit() -> int:
    """Bytes."""
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _DEFAULT_PART)


def quiet(state: str, done: int, total: int, note: str) -> None:
    """For what happens on nobody's behalf."""


class Memory:
    """One budget over all backends of the node."""

    def __init__(
        self, limit: int, slots: Sequence[Slot], model_path: Callable[[bytes], Path | None], bell: Bell
    ) -> None:
        self.limit = limit
        self._slots = slots
        self._model_path = model_path
        self._bell = bell

    @property
    def used(self) -> int:
        """Bytes, those of models on their way in or out included."""
        return sum(each.bytes for each in self._everyone())

    async def load(self, slot: Slot, resident: Resident, on_progress: OnProgress = quiet) -> None:
        """Returns when the model is warm, having unloaded idle ones to make room, the least recently used first.

        The caller holds `slot.using(resident)`, so that it stays.

        Raises:
            AccelError: why it does not load; out-of-memory when it never fits.
        """
        asked, told = False, None
        while not resident.is_warm:
            if resident.error is not None:
                raise resident.error
            if resident.place is not Place.COLD:
                if resident.activity is not None and resident.activity != told:
                    told = resident.activity
                    on_progress(*told, "")
                await self._bell.wait()
            elif asked and resident.last_failure is not None:
                raise resident.last_failure
            else:
                asked = await self._begin(slot, resident)

    async def fits_beside(self, slot: Slot, resident: Resident) -> bool:
        """Whether the model can be loaded without unloading any other. Raises AccelError."""
        _, needed = await self._facts(slot, resident)
        return fits(needed, self.limit, self._everyone())

    async def clear(self, slot: Slot, resident: Resident) -> None:
        """Returns when the model is cold. Raises AccelError model-in-use when that takes too long."""
        with trio.move_on_after(_CLEAR_DEADLINE_S):
            while resident.place is not Place.COLD:
                slot.begin_unloading(resident)
                await self._bell.wait()
            return
        raise AccelError(ErrorCode.MODEL_IN_USE, f"{slot.name} is still busy with the model", "Ask again later.")

    async def _begin(self, slot: Slot, resident: Resident) -> bool:
        """Begins to load, or makes room for it and waits a little; whether it is loading now."""
        folder, needed = await self._facts(slot, resident)
        if resident.place is not Place.COLD:
            return False
        if needed > self.limit:
            failure = self._never_fits(needed)
            resident.strike(failure)
            raise failure
        if fits(needed, self.limit, self._everyone()):
            slot.begin_loading(resident, folder, needed)
            return True
        going = victims(needed, self.limit, self._everyone()) or []
        for each in self._slots:
            for victim in each.residents:
                if victim in going:
                    each.begin_unloading(victim)
        await self._bell.wait()
        return False

    def _never_fits(self, needed: int) -> AccelError:
        return AccelError(
            ErrorCode.OUT_OF_MEMORY,
            f"the model needs about {needed >> 20} MiB, and models may take {self.limit >> 20} MiB here",
            "Start the node with a larger --memory, or use a node that has it.",
        )

    async def _facts(self, slot: Slot, resident: Resident) -> tuple[Path, int]:
        """The model's folder and the bytes that loading it is thought to take."""
        folder = self._model_path(resident.cid)
        if folder is None:
            raise AccelError(ErrorCode.MODEL_NOT_HERE, f"{format_cid(resident.cid)} was removed from this node")
        known = slot.memory_estimate(resident)
        if known is None:
            try:
                facts = await trio.to_thread.run_sync(partial(inspect, folder))
            except BackendError as error:
                failure = AccelError(error.code, error.message, error.hint)
                resident.strike(failure)
                raise failure from None
            known = facts.memory_bytes
        return folder, max(known, LEAST_BYTES)

    def _everyone(self) -> list[Resident]:
        return [resident for slot in self._slots for resident in slot.residents]
