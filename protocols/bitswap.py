"""Bitswap 1.2, `/ipfs/bitswap/1.2.0`, the protocol in which IPFS nodes exchange blocks.

    each side, on a stream that it opened itself and only writes to:

      want these blocks, tell me whether you have those, never mind these   ──►
      blocks, "have" and "don't have" for what the other side wanted        ──►

A stream is a row of messages, each after its length as a varint; a message is protobuf (Bitswap specification,
`message.proto` of ipfs/boxo). One message may have any of it, and nothing answers anything in particular: a block
belongs to whoever wanted its digest. Both sides want and serve over the same pair of streams.

`Decoder` gives what has come part by part, so that whoever sends a message cannot make its reader hold more than one
block, and nothing at all where no block is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .errors import ProtocolError
from .varint import varint

PROTOCOL_ID: Final = "/ipfs/bitswap/1.2.0"
#: What Kubo takes and sends at most, in bytes.
MAX_MESSAGE: Final = 4 << 20
MAX_BLOCK: Final = (2 << 20) + 4096
MAX_CID: Final = 128 + 8
#: An entry of a wantlist is a CID and four small numbers; the same goes for a presence.
_MAX_ENTRY: Final = MAX_CID + 64
_MAX_VARINT: Final = 10
_LENGTH_DELIMITED: Final = 2
#: How many bytes follow the tag of each other wire type; a varint's are looked at.
_FIXED: Final = {1: 8, 5: 4}
#: Fields of a message.
_WANTLIST, _BLOCK, _PAYLOAD, _PRESENCE = 1, 2, 3, 4
_HAVE, _DONT_HAVE = 0, 1
#: Empty messages, unknown fields and the like, one after the other without anything that counts.
_MOST_IDLE: Final = 1024


@dataclass(frozen=True, slots=True)
class Want:
    """An entry of a wantlist. With `have` the other side says only whether it has the block; `cancel` takes it back.

    `send_dont_have` asks to be told when it has not.
    """

    cid: bytes
    have: bool = False
    cancel: bool = False
    send_dont_have: bool = False
    priority: int = 1


@dataclass(frozen=True, slots=True)
class WantlistEnded:
    """The wants since the last one of these were one list; all that there is, if it is `full`."""

    full: bool


@dataclass(frozen=True, slots=True)
class BlockCame:
    """A block; what it is the reader finds out by hashing it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether the other side has a block."""

    cid: bytes
    has: bool


Event = Want | WantlistEnded | BlockCame | Presence


# --- writing


def encode_wants(wants: Iterable[Want], *, full: bool = False) -> bytes:
    """A message that wants blocks, with its length before it."""
    entries = b"".join(_delimited(1, _encode_want(want)) for want in wants)
    wantlist = _delimited(_WANTLIST, entries + (_number(2, 1) if full else b""))
    return varint(len(wantlist)) + wantlist


def encode_answer(blocks: Iterable[tuple[bytes, bytes]], presences: Iterable[Presence]) -> bytes:
    """A message of (CID, block) pairs and presences, with its length before it.

    It has an empty wantlist, without which Kubo before 0.37 ends itself (paritytech/litep2p issue 457).
    """
    pieces = [_delimited(_WANTLIST, b"")]
    for cid, block in blocks:
        head = _delimited(1, prefix_of(cid)) + _tag(2) + varint(len(block))
        pieces += [_tag(_PAYLOAD), varint(len(head) + len(block)), head, block]
    pieces += [_delimited(_PRESENCE, _encode_presence(presence)) for presence in presences]
    return b"".join([varint(sum(map(len, pieces))), *pieces])


def prefix_of(cid: bytes) -> bytes:
    """A CID without its digest: version, codec, hash and digest length, which stand before each block."""
    return b"\x00\x70\x12\x20" if cid[:2] == b"\x12\x20" else cid[:-32]


def _encode_want(want: Want) -> bytes:
    told = _delimited(1, want.cid) + _number(2, want.priority)
    flags = ((3, want.cancel), (4, want.have), (5, want.send_dont_have))
    return told + b"".join(_number(field, 1) for field, said in flags if said)


def _encode_presence(presence: Presence) -> bytes:
    return _delimited(1, presence.cid) + _number(2, _HAVE if presence.has else _DONT_HAVE)


def _tag(field: int) -> bytes:
    return varint(field << 3 | _LENGTH_DELIMITED)


def _delimited(field: int, value: bytes) -> bytes:
    return _tag(field) + varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


# --- reading


class _MoreError(Exception):
    """The rest has not come yet."""


class Decoder:
    """What the other side says, in the order in which it came.

    `takes_blocks` may be changed at any time: what has no reader is skipped without being kept.
    """

    def __init__(self, *, takes_blocks: bool = True) -> None:
        self.takes_blocks = takes_blocks
        self._waiting = bytearray()
        self._at = 0
        self._skip = 0
        #: How many bytes are left of the message, and of the wantlist in it, that have begun.
        self._message: int | None = None
        self._wantlist: int | None = None
        self._full = False
        self._idle = 0

    @property
    def held(self) -> int:
        """The bytes that wait for the rest of something: at most a block, and what came with it."""
        return len(self._waiting)

    def receive(self, data: bytes) -> Iterator[Event]:
        """Raises ProtocolError for what is no Bitswap, or too large; nothing more can be read then."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._waiting += data
        self._at = 0
        try:
            while not self._skip:
                mark = self._at
                try:
                    for event in self._next():
                        self._idle = 0
                        yield event
                except _MoreError:
                    self._at = mark
                    return
        finally:
            del self._waiting[: self._at]

    def _next(self) -> Iterator[Event]:
        """Takes one step off the front. Raises _MoreError, having changed nothing, when it is not whole."""
        self._idle += 1
        if self._idle > _MOST_IDLE:
            raise ProtocolError("it goes on and means nothing")
        if self._message is None:
            self._begin_message()
        elif self._wantlist == 0:
            self._wantlist = None
            yield WantlistEnded(self._full)
        elif self._wantlist is not None:
            yield from self._field_of_wantlist()
        elif self._message == 0:
            self._message = None
        else:
            yield from self._field_of_message()

    def _begin_message(self) -> None:
        length = self._varint()
        if length > MAX_MESSAGE:
            raise ProtocolError(f"a message of {length} bytes is announced")
        self._message = length

    def _field_of_message(self) -> Iterator[Event]:
        began = self._at
        field, wire = self._take_tag()
        if wire != _LENGTH_DELIMITED:
            self._pass_over(wire)
            self._count(self._at - began)
            return
        length = self._varint()
        head = self._at - began
        if head + length > (self._message or 0):
            raise ProtocolError("a field is longer than its message")
        if field == _WANTLIST:
            self._count(head + length)
            self._wantlist, self._full = length, False
        elif field in (_BLOCK, _PAYLOAD) and self.takes_blocks:
            block = self._whole_block(field, length)
            self._count(head + length)
            yield block
        elif field == _PRESENCE:
            presence = _decode_presence(self._bytes(_small(length)))
            self._count(head + length)
            yield presence
        else:
            self._count(head + length)
            self._pass_bytes(length)

    def _whole_block(self, field: int, length: int) -> BlockCame:
        if length > MAX_BLOCK + _MAX_ENTRY:
            raise ProtocolError(f"a block of {length} bytes is announced")
        data = self._bytes(length)
        block = data if field == _BLOCK else _decode_payload(data)
        if len(block) > MAX_BLOCK:
            raise ProtocolError(f"a block has {len(block)} bytes")
        return BlockCame(block)

    def _field_of_wantlist(self) -> Iterator[Event]:
        began = self._at
        field, wire = self._take_tag()
        if wire == 0:
            value = self._varint()
            if field == 2:
                self._full = bool(value)
        elif wire != _LENGTH_DELIMITED:
            self._pass_over(wire)
        else:
            entry = self._bytes(_small(self._varint()))
            if field == 1:
                self._count_wanted(self._at - began)
                yield _decode_want(entry)
                return
        self._count_wanted(self._at - began)

    # --- counting

    def _count(self, size: int) -> None:
        self._message = (self._message or 0) - size
        if self._message < 0:
            raise ProtocolError("a field is longer than its message")

    def _count_wanted(self, size: int) -> None:
        self._wantlist = (self._wantlist or 0) - size
        if self._wantlist < 0:
            raise ProtocolError("an entry is longer than its wantlist")

    # --- taking

    def _take_tag(self) -> tuple[int, int]:
        tag = self._varint()
        return tag >> 3, tag & 7

    def _pass_over(self, wire: int) -> None:
        """A number that means nothing here."""
        if wire == 0:
            self._varint()
        elif wire in _FIXED:
            self._bytes(_FIXED[wire])
        else:
            raise ProtocolError(f"a field has the wire type {wire}")

    def _pass_bytes(self, size: int) -> None:
        here = min(size, len(self._waiting) - self._at)
        self._at += here
        self._skip = size - here

    def _varint(self) -> int:
        number, at = _read_varint(self._waiting, self._at)
        self._at = at
        return number

    def _bytes(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._waiting):
            raise _MoreError
        with memoryview(self._waiting) as view:
            data = bytes(view[self._at : end])
        self._at = end
        return data


