"""The pins of a cluster merge to one outcome whatever the order; what no member signed, or lies ahead, is refused."""

from __future__ import annotations

import os

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols import pins as module
from ipfs_accel_node.protocols.errors import ProtocolError
from ipfs_accel_node.protocols.pins import (
    BUCKETS,
    MAX_AHEAD_US,
    PinChange,
    PinSet,
    SignedChange,
    is_replicas,
    open_change,
    sign,
)
from ipfs_accel_node.protocols.sealing import PINS, peer_id_of, seal

KEY = bytes(range(32))
SEEDS = [bytes([number]) * 32 for number in range(3)]


def cid(number: int) -> bytes:
    return b"\x01\x70\x12\x20" + bytes([number % 5]) * 31 + bytes([number])


CHANGES = st.builds(
    lambda number, time, removed, author: SignedChange(
        PinChange(cid(number), time, removed, name=str(number)), bytes([author]) * 32, b""
    ),
    st.integers(0, 7), st.integers(0, 4), st.booleans(), st.integers(0, 2),
)  # fmt: skip


@given(st.lists(CHANGES, max_size=30), st.data())
def test_the_order_and_repetition_of_changes_mean_nothing(changes, data):
    shuffled = data.draw(st.permutations(changes + data.draw(st.lists(st.sampled_from(changes or [None]), max_size=5))))
    one, other = PinSet(changes), PinSet(each for each in shuffled if each is not None)
    assert one.pins() == other.pins()
    assert one.digest() == other.digest()
    assert one.differing(other.bucket_digests()) == []


@given(st.lists(CHANGES, max_size=20), st.lists(CHANGES, max_size=20))
def test_parts_that_differ_are_all_that_must_be_told(left, right):
    one, other = PinSet(left), PinSet(right)
    for number in one.differing(other.bucket_digests()):
        for change in other.changes():
            if change.change.cid[-1] % BUCKETS == number:
                one.merge(change)
    assert one.digest() == PinSet([*left, *right]).digest()


@given(st.lists(CHANGES, max_size=40), st.data())
def test_with_too_many_everybody_keeps_the_same(changes, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_CHANGES", 3)
        one, other = PinSet(changes), PinSet(data.draw(st.permutations(changes)))
        assert len(one) <= 3
        assert one.digest() == other.digest()


@given(st.lists(CHANGES, max_size=20))
def test_a_change_made_after_others_were_seen_counts(changes):
    pins = PinSet(changes)
    later = SignedChange(PinChange(cid(1), pins.next_time(0)), SEEDS[0], b"")
    assert pins.merge(later)
    assert pins.get(cid(1)) == later.change
    assert not pins.merge(later)
    assert pins.next_time(10**18) == 10**18


@given(
    st.integers(0, 255), st.integers(0, 2**62), st.booleans(), st.integers(1, 9), st.integers(0, 3),
    st.text(max_size=30), st.integers(0, 2**62),
)  # fmt: skip
def test_what_was_signed_is_opened(number, time, removed, minimum, more, name, size):
    change = PinChange(cid(number), time, removed, minimum, minimum + more, name, size)
    signed = sign(change, cluster_key=KEY, signing_key=SEEDS[1])
    assert open_change(signed.sealed, cluster_key=KEY) == signed
    assert signed.change == change
    assert signed.author_id == peer_id_of(signed.author)


def test_what_nobody_of_the_cluster_signed_is_refused():
    signed = sign(PinChange(cid(1), 5), cluster_key=KEY, signing_key=SEEDS[0])
    advert = seal(b"x", cluster_key=KEY, signing_key=SEEDS[0])
    changed = signed.sealed[:-1] + bytes([signed.sealed[-1] ^ 1])
    for sealed in (b"", "text", None, os.urandom(200), changed, advert, bytes(2000)):
        with pytest.raises(ProtocolError):
            open_change(sealed, cluster_key=KEY)
    with pytest.raises(ProtocolError):
        open_change(signed.sealed, cluster_key=bytes(32))


def test_a_clock_that_is_far_ahead_decides_nothing():
    signed = sign(PinChange(cid(1), 2 * MAX_AHEAD_US), cluster_key=KEY, signing_key=SEEDS[0])
    assert open_change(signed.sealed, cluster_key=KEY, now_us=MAX_AHEAD_US).change.time == 2 * MAX_AHEAD_US
    with pytest.raises(ProtocolError, match="set the clocks"):
        open_change(signed.sealed, cluster_key=KEY, now_us=MAX_AHEAD_US - 1)


GOOD = [1, cid(1), 5, False, 1, 0, "name", 7]


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 2), (1, b"abc"), (1, "text"), (1, bytes(200)), (2, -1), (2, True), (2, 1 << 63), (3, 1), (4, 0), (4, 2000),
     (5, -1), (5, None), (6, b"x"), (6, "x" * 200), (7, -1), (7, 1.5)],
)  # fmt: skip
def test_a_member_that_signs_nonsense_is_refused(place, value):
    body = [value if number == place else field for number, field in enumerate(GOOD)]
    with pytest.raises(ProtocolError):
        open_change(seal(msgpack.packb(body), cluster_key=KEY, signing_key=SEEDS[0], kind=PINS), cluster_key=KEY)
    sealed = seal(msgpack.packb(GOOD), cluster_key=KEY, signing_key=SEEDS[0], kind=PINS)
    assert open_change(sealed, cluster_key=KEY).change.name == "name"


@pytest.mark.parametrize("digests", [None, [], [b""] * 63, "x" * 64])
def test_digests_that_are_none(digests):
    with pytest.raises(ProtocolError):
        PinSet().differing(digests)


def test_how_many_may_hold_a_pin():
    assert all(is_replicas(*each) for each in ((1, 0), (1, 1), (2, 3), (1024, 1024)))
    assert not any(is_replicas(*each) for each in ((0, 1), (0, 0), (3, 2), (1, 1025), (1, -1), (True, 1), ("1", 2)))
