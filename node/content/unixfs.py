"""dag-pb and UnixFS: the blocks that make files and folders out of leaves.

Encoding is byte for byte what Kubo and the JavaScript importer write (IPLD dag-pb specification; UnixFS
specification). Decoding takes nothing on trust: whatever is malformed, absurd or hostile is refused with a code.
Mode and time of change (UnixFS 1.5) are read over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.varint import varint
from . import cid as cids

DIRECTORY: Final = 1
FILE: Final = 2
RAW_DATA: Final = 0
SYMLINK: Final = 4
HAMT: Final = 5
#: The largest block that other implementations pass on (Bitswap specification).
MAX_BLOCK: Final = 2 << 20
MAX_LINKS: Final = 50_000
MAX_SIZE: Final = 1 << 46
#: In bytes: with the store's own folder before it a path stays under the 4096 that systems take.
MAX_PATH: Final = 2048
MAX_FANOUT: Final = 1024
#: The multicodec of murmur3-x64-64, the only hash that folders are sharded by.
MURMUR3: Final = 0x22
_MAX_NAME: Final = 255
#: In a shard an entry's place comes before its name.
_MAX_PLACE: Final = 3
_MAX_MTIME: Final = 64


class Link(NamedTuple):
    """`size` is the link's Tsize: the bytes of everything below it, blocks included."""

    cid: bytes
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded dag-pb block: DIRECTORY, FILE, SYMLINK or HAMT. `block_sizes` are the file bytes below each link.

    `data` is what a file's node has of the file itself, a link's target, or which places of a shard are taken;
    `fanout` is how many places a shard has.
    """

    kind: int
    links: tuple[Link, ...]
    data: bytes
    file_size: int
    block_sizes: tuple[int, ...]
    fanout: int = 0

    @property
    def is_leaf(self) -> bool:
        """Whether the node has all of its file's bytes."""
        return self.kind == FILE and not self.links


def encode_directory(links: Sequence[Link]) -> bytes:
    return _encode(sorted(links, key=lambda link: link.name.encode()), _field(1, DIRECTORY))


def encode_file(links: Sequence[Link], block_sizes: Sequence[int]) -> bytes:
    """An inner node of a file, whose bytes are all in the blocks below."""
    sizes = b"".join(_field(4, size) for size in block_sizes)
    return _encode(links, _field(1, FILE) + _field(3, sum(block_sizes)) + sizes)


def encode_symlink(target: str) -> bytes:
    return _encode([], _field(1, SYMLINK) + _bytes_field(2, target.encode()))


def encode_shard(links: Sequence[Link], taken: int, fanout: int) -> bytes:
    """A shard of a folder: its links in the order of their places, and which of the `fanout` places those are."""
    places = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
    data = _field(1, HAMT) + _bytes_field(2, places) + _field(5, MURMUR3) + _field(6, fanout)
    return _encode(links, data)


def _encode(links: Sequence[Link], data: bytes) -> bytes:
    return b"".join(_bytes_field(2, _encode_link(link)) for link in links) + _bytes_field(1, data)


def _encode_link(link: Link) -> bytes:
    return _bytes_field(1, link.cid) + _bytes_field(2, link.name.encode()) + _field(3, link.size)


def _field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def decode(block: bytes) -> Node:
    """Raises AccelError hostile-content for a block that is no sound UnixFS file, folder, shard or link."""
    if len(block) > MAX_BLOCK:
        _refuse("a node is over 2 MiB")
    links: list[Link] = []
    data: bytes | None = None
    closed = False  # links come one after the other, before the data or after them
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes) and not closed:
            if len(links) >= MAX_LINKS:
                _refuse(f"a node has over {MAX_LINKS} links")
            links.append(_decode_link(value))
        elif number == 1 and isinstance(value, bytes) and data is None:
            data, closed = value, bool(links)
        else:
            _refuse("a dag-pb node has a field that is unknown, out of order or there twice")
    if data is None:
        _refuse("a dag-pb node has no UnixFS data")
    return _check(_decode_data(data, tuple(links)))


