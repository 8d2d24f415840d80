"""What is held against a source outlives a fetch, fades, is bounded, and never leaves nobody to ask."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.standing import HALF_LIFE_S, MOST, Fault, Standing


@dataclass(frozen=True)
class Named:
    name: str


A, B = Named("a"), Named("b")


def test_a_liar_is_left_aside_for_longer_than_one_that_left():
    standing = Standing()
    standing.note("a", Fault.LIED, 0)
    standing.note("b", Fault.FAILED, 0)
    c = Named("c")
    assert standing.split([A, B, c], 1) == ([c], [A, B])
    assert standing.split([A, B, c], 2 * HALF_LIFE_S) == ([B, c], [A])
    assert standing.split([A, B, c], 4 * HALF_LIFE_S) == ([A, B, c], [])


def test_when_all_are_at_fault_all_are_asked():
    standing = Standing()
    standing.note("a", Fault.LIED, 0)
    assert standing.split([A], 0) == ([A], [])
    assert standing.split([], 0) == ([], [])


def test_the_record_is_bounded_and_forgets_what_it_heard_of_longest_ago():
    standing = Standing()
    for number in range(MOST + 5):
        standing.note(str(number), Fault.LIED, number)
    assert [standing.faults(str(number), MOST) > 0 for number in (0, 4, 5, MOST)] == [False, False, True, True]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Fault)), st.floats(0, 2000))))
def test_nobody_is_lost_and_faults_only_fade(notes):
    standing, now = Standing(), 0.0
    sources = [A, B, Named("c")]
    for name, fault, later in notes:
        now += later
        before = standing.faults(name, now)
        standing.note(name, fault, now)
        assert standing.faults(name, now) == before + fault
        assert standing.faults(name, now + 10) < before + fault
        good, aside = standing.split(sources, now)
        assert good
        assert sorted([*good, *aside], key=lambda source: source.name) == sources


async def test_a_liar_is_not_asked_in_the_next_fetch_unless_it_must_be(far, store, source, autojump_clock):
    elsewhere, there = far
    fetcher = Fetcher(store)
    await fetcher.fetch(there.cid_bytes, [source("liar", elsewhere, 0.001, "lies"), source("good", elsewhere)])

    store.remove(there.cid_bytes)
    liar = source("liar", elsewhere)
    await fetcher.fetch(there.cid_bytes, [liar, source("good", elsewhere)])
    assert not liar.asked

    store.remove(there.cid_bytes)
    report = await fetcher.fetch(there.cid_bytes, [liar, source("good", elsewhere, fault="dies", after=8)])
    assert report.by_source["liar"] > 0, "it is asked for what nobody else has"
    assert report.by_source["good"] > 0
