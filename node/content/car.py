"""CAR files: the blocks of a DAG one after the other, each behind its CID.

    varint | dag-cbor {"roots": [CIDs], "version": 1}     then, again and again:     varint | CID | block

Version 1 is read and written. Of version 2 the version 1 inside is read; its index is not needed.
Nothing in one is believed: sizes are bounded before anything is read, and whoever takes a block checks it.
Source: the CARv1 and CARv2 specifications of IPLD.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.varint import varint
from .cid import V0
from .unixfs import MAX_BLOCK

_MAX_HEADER: Final = 16 << 10
#: Enough for every CID of a hash of up to 512 bits.
_MAX_CID: Final = 96
_CID_TAG: Final = 42
#: After version 2's first header: characteristics, data offset, data size, index offset.
_V2_HEADER: Final = struct.Struct("<16xQQ8x")
_SKIPPED_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Section:
    """A block in a CAR: its CID, whatever codec and hash that has, and where in the file its bytes are."""

    cid: bytes
    offset: int
    length: int


def encode_header(roots: Sequence[bytes]) -> bytes:
    import cbor2

    tagged = [cbor2.CBORTag(_CID_TAG, b"\0" + root) for root in roots]
    header = cbor2.dumps({"roots": tagged, "version": 1}, canonical=True)
    return varint(len(header)) + header


def encode_section(cid: bytes, block: bytes) -> bytes:
    return b"".join((varint(len(cid) + len(block)), cid, block))


class CarReader:
    """Reads a CAR from front to back, out of a file or a pipe. Blocking.

    `roots` are the binary CIDs that its header names.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Raises AccelError bad-input for what is no CAR."""
        self._stream = stream
        self._at = 0
        self._seekable = stream.seekable()
        self._end = os.fstat(stream.fileno()).st_size if self._seekable else None
        self.roots = self._open()

    def sections(self) -> Iterator[Section]:
        """Every block in turn; `read` gives its bytes until the next is asked for.

        Raises:
            AccelError: corrupt-content where the file ends early, or has something else than blocks.
        """
        while (length := self._read_length()) is not None:
            end = self._at + length
            self._head = self._take(min(length, _MAX_CID))
            cid = self._head[: _cid_length(self._head)]
            self._head = self._head[len(cid) :]
            if length - len(cid) > MAX_BLOCK:
                _damaged(f"a block has {length - len(cid)} bytes, over {MAX_BLOCK}")
            yield Section(cid, end - length + len(cid), length - len(cid))
            self._skip_to(end)

    def read(self, section: Section) -> bytes:
        """The bytes of the section that came last; once."""
        return self._head + self._take(section.length - len(self._head))

    def _open(self) -> list[bytes]:
        version, roots = self._read_header()
        if version == 1:
            return roots
        if version != 2:
            _refuse(f"it is of version {version!r}, and 1 and 2 are read")
        offset, size = _V2_HEADER.unpack(self._take(_V2_HEADER.size))
        self._skip_to(offset)
        self._end = offset + size if self._end is None else min(self._end, offset + size)
        version, roots = self._read_header()
        if version != 1:
            _damaged("there is no version 1 in it")
        return roots

    def _read_header(self) -> tuple[Any, list[bytes]]:
        length = self._read_length()
        if not length or length > _MAX_HEADER or (self._end is not None and self._at + length > self._end):
            _refuse("it does not begin like one")
        return _decode_header(self._take(length))

    def _read_length(self) -> int | None:
        """A varint; None where the file ends before it."""
        if self._at == self._end:
            return None
        number = 0
        for shift in range(0, 63, 7):
            read = self._stream.read(1)
            if not read and not shift and self._end is None:
                return None
            if not read:
                break
            self._at += 1
            number |= (read[0] & 0x7F) << shift
            if read[0] < 0x80:
                return number
        _damaged("a length is cut off or too long")

    def _take(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) < length or (self._end is not None and self._at + length > self._end):
            _damaged("it ends in the middle of a block")
        self._at += length
        return data

    def _skip_to(self, place: int) -> None:
        if place < self._at or (self._end is not None and place > self._end):
            _damaged("it ends in the middle of a block, or its parts overlap")
        if self._seekable:
            self._at = self._stream.seek(place)
        while self._at < place:
            self._take(min(_SKIPPED_AT_ONCE, place - self._at))


def _cid_length(head: bytes) -> int:
    """How many of these bytes are the CID that they begin with."""
    if head.startswith(V0):
        return len(V0) + 32
    at, number = 0, 0
    for _ in ("version", "codec", "hash", "digest's length"):
        number, at = _varint_at(head, at)
    if head[:1] != b"\x01" or at + number > len(head):
        _damaged("a section does not begin with a CID")
    return at + number


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place, byte in enumerate(data[at : at + 9]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    _damaged("a section does not begin with a CID")


def _decode_header(encoded: bytes) -> tuple[Any, list[bytes]]:
    import cbor2

    try:
        header = cbor2.loads(encoded)
        return header["version"], [_untagged(root) for root in header.get("roots", [])]
    except (cbor2.CBORDecodeError, RecursionError, LookupError, TypeError, ValueError, AttributeError):
        _refuse("it does not begin like one")


def _untagged(root: Any) -> bytes:
    if root.tag != _CID_TAG or not isinstance(root.value, bytes) or root.value[:1] != b"\0":
        _refuse("a root is no CID")
    return root.value[1:]


def _refuse(why: str) -> NoReturn:
    raise AccelError(
        ErrorCode.BAD_INPUT, f"this is no CAR file: {why}", "Give one that `model export` or `ipfs dag export` wrote."
    )


def _damaged(why: str) -> NoReturn:
    raise AccelError(ErrorCode.CORRUPT_CONTENT, f"the CAR file is damaged: {why}", "Copy it here again.")
