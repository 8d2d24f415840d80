"""Who holds a pin: enough nodes, the same answer everywhere, few moves."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.placement import Member, Part, chosen
from ipfs_accel_node.protocols.pins import PinChange

GIB = 1 << 30


def pin(number=1, minimum=2, maximum=3, size=GIB):
    return PinChange(b"\x01\x70\x12\x20" + number.to_bytes(32), 1, minimum=minimum, maximum=maximum, size=size)


MEMBERS = st.lists(
    st.builds(Member, st.text("abcdef", min_size=1, max_size=3), st.integers(0, 100 * GIB), st.sampled_from(Part)),
    max_size=12, unique_by=lambda member: member.node,
)  # fmt: skip
PINS = st.builds(
    lambda number, minimum, more: pin(number, minimum, minimum + more),
    st.integers(0, 50), st.integers(1, 4), st.integers(0, 3),
)  # fmt: skip


@given(PINS, MEMBERS, st.data())
def test_enough_are_chosen_and_never_too_many(pin, members, data):
    nodes = chosen(pin, members)
    assert nodes == chosen(pin, data.draw(st.permutations(members)))
    by_name = {member.node: member for member in members}
    able = sum(
        member.part in (Part.HOLDS, Part.FETCHING) or (member.part == Part.NONE and member.room >= pin.size)
        for member in members
    )
    assert len(set(nodes)) == len(nodes) <= pin.maximum
    assert len(nodes) >= min(pin.minimum, able)
    for node in nodes:
        member = by_name[node]
        assert member.part != Part.UNABLE
        assert member.part or member.room >= pin.size


@given(PINS, MEMBERS)
def test_who_has_it_stays_while_there_are_not_too_many(pin, members):
    having = {member.node for member in members if member.part == Part.HOLDS}
    nodes = set(chosen(pin, members))
    assert having <= nodes or len(having & nodes) == pin.maximum
    committed = having | {member.node for member in members if member.part == Part.FETCHING}
    if pin.minimum <= len(committed) <= pin.maximum:
        assert nodes == committed


@given(MEMBERS)
def test_everywhere_is_everywhere_where_there_is_room(members):
    nodes = set(chosen(pin(maximum=0), members))
    for member in members:
        fits = member.part in (Part.HOLDS, Part.FETCHING) or (member.part == Part.NONE and member.room >= GIB)
        assert (member.node in nodes) == fits


def settled(pins, members):
    """Everyone does what was chosen: node → the pins it holds."""
    held = {member.node: set() for member in members}
    for number, each in enumerate(pins):
        for node in chosen(each, members):
            held[node].add(number)
    return held


def test_a_loss_moves_what_was_there_and_nothing_else():
    pins = [pin(number, 2, 2) for number in range(400)]
    members = [Member(f"node-{number}", 64 * GIB) for number in range(10)]
    before = settled(pins, members)
    counts = sorted(map(len, before.values()))
    assert counts[0] > 50, counts
    assert counts[-1] < 115, counts
    lost, rest = members[3], [*members[:3], *members[4:]]
    for number, each in enumerate(pins):
        now = [Member(m.node, m.room, Part.HOLDS if number in before[m.node] else Part.NONE) for m in rest]
        nodes = set(chosen(each, now))
        stayed = {node for node, held in before.items() if number in held and node != lost.node}
        assert stayed <= nodes
        assert len(nodes) == 2


def test_more_room_is_chosen_more_often():
    members = [Member("small", 4 * GIB), Member("large", 500 * GIB), Member("full", GIB // 2)]
    nodes = [chosen(pin(number, 1, 1), members)[0] for number in range(300)]
    assert nodes.count("full") == 0
    assert nodes.count("large") > 2 * nodes.count("small") > 40


def test_views_that_differ_a_little_agree():
    """Members see each other's room at different moments."""
    choices = random.Random(1)
    members = [Member(f"node-{number}", (20 + number) * GIB) for number in range(8)]
    jittered = [Member(each.node, each.room + choices.randrange(-GIB // 4, GIB // 4)) for each in members]
    alike = sum(chosen(pin(number), members) == chosen(pin(number), jittered) for number in range(200))
    assert alike >= 150
