"""What an attempt is given so that it goes on from where an earlier one broke off.

A request whose options say `{"resumed": true}` has the payload

    {"inputs": the job's own inputs, "token_ids": int32 [n], "characters": m}

The token ids are those that were given out, `characters` how many characters of their text. The attempt computes what
follows them: its first chunk has the offset n, and its text begins after those m characters.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from .errors import ErrorCode, ProtocolError
from .values import Array, pack, unpack

OPTION: Final = "resumed"
MOST_TOKENS: Final = 1 << 20
MOST_CHARACTERS: Final = 32 * MOST_TOKENS


@dataclass(frozen=True, slots=True)
class Resumption:
    """A job's inputs, and the output it has already."""

    inputs: Any
    token_ids: tuple[int, ...] = ()
    characters: int = 0


def pack_resumption(payload: bytes, token_ids: list[int], characters: int) -> bytes:
    """The payload of an attempt that goes on; `payload` is the job's own."""
    ids = Array("int32", (len(token_ids),), struct.pack(f"<{len(token_ids)}i", *token_ids))
    return pack({"inputs": unpack(payload), "token_ids": ids, "characters": characters})


def unpack_payload(payload: bytes, options: dict[str, Any]) -> Resumption:
    """The inputs of any attempt, whether it begins or goes on. Raises ProtocolError for what is malformed."""
    value = unpack(payload)
    if options.get(OPTION) is not True:
        return Resumption(value)
    match value:
        case {"inputs": inputs, "token_ids": Array("int32", (count,), data), "characters": int(characters)} if (
            count <= MOST_TOKENS and 0 <= characters <= MOST_CHARACTERS
        ):
            return Resumption(inputs, struct.unpack(f"<{count}i", data), characters)
    raise ProtocolError("the output to go on from is malformed", ErrorCode.BAD_INPUT)
