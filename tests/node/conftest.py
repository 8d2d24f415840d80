"""A node's local door without the node behind it: real frames on a real Unix socket, answers as a test says."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ipfs_accel_node.node.config import ENVIRONMENT_PREFIX, Paths
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference_session import (
    CallReceived,
    PayloadReceived,
    RequestReceived,
    Session,
)

#: No test waits longer for something that is about to happen.
DEADLINE_S = 10.0

Answer = Callable[[Session, Any], None]


class Door:
    """Listens where the clients of `data_dir` look. `answer(session, event)` says what becomes of each event.

    Attributes:
        events: everything that came in, over all connections.
    """

    def __init__(self, data_dir: Path, answer: Answer, *, piece: int = 1 << 16, reads: bool = True) -> None:
        self.data_dir = data_dir
        self.events: list[Any] = []
        self._answer = answer
        self._piece = piece
        self._reads = reads
        self._closed = False
        self._changed = threading.Condition()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.path = Paths(data_dir).socket
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._start(self._accept_all)

    def wait_for(self, kind: type, count: int = 1) -> list[Any]:
        """The events of one kind, once there are `count` of them."""

        def found() -> list[Any]:
            return [event for event in self.events if isinstance(event, kind)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, DEADLINE_S), self.events
        return found()

    def send(self, data: bytes) -> None:
        """Bytes of any kind to everybody who is connected."""
        for connection in self._connections:
            connection.sendall(data)

    def hang_up(self) -> None:
        for connection in self._connections:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As when the node dies, except that its socket file goes too."""
        if self._closed:
            return
        self._closed = True
        self.path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(DEADLINE_S)  # from here on nobody new comes in
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        for each in (self._listener, *self._connections):
            each.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept_all(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            if self._reads:
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        session = Session(dialler=False)
        try:
            while data := connection.recv(1 << 16):
                for event in session.receive(data):
                    self._answer(session, event)
                    self._note(event)
                while out := session.data_to_send():
                    for start in range(0, len(out), self._piece):
                        connection.sendall(out[start : start + self._piece])
        except OSError:
            pass
        for event in session.connection_lost():
            self._note(event)

    def _note(self, event: Any) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()


def echo(session: Session, event: Any) -> None:
    """Jobs get their inputs back, calls their method and arguments."""
    match event:
        case RequestReceived(request_id, request, payload):
            session.accept(request_id, 0, 0)
            session.progress(request_id, "running", 1, 2, request.model)
            if payload is not None:
                session.result(request_id, {"model": request.model}, payload)
        case PayloadReceived(request_id, payload):
            session.result(request_id, {}, payload)
        case CallReceived(request_id, method, payload):
            session.result(request_id, {}, values.pack({"method": method, **values.unpack(payload)}))


def nothing(session: Session, event: Any) -> None:
    """As a node that is stopped, or far too busy."""


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def open_one(answer: Answer | str = "echo", *, name: str = "data", **options: Any) -> Door:
        chosen = {"echo": echo, "nothing": nothing}[answer] if isinstance(answer, str) else answer
        doors.append(Door(tmp_path / name, chosen, **options))
        return doors[-1]

    yield open_one
    for door in doors:
        door.close()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def runtime_dir(monkeypatch) -> Iterator[Path]:
    """A user's runtime folder. Its path is short, as real ones are: a socket's may have 104 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
