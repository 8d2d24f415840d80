"""What this node serves: its backends, the models loaded in them, and the jobs that run there.

want(model)  ─► load on each backend ─► measure ─► offers() ─► advert
admit(job)   ─► ticket in a backend's queue ─► execute ─► result
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ...backends import registry
from ...backends.interface import BackendError
from ...protocols.advert import BackendState, Offer
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ..content.cid import parse_cid
from .measuring import Measurements
from .scheduler import Ticket
from .slots import OnProgress, Slot, SlotSettings
from .workers import Supervision

log = logging.getLogger(__name__)

OnChunk = Callable[[int, list[int], str], Awaitable[None]]


@dataclass(frozen=True)
class ServingSettings:
    """`backends` None means all that are installed; `memory_bytes` bounds what loaded models take together."""

    backends: tuple[str, ...] | None
    threads: int
    memory_bytes: int
    precision: str = "f32"
    supervision: Supervision = Supervision()


@dataclass
class Admission:
    """A place in a backend's queue."""

    slot: Slot
    cid: bytes
    ticket: Ticket
    queue_length: int
    expected_wait_s: float


class ServingService:
    """The facade of all serving at one node."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        model_path: Callable[[bytes], Path | None],
        cache: Path,
        measurements_path: Path,
        on_change: Callable[[], None],
    ) -> None:
        names = registry.available() if settings.backends is None else settings.backends
        for name in names:
            _check(name)
        slot_settings = SlotSettings(settings.threads, settings.precision, cache, settings.supervision)
        measurements = Measurements(measurements_path)
        self._settings = settings
        self._model_path = model_path
        self._on_change = on_change
        self._wanted: dict[bytes, str] = {}
        self._slots = [Slot(name, slot_settings, measurements, self._changed) for name in names]
        self._to_warm = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the workers until cancelled. Started at once: backends may still be probing."""
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(slot.worker.run)
            nursery.start_soon(self._warm_all)
            task_status.started()
            await trio.sleep_forever()

    # --- what is offered

    def want(self, cid: bytes, task: str) -> None:
        """Loads and measures the model in the background wherever it can run."""
        self._wanted[cid] = task
        self._changed()

    async def unload(self, cid: bytes) -> None:
        """Forgets the model. Raises AccelError model-in-use while a job computes with it."""
        if any(slot.in_use(cid) for slot in self._slots):
            raise AccelError(ErrorCode.MODEL_IN_USE, "a job is using the model", "Ask again when it has finished.")
        self._wanted.pop(cid, None)
        for slot in self._slots:
            await slot.unload(cid)
        self._on_change()

    def offers(self) -> list[Offer]:
        return [
            offer
            for cid, task in self._wanted.items()
            for slot in self._slots
            if (offer := slot.offer(cid, task)) is not None
        ]

    def backend_states(self) -> list[BackendState]:
        now = trio.current_time()
        return [
            BackendState(
                slot.name,
                str(slot.worker.info.get("device", "")),
                slot.worker.state,
                slot.scheduler.queued,
                slot.scheduler.expected_wait_s(now),
            )
            for slot in self._slots
        ]

    def can_run(self, backend: str, task: str) -> bool:
        return any(slot.name == backend and slot.can_run(task) for slot in self._slots)

    def describe(self) -> list[dict[str, Any]]:
        now = trio.current_time()
        return [slot.describe(now) for slot in self._slots]

    def memory(self) -> dict[str, int]:
        return {"limit": self._settings.memory_bytes, "used": sum(slot.memory_bytes for slot in self._slots)}

    # --- jobs

    @contextmanager
    def admit(self, request: Request) -> Iterator[Admission]:
        """Gives the job a place in the queue of the backend it names, or of the one that is free soonest.

        Raises:
            AccelError: no-backend, model-not-here, unsupported-task, busy, worker-died.
        """
        cid = parse_cid(request.model)
        slot = self._slot_for(request)
        if self._model_path(cid) is None:
            raise AccelError(ErrorCode.MODEL_NOT_HERE, f"{request.model} is not on this node")
        self._wanted.setdefault(cid, request.task)
        now = trio.current_time()
        wait_s = slot.scheduler.expected_wait_s(now)
        queued = slot.scheduler.queued
        ticket = slot.admit(cid, float(request.work.get("bytes", 0)), request.remaining_ms / 1000)
        try:
            yield Admission(slot, cid, ticket, queued, wait_s)
        finally:
            slot.leave(ticket)

    async def execute(
        self, admission: Admission, request: Request, payload: bytes, *, on_progress: OnProgress, on_chunk: OnChunk
    ) -> tuple[dict[str, Any], bytes]:
        """The report and the packed result. Cancelling it cancels the job in the worker. Raises AccelError."""
        slot, began = admission.slot, trio.current_time()
        await slot.turn(admission.ticket)
        queue_s = trio.current_time() - began
        folder = self._model_path(admission.cid)
        if folder is None:
            raise AccelError(ErrorCode.MODEL_NOT_HERE, f"{request.model} was removed from this node")
        with slot.using(admission.cid):
            await self._make_room(slot, admission.cid, folder)
            loaded = await slot.ensure_loaded(admission.cid, folder, on_progress)
            report, result = await slot.compute(loaded, request, payload, on_progress, on_chunk)
        return {**report, "queue_s": queue_s}, result

    def _slot_for(self, request: Request) -> Slot:
        wanted = request.options.get("backend")
        fitting = [slot for slot in self._slots if wanted in (None, slot.name)]
        if not fitting:
            raise AccelError(ErrorCode.NO_BACKEND, f"this node has no backend {wanted or 'at all'}")
        able = [slot for slot in fitting if slot.can_run(request.task)]
        if not able:
            not_ready = [slot for slot in fitting if slot.worker.state != "ready"]
            if not_ready:
                raise AccelError(ErrorCode.WORKER_DIED, f"{not_ready[0].name} is {not_ready[0].worker.state}")
            raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"no backend of this node does {request.task!r}")
        now = trio.current_time()
        return min(able, key=lambda slot: slot.scheduler.expected_wait_s(now))

    # --- warming

    def _changed(self) -> None:
        self._to_warm.set()
        self._on_change()

    async def _warm_all(self) -> None:
        """Loads what is wanted, one at a time, where it fits the memory without unloading anything."""
        while True:
            await self._to_warm.wait()
            self._to_warm = trio.Event()
            for cid, slot, folder in list(self._to_load()):
                if self._fits(slot, cid, folder):
                    await self._warm(cid, slot, folder)

    def _to_load(self) -> Iterator[tuple[bytes, Slot, Path]]:
        for cid, task in list(self._wanted.items()):
            for slot in self._slots:
                folder = self._model_path(cid)
                if folder is not None and slot.needs_warming(cid, task):
                    yield cid, slot, folder

    async def _warm(self, cid: bytes, slot: Slot, folder: Path) -> None:
        try:
            with slot.using(cid):
                loaded = await slot.ensure_loaded(cid, folder, _quiet)
                await slot.ensure_measured(loaded)
        except AccelError as error:
            log.warning("a model does not run on %s: %s", slot.name, error)
        self._on_change()

    def _fits(self, slot: Slot, cid: bytes, folder: Path) -> bool:
        used = sum(each.memory_bytes for each in self._slots)
        return used + slot.estimate(cid, folder) <= self._settings.memory_bytes

    async def _make_room(self, slot: Slot, cid: bytes, folder: Path) -> None:
        """Unloads the least recently used models until this one fits. Raises AccelError out-of-memory."""
        if slot.is_loaded(cid):
            return
        while not self._fits(slot, cid, folder):
            idle = [
                (each.last_used(loaded), each, loaded)
                for each in self._slots
                for loaded in each.loaded_models()
                if not each.in_use(loaded)
            ]
            if not idle:
                raise AccelError(
                    ErrorCode.OUT_OF_MEMORY,
                    f"the model does not fit into {self._settings.memory_bytes >> 20} MiB beside those in use",
                    "Start the node with more --memory, or use a node that has it.",
                )
            _, owner, oldest = min(idle, key=lambda each: each[0])
            await owner.unload(oldest)


def _check(name: str) -> None:
    try:
        registry.check(name)
    except BackendError as error:
        raise AccelError(error.code, error.message, error.hint) from None


def _quiet(state: str, done: int, total: int, note: str = "") -> None:
    log.info("%s: %s %d/%d", note, state, done, total)
