"""This node's identity: an Ed25519 seed on disk, and the peer id that follows from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.sealing import peer_id_bytes, peer_id_of

_SEED_SIZE: Final = 32


@dataclass(frozen=True)
class Identity:
    """`seed` is secret; `peer_id` is base58 as libp2p writes it, `peer_id_bytes` the multihash."""

    seed: bytes
    public_key: bytes
    peer_id: str
    peer_id_bytes: bytes


def load_or_create(path: Path) -> Identity:
    """Raises AccelError bad-config for a file that holds no seed."""
    seed = load_or_create_secret(path, _SEED_SIZE)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return Identity(seed, public, peer_id_of(public), peer_id_bytes(public))


def load_or_create_secret(path: Path, size: int) -> bytes:
    """The `size` secret bytes kept in a file that only this user reads. Raises AccelError bad-config."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = os.urandom(size)
        write_secret(path, secret)
    if len(secret) != size:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{path} is damaged", "Remove it to have a new one made.")
    return secret


def write_secret(path: Path, secret: bytes) -> None:
    """Written aside with mode 0600 and renamed, so that it is never half there nor readable by others."""
    aside = path.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
