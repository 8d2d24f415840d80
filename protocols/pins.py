"""The pins of a cluster: signed changes that merge to one outcome on every node, in whatever order they come.

A change says of one model that it is pinned, on how many nodes, or that it is pinned no longer. Of two changes of one
model the later counts; times are hybrid logical clocks, so a change made after another was seen is later than it, and
of two with one time the same one wins everywhere. A removal is kept as a change like any other, so that a node which
was away does not bring back what it missed. Pure: no clock, no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from .errors import ProtocolError
from .framing import unpack
from .sealing import PINS, open_sealed, peer_id_of, seal

VERSION: Final = 1
#: Changes that a node keeps, removals among them; those with the earliest times go first.
MAX_CHANGES: Final = 4096
#: Bytes of a sealed change.
MAX_SEALED: Final = 1024
#: A change from so far in the future is refused: its clock would decide over everybody's.
MAX_AHEAD_US: Final = 86_400_000_000
BUCKETS: Final = 64
#: `maximum` of a pin that every node is to hold.
EVERYWHERE: Final = 0
MAX_REPLICAS: Final = 1024
_MAX_NAME: Final = 128
_MAX_CID: Final = 128
_DIGEST: Final = 16


@dataclass(frozen=True, slots=True)
class PinChange:
    """What somebody said of one model. `time` in microseconds since 1970, `size` in bytes.

    A pin is held by `minimum` to `maximum` nodes; a `maximum` of 0 means all of them.
    """

    cid: bytes
    time: int
    removed: bool = False
    minimum: int = 1
    maximum: int = EVERYWHERE
    name: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class SignedChange:
    """A change as it travels; `author` is the Ed25519 public key that signed it."""

    change: PinChange
    author: bytes
    sealed: bytes

    @property
    def author_id(self) -> str:
        return peer_id_of(self.author)

    @property
    def rank(self) -> tuple[int, bytes, bytes]:
        """The greater of two changes of one model counts."""
        return self.change.time, self.author, _pack(self.change)


def sign(change: PinChange, *, cluster_key: bytes, signing_key: bytes) -> SignedChange:
    sealed = seal(_pack(change), cluster_key=cluster_key, signing_key=signing_key, kind=PINS)
    return open_change(sealed, cluster_key=cluster_key)


def open_change(sealed: bytes, *, cluster_key: bytes, now_us: int | None = None) -> SignedChange:
    """Raises ProtocolError for what no member of the cluster signed, and for what is from the future."""
    if type(sealed) is not bytes or len(sealed) > MAX_SEALED:
        raise ProtocolError("a change of a pin is none, or too large")
    author, body = open_sealed(sealed, cluster_key=cluster_key, kind=PINS)
    change = _unpack(body)
    if now_us is not None and change.time > now_us + MAX_AHEAD_US:
        ahead = (change.time - now_us) // 3_600_000_000
        raise ProtocolError(f"a change of a pin is from {ahead} hours in the future: set the clocks of both machines")
    return SignedChange(change, author, sealed)


class PinSet:
    """The newest change of each model. Merging is commutative, associative and idempotent."""

    def __init__(self, changes: Iterable[SignedChange] = ()) -> None:
        #: By CID, in the parts that two sets compare.
        self._parts: list[dict[bytes, SignedChange]] = [{} for _ in range(BUCKETS)]
        self._digests: list[bytes | None] = [None] * BUCKETS
        for change in changes:
            self.merge(change)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def get(self, cid: bytes) -> PinChange | None:
        """The pin of a model; None where it has none, or no longer one."""
        signed = self._parts[_bucket_of(cid)].get(cid)
        return None if signed is None or signed.change.removed else signed.change

    def pins(self) -> list[PinChange]:
        """All there are, in the order of their CIDs."""
        live = (signed.change for signed in self.changes() if not signed.change.removed)
        return sorted(live, key=lambda pin: pin.cid)

    def changes(self) -> list[SignedChange]:
        return [signed for part in self._parts for signed in part.values()]

    def author_of(self, cid: bytes) -> str:
        """The peer id of who made the newest change; empty where there is none."""
        signed = self._parts[_bucket_of(cid)].get(cid)
        return signed.author_id if signed else ""

    def next_time(self, now_us: int) -> int:
        """A time later than that of every change that is here."""
        return max(now_us, 1 + max((signed.change.time for signed in self.changes()), default=0))

    def merge(self, signed: SignedChange) -> bool:
        """Takes a change; whether it says anything new."""
        cid, number = signed.change.cid, _bucket_of(signed.change.cid)
        old = self._parts[number].get(cid)
        if old is not None and old.rank >= signed.rank:
            return False
        self._parts[number][cid], self._digests[number] = signed, None
        return len(self) <= MAX_CHANGES or self._drop_earliest() is not signed

    def digest(self) -> bytes:
        """16 bytes that are alike where the sets are alike."""
        return hashlib.sha256(b"".join(self.bucket_digests())).digest()[:_DIGEST]

    def bucket_digests(self) -> list[bytes]:
        """The same for each of 64 parts, so that two sets find where they differ."""
        for number, known in enumerate(self._digests):
            if known is None:
                told = (hashlib.sha256(each.author + _pack(each.change)).digest() for each in self._sorted(number))
                self._digests[number] = hashlib.sha256(b"".join(told)).digest()[:_DIGEST]
        return [digest for digest in self._digests if digest is not None]

    def bucket(self, number: int) -> list[bytes]:
        """The sealed changes of one part."""
        return [signed.sealed for signed in self._sorted(number)]

    def differing(self, digests: object) -> list[int]:
        """The parts that differ from another set's. Raises ProtocolError for what are no digests."""
        if not isinstance(digests, list) or len(digests) != BUCKETS:
            raise ProtocolError("digests of pins are none")
        return [number for number, own in enumerate(self.bucket_digests()) if own != digests[number]]

    def _sorted(self, number: int) -> list[SignedChange]:
        """One part in the order of CIDs."""
        return [signed for _, signed in sorted(self._parts[number].items(), key=lambda item: item[0])]

    def _drop_earliest(self) -> SignedChange:
        """By rank, so that whoever merges the same changes keeps the same ones."""
        earliest = min(self.changes(), key=lambda signed: signed.rank)
        number = _bucket_of(earliest.change.cid)
        del self._parts[number][earliest.change.cid]
        self._digests[number] = None
        return earliest


