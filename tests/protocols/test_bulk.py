"""How a bulk connection opens: whole, byte by byte, with what does not belong, and with anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols.blocks import BlockAsker, BlockReceived, block_header
from ipfs_accel_node.protocols.bulk import (
    MAX_OPENING,
    OpeningReader,
    Ticket,
    TicketRequest,
    WelcomeReader,
    opening,
    refusal,
    signed_part,
    welcome,
)
from ipfs_accel_node.protocols.errors import AccelError, ProtocolError
from ipfs_accel_node.protocols.framing import encode

TICKET, SIGNATURE = bytes(range(32)), bytes(64)


def test_the_messages_on_the_wire():
    assert opening(TICKET, SIGNATURE).hex() == f"00000067946000c420{TICKET.hex()}c440{SIGNATURE.hex()}"
    assert welcome().hex() == "00000003926100"
    assert refusal("busy", "full").hex() == "0000000d946200a462757379a466756c6c"
    assert signed_part(b"a", b"b") == b"ipfs-accel-node bulk 1\0ab"


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_opening_in_pieces(step):
    reader, data = OpeningReader(), opening(TICKET, SIGNATURE)
    for at in range(0, len(data), step):
        assert reader.opened is None
        reader.receive(data[at : at + step])
    assert reader.opened == (TICKET, SIGNATURE)


@pytest.mark.parametrize("more", [b"\0", opening(TICKET, SIGNATURE), bytes(MAX_OPENING)])
def test_nothing_may_come_before_its_turn(more):
    with pytest.raises(ProtocolError):
        OpeningReader().receive(opening(TICKET, SIGNATURE) + more)
    with pytest.raises(ProtocolError):
        WelcomeReader().receive(welcome() + more)


def test_a_refusal_says_why():
    with pytest.raises(AccelError, match="full") as refused:
        WelcomeReader().receive(refusal("busy", "full"))
    assert refused.value.code == "busy"


@pytest.mark.parametrize("frame", [encode(1, 0), encode(96, 0), encode(96, 0, TICKET, b"short"), encode(96, 0, 1, 2)])
def test_something_else_is_no_opening(frame):
    with pytest.raises(ProtocolError):
        OpeningReader().receive(frame)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_bad_bytes_end_in_a_protocol_error(data, step):
    for reader in (OpeningReader(), WelcomeReader()):
        try:
            for at in range(0, len(data), step):
                reader.receive(data[at : at + step])
        except AccelError:
            pass


@given(st.binary(min_size=32, max_size=32), st.lists(st.tuples(st.ip_addresses(), st.integers(1, 65535)), max_size=8))
def test_a_ticket_comes_out_as_it_went_in(secret, addresses):
    ticket = Ticket(secret, bytes(32), tuple((str(host), port) for host, port in addresses))
    assert Ticket.parse(ticket.answer()) == ticket


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = st.sampled_from(["ticket", "fingerprint", "addresses", "model", "key"])


@given(values | st.dictionaries(NAMES, values | st.just(bytes(32))))
def test_what_is_no_ticket_is_refused(answer):
    for parse in (Ticket.parse, TicketRequest.parse):
        try:
            parse(answer)
        except AccelError as error:
            assert error.code in ("protocol-error", "bad-input")


@pytest.mark.parametrize("address", [["host.example", 1], ["127.0.0.1", 0], ["127.0.0.1", 65536], ["::1"], 7])
def test_addresses_are_of_machines_and_nothing_to_be_looked_up(address):
    with pytest.raises(ProtocolError):
        Ticket.parse({"ticket": TICKET, "fingerprint": TICKET, "addresses": [address]})


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 64), st.booleans())
def test_blocks_read_into_their_place_are_those_that_were_sent(blocks, step, reuse):
    asker = BlockAsker(reuse=reuse)
    cids = [bytes([number]) for number in range(len(blocks))]
    asker.want(cids)
    stream = memoryview(b"".join(block_header(*pair) + block for pair, block in zip(
        ((cid, len(block)) for cid, block in zip(cids, blocks, strict=True)), blocks, strict=True)))  # fmt: skip
    got = []
    while len(stream):
        space = asker.space
        size = min(step, len(stream)) if space is None else min(step, len(space), len(stream))
        if space is None:
            events = asker.receive(bytes(stream[:size]))
        else:
            space[:size] = stream[:size]
            events = asker.filled(size)
        got += [bytes(event.data) for event in events if isinstance(event, BlockReceived)]
        stream = stream[size:]
    assert got == blocks
