"""A slot: one backend of this node, with its worker, its queue and the models in the worker's memory."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio

from ...backends.precision import AUTO
from ...protocols.advert import BackendState, Offer, Speed
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ...protocols.resumption import OPTION
from ...protocols.work import Work
from ..content.cid import format_cid
from .bell import Bell
from .job_queue import JobQueue
from .measurements import Key, Measurement, Measurements
from .measuring import BUDGET_S
from .residency import LEAST_BYTES, Place, Resident
from .scheduler import Ticket
from .worker_jobs import OnChunk, OnProgress, WorkerJobs
from .workers import FAILED, READY, Supervision, Worker, WorkerLostError

log = logging.getLogger(__name__)

#: Predicted for loading a model that was never loaded.
UNKNOWN_LOAD_S: Final = 5.0


@dataclass(frozen=True)
class SlotSettings:
    """`threads` to compute with; the deadlines in seconds of what a worker may hang in."""

    threads: int
    precision: str
    cache: Path
    supervision: Supervision = Supervision()
    load_timeout_s: float = 900.0
    unload_timeout_s: float = 600.0
    measure_timeout_s: float = 300.0
    #: A job whose caller left and that still computes after this holds the backend up: its worker is killed.
    stuck_after_s: float = 60.0


class Slot:
    """One backend. Its name is the backend's own, such as `cpu` or `openvino:CPU`, once it was probed."""

    def __init__(
        self,
        backend: str,
        settings: SlotSettings,
        measurements: Measurements,
        bell: Bell,
        on_change: Callable[[], None],
    ) -> None:
        self.worker = Worker(backend, settings.threads, settings.cache, self._worker_changed, settings.supervision)
        self.queue = JobQueue(lambda: self.worker.is_available)
        self._jobs = WorkerJobs(self.worker, self.queue, self._start, settings.stuck_after_s)
        self._settings = settings
        self._measurements = measurements
        self._bell = bell
        self._on_change = on_change
        self._residents: dict[bytes, Resident] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Runs the worker, and what goes on in it on nobody's behalf, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self.worker.run()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    # --- facts

    @property
    def name(self) -> str:
        return str(self.worker.info.get("backend", self.worker.backend))

    @property
    def residents(self) -> list[Resident]:
        return list(self._residents.values())

    def is_called(self, name: str | None) -> bool:
        return name in (None, self.name, self.worker.backend)

    def can_run(self, task: str) -> bool:
        """Whether the backend does such tasks and will take another job, if not at this moment then soon."""
        return self.worker.state != FAILED and task in self.worker.info.get("tasks", ()) and not self.imprecise

    def may_run(self, task: str) -> bool:
        """The same, of a backend that may not have been probed yet."""
        return self.can_run(task) or self.is_probing

    @property
    def imprecise(self) -> AccelError | None:
        """Why it computes nothing, where it has not the precision that was asked for; None while it is probed."""
        possible, asked = self.worker.info.get("precisions"), self._asked_precision
        if possible is None or asked in possible:
            return None
        does = ", ".join(possible)
        return AccelError(ErrorCode.UNSUPPORTED_PRECISION, f"{self.name} has no {asked} here", f"It has {does}.")

    @property
    def is_probing(self) -> bool:
        return self.worker.state != FAILED and not self.worker.info

    def is_ready_for(self, task: str) -> bool:
        return self.worker.state == READY and self.can_run(task)

    def has_jobs_of(self, cid: bytes) -> bool:
        return cid in self._residents and self._residents[cid].jobs > 0

    def resident(self, cid: bytes) -> Resident:
        """What is known here of a model; begun when it is first asked for."""
        resident = self._residents.setdefault(cid, Resident(cid))
        if resident.measurement is None and self.worker.info:
            resident.measurement = self._measurements.get(self._key(cid))
        return resident

    def offer(self, cid: bytes, task: str) -> Offer | None:
        """What this backend offers for a model of this node; None when it cannot run it."""
        resident = self.resident(cid)
        if not self.can_run(task) or resident.error is not None:
            return None
        return Offer(
            cid,
            self.name,
            task,
            self.precision(cid),
            resident.is_warm,
            self._load_s(resident, unknown=0.0),
            resident.speed,
        )

    def precision(self, cid: bytes | None = None) -> str:
        """What it runs a model in: as that was loaded or measured, else as it was asked for."""
        resident = self._residents.get(cid) if cid is not None else None
        if resident is None:
            return self._asked_precision
        measured = resident.measurement.precision if resident.measurement else ""
        return resident.precision or measured or self._asked_precision

    def state(self) -> BackendState:
        scheduler = self.queue.scheduler
        device = str(self.worker.info.get("device", ""))
        return BackendState(self.name, device, self.worker.state, scheduler.length, scheduler.wait_s())

    def describe(self) -> dict[str, Any]:
        """For a person: the state, why it is so, and what happens to each model."""
        state = self.state()
        return {
            "name": state.name,
            "device": state.device,
            "library": str(self.worker.info.get("library", "")),
            "state": state.state,
            "reason": self.imprecise.message if self.imprecise else self.worker.reason,
            "queued": state.queued,
            "wait_s": state.wait_s,
            "models": [_described(each) for each in self.residents if each.place is not Place.COLD or each.error],
        }

    def predicted_s(self, resident: Resident, work: Work) -> float:
        """Seconds that a job of so much work takes here, loading the model included when it is the one to do it."""
        speed = resident.speed
        compute_s = speed.seconds(work) if speed else resident.job_s
        if resident.is_warm or resident.jobs:
            return compute_s
        return compute_s + self._load_s(resident, unknown=UNKNOWN_LOAD_S)

    def memory_estimate(self, resident: Resident) -> int | None:
        """Bytes that the model took when it was measured; None when it never was."""
        return resident.measurement.memory_bytes if resident.measurement else None

    # --- models

    @contextmanager
    def using(self, resident: Resident) -> Iterator[None]:
        """While inside, the model is not unloaded to make room."""
        resident.users += 1
        try:
            yield
        finally:
            resident.users -= 1
            resident.last_used = trio.current_time()
            self._bell.ring()

    def begin_loading(self, resident: Resident, folder: Path, estimate: int) -> None:
        """Loads in the background: who asked may leave, the model still comes. Its place tells when it is over."""
        resident.place, resident.bytes = Place.LOADING, max(estimate, LEAST_BYTES)
        resident.last_failure = None
        self._start(self._load, resident, folder)

    def begin_unloading(self, resident: Resident) -> None:
        if resident.is_warm:
            resident.place = Place.UNLOADING
            self._start(self._unload, resident)

    def forget(self, cid: bytes) -> None:
        """Drops what is known of a model that is cold."""
        if (resident := self._residents.get(cid)) is not None and resident.place is Place.COLD:
            del self._residents[cid]

    async def measure(self, resident: Resident) -> None:
        """Measures the loaded model and keeps the result. Raises AccelError."""
        arguments = {"key": format_cid(resident.cid), "seconds": BUDGET_S}
        with self._doing(resident, "measuring"):
            fields = await self._operate(resident, "measure", arguments, self._settings.measure_timeout_s)
        self._keep(resident, Speed(**fields))
        self._on_change()

    # --- jobs

    async def compute(
        self,
        ticket: Ticket,
        resident: Resident,
        request: Request,
        payload: bytes,
        on_progress: OnProgress,
        on_chunk: OnChunk,
    ) -> tuple[dict[str, Any], bytes]:
        """Runs a job of a loaded model: its report and packed result. Raises WorkerLostError, AccelError."""
        options = {OPTION: True} if request.options.get(OPTION) is True else {}
        asked = replace(request, model=format_cid(resident.cid), options=options)
        try:
            result = await self._jobs.run(ticket, asked, payload, on_progress, on_chunk)
        finally:
            self.worker.exonerate()
        run_s = float(result.report["run_s"])
        resident.observe(_work_done(request, result.report), run_s)
        report = {
            "backend": self.name,
            "device": str(self.worker.info.get("device", "")),
            "precision": resident.precision,
            "memory_bytes": resident.bytes,
            "implementation": resident.details,
            "compute_s": run_s,
            **result.report["timings"],
            "counts": result.report["counts"],
            "figures": result.report["figures"],
        } | ({"weights": resident.weights} if resident.weights else {})
        return report, result.payload

    # --- inside

    async def _load(self, resident: Resident, folder: Path) -> None:
        def report(state: str, done: int, total: int, _note: str) -> None:
            resident.activity = (state, done, total)
            self._bell.ring()

        key = format_cid(resident.cid)
        arguments = {"key": key, "folder": str(folder), "precision": self._asked_precision}
        try:
            with self._doing(resident, "loading"):
                facts = await self._operate(resident, "load", arguments, self._settings.load_timeout_s, report)
        except AccelError as error:
            log.warning("%s does not load on %s: %s", key, self.name, error)
            resident.become_cold()
        else:
            self._loaded(resident, facts)
        self._on_change()

    async def _operate(
        self,
        resident: Resident,
        method: str,
        arguments: dict[str, Any],
        timeout: float,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Something that the worker does to a model; what fails in it counts against that model. Raises AccelError."""
        try:
            answer: dict[str, Any] = await self.worker.call(method, arguments, timeout=timeout, on_progress=on_progress)
        except AccelError as error:
            resident.last_failure = error
            if error.code == ErrorCode.DEADLINE_EXCEEDED:
                self.worker.kill(f"{method} took more than {timeout:g} s")
            if not isinstance(error, WorkerLostError) or error.begun:
                resident.strike(error)
                self.worker.exonerate()
            raise
        self.worker.exonerate()
        return answer

    def _loaded(self, resident: Resident, facts: dict[str, Any]) -> None:
        resident.place = Place.WARM
        resident.bytes = max(int(facts["memory_bytes"]), LEAST_BYTES)
        resident.load_s = float(facts["load_s"])
        resident.precision, resident.details = str(facts["precision"]), dict(facts["details"])
        resident.weights = str(facts.get("weights", ""))
        if resident.measurement is not None:
            # Only the first loading converts the model, so a later one tells better what loading takes.
            self._keep(resident, resident.measurement.speed)

    def _keep(self, resident: Resident, speed: Speed) -> None:
        resident.measurement = self._measurements.put(
            self._key(resident.cid),
            speed,
            precision=resident.precision,
            load_s=resident.load_s,
            memory_bytes=resident.bytes,
        )

    async def _unload(self, resident: Resident) -> None:
        timeout = self._settings.unload_timeout_s
        try:
            await self.worker.call("unload", {"key": format_cid(resident.cid)}, timeout=timeout)
        except AccelError as error:
            self.worker.kill(f"a model could not be unloaded: {error.message}")
        resident.become_cold()
        self._on_change()

    def _worker_changed(self) -> None:
        state = self.worker.state
        if state != READY:
            # What was loaded went with the process; what is on its way is told by its own call.
            for resident in self._residents.values():
                if resident.is_warm:
                    resident.become_cold()
        self.queue.advance()
        if state == FAILED:
            self.queue.close(self.worker.unavailable)
        self._on_change()

    @contextmanager
    def _doing(self, resident: Resident, state: str) -> Iterator[None]:
        resident.activity = (state, 0, 1)
        self._bell.ring()
        try:
            yield
        finally:
            resident.activity = None

    def _start(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        if self._nursery is None:
            raise AccelError(ErrorCode.DRAINING, "this node is stopping")
        self._nursery.start_soon(work, *arguments)

    @property
    def _asked_precision(self) -> str:
        """The one that was asked for, else what the backend takes by its rule."""
        asked, info = self._settings.precision, self.worker.info
        by_rule = asked == AUTO or info.get("default_precision") == "none"
        return str(info.get("default_precision", asked)) if by_rule else asked

    def _load_s(self, resident: Resident, unknown: float) -> float:
        kept: Measurement | None = resident.measurement
        return resident.load_s or (kept.load_s if kept else 0.0) or unknown

    def _key(self, cid: bytes) -> Key:
        versions = f"{self.worker.info.get('library', '')} on {self.worker.info.get('device', '')}"
        return Key(format_cid(cid), self.name, self._asked_precision, self._settings.threads, versions)


def _work_done(request: Request, report: dict[str, Any]) -> Work:
    """The work that was asked for, with the tokens that were really written."""
    return replace(Work.of(request.work), outputs=float(report["counts"].get("output_tokens", 0)))


def _described(resident: Resident) -> dict[str, Any]:
    return {
        "cid": format_cid(resident.cid),
        "state": resident.activity[0] if resident.activity else resident.place.value,
        "precision": resident.precision,
        "memory_bytes": resident.bytes,
        "in_use": resident.users,
        "measured": resident.measurement is not None,
        "error": resident.error.as_dict() if resident.error else None,
    }