def _small(length: int) -> int:
    if length > _MAX_ENTRY:
        raise ProtocolError(f"an entry of {length} bytes is announced")
    return length


def _read_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data):
            raise _MoreError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift >= 7 * _MAX_VARINT:
            raise ProtocolError("a number has no end")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message that is whole: numbers, and bytes."""
    at = 0
    try:
        while at < len(data):
            tag, at = _read_varint(data, at)
            wire = tag & 7
            if wire == 0:
                value, at = _read_varint(data, at)
                yield tag >> 3, value
                continue
            length, at = (_FIXED[wire], at) if wire in _FIXED else _read_varint(data, at)
            if wire not in (_LENGTH_DELIMITED, *_FIXED) or at + length > len(data):
                raise ProtocolError("a field is malformed, or longer than what it stands in")
            yield tag >> 3, data[at : at + length]
            at += length
    except _MoreError:
        raise ProtocolError("a field is cut off") from None


def _decode_want(data: bytes) -> Want:
    cid, numbers = b"", {2: 1}
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            cid = value
        elif isinstance(value, int):
            numbers[field] = value
    cancel, have, send_dont_have = (bool(numbers.get(field)) for field in (3, 4, 5))
    return Want(_checked(cid), have, cancel, send_dont_have, numbers[2] & 0x7FFFFFFF)


def _decode_presence(data: bytes) -> Presence:
    cid, kind = b"", _HAVE
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            cid = value
        elif field == 2 and isinstance(value, int):
            kind = value
    return Presence(_checked(cid), kind == _HAVE)


def _decode_payload(data: bytes) -> bytes:
    block = b""
    for field, value in _fields(data):
        if field == 2 and isinstance(value, bytes):
            block = value
    return block


def _checked(cid: bytes) -> bytes:
    if not 0 < len(cid) <= MAX_CID:
        raise ProtocolError(f"a CID has {len(cid)} bytes")
    return cid
