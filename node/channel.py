"""One framed conversation over any byte stream: drives a sans-IO session with trio.

The same channel runs over a libp2p stream (a link), a Unix socket (the local door) and a socket pair (a
worker). A reader task feeds the session and hands its events out; a writer task sends all that waits in one write.

    channel.request(…) ─► Session ─► writer ─► stream ─► reader ─► Session ─► handler.handle_request(incoming)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Protocol

import trio

from ..protocols import values
from ..protocols.errors import AccelError, ErrorCode, ProtocolError
from ..protocols.inference import Request
from ..protocols.inference_session import (
    CallReceived,
    Cancelled,
    Event,
    FailedReceived,
    Limits,
    PayloadReceived,
    PongReceived,
    ProgressReceived,
    RefusedReceived,
    RequestReceived,
    ResultReceived,
    Session,
)
from .exchanges import TERMINAL, Answer, Exchange, Incoming, IncomingCall

log = logging.getLogger(__name__)

_READ_SIZE = 1 << 20
_CLOSE_DEADLINE_S = 1.0

OnProgress = Callable[[str, int, int, str], None]


class ByteStream(Protocol):
    """What a channel runs over; `trio.SocketStream` is one as it stands."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...

    async def send_all(self, data: bytes) -> None: ...

    async def aclose(self) -> None: ...


class Handler(Protocol):
    """What answers the other side. An `AccelError` that it raises becomes the answer."""

    async def handle_request(self, incoming: Incoming) -> None: ...

    async def handle_call(self, call: IncomingCall) -> Any: ...


