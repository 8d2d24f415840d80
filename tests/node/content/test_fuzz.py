"""Graphs of nodes that fit together by chance: a model comes out, or a refusal with a code, in bounded time."""

from __future__ import annotations

import time

from fuzzing import targets
from fuzzing.corpus import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.unixfs import Link, _bytes_field, _encode, _field

SIZES = st.integers(0, 9) | st.sampled_from([1 << 20, 1 << 21, (1 << 21) + 1, 1 << 46, 1 << 62])
#: Few CIDs, so that a node is named again and again, by itself too.
CIDS = st.sampled_from(
    [make_cid(codec, bytes([number])) for codec in (RAW, DAG_PB) for number in range(3)]
    + [b"\x01\x70\x00\x04\x0a\x02\x08\x01", b"\x01\x55\x00\x03abc", b"\x12\x20" + bytes(32), b"\x01\x71\x12\x20", b""]
)
NAMES = st.sampled_from(["", "a", "b", "config.json", "..", "a/b", "\0", "x" * 256, "ä", "0a", "CCa", "85"])


@st.composite
def nodes(draw):
    """A node whose links, sizes and kind need not agree."""
    links = draw(st.lists(st.builds(Link, CIDS, NAMES, SIZES), max_size=5))
    kind = draw(st.sampled_from([1, 2, 2, 0, 4, 5, 9]))
    sizes = [draw(st.just(link.size) | SIZES) for link in links] if kind != 1 else []
    total = draw(st.just(sum(sizes)) | SIZES)
    data = _field(1, kind) + (_field(3, total) if kind != 1 else b"") + b"".join(_field(4, size) for size in sizes)
    if kind == 5:
        data += _field(5, draw(st.sampled_from([0x22, 0x22, 0x12]))) + _field(
            6, draw(st.sampled_from([8, 256, 1024, 3]))
        )
    if draw(st.integers(0, 9 if kind not in (4, 5) else 1)) == 0:
        data += _bytes_field(2, draw(st.binary(max_size=9)))
    return _encode(links, data)


@settings(max_examples=100, deadline=None)
@given(st.lists(nodes(), min_size=1, max_size=6))
def test_graphs_made_by_chance(blocks):
    began = time.process_time()
    targets.dag(targets.joined_blocks(*blocks))
    assert time.process_time() - began < 20


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(CORPUS["dag"]())), st.data())
def test_damaged_graphs(seed, data):
    block = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 5))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    targets.dag(bytes(block))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"\A[bBfFzZuUmMkQ][a-zA-Z0-9+/=_-]{40,70}\Z"))
def test_any_text_is_a_cid_or_told(text):
    targets.dag(text.encode("utf-8", "surrogatepass"))
