"""One Unix socket or TLS connection to the node, for any number of requests from any threads at once.

A calling thread sends what the socket takes at that moment; the reader's thread sends the rest as room comes, and hands
every answer to the request it belongs to. No thread ever blocks in a send, so a node that stops reading holds up
nobody beyond their deadline.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ..protocols.errors import AccelError, ErrorCode, JobError, ProtocolError
from ..protocols.inference_session import Answer, FailedReceived, RefusedReceived, ResultReceived, Session
from . import client_tls
from .client_jobs import OpenRequest
from .client_requests import Places, client_closed, denied, is_trusted, node_lost, not_running

log = logging.getLogger(__name__)

_READ_SIZE: Final = 1 << 20
_WRITE_SIZE: Final = 1 << 18
_CONNECT_DEADLINE_S: Final = 5.0
_CONNECT_PAUSE_S: Final = 0.01
_JOIN_DEADLINE_S: Final = 5.0
Stream = socket.socket | client_tls.TlsSocket
_TERMINAL: Final = (ResultReceived, FailedReceived, RefusedReceived)


def connect(places: Places) -> Stream:
    """The first of the places where a node answers. Raises AccelError not-running, permission-denied, busy; over TLS
    wrong-certificate and wrong-client-token too."""
    if isinstance(places, client_tls.RemoteNode):
        return client_tls.connect(places)
    for place in places:
        try:
            if not is_trusted(place):
                raise PermissionError
            return _connect(place)
        except PermissionError:
            raise denied(place) from None
        except OSError as error:
            log.debug("no node at %s: %s", place, error)
    raise not_running(places[0])


def _connect(place: Path) -> socket.socket:
    """Waits a bounded time for room in the node's queue of connections, which a crowd of clients can fill."""
    deadline = time.monotonic() + _CONNECT_DEADLINE_S
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.setblocking(False)
    while True:
        try:
            stream.connect(str(place))
            return stream
        except BlockingIOError:
            if time.monotonic() > deadline:
                stream.close()
                raise AccelError(
                    ErrorCode.BUSY, f"the node at {place} takes no connections", "Too many clients? See its log."
                ) from None
            time.sleep(_CONNECT_PAUSE_S)
        except OSError:
            stream.close()
            raise


class Connection:
    """A session over one socket, and the thread that reads it. It ends once, and then fails what is open."""

    def __init__(self, stream: Stream) -> None:
        self.closed = False
        self._stream = stream
        self._session = Session(dialler=True)
        self._lock = threading.Lock()
        self._requests: dict[int, OpenRequest] = {}
        self._unsent = memoryview(b"")
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._woken, select.POLLIN)
        self._poll.register(self._stream, select.POLLIN)
        self._reader = threading.Thread(target=self._read_all, name="ipfs-accel-node reader", daemon=True)
        self._reader.start()

    def open(self, request: OpenRequest, begin: Callable[[Session], int]) -> bool:
        """Sends a request that `begin` opens in the session; False when the connection had ended before."""
        with self._lock:
            if self.closed:
                return False
            request_id = begin(self._session)
            self._requests[request_id] = request
            request.attach(partial(self._forget, request_id), self._is_reader)
            self._send_waiting()
        return True

    def close(self) -> None:
        """Fails what is open and ends the reader; from a callback, which runs in the reader, it ends after that."""
        self._end(client_closed())
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        if not self._is_reader():
            self._reader.join(_JOIN_DEADLINE_S)

    def _is_reader(self) -> bool:
        return threading.current_thread() is self._reader

    def _forget(self, request_id: int) -> None:
        with self._lock:
            if self._requests.pop(request_id, None) is not None and not self.closed:
                self._session.cancel(request_id)
                self._send_waiting()

    # --- sending, with the lock held

    def _send_waiting(self) -> None:
        """Sends until nothing waits or the socket is full; that it is lost is the reader's to tell."""
        while self._unsent or self._take_more():
            try:
                self._unsent = self._unsent[self._stream.send(self._unsent) :]
            except BlockingIOError:
                self._wake()
                return
            except OSError:
                self._unsent = memoryview(b"")
                return

    def _take_more(self) -> bool:
        self._unsent = memoryview(self._session.data_to_send(_WRITE_SIZE))
        return bool(self._unsent)

    def _wake(self) -> None:
        """Lets the reader look for room in the socket too."""
        if not self._is_reader():
            with suppress(BlockingIOError):
                self._waker.send(b"\0")

    # --- reading, in the reader's thread

    def _read_all(self) -> None:
        error: AccelError = node_lost()
        try:
            while not self.closed and self._read_once():
                pass
        except OSError as lost:
            log.debug("the connection ended: %s", lost)
        except ProtocolError as broken:
            error = JobError(broken.code, f"the node sent what this client does not understand: {broken.message}")
        except Exception as failed:
            log.exception("reading from the node failed")
            error = JobError(ErrorCode.INTERNAL, f"reading from the node failed: {failed}")
        finally:
            self._end(error)
            for each in (self._stream, self._woken, self._waker):
                each.close()

    def _read_once(self) -> bool:
        """False when the node has closed its end."""
        ready = self._wait()
        if self._woken.fileno() in ready:
            self._woken.recv(_READ_SIZE)
        state = ready.get(self._stream.fileno(), 0)
        if state & select.POLLOUT:
            with self._lock:
                self._send_waiting()
        if state & ~select.POLLOUT:
            try:
                data = self._stream.recv(_READ_SIZE)
            except BlockingIOError:
                return True
            self._receive(data)
            return bool(data)
        return True

    def _wait(self) -> dict[int, int]:
        with self._lock:
            room = select.POLLOUT if self._unsent else 0
        self._poll.modify(self._stream, select.POLLIN | room)
        return dict(self._poll.poll())

    def _receive(self, data: bytes) -> None:
        with self._lock:
            answers = [event for event in self._session.receive(data) if isinstance(event, Answer)]
            requests = [self._request_of(answer) for answer in answers]
            self._send_waiting()
        for request, answer in zip(requests, answers, strict=True):
            if request is not None:
                request.take(answer)

    def _request_of(self, event: Answer) -> OpenRequest | None:
        take = self._requests.pop if isinstance(event, _TERMINAL) else self._requests.get
        return take(event.request_id, None)

    def _end(self, error: AccelError) -> None:
        with self._lock:
            self.closed = True
            self._session.connection_lost()
            left, self._requests = list(self._requests.values()), {}
        for request in left:
            request.fail(error)
