"""Tickets open one connection each, soon; there are never too many, and one peer's crowd costs nobody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.bulk.tickets import LIFETIME_S, MOST, MOST_OF_ONE, Grant, Tickets

GRANT = Grant("peer", b"model", bytes(32))


def test_a_ticket_is_good_once():
    tickets = Tickets()
    ticket = tickets.issue(GRANT, 0)
    assert tickets.take(ticket, LIFETIME_S - 1) == GRANT
    assert tickets.take(ticket, LIFETIME_S - 1) is None


def test_a_ticket_is_good_for_a_while():
    tickets = Tickets()
    assert tickets.take(tickets.issue(GRANT, 0), LIFETIME_S) is None
    assert tickets.take(bytes(32), 0) is None


def test_a_crowd_of_one_peer_costs_nobody_else():
    tickets = Tickets()
    other = tickets.issue(Grant("other", b"model", bytes(32)), 0)
    own = [tickets.issue(GRANT, 0) for _ in range(1000)]
    assert len(tickets) == MOST_OF_ONE + 1
    assert tickets.take(other, 0) is not None
    good = [ticket for ticket in own if tickets.take(ticket, 0) is not None]
    assert good == own[-MOST_OF_ONE:]


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 5), st.booleans()), max_size=500))
def test_there_are_never_too_many(moves):
    tickets, now = Tickets(), 0.0
    last = b""
    for peer, later, takes in moves:
        now += later
        if takes:
            tickets.take(last, now)
        else:
            last = tickets.issue(Grant(str(peer), b"m", bytes(32)), now)
            assert tickets.take(last, now) is not None or not last
            last = tickets.issue(Grant(str(peer), b"m", bytes(32)), now)
        assert len(tickets) <= MOST