def _decode_link(encoded: bytes) -> Link:
    """Its fields have an order. There may be millions of links, so they are not looked for one by one."""
    cid, name, size, at = b"", b"", 0, 0
    if encoded[:1] == b"\x0a":
        cid, at = _read_bytes(encoded, 1)
    if encoded[at : at + 1] == b"\x12":
        name, at = _read_bytes(encoded, at + 1)
    if encoded[at : at + 1] == b"\x18":
        size, at = _read_varint(encoded, at + 1)
    if len(name) > _MAX_NAME + _MAX_PLACE:
        _refuse("a link's name is too long")
    if at != len(encoded):
        _refuse("a link has a field that is unknown, out of order or there twice")
    if not cids.is_usual(cid):
        _check_cid(cid)
    return Link(cid, _decode_text(name) if name else "", size)


def _check_cid(cid: bytes) -> None:
    try:
        cids.parts(cid)
    except AccelError:
        _refuse("a link's CID cannot be read, or is not sha2-256")


def _decode_text(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        _refuse("a link's name or target is no text")


def _decode_data(encoded: bytes, links: tuple[Link, ...]) -> Node:
    told: dict[int, Any] = {}  # each of the type that _DATA_FIELDS says
    block_sizes: list[int] = []
    for number, value in _fields(encoded):
        if number == 4:
            block_sizes += [value] if isinstance(value, int) else _decode_packed(value)
        elif number in _DATA_FIELDS and isinstance(value, _DATA_FIELDS[number]) and number not in told:
            told[number] = value
            if number == 8 and len(told[8]) > _MAX_MTIME:
                _refuse("a time of change takes too much")
        else:
            _refuse("UnixFS data has a field that is unknown or there twice")
    kind, data = told.get(1), told.get(2, b"")
    if kind not in _KINDS:
        _refuse(f"UnixFS type {kind} is unknown")
    if kind == HAMT and told.get(5) != MURMUR3:
        _refuse("a folder is sharded by a hash other than murmur3")
    size = told.get(3, len(data) + sum(block_sizes))
    return Node(_KINDS[kind], links, data, size, tuple(block_sizes), told.get(6, 0))


#: Type, data, file size, block sizes (4), a shard's hash and fanout; mode and time of change, which mean nothing here.
_DATA_FIELDS: Final[dict[int, type]] = {1: int, 2: bytes, 3: int, 5: int, 6: int, 7: int, 8: bytes}
_KINDS: Final = {RAW_DATA: FILE, FILE: FILE, DIRECTORY: DIRECTORY, SYMLINK: SYMLINK, HAMT: HAMT}


def _decode_packed(encoded: bytes) -> list[int]:
    """A protobuf writer may put a repeated number into one field."""
    numbers, at = [], 0
    while at < len(encoded):
        number, at = _read_varint(encoded, at)
        numbers.append(number)
    return numbers


def _check(node: Node) -> Node:
    if node.kind == DIRECTORY:
        _check_directory(node)
    elif node.kind == SYMLINK:
        _check_symlink(node)
    elif node.kind == HAMT:
        if not 2 <= node.fanout <= MAX_FANOUT or node.fanout & (node.fanout - 1) or node.block_sizes:
            _refuse(f"a folder's shard has {node.fanout} places, which is no power of two up to {MAX_FANOUT}")
    elif len(node.block_sizes) != len(node.links):
        _refuse("a file's links and their sizes disagree")
    elif len(node.data) + sum(node.block_sizes) != node.file_size or node.file_size > MAX_SIZE:
        _refuse("a file's size is not the sum of its parts, or absurd")
    return node


def _check_directory(node: Node) -> None:
    names = [link.name for link in node.links]
    if len(set(names)) != len(names):
        _refuse("a folder has two entries of one name")
    for name in names:
        check_name(name)
    if node.data or node.block_sizes:
        _refuse("a folder has bytes of its own")


def _check_symlink(node: Node) -> None:
    if node.links or node.block_sizes or not 0 < len(node.data) <= MAX_PATH:
        _refuse(f"a symbolic link leads nowhere, has links of its own, or a target over {MAX_PATH} bytes")
    _decode_text(node.data)


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


def _read_bytes(encoded: bytes, at: int) -> tuple[bytes, int]:
    short = at < len(encoded) and encoded[at] < 0x80
    length, at = (encoded[at], at + 1) if short else _read_varint(encoded, at)
    if length > len(encoded) - at:
        _refuse("a field is cut off")
    return encoded[at : at + length], at + length


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