def _bucket_of(cid: bytes) -> int:
    return cid[-1] % BUCKETS


def _pack(change: PinChange) -> bytes:
    packed: bytes = msgpack.packb(
        [VERSION, change.cid, change.time, change.removed, change.minimum, change.maximum, change.name, change.size]
    )
    return packed


def _unpack(body: bytes) -> PinChange:
    fields = unpack(body)
    if not isinstance(fields, list) or len(fields) != 8 or fields[0] != VERSION:
        raise ProtocolError("a change of a pin is malformed, or of another version", "version-mismatch")
    _, cid, time, removed, minimum, maximum, name, size = fields
    if type(cid) is not bytes or not 4 <= len(cid) <= _MAX_CID or type(removed) is not bool:
        raise ProtocolError("a change of a pin names no model")
    if type(name) is not str or len(name.encode(errors="replace")) > _MAX_NAME:
        raise ProtocolError("a change of a pin has a name that is none, or too long")
    if not all(_is_number(each, 1 << 63) for each in (time, size)) or not is_replicas(minimum, maximum):
        raise ProtocolError("a change of a pin has a number out of range")
    return PinChange(cid, time, removed, minimum, maximum, name, size)


def is_replicas(minimum: Any, maximum: Any) -> bool:
    """Whether they are how many nodes may hold a pin: 1 to 1,024, or a maximum of 0 for all."""
    both = _is_number(minimum, MAX_REPLICAS + 1) and _is_number(maximum, MAX_REPLICAS + 1)
    return both and minimum >= 1 and (maximum == EVERYWHERE or minimum <= maximum)


def _is_number(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below
