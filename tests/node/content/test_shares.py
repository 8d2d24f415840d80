"""Who fetches what: nothing lost, nothing twice without need, however the sources behave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.shares import Answer, Shares

MIB = 1 << 20


def answer_all(shares, source, batch, now, pace=0.1):
    """The source answers the batch in order, and each block is found sound."""
    for number, block in enumerate(batch):
        if shares.answered(source, block, now + (number + 1) * pace, present=True) is Answer.WELCOME:
            shares.settled(block, sound=True)
    return now + len(batch) * pace


def test_a_source_alone_gets_everything_once_in_order():
    have = bytearray(100)
    shares, now, asked = Shares(have, MIB), 0.0, []
    while shares.left:
        batch = shares.take("a", now, 1)
        asked += batch
        now = answer_all(shares, "a", batch, now)
    assert asked == list(range(100))
    assert have == b"\x01" * 100
    assert shares.take("a", now, 1) == []


def test_what_is_there_already_is_not_asked_for():
    shares = Shares(bytearray([1, 0, 1, 1, 0]), MIB)
    assert shares.left == 2
    assert shares.take("a", 0, 1) == [1]
    assert shares.take("b", 0, 1) == [4]


def test_batches_grow_with_speed_and_shrink_towards_the_end():
    shares, now, sizes = Shares(bytearray(1000), MIB), 0.0, []
    while shares.left:
        batch = shares.take("a", now, 3)
        sizes.append(len(batch))
        now = answer_all(shares, "a", batch, now, pace=0.001)
    assert sizes[0] == 4
    assert max(sizes) == 32
    assert sizes[-1] == 1
    assert len(Shares(bytearray(10_000), 4 * MIB).take("a", 0, 1)) == 4


def test_a_slow_source_gets_small_batches():
    shares = Shares(bytearray(1000), MIB)
    now = answer_all(shares, "a", shares.take("a", 0, 1), 0, pace=0.9)
    assert len(shares.take("a", now, 1)) == 1


def test_the_idle_take_over_what_they_would_have_sooner():
    shares = Shares(bytearray(4), MIB)
    slow = [*shares.take("slow", 0, 2), *shares.take("other", 0, 2), *shares.take("fast", 0, 2)]
    assert slow == [0, 1, 2]
    shares.give_up("other")
    now = answer_all(shares, "fast", [2], 0, pace=0.01)
    while shares.left > 1:
        now = answer_all(shares, "fast", shares.take("fast", now, 2), now, pace=0.01)
    assert shares.take("fast", now, 2) == [0]
    assert shares.answered("slow", 0, now, present=True) is Answer.WELCOME
    shares.settled(0, sound=True)
    assert shares.answered("fast", 0, now, present=True) is Answer.SURPLUS
    assert shares.left == 0


def test_nobody_takes_over_what_will_come_sooner_where_it_is():
    shares = Shares(bytearray(3), MIB)
    now = answer_all(shares, "a", shares.take("a", 0, 2), 0, pace=0.1)
    assert (shares.take("a", now, 2), shares.take("b", now, 2)) == ([1], [2])
    now = answer_all(shares, "b", [2], now, pace=0.1)
    assert shares.take("b", now, 2) == []
    assert shares.take("b", now + 1, 2) == [1]  # a is overdue


def test_a_block_that_was_not_sound_goes_to_another():
    shares = Shares(bytearray(1), MIB)
    assert shares.take("liar", 0, 2) == [0]
    assert shares.answered("liar", 0, 0, present=True) is Answer.WELCOME
    shares.settled(0, sound=False)
    assert shares.take("honest", 0, 2) == [0]
    assert shares.left == 1


def test_who_lacks_a_block_is_not_asked_again_and_it_shows_when_nobody_has_it():
    shares = Shares(bytearray(1), MIB)
    for name in ("a", "b"):
        assert shares.unobtainable({"a", "b"}) == 0
        assert shares.take(name, 0, 2) == [0]
        shares.answered(name, 0, 0, present=False)
        assert shares.take(name, 10, 2) == []
    assert shares.unobtainable({"a", "b"}) == 1
    assert shares.unobtainable({"a", "b", "c"}) == 0
    assert shares.unobtainable(set()) == 1
    assert shares.lacked_by("a") == 1


def test_what_was_not_asked_is_told_apart():
    shares = Shares(bytearray(2), MIB)
    shares.take("a", 0, 1)
    assert shares.answered("a", 1, 0, present=True) is Answer.UNASKED
    assert shares.answered("a", -1, 0, present=True) is Answer.UNASKED


EVENTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["good", "good", "bad", "lacks", "gives up", "idle"])),
    max_size=300,
)


@pytest.mark.parametrize("blocks", [1, 7, 40])
@given(events=EVENTS, holes=st.sets(st.integers(0, 39)))
def test_nothing_is_lost_and_nothing_settles_twice(blocks, events, holes):
    """Random sources first; then an honest one that has all the rest must be able to finish alone."""
    have = bytearray(1 if number in holes else 0 for number in range(blocks))
    shares, now = Shares(have, MIB), 0.0
    asked: dict[str, list[int]] = {name: [] for name in "abcd"}
    for name, event in events:
        now += 0.05
        if not asked[name]:
            asked[name] = shares.take(name, now, 4)
            assert len(set(asked[name])) == len(asked[name])
            assert not any(have[block] for block in asked[name])
        elif event == "gives up":
            assert shares.give_up(name) == len(asked[name])
            asked[name] = []
        elif event != "idle":
            block = asked[name].pop(0)
            answer = shares.answered(name, block, now, present=event != "lacks")
            if answer is Answer.WELCOME:
                assert not have[block]
                shares.settled(block, sound=event == "good")
        assert shares.left == have.count(0)
    for name in "abcd":
        shares.give_up(name)
    while shares.left:
        batch = shares.take("honest", now, 1)
        assert batch, "a block was lost"
        now = answer_all(shares, "honest", batch, now)
    assert have == b"\x01" * blocks
