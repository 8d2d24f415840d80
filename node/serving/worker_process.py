"""One life of a worker process: started by exec on one end of a socket pair, listened to, ended without a trace."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from ..channel import Channel

_MODULE: Final = f"{__package__}.worker_main"
_READ_SIZE: Final = 1 << 16
_LONGEST_LINE: Final = 400
_LINES_KEPT: Final = 20
_BURST_LINES: Final = 200
_LINES_A_SECOND: Final = 20.0
#: A killed process ends at once, unless a device holds it.
_KILL_DEADLINE_S: Final = 5.0
_LAST_WORDS_DEADLINE_S: Final = 0.2


class Output:
    """What a worker prints, line by line into the node's log: at most a burst of lines, then so many a second.

    It is always read, so a chatty library never blocks, and never fills the disk.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rest = b""
        self._credit = float(_BURST_LINES)
        self._credited_at = 0.0
        self._dropped = 0
        self._last: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def last_words(self) -> str:
        """The last line that says something; empty when nothing was printed."""
        return next((line for line in reversed(self._last) if line.strip()), "")

    def feed(self, data: bytes | bytearray, now: float) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LONGEST_LINE]
        self._credit = min(_BURST_LINES, self._credit + _LINES_A_SECOND * (now - self._credited_at))
        self._credited_at = now
        for line in lines:
            self._line(line[:_LONGEST_LINE].decode(errors="replace").rstrip())

    def _line(self, line: str) -> None:
        self._last.append(line)
        if self._credit < 1:
            self._dropped += 1
            return
        self._credit -= 1
        if self._dropped:
            self._log.info("(%d lines left out)", self._dropped)
            self._dropped = 0
        self._log.info("%s", line)


class WorkerProcess:
    """A running process and the channel to it."""

    def __init__(self, process: trio.Process, channel: Channel, output: Output) -> None:
        self._process = process
        self._output = output
        self.channel = channel

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_words(self) -> str:
        return self._output.last_words

    @classmethod
    async def start(cls, backend: str, threads: int, cache: Path, log: logging.Logger) -> WorkerProcess:
        """Raises OSError when the machine cannot start a process. The caller must `stop` what this gives."""
        return await cls.start_module(
            _MODULE, ["--backend", backend, "--threads", str(threads), "--cache", str(cache)], log
        )

    @classmethod
    async def start_module(cls, module: str, arguments: list[str], log: logging.Logger) -> WorkerProcess:
        """Another module than the worker's, which is given `--fd` too. As `start` otherwise."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            process = await _exec(module, arguments, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        return cls(process, Channel(stream, dialler=True), Output(log))

    async def listen(self) -> None:
        """Reads what the process prints until it ends."""
        if self._process.stdout is None:
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._process.stdout:
                self._output.feed(bytes(data), trio.current_time())

    def kill(self) -> None:
        """Ends the process and whatever it started, at once; also a process that is stopped."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_s: float) -> str:
        """Ends the process, by force after `grace_s`, and says how it ended. Not to be cancelled."""
        with trio.CancelScope(shield=True):
            # A sound worker ends by itself when its socket closes. Its group is signalled before it is waited for:
            # until then its id is nobody else's.
            self.channel.close()
            self._signal(signal.SIGTERM)
            if await self._ended(grace_s) is None:
                self.kill()
                await self._ended(_KILL_DEADLINE_S)
            with trio.move_on_after(_LAST_WORDS_DEADLINE_S):
                await self.listen()
            if self._process.stdout is not None:
                await self._process.stdout.aclose()
        return _told(self._process.returncode)

    async def _ended(self, seconds: float) -> int | None:
        with trio.move_on_after(seconds):
            await self._process.wait()
        return self._process.returncode

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


async def _exec(module: str, arguments: list[str], descriptor: int) -> trio.Process:
    # -P: what lies in the folder the node was started in is no library.
    command = [sys.executable, "-P", "-m", module, "--fd", str(descriptor), *arguments]
    # A session of its own: Ctrl-C reaches the node alone, which lets jobs finish; and one signal ends the worker
    # together with what it started.
    return await trio.lowlevel.open_process(
        command,
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _told(status: int | None) -> str:
    if status is None:
        return "its process does not end, even when killed"
    if status >= 0:
        return f"its process exited with status {status}"
    with suppress(ValueError):
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process was ended by signal {-status}"
