"""A slot: one backend of this node, with its worker, its queue and the models loaded in it."""

from __future__ import annotations

import fcntl
import getpass
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from ...backends.interface import BackendError
from ...backends.loading import inspect
from ...protocols.advert import Offer, Speed
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ...protocols.inference_session import (
    ChunkReceived,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
)
from ..content.cid import format_cid
from .measuring import BUDGET_S, Measurements
from .scheduler import Scheduler, Ticket
from .workers import Supervision, Worker

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, str], None]
OnChunk = Callable[[int, list[int], str], Awaitable[None]]

_LOAD_TIMEOUT_S = 900.0
_MEASURE_TIMEOUT_S = 300.0
_LOCK_DEADLINE_S = 120.0
_MOST_LOAD_FAILURES = 2
#: Predicted for a model that was never measured, so that a queue of such jobs has a length at all.
_UNMEASURED_S = 1.0


@dataclass(frozen=True)
class SlotSettings:
    threads: int
    precision: str
    cache: Path
    supervision: Supervision


@dataclass
class Loaded:
    """A model in a worker's memory, and what its loading said of it."""

    cid: bytes
    generation: int
    precision: str
    memory_bytes: int
    details: dict[str, Any]
    load_s: float
    last_used: float
    speed: Speed | None = None


class Slot:
    """One backend. Its name is the backend's own, such as `cpu` or `openvino:CPU`, once it was probed."""

    def __init__(
        self, backend: str, settings: SlotSettings, measurements: Measurements, on_change: Callable[[], None]
    ) -> None:
        self.worker = Worker(backend, settings.threads, settings.cache, on_change, settings.supervision)
        self.scheduler = Scheduler()
        self._settings = settings
        self._measurements = measurements
        self._on_change = on_change
        self._loaded: dict[bytes, Loaded] = {}
        self._failures: dict[bytes, list[AccelError]] = defaultdict(list)
        self._using: dict[bytes, int] = defaultdict(int)
        self._loading = trio.Lock()
        self._turns: dict[Ticket, trio.Event] = {}
        self.activity = ""

    @property
    def name(self) -> str:
        return str(self.worker.info.get("backend", self.worker.backend))

    @property
    def memory_bytes(self) -> int:
        return sum(each.memory_bytes for each in self._current().values())

    # --- facts

    def can_run(self, task: str) -> bool:
        return self.worker.state == "ready" and task in self.worker.info.get("tasks", ())

    def offer(self, cid: bytes, task: str) -> Offer | None:
        """What this backend offers for a model of this node; None when it cannot run it."""
        if not self.can_run(task) or self._unusable(cid):
            return None
        loaded = self._current().get(cid)
        kept = self._measurements.get(self._key(cid))
        speed = loaded.speed if loaded and loaded.speed else (kept[0] if kept else None)
        load_s = loaded.load_s if loaded else (kept[1] if kept else 0.0)
        precision = loaded.precision if loaded else self._settings.precision
        return Offer(cid, self.name, task, precision, loaded is not None, load_s, speed)

    def needs_warming(self, cid: bytes, task: str) -> bool:
        loaded = self._current().get(cid)
        return self.can_run(task) and not self._unusable(cid) and (loaded is None or loaded.speed is None)

    def is_loaded(self, cid: bytes) -> bool:
        return cid in self._current()

    def loaded_models(self) -> list[bytes]:
        return list(self._current())

    def last_used(self, cid: bytes) -> float:
        return self._loaded[cid].last_used

    def in_use(self, cid: bytes) -> bool:
        return self._using.get(cid, 0) > 0

    def estimate(self, cid: bytes, folder: Path) -> int:
        """Bytes of memory that loading the model is going to take; 0 when it is loaded."""
        if self.is_loaded(cid):
            return 0
        try:
            return inspect(folder).memory_bytes
        except BackendError as error:
            raise AccelError(error.code, error.message, error.hint) from None

    def describe(self, now: float) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self.worker.info.get("device", ""),
            "library": self.worker.info.get("library", ""),
            "state": self.worker.state,
            "activity": self.activity,
            "reason": self.worker.reason,
            "queued": self.scheduler.queued,
            "wait_s": self.scheduler.expected_wait_s(now),
            "loaded": [format_cid(cid) for cid in self._current()],
            "failed": {format_cid(cid): each[-1].as_dict() for cid, each in self._failures.items() if each},
        }

    # --- the queue

    def admit(self, cid: bytes, units: float, remaining_s: float) -> Ticket:
        loaded = self._current().get(cid)
        kept = self._measurements.get(self._key(cid))
        speed = loaded.speed if loaded and loaded.speed else (kept[0] if kept else None)
        predicted_s = speed.seconds(units) if speed else _UNMEASURED_S
        ticket = self.scheduler.admit(predicted_s, remaining_s, trio.current_time())
        self._turns[ticket] = trio.Event()
        self._advance()
        return ticket

    async def turn(self, ticket: Ticket) -> None:
        """Returns when the job may go to the worker."""
        await self._turns[ticket].wait()

    def leave(self, ticket: Ticket) -> None:
        self.scheduler.leave(ticket)
        self._turns.pop(ticket, None)
        self._advance()

    def _advance(self) -> None:
        while ticket := self.scheduler.start_next(trio.current_time()):
            self._turns[ticket].set()

    # --- models

    @contextmanager
    def using(self, cid: bytes) -> Iterator[None]:
        """While inside, the model is not unloaded."""
        self._using[cid] += 1
        try:
            yield
        finally:
            self._using[cid] -= 1
            if not self._using[cid]:
                del self._using[cid]

    async def ensure_loaded(self, cid: bytes, folder: Path, on_progress: OnProgress) -> Loaded:
        """Loads the model if it is not loaded; one at a time. Raises AccelError."""
        async with self._loading:
            if self._unusable(cid):
                raise self._failures[cid][-1]
            if (loaded := self._current().get(cid)) is None:
                with self._doing(f"loading {format_cid(cid)[:16]}…"):
                    loaded = self._loaded[cid] = await self._load(cid, folder, on_progress)
                self._on_change()
            loaded.last_used = trio.current_time()
            return loaded

    async def ensure_measured(self, loaded: Loaded) -> None:
        """Measures how fast the model runs here, alone on this machine, unless that is known from before."""
        key = self._key(loaded.cid)
        if kept := self._measurements.get(key):
            loaded.speed = kept[0]
            return
        with self._doing(f"measuring {format_cid(loaded.cid)[:16]}…"):
            async with _alone_on_this_machine():
                arguments = {"key": format_cid(loaded.cid), "seconds": BUDGET_S}
                fields = await self.worker.channel.call("measure", arguments, timeout=_MEASURE_TIMEOUT_S)
        loaded.speed = Speed(**fields)
        self._measurements.put(key, loaded.speed, loaded.load_s)

    async def unload(self, cid: bytes) -> None:
        self._failures.pop(cid, None)
        if self._current().pop(cid, None) is not None and self.worker.state == "ready":
            self._loaded.pop(cid, None)
            await self.worker.channel.call("unload", {"key": format_cid(cid)}, timeout=_MEASURE_TIMEOUT_S)

    async def compute(
        self, loaded: Loaded, request: Request, payload: bytes, on_progress: OnProgress, on_chunk: OnChunk
    ) -> tuple[dict[str, Any], bytes]:
        """Runs one job in the worker. Raises AccelError; worker-died when its process went away."""
        asked = replace(request, model=format_cid(loaded.cid), options={})
        async with self.worker.channel.request(asked, payload) as exchange:
            async for event in exchange:
                match event:
                    case ResultReceived(_, report, result):
                        return self._report(loaded, report), result
                    case FailedReceived(_, code, message, hint) | RefusedReceived(_, code, message, hint):
                        raise self._of_worker(code, message, hint)
                    case ProgressReceived(_, state, done, total, note):
                        on_progress(state, done, total, note)
                    case ChunkReceived(_, offset, token_ids, text):
                        await on_chunk(offset, token_ids, text)
        raise AccelError(ErrorCode.WORKER_DIED, "the worker left without an answer")

    async def _load(self, cid: bytes, folder: Path, on_progress: OnProgress) -> Loaded:
        generation = self.worker.generation
        arguments = {"key": format_cid(cid), "folder": str(folder), "precision": self._settings.precision}
        try:
            facts = await self.worker.channel.call("load", arguments, timeout=_LOAD_TIMEOUT_S, on_progress=on_progress)
        except AccelError as error:
            failure = self._of_worker(error.code, error.message, error.hint)
            self._failures[cid].append(failure)
            raise failure from None
        return Loaded(
            cid,
            generation,
            facts["precision"],
            facts["memory_bytes"],
            facts["details"],
            facts["load_s"],
            trio.current_time(),
        )

    def _report(self, loaded: Loaded, report: dict[str, Any]) -> dict[str, Any]:
        return {
            "backend": self.name,
            "device": self.worker.info.get("device", ""),
            "precision": loaded.precision,
            "implementation": loaded.details,
            "counts": report.get("counts", {}),
            **report.get("timings", {}),
        }

    def _of_worker(self, code: str, message: str, hint: str) -> AccelError:
        """A worker that is gone is no lost peer."""
        if code == ErrorCode.PEER_LOST:
            return AccelError(ErrorCode.WORKER_DIED, f"the {self.name} worker died", hint)
        return AccelError(code, message, hint)

    def _unusable(self, cid: bytes) -> bool:
        """A model that could not be loaded: once for a reason of its own, twice when it killed the worker."""
        failures = self._failures.get(cid, [])
        return len(failures) >= _MOST_LOAD_FAILURES or any(each.code != ErrorCode.WORKER_DIED for each in failures)

    def _current(self) -> dict[bytes, Loaded]:
        """What is loaded in the process that runs now."""
        if any(each.generation != self.worker.generation for each in self._loaded.values()):
            self._loaded = {
                cid: each for cid, each in self._loaded.items() if each.generation == self.worker.generation
            }
        return self._loaded if self.worker.state == "ready" else {}

    def _key(self, cid: bytes) -> str:
        settings = self._settings
        return Measurements.key(
            format_cid(cid), self.name, settings.precision, settings.threads, self.worker.info.get("library", "")
        )

    @contextmanager
    def _doing(self, activity: str) -> Iterator[None]:
        self.activity = activity
        try:
            yield
        finally:
            self.activity = ""


@asynccontextmanager
async def _alone_on_this_machine() -> AsyncIterator[None]:
    """Holds the lock that all nodes of this user on this machine share, so that nobody measures beside another.

    After a while it goes on without: a measurement with a neighbour is worth more than none.
    """
    path = Path(tempfile.gettempdir()) / f"ipfs-accel-node-measuring-{getpass.getuser()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with trio.move_on_after(_LOCK_DEADLINE_S):
            while not _locked(descriptor):
                await trio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
