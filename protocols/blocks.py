"""The block protocol, `/ipfs-accel-node/blocks/1.0.0`: content by CID over a stream of its own.

      asker                          answerer
        WANT [cid, …]        ──►                      at most 64 in one message; more may follow at once
                             ◄──  BLOCK (cid, length), then `length` raw bytes
                             ◄──  MISSING (cid)       in the order asked
                             ◄──  REFUSED (code, message), the end

Raw bytes follow their frame without any framing, so a block is copied once, from the stream into its place.
Whether a block is what its CID says is for the asker to check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import ProtocolError
from .framing import MAX_FRAME, Decoder, Frame, encode

PROTOCOL_ID: Final = "/ipfs-accel-node/blocks/1.0.0"
MAX_WANT: Final = 64
MAX_CID: Final = 128
MAX_BLOCK: Final = (2 << 20) + 4096
_WANT, _BLOCK, _MISSING, _REFUSED = 32, 33, 34, 35


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """`data` of an asker with `reuse` is good until the next bytes come."""

    cid: bytes
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class BlockMissing:
    cid: bytes


@dataclass(frozen=True, slots=True)
class BlocksRefused:
    code: str
    message: str


BlockEvent = BlockReceived | BlockMissing | BlocksRefused


def block_header(cid: bytes, length: int) -> bytes:
    """What goes before the `length` raw bytes of a block."""
    return encode(_BLOCK, 0, cid, length)


def block_missing(cid: bytes) -> bytes:
    return encode(_MISSING, 0, cid)


def blocks_refused(code: str, message: str) -> bytes:
    return encode(_REFUSED, 0, str(code), message)


class BlockAnswerer:
    """The answering side: tells what is wanted. Raises ProtocolError for anything else."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    def receive(self, data: bytes) -> list[bytes]:
        """The CIDs wanted by `data`, in order."""
        wanted: list[bytes] = []
        for frame in self._decoder.feed(data):
            if frame.type != _WANT or not frame.fields or type(frame.fields[0]) is not list:
                raise ProtocolError("this side only takes WANT")
            cids = frame.fields[0]
            if len(cids) > MAX_WANT or not all(type(cid) is bytes and len(cid) <= MAX_CID for cid in cids):
                raise ProtocolError(f"WANT takes at most {MAX_WANT} binary CIDs")
            wanted += cids
        return wanted


class BlockAsker:
    """The asking side. Answers must come in the order asked; one block is buffered at most."""

    def __init__(self, *, reuse: bool = False) -> None:
        """`reuse` puts each block where the one before it was, which spares a copy and the making of room."""
        self._waiting: deque[bytes] = deque()
        self._head = bytearray()
        self._cid = b""
        self._room = memoryview(bytearray(MAX_BLOCK)) if reuse else None
        self._block: memoryview | None = None
        self._filled = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def in_block(self) -> bool:
        """Whether part of a block, or of its frame, has come and the rest has not."""
        return self._block is not None or bool(self._head)

    @property
    def space(self) -> memoryview | None:
        """Where the next raw bytes belong while a block is on its way: read into it, and say so with `filled`."""
        return None if self._block is None else self._block[self._filled :]

    def filled(self, count: int) -> list[BlockEvent]:
        """So many bytes were read into `space`."""
        events: list[BlockEvent] = []
        self._filled += count
        self._end_block(events, reuse=self._room is not None)
        return events

    def want(self, cids: Sequence[bytes]) -> bytes:
        self._waiting.extend(cids)
        return b"".join(encode(_WANT, 0, list(cids[at : at + MAX_WANT])) for at in range(0, len(cids), MAX_WANT))

    def receive(self, data: bytes) -> list[BlockEvent]:
        """Raises ProtocolError for answers that nobody asked for, in another order, or too large."""
        events: list[BlockEvent] = []
        view = memoryview(data)
        while len(view):
            view = self._fill(view, events) if self._block is not None else self._take_frame(view, events)
        return events

    def _fill(self, view: memoryview, events: list[BlockEvent]) -> memoryview:
        """Copies raw bytes into the block that is on its way."""
        block = self._block
        if block is None:
            return view
        part = view[: len(block) - self._filled]
        block[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        self._end_block(events, reuse=False)  # others may follow in the same bytes
        return view[len(part) :]

    def _end_block(self, events: list[BlockEvent], *, reuse: bool) -> None:
        if self._block is not None and self._filled == len(self._block):
            events.append(BlockReceived(self._cid, self._block if reuse else bytes(self._block)))
            self._block = None

    def _take_frame(self, view: memoryview, events: list[BlockEvent]) -> memoryview:
        """Takes one frame off the front, or keeps what there is of it."""
        missing = 4 - len(self._head)
        if missing > 0:
            self._head += view[:missing]
            return view[missing:]
        length = int.from_bytes(self._head[:4], "big")
        if length > MAX_FRAME:
            raise ProtocolError(f"a frame announces {length} bytes")
        missing = 4 + length - len(self._head)
        self._head += view[:missing]
        if len(self._head) == 4 + length:
            (frame,) = Decoder().feed(bytes(self._head))
            self._head.clear()
            self._receive_frame(frame, events)
        return view[missing:]

    def _receive_frame(self, frame: Frame, events: list[BlockEvent]) -> None:
        match frame.type, frame.fields:
            case (33, (bytes() as cid, int() as length, *_)):
                self._expect(cid)
                if not 0 <= length <= MAX_BLOCK:
                    raise ProtocolError(f"a block announces {length} bytes")
                room = memoryview(bytearray(length)) if self._room is None else self._room
                self._cid, self._block, self._filled = cid, room[:length], 0
                self._fill(memoryview(b""), events)
            case (34, (bytes() as cid, *_)):
                self._expect(cid)
                events.append(BlockMissing(cid))
            case (35, (str() as code, str() as message, *_)):
                events.append(BlocksRefused(code, message))
            case _:
                raise ProtocolError("this side only takes BLOCK, MISSING and REFUSED")

    def _expect(self, cid: bytes) -> None:
        if not self._waiting or self._waiting.popleft() != cid:
            raise ProtocolError("an answer that was not asked for, or out of order")
