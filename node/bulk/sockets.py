"""What both ends of a bulk connection do with their sockets: blocking, each wait with a deadline."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from ..tcp import probes

OPENING_DEADLINE_S: Final = 5.0
#: How long the other side may stay silent while something of it is awaited, or take to read a block.
SILENCE_S: Final = 10.0


def prepare(plain: socket.socket) -> None:
    for option in (*probes(), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
        plain.setsockopt(*option)


@contextmanager
def coded() -> Iterator[None]:
    """Gives what the network does a code."""
    try:
        yield
    except TimeoutError:
        raise AccelError(ErrorCode.PEER_SILENT, "nothing came, or nothing was read, in time") from None
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise AccelError(ErrorCode.PEER_LOST, f"the connection broke: {reason}") from None


def receive_before(stream: ssl.SSLSocket, size: int, deadline: float) -> bytes:
    """At most `size` bytes. Raises TimeoutError after `deadline` (monotonic), ConnectionError at the end."""
    stream.settimeout(max(deadline - time.monotonic(), 1e-3))
    if not (data := stream.recv(size)):
        raise ConnectionResetError("it hung up")
    return data


def interrupt(stream: socket.socket) -> None:
    """Ends a connection under whoever waits for it in another thread, whose part it is to close it."""
    with suppress(OSError):
        socket.socket.shutdown(stream, socket.SHUT_RDWR)


def end(stream: socket.socket) -> None:
    interrupt(stream)
    with suppress(OSError):
        stream.close()
