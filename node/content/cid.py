"""CIDs, binary inside and text at the border. Content here is sha2-256; identity CIDs are read as well.

Binary: `01 | codec | multihash` for version 1, the bare multihash `12 20 …` for version 0 (dag-pb).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.sealing import base58

RAW: Final = 0x55
DAG_PB: Final = 0x70
_SHA256: Final = b"\x12\x20"
_LENGTH_V1: Final = 36
_LENGTH_V0: Final = 34
_MAX_IDENTITY: Final = 128


@dataclass(frozen=True, slots=True)
class Parts:
    """What a CID says: how to read the block, and either its SHA-256 digest or, for identity CIDs, the block itself."""

    codec: int
    digest: bytes | None
    inline: bytes | None


def make_cid(codec: int, block: bytes | memoryview) -> bytes:
    """The binary CIDv1 of a block."""
    return bytes((1, codec)) + _SHA256 + hashlib.sha256(block).digest()


def parts(cid: bytes) -> Parts:
    """Raises AccelError bad-cid for what is no CID of this kind."""
    if len(cid) == _LENGTH_V0 and cid[:2] == _SHA256:
        return Parts(DAG_PB, cid[2:], None)
    if len(cid) >= 4 and cid[0] == 1 and cid[1] in (RAW, DAG_PB):
        if len(cid) == _LENGTH_V1 and cid[2:4] == _SHA256:
            return Parts(cid[1], cid[4:], None)
        if cid[2] == 0 and cid[3] == len(cid) - 4 <= _MAX_IDENTITY - 1:
            return Parts(cid[1], None, cid[4:])
    raise _bad(f"0x{cid[:40].hex()}")


def matches(cid: bytes, block: bytes | memoryview) -> bool:
    """Whether `block` is what `cid` names."""
    named = parts(cid)
    return named.inline == bytes(block) if named.digest is None else hashlib.sha256(block).digest() == named.digest


@lru_cache(maxsize=4096)
def format_cid(cid: bytes) -> str:
    """`bafy…` for version 1, `Qm…` for version 0."""
    if cid[:1] == b"\x01":
        return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
    return base58(cid)


@lru_cache(maxsize=4096)
def parse_cid(text: str) -> bytes:
    """The binary form of a CID in any multibase. Raises AccelError bad-cid."""
    cid = _parse_usual(text) if text.startswith("b") and len(text) == 59 else _parse_any(text)
    parts(cid)
    return cid


def _parse_usual(text: str) -> bytes:
    try:
        cid = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    except ValueError:
        raise _bad(text) from None
    if format_cid(cid) != text:
        raise _bad(text)
    return cid


def _parse_any(text: str) -> bytes:
    """Every other base is read by the multiformats library, whose import takes a while."""
    from multiformats import CID

    if not 8 <= len(text) <= 512:
        raise _bad(text)
    try:
        return bytes(CID.decode(text))
    except Exception:
        raise _bad(text) from None


def _bad(text: str) -> AccelError:
    return AccelError(
        ErrorCode.BAD_CID,
        f"{text[:100]!r} is no CID this node can read",
        "A model's CID looks like bafybei…, 59 characters; `ipfs-accel-node model ls` shows those known here.",
    )
