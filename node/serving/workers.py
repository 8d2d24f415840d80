"""Supervision of a backend's worker: started, probed, watched by heartbeat, restarted a bounded number of times.

probing ──► ready ──► restarting ──► ready …        a death, a missed heartbeat, a stuck operation
   │                      │
   └──────────► failed ◄──┘        the backend says that it cannot run here, or it keeps dying
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from ..channel import Channel, OnProgress
from .worker_process import WorkerProcess
from .worker_queue import BEGUN

log = logging.getLogger(__name__)

PROBING: Final = "probing"
READY: Final = "ready"
RESTARTING: Final = "restarting"
FAILED: Final = "failed"

#: A probe that failed so may succeed in another process; anything else will be said again.
_MAY_PASS: Final = frozenset(
    {ErrorCode.PEER_LOST, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.INTERNAL, ErrorCode.OUT_OF_MEMORY}
)
#: A worker that missed its heartbeat has this many seconds more: the node itself may have been stopped meanwhile.
_SECOND_CHANCE_S: Final = 1.0


@dataclass(frozen=True)
class Supervision:
    """When a worker is given up, in seconds.

    A death is quick when it comes within `quick_death_s` of a start and nothing that was asked of it is to blame.
    """

    probe_timeout_s: float = 120.0
    heartbeat_s: float = 1.0
    silence_s: float = 10.0
    stop_grace_s: float = 2.0
    quick_death_s: float = 20.0
    most_quick_deaths: int = 5
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0


class WorkerLostError(AccelError):
    """The worker died. `begun` says whether it had begun with what was asked, which another attempt would repeat."""

    def __init__(self, backend: str, *, begun: bool) -> None:
        when = "while at it" if begun else "before it came to it"
        super().__init__(
            ErrorCode.WORKER_DIED, f"the worker of {backend} died {when}", "Try again; the node's log says more."
        )
        self.begun = begun


class Worker:
    """The worker of one backend, whichever process it is at the moment.

    Attributes:
        state: probing, ready, restarting or failed; `reason` says why it is restarting or failed.
        info: what the probe said (the fields of DeviceInfo); empty until then.
        pid: of the process that runs now.
        generation: counts processes; what was loaded in an earlier one is gone.
    """

    def __init__(
        self,
        backend: str,
        threads: int,
        cache: Path,
        on_change: Callable[[], None],
        supervision: Supervision = Supervision(),
    ) -> None:
        self.backend = backend
        self.state = PROBING
        self.reason = ""
        self.info: dict[str, Any] = {}
        self.generation = 0
        self._threads = threads
        self._cache = cache
        self._on_change = on_change
        self._supervision = supervision
        self._process: WorkerProcess | None = None
        self._why_killed = ""
        self._exonerated = False
        self._fatal: AccelError | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_available(self) -> bool:
        return self.state == READY and self._process is not None and not self._process.channel.closed

    @property
    def channel(self) -> Channel:
        """The way to the process that runs now. Raises WorkerLostError, or AccelError no-backend."""
        if self._process is None or not self.is_available:
            raise self.unavailable()
        return self._process.channel

    def unavailable(self) -> AccelError:
        """Why this worker takes nothing: for good, or for now."""
        if self.state == FAILED:
            return AccelError(
                ErrorCode.NO_BACKEND,
                f"the backend {self.backend} failed: {self.reason}",
                "Restart the node to try it again; its log says more.",
            )
        return WorkerLostError(self.backend, begun=False)

    async def call(self, method: str, arguments: Any, *, timeout: float, on_progress: OnProgress | None = None) -> Any:
        """The answer of one of the worker's operations.

        Raises:
            WorkerLostError: its process went away, or there is none.
            AccelError: what the worker answered, or deadline-exceeded.
        """
        begun = False

        def progress(state: str, done: int, total: int, note: str) -> None:
            nonlocal begun
            begun = True
            if on_progress is not None and state != BEGUN:
                on_progress(state, done, total, note)

        channel, generation = self.channel, self.generation
        try:
            answer = await channel.call(method, arguments, timeout=timeout, on_progress=progress)
        except AccelError as error:
            raise WorkerLostError(self.backend, begun=begun) if error.code == ErrorCode.PEER_LOST else error from None
        if self.generation != generation:
            raise WorkerLostError(self.backend, begun=begun)
        return answer

    def exonerate(self) -> None:
        """It finished something, or what it was asked to do is to blame: its death is no sign that it cannot live."""
        self._exonerated = True

    def kill(self, reason: str) -> None:
        """Ends the process that runs now; another one is started."""
        if self._process is not None:
            self._why_killed = reason
            self._process.kill()
            self._process.channel.close()

    async def run(self) -> None:
        """Keeps one process running until cancelled. Returns when the backend has failed for good."""
        deaths = 0
        while deaths < self._supervision.most_quick_deaths:
            began = trio.current_time()
            self._exonerated, self._why_killed = False, ""
            try:
                how = await self._live()
            except OSError as error:
                how = f"its process could not be started: {error}"
            if self._fatal is not None:
                self._become(FAILED, f"{self._fatal.message} {self._fatal.hint}".strip())
                return
            quick = not self._exonerated and trio.current_time() - began < self._supervision.quick_death_s
            deaths = deaths + 1 if quick else 0
            self._become(RESTARTING, self._why_killed or how)
            await trio.sleep(self._pause_s(deaths))
        self._become(FAILED, f"it died {deaths} times in a row; the last time {self.reason}")

    async def _live(self) -> str:
        """One process from its start to its end; says how it ended. Raises OSError when it cannot be started."""
        logger = log.getChild(self.backend)
        process = self._process = await WorkerProcess.start(self.backend, self._threads, self._cache, logger)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.listen)
                nursery.start_soon(self._tend, process)
                await process.channel.run()
                self._lost()
                nursery.cancel_scope.cancel()
        finally:
            self._process = None
            how = await process.stop(self._supervision.stop_grace_s)
        return f"{how} ({process.last_words})" if process.last_words else how

    async def _tend(self, process: WorkerProcess) -> None:
        """Probes the backend, then asks for a sign of life again and again, until the channel closes."""
        if await self._probe(process):
            while await self._heartbeat(process):
                await trio.sleep(self._supervision.heartbeat_s)

    async def _probe(self, process: WorkerProcess) -> bool:
        try:
            self.info = await process.channel.call("probe", {}, timeout=self._supervision.probe_timeout_s)
        except AccelError as error:
            if error.code not in _MAY_PASS:
                self._fatal = error
            if error.code != ErrorCode.PEER_LOST:
                self.kill(f"its probe failed: {error.message}")
            return False
        self._become(READY, "")
        return True

    async def _heartbeat(self, process: WorkerProcess) -> bool:
        silence_s = self._supervision.silence_s
        for patience in (silence_s, min(silence_s, _SECOND_CHANCE_S)):
            try:
                await process.channel.ping(timeout=patience)
            except AccelError as error:
                if error.code == ErrorCode.PEER_LOST:
                    return False
            else:
                return True
        self.kill(f"it gave no sign of life for {silence_s:g} s")
        return False

    def _lost(self) -> None:
        """Nothing is given to it from now on, although its process is yet to be cleared away."""
        self.generation += 1
        if self.state == READY:
            self.state = RESTARTING
            self._on_change()

    def _become(self, state: str, reason: str) -> None:
        level = logging.INFO if state == READY else logging.WARNING
        log.log(level, "the worker of %s is %s%s", self.backend, state, f": {reason}" if reason else "")
        self.state, self.reason = state, reason
        self._on_change()

    def _pause_s(self, deaths: int) -> float:
        return min(self._supervision.longest_pause_s, self._supervision.first_pause_s * 2.0 ** max(0, deaths - 1))
