"""The opening of a client's connection over TLS: who is let in, what both are told, and what no bytes can do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols import sealing
from ipfs_accel_node.protocols.client_door import (
    MAX_OPENING,
    ClientOpening,
    ClientToken,
    NodeOpening,
    fingerprint_of,
)
from ipfs_accel_node.protocols.errors import AccelError, ProtocolError
from ipfs_accel_node.protocols.framing import encode

SECRET = bytes(range(32))
TOKEN = ClientToken(SECRET, fingerprint_of(b"certificate"))
OPEN = ClientOpening(SECRET).outgoing

steps = st.integers(1, 100)


def feed(side, data, step=MAX_OPENING):
    for at in range(0, len(data), step):
        side.receive(data[at : at + step])


def test_the_wire_stays_as_it_is():
    node = NodeOpening(SECRET)
    node.welcome()
    node.refuse(AccelError("busy", "full", "wait"))
    assert OPEN.hex() == "00000027955000" + "0101" + "c420" + SECRET.hex()
    assert node.outgoing.hex() == "0000000493510001" + "00000012955200" + "a462757379" + "a466756c6c" + "a477616974"


@given(steps, steps)
def test_a_client_with_the_secret_is_welcome(there, back):
    client, node = ClientOpening(SECRET), NodeOpening(SECRET)
    feed(node, client.take_outgoing(), there)
    assert (node.done, client.done, node.outgoing, client.outgoing) == (True, False, b"", b"")
    node.welcome()
    feed(client, node.take_outgoing(), back)
    assert client.done


@given(st.binary(max_size=40).filter(lambda secret: secret != SECRET), steps)
def test_another_secret_is_refused_and_the_client_is_told_why(secret, step):
    client, node = ClientOpening(secret), NodeOpening(SECRET)
    with pytest.raises(AccelError) as refused:
        feed(node, client.take_outgoing(), step)
    assert (refused.value.code, node.done, node.outgoing) == ("wrong-client-token", False, b"")
    node.refuse(refused.value)
    with pytest.raises(AccelError) as told:
        feed(client, node.take_outgoing(), step)
    assert told.value.as_dict() == refused.value.as_dict()
    assert not client.done


@pytest.mark.parametrize("versions", [(0, 0), (2, 9), (9, 2)])
def test_versions_that_do_not_meet_are_refused(versions):
    with pytest.raises(AccelError) as refused:
        NodeOpening(SECRET).receive(encode(80, 0, *versions, SECRET))
    assert refused.value.code == "version-mismatch"


def test_a_client_of_a_later_version_that_speaks_this_one_too_is_welcome():
    node = NodeOpening(SECRET)
    node.receive(encode(80, 0, 1, 5, SECRET, "a field of later"))
    assert node.done


@pytest.mark.parametrize(
    "wire",
    [OPEN + b"\0", OPEN + OPEN, OPEN + encode(12, 0, 1), encode(80, 0, 1, 1), encode(80, 0, 1, 1, "text"),
     encode(80, 0, True, 1, SECRET), encode(80, 0, 1, "1", SECRET), encode(64, 0, 1, 1, SECRET), encode(1, 1),
     encode(81, 0, 1), b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_opening_is_refused(wire):
    node = NodeOpening(SECRET)
    with pytest.raises(ProtocolError):
        feed(node, wire)


@pytest.mark.parametrize("wire", [encode(81, 0, 2), encode(81, 0), encode(12, 0, 1), encode(81, 0, 1) + b"\0", OPEN])
def test_what_is_no_answer_to_an_opening_is_refused(wire):
    with pytest.raises(ProtocolError):
        feed(ClientOpening(SECRET), wire)


@pytest.mark.parametrize("side", [ClientOpening, NodeOpening])
def test_what_is_kept_of_an_opening_is_bounded(side):
    opening = side(SECRET)
    feed(opening, (60_000).to_bytes(4, "big") + bytes(MAX_OPENING - 4), 100)
    with pytest.raises(ProtocolError, match="no more than 4096 bytes"):
        opening.receive(b"\0")


@given(st.integers(0, len(OPEN) - 1), st.integers(1, 255))
def test_damaged_bytes_let_nobody_in_who_has_not_the_secret(at, change):
    damaged = bytearray(OPEN)
    damaged[at] ^= change
    node = NodeOpening(SECRET)
    try:
        node.receive(bytes(damaged))
    except AccelError as error:
        assert error.code in ("protocol-error", "wrong-client-token", "version-mismatch")
    assert not node.done or SECRET in damaged


@given(st.binary(max_size=300), st.sampled_from([ClientOpening, NodeOpening]))
def test_any_bytes_are_refused_or_waited_for(data, side):
    opening = side(SECRET)
    try:
        opening.receive(data)
    except AccelError:
        pass
    assert not opening.done


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_token_is_one_word_that_survives_copying(secret, fingerprint):
    token = ClientToken(secret, fingerprint)
    text = token.encode()
    assert text.startswith("ianc1")
    assert text == "".join(text.split())
    assert ClientToken.decode(f"  {text}\n") == token
    assert ClientToken.decode(f"{text[:30]}\n{text[30:60]}\r\n  {text[60:]}") == token
    assert "secret" not in repr(token)


@given(st.integers(0, len(TOKEN.encode()) - 1), st.sampled_from("aZ09-_é "))
def test_a_token_with_a_slip_is_no_token(at, letter):
    text = TOKEN.encode()
    wrong = text[:at] + letter + text[at + 1 :]
    if wrong == text:
        return
    with pytest.raises(AccelError) as refused:
        ClientToken.decode(wrong)
    assert refused.value.code == "bad-token"


@pytest.mark.parametrize("text", ["", "ianc1", "ianc1AAAA", TOKEN.encode()[:-1], sealing.encode_token(SECRET, [])])
def test_what_is_no_client_token_is_told(text):
    with pytest.raises(AccelError, match="no client token") as refused:
        ClientToken.decode(text)
    assert "client-token" in refused.value.hint


def test_a_client_token_lets_nobody_join():
    with pytest.raises(AccelError, match="no join token"):
        sealing.decode_token(TOKEN.encode())


def test_only_the_certificate_of_the_token_is_good():
    TOKEN.check_certificate(b"certificate")
    for other in (b"another", b"", None):
        with pytest.raises(AccelError) as refused:
            TOKEN.check_certificate(other)
        assert refused.value.code == "wrong-certificate"


def test_a_join_token_may_be_broken_over_lines():
    token = sealing.encode_token(SECRET, ["/ip4/192.168.1.5/tcp/4011"])
    broken = f"{token[:40]}\n  {token[40:80]}\r\n{token[80:]}\n"
    assert sealing.decode_token(broken) == (SECRET, ["/ip4/192.168.1.5/tcp/4011"])
