"""Bytes and messages that nobody sane would send: only the typed error comes out, and nothing piles up."""

from __future__ import annotations

import msgpack
import pytest
from fuzzing import targets
from fuzzing.corpus import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.protocols import framing, inference, sealing, tokens, values
from ipfs_accel_node.protocols.errors import AccelError, ProtocolError
from ipfs_accel_node.protocols.hello import Hello, HelloFacts
from ipfs_accel_node.protocols.inference_session import Limits, Session

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**53, 2**53 + 1, 2**64 - 1])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=10) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def mutated(draw, seeds):
    """A seed, or two spliced, with bytes changed, left out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data))) :] = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "double", "insert"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.parametrize("name", ["frames", "hello", "advert"])
def test_damaged_conversations(name):
    seeds = [seed for seed in CORPUS[name]() if seed]

    @settings(max_examples=60, deadline=None)
    @given(mutated(seeds))
    def run(data):
        targets.TARGETS[name](data)

    run()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 12), st.lists(ANYTHING, max_size=10)), max_size=30))
def test_messages_with_fields_of_any_type(messages):
    session = Session(dialler=True, limits=Limits(max_open=4, max_payload=100_000, max_buffered=150_000))
    session.request(inference.Request(bytes(16), 1, "m", "t", {}, {}, 1, {}), bytes(300_000))
    for kind, request_id, fields in messages:
        try:
            session.receive(framing.encode(kind, request_id, *fields))
        except ProtocolError as error:
            assert error.code == "protocol-error"
            break
    assert session.open_requests <= 5
    assert 0 <= session._buffered <= 150_000
    session.connection_lost()
    assert (session.open_requests, session.queued_bytes, session._buffered) == (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANYTHING, min_size=6, max_size=10), st.booleans())
def test_a_hello_with_fields_of_any_type(fields, dialler):
    side = Hello(HelloFacts("n", 1), b"k" * 32, dialler=dialler, own_peer_id=b"L", peer_id=b"R")
    try:
        side.receive(framing.encode(64, 0, *fields))
        side.receive(framing.encode(65, 0, *fields))
    except AccelError as error:
        assert error.code in ("protocol-error", "version-mismatch", "wrong-cluster-key")
    assert not side.done


@settings(max_examples=60, deadline=None)
@given(st.lists(ANYTHING | st.lists(st.lists(ANYTHING, max_size=8), max_size=3), min_size=8, max_size=11))
def test_an_advert_with_fields_of_any_type(fields):
    targets.advert(msgpack.packb([1, *fields]))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.data())
def test_a_sealed_message_of_a_member_may_hold_anything(body, data):
    sealed = bytearray(sealing.seal(body, cluster_key=targets.KEY, signing_key=b"s" * 32))
    assert sealing.open_sealed(bytes(sealed), cluster_key=targets.KEY)[1] == body
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        sealing.open_sealed(bytes(sealed), cluster_key=targets.KEY)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80) | st.lists(ANYTHING, max_size=3).map(msgpack.packb))
def test_a_token_whose_checksum_is_right_may_hold_anything(content):
    try:
        key, addresses = sealing.decode_token(tokens.wrap(sealing.TOKEN_PREFIX, content))
    except AccelError as error:
        assert error.code == "bad-token"
    else:
        assert len(key) == 32
        assert all(type(address) is str for address in addresses)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANYTHING, max_size=5), st.integers(-128, 127))
def test_extensions_with_fields_of_any_type(fields, code):
    for content in (msgpack.packb(fields), msgpack.packb(["int8", *fields])):
        try:
            values.pack(values.unpack(msgpack.packb(msgpack.ExtType(code & 0x7F, content))))
        except ProtocolError as error:
            assert error.message
