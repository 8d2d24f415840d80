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

RAW: Final = 0x55
DAG_PB: Final = 0x70
#: What comes before the digest in a CID.
V0: Final = b"\x12\x20"
V1_RAW: Final = bytes((1, RAW)) + V0
V1_DAG_PB: Final = bytes((1, DAG_PB)) + V0
_LENGTH_V1: Final = 36
_LENGTH_V0: Final = 34
#: How Kubo and others bound a block that is in its CID. A length of 128 is a varint of two bytes.
MAX_IDENTITY: Final = 128
#: A SHA-256 CID in the tersest base that is used has 46 characters; no name is taken for one by its length alone.
_MIN_TEXT: Final = 46
_MAX_TEXT: Final = 512


@dataclass(frozen=True, slots=True)
class Parts:
    """What a CID says: how to read the block, and either its SHA-256 digest or, for identity CIDs, the block itself."""

    codec: int
    digest: bytes | None
    inline: bytes | None


def make_cid(codec: int, block: bytes | memoryview) -> bytes:
    """The binary CIDv1 of a block."""
    return cid_of(codec, hashlib.sha256(block).digest())


def cid_of(codec: int, digest: bytes) -> bytes:
    """The binary CIDv1 of a block whose SHA-256 digest is known."""
    return bytes((1, codec)) + V0 + digest


def parts(cid: bytes) -> Parts:
    """Raises AccelError bad-cid for what is no CID of this kind."""
    if len(cid) == _LENGTH_V0 and cid[:2] == V0:
        return Parts(DAG_PB, cid[2:], None)
    if len(cid) >= 4 and cid[0] == 1 and cid[1] in (RAW, DAG_PB):
        if len(cid) == _LENGTH_V1 and cid[2:4] == V0:
            return Parts(cid[1], cid[4:], None)
        if cid[2] == 0 and (inline := _inline(cid[3:])) is not None:
            return Parts(cid[1], None, inline)
    raise _bad(f"0x{cid[:40].hex()}")


def _inline(counted: bytes) -> bytes | None:
    """The block after its length, in an identity CID."""
    if counted[:2] == b"\x80\x01":
        return counted[2:] if len(counted) == 2 + MAX_IDENTITY else None
    return counted[1:] if counted[0] == len(counted) - 1 < MAX_IDENTITY else None


def is_usual(cid: bytes) -> bool:
    """Whether it is a SHA-256 CID of version 1, told without taking it apart."""
    return len(cid) == _LENGTH_V1 and cid.startswith((V1_RAW, V1_DAG_PB))


def is_raw(cid: bytes) -> bool:
    """Whether the block is a leaf's bytes and nothing else. For CIDs that `parts` has taken, and quicker."""
    return cid[0] == 1 and cid[1] == RAW


def inline_of(cid: bytes) -> bytes | None:
    """The block that is in an identity CID; None for another. For CIDs that `parts` has taken, and quicker."""
    return parts(cid).inline if cid[0] == 1 and cid[2] == 0 else None


def matches(cid: bytes, block: bytes | memoryview) -> bool:
    """Whether `block` is what `cid` names. Raises AccelError bad-cid."""
    named = parts(cid)
    return named.inline == bytes(block) if named.digest is None else hashlib.sha256(block).digest() == named.digest


@lru_cache(maxsize=4096)
def format_cid(cid: bytes) -> str:
    """`bafy…` for version 1, `Qm…` for version 0."""
    if cid[:1] == b"\x01":
        return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
    from ...protocols.sealing import base58  # its module takes 30 ms to import, and version 0 is seldom met

    return base58(cid)


@lru_cache(maxsize=4096)
def parse_cid(text: str) -> bytes:
    """The binary form of a CID in any multibase, also after `ipfs://` or `/ipfs/`. Raises AccelError bad-cid."""
    bare = text.strip().removeprefix("ipfs://").removeprefix("/ipfs/").rstrip("/")
    cid = _parse_usual(bare) if bare.startswith("b") and len(bare) == 59 else _parse_any(bare)
    try:
        parts(cid)
    except AccelError:
        raise _bad(text) from None
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
    """Every other form is read by the multiformats library, whose import takes 80 ms."""
    if not _MIN_TEXT <= len(text) <= _MAX_TEXT:
        raise _bad(text)
    from multiformats import CID

    try:
        return bytes(CID.decode(text))
    except Exception:
        raise _bad(text) from None


def _bad(text: str) -> AccelError:
    return AccelError(
        ErrorCode.BAD_CID,
        f"{text[:100]!r} is no CID this node can read",
        "A model's CID looks like bafybei…, 59 characters (sha2-256, dag-pb or raw); "
        "`ipfs-accel-node model ls` shows those known here.",
    )
