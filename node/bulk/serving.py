"""The answering end: a listener, a thread a connection, blocks straight out of the store's files.

    accept ─► TLS and OPEN within five seconds ─► a ticket that is good ─► WANT … ─► read, check, send

Who was not let in yet costs one of a few places, and the one that came first makes room. Who was, has at most so many
connections, is asked to read, and is dropped when it asks for nothing for a while.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...protocols.blocks import BlockAnswerer, block_header, block_missing, blocks_refused
from ...protocols.bulk import MAX_OPENING, OpeningReader, refusal, welcome
from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from ..content.index import BlockIndex
from ..content.layout import Layout
from .keys import BulkKeys
from .sockets import OPENING_DEADLINE_S, SILENCE_S, coded, end, interrupt, prepare, receive_before
from .tickets import Grant, Tickets

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
MAX_OF_ONE: Final = 4
MAX_OPENINGS: Final = 32
IDLE_S: Final = 60.0
_BACKLOG: Final = 64
_READ_SIZE: Final = 1 << 16
_MODELS_OPEN: Final = 4


class BulkServer:
    """Serves the models of one store to whoever has a ticket. Its methods may be called from any thread."""

    def __init__(self, store: Path, keys: BulkKeys) -> None:
        self._models = _Models(Layout(store))
        self._keys = keys
        self._tickets = Tickets()
        self._serving: Counter[str] = Counter()
        self._openings: OrderedDict[ssl.SSLSocket, None] = OrderedDict()
        self._lock = threading.Lock()

    def listen(self, host: str, port: int) -> int:
        """Listens at that port where it is free, else at another one, and gives it. Raises OSError."""
        listener = _bound(host, port)
        threading.Thread(target=self._accept_all, args=(listener,), daemon=True).start()
        return int(listener.getsockname()[1])

    def issue(self, grant: Grant) -> bytes:
        """A ticket. Raises AccelError content-not-found when the model is not here whole."""
        self._models.index(grant.model)
        with self._lock:
            return self._tickets.issue(grant, time.monotonic())

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError as error:
                log.warning("a bulk connection cannot be taken: %s", error)
                time.sleep(0.1)
                continue
            try:
                prepare(plain)
                stream = self._keys.server_context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            except (OSError, ValueError):  # it is gone already
                plain.close()
                continue
            self._make_place(stream)
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _make_place(self, stream: ssl.SSLSocket) -> None:
        with self._lock:
            while len(self._openings) >= MAX_OPENINGS:
                interrupt(self._openings.popitem(last=False)[0])
            self._openings[stream] = None

    def _serve(self, stream: ssl.SSLSocket) -> None:
        """Whatever a connection does, it ends alone."""
        try:
            with coded():
                stream.settimeout(OPENING_DEADLINE_S)
                stream.do_handshake()
                self._open_and_answer(stream)
        except AccelError as error:
            log.info("a bulk connection ended: %s", error)
        except Exception:
            log.exception("a bulk connection failed")
        finally:
            with self._lock:
                self._openings.pop(stream, None)
            end(stream)

    def _open_and_answer(self, stream: ssl.SSLSocket) -> None:
        try:
            grant = self._let_in(stream)
        except AccelError as error:
            with suppress(OSError):
                stream.sendall(refusal(error.code, error.message))
            raise
        try:
            with self._lock:
                self._openings.pop(stream, None)
            stream.settimeout(SILENCE_S)
            stream.sendall(welcome())
            self._answer(stream, self._models.index(grant.model))
        finally:
            with self._lock:
                self._serving[grant.peer_id] -= 1
                self._serving += Counter()  # forgets those that have none

    def _let_in(self, stream: ssl.SSLSocket) -> Grant:
        """The grant of a connection that may stay, which has a place now. Raises AccelError."""
        deadline = time.monotonic() + OPENING_DEADLINE_S
        reader = OpeningReader()
        while reader.opened is None:
            reader.receive(receive_before(stream, MAX_OPENING, deadline))
        ticket, signature = reader.opened
        with self._lock:
            grant = self._tickets.take(ticket, time.monotonic())
        if grant is None:
            raise AccelError(ErrorCode.PERMISSION_DENIED, "this ticket is unknown, was used, or is too old")
        if not self._keys.is_signed(ticket, signature, grant.key):
            raise AccelError(ErrorCode.PERMISSION_DENIED, "this ticket was given to somebody else")
        with self._lock:
            if self._serving[grant.peer_id] >= MAX_OF_ONE or self._serving.total() >= MAX_CONNECTIONS:
                raise AccelError(ErrorCode.BUSY, "too many bulk connections are open")
            self._serving[grant.peer_id] += 1
        return grant

    def _answer(self, stream: ssl.SSLSocket, index: BlockIndex) -> None:
        answerer = BlockAnswerer()
        try:
            while True:
                stream.settimeout(IDLE_S)
                if not (data := stream.recv(_READ_SIZE)):
                    return
                stream.settimeout(SILENCE_S)
                for cid in answerer.receive(data):
                    _send_block(stream, cid, index.read(cid))
        except ProtocolError as error:
            stream.sendall(blocks_refused(error.code, error.message))


def _send_block(stream: ssl.SSLSocket, cid: bytes, block: bytes | None) -> None:
    if block is None:
        stream.sendall(block_missing(cid))
    else:
        stream.sendall(block_header(cid, len(block)))
        stream.sendall(block)


class _Models:
    """The block indexes of the models asked for last; a model that was removed reads as missing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._indexes: OrderedDict[bytes, BlockIndex] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, model: bytes) -> BlockIndex:
        """Raises AccelError content-not-found."""
        with self._lock:
            if (index := self._indexes.get(model)) is None:
                index = self._indexes[model] = self._load(model)
            self._indexes.move_to_end(model)
            while len(self._indexes) > _MODELS_OPEN:
                self._indexes.popitem(last=False)
            return index

    def _load(self, model: bytes) -> BlockIndex:
        contents = self._layout.read_contents(model)
        if contents is None:
            raise AccelError(ErrorCode.CONTENT_NOT_FOUND, "this model is not here")
        index = BlockIndex()
        index.add(self._layout.model(model), contents)
        return index


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (port, 0):
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, number))
            listener.listen(_BACKLOG)
            return listener
        except OSError:
            listener.close()
            if not number:
                raise
    raise AssertionError("the last try returns or raises")
