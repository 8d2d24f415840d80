"""An attempt that goes on gets what was given out, and nothing malformed gets further than an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols.errors import ProtocolError
from ipfs_accel_node.protocols.resumption import OPTION, pack_resumption, unpack_payload
from ipfs_accel_node.protocols.values import Array, pack
from ipfs_accel_node.protocols.work import Work

RESUMED = {OPTION: True}
INPUTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50)


@given(INPUTS, IDS, st.integers(0, 10**6))
def test_it_comes_out_as_it_went_in(inputs, ids, characters):
    resumption = unpack_payload(pack_resumption(pack(inputs), ids, characters), RESUMED)
    assert (resumption.inputs, list(resumption.token_ids), resumption.characters) == (inputs, ids, characters)


@given(INPUTS)
def test_without_the_option_the_payload_is_the_inputs(inputs):
    assert unpack_payload(pack(inputs), {}).inputs == inputs
    assert unpack_payload(pack(inputs), {OPTION: 1}).inputs == inputs


@given(st.binary(max_size=60) | INPUTS.map(pack))
def test_anything_else_is_a_typed_error(data):
    with pytest.raises(ProtocolError):
        unpack_payload(data, RESUMED)


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": 1, "token_ids": [1], "characters": 0},
        {"inputs": 1, "token_ids": Array("int64", (1,), bytes(8)), "characters": 0},
        {"inputs": 1, "token_ids": Array("int32", (1, 1), bytes(4)), "characters": 0},
        {"inputs": 1, "token_ids": Array("int32", (1,), bytes(4)), "characters": -1},
        {"inputs": 1, "token_ids": Array("int32", (1,), bytes(4)), "characters": 1 << 50},
        {"inputs": 1, "token_ids": Array("int32", ((1 << 20) + 1,), bytes(4 * ((1 << 20) + 1))), "characters": 0},
        {"token_ids": Array("int32", (0,), b""), "characters": 0},
    ],
)
def test_each_field_is_looked_at(value):
    with pytest.raises(ProtocolError, match="malformed"):
        unpack_payload(pack(value), RESUMED)


def test_the_wire_never_changes():
    packed = pack_resumption(pack(["a"]), [1, -2], 3).hex()
    assert packed == (
        "83a6696e7075747391a161a9746f6b656e5f696473c7130193a5696e7433329102c40801000000feffffffaa6368617261637465727303"
    )


@given(st.dictionaries(st.sampled_from(["bytes", "outputs", "x"]), st.none() | st.floats() | st.integers() | st.text()))
def test_work_is_never_negative_or_endless(counted):
    work = Work.of(counted)
    assert 0 <= work.units < float("inf")
    assert 0 <= work.outputs < float("inf")
    assert Work.of(work.as_dict()).units == pytest.approx(work.units, abs=0.5)


def test_work_that_no_message_could_carry_is_counted_as_the_most():
    assert pack(Work.of({"bytes": 1e300, "outputs": 2**63}).as_dict()) == pack({"bytes": 2**53, "outputs": 2**53})
