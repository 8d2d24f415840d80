"""The dag-pb and UnixFS codec: known bytes, round trips, and malformed blocks refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import RAW, make_cid
from ipfs_accel_node.node.content.unixfs import (
    Link,
    _bytes_field,
    _field,
    decode,
    encode_directory,
    encode_file,
)
from ipfs_accel_node.protocols.errors import AccelError

LEAF = make_cid(RAW, b"leaf")
NAMES = st.text("abcäöü0-._", min_size=1, max_size=10).filter(lambda name: name not in (".", ".."))
LINKS = st.lists(st.builds(Link, st.binary(max_size=20).map(lambda b: make_cid(RAW, b)), NAMES, st.integers(0, 2**40)),
                 max_size=8, unique_by=lambda link: link.name)  # fmt: skip


def test_the_bytes_are_those_of_the_specification():
    """Written out by hand from dag-pb's and UnixFS's protobuf definitions."""
    cid = LEAF.hex()
    assert encode_directory([Link(LEAF, "a", 4)]).hex() == f"122b0a24{cid}12016118040a020801"
    assert encode_file([Link(LEAF, "", 300)], [300]).hex() == f"122b0a24{cid}120018ac020a08080218ac0220ac02"
    assert encode_directory([]).hex() == "0a020801"


def test_a_node_of_another_implementation_is_read():
    """With modes and times of change (UnixFS 1.5), its fields in Kubo's order."""
    unixfs = _field(1, 2) + _field(3, 4) + _field(4, 4) + _field(7, 0o644) + _bytes_field(8, _field(1, 1_700_000_000))
    block = _bytes_field(2, _bytes_field(1, LEAF) + _bytes_field(2, b"") + _field(3, 4)) + _bytes_field(1, unixfs)
    node = decode(block)
    assert (node.file_size, node.block_sizes, node.links[0].cid) == (4, (4,), LEAF)


@given(LINKS)
def test_folders_come_out_as_they_went_in(links):
    node = decode(encode_directory(links))
    assert sorted(node.links, key=repr) == sorted(links, key=repr)
    assert [link.name.encode() for link in node.links] == sorted(link.name.encode() for link in links)


@given(st.lists(st.integers(0, 2**30), max_size=8))
def test_files_come_out_as_they_went_in(sizes):
    node = decode(encode_file([Link(LEAF, "", size) for size in sizes], sizes))
    assert (list(node.block_sizes), node.file_size) == (sizes, sum(sizes))


@given(LINKS, st.data())
def test_mutated_nodes_are_nodes_or_refused(links, data):
    block = bytearray(encode_directory(links))
    block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(block)) is not None
    except AccelError as error:
        assert error.code == "hostile-content"


@given(st.binary(max_size=100))
def test_any_bytes_are_a_node_or_refused(data):
    try:
        assert decode(data) is not None
    except AccelError as error:
        assert error.code == "hostile-content"


@pytest.mark.parametrize("kind", [4, 5, 3, 99])
def test_kinds_that_are_not_read(kind):
    with pytest.raises(AccelError, match="hostile-content"):
        decode(_bytes_field(1, _field(1, kind)))


@pytest.mark.parametrize(
    "block",
    [b"", b"\x0a", b"\x0a\x05abc", b"\xff" * 20, _bytes_field(3, b"x") + _bytes_field(1, _field(1, 1)),
     _bytes_field(1, _field(1, 1)) * 2, _bytes_field(1, _field(1, 1)) + b"\x0d1234",
     _bytes_field(2, _bytes_field(1, b"no cid")) + _bytes_field(1, _field(1, 1)),
     _bytes_field(2, _bytes_field(1, LEAF) + _bytes_field(2, b"\xff")) + _bytes_field(1, _field(1, 1)),
     _bytes_field(2, _bytes_field(1, LEAF) * 2) + _bytes_field(1, _field(1, 1)),
     _bytes_field(2, _bytes_field(2, b"no cid")) + _bytes_field(1, _field(1, 1)),
     _bytes_field(2, _bytes_field(1, b"\x01\x71" + LEAF[2:])) + _bytes_field(1, _field(1, 1)),
     _bytes_field(1, _field(1, 1) * 2), _bytes_field(1, _field(1, 1) + _bytes_field(2, b"bytes")),
     _bytes_field(1, _field(1, 2) + _field(4, 5)), _bytes_field(1, _field(3, 0)),
     _bytes_field(1, _field(1, 1)) + b"trailing garbage", bytes(3 << 20)],
)  # fmt: skip
def test_malformed_blocks(block):
    with pytest.raises(AccelError, match="hostile-content"):
        decode(block)
