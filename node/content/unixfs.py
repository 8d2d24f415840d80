"""dag-pb and UnixFS: the blocks that make files and folders out of leaves.

Encoding is byte for byte what Kubo and the JavaScript importer write (IPLD dag-pb specification; UnixFS
specification). Decoding takes nothing on trust: whatever is malformed, absurd or hostile is refused with a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from . import cid as cids

DIRECTORY: Final = 1
FILE: Final = 2
RAW_DATA: Final = 0
_SYMLINK: Final = 4
_HAMT: Final = 5
#: The largest block that other implementations pass on (Bitswap specification).
MAX_BLOCK: Final = 2 << 20
MAX_LINKS: Final = 20_000
MAX_SIZE: Final = 1 << 46
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Link:
    """`size` is the link's Tsize: the bytes of everything below it, blocks included."""

    cid: bytes
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded dag-pb block. `kind` DIRECTORY or FILE; `block_sizes` are the file bytes below each link."""

    kind: int
    links: tuple[Link, ...]
    data: bytes
    file_size: int
    block_sizes: tuple[int, ...]


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_directory(links: Sequence[Link]) -> bytes:
    return _encode(sorted(links, key=lambda link: link.name.encode()), _field(1, DIRECTORY))


def encode_file(links: Sequence[Link], block_sizes: Sequence[int]) -> bytes:
    """An inner node of a file, whose bytes are all in the blocks below."""
    sizes = b"".join(_field(4, size) for size in block_sizes)
    return _encode(links, _field(1, FILE) + _field(3, sum(block_sizes)) + sizes)


def _encode(links: Sequence[Link], data: bytes) -> bytes:
    return b"".join(_bytes_field(2, _encode_link(link)) for link in links) + _bytes_field(1, data)


def _encode_link(link: Link) -> bytes:
    return _bytes_field(1, link.cid) + _bytes_field(2, link.name.encode()) + _field(3, link.size)


def _field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def decode(block: bytes) -> Node:
    """Raises AccelError hostile-content for a block that is no sound UnixFS file or folder."""
    if len(block) > MAX_BLOCK:
        _refuse("a node is over 2 MiB")
    links: list[Link] = []
    data: bytes | None = None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            if len(links) >= MAX_LINKS:
                _refuse(f"a node has over {MAX_LINKS} links")
            links.append(_decode_link(value))
        elif number == 1 and isinstance(value, bytes) and data is None:
            data = value
        else:
            _refuse("a dag-pb node has a field that is unknown or there twice")
    if data is None:
        _refuse("a dag-pb node has no UnixFS data")
    return _check(_decode_data(data, tuple(links)))


def _decode_link(encoded: bytes) -> Link:
    cid: bytes | None = None
    name: str | None = None
    size: int | None = None
    for number, value in _fields(encoded):
        if number == 1 and isinstance(value, bytes) and cid is None:
            cid = value
        elif number == 2 and isinstance(value, bytes) and name is None:
            name = _decode_name(value)
        elif number == 3 and isinstance(value, int) and size is None:
            size = value
        else:
            _refuse("a link has a field that is unknown or there twice")
    try:
        cids.parts(cid or b"")
    except AccelError:
        _refuse("a link's CID cannot be read, or is not sha2-256")
    return Link(cid or b"", name or "", size or 0)


def _decode_name(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        _refuse("a link's name is no text")


def _decode_data(encoded: bytes, links: tuple[Link, ...]) -> Node:
    kind: int | None = None
    data: bytes | None = None
    file_size: int | None = None
    block_sizes: list[int] = []
    for number, value in _fields(encoded):
        if number == 1 and isinstance(value, int) and kind is None:
            kind = value
        elif number == 2 and isinstance(value, bytes) and data is None:
            data = value
        elif number == 3 and isinstance(value, int) and file_size is None:
            file_size = value
        elif number == 4 and isinstance(value, int):
            block_sizes.append(value)
        elif number not in (5, 6, 7, 8):  # a sharded folder's two; mode and time of change mean nothing here
            _refuse("UnixFS data has a field that is unknown or there twice")
    return Node(
        _known_kind(kind), links, data or b"", len(data or b"") if file_size is None else file_size, tuple(block_sizes)
    )


def _known_kind(kind: int | None) -> int:
    if kind in (_SYMLINK, _HAMT):
        _refuse("symbolic links and sharded folders are not read yet")
    if kind not in (RAW_DATA, FILE, DIRECTORY):
        _refuse(f"UnixFS type {kind} is unknown")
    return DIRECTORY if kind == DIRECTORY else FILE


def _check(node: Node) -> Node:
    if node.kind == DIRECTORY:
        return _check_directory(node)
    if len(node.block_sizes) != len(node.links):
        _refuse("a file's links and their sizes disagree")
    if len(node.data) + sum(node.block_sizes) != node.file_size or node.file_size > MAX_SIZE:
        _refuse("a file's size is not the sum of its parts, or absurd")
    return node


def _check_directory(node: Node) -> Node:
    names = [link.name for link in node.links]
    if len(set(names)) != len(names):
        _refuse("a folder has two entries of one name")
    for name in names:
        check_name(name)
    if node.data or node.block_sizes:
        _refuse("a folder has bytes of its own")
    return node


def check_name(name: str) -> None:
    """Raises AccelError hostile-content for a name that would not stay inside its folder, or would garble a screen."""
    if name in ("", ".", "..") or any(sign in "/\\" or sign < " " or "\x7f" <= sign < "\xa0" for sign in name):
        _refuse(f"{name[:60]!r} is no file name")
    if len(name.encode()) > _MAX_NAME:
        _refuse(f"the name {name[:60]!r}… is too long")


def _fields(encoded: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The protobuf fields of a message: numbers for wire type 0, bytes for wire type 2."""
    at, end = 0, len(encoded)
    while at < end:
        if at + 1 < end and encoded[at] < 0x80 and encoded[at + 1] < 0x80:  # most are short; this halves the time
            key, value, at = encoded[at], encoded[at + 1], at + 2
        else:
            key, at = _read_varint(encoded, at)
            value, at = _read_varint(encoded, at)
        if key & 7 == 0:
            yield key >> 3, value
        elif key & 7 == 2:
            if value > end - at:
                _refuse("a field is cut off")
            yield key >> 3, encoded[at : at + value]
            at += value
        else:
            _refuse("a field has an unknown wire type")


def _read_varint(encoded: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 63, 7):
        if at >= len(encoded):
            break
        byte = encoded[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    _refuse("a number is cut off or too long")


def _refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "The content is not a sound UnixFS folder.")
