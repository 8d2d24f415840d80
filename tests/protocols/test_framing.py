"""Frames and values: whole, byte by byte, with trailing bytes, and mutated."""

from __future__ import annotations

import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols import framing, values
from ipfs_accel_node.protocols.errors import ProtocolError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FRAMES = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 2**32 - 1), st.lists(PLAIN, max_size=4)), min_size=1, max_size=5
)


def cut(data, sizes):
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@given(FRAMES, st.lists(st.integers(0, 30), max_size=40))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, sizes):
    wire = b"".join(framing.encode(kind, request_id, *fields) for kind, request_id, fields in frames)
    decoder = framing.Decoder()
    out = [frame for part in cut(wire, sizes) for frame in decoder.feed(part)]
    assert [(each.type, each.request_id, list(each.fields)) for each in out] == frames
    assert decoder.take_rest() == b""


def test_byte_by_byte_and_what_follows_stays():
    wire = framing.encode(7, 9, "a", b"b", [1, {"c": None}])
    decoder = framing.Decoder()
    frames = [frame for byte in wire for frame in decoder.feed(bytes([byte]))]
    assert frames == [framing.Frame(7, 9, ("a", b"b", [1, {"c": None}]))]
    assert decoder.feed(wire + b"\x00\x00") == frames
    assert decoder.take_rest() == b"\x00\x00"


@given(FRAMES, st.data())
def test_mutated_bytes_give_frames_or_a_protocol_error(frames, data):
    wire = bytearray(b"".join(framing.encode(kind, request_id, *fields) for kind, request_id, fields in frames))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert all(isinstance(frame, framing.Frame) for frame in framing.Decoder().feed(bytes(wire)))
    except ProtocolError as error:
        assert error.code == "protocol-error"


@pytest.mark.parametrize(
    "content",
    [
        msgpack.packb([1]),
        msgpack.packb("text"),
        msgpack.packb(["a", 1]),
        msgpack.packb([1, -1]),
        msgpack.packb([1, 1 << 40]),
        msgpack.packb([True, 1]),
        msgpack.packb([1, 1, {1: 2}]),
        msgpack.packb([1, 1, msgpack.ExtType(5, b"x")]),
        msgpack.packb([1, 1, msgpack.Timestamp(1)]),
        msgpack.packb([1, 1]) + b"\x01",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000 + b"\x01",
    ],
)
def test_malformed_frames_are_refused(content):
    with pytest.raises(ProtocolError):
        framing.Decoder().feed(len(content).to_bytes(4, "big") + content)


def test_depth_is_bounded():
    nested: object = 1
    for _ in range(framing.MAX_DEPTH + 2):
        nested = [nested]
    with pytest.raises(ProtocolError, match="nested deeper"):
        framing.Decoder().feed(framing.encode(1, 1, nested))


def test_an_announced_giant_is_refused_before_it_comes():
    with pytest.raises(ProtocolError, match="over the limit"):
        framing.Decoder().feed((framing.MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="over the limit"):
        framing.encode(1, 1, bytes(framing.MAX_FRAME))


@given(PLAIN)
def test_values_come_out_as_they_went_in(value):
    assert values.unpack(values.pack(value)) == value


@pytest.mark.parametrize("dtype", sorted(values.ITEM_SIZES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_arrays_of_every_type_and_shape(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    (out,) = values.map_arrays(values.unpack(values.pack([values.Array.from_numpy(array)])))
    assert out.dtype == array.dtype
    assert out.shape == shape
    assert np.array_equal(out, array)


def test_big_endian_arrays_travel_little_endian():
    array = np.array([1, 2, 3], dtype=">i4")
    assert values.Array.from_numpy(array).data == b"\x01\0\0\0\x02\0\0\0\x03\0\0\0"
    assert values.unpack(values.pack({"n": np.float32(2.5)})) == {"n": 2.5}


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [("float32", [2], b"1234567"), ("object", [1], b"12345678"), ("int8", [-1], b""), ("int8", [1 << 62, 4], b""),
     ("int8", [1] * 9, b"1"), ("int8", ["1"], b"1"), ("int8", 1, b"1")],
)  # fmt: skip
def test_arrays_that_disagree_with_themselves_are_refused(dtype, shape, data):
    wire = msgpack.packb(msgpack.ExtType(1, msgpack.packb([dtype, shape, data])))
    with pytest.raises(ProtocolError):
        values.unpack(wire)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_protocol_error(data):
    try:
        values.unpack(data)
    except ProtocolError as error:
        assert error.message


def test_what_does_not_travel_is_bad_input():
    for value in (object(), {1, 2}, np.array([object()]), {1: 2}, [{"a": {2: 3}}]):
        with pytest.raises(ProtocolError):
            values.pack(value)


@pytest.mark.parametrize("filler", [b"\x80", b"\x90", b"\x91\xc0", b"\xc0"])
def test_what_takes_far_more_memory_than_bytes_is_refused_while_it_is_unpacked(filler):
    count = 16 << 20
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        values.unpack(b"\xdd" + count.to_bytes(4, "big") + filler * count)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 256 << 20


def test_many_lists_and_texts_are_no_bomb():
    value = [["a", {"b": 1}]] * 200_000 + ["text"] * 400_000
    assert len(values.pack(value)) > 1 << 20
    assert values.unpack(values.pack(value)) == value
