"""What this node serves: its backends, the models loaded in them, and the jobs that run there.

want(model)  ─► load on each backend ─► measure ─► offers() ─► advert
admit(job)   ─► a place in a backend's queue ─► execute ─► load, if it is cold ─► compute ─► result
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import trio

from ...backends import registry
from ...backends.interface import BackendError
from ...backends.precision import AUTO
from ...protocols.advert import BackendState, Offer
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ...protocols.work import Work
from ..content.cid import format_cid, parse_cid
from .bell import Bell
from .measurements import MachineLock, Measurements
from .memory import Memory, default_limit
from .residency import Resident
from .scheduler import Ticket
from .slots import Slot, SlotSettings
from .warming import Warmer
from .worker_jobs import OnChunk, OnProgress
from .workers import READY, Supervision, WorkerLostError

#: A job whose worker died before it came to it is given to the next worker so many times.
_MOST_RETURNS: Final = 2


@dataclass(frozen=True)
class ServingSettings:
    """`backends` None means all that are installed; `threads` None means all that this process may use.

    `memory_bytes` bounds what loaded models take together; None is a part of the machine's memory.
    """

    backends: tuple[str, ...] | None
    threads: int | None
    memory_bytes: int | None
    precision: str = AUTO
    supervision: Supervision = Supervision()


class Admission:
    """A place in a backend's queue, until its `with` block is left.

    Attributes:
        queue_length: jobs before this one when it was admitted.
        expected_wait_s: seconds that they were predicted to take.
    """

    def __init__(self, slot: Slot, resident: Resident, ticket: Ticket) -> None:
        self.slot = slot
        self.resident = resident
        self.ticket = ticket
        resident.jobs += 1
        self.queue_length = ticket.queue_length
        self.expected_wait_s = ticket.expected_wait_s

    @property
    def backend(self) -> str:
        return self.slot.name

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resident.jobs -= 1
        self.slot.queue.leave(self.ticket)


class ServingService:
    """The facade of all serving at one node. `on_change` is told whatever changes offers or backend states."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        model_path: Callable[[bytes], Path | None],
        cache: Path,
        measurements_path: Path,
        on_change: Callable[[], None],
        measuring_lock: MachineLock | None = None,
    ) -> None:
        names = registry.available() if settings.backends is None else settings.backends
        self._bell = Bell()
        self._told = on_change
        self._model_path = model_path
        self._wanted: dict[bytes, str] = {}
        threads = settings.threads or available_threads()
        slot_settings = SlotSettings(threads, settings.precision, cache, settings.supervision)
        measurements = Measurements(measurements_path)
        self._slots = [Slot(_checked(name), slot_settings, measurements, self._bell, self._changed) for name in names]
        self._memory = Memory(settings.memory_bytes or default_limit(), self._slots, model_path, self._bell)
        lock = measuring_lock or MachineLock()
        self._warmer = Warmer(self._slots, self._wanted, self._memory, self._changed, lock)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the workers until cancelled. Started at once: backends may still be probing."""
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                nursery.start_soon(slot.run)
            nursery.start_soon(self._warmer.run)
            task_status.started()

    # --- what is offered

    def want(self, cid: bytes, task: str) -> None:
        """Loads and measures the model in the background wherever it can run, and tries again where it failed."""
        self._wanted[cid] = task
        for slot in self._slots:
            slot.resident(cid).forgive()
        self._changed()

    async def warm(self, cid: bytes, task: str) -> None:
        """The same, and returns when there is nothing left to do for it: it is warm, or failed, or found no room."""
        self.want(cid, task)
        while self.is_probing or self._warmer.has_work_for(cid):
            await self._bell.wait()

    async def unload(self, cid: bytes) -> None:
        """Forgets the model and gives its memory back. Raises AccelError model-in-use while a job computes with it."""
        if any(slot.has_jobs_of(cid) for slot in self._slots):
            raise AccelError(ErrorCode.MODEL_IN_USE, "a job is using the model", "Ask again when it has finished.")
        task = self._wanted.pop(cid, None)
        self._warmer.leave(cid)
        try:
            for slot in self._slots:
                await self._memory.clear(slot, slot.resident(cid))
                slot.forget(cid)
        except AccelError:
            if task is not None:
                self._wanted[cid] = task
            raise
        self._changed()

    def pause(self, paused: bool) -> None:
        """Nothing more is loaded or measured in the background, or again; jobs are the caller's to keep away."""
        self._warmer.pause(paused)

    @property
    def in_hand(self) -> int:
        """How many jobs, and models on their way into memory, keep this machine busy now."""
        residents = [resident for slot in self._slots for resident in slot.residents]
        return sum(each.jobs + (each.activity is not None and not each.jobs) for each in residents)

    def offers(self) -> list[Offer]:
        """What this node can run, warm or cold, measured or not."""
        return [
            offer
            for cid, task in self._wanted.items()
            for slot in self._slots
            if (offer := slot.offer(cid, task)) is not None
        ]

    def why_not(self, cid: bytes) -> AccelError | None:
        """Why the model is not offered on a backend of this node that could run it; None where nothing failed."""
        failed = [slot for slot in self._slots if slot.resident(cid).error is not None]
        if not failed:
            return next(filter(None, (slot.imprecise for slot in self._slots)), None)
        error = failed[0].resident(cid).error
        assert error is not None  # noqa: S101
        return AccelError(error.code, f"on {failed[0].name}: {error.message}", error.hint)

    def backend_states(self) -> list[BackendState]:
        return [slot.state() for slot in self._slots]

    @property
    def is_probing(self) -> bool:
        """Whether a backend has yet to say whether it can compute here, so that offers may still come."""
        return any(slot.is_probing for slot in self._slots)

    def precisions(self) -> dict[str, str]:
        """What each backend runs a model in that it never had, by the backend's name."""
        return {slot.name: slot.precision() for slot in self._slots}

    def can_run(self, backend: str, task: str) -> bool:
        return any(slot.is_called(backend) and slot.can_run(task) for slot in self._slots)

    def describe(self) -> list[dict[str, Any]]:
        """Each backend's state for a person, with what it is doing and why a model does not run on it."""
        return [slot.describe() for slot in self._slots]

    def memory(self) -> dict[str, int]:
        return {"limit": self._memory.limit, "used": self._memory.used}

    # --- jobs

    def admit(self, request: Request) -> Admission:
        """A place in the queue of the backend that `options["backend"]` names, or of the one that will be done first.

        To be used in a `with` block, which gives the place back.

        Raises:
            AccelError: bad-cid, model-not-here, no-backend, unsupported-task, busy, deadline-exceeded, or why the
                model cannot be used on that backend.
        """
        cid = parse_cid(request.model)
        if self._model_path(cid) is None:
            raise AccelError(ErrorCode.MODEL_NOT_HERE, f"{request.model} is not on this node")
        if request.task != self._wanted.get(cid, request.task):
            does = self._wanted[cid]
            raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"this model cannot do {request.task}", f"It does {does}.")
        slot = self._slot_for(cid, request)
        resident = slot.resident(cid)
        ticket = slot.queue.admit(slot.predicted_s(resident, Work.of(request.work)), request.remaining_ms / 1000)
        return Admission(slot, resident, ticket)

    async def execute(
        self, admission: Admission, request: Request, payload: bytes, *, on_progress: OnProgress, on_chunk: OnChunk
    ) -> tuple[dict[str, Any], bytes]:
        """The report and the packed result. Cancelling it cancels the job in the worker.

        Raises:
            AccelError: what the worker answered, worker-died, out-of-memory, or why the model does not load.
        """
        began = trio.current_time()
        for returns in range(_MOST_RETURNS + 1):
            try:
                report, result = await self._attempt(admission, request, payload, on_progress, on_chunk)
            except WorkerLostError as error:
                if error.begun or returns == _MOST_RETURNS:
                    raise
                admission.slot.queue.requeue(admission.ticket)
            else:
                report["total_s"] = trio.current_time() - began
                return {"model": format_cid(admission.resident.cid), **report}, result
        raise AssertionError("the last return raises")

    async def _attempt(
        self, admission: Admission, request: Request, payload: bytes, on_progress: OnProgress, on_chunk: OnChunk
    ) -> tuple[dict[str, Any], bytes]:
        slot, resident, ticket = admission.slot, admission.resident, admission.ticket
        queued_at = trio.current_time()
        await slot.queue.turn(ticket)
        turn_at = trio.current_time()
        if not slot.can_run(request.task):
            raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"{slot.name} does no {request.task}")
        with slot.using(resident):
            await self._memory.load(slot, resident, on_progress)
            loaded_at = trio.current_time()
            report, result = await slot.compute(ticket, resident, request, payload, on_progress, on_chunk)
        begun_at = ticket.started_at or loaded_at
        report["queue_s"] = max(0.0, turn_at - queued_at) + max(0.0, begun_at - loaded_at)
        report["load_s"] = loaded_at - turn_at
        return report, result

    def _slot_for(self, cid: bytes, request: Request) -> Slot:
        name = request.options.get("backend")
        called = [slot for slot in self._slots if slot.is_called(name)]
        if not called:
            there_are = ", ".join(slot.name for slot in self._slots) or "none"
            raise AccelError(
                ErrorCode.NO_BACKEND, f"this node has no backend {name or ''}".strip(), f"It has: {there_are}."
            )
        able = [slot for slot in called if slot.may_run(request.task)]
        if not able:
            raise _cannot(called, request.task)
        able = _in_precision(able, cid, request.options.get("precision"))
        usable = [slot for slot in able if slot.resident(cid).error is None]
        if not usable:
            error = able[0].resident(cid).error
            assert error is not None  # noqa: S101
            raise error
        return min(usable, key=lambda slot: _completion_s(slot, cid, request))

    def _changed(self) -> None:
        self._bell.ring()
        self._warmer.look_again()
        self._told()


