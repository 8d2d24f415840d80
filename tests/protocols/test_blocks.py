"""The block protocol: raw bytes after their frame, in the order asked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.protocols.blocks import (
    MAX_BLOCK,
    MAX_WANT,
    BlockAnswerer,
    BlockAsker,
    BlockMissing,
    BlockReceived,
    BlocksRefused,
    block_header,
    block_missing,
    blocks_refused,
)
from ipfs_accel_node.protocols.errors import ProtocolError
from ipfs_accel_node.protocols.framing import encode


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(0, 3000), max_size=80), st.integers(0, 2**32))
def test_blocks_come_in_the_order_asked_however_they_are_cut(sizes, seed):
    rng = random.Random(seed)
    blocks = [
        (f"cid-{place}".encode(), None if size is None else rng.randbytes(size)) for place, size in enumerate(sizes)
    ]
    asker, answerer = BlockAsker(), BlockAnswerer()
    assert answerer.receive(asker.want([cid for cid, _ in blocks])) == [cid for cid, _ in blocks]
    wire = b"".join(
        block_missing(cid) if block is None else block_header(cid, len(block)) + block for cid, block in blocks
    )
    events, at = [], 0
    while at < len(wire):
        step = rng.randint(1, 2000)
        events += asker.receive(wire[at : at + step])
        at += step
    assert events == [BlockMissing(cid) if block is None else BlockReceived(cid, block) for cid, block in blocks]
    assert (asker.waiting, asker.in_block) == (0, False)


def test_the_wire_never_changes():
    assert BlockAsker().want([b"c"]).hex() == "0000000793200091c40163"
    assert block_header(b"c", 300).hex() == "00000009942100c40163cd012c"
    assert block_missing(b"c").hex() == "00000006932200c40163"
    assert blocks_refused("busy", "m").hex() == "0000000a942300a462757379a16d"


def test_a_refusal_is_told():
    assert BlockAsker().receive(blocks_refused("busy", "later")) == [BlocksRefused("busy", "later")]


@pytest.mark.parametrize(
    "wire",
    [block_header(b"other", 1), block_missing(b"other"), block_header(b"a", MAX_BLOCK + 1), encode(32, 0, [b"a"]),
     encode(33, 0, b"a", -1), encode(33, 0, "a", 1), b"\xff\xff\xff\xff\xff"],
)  # fmt: skip
def test_answers_that_were_not_asked_for_are_refused(wire):
    asker = BlockAsker()
    asker.want([b"a", b"other-than-that"])
    with pytest.raises(ProtocolError):
        asker.receive(wire)


@pytest.mark.parametrize(
    "wire", [encode(32, 0, [b"c"] * (MAX_WANT + 1)), encode(32, 0, ["c"]), encode(32, 0), encode(33, 0, b"c", 1),
             encode(32, 0, [b"c" * 200])]
)  # fmt: skip
def test_wants_that_are_none_are_refused(wire):
    with pytest.raises(ProtocolError):
        BlockAnswerer().receive(wire)


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_a_protocol_error(data):
    for side in (BlockAsker(), BlockAnswerer()):
        try:
            side.receive(data)
        except ProtocolError as error:
            assert error.message
