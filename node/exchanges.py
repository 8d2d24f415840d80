"""The two ends of one request: an exchange where it was asked, an incoming where it is answered."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Protocol

import trio

from ..protocols.errors import AccelError, ErrorCode
from ..protocols.inference import Request
from ..protocols.inference_session import (
    AcceptedReceived,
    ChunkReceived,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
    Session,
)

_MAX_WAITING_EVENTS = 20_000
#: What those events may hold, in bytes of text and tokens.
_MAX_WAITING_BYTES = 8 << 20
#: Output waiting in the session beyond which `Incoming.chunk` waits for the peer to read.
_MAX_QUEUED_BYTES = 1 << 20

Answer = AcceptedReceived | RefusedReceived | ProgressReceived | ChunkReceived | ResultReceived | FailedReceived
TERMINAL = (RefusedReceived, FailedReceived, ResultReceived)


class Conversation(Protocol):
    """What the ends of a request need of the channel that carries them."""

    session: Session

    def wake_writer(self) -> None: ...

    async def written(self) -> None: ...

    def forget(self, request_id: int, reason: str) -> None: ...


class Exchange:
    """A request of ours: an asynchronous iterator of its answers, the last of which is terminal.

    Leaving its `async with` before the terminal answer cancels the request at the other side.
    """

    def __init__(self, channel: Conversation, request_id: int) -> None:
        self.request_id = request_id
        self._channel = channel
        self._events: deque[Answer] = deque()
        self._arrived = trio.Event()
        self._waiting_bytes = 0
        self._ended = False

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel("the caller left")

    def __aiter__(self) -> Exchange:
        return self

    async def __anext__(self) -> Answer:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            await self._arrived.wait()
        event = self._events.popleft()
        self._waiting_bytes -= _size(event)
        if not self._events and not self._ended:
            self._arrived = trio.Event()
        return event

    def cancel(self, reason: str = "") -> None:
        if not self._ended:
            self._ended = True
            self._channel.forget(self.request_id, reason)

    def deliver(self, event: Answer) -> None:
        self._events.append(event)
        self._waiting_bytes += _size(event)
        if isinstance(event, TERMINAL):
            self._ended = True
        elif len(self._events) > _MAX_WAITING_EVENTS or self._waiting_bytes > _MAX_WAITING_BYTES:
            self.cancel("its answers are not read")
            self._events.append(
                FailedReceived(self.request_id, ErrorCode.TOO_LARGE, "too many answers wait to be read", "")
            )
        self._arrived.set()


def _size(event: Answer) -> int:
    match event:
        case ChunkReceived(_, _, token_ids, text):
            return 8 * len(token_ids) + len(text)
        case ProgressReceived(_, state, _, _, note):
            return len(state) + len(note)
        case _:
            return 0


class Incoming:
    """A request of the other side. The task that handles it is cancelled when its peer cancels or leaves."""

    def __init__(self, channel: Conversation, request_id: int, request: Request, payload: bytes | None) -> None:
        self.request = request
        self.accepted = False
        self.ended = False
        #: How many have been sent back so far.
        self.tokens = 0
        self._channel = channel
        self._session = channel.session
        self._request_id = request_id
        self._payload = payload
        self._payload_arrived = trio.Event()

    async def payload(self) -> bytes:
        """The packed inputs, whole. A payload that did not come inline arrives only after `accept`."""
        while self._payload is None:
            await self._payload_arrived.wait()
        return self._payload

    def accept(self, queue_length: int, expected_wait_s: float) -> None:
        if not self.accepted and not self.ended:
            self.accepted = True
            self._session.accept(self._request_id, queue_length, round(expected_wait_s * 1000))
            self._channel.wake_writer()

    def progress(self, state: str, done: int, total: int, note: str = "") -> None:
        if self.accepted and not self.ended:
            self._session.progress(self._request_id, state, done, total, note)
            self._channel.wake_writer()

    async def chunk(self, offset: int, token_ids: list[int], text: str) -> None:
        """Sends tokens; waits while the peer reads too slowly, so nothing piles up without a bound."""
        self._session.chunk(self._request_id, offset, token_ids, text)
        self.tokens = offset + len(token_ids)
        self._channel.wake_writer()
        while self._session.queued_bytes > _MAX_QUEUED_BYTES:
            await self._channel.written()

    def result(self, report: dict[str, Any], payload: bytes) -> None:
        if not self.ended:
            self.accept(0, 0.0)
            self.ended = True
            self._session.result(self._request_id, report, payload)
            self._channel.wake_writer()

    def fail(self, error: AccelError) -> None:
        """Ends the request with an error: a refusal while it is not yet accepted, a failure after."""
        if self.ended:
            return
        self.ended = True
        answer = self._session.fail if self.accepted else self._session.refuse
        answer(self._request_id, error.code, error.message, error.hint)
        self._channel.wake_writer()

    def payload_came(self, payload: bytes) -> None:
        self._payload = payload
        self._payload_arrived.set()


class IncomingCall:
    """A control operation that the other side asks for."""

    def __init__(self, channel: Conversation, request_id: int, method: str, arguments: Any) -> None:
        self.method = method
        self.arguments = arguments
        self._channel = channel
        self._request_id = request_id

    def progress(self, state: str, done: int, total: int, note: str = "") -> None:
        self._channel.session.progress(self._request_id, state, done, total, note)
        self._channel.wake_writer()
