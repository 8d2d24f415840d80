"""The hash that spreads a folder over shards: what others' implementations give."""

from __future__ import annotations

import pytest
from ipfs_accel_node.node.content.murmur3 import hamt_hash, murmur3_x64_128


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "00000000000000000000000000000000"),
        (b"hello", "cbd8a7b341bd9b025b1e906a48ae1d19"),
        (b"0123456789abcdef", "4be06d94cf4ad1a787c35b5c63a708da"),
        (b"model-00001-of-00002.safetensors", "8d96341b1a7a3aab296a988de1bb5d51"),
        (bytes(range(33)), "7d41281bfaba461255ac8073a7d6a30b"),
        (b"The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"),
    ],
)
def test_hashes_that_others_give(data, digest):
    assert murmur3_x64_128(data).hex() == digest


def test_the_first_half_places_a_name():
    assert hamt_hash("hello") == 0xCBD8A7B341BD9B02
