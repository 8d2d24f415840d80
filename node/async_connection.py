"""One connection of `AsyncClient`: a session, a task that reads and one that writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream

from ..protocols.client_door import MAX_OPENING, ClientOpening
from ..protocols.errors import AccelError, JobError, ProtocolError
from ..protocols.inference_session import (
    Answer,
    ChunkReceived,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
    Session,
)
from . import client_tls
from .client_requests import (
    GRACE_S,
    OnProgress,
    Places,
    client_closed,
    denied,
    error_of,
    is_trusted,
    no_answer,
    node_lost,
    not_running,
    tell,
)
from .tcp import probes

OnChunk = Callable[[ChunkReceived], None]

_READ_SIZE: Final = 1 << 18
_CONNECT_DEADLINE_S: Final = 5.0


async def connect(places: Places) -> ByteStream:
    """The first of the places where a node answers. Raises AccelError not-running, permission-denied; over TLS
    wrong-certificate and wrong-client-token too."""
    if isinstance(places, client_tls.RemoteNode):
        return await _connect_tls(places)
    for place in places:
        try:
            if not is_trusted(place):
                raise PermissionError
            with anyio.fail_after(_CONNECT_DEADLINE_S):
                return await anyio.connect_unix(str(place))
        except PermissionError:
            raise denied(place) from None
        except OSError:
            continue
    raise not_running(places[0])


async def _connect_tls(node: client_tls.RemoteNode) -> ByteStream:
    try:
        with anyio.fail_after(client_tls.OPENING_DEADLINE_S):
            plain = await anyio.connect_tcp(node.address.host, node.address.port)
    except (OSError, UnicodeError) as error:
        raise node.unreachable(client_tls.reason_of(error.__cause__ or error)) from None
    try:
        for option in probes():
            plain.extra_attributes[SocketAttribute.raw_socket]().setsockopt(*option)
        with anyio.fail_after(client_tls.OPENING_DEADLINE_S):
            return await _opened(plain, node)
    except (OSError, ProtocolError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        await anyio.aclose_forcefully(plain)
        raise node.no_door(client_tls.reason_of(error)) from None
    except BaseException:
        await anyio.aclose_forcefully(plain)
        raise


async def _opened(plain: SocketStream, node: client_tls.RemoteNode) -> ByteStream:
    context = client_tls.tls_context()
    tls = await TLSStream.wrap(plain, server_side=False, ssl_context=context, standard_compatible=False)
    node.token.check_certificate(tls.extra_attributes[TLSAttribute.peer_certificate_binary]())
    opening = ClientOpening(node.token.secret)
    await tls.send(opening.take_outgoing())
    while not opening.done:
        opening.receive(await tls.receive(MAX_OPENING))
    return tls


@dataclass(eq=False)
class _Waiting:
    on_progress: OnProgress | None
    on_chunk: OnChunk | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)
    answer: ResultReceived | AccelError | None = None


class AsyncConnection:
    """Carries the requests of any number of tasks. `run` is its life; it ends once, and then fails what is open."""

    def __init__(self, stream: ByteStream) -> None:
        self.closed = False
        self._stream = stream
        self._session = Session(dialler=True)
        self._waiting: dict[int, _Waiting] = {}
        self._to_write = anyio.Event()

    async def run(self) -> None:
        error: AccelError = client_closed()
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self._close_stream)
                tasks = await stack.enter_async_context(anyio.create_task_group())
                tasks.start_soon(self._write_all)
                error = await self._read_all()
                tasks.cancel_scope.cancel()
        finally:
            self._end(error)

    async def exchange(
        self,
        begin: Callable[[Session], int],
        on_progress: OnProgress | None,
        seconds: float,
        *,
        renewed: bool,
        on_chunk: OnChunk | None = None,
    ) -> ResultReceived:
        """The answer to the request that `begin` opens. Leaving early cancels it at the node.

        Args:
            on_chunk: is given each chunk of a streamed output, and must not wait.
            seconds: how long it may take; when `renewed`, how long it may be silent.
        """
        if self.closed:
            raise node_lost()
        request_id = begin(self._session)
        waiting = self._waiting[request_id] = _Waiting(on_progress, on_chunk)
        self._to_write.set()
        try:
            return await _answer_of(waiting, seconds, renewed=renewed)
        finally:
            del self._waiting[request_id]
            if waiting.answer is None and not self.closed:
                self._session.cancel(request_id)
                self._to_write.set()

    async def _read_all(self) -> AccelError:
        """Returns why it ended."""
        try:
            while True:
                for event in self._session.receive(await self._stream.receive(_READ_SIZE)):
                    if isinstance(event, Answer):
                        self._hand_out(event)
                self._to_write.set()
        except ProtocolError as error:
            return JobError(error.code, f"the node sent what this client does not understand: {error.message}")
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return node_lost()

    async def _write_all(self) -> None:
        """That the connection is lost is the reader's to tell."""
        try:
            while True:
                await self._to_write.wait()
                self._to_write = anyio.Event()
                while data := self._session.data_to_send():
                    await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    def _hand_out(self, event: Answer) -> None:
        waiting = self._waiting.get(event.request_id)
        if waiting is None:
            return
        match event:
            case ResultReceived():
                waiting.answer = event
            case FailedReceived() | RefusedReceived():
                waiting.answer = error_of(event)
            case ChunkReceived() if waiting.on_chunk is not None:
                waiting.on_chunk(event)
            case ProgressReceived(_, state, done, total, note) if waiting.on_progress is not None:
                if not tell(waiting.on_progress, state, done, total, note):
                    waiting.on_progress = None
        waiting.changed.set()

    def _end(self, error: AccelError) -> None:
        self.closed = True
        self._session.connection_lost()
        for waiting in self._waiting.values():
            waiting.answer = waiting.answer or error
            waiting.changed.set()

    async def _close_stream(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()


async def _answer_of(waiting: _Waiting, seconds: float, *, renewed: bool) -> ResultReceived:
    deadline = anyio.current_time() + seconds + GRACE_S
    while waiting.answer is None and anyio.current_time() < deadline:
        with anyio.move_on_after(deadline - anyio.current_time()):
            await waiting.changed.wait()
            waiting.changed = anyio.Event()
            if renewed:
                deadline = anyio.current_time() + seconds + GRACE_S
    if isinstance(waiting.answer, ResultReceived):
        return waiting.answer
    raise waiting.answer or no_answer(seconds)
