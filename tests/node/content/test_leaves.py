"""What is kept of a file's leaves: where each is, its CID, and its block; whatever their lengths and makes."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, V0, V1_DAG_PB, format_cid, make_cid, parts
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.leaves import BARE, Leaves, Wrap, unwrap, wrap_of
from ipfs_accel_node.node.content.unixfs import decode
from ipfs_accel_node.protocols.errors import AccelError

WRAPS = st.sampled_from(
    [BARE, Wrap(V1_DAG_PB, 2), Wrap(V0, 2), Wrap(V0, 0), Wrap(V1_DAG_PB, 2, False), Wrap(V0, head=b"h", tail=b"tail")]
)
#: Runs of alike leaves: how many, how long, how made.
RUNS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 300), WRAPS), min_size=1, max_size=6)


def block_of(data, wrap):
    head, tail = wrap.around(len(data))
    return head + data + tail


def filled(runs, path="f"):
    """The entry of these leaves, their blocks and the file's bytes."""
    leaves, blocks, whole = Leaves(path), [], b""
    for count, length, wrap in runs:
        for _ in range(count):
            data = hashlib.shake_128(len(blocks).to_bytes(4, "big")).digest(length)
            blocks.append(block_of(data, wrap))
            leaves.add(hashlib.sha256(blocks[-1]).digest(), length, wrap)
            whole += data
    return leaves.entry(), blocks, whole


@settings(max_examples=80, deadline=None)
@given(RUNS)
def test_every_leaf_is_found_again_with_its_block_and_cid(runs):
    entry, blocks, whole = filled(runs)
    assert (entry.size, entry.leaf_count) == (len(whole), len(blocks))
    wraps = [wrap for count, _, wrap in runs for _ in range(count)]
    end = 0
    for number, block in enumerate(blocks):
        offset, length = entry.extent(number)
        assert offset == end
        end += length
        assert entry.block(number, whole[offset:end]) == block
        assert entry.data(number, block) == whole[offset:end]
        assert entry.data(number, block + b"x") is None
        assert entry.cid(number) == wraps[number].start + hashlib.sha256(block).digest()
        assert parts(entry.cid(number)).digest == entry.digest(number)
    assert end == len(whole)
    assert entry.chunk == max(length for _, length, _ in runs)


@settings(max_examples=50, deadline=None)
@given(st.lists(RUNS, min_size=1, max_size=4))
def test_contents_come_back_and_are_the_same_bytes_in_any_order(many):
    files = [filled(runs, f"{'ab/' * (number % 2)}f{number}")[0] for number, runs in enumerate(many)]
    contents = Contents(make_cid(DAG_PB, b"root"), files, ["void"], {make_cid(DAG_PB, b"root"): b"root"}, {"l": "f0"})
    packed = contents.pack()
    back = Contents.unpack(packed)
    assert sorted(back.files, key=lambda file: file.path) == sorted(files, key=lambda file: file.path)
    assert (back.root, back.empty_folders, back.nodes, back.links) == (
        contents.root, contents.empty_folders, contents.nodes, contents.links,
    )  # fmt: skip
    contents.files.reverse()
    assert contents.pack() == back.pack() == packed


def test_equal_leaves_take_32_bytes_each():
    digests = hashlib.shake_128(b"").digest(32 * 10_000)
    for wrap in (BARE, Wrap(V0, 2)):
        leaves = Leaves("weights")
        leaves.add(digests, 1 << 18, wrap)
        assert len(Contents(b"r", [leaves.entry()]).pack()) < 32 * 10_000 + 150


def test_what_an_earlier_version_wrote_is_read():
    chunks = [b"x" * 10, b"x" * 10, b"xyz"]
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    empty = hashlib.sha256(b"").digest()
    packed = msgpack.packb([2, b"root", [["a/w", 23, 10, digests], ["e", 0, 1, empty]], ["void"], [[b"n", b"node"]]])
    contents = Contents.unpack(hashlib.sha256(packed).digest() + packed)
    weights, nothing = contents.files
    assert [weights.extent(number) for number in range(3)] == [(0, 10), (10, 10), (20, 3)]
    assert weights.cid(2) == make_cid(RAW, b"xyz")
    assert (weights.size, nothing.size, nothing.extent(0)) == (23, 0, (0, 0))
    assert (contents.root, contents.empty_folders, contents.nodes, contents.links) == (
        b"root", ["void"], {b"n": b"node"}, {},
    )  # fmt: skip


def test_a_version_to_come_and_damage_are_told():
    packed = msgpack.packb([4])
    with pytest.raises(AccelError, match="version 4"):
        Contents.unpack(hashlib.sha256(packed).digest() + packed)
    with pytest.raises(AccelError, match="damaged"):
        Contents.unpack(Contents(b"r").pack()[:-1])


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16384, 1 << 18])
@pytest.mark.parametrize(("kind", "sized"), [(2, True), (2, False), (0, True), (0, False)])
def test_a_make_with_a_type_is_a_block_of_that_type(length, kind, sized):
    wrap, data = Wrap(V0, kind, sized), b"d" * length
    block = block_of(data, wrap)
    assert decode(block).data == data
    assert wrap_of(V0, block, data).around(length) == wrap.around(length)
    assert unwrap(block, wrap.around(length + 1), length + 1) is None


@pytest.mark.parametrize(
    ("data", "cid"),
    [
        (b"", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
        (b"hello world\n", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"),
        (b"hello world", "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"),
    ],
)
def test_files_that_everybody_knows(data, cid):
    assert format_cid(V0 + hashlib.sha256(block_of(data, Wrap(V0, 2))).digest()) == cid


def test_a_make_of_no_kind_is_kept_as_it_is():
    data = b"some bytes"
    odd = b"\x0a\x10\x12\x0a" + data + b"\x08\x02\x18\x0a"
    assert decode(odd).data == data
    wrap = wrap_of(V0, odd, data)
    assert (wrap.kind, wrap.head, wrap.tail) == (None, odd[:4], odd[14:])
