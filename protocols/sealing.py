"""What a cluster's key is used for: sealing adverts, naming the cluster, and the token that lets a node join.

An advert on the wire, and a change of the cluster's pins, is ChaCha20-Poly1305(signature ‖ public key ‖ body) under
a key derived from the cluster's, so that only members read it, and the Ed25519 signature inside says which member
wrote it.
"""

from __future__ import annotations

import os
from typing import Final

import msgpack
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import AccelError, ErrorCode, ProtocolError
from .tokens import unwrap, wrap

KEY_SIZE: Final = 32
#: Bytes that sealing adds to a body.
OVERHEAD: Final = 12 + 16 + 64 + 32
TOKEN_PREFIX: Final = "ian1"  # noqa: S105
_MAX_TOKEN_ADDRESSES: Final = 8
#: What is sealed, by its key's purpose: a signature of one kind is none of another.
ADVERTS: Final = "adverts"
PINS: Final = "pins"
_CONTEXTS: Final = {ADVERTS: b"ipfs-accel-node advert 1\0", PINS: b"ipfs-accel-node pin 1\0"}
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def derive(key: bytes, purpose: str, size: int = KEY_SIZE) -> bytes:
    """A key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(hashes.SHA256(), size, None, b"ipfs-accel-node " + purpose.encode()).derive(key)


def cluster_id(key: bytes) -> str:
    """16 hexadecimal digits that name the cluster and tell nothing of its key."""
    return derive(key, "cluster id", 8).hex()


def seal(body: bytes, *, cluster_key: bytes, signing_key: bytes, kind: str = ADVERTS) -> bytes:
    """Signs `body` with the Ed25519 seed `signing_key` and seals it for the members of the cluster."""
    context = _CONTEXTS[kind]
    private = Ed25519PrivateKey.from_private_bytes(signing_key)
    public = private.public_key().public_bytes_raw()
    signed = private.sign(context + body) + public + body
    nonce = os.urandom(12)
    return nonce + ChaCha20Poly1305(derive(cluster_key, kind)).encrypt(nonce, signed, context)


def open_sealed(data: bytes, *, cluster_key: bytes, kind: str = ADVERTS) -> tuple[bytes, bytes]:
    """The writer's Ed25519 public key (32 bytes) and the body. Raises ProtocolError for anything not sealed so."""
    context = _CONTEXTS[kind]
    if len(data) < OVERHEAD:
        raise ProtocolError("a sealed message is too short")
    try:
        signed = ChaCha20Poly1305(derive(cluster_key, kind)).decrypt(data[:12], data[12:], context)
        signature, public, body = signed[:64], signed[64:96], signed[96:]
        Ed25519PublicKey.from_public_bytes(public).verify(signature, context + body)
    except (InvalidTag, InvalidSignature, ValueError):
        raise ProtocolError("a message is not sealed with this cluster's key, or not signed by its writer") from None
    return public, body


def peer_id_bytes(public_key: bytes) -> bytes:
    """The libp2p peer id of an Ed25519 key: the identity multihash of its protobuf (libp2p specs, peer-ids)."""
    return b"\x00\x24\x08\x01\x12\x20" + public_key


def peer_id_of(public_key: bytes) -> str:
    """The same in base58, as people see it: `12D3KooW…`."""
    return base58(peer_id_bytes(public_key))


def base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def encode_token(key: bytes, addresses: list[str]) -> str:
    """The text that lets another node join: the key and where to find a member, with a checksum."""
    return wrap(TOKEN_PREFIX, msgpack.packb([key, addresses[:_MAX_TOKEN_ADDRESSES]]))


def decode_token(token: str) -> tuple[bytes, list[str]]:
    """The cluster's key and its addresses, of a token that may be broken over lines. Raises AccelError bad-token."""
    try:
        key, addresses = msgpack.unpackb(unwrap(TOKEN_PREFIX, "".join(token.split())))
        if type(key) is not bytes or len(key) != KEY_SIZE or not all(type(each) is str for each in addresses):
            raise ValueError("no token")
    except Exception:
        raise AccelError(
            ErrorCode.BAD_TOKEN,
            "this is no join token, or not all of it",
            f"Copy all of {TOKEN_PREFIX}…, the end of the line that `ipfs-accel-node token` prints.",
        ) from None
    return key, list(addresses)
