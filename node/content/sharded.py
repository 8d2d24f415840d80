"""Folders spread over shards by the hashes of their names (UnixFS specification, HAMT directories), read and written.

A shard of 256 places takes 8 bits of a name's hash: the first 8 in the root's shard, the next 8 one below. Its links
are named by their place in hexadecimal, `1F`, and an entry's own name follows: `1Fconfig.json`; a shard has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode
from .murmur3 import hamt_hash
from .unixfs import Link, Node, check_name, encode_shard

_HASH_BITS: Final = 64
_DIGITS: Final = frozenset("0123456789ABCDEF")

#: Takes a shard's block and how many bytes all blocks below it have; gives a link to it, which has no name.
Keep = Callable[[bytes, int], Link]


@dataclass(frozen=True, slots=True)
class Shard:
    """Where a shard is in its folder: `used` bits of each name's hash are `path`; the root's has used none."""

    fanout: int
    used: int = 0
    path: int = 0

    @property
    def bits(self) -> int:
        return self.fanout.bit_length() - 1

    def below(self, place: int) -> Shard:
        """The shard at a place of this one. Raises AccelError hostile-content when no name's hash reaches so far."""
        if self.used + 2 * self.bits > _HASH_BITS:
            _refuse("its shards are nested deeper than a hash reaches")
        return Shard(self.fanout, self.used + self.bits, self.path << self.bits | place)

    def place(self, hashed: int) -> int:
        """Where in this shard a name of that hash belongs."""
        return hashed >> (_HASH_BITS - self.used - self.bits) & self.fanout - 1

    def has(self, name: str, place: int) -> bool:
        """Whether an entry of that name belongs at that place of this shard."""
        return hamt_hash(name) >> (_HASH_BITS - self.used - self.bits) == self.path << self.bits | place


def read_shard(node: Node, shard: Shard) -> Iterator[tuple[Link, Shard | None]]:
    """The links of a decoded HAMT node: entries under their own names, and shards with where these are.

    As every name has to hash to its place, and a place has one link, no name is there twice in the whole folder.
    Raises AccelError hostile-content.
    """
    if node.fanout != shard.fanout or (not node.links and shard.used):
        _refuse("its shards differ in size, or one has no entries")
    width = _digits(node.fanout)
    taken, last = 0, -1
    for link in node.links:
        place, name = _read_place(link.name[:width], node.fanout), link.name[width:]
        if place <= last:
            _refuse("a shard's entries are out of order, or two are at one place")
        taken, last = taken | 1 << place, place
        if not name:
            yield link, shard.below(place)
            continue
        check_name(name)
        if not shard.has(name, place):
            _refuse(f"{name[:60]!r} is in a shard that its hash does not lead to")
        yield Link(link.cid, name, link.size), None
    if taken != int.from_bytes(node.data, "big"):
        _refuse("a shard has other entries than it says")


def _read_place(digits: str, fanout: int) -> int:
    written = bool(digits) and set(digits) <= _DIGITS
    place = int(digits, 16) if written else fanout
    if place >= fanout or len(digits) != _digits(fanout):
        _refuse("a shard's entry is not named by its place")
    return place


def write_shards(links: Iterable[Link], fanout: int, keep: Keep) -> Link:
    """Spreads a folder's entries over shards; a link to the first.

    Raises AccelError hostile-content for names whose hashes are all alike.
    """
    return _write(Shard(fanout), [(hamt_hash(link.name), link) for link in links], keep)


def _write(shard: Shard, entries: list[tuple[int, Link]], keep: Keep) -> Link:
    """A place that several names hash to has a shard of its own."""
    places: dict[int, list[tuple[int, Link]]] = {}
    for hashed, link in entries:
        places.setdefault(shard.place(hashed), []).append((hashed, link))
    links, taken = [], 0
    for place, there in sorted(places.items()):
        _, link = there[0]
        if len(there) > 1:
            link = _write(shard.below(place), there, keep)
        links.append(link._replace(name=f"{place:0{_digits(shard.fanout)}X}{link.name}"))
        taken |= 1 << place
    return keep(encode_shard(links, taken, shard.fanout), sum(link.size for link in links))


def _digits(fanout: int) -> int:
    """How many a place is written with."""
    return len(f"{fanout - 1:X}")


def _refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "The content is not a sound UnixFS folder.")
