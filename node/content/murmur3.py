"""MurmurHash3 x64 128, of which UnixFS uses the first half to spread a folder's entries over shards.

Source: Austin Appleby's MurmurHash3.cpp, `MurmurHash3_x64_128` with seed 0; multihash `murmur3-x64-64`, 0x22.
"""

from __future__ import annotations

import struct
from typing import Final

_MASK: Final = (1 << 64) - 1
_C1: Final = 0x87C37B91114253D5
_C2: Final = 0x4CF5AD432745937F


def murmur3_x64_128(data: bytes) -> bytes:
    """The 16 bytes of the hash, each half big-endian; names of files are short, so this need not be quick."""
    first = second = 0
    whole = len(data) & ~15
    for one, two in struct.iter_unpack("<QQ", data[:whole]):
        first = (_rotate(first ^ _mix_one(one), 27) + second) * 5 + 0x52DCE729 & _MASK
        second = (_rotate(second ^ _mix_two(two), 31) + first) * 5 + 0x38495AB5 & _MASK
    rest = data[whole:]
    first ^= _mix_one(int.from_bytes(rest[:8], "little")) ^ len(data)
    second ^= _mix_two(int.from_bytes(rest[8:], "little")) ^ len(data)
    first = first + second & _MASK
    second = second + first & _MASK
    first, second = _finish(first), _finish(second)
    first = first + second & _MASK
    return struct.pack(">QQ", first, second + first & _MASK)


def hamt_hash(name: str) -> int:
    """The 64 bits that place an entry in a sharded folder: the first ones choose its place in the root's shard."""
    return int.from_bytes(murmur3_x64_128(name.encode())[:8], "big")


def _rotate(number: int, by: int) -> int:
    return (number << by | number >> 64 - by) & _MASK


def _mix_one(number: int) -> int:
    return _rotate(number * _C1 & _MASK, 31) * _C2 & _MASK


def _mix_two(number: int) -> int:
    return _rotate(number * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(number: int) -> int:
    number = (number ^ number >> 33) * 0xFF51AFD7ED558CCD & _MASK
    number = (number ^ number >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return number ^ number >> 33
