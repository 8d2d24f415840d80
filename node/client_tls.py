"""A client's connection to a node on another machine: TLS 1.3, its certificate pinned by the token, and the opening.

The secret of the token is sent when the certificate is the right one, never before.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Final

from ..protocols.client_door import ClientOpening, ClientToken
from ..protocols.errors import AccelError, ErrorCode, ProtocolError
from .tcp import HostPort, probes

#: Seconds until a client is let in, names looked up and all.
OPENING_DEADLINE_S: Final = 5.0
_READ_SIZE: Final = 1 << 16
_WRITE_SIZE: Final = 1 << 16


@dataclass(frozen=True)
class RemoteNode:
    """Where a node listens for clients, and what lets this one in."""

    address: HostPort
    token: ClientToken

    def unreachable(self, reason: object) -> AccelError:
        return AccelError(
            ErrorCode.NOT_RUNNING,
            f"no node answers at {self.address}: {reason}",
            "Is it started with --listen-clients, and does a firewall let the port through?",
        )

    def no_door(self, reason: object) -> AccelError:
        return AccelError(
            ErrorCode.NOT_RUNNING,
            f"what answers at {self.address} is no node's door for clients: {reason}",
            "The port is that of the node's --listen-clients, not that of --listen.",
        )


def tls_context() -> ssl.SSLContext:
    """TLS 1.3 without any authority or name: the token says which certificate it must be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def reason_of(error: BaseException) -> str:
    """What a person can make of a connection that failed; of several tries, the last one counts."""
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[-1])
    if isinstance(error, TimeoutError):
        return f"no answer within {OPENING_DEADLINE_S:g} s"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return getattr(error, "strerror", None) or str(error) or "it hung up"


def connect(node: RemoteNode) -> TlsSocket:
    """Raises AccelError not-running, wrong-certificate, and what the node refuses a client for."""
    try:
        plain = socket.create_connection((node.address.host, node.address.port), OPENING_DEADLINE_S)
    except (OSError, UnicodeError) as error:
        raise node.unreachable(reason_of(error)) from None
    try:
        stream = TlsSocket(plain)
        _open(stream, node)
        plain.setblocking(False)
        return stream
    except (OSError, ProtocolError) as error:
        plain.close()
        raise node.no_door(reason_of(error)) from None
    except BaseException:
        plain.close()
        raise


def _open(stream: TlsSocket, node: RemoteNode) -> None:
    deadline = time.monotonic() + OPENING_DEADLINE_S
    stream.shake_hands(deadline)
    node.token.check_certificate(stream.certificate)
    opening = ClientOpening(node.token.secret)
    stream.send_all(opening.take_outgoing(), deadline)
    while not opening.done:
        opening.receive(stream.receive(deadline))


class TlsSocket:
    """TLS over a connected TCP socket, for one thread that reads and any that send. Once it is open it never blocks.

    `ssl.SSLSocket` would not do: OpenSSL takes one call at a time on a connection, and what it holds back from
    `select` would be missed. Here a lock guards it, and `recv` takes all that has come.
    """

    def __init__(self, plain: socket.socket) -> None:
        for option in (*probes(), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
            plain.setsockopt(*option)
        self._plain = plain
        self._lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls_context().wrap_bio(self._incoming, self._outgoing)
        self._unsent = memoryview(b"")
        self._taken = 0

    # --- blocking, with a deadline on the monotonic clock, until it is open

    @property
    def certificate(self) -> bytes | None:
        return self._tls.getpeercert(binary_form=True)

    def shake_hands(self, deadline: float) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return self._flush(deadline)
            except ssl.SSLWantReadError:
                self._flush(deadline)
                self._feed(deadline)

    def send_all(self, data: bytes, deadline: float) -> None:
        self._tls.write(data)
        self._flush(deadline)

    def receive(self, deadline: float) -> bytes:
        """Something. Raises OSError when the other side hung up."""
        while True:
            self._feed(deadline)
            try:
                return self._read_all() or _hung_up()
            except BlockingIOError:
                continue

    def _flush(self, deadline: float) -> None:
        self._plain.settimeout(_left(deadline))
        self._plain.sendall(self._outgoing.read())

    def _feed(self, deadline: float) -> None:
        self._plain.settimeout(_left(deadline))
        self._incoming.write(self._plain.recv(_READ_SIZE) or _hung_up())

    # --- never blocking, once it is open

    def fileno(self) -> int:
        return self._plain.fileno()

    def recv(self, size: int) -> bytes:  # noqa: ARG002 — what was taken off the wire must not stay unseen
        """All that has come; nothing when the other side hung up. Raises BlockingIOError where that is no message."""
        data = self._plain.recv(_READ_SIZE)
        with self._lock:
            if not data:
                return b""
            self._incoming.write(data)
            return self._read_all()

    def send(self, data: memoryview) -> int:
        """How much of `data` is on its way. After BlockingIOError it must be called again with the same data."""
        with self._lock:
            if not self._unsent:
                self._taken = self._tls.write(data[:_WRITE_SIZE])
                self._unsent = memoryview(self._outgoing.read())
            while self._unsent:
                self._unsent = self._unsent[self._plain.send(self._unsent) :]
            return self._taken

    def shutdown(self, how: int) -> None:
        self._plain.shutdown(how)

    def close(self) -> None:
        self._plain.close()

    def _read_all(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(_READ_SIZE):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                raise BlockingIOError from None
        return b"".join(pieces)


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _hung_up() -> bytes:
    raise ConnectionResetError("it hung up before it had answered")
