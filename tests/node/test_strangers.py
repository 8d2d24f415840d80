"""Who has no link makes room: the first to come is the first to go, and nobody stays for long."""

from __future__ import annotations

import trio
from ipfs_accel_node.node.exchanges import Exchange
from ipfs_accel_node.node.mesh.gossip import _AT_ONCE, _RATE, _Paced
from ipfs_accel_node.node.mesh.strangers import MAX_GUESTS, MAX_STRANGERS, STRANGER_S, Guest, Places, Strangers
from ipfs_accel_node.protocols.inference_session import ChunkReceived, FailedReceived


async def test_the_first_makes_room_for_one_more(autojump_clock):
    places, ended = Places(3), []

    async def stay(name):
        with places.one():
            await trio.sleep(10)
        ended.append((name, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(stay, name)
            await trio.sleep(1)
    begun = ended[0][1]
    assert [name for name, _ in ended] == ["a", "b", "c", "d", "e"]
    assert [round(at - begun) for _, at in ended] == [0, 1, 9, 10, 11]


async def test_a_member_stays_and_a_stranger_goes(autojump_clock):
    members = {"member"}
    strangers = Strangers(lambda peer: peer in members)
    began = trio.current_time()
    with strangers.places.one() as scope:
        await strangers.keep(scope, "stranger", trio.Event())
    assert STRANGER_S <= trio.current_time() - began < STRANGER_S + 3
    with trio.move_on_after(1000) as waited, strangers.places.one() as scope:
        await strangers.keep(scope, "member", trio.Event())
    assert waited.cancelled_caught
    closed = trio.Event()
    closed.set()
    with strangers.places.one() as scope:
        await strangers.keep(scope, "anybody", closed)


async def test_a_member_takes_no_stranger_s_place(autojump_clock):
    strangers = Strangers(lambda peer: True)
    strangers.places = Places(1)
    async with trio.open_nursery() as nursery:

        async def stay(peer):
            with strangers.places.one() as scope:
                await strangers.keep(scope, peer, closed)
            assert not scope.cancelled_caught

        closed = trio.Event()
        for peer in "abc":
            nursery.start_soon(stay, peer)
            await trio.sleep(2)
        closed.set()


async def test_a_guest_stays_and_takes_no_stranger_s_place(autojump_clock):
    guests = {"kubo": Guest.SPEAKING, "source": Guest.SOURCE, "silent": Guest.WELCOME, "nobody": Guest.NO}
    strangers, ended = Strangers(lambda peer: False, lambda peer: guests.get(peer, Guest.WELCOME)), []

    async def stay(peer):
        with strangers.places.one() as scope:
            await strangers.keep(scope, peer, trio.Event())
        ended.append(peer)

    async with trio.open_nursery() as nursery:
        for peer in guests:
            nursery.start_soon(stay, peer)
        await trio.sleep(10 * STRANGER_S)
        assert ended == ["nobody"]
        for number in range(MAX_STRANGERS):
            nursery.start_soon(stay, f"newcomer {number}")
        await trio.sleep(2)
        assert ended == ["nobody", "silent"], "who says nothing makes room for who comes"
        guests |= {f"newcomer {number}": Guest.SPEAKING for number in range(2 * MAX_GUESTS)}
        await trio.sleep(2)
        assert {"kubo", "source"} <= set(ended), "there is room for so many guests"
        assert len(ended) == 4
        nursery.cancel_scope.cancel()


async def test_gossip_is_read_at_a_bounded_pace(autojump_clock):
    class Stream:
        async def read(self, n):
            return bytes(n)

    paced, began, size = _Paced(Stream()), trio.current_time(), 10_000
    for _ in range(100):
        await paced.read(1)
        await paced.read(size)
    expected = (100 * size - _AT_ONCE) / _RATE
    assert abs(trio.current_time() - began - expected) < 1


async def test_answers_that_nobody_reads_end_their_request():
    class Nobody:
        def forget(self, request_id, reason):
            self.forgotten = request_id

    channel = Nobody()
    exchange = Exchange(channel, 1)
    for _ in range(40):
        exchange.deliver(ChunkReceived(1, 0, [1], "x" * (1 << 20)))
    assert channel.forgotten == 1
    told = [event async for event in exchange]
    assert isinstance(told[-1], FailedReceived)
    assert told[-1].code == "too-large"
