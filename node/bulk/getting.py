"""The asking end: a connection to a peer, one batch of orders at a time, each block checked and written as it comes."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ...protocols.blocks import BlockAsker, BlockEvent, BlockMissing, BlockReceived, BlocksRefused
from ...protocols.bulk import MAX_OPENING, Ticket, WelcomeReader, opening
from ...protocols.errors import AccelError, ErrorCode
from ..content.orders import Order, Outcome
from .keys import BulkKeys, client_context, fingerprint_of
from .sockets import OPENING_DEADLINE_S, SILENCE_S, coded, end, interrupt, prepare, receive_before

log = logging.getLogger(__name__)

Tell = Callable[[Outcome, int], None]

T = TypeVar("T", bytes, int)

#: Little, as what is read with a frame is copied.
_FRAME_READ: Final = 4096
_MOST_OPEN: Final = 128


class BulkConnection:
    """To one peer. `close` may come from another thread, in the middle of anything."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._asker = BlockAsker(reuse=True)
        self._busy = threading.Lock()

    @classmethod
    def open(cls, ticket: Ticket, keys: BulkKeys) -> BulkConnection:
        """Tries the ticket's addresses until one answers with its certificate.

        Raises:
            AccelError: wrong-certificate, peer-lost, peer-silent, and what the peer refused.
        """
        deadline = time.monotonic() + OPENING_DEADLINE_S
        failure = AccelError(ErrorCode.PEER_LOST, "it gave no address")
        for host, port in ticket.addresses:
            try:
                with coded():
                    return cls(_connected(host, port, ticket, keys, deadline))
            except AccelError as error:
                failure = AccelError(error.code, f"{host}:{port}: {error.message}")
            if time.monotonic() >= deadline:
                break
        raise failure

    def close(self) -> None:
        interrupt(self._stream)
        with self._busy:
            end(self._stream)

    def get(self, orders: Sequence[Order], tell: Tell) -> None:
        """Tells (outcome, bytes of the block) of each order, in that order.

        Raises:
            AccelError: peer-lost (also when it refuses), peer-silent, protocol-error; hostile-content, disk-full and
                the like, which are not the peer's.
        """
        with self._busy:
            waiting = deque(orders)
            with coded():
                self._stream.settimeout(SILENCE_S)
                self._stream.sendall(self._asker.want([order.cid for order in orders]))
            while waiting:
                with coded():
                    events = self._receive()
                for event in events:
                    match event:
                        case BlockReceived(_, block):
                            tell(waiting.popleft().keep(block), len(block))
                        case BlockMissing():
                            waiting.popleft()
                            tell(Outcome.MISSING, 0)
                        case BlocksRefused(code, message):
                            # Under a code of this side's: what a peer says must not pass for a fault of our own.
                            raise AccelError(ErrorCode.PEER_LOST, f"it refused: {message} [{code}]")

    def _receive(self) -> list[BlockEvent]:
        """Reads the rest of the block that is on its way, straight into its place; or a frame."""
        space = self._asker.space
        if space is None:
            return self._asker.receive(self._some(self._stream.recv(_FRAME_READ)))
        read, size = self._stream.recv_into, len(space)
        filled = 0
        while filled < size:
            filled += self._some(read(space[filled:]))
        return self._asker.filled(size)

    @staticmethod
    def _some(received: T) -> T:
        if not received:
            raise ConnectionResetError("it hung up")
        return received


def _connected(host: str, port: int, ticket: Ticket, keys: BulkKeys, deadline: float) -> ssl.SSLSocket:
    """A connection that was let in; nothing is sent to another certificate than the ticket's."""
    plain = socket.create_connection((host, port), max((deadline - time.monotonic()) / 2, 0.1))
    stream: socket.socket = plain
    try:
        prepare(plain)
        plain.settimeout(max(deadline - time.monotonic(), 0.1))
        stream = tls = client_context().wrap_socket(plain)
        if fingerprint_of(tls.getpeercert(binary_form=True) or b"") != ticket.fingerprint:
            raise AccelError(ErrorCode.WRONG_CERTIFICATE, "somebody else answers there")
        tls.sendall(opening(ticket.secret, keys.sign(ticket.secret, ticket.fingerprint)))
        reader = WelcomeReader()
        while not reader.welcomed:
            reader.receive(receive_before(tls, MAX_OPENING, deadline))
        return tls
    except BaseException:
        end(stream)
        raise


class Connections:
    """Those that the node opened, by the number it gave them."""

    def __init__(self, keys: BulkKeys) -> None:
        self._keys = keys
        self._open: dict[int, BulkConnection] = {}
        self._lock = threading.Lock()

    def open(self, number: int, ticket: Ticket) -> None:
        connection = BulkConnection.open(ticket, self._keys)
        with self._lock:
            self._open[number] = connection
            oldest = self._open.pop(next(iter(self._open))) if len(self._open) > _MOST_OPEN else None
        if oldest is not None:
            oldest.close()

    def get(self, number: int, orders: Sequence[Order], tell: Tell) -> None:
        with self._lock:
            connection = self._open.get(number)
        if connection is None:
            raise AccelError(ErrorCode.PEER_LOST, "this connection is closed")
        connection.get(orders, tell)

    def close(self, number: int) -> None:
        with self._lock:
            connection = self._open.pop(number, None)
        if connection is not None:
            connection.close()
