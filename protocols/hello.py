"""The hello that opens a link: versions, features, and a proof of the cluster's key, both ways.

      dialler                                listener
        HELLO (facts, nonce)   ──►
                               ◄──  HELLO (facts, nonce)
        PROOF                  ──►
                               ◄──  PROOF            from here on the session's frames
        or, from either:  REFUSED (code, message, hint)

A proof is HMAC-SHA256 over the role, both peer ids and both nonces under a key derived from the cluster's: it shows
the key without telling it, cannot be reflected (the role) nor replayed (the nonces) nor passed on for somebody else
(the peer ids, which the noise handshake has already authenticated).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Any, Final

from .errors import AccelError, ErrorCode, ProtocolError
from .framing import Decoder, Frame, encode
from .sealing import derive

VERSION: Final = 1
_HELLO, _PROOF, _REFUSED = 64, 65, 66
_NONCE_SIZE: Final = 32
_MAX_TEXT: Final = 256
_MAX_LIST: Final = 16


@dataclass(frozen=True)
class HelloFacts:
    """What a side says of itself. `limits` are bytes by name; `incarnation` tells one run of a node from the next."""

    node_name: str
    incarnation: int
    addresses: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    version_min: int = VERSION
    version_max: int = VERSION


class HelloRefused(AccelError):  # noqa: N818
    """One of the two sides does not want this link; the code says why."""


class Hello:
    """One side of the handshake, without input or output.

    Attributes:
        facts: the other side's facts, once `done`.
        outgoing: bytes still to be sent, also when `receive` raises: the refusal is told to the other side.
    """

    def __init__(self, own: HelloFacts, key: bytes, *, dialler: bool, own_peer_id: bytes, peer_id: bytes) -> None:
        self._own = own
        self._key = derive(key, "hello")
        self._dialler = dialler
        self._ids = (own_peer_id, peer_id) if dialler else (peer_id, own_peer_id)
        self._nonce = os.urandom(_NONCE_SIZE)
        self._their_nonce = b""
        self._decoder = Decoder()
        self.facts: HelloFacts | None = None
        self.done = False
        self.outgoing = _hello(own, self._nonce) if dialler else b""

    def take_outgoing(self) -> bytes:
        data, self.outgoing = self.outgoing, b""
        return data

    def receive(self, data: bytes) -> None:
        """Raises HelloRefused (wrong-cluster-key, version-mismatch, or what the other side said), ProtocolError."""
        for frame in self._decoder.feed(data):
            if self.done:
                raise ProtocolError("the other side spoke before the hello had ended")
            self._receive_frame(frame)

    def take_rest(self) -> bytes:
        """Bytes that came after the handshake; they belong to the session."""
        return self._decoder.take_rest()

    def _receive_frame(self, frame: Frame) -> None:
        if frame.type == _REFUSED:
            code, message, hint = (*(str(field) for field in frame.fields[:3]), "", "", "")[:3]
            raise HelloRefused(code or ErrorCode.PROTOCOL_ERROR, message, hint)
        if frame.type == _HELLO and self.facts is None:
            self._receive_hello(frame.fields)
        elif frame.type == _PROOF and self.facts is not None:
            self._receive_proof(frame.fields)
        else:
            raise ProtocolError("this is no hello")

    def _receive_hello(self, fields: tuple[Any, ...]) -> None:
        self.facts, self._their_nonce = _parse_hello(fields)
        if not (self.facts.version_min <= self._own.version_max and self._own.version_min <= self.facts.version_max):
            self._refuse(
                ErrorCode.VERSION_MISMATCH,
                f"protocol versions {self.facts.version_min} to {self.facts.version_max} are not spoken here",
                "Update the older of the two nodes.",
            )
        if self._dialler:
            self.outgoing += encode(_PROOF, 0, self._proof(dialler=True))
        else:
            self.outgoing += _hello(self._own, self._nonce)

    def _receive_proof(self, fields: tuple[Any, ...]) -> None:
        given = fields[0] if fields and type(fields[0]) is bytes else b""
        if not hmac.compare_digest(given, self._proof(dialler=not self._dialler)):
            self._refuse(
                ErrorCode.WRONG_CLUSTER_KEY,
                "the peer is not of this cluster",
                "Join it with the token that `ipfs-accel-node token` prints on a member.",
            )
        if not self._dialler:
            self.outgoing += encode(_PROOF, 0, self._proof(dialler=False))
        self.done = True

    def _proof(self, *, dialler: bool) -> bytes:
        nonces = (self._nonce, self._their_nonce) if self._dialler else (self._their_nonce, self._nonce)
        parts = (b"dialler" if dialler else b"listener", *self._ids, *nonces)
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(self._key, message, hashlib.sha256).digest()

    def _refuse(self, code: str, message: str, hint: str) -> None:
        self.outgoing += encode(_REFUSED, 0, str(code), message, hint)
        raise HelloRefused(code, message, hint)


def _hello(facts: HelloFacts, nonce: bytes) -> bytes:
    return encode(
        _HELLO,
        0,
        facts.version_min,
        facts.version_max,
        list(facts.features),
        dict(facts.limits),
        facts.incarnation,
        nonce,
        facts.node_name,
        list(facts.addresses),
    )


def _parse_hello(fields: tuple[Any, ...]) -> tuple[HelloFacts, bytes]:
    try:
        low, high, features, limits, incarnation, nonce, name, addresses = fields[:8]
    except ValueError:
        raise ProtocolError("HELLO lacks fields") from None
    numbers_fit = all(type(each) is int and 0 <= each < 1 << 63 for each in (low, high, incarnation))
    texts_fit = all(
        type(texts) is list
        and len(texts) <= _MAX_LIST
        and all(type(text) is str and len(text) <= _MAX_TEXT for text in texts)
        for texts in (features, addresses, [name])
    )
    limits_fit = type(limits) is dict and len(limits) <= _MAX_LIST and all(type(n) is int for n in limits.values())
    if not (numbers_fit and texts_fit and limits_fit and type(nonce) is bytes and len(nonce) == _NONCE_SIZE):
        raise ProtocolError("HELLO has a field of another type or size")
    facts = HelloFacts(name, incarnation, tuple(addresses), tuple(features), tuple(limits.items()), low, high)
    return facts, nonce