def available_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _completion_s(slot: Slot, cid: bytes, request: Request) -> tuple[bool, float]:
    """A backend that is not ready comes after one that is, whatever is predicted of it."""
    predicted_s = slot.predicted_s(slot.resident(cid), Work.of(request.work))
    return slot.worker.state != READY, slot.queue.scheduler.wait_s() + predicted_s


def _in_precision(slots: list[Slot], cid: bytes, precision: Any) -> list[Slot]:
    """Those that run the model in it; one that is being probed may. Raises AccelError unsupported-precision."""
    found = [slot for slot in slots if precision is None or slot.is_probing or slot.precision(cid) == precision]
    if not found:
        does = ", ".join(sorted({slot.precision(cid) for slot in slots}))
        raise AccelError(ErrorCode.UNSUPPORTED_PRECISION, f"this node runs it in {does}, not in {precision}"[:300])
    return found


def _cannot(slots: list[Slot], task: str) -> AccelError:
    """Why none of these backends runs the task: a failed one may have been the one that could."""
    failed = [slot for slot in slots if not slot.worker.info]
    if failed:
        return failed[0].worker.unavailable()
    if (error := next(filter(None, (slot.imprecise for slot in slots)), None)) is not None:
        return error
    names = ", ".join(slot.name for slot in slots)
    return AccelError(ErrorCode.UNSUPPORTED_TASK, f"no backend of this node does {task!r} (it has {names})")


def _checked(name: str) -> str:
    try:
        registry.check(name)
    except BackendError as error:
        raise AccelError(error.code, error.message, error.hint) from None
    return name
