"""Bulk connections: blocks over TLS 1.3 on a TCP connection of their own, let in by a ticket given over a link.

      asker                                        answerer
        CALL bulk {model, key}          over the link ──►      key: an Ed25519 public key of the asker's
                                        over the link ◄──      {ticket, fingerprint, addresses}
        connects, and ends it unless the certificate has that fingerprint
        OPEN (ticket, signature)        ──►
                                        ◄──  WELCOME, or REFUSED (code, message) and the end
        WANT …                          from here on the block protocol (`blocks.py`)

A ticket opens one connection, soon. The signature is the asker's over the ticket and the fingerprint: who came by
somebody else's ticket cannot use it, and a ticket that is shown to the wrong node is worth nothing at the right one.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from .errors import AccelError, ErrorCode, ProtocolError
from .framing import Decoder, Frame, encode

#: Said in a hello by a node that answers the call `bulk`.
FEATURE: Final = "bulk"
METHOD: Final = "bulk"
TICKET_SIZE: Final = 32
KEY_SIZE: Final = 32
FINGERPRINT_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
MAX_OPENING: Final = 4096
MAX_ADDRESSES: Final = 8
_MAX_CID: Final = 64
_OPEN, _WELCOME, _REFUSED = 96, 97, 98
_SIGNED: Final = b"ipfs-accel-node bulk 1\0"


@dataclass(frozen=True, slots=True)
class TicketRequest:
    """What a CALL asks for: the model's binary CID, and the key that the connection will be opened with."""

    model: bytes
    key: bytes

    def arguments(self) -> dict[str, Any]:
        return {"model": self.model, "key": self.key}

    @classmethod
    def parse(cls, arguments: Any) -> TicketRequest:
        """Raises AccelError bad-input."""
        given = arguments if isinstance(arguments, dict) else {}
        model, key = given.get("model"), given.get("key")
        if type(model) is not bytes or not 0 < len(model) <= _MAX_CID or type(key) is not bytes or len(key) != KEY_SIZE:
            raise AccelError(ErrorCode.BAD_INPUT, "bulk needs a model's CID and an Ed25519 key")
        return cls(model, key)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a CALL gives; `addresses` are (IP address, port)."""

    secret: bytes
    fingerprint: bytes
    addresses: tuple[tuple[str, int], ...]

    def answer(self) -> dict[str, Any]:
        addresses = [list(address) for address in self.addresses[:MAX_ADDRESSES]]
        return {"ticket": self.secret, "fingerprint": self.fingerprint, "addresses": addresses}

    @classmethod
    def parse(cls, answer: Any) -> Ticket:
        """Raises ProtocolError."""
        given = answer if isinstance(answer, dict) else {}
        secret = _exactly(given.get("ticket"), TICKET_SIZE)
        fingerprint = _exactly(given.get("fingerprint"), FINGERPRINT_SIZE)
        addresses = given.get("addresses")
        if type(addresses) is not list or not all(map(_is_address, addresses)):
            raise ProtocolError("a ticket has no addresses, or wrong ones")
        return cls(secret, fingerprint, tuple((host, port) for host, port in addresses[:MAX_ADDRESSES]))


def signed_part(ticket: bytes, fingerprint: bytes) -> bytes:
    """What the asker signs; `fingerprint` is that of the certificate that it sees."""
    return _SIGNED + ticket + fingerprint


def opening(ticket: bytes, signature: bytes) -> bytes:
    return encode(_OPEN, 0, ticket, signature)


def welcome() -> bytes:
    return encode(_WELCOME, 0)


def refusal(code: str, message: str) -> bytes:
    return encode(_REFUSED, 0, str(code), message)


class OpeningReader:
    """The answering side's reader of OPEN. `opened` is (ticket, signature) when it is there."""

    def __init__(self) -> None:
        self._frames = _OneFrame()
        self.opened: tuple[bytes, bytes] | None = None

    def receive(self, data: bytes) -> None:
        """Raises ProtocolError for anything else, and for anything after it: the asker waits for its welcome."""
        if (frame := self._frames.receive(data)) is None:
            return
        match frame.type, frame.fields:
            case (96, (bytes() as ticket, bytes() as signature, *_)) if len(signature) == SIGNATURE_SIZE:
                self.opened = ticket, signature
            case _:
                raise ProtocolError("a bulk connection begins with OPEN")


class WelcomeReader:
    """The asking side's reader of WELCOME; `welcomed` when it is there."""

    def __init__(self) -> None:
        self._frames = _OneFrame()
        self.welcomed = False

    def receive(self, data: bytes) -> None:
        """Raises AccelError as the other side refused, ProtocolError."""
        if (frame := self._frames.receive(data)) is None:
            return
        match frame.type, frame.fields:
            case (97, _):
                self.welcomed = True
            case (98, (str() as code, str() as message, *_)):
                raise AccelError(code, message)
            case _:
                raise ProtocolError("OPEN is answered by WELCOME or REFUSED")


class _OneFrame:
    """Takes one frame of at most `MAX_OPENING` bytes, and nothing after it."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._taken = 0

    def receive(self, data: bytes) -> Frame | None:
        self._taken += len(data)
        if self._taken > MAX_OPENING:
            raise ProtocolError(f"the opening has over {MAX_OPENING} bytes")
        frames = self._decoder.feed(data)
        if len(frames) > 1 or (frames and self._decoder.take_rest()):
            raise ProtocolError("something came before its turn")
        return frames[0] if frames else None


def _exactly(value: Any, size: int) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise ProtocolError("this is no ticket")
    return value


def _is_address(value: Any) -> bool:
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str or type(value[1]) is not int:
        return False
    try:
        ipaddress.ip_address(value[0])
    except ValueError:
        return False
    return 0 < value[1] < 1 << 16
