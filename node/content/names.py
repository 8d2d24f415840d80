"""What a person may call a model by: its name, its CID, or a beginning of the CID that only it has."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Set
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from .cid import format_cid, parse_cid

MIN_PREFIX: Final = 8
_MAX_NAME: Final = 128


def resolve(text: str, known: Mapping[bytes, Set[str]]) -> bytes:
    """The binary CID meant by `text` among the `known` ones and their names; a whole CID may be unknown.

    Raises:
        AccelError: unknown-model with what is close to it, or ambiguous-model with every CID that is meant.
    """
    matching = [cid for cid, names in known.items() if text in names] or [
        cid for cid in known if len(text) >= MIN_PREFIX and format_cid(cid).startswith(text)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = ", ".join(format_cid(cid) for cid in matching)
        raise AccelError(ErrorCode.AMBIGUOUS_MODEL, f"{text!r} means {listed}", "Say one of these CIDs.")
    try:
        return parse_cid(text)
    except AccelError:
        raise _unknown(text, known) from None


def _unknown(text: str, known: Mapping[bytes, Set[str]]) -> AccelError:
    names = sorted({name for each in known.values() for name in each})
    close = difflib.get_close_matches(text, names, n=3) or names[:5]
    hint = f"Known here: {', '.join(close)}." if close else "No model is known here yet."
    return AccelError(
        ErrorCode.UNKNOWN_MODEL,
        f"{text!r} is no model's name, CID or beginning of one",
        f"{hint} Add one: ipfs-accel-node model add FOLDER --name NAME, or start the node that has it.",
    )


def checked(name: str) -> str:
    """The name itself. Raises AccelError bad-input for one that is unprintable, over 128 characters, or a CID."""
    if not name or len(name) > _MAX_NAME or not name.isprintable() or name != name.strip() or _is_cid(name):
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"{name[:_MAX_NAME]!r} cannot be a model's name",
            f"A name has 1 to {_MAX_NAME} printable characters and is no CID.",
        )
    return name


def usable(name: str | None) -> str:
    """A name that somebody else gave, or none where it could not be one."""
    try:
        return checked(name or "")
    except AccelError:
        return ""


def _is_cid(name: str) -> bool:
    try:
        return bool(parse_cid(name))
    except AccelError:
        return False
