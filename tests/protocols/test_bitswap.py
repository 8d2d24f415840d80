"""Bitswap's messages: the same events however they are cut, nothing kept that nobody wants, only typed errors."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.protocols.bitswap import (
    MAX_BLOCK,
    MAX_MESSAGE,
    BlockCame,
    Decoder,
    Presence,
    Want,
    WantlistEnded,
    encode_answer,
    encode_wants,
    prefix_of,
    varint,
)
from ipfs_accel_node.protocols.bitswap_ledger import MAX_WANTS, Asked, Ledger
from ipfs_accel_node.protocols.errors import ProtocolError

DIGESTS = st.binary(min_size=32, max_size=32)
CIDS = st.builds(bytes.__add__, st.sampled_from([b"\x12\x20", b"\x01\x55\x12\x20", b"\x01\x70\x12\x20"]), DIGESTS)
WANTS = st.builds(Want, CIDS, st.booleans(), st.booleans(), st.booleans(), st.integers(1, 2**31 - 1))
LISTS = st.tuples(st.lists(WANTS, max_size=8), st.booleans())
BLOCKS = st.lists(st.tuples(CIDS, st.binary(max_size=3000)), max_size=4)
ANSWERS = st.tuples(BLOCKS, st.lists(st.builds(Presence, CIDS, st.booleans()), max_size=4))
CID = b"\x01\x55\x12\x20" + bytes(32)


def wire_and_events(said):
    """The bytes of messages, and what they are to be read as."""
    wire, events = b"", []
    for kind, first, second in said:
        if kind == "wants":
            wire += encode_wants(first, full=second)
            events += [*first, WantlistEnded(second)]
        else:
            wire += encode_answer(first, second)
            events += [WantlistEnded(False), *(BlockCame(block) for _, block in first), *second]
    return wire, events


SAID = st.lists(LISTS.map(lambda each: ("wants", *each)) | ANSWERS.map(lambda each: ("answer", *each)), max_size=5)


def read_in_pieces(decoder, wire, seed):
    rng, at, events = random.Random(seed), 0, []
    while at < len(wire):
        step = rng.choice([1, 2, 7, 100, 5000])
        events += decoder.receive(wire[at : at + step])
        at += step
    return events


@settings(deadline=None)
@given(SAID, st.integers(0, 2**32))
def test_messages_are_read_however_they_are_cut(said, seed):
    wire, events = wire_and_events(said)
    assert list(Decoder().receive(wire)) == events
    decoder = Decoder()
    assert read_in_pieces(decoder, wire, seed) == events
    assert decoder.held == 0


@settings(deadline=None)
@given(SAID, st.integers(0, 2**32))
def test_blocks_without_a_reader_are_skipped_and_nothing_of_them_is_kept(said, seed):
    wire, events = wire_and_events(said)
    decoder, rng, at, read = Decoder(takes_blocks=False), random.Random(seed), 0, []
    while at < len(wire):
        step = rng.choice([1, 2, 7, 100, 5000])
        read += decoder.receive(wire[at : at + step])
        assert decoder.held < 256
        at += step
    assert read == [event for event in events if not isinstance(event, BlockCame)]


@settings(max_examples=200, deadline=None)
@given(SAID, st.data())
def test_damaged_messages_are_events_or_a_protocol_error(said, data):
    wire = bytearray(wire_and_events(said)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire)))
        wire[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    feed_anything(bytes(wire))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_events_or_a_protocol_error(data):
    feed_anything(data)


def feed_anything(data):
    decoder = Decoder()
    try:
        for at in range(0, len(data), 50):
            for event in decoder.receive(data[at : at + 50]):
                assert isinstance(event, Want | WantlistEnded | BlockCame | Presence)
    except ProtocolError as error:
        assert error.code == "protocol-error"


def test_the_wire_never_changes():
    assert encode_wants([Want(CID, send_dont_have=True)]).hex() == "2e0a2c0a2a0a2401551220" + "00" * 32 + "10012801"
    assert encode_wants([Want(CID, have=True, cancel=True)], full=True).hex() == (
        "320a300a2c0a2401551220" + "00" * 32 + "1001180120011001"
    )
    assert encode_answer([(CID, b"abc")], []).hex() == "0f0a001a0b0a04015512201203616263"
    assert encode_answer([], [Presence(CID, False)]).hex() == "2c0a0022280a2401551220" + "00" * 32 + "1001"
    assert encode_answer([], []) == b"\x02\x0a\x00", "Kubo before 0.37 ends itself for want of a wantlist"
    assert prefix_of(b"\x12\x20" + bytes(32)).hex() == "00701220"


def test_a_block_of_bitswap_1_0_and_fields_of_later_versions_are_read():
    later = b"\x28\x05" + b"\x35abcd" + b"\x39abcdefgh" + b"\x3a\x03new"
    message = later + b"\x12\x03old" + b"\x0a\x09" + b"\x18\x01" + b"\x22\x03new" + b"\x10\x01"
    assert list(Decoder().receive(varint(len(message)) + message)) == [BlockCame(b"old"), WantlistEnded(True)]


LARGE = {
    "a message": varint(MAX_MESSAGE + 1),
    "a block": varint(MAX_MESSAGE) + b"\x1a" + varint(MAX_BLOCK + 10_000),
    "an entry": varint(MAX_MESSAGE) + b"\x0a" + varint(1000) + b"\x0a" + varint(900),
    "a presence": varint(MAX_MESSAGE) + b"\x22" + varint(900),
    "a field in its message": varint(10) + b"\x1a\x0b",
    "an entry in its wantlist": varint(20) + b"\x0a\x03\x0a\x04abcd",
    "a CID": encode_wants([Want(b"x" * 150)]),
    "no CID": encode_wants([Want(b"")]),
    "a number": b"\xff" * 11,
    "a group": b"\x02\x0b\x00",
    "nothing, for ever": bytes(2000),
    "unknown fields, for ever": varint(4000) + b"\x28\x00" * 2000,
}


@pytest.mark.parametrize("what", LARGE)
def test_what_is_too_much_is_refused_before_it_is_kept(what):
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        list(decoder.receive(LARGE[what]))
    assert decoder.held <= 5000


# --- the ledger


@given(st.lists(LISTS, max_size=12))
def test_a_ledger_keeps_what_was_wanted_last_and_not_taken_back(lists):
    ledger, model = Ledger(), {}
    for wants, full in lists:
        if full:
            kept = {want.cid for want in wants}
            model = {cid: want for cid, want in model.items() if cid in kept}
        for want in wants:
            ledger.hear(want)
            if want.cancel:
                model.pop(want.cid, None)
            elif want.cid not in model or model[want.cid].have:
                model[want.cid] = want
        ledger.hear(WantlistEnded(full))
    left = []
    while (want := ledger.take()) is not None:
        left.append(want)
    assert {want.cid for want in left} == model.keys()


def test_a_ledger_is_bounded_and_what_is_over_is_left_out():
    ledger = Ledger()
    for number in range(10 * MAX_WANTS):
        ledger.hear(Want(number.to_bytes(36, "big")))
    assert len(ledger) == MAX_WANTS
    assert len(ledger._listed) == MAX_WANTS
    assert ledger.take() == Want(bytes(36))


def test_a_full_list_takes_the_place_of_all_before():
    ledger = Ledger()
    for cid in (b"a", b"b"):
        ledger.hear(Want(cid))
    ledger.hear(WantlistEnded(False))
    ledger.hear(Want(b"b"))
    ledger.hear(WantlistEnded(True))
    assert ledger.take() == Want(b"b")
    assert ledger.take() is None


@given(st.lists(CIDS, max_size=20), st.lists(DIGESTS, max_size=5))
def test_blocks_answer_every_cid_with_their_digest_once(cids, others):
    asked = Asked(cids)
    assert len(asked) == len(cids)
    digests = {cid[-32:] for cid in cids}
    for digest in others:
        assert bool(asked.came(digest)) == (digest in digests)
        digests.discard(digest)
    answered = [cid for digest in digests for cid in asked.came(digest)]
    assert sorted(answered) == sorted(cid for cid in cids if cid[-32:] in digests)
    assert asked.cids() == []
