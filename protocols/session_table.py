"""What may follow what in the inference protocol, as one table, and what a session keeps of each open request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from .bodies import IncomingBody
from .framing import MAX_FRAME
from .inference import MAX_INLINE, Call, MessageType, Request
from .values import pack

#: Bytes of a payload that leave room in its frame for any report.
_ALWAYS_INLINE: Final = 16 * 1024
#: Bytes of a RESULT beside its report and its payload.
_ENVELOPE: Final = 32
#: Characters of an error's code, and of any other text that a side makes up.
_LONGEST_CODE: Final = 64
LONGEST_TEXT: Final = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer can make this side hold, in bytes and requests, on one connection.

    `max_call` bounds the arguments of a call, `max_buffered` all bodies on their way in, and `max_unread` the answers
    that wait for a slow reader: beyond it, new requests are refused.
    """

    max_payload: int = 64 << 20
    max_open: int = 1024
    max_buffered: int = 256 << 20
    max_call: int = 256 << 10
    max_unread: int = 128 << 20


class State(Enum):
    WAITING = auto()  # asked, neither accepted nor refused
    ANSWERING = auto()  # accepted; a call is so from its beginning
    RESULT_BODY = auto()  # the result is announced, its body on its way
    DONE = auto()


#: What an answerer may say of a request, and where that leads. RESULT leads to DONE when it came inline.
LEGAL: Final[dict[State, dict[MessageType, State]]] = {
    State.WAITING: {
        MessageType.ACCEPTED: State.ANSWERING,
        MessageType.REFUSED: State.DONE,
        MessageType.FAILED: State.DONE,
    },
    State.ANSWERING: {
        MessageType.PROGRESS: State.ANSWERING,
        MessageType.CHUNK: State.ANSWERING,
        MessageType.RESULT: State.RESULT_BODY,
        MessageType.FAILED: State.DONE,
    },
    State.RESULT_BODY: {MessageType.BODY: State.RESULT_BODY, MessageType.FAILED: State.DONE},
    State.DONE: {},
}


@dataclass(slots=True)
class OpenRequest:
    """One request or call that has not ended."""

    ours: bool
    state: State
    opening: Request | Call
    incoming: IncomingBody | None = None
    report: dict[str, Any] | None = None


def placed(payload: bytes, beside: dict[str, Any] | None = None) -> tuple[bytes, int]:
    """A small payload travels inline, a large one is announced by its length; so is one whose report is large."""
    fits = len(payload) <= MAX_INLINE
    if fits and beside and len(payload) > _ALWAYS_INLINE:
        fits = len(pack(beside)) <= MAX_FRAME - MAX_INLINE - _ENVELOPE
    return (payload, 0) if fits else (b"", len(payload))


def first_state(opening: Request | Call) -> State:
    return State.WAITING if isinstance(opening, Request) else State.ANSWERING


def fitting(code: str, message: str, hint: str) -> tuple[str, str, str]:
    """An error that fits a frame, whatever a caller quotes in it."""
    return str(code)[:_LONGEST_CODE], message[:LONGEST_TEXT], hint[:LONGEST_TEXT]
