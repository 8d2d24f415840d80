"""Fetches through real bulk processes on both sides: as it should go, and with either of them killed on the way."""

from __future__ import annotations

import os
import random
import signal
import socket
from contextlib import asynccontextmanager

import pytest
import trio
from ipfs_accel_node.node.bulk.peer import DirectPeer
from ipfs_accel_node.node.bulk.process import BulkProcess, beside, reachable
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.bulk import Ticket, TicketRequest
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20
SIZE = 48 * MIB
LISTEN = "/ip4/127.0.0.1/tcp/0"
OWN = ["/ip4/127.0.0.1/tcp/4011/p2p/somebody"]


class Blocks:
    """The way over libp2p, as far as a fetch sees it; counts the leaves that came this way."""

    def __init__(self, store, name="peer"):
        self.name, self.store, self.leaves = name, store, 0

    async def fetch(self, cids, deliver):
        for cid in cids:
            await trio.lowlevel.checkpoint()
            self.leaves += cid[1] == 0x55
            await deliver(cid, self.store.read_block(cid))

    async def aclose(self):
        pass


class Side:
    """A store and its bulk process."""

    def __init__(self, root):
        self.store = ModelStore(root)
        self.bulk = BulkProcess(root, [LISTEN])

    def kill(self):
        os.kill(self.bulk._running._process.pid, signal.SIGKILL)

    def sources(self, far, model, names=("peer",), broken=()):
        """The other side, as one peer or more; those in `broken` give tickets that lead nowhere."""
        return [DirectPeer(Blocks(far.store, name), self.bulk, asker(far, model, name, name in broken), lambda *_: None)
                for name in names]  # fmt: skip


def asker(far, model, name, broken):
    async def ask(key):
        ticket = await far.bulk.ticket(name, TicketRequest(model.cid_bytes, key), OWN)
        if not broken:
            return ticket
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            return Ticket(ticket.secret, ticket.fingerprint, (closed.getsockname(),))

    return ask


@asynccontextmanager
async def both(tmp_path):
    """This side, that side, and the model that it has."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(random.Random(1).randbytes(SIZE))
    here, far = Side(tmp_path / "here"), Side(tmp_path / "far")
    model = far.store.add(tmp_path / "model")
    async with trio.open_nursery() as nursery:
        await nursery.start(here.bulk.run)
        await nursery.start(far.bulk.run)
        yield here, far, model
        nursery.cancel_scope.cancel()


def assert_whole(side, model):
    assert import_folder(side.store.get(model.cid_bytes).path).root == model.cid_bytes


async def test_no_leaf_passes_through_the_node(tmp_path):
    async with both(tmp_path) as (here, far, model):
        (peer,) = here.sources(far, model)
        report = await Fetcher(here.store).fetch(model.cid_bytes, [peer])
        assert_whole(here, model)
        assert peer._blocks.leaves == 0
        assert report.by_source["peer"] >= SIZE
        await peer.aclose()


async def test_where_nothing_can_be_connected_the_blocks_come_over_libp2p(tmp_path):
    async with both(tmp_path) as (here, far, model):
        (peer,) = here.sources(far, model, broken=("peer",))
        await Fetcher(here.store).fetch(model.cid_bytes, [peer])
        assert_whole(here, model)
        assert peer._blocks.leaves == SIZE // MIB
        await peer.aclose()


async def test_both_ways_share_one_fetch(tmp_path):
    async with both(tmp_path) as (here, far, model):
        peers = here.sources(far, model, ("direct", "blocked"), broken=("blocked",))
        report = await Fetcher(here.store).fetch(model.cid_bytes, peers)
        assert_whole(here, model)
        assert sum(report.by_source.values()) >= SIZE
        for peer in peers:
            await peer.aclose()


@pytest.mark.parametrize("victim", ["here", "far"])
async def test_a_fetch_goes_on_when_a_bulk_process_is_killed(tmp_path, victim):
    async with both(tmp_path) as (here, far, model):
        struck = []

        def progress(state, done, total):
            if state == "fetching" and done > SIZE / 4 and not struck:
                struck.append(done)
                {"here": here, "far": far}[victim].kill()

        (peer,) = here.sources(far, model)
        await Fetcher(here.store).fetch(model.cid_bytes, [peer], progress=progress)
        assert struck
        assert_whole(here, model)
        await peer.aclose()


async def test_a_fetch_that_is_cancelled_goes_on_from_there(tmp_path):
    async with both(tmp_path) as (here, far, model):
        with trio.CancelScope() as scope:

            def progress(state, done, total):
                if state == "fetching" and done > SIZE / 4:
                    scope.cancel()

            (peer,) = here.sources(far, model)
            try:
                await Fetcher(here.store).fetch(model.cid_bytes, [peer], progress=progress)
            finally:
                await peer.aclose()
        assert here.store.get(model.cid_bytes) is None
        (peer,) = here.sources(far, model)
        report = await Fetcher(here.store).fetch(model.cid_bytes, [peer])
        assert report.kept >= SIZE / 4
        assert_whole(here, model)
        await peer.aclose()


async def test_a_process_that_dies_again_and_again_is_left_alone_for_a_while(tmp_path):
    async with both(tmp_path) as (here, far, model):
        starts = 0
        with pytest.raises(AccelError) as died:
            for _ in range(20):
                await here.bulk._life()
                starts += 1
                here.kill()
                with trio.fail_after(20):
                    while not here.bulk._running.ended:
                        await trio.sleep(0.01)
        assert died.value.code == "worker-died"
        assert 1 < starts < 20
        (peer,) = here.sources(far, model)
        await Fetcher(here.store).fetch(model.cid_bytes, [peer])
        assert peer._blocks.leaves == SIZE // MIB
        await peer.aclose()


async def test_a_process_that_does_not_start_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.bulk.process._MODULE", "a_module_that_is_not_there")
    async with both(tmp_path) as (here, far, model):
        (peer,) = here.sources(far, model)
        await Fetcher(here.store).fetch(model.cid_bytes, [peer])
        assert_whole(here, model)
        assert peer._blocks.leaves == SIZE // MIB
        await peer.aclose()


async def test_a_process_that_stops_answering_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.bulk.process._PING_EVERY_S", 0.05)
    monkeypatch.setattr("ipfs_accel_node.node.bulk.process._PING_DEADLINE_S", 0.5)
    async with both(tmp_path) as (here, _, __):
        life = await here.bulk._life()
        os.kill(life._process.pid, signal.SIGSTOP)
        with trio.fail_after(30):
            while not life.ended:
                await trio.sleep(0.01)
        assert await here.bulk._life() is not life


def test_where_it_listens_and_is_reached():
    assert str(beside("/ip4/0.0.0.0/tcp/4011")) == "0.0.0.0:5011"
    assert str(beside("/ip6/::/tcp/65000")) == "[::]:0"
    ports = {"0.0.0.0": 5011, "::1": 5012}
    own = ["/ip4/10.0.0.7/tcp/4011/p2p/x", "/ip6/::1/tcp/4011/p2p/x", "/ip6/fd00::1/tcp/4011/p2p/x"]
    assert reachable(own, ports) == (("10.0.0.7", 5011), ("::1", 5012))
