"""dag-pb and UnixFS: round trips, and everything hostile refused before disk is spent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.dag import DagWalk
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


def refused(root_block: bytes, *more: bytes) -> str:
    """Walks a DAG of these blocks and gives the reason for which it is refused."""
    blocks = {make_cid(DAG_PB, block): block for block in (root_block, *more)}
    walk = DagWalk(make_cid(DAG_PB, root_block))
    with pytest.raises(AccelError) as error:
        while wanted := walk.wanted():
            for cid in wanted:
                walk.add(cid, blocks[cid])
        walk.finished()
    assert error.value.code == "hostile-content"
    return error.value.message


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc/passwd", "a\0b", "a\\b", "x" * 300])
def test_names_that_lead_elsewhere(name):
    assert "no file name" in refused(encode_directory([Link(LEAF, name, 1)]))


def test_two_entries_of_one_name():
    assert "one name" in refused(encode_directory([Link(LEAF, "a", 1), Link(make_cid(RAW, b"b"), "a", 1)]))


def test_sizes_that_do_not_add_up():
    inner = encode_file([Link(LEAF, "", 4), Link(LEAF, "", 4)], [4, 4])
    outer = encode_file([Link(make_cid(DAG_PB, inner), "", 99)], [7])
    root = encode_directory([Link(make_cid(DAG_PB, outer), "a", 99)])
    assert "add up" in refused(root, outer, inner)


def test_a_file_whose_parts_are_not_its_size():
    unixfs = _field(1, 2) + _field(3, 1 << 50) + _field(4, 5)
    block = _bytes_field(2, _bytes_field(1, LEAF) + _bytes_field(2, b"") + _field(3, 5)) + _bytes_field(1, unixfs)
    assert "sum of its parts" in refused(encode_directory([Link(make_cid(DAG_PB, block), "a", 1)]), block)


def test_chunks_of_odd_sizes():
    block = encode_file([Link(LEAF, "", 4), Link(make_cid(RAW, b"x"), "", 9)], [4, 9])
    assert "differ in size" in refused(encode_directory([Link(make_cid(DAG_PB, block), "a", 1)]), block)


def test_absurd_chunks():
    block = encode_file([Link(LEAF, "", 1 << 40)], [1 << 40])
    assert "2 MiB" in refused(encode_directory([Link(make_cid(DAG_PB, block), "a", 1)]), block)


def test_folders_nested_too_deep():
    blocks = [encode_directory([Link(LEAF, "leaf", 4)])]
    for _ in range(40):
        blocks.insert(0, encode_directory([Link(make_cid(DAG_PB, blocks[0]), "d", 1)]))
    assert "nested deeper" in refused(blocks[0], *blocks[1:])


def test_a_folder_of_nothing_and_a_root_that_is_none():
    assert "no files" in refused(encode_directory([]))
    assert "names a file" in refused(encode_file([Link(LEAF, "", 4)], [4]))
    with pytest.raises(AccelError, match="single block"):
        DagWalk(LEAF)


@pytest.mark.parametrize("kind", [4, 5, 3, 99])
def test_kinds_that_are_not_read(kind):
    assert "refused" in refused(_bytes_field(1, _field(1, kind)))


@pytest.mark.parametrize(
    "block",
    [b"", b"\x0a", b"\x0a\x05abc", b"\xff" * 20, _bytes_field(3, b"x") + _bytes_field(1, _field(1, 1)),
     _bytes_field(1, _field(1, 1)) * 2, _bytes_field(1, _field(1, 1)) + b"\x0d1234",
     _bytes_field(2, _bytes_field(1, b"no cid")) + _bytes_field(1, _field(1, 1)),
     _bytes_field(2, _bytes_field(1, LEAF) + _bytes_field(2, b"\xff")) + _bytes_field(1, _field(1, 1))],
)  # fmt: skip
def test_malformed_blocks(block):
    with pytest.raises(AccelError, match="hostile-content"):
        decode(block)
