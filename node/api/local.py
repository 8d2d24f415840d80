"""The local door: a Unix socket that only this user can open, where jobs and control operations come in.

Each connection is a channel of its own, so clients speak the same frames as peers do.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ...protocols.errors import AccelError, ErrorCode
from ..channel import Channel
from ..dispatch import Dispatcher
from ..exchanges import Incoming, IncomingCall

log = logging.getLogger(__name__)

Operation = Callable[[IncomingCall], Awaitable[Any]]

_MAX_CLIENTS = 512
_BACKLOG = 128


class LocalDoor:
    """Answers this machine's clients: jobs go to the dispatcher, calls to the operation of that name."""

    def __init__(self, dispatcher: Dispatcher, operations: dict[str, Operation]) -> None:
        self._dispatcher = dispatcher
        self._operations = operations
        self._channels: set[Channel] = set()

    @property
    def is_sending(self) -> bool:
        """Whether an answer waits to be read by a client."""
        return any(channel.session.queued_bytes for channel in self._channels)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Converses with one client until it leaves."""
        channel = Channel(stream, dialler=False, handler=self)
        self._channels.add(channel)
        try:
            await channel.run()
        finally:
            self._channels.discard(channel)

    async def handle_request(self, incoming: Incoming) -> None:
        await self._dispatcher.run(incoming)

    async def handle_call(self, call: IncomingCall) -> Any:
        operation = self._operations.get(call.method)
        if operation is None:
            raise AccelError(
                ErrorCode.UNKNOWN_METHOD,
                f"this node has no operation {call.method!r}",
                "Is it an older version?",
            )
        return await operation(call)


async def serve_socket(
    path: Path, door: LocalDoor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Listens on the Unix socket `path` (mode 0600) until cancelled, then removes it."""
    listener = trio.SocketListener(_bind(path))
    clients = trio.CapacityLimiter(_MAX_CLIENTS)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, partial(_serve_client, door, clients), [listener]))
            task_status.started()
    finally:
        with suppress(OSError):
            path.unlink()  # noqa: ASYNC240 — a runtime folder is in memory


def _bind(path: Path) -> trio.socket.SocketType:
    """The data folder is locked by now, so a socket file that is still there belongs to nobody."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise AccelError(
            ErrorCode.PERMISSION_DENIED, f"others may write in {path.parent}", "Remove it, or set XDG_RUNTIME_DIR."
        )
    with suppress(OSError):  # what cannot be removed is told by the bind
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise AccelError(
            ErrorCode.PERMISSION_DENIED, f"cannot listen on {path}: {error.strerror or error}", "Check that folder."
        ) from None
    finally:
        os.umask(before)
    bound.listen(_BACKLOG)
    bound.setblocking(False)
    return trio.socket.from_stdlib_socket(bound)


async def _serve_client(door: LocalDoor, clients: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    try:
        clients.acquire_on_behalf_of_nowait(stream)
    except trio.WouldBlock:
        log.warning("refusing a client: %d are connected", _MAX_CLIENTS)
        await stream.aclose()
        return
    try:
        await door.serve(stream)
    except Exception:
        log.exception("a client's connection failed")
    finally:
        clients.release_on_behalf_of(stream)
