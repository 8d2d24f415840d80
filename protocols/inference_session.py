"""The inference protocol's session, without any input or output: bytes in, events out, both sides of one connection.

    events = session.receive(bytes_from_the_peer)
    request_id = session.request(request, payload)
    bytes_for_the_peer = session.data_to_send()

What may follow what is one table, `LEGAL`; both sides look at the same one. Every request ends in exactly one
terminal event for its asker, unless the asker itself cancelled it, and nothing of it is left behind.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Final

from .bodies import IncomingBody, OutgoingBody
from .errors import ErrorCode, LocalProtocolError, ProtocolError
from .framing import Decoder, Frame
from .inference import (
    MAX_BODY,
    Accepted,
    Body,
    Call,
    Cancel,
    Chunk,
    Credit,
    Failed,
    Message,
    Ping,
    Pong,
    Progress,
    Refused,
    Request,
    Result,
    parse,
)
from .session_events import (
    AcceptedReceived,
    Answer,
    CallReceived,
    Cancelled,
    ChunkReceived,
    Event,
    FailedReceived,
    PayloadReceived,
    PongReceived,
    ProgressReceived,
    RefusedReceived,
    RequestReceived,
    ResultReceived,
)
from .session_table import LEGAL, LONGEST_TEXT, Limits, OpenRequest, State, first_state, fitting, placed

__all__ = [
    "LEGAL", "AcceptedReceived", "Answer", "CallReceived", "Cancelled", "ChunkReceived", "Event", "FailedReceived",
    "Limits", "PayloadReceived", "PongReceived", "ProgressReceived", "RefusedReceived", "RequestReceived",
    "ResultReceived", "Session", "State",
]  # fmt: skip

_LAST_ID: Final = 0xFFFF_FFFD
#: Frames that wait to be sent, beyond which a peer that makes more of them is taken not to read at all.
_MOST_FRAMES: Final = 65_536


class Session:
    """One side of one connection. Not safe for threads: its driver takes care of that."""

    def __init__(self, *, dialler: bool, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._decoder = Decoder()
        self._parity = 1 if dialler else 0
        self._next_id = 1 if dialler else 2
        self._last_theirs = 0
        self._open: dict[int, OpenRequest] = {}
        self._frames: deque[bytes] = deque()
        self._frames_size = 0
        self._bodies: dict[int, OutgoingBody] = {}
        self._buffered = 0

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent, bodies included."""
        return self._frames_size + sum(len(body.rest) for body in self._bodies.values())

    # --- asking

    def request(self, request: Request, payload: bytes) -> int:
        """Opens a job and gives its request id; `payload` is the packed inputs."""
        inline, announced = placed(payload)
        return self._begin(replace(request, payload_length=announced, inline=inline), payload)

    def call(self, method: str, payload: bytes) -> int:
        inline, announced = placed(payload)
        return self._begin(Call(method, announced, inline), payload)

    def cancel(self, request_id: int, reason: str = "") -> None:
        """Ends a request of ours; nothing of it is delivered from now on."""
        if request_id in self._open:
            self._end(request_id)
            self._send(request_id, Cancel(reason))

    # --- answering; a request that its asker has cancelled takes any answer and drops it

    def accept(self, request_id: int, queue_length: int, expected_wait_ms: int) -> None:
        if self._answer(request_id, Accepted(queue_length, expected_wait_ms)):
            self._grant(request_id)

    def refuse(self, request_id: int, code: str, message: str, hint: str = "") -> None:
        self._answer(request_id, Refused(*fitting(code, message, hint)))

    def progress(self, request_id: int, state: str, done: int, total: int, note: str = "") -> None:
        self._answer(request_id, Progress(state[:LONGEST_TEXT], done, total, note[:LONGEST_TEXT]))

    def chunk(self, request_id: int, offset: int, token_ids: list[int], text: str) -> None:
        self._answer(request_id, Chunk(offset, token_ids, text))

    def result(self, request_id: int, report: dict[str, Any], payload: bytes) -> None:
        inline, announced = placed(payload, report)
        if self._answer(request_id, Result(report, announced, inline)):
            if announced:
                self._bodies[request_id] = OutgoingBody(memoryview(payload))
            else:
                self._end(request_id)

    def fail(self, request_id: int, code: str, message: str, hint: str = "") -> None:
        self._answer(request_id, Failed(*fitting(code, message, hint)))

    def ping(self, token: int) -> None:
        self._send(0, Ping(token))

    # --- the wire

    def data_to_send(self, limit: int = 65_507) -> bytes:
        """What may go now, about `limit` bytes at most: waiting frames first, then bodies in turn."""
        parts: list[bytes] = []
        size = 0
        while self._frames and size < limit:
            parts.append(self._frames.popleft())
            size += len(parts[-1])
        self._frames_size -= size
        while size < limit and (part := self._next_body_frame(limit - size)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def receive(self, data: bytes) -> list[Event]:
        """Raises ProtocolError when the peer broke the protocol: the connection must be dropped then."""
        events: list[Event] = []
        for frame in self._decoder.feed(data):
            try:
                message = parse(frame)
            except ProtocolError as error:
                if error.code != ErrorCode.UNKNOWN_MESSAGE:
                    raise
                self._answer_unknown(frame)
                continue
            self._receive_message(frame.request_id, message, events)
        return events

    def connection_lost(self) -> list[Event]:
        """The last events: ours have failed, theirs are cancelled. Nothing is open after."""
        events: list[Event] = [
            FailedReceived(request_id, ErrorCode.PEER_LOST, "the connection was lost", "")
            if each.ours
            else Cancelled(request_id, "the connection was lost")
            for request_id, each in self._open.items()
        ]
        for request_id in list(self._open):
            self._end(request_id)
        self._frames.clear()
        self._frames_size = 0
        return events

    # --- inside: sending

    def _begin(self, opening: Request | Call, payload: bytes) -> int:
        request_id = self._next_id
        if request_id > _LAST_ID:
            raise LocalProtocolError("this connection's request ids are used up")
        self._send(request_id, opening)
        self._next_id += 2
        self._open[request_id] = OpenRequest(True, first_state(opening), opening)
        if opening.payload_length:
            self._bodies[request_id] = OutgoingBody(memoryview(payload))
        return request_id

    def _send(self, request_id: int, message: Message) -> None:
        frame = message.to_frame(request_id)
        self._frames.append(frame)
        self._frames_size += len(frame)

    def _answer(self, request_id: int, message: Message) -> bool:
        """Sends an answer of ours when it is legal; False when its asker has left."""
        each = self._open.get(request_id)
        if each is None or each.ours:
            if each is not None or not 0 < request_id <= self._last_theirs:
                raise LocalProtocolError(f"{request_id} is no request of the other side")
            return False
        following = LEGAL[each.state].get(message.TYPE)
        if following is None:
            raise LocalProtocolError(f"{message.TYPE.name} is out of order in {each.state.name}")
        each.state = following
        self._send(request_id, message)
        if following is State.DONE:
            self._end(request_id)
        return True

    def _next_body_frame(self, room: int) -> bytes:
        """A body frame of whoever waits longest and may send; empty when nobody may."""
        for request_id, body in self._bodies.items():
            size = min(MAX_BODY, body.credit, len(body.rest), max(room, 1024))
            if size:
                del self._bodies[request_id]
                frame = Body(bytes(body.rest[:size])).to_frame(request_id)
                body.rest, body.credit = body.rest[size:], body.credit - size
                if body.rest:
                    self._bodies[request_id] = body
                elif not self._open[request_id].ours:
                    self._end(request_id)
                return frame
        return b""

    def _grant(self, request_id: int) -> None:
        each = self._open.get(request_id)
        if each and each.incoming and (more := each.incoming.next_grant()):
            self._send(request_id, Credit(more))

    def _end(self, request_id: int) -> None:
        each = self._open.pop(request_id)
        self._bodies.pop(request_id, None)
        self._release(each)

    def _release(self, each: OpenRequest) -> None:
        if each.incoming is not None:
            self._buffered -= each.incoming.expected
            each.incoming = None

    # --- inside: receiving

    def _receive_message(self, request_id: int, message: Message, events: list[Event]) -> None:
        match message:
            case Ping(token):
                self._check_is_read()
                self._send(0, Pong(token))
            case Pong(token):
                events.append(PongReceived(token))
            case Request() | Call():
                self._receive_opening(request_id, message, events)
            case _ if each := self._known(request_id):
                self._receive_on(request_id, each, message, events)

    def _known(self, request_id: int) -> OpenRequest | None:
        """The open request of that id; None when it ended, which a peer may not know yet."""
        ours = request_id % 2 == self._parity
        if request_id == 0 or request_id > (self._next_id - 2 if ours else self._last_theirs):
            raise ProtocolError(f"request {request_id} was never opened")
        return self._open.get(request_id)

    def _receive_opening(self, request_id: int, opening: Request | Call, events: list[Event]) -> None:
        self._note_theirs(request_id)
        self._check_is_read()
        refusal = self._refusal_of(opening)
        each = self._open[request_id] = OpenRequest(False, first_state(opening), opening)
        if refusal is not None:
            self.fail(request_id, *refusal)
            return
        if opening.payload_length:
            self._expect(each, opening.payload_length)
        if isinstance(opening, Request):
            payload = None if opening.payload_length else opening.inline
            events.append(RequestReceived(request_id, opening, payload))
        elif opening.payload_length:
            self._grant(request_id)
        else:
            events.append(CallReceived(request_id, opening.method, opening.inline))

    def _note_theirs(self, request_id: int) -> None:
        if request_id % 2 == self._parity or request_id <= self._last_theirs:
            raise ProtocolError(f"{request_id} is no new request id of the other side")
        self._last_theirs = request_id

    def _check_is_read(self) -> None:
        if len(self._frames) >= _MOST_FRAMES:
            raise ProtocolError(f"{_MOST_FRAMES} messages wait, and the other side does not read them")

    def _refusal_of(self, opening: Request | Call) -> tuple[str, str] | None:
        limits, length = self._limits, opening.payload_length
        if isinstance(opening, Call) and length > limits.max_call:
            return ErrorCode.TOO_LARGE, f"a call of {length} bytes is over the limit of {limits.max_call}"
        if len(self._open) >= limits.max_open:
            return ErrorCode.BUSY, f"{limits.max_open} requests are open on this connection"
        if self._unread > limits.max_unread:
            return ErrorCode.BUSY, "too many bytes wait to be read on this connection"
        return self._too_much(length)

    @property
    def _unread(self) -> int:
        """Bytes of frames and results that wait for the other side to read them."""
        return self._frames_size + sum(len(each.rest) for n, each in self._bodies.items() if not self._open[n].ours)

    def _too_much(self, length: int) -> tuple[str, str] | None:
        if length > self._limits.max_payload:
            return ErrorCode.TOO_LARGE, f"{length} bytes are over the limit of {self._limits.max_payload}"
        if self._buffered + length > self._limits.max_buffered:
            return ErrorCode.BUSY, "too many bytes are on their way on this connection"
        return None

    def _expect(self, each: OpenRequest, length: int) -> None:
        each.incoming = IncomingBody(length)
        self._buffered += length

    def _receive_on(self, request_id: int, each: OpenRequest, message: Message, events: list[Event]) -> None:
        match message:
            case Credit(more):
                if body := self._bodies.get(request_id):
                    body.credit += more
            case Cancel(reason) if not each.ours:
                self._end(request_id)
                events.append(Cancelled(request_id, reason))
            case Body(data) if not each.ours:
                self._receive_input(request_id, each, data, events)
            case _ if each.ours:
                self._receive_answer(request_id, each, message, events)
            case _:
                raise ProtocolError(f"{message.TYPE.name} is not for an asker to send")

    def _receive_input(self, request_id: int, each: OpenRequest, data: bytes, events: list[Event]) -> None:
        if each.incoming is None:
            raise ProtocolError("a body that was not announced")
        each.incoming.add(data)
        if each.incoming.complete:
            payload = bytes(each.incoming.data)
            self._release(each)
            events.append(
                CallReceived(request_id, each.opening.method, payload)
                if isinstance(each.opening, Call)
                else PayloadReceived(request_id, payload)
            )
        elif each.state is State.ANSWERING:
            self._grant(request_id)

    def _receive_answer(self, request_id: int, each: OpenRequest, message: Message, events: list[Event]) -> None:
        following = LEGAL[each.state].get(message.TYPE)
        if following is None:
            raise ProtocolError(f"{message.TYPE.name} is out of order in {each.state.name}")
        each.state = following
        match message:
            case Accepted(queue_length, wait_ms):
                events.append(AcceptedReceived(request_id, queue_length, wait_ms))
            case Progress(state, done, total, note):
                events.append(ProgressReceived(request_id, state, done, total, note))
            case Chunk(offset, token_ids, text):
                events.append(ChunkReceived(request_id, offset, token_ids, text))
            case Refused(code, text, hint):
                self._finish(RefusedReceived(request_id, code, text, hint), events)
            case Failed(code, text, hint):
                self._finish(FailedReceived(request_id, code, text, hint), events)
            case Result():
                self._receive_result(request_id, each, message, events)
            case Body(data):
                self._receive_result_body(request_id, each, data, events)

    def _receive_result(self, request_id: int, each: OpenRequest, result: Result, events: list[Event]) -> None:
        if not result.payload_length:
            self._finish(ResultReceived(request_id, result.report, result.inline), events)
        elif refusal := self._too_much(result.payload_length):
            self.cancel(request_id, "the result is too large")
            events.append(FailedReceived(request_id, *refusal, ""))
        else:
            each.report = result.report
            self._expect(each, result.payload_length)
            self._grant(request_id)

    def _receive_result_body(self, request_id: int, each: OpenRequest, data: bytes, events: list[Event]) -> None:
        if each.incoming is None or each.report is None:
            raise ProtocolError("a body that was not announced")
        each.incoming.add(data)
        if each.incoming.complete:
            payload = bytes(each.incoming.data)
            self._finish(ResultReceived(request_id, each.report, payload), events)
        else:
            self._grant(request_id)

    def _finish(self, event: Answer, events: list[Event]) -> None:
        self._end(event.request_id)
        events.append(event)

    def _answer_unknown(self, frame: Frame) -> None:
        """A newer peer may say what this version does not know: a new request fails, the rest is ignored."""
        if frame.request_id % 2 != self._parity and frame.request_id > self._last_theirs:
            self._last_theirs = frame.request_id
            self._check_is_read()
            text = f"message type {frame.type} is not known here"
            self._send(frame.request_id, Failed(ErrorCode.UNKNOWN_MESSAGE, text, ""))
