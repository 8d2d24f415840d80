"""What opens a client's connection over TLS: it shows the secret of its token, and the node lets it in or says why not.

      client                                      node
        TLS 1.3; the client compares the SHA-256 of the node's certificate with that of its token,
        and says nothing at all when they differ
        OPEN (versions, secret)   ──►
                                  ◄──  WELCOME (version)       from here on the session's frames
                                  or   REFUSED (code, message, hint), and the end

The secret may be told as it is: only the holder of the certificate's key can read it. The client says nothing more
before it is welcome, and the node speaks only when it is asked, so what comes too early is a mistake on either side.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

import msgpack

from .errors import AccelError, ErrorCode, ProtocolError
from .framing import Decoder, Frame, encode
from .tokens import unwrap, wrap

VERSION: Final = 1
SECRET_SIZE: Final = 32
TOKEN_PREFIX: Final = "ianc1"  # noqa: S105
#: What either side takes before the session begins, in bytes. An OPEN has 43, a REFUSED some hundreds.
MAX_OPENING: Final = 4096
_FINGERPRINT_SIZE: Final = 32
_OPEN, _WELCOME, _REFUSED = 80, 81, 82
_MAX_TEXT: Final = 1024


@dataclass(frozen=True)
class ClientToken:
    """What a client needs to be let in: `secret`, and the SHA-256 of the certificate (DER) it will be shown."""

    secret: bytes = field(repr=False)
    fingerprint: bytes

    def encode(self) -> str:
        return wrap(TOKEN_PREFIX, msgpack.packb([self.secret, self.fingerprint]))

    @staticmethod
    def decode(token: str) -> ClientToken:
        """Of a token that may be broken over lines. Raises AccelError bad-token."""
        try:
            secret, fingerprint = msgpack.unpackb(unwrap(TOKEN_PREFIX, "".join(token.split())))[:2]
            if (type(secret), len(secret)) != (bytes, SECRET_SIZE):
                raise ValueError("no secret")
            if (type(fingerprint), len(fingerprint)) != (bytes, _FINGERPRINT_SIZE):
                raise ValueError("no fingerprint")
        except Exception:
            raise AccelError(
                ErrorCode.BAD_TOKEN,
                "this is no client token, or not all of it",
                f"Copy all of {TOKEN_PREFIX}… that `ipfs-accel-node client-token` prints on the node.",
            ) from None
        return ClientToken(secret, fingerprint)

    def check_certificate(self, certificate: bytes | None) -> None:
        """`certificate` as DER, as the node showed it. Raises AccelError wrong-certificate."""
        if not hmac.compare_digest(fingerprint_of(certificate or b""), self.fingerprint):
            raise AccelError(
                ErrorCode.WRONG_CERTIFICATE,
                "the node's certificate is not the one of this token: it was made anew, or somebody stands in between",
                "Nothing was sent. If the node was set up anew, take its new `ipfs-accel-node client-token`.",
            )


def fingerprint_of(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


class _Opening:
    """What both sides share: whole messages out of a bounded number of bytes.

    Attributes:
        done: the other side has said what it had to.
        outgoing: bytes still to be sent.
    """

    def __init__(self) -> None:
        self.done = False
        self.outgoing = b""
        self._decoder = Decoder()
        self._received = 0

    def take_outgoing(self) -> bytes:
        data, self.outgoing = self.outgoing, b""
        return data

    def receive(self, data: bytes) -> None:
        """Raises AccelError when this client is not let in, ProtocolError for anything that is no opening."""
        self._received += len(data)
        if self._received > MAX_OPENING:
            raise ProtocolError(f"an opening has no more than {MAX_OPENING} bytes")
        for frame in self._decoder.feed(data):
            if self.done:
                raise ProtocolError("the other side spoke before it was its turn")
            self._receive_frame(frame)
        if self.done and self._decoder.take_rest():
            raise ProtocolError("the other side spoke before it was its turn")

    def _receive_frame(self, frame: Frame) -> None:
        raise NotImplementedError


class ClientOpening(_Opening):
    """The client's side. `receive` raises AccelError with what the node refused it for."""

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self.outgoing = encode(_OPEN, 0, VERSION, VERSION, secret)

    def _receive_frame(self, frame: Frame) -> None:
        if frame.type == _REFUSED:
            code, message, hint = (*(str(each)[:_MAX_TEXT] for each in frame.fields[:3]), "", "", "")[:3]
            raise AccelError(code or ErrorCode.PROTOCOL_ERROR, message, hint)
        if frame.type != _WELCOME or frame.fields[:1] != (VERSION,):
            raise ProtocolError("this is no answer to a client's opening")
        self.done = True


class NodeOpening(_Opening):
    """The node's side, for one client. When it is `done` the node says `welcome`; when it raised, `refuse`."""

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._secret = secret

    def welcome(self) -> None:
        self.outgoing += encode(_WELCOME, 0, VERSION)

    def refuse(self, error: AccelError) -> None:
        """Tells the client why it is not let in."""
        self.outgoing += encode(_REFUSED, 0, error.code, error.message, error.hint)

    def _receive_frame(self, frame: Frame) -> None:
        low, high, secret = self._parse(frame)
        if not low <= VERSION <= high:
            raise AccelError(
                ErrorCode.VERSION_MISMATCH,
                f"a client of protocol versions {low} to {high} is not understood here",
                "Update the older of the two.",
            )
        if not hmac.compare_digest(secret, self._secret):
            raise AccelError(
                ErrorCode.WRONG_CLIENT_TOKEN,
                "the node does not take this client token",
                "`ipfs-accel-node client-token` on the node prints the one that counts.",
            )
        self.done = True

    def _parse(self, frame: Frame) -> tuple[int, int, bytes]:
        if frame.type != _OPEN or len(frame.fields) < 3:
            raise ProtocolError("this is no client's opening")
        low, high, secret = frame.fields[:3]
        if type(low) is not int or type(high) is not int or type(secret) is not bytes:
            raise ProtocolError("a client's opening has a field of another type")
        return low, high, secret
