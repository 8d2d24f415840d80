"""Frames: `u32 big-endian length | msgpack [type, request id, fields…]`, at most 64 KiB after the length.

    ┌────────────┬─────────────────────────────────────┐
    │ length u32 │ msgpack array [type, id, field, …]  │
    └────────────┴─────────────────────────────────────┘

Nothing is allocated for a frame that announces too much, and only `ProtocolError` comes out of bad bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, NoReturn

import msgpack

from .errors import ProtocolError

MAX_FRAME: Final = 65_536
MAX_DEPTH: Final = 16
LEAVES: Final = frozenset({NoneType, bool, int, float, str, bytes})
_HEADER: Final = 4
_U32_MAX: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Frame:
    type: int
    request_id: int
    fields: tuple[Any, ...]


def encode(kind: int, request_id: int, *fields: Any) -> bytes:
    """One frame. Raises ValueError when it would pass `MAX_FRAME`: larger things travel as body frames."""
    packed: bytes = msgpack.packb((kind, request_id, *fields), use_bin_type=True)
    if len(packed) > MAX_FRAME:
        raise ValueError(f"a frame of {len(packed)} bytes is over the limit of {MAX_FRAME}")
    return len(packed).to_bytes(_HEADER, "big") + packed


class Decoder:
    """Cuts a stream of bytes into frames, however it arrives. It buffers less than one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`. Raises ProtocolError."""
        self._buffer += data
        frames: list[Frame] = []
        start, end = 0, len(self._buffer)
        with memoryview(self._buffer) as view:
            while end - start >= _HEADER:
                length = int.from_bytes(view[start : start + _HEADER], "big")
                if length > MAX_FRAME:
                    raise ProtocolError(f"a frame announces {length} bytes, over the limit of {MAX_FRAME}")
                if end - start - _HEADER < length:
                    break
                start += _HEADER
                frames.append(_decode(view[start : start + length]))
                start += length
        del self._buffer[:start]
        return frames

    def take_rest(self) -> bytes:
        """What was fed and is not yet a whole frame; the decoder is empty after."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def _decode(packed: memoryview) -> Frame:
    content = unpack(packed)
    if not isinstance(content, list) or len(content) < 2:
        raise ProtocolError("a frame is no array of a type, a request id and fields")
    kind, request_id = content[0], content[1]
    if type(kind) is not int or type(request_id) is not int or not 0 <= request_id <= _U32_MAX:
        raise ProtocolError("a frame's type or request id is no unsigned number")
    return Frame(kind, request_id, tuple(content[2:]))


def unpack(packed: bytes | memoryview) -> Any:
    """One msgpack value of plain types, nested at most `MAX_DEPTH` deep, whose map keys are strings.

    Raises:
        ProtocolError: for everything else, trailing bytes among it.
    """
    try:
        value = msgpack.unpackb(packed, raw=False, strict_map_key=True, ext_hook=_no_extension)
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError(f"malformed msgpack ({type(error).__name__})") from None
    check(value, LEAVES)
    return value


def check(value: Any, leaves: frozenset[type], levels: int = MAX_DEPTH) -> None:
    """Raises ProtocolError where containers nest too deep, a key is no text, or a leaf is of another type."""
    kind = type(value)
    if kind is list:
        for each in value if levels > 0 else _too_deep():
            if type(each) not in leaves:
                check(each, leaves, levels - 1)
    elif kind is dict:
        for key, each in value.items() if levels > 0 else _too_deep():
            if type(key) is not str:
                raise ProtocolError("a map has a key that is no text")
            if type(each) not in leaves:
                check(each, leaves, levels - 1)
    elif kind not in leaves:
        raise ProtocolError(f"a {kind.__name__} does not travel")


def _too_deep() -> NoReturn:
    raise ProtocolError(f"values are nested deeper than {MAX_DEPTH}")


def _no_extension(code: int, data: bytes) -> Any:
    raise ProtocolError(f"unexpected msgpack extension {code} of {len(data)} bytes")
