"""The messages of the inference protocol, `/ipfs-accel-node/inference/1.0.0`.

One conversation carries many requests at once, each under a request id; the dialler's ids are odd. A request:

    asker                                       answerer
      REQUEST (inputs inline, or announced) ──►
      BODY …  (within credit)               ──►
                                            ◄── ACCEPTED (queue, expected wait) | REFUSED
                                            ◄── CREDIT …      for the rest of the inputs
                                            ◄── PROGRESS …    CHUNK …
                                            ◄── RESULT (inline, or announced) | FAILED
      CREDIT …                              ──►
                                            ◄── BODY …  (within credit)
      CANCEL                                ──►   at any time; nothing of that request follows

A CALL is a control operation: it needs no ACCEPTED, and ends in RESULT or FAILED. PING and PONG have id 0.
Unknown trailing fields are ignored, so a message may grow; an unknown type is answered by FAILED.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, Final, get_type_hints

from .errors import ErrorCode, ProtocolError
from .framing import Frame, encode

PROTOCOL_ID: Final = "/ipfs-accel-node/inference/1.0.0"
MAX_INLINE: Final = 48 * 1024
MAX_BODY: Final = 32 * 1024
_MAX_NUMBER: Final = 1 << 53
#: Token ids travel as int32 where an output is taken up again.
_MAX_TOKEN: Final = 1 << 31


class MessageType(IntEnum):
    """Wire numbers. A number is never used twice."""

    REQUEST = 1
    CALL = 2
    BODY = 3
    CREDIT = 4
    CANCEL = 5
    ACCEPTED = 6
    REFUSED = 7
    PROGRESS = 8
    CHUNK = 9
    RESULT = 10
    FAILED = 11
    PING = 12
    PONG = 13


class Message:
    """What all messages share: their fields in order are the fields of their frame."""

    TYPE: ClassVar[MessageType]
    __slots__ = ()

    def to_frame(self, request_id: int) -> bytes:
        return encode(self.TYPE, request_id, *(getattr(self, name) for name in _NAMES[type(self)]))


@dataclass(frozen=True, slots=True)
class Request(Message):
    """A job. `job_id` has 16 bytes; `remaining_ms` is the time left, never a clock; `work` is {"bytes": n}.

    `inline` holds the packed inputs (`values.pack`) when `payload_length` is 0 or they fit `MAX_INLINE`.
    """

    TYPE: ClassVar = MessageType.REQUEST
    job_id: bytes
    attempt: int
    model: str
    task: str
    params: dict[str, Any]
    options: dict[str, Any]
    remaining_ms: int
    work: dict[str, Any]
    payload_length: int = 0
    inline: bytes = b""

    def __post_init__(self) -> None:
        if len(self.job_id) != 16:
            raise ProtocolError("a job id has 16 bytes")


@dataclass(frozen=True, slots=True)
class Call(Message):
    TYPE: ClassVar = MessageType.CALL
    method: str
    payload_length: int
    inline: bytes


@dataclass(frozen=True, slots=True)
class Body(Message):
    TYPE: ClassVar = MessageType.BODY
    data: bytes


@dataclass(frozen=True, slots=True)
class Credit(Message):
    TYPE: ClassVar = MessageType.CREDIT
    bytes: int


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    TYPE: ClassVar = MessageType.CANCEL
    reason: str


@dataclass(frozen=True, slots=True)
class Accepted(Message):
    TYPE: ClassVar = MessageType.ACCEPTED
    queue_length: int
    expected_wait_ms: int


@dataclass(frozen=True, slots=True)
class Refused(Message):
    TYPE: ClassVar = MessageType.REFUSED
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Progress(Message):
    TYPE: ClassVar = MessageType.PROGRESS
    state: str
    done: int
    total: int
    note: str


@dataclass(frozen=True, slots=True)
class Chunk(Message):
    TYPE: ClassVar = MessageType.CHUNK
    offset: int
    token_ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class Result(Message):
    TYPE: ClassVar = MessageType.RESULT
    report: dict[str, Any]
    payload_length: int
    inline: bytes


@dataclass(frozen=True, slots=True)
class Failed(Message):
    TYPE: ClassVar = MessageType.FAILED
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Ping(Message):
    TYPE: ClassVar = MessageType.PING
    token: int


@dataclass(frozen=True, slots=True)
class Pong(Message):
    TYPE: ClassVar = MessageType.PONG
    token: int


_CLASSES: tuple[type[Message], ...] = (
    Request, Call, Body, Credit, Cancel, Accepted, Refused, Progress, Chunk, Result, Failed, Ping, Pong,
)  # fmt: skip
_BY_TYPE: Final = {int(each.TYPE): each for each in _CLASSES}
_NAMES: Final = {each: tuple(field.name for field in fields(each)) for each in _CLASSES}  # type: ignore[arg-type]


def _plain(annotation: Any) -> type:
    origin = getattr(annotation, "__origin__", annotation)
    return origin if isinstance(origin, type) else object


_TYPES: Final = {each: tuple(_plain(get_type_hints(each)[name]) for name in names) for each, names in _NAMES.items()}


def parse(frame: Frame) -> Message:
    """The message in a frame.

    Raises:
        ProtocolError: unknown-message for an unknown type, protocol-error for fields that are missing, of
            another type, negative or absurdly large.
    """
    kind = _BY_TYPE.get(frame.type)
    if kind is None:
        raise ProtocolError(f"unknown message type {frame.type}", ErrorCode.UNKNOWN_MESSAGE)
    expected = _TYPES[kind]
    given = frame.fields[: len(expected)]
    if len(given) < len(expected):
        raise ProtocolError(f"{kind.TYPE.name} lacks fields")
    for value, wanted in zip(given, expected, strict=True):
        if type(value) is not wanted or (type(value) is int and not 0 <= value <= _MAX_NUMBER):
            raise ProtocolError(f"{kind.TYPE.name} has a field of another type or range")
    if kind is Chunk and not all(type(token) is int and 0 <= token < _MAX_TOKEN for token in given[1]):
        raise ProtocolError("CHUNK has token ids that are none")
    return kind(*given)
