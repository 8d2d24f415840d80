"""The hello: who gets a link and who does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols.errors import AccelError, ProtocolError
from ipfs_accel_node.protocols.framing import encode
from ipfs_accel_node.protocols.hello import Hello, HelloFacts, HelloRefused

KEY = b"k" * 32
LEFT = HelloFacts("left", 1, ("/ip4/127.0.0.1/tcp/1",), ("a",), (("max_payload", 5),))
RIGHT = HelloFacts("right", 2)


def sides(left_key=KEY, right_key=KEY, left=LEFT, right=RIGHT, right_sees=b"L"):
    return (
        Hello(left, left_key, dialler=True, own_peer_id=b"L", peer_id=b"R"),
        Hello(right, right_key, dialler=False, own_peer_id=b"R", peer_id=right_sees),
    )


def shake(left, right, step=10_000):
    for _ in range(4):
        for source, target in ((left, right), (right, left)):
            data = source.take_outgoing()
            for at in range(0, len(data), step):
                target.receive(data[at : at + step])


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_two_members_learn_each_others_facts(step):
    left, right = sides()
    shake(left, right, step)
    assert (left.done, right.done) == (True, True)
    assert (left.facts, right.facts) == (RIGHT, LEFT)
    assert left.take_rest() == right.take_rest() == b""


def test_another_key_is_refused_and_both_are_told_why():
    left, right = sides(right_key=b"x" * 32)
    right.receive(left.take_outgoing())
    left.receive(right.take_outgoing())
    with pytest.raises(HelloRefused) as refused:
        right.receive(left.take_outgoing())
    assert refused.value.code == "wrong-cluster-key"
    with pytest.raises(HelloRefused) as told:
        left.receive(right.take_outgoing())
    assert (told.value.code, told.value.hint) == (refused.value.code, refused.value.hint)
    assert not left.done


def test_versions_that_do_not_meet_are_refused():
    left, right = sides(left=HelloFacts("left", 1, version_min=5, version_max=6))
    with pytest.raises(HelloRefused) as refused:
        right.receive(left.take_outgoing())
    assert refused.value.code == "version-mismatch"
    with pytest.raises(HelloRefused):
        left.receive(right.take_outgoing())


def test_a_proof_for_somebody_else_is_worth_nothing():
    left, right = sides(right_sees=b"somebody between")
    with pytest.raises(HelloRefused):
        shake(left, right)


def test_a_reflected_hello_is_worth_nothing():
    left, _ = sides()
    own = left.take_outgoing()
    left.receive(own)
    with pytest.raises(HelloRefused):
        left.receive(left.take_outgoing())


def test_a_replayed_conversation_is_worth_nothing():
    left, right = sides()
    recorded = [left.take_outgoing()]
    right.receive(recorded[0])
    left.receive(right.take_outgoing())
    recorded.append(left.take_outgoing())
    right.receive(recorded[1])
    assert right.done
    _, again = sides()
    again.receive(recorded[0])
    with pytest.raises(HelloRefused):
        again.receive(recorded[1])


@pytest.mark.parametrize(
    "wire",
    [encode(64, 0), encode(64, 0, 1, 1, [], {}, 1, b"short", "n", []), encode(65, 0, b"proof"), encode(1, 1, b"x"),
     encode(64, 0, 1, 1, ["f"] * 99, {}, 1, b"n" * 32, "n", []), b"\xff" * 8],
)  # fmt: skip
def test_what_is_no_hello_is_refused(wire):
    with pytest.raises(ProtocolError):
        sides()[1].receive(wire)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_waited_for(data):
    _, right = sides()
    try:
        right.receive(data)
    except AccelError:
        pass
    assert not right.done
