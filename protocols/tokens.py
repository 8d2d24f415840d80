"""Tokens: short secrets as one word that a person can copy, with a checksum that shows when a part is missing.

    prefix | base64url, unpadded: content ‖ first four bytes of SHA-256(prefix ‖ content)

The prefix says what the token is for and of which version; it is part of the checksum, so no token passes for another.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

_CHECKSUM: Final = 4
_MAX_TOKEN: Final = 4096


def wrap(prefix: str, content: bytes) -> str:
    return prefix + base64.urlsafe_b64encode(content + _checksum(prefix, content)).decode().rstrip("=")


def unwrap(prefix: str, token: str) -> bytes:
    """The content. Raises ValueError for anything but a whole token of that prefix."""
    if not token.startswith(prefix) or len(token) > _MAX_TOKEN:
        raise ValueError(f"this begins with no {prefix}")
    encoded = token[len(prefix) :]
    content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)[:-_CHECKSUM]
    if wrap(prefix, content) != token:
        raise ValueError("the checksum is wrong")
    return content


def _checksum(prefix: str, content: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + content).digest()[:_CHECKSUM]
