"""Unsigned LEB128 as protobuf and multiformats write it: seven bits a byte, the lowest first."""

from __future__ import annotations


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