class Channel:
    """Drives one `Session` over one byte stream. `run` is its life; everything else works while it runs."""

    def __init__(
        self,
        stream: ByteStream,
        *,
        dialler: bool,
        handler: Handler | None = None,
        limits: Limits | None = None,
        trailing: bytes = b"",
    ) -> None:
        self._stream = stream
        self.session = Session(dialler=dialler, limits=limits or Limits())
        self._handler = handler
        self._trailing = trailing
        self._exchanges: dict[int, Exchange] = {}
        self._incoming: dict[int, Incoming] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._pings: dict[int, trio.Event] = {}
        self._next_ping = 0
        self._to_write = trio.Event()
        self._was_written = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self.closed = False
        self.last_heard = -inf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Returns when the conversation ends, whoever ended it. Every open request is told then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    task_status.started()
                    nursery.start_soon(self._write_all)
                    await self._read_all()
                    nursery.cancel_scope.cancel()
        finally:
            self._end()
            with trio.move_on_after(_CLOSE_DEADLINE_S, shield=True), suppress(Exception):
                await self._stream.aclose()

    def close(self) -> None:
        self._scope.cancel()

    def request(self, request: Request, payload: bytes) -> Exchange:
        """Raises AccelError peer-lost when the conversation is over."""
        self._check_open()
        return self._open_exchange(self.session.request(request, payload))

    async def call(self, method: str, arguments: Any, *, timeout: float, on_progress: OnProgress | None = None) -> Any:
        """The answer of a control operation.

        Raises:
            AccelError: what the other side answered, peer-lost, or deadline-exceeded after `timeout` seconds.
        """
        self._check_open()
        with trio.move_on_after(timeout):
            async with self._open_exchange(self.session.call(method, values.pack(arguments))) as exchange:
                async for event in exchange:
                    if isinstance(event, ResultReceived):
                        return values.unpack(event.payload)
                    if isinstance(event, (FailedReceived, RefusedReceived)):
                        raise AccelError(event.code, event.message, event.hint)
                    if on_progress is not None and isinstance(event, ProgressReceived):
                        on_progress(event.state, event.done, event.total, event.note)
        raise AccelError(ErrorCode.DEADLINE_EXCEEDED, f"{method} was not answered within {timeout:g} s")

    async def ping(self, *, timeout: float) -> float:
        """The round trip in seconds. Raises AccelError peer-silent after `timeout` seconds."""
        self._check_open()
        self._next_ping += 1
        token, answered, started = self._next_ping, trio.Event(), trio.current_time()
        self._pings[token] = answered
        self.session.ping(token)
        self.wake_writer()
        try:
            with trio.move_on_after(timeout):
                await answered.wait()
                if not self.closed:
                    return trio.current_time() - started
        finally:
            self._pings.pop(token, None)
        self._check_open()
        raise AccelError(ErrorCode.PEER_SILENT, f"no answer to a ping within {timeout:g} s")

    @property
    def open_requests(self) -> int:
        return self.session.open_requests

    def _check_open(self) -> None:
        if self.closed:
            raise AccelError(ErrorCode.PEER_LOST, "the connection is closed")

    def _open_exchange(self, request_id: int) -> Exchange:
        exchange = self._exchanges[request_id] = Exchange(self, request_id)
        self.wake_writer()
        return exchange

    def forget(self, request_id: int, reason: str) -> None:
        if self._exchanges.pop(request_id, None) is not None and not self.closed:
            self.session.cancel(request_id, reason)
            self.wake_writer()

    def wake_writer(self) -> None:
        self._to_write.set()

    async def written(self) -> None:
        if self._was_written.is_set():
            self._was_written = trio.Event()
        await self._was_written.wait()

    async def _write_all(self) -> None:
        with self._contained():
            while True:
                await self._to_write.wait()
                self._to_write = trio.Event()
                while data := self.session.data_to_send():
                    await self._stream.send_all(data)
                    self._was_written.set()

    async def _read_all(self) -> None:
        with self._contained():
            self._receive(self._trailing)
            while data := await self._stream.receive_some(_READ_SIZE):
                self._receive(bytes(data))

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """However a stream ends, it ends this conversation and nothing else."""
        try:
            yield
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.debug("connection lost: %r", error)
        except ProtocolError as error:
            log.warning("dropping a connection: %s", error)
        self._scope.cancel()

    def _receive(self, data: bytes) -> None:
        self.last_heard = trio.current_time()
        for event in self.session.receive(data):
            self._dispatch(event)
        self.wake_writer()

    def _dispatch(self, event: Event) -> None:
        match event:
            case RequestReceived(request_id, request, payload):
                self._begin_request(request_id, request, payload)
            case PayloadReceived(request_id, payload):
                if request_id in self._incoming:
                    self._incoming[request_id].payload_came(payload)
            case CallReceived(request_id, method, payload):
                self._start(request_id, self._answer_call, request_id, method, payload)
            case Cancelled(request_id):
                if request_id in self._scopes:
                    self._scopes[request_id].cancel()
            case PongReceived(token):
                if token in self._pings:
                    self._pings[token].set()
            case _:
                self._deliver(event)

    def _deliver(self, event: Answer) -> None:
        exchange = self._exchanges.get(event.request_id)
        if exchange is not None:
            if isinstance(event, TERMINAL):
                del self._exchanges[event.request_id]
            exchange.deliver(event)

    def _begin_request(self, request_id: int, request: Request, payload: bytes | None) -> None:
        incoming = self._incoming[request_id] = Incoming(self, request_id, request, payload)
        self._start(request_id, self._answer_request, incoming)

    def _start(self, request_id: int, answer: Callable[..., Any], *arguments: Any) -> None:
        assert self._nursery is not None  # noqa: S101
        scope = self._scopes[request_id] = trio.CancelScope()
        self._nursery.start_soon(self._answer, request_id, scope, answer, *arguments)

    async def _answer(
        self, request_id: int, scope: trio.CancelScope, answer: Callable[..., Any], *arguments: Any
    ) -> None:
        try:
            with scope:
                await trio.lowlevel.checkpoint_if_cancelled()  # many come and are cancelled in one read
                await answer(*arguments)
        finally:
            self._scopes.pop(request_id, None)
            self._incoming.pop(request_id, None)

    async def _answer_request(self, incoming: Incoming) -> None:
        try:
            if self._handler is None:
                raise AccelError(ErrorCode.UNKNOWN_METHOD, "this side takes no jobs")
            await self._handler.handle_request(incoming)
            if not incoming.ended:
                raise RuntimeError("the handler left without an answer")
        except Exception as error:
            incoming.fail(_as_answer(error, f"the job {incoming.request.job_id.hex()}"))

    async def _answer_call(self, request_id: int, method: str, payload: bytes) -> None:
        try:
            if self._handler is None:
                raise AccelError(ErrorCode.UNKNOWN_METHOD, "this side takes no calls")
            call = IncomingCall(self, request_id, method, values.unpack(payload))
            answer = values.pack(await self._handler.handle_call(call))
            self.session.result(request_id, {}, answer)
        except Exception as error:
            coded = _as_answer(error, f"the call {method}")
            self.session.fail(request_id, coded.code, coded.message, coded.hint)
        self.wake_writer()

    def _end(self) -> None:
        self.closed = True
        for event in self.session.connection_lost():
            self._dispatch(event)
        for answered in self._pings.values():
            answered.set()
        self._was_written.set()


def _as_answer(error: Exception, what: str) -> AccelError:
    """The coded error for the other side. What has no code is this program's mistake: it is logged whole."""
    if isinstance(error, AccelError):
        return error
    log.error("%s failed", what, exc_info=error)
    return AccelError(
        ErrorCode.INTERNAL, f"{what} failed: {type(error).__name__}: {error}", "The node's log says more."
    )
