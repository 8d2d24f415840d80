"""Supervision of worker processes: started by exec, watched by heartbeat, restarted a bounded number of times."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ...protocols.errors import AccelError, ErrorCode
from ..channel import Channel

log = logging.getLogger(__name__)

_MODULE = f"{__package__}.worker_main"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Supervision:
    """When a worker is given up: seconds, and deaths in a row that each came within `quick_death_s` of a start."""

    probe_timeout_s: float = 120.0
    heartbeat_s: float = 1.0
    silence_s: float = 10.0
    stop_grace_s: float = 2.0
    quick_death_s: float = 20.0
    most_quick_deaths: int = 5
    first_pause_s: float = 0.1


class Worker:
    """One worker process, whichever incarnation of it runs at the moment.

    Attributes:
        state: probing, ready, restarting or failed; `reason` says why for the last two.
        info: what the probe said, empty until then.
        generation: counts starts; what was loaded in an earlier generation is gone.
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
        self.state = "probing"
        self.reason = ""
        self.info: dict[str, Any] = {}
        self.generation = 0
        self.pid: int | None = None
        self._threads = threads
        self._cache = cache
        self._on_change = on_change
        self._supervision = supervision
        self._channel: Channel | None = None

    @property
    def channel(self) -> Channel:
        """The way to the process that runs now. Raises AccelError worker-died when none is ready."""
        if self._channel is None or self._channel.closed or self.state != "ready":
            raise AccelError(ErrorCode.WORKER_DIED, f"the {self.backend} worker is {self.state}. {self.reason}".strip())
        return self._channel

    async def run(self) -> None:
        """Keeps one process running until cancelled, or until it has died too often too quickly."""
        quick_deaths = 0
        while quick_deaths < self._supervision.most_quick_deaths:
            began = trio.current_time()
            fatal = await self._run_once()
            if fatal:
                break
            lived_s = trio.current_time() - began
            quick_deaths = quick_deaths + 1 if lived_s < self._supervision.quick_death_s else 0
            await trio.sleep(self._supervision.first_pause_s * 2 ** max(0, quick_deaths - 1))
        self._become("failed", self.reason)

    async def _run_once(self) -> bool:
        """One process from start to end; true when another one would end the same way."""
        self.generation += 1
        fatal = False
        with _socket_pair() as (ours, theirs):
            process = await self._start(theirs)
            self.pid = process.pid
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            self._channel = Channel(stream, dialler=True)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_channel, nursery.cancel_scope)
                    fatal = not await self._probe()
                    if not fatal:
                        await self._watch()
                    nursery.cancel_scope.cancel()
            finally:
                self._channel.close()
                status = await _stop(process, self._supervision.stop_grace_s)
                self.pid = None
                if not fatal:
                    self._become("restarting", f"its process ended ({_told(status)})")
        return fatal

    async def _start(self, theirs: socket.socket) -> trio.Process:
        command = [
            sys.executable, "-m", _MODULE, "--backend", self.backend, "--fd", str(theirs.fileno()),
            "--threads", str(self._threads), "--cache", str(self._cache),
        ]  # fmt: skip
        try:
            return await trio.lowlevel.open_process(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=_log_stream(),
                stderr=_log_stream(),
                env=_environment(self._threads),
            )
        finally:
            theirs.close()

    async def _run_channel(self, scope: trio.CancelScope) -> None:
        if self._channel is not None:
            await self._channel.run()
        scope.cancel()

    async def _probe(self) -> bool:
        """False when the backend itself says that it cannot run here: starting it again would not help."""
        if self._channel is None:
            return False
        try:
            self.info = await self._channel.call("probe", {}, timeout=self._supervision.probe_timeout_s)
        except AccelError as error:
            if error.code == ErrorCode.PEER_LOST:
                return True
            self._become("failed", str(error))
            return False
        self._become("ready", "")
        return True

    async def _watch(self) -> None:
        """Returns when the process has not answered a ping for `silence_s`."""
        while self._channel is not None and not self._channel.closed:
            try:
                await self._channel.ping(timeout=self._supervision.silence_s)
            except AccelError as error:
                log.warning("the %s worker is given up: %s", self.backend, error)
                return
            await trio.sleep(self._supervision.heartbeat_s)

    def _become(self, state: str, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            log.log(
                logging.INFO if state == "ready" else logging.WARNING, "%s worker %s %s", self.backend, state, reason
            )
            self.state, self.reason = state, reason
            self._on_change()


@contextmanager
def _socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


async def _stop(process: trio.Process, grace_s: float) -> int | None:
    """Ends the process, by force if need be. Its socket is closed by now, which ends a sound one by itself."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(grace_s) as in_time:
            await process.wait()
        if in_time.cancelled_caught:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode


def _environment(threads: int) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), "PYTHONUNBUFFERED": "1"}


def _log_stream() -> int:
    """The file that the node logs to, so that a chatty library can fill a disk at worst, and never a pipe."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            return handler.stream.fileno()
    return subprocess.DEVNULL


def _told(status: int | None) -> str:
    return f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
