"""The cluster's key: made by the first `start`, brought to other nodes by a join token."""

from __future__ import annotations

from pathlib import Path

from ...protocols.sealing import KEY_SIZE
from .identity import load_or_create_secret, write_secret


def load_or_create(path: Path) -> bytes:
    """Raises AccelError bad-config for a file that holds no key."""
    return load_or_create_secret(path, KEY_SIZE)


def save(path: Path, key: bytes) -> None:
    """Makes `key` this node's cluster; the one before is forgotten."""
    write_secret(path, key)
