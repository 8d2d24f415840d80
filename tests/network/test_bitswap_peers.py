"""IPFS peers over real connections: one that behaves as Kubo from 0.37 on, and some that mean harm."""

from __future__ import annotations

import gc
import hashlib
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import AccelError
from ipfs_accel_node.node.content.cid import parse_cid
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.node.mesh.strangers import MAX_GUESTS
from ipfs_accel_node.protocols.bitswap import PROTOCOL_ID
from ipfs_accel_node.protocols.varint import varint
from ipfs_peer import Deaf, IpfsPeer, framed, ipfs_peer, new_message, wanting
from striking import wait_until

MIB = 1 << 20
PATIENCE_S = 60

#: The peers' own hosts are torn down in the middle of things.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def everything_closed():
    yield
    gc.collect()


class Blocks:
    """The blocks of a model, out of a store."""

    def __init__(self, folder: Path, size: int) -> None:
        model = make_echo_model(folder / "model")
        (model / "weights.safetensors").write_bytes(os.urandom(size))
        self.store = ModelStore(folder / "store")
        self.cid = self.store.add(model).cid

    def get(self, cid):
        return self.store.read_block(cid)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A public node with a model of a few MiB; its CID is `victim.cid`, its path `victim.path`."""
    folder = tmp_path_factory.mktemp("public")
    model = make_echo_model(folder / "model")
    (model / "weights.safetensors").write_bytes(os.urandom(5 * MIB))
    with NodeProcess("public", folder / "data", "--backends", "none", "--public") as node:
        with node.client() as client:
            node.cid = client.add_model(model, "public-model")["cid"]
            node.path = Path(client.model_info(node.cid)["path"])
        yield node


@pytest.fixture
def blocks_of_victim(tmp_path, victim):
    store = ModelStore(tmp_path / "copy")
    store.add(victim.path)
    contents = store._contents[parse_cid(victim.cid)]
    leaves = [b"\x01\x55\x12\x20" + digest for file in contents.files for digest in file.split()]
    return [*contents.nodes, *leaves]


def run(act, seconds=PATIENCE_S):
    async def bounded():
        with trio.fail_after(seconds):
            await act()

    trio.run(bounded)
    gc.collect()  # a host that was cancelled leaves its connections to this


async def fetch(node, cid, *peers):
    """As its user, in a thread, while the peers answer here."""

    def get():
        with node.client() as client:
            return client.get_model(cid, ipfs_peers=[peer.address for peer in peers])

    return await trio.to_thread.run_sync(get)


# --- as Kubo from 0.37 on


def test_follow_ups_on_the_first_stream_are_answered(victim, tmp_path, blocks_of_victim):
    async def act():
        async with ipfs_peer(tmp_path) as peer:
            await peer.host.connect(victim.ready["addresses"][0])
            lacking = b"\x01\x55\x12\x20" + bytes(32)
            await peer.say(victim.peer_id, wanting(blocks_of_victim[0], lacking, have=True))
            told = (await peer.heard.receive()).blockPresences
            assert [(each.cid, each.type) for each in told] == [(blocks_of_victim[0], 0), (lacking, 1)]
            for cid in blocks_of_victim:
                await peer.say(victim.peer_id, wanting(cid))
                (block,) = (await peer.heard.receive()).payload
                assert (block.prefix, hashlib.sha256(block.data).digest()) == (cid[:-32], cid[-32:])
            version_0 = blocks_of_victim[0][2:]
            await peer.say(victim.peer_id, wanting(version_0))
            assert (await peer.heard.receive()).payload[0].prefix == b"\0\x70\x12\x20"

    run(act)


def test_a_fetch_from_a_peer_that_answers_on_one_stream(victim, tmp_path):
    blocks = Blocks(tmp_path, 5 * MIB)

    async def act():
        async with ipfs_peer(tmp_path, blocks) as peer, ipfs_peer(tmp_path) as other:
            got = await fetch(victim, blocks.cid, peer, other)
            assert got["by_source"].keys() == {peer.host.peer_id}
            assert set(peer.wants) >= {parse_cid(blocks.cid)}
            assert other.wants

    run(act)


def test_what_is_not_needed_any_more_is_taken_back(victim, tmp_path):
    """One of two peers says nothing until it is told that nothing is wanted of it."""
    blocks, told = Blocks(tmp_path, 20 * MIB), trio.Event()

    class Slow(IpfsPeer):
        async def answer(self, peer_id, message):
            for entry in message.wantlist.entries:
                if entry.cancel:
                    told.set()

    async def act():
        async with ipfs_peer(tmp_path, blocks) as quick, ipfs_peer(tmp_path, blocks, Slow) as slow:
            await fetch(victim, blocks.cid, slow, quick)
            await told.wait()

    run(act)


# --- that mean harm: who is fetched from


class Pushy(IpfsPeer):
    """Sends blocks that nobody asked for, before each that was."""

    async def answer(self, peer_id, message) -> None:
        for entry in message.wantlist.entries:
            for _ in range(0 if entry.cancel else 4):
                unasked = new_message()
                unasked.payload.add(prefix=b"\x01\x55\x12\x20", data=os.urandom(2 * MIB))
                await self.say(peer_id, unasked)
        await super().answer(peer_id, message)


class Liar(IpfsPeer):
    """Sends blocks that are not what they are said to be."""

    async def answer(self, peer_id, message) -> None:
        for entry in message.wantlist.entries:
            wrong = new_message()
            wrong.payload.add(prefix=entry.block[:-32], data=b"wrong")
            await self.say(peer_id, wrong)


class Giant(IpfsPeer):
    """Announces messages and blocks that are larger than any."""

    async def answer(self, peer_id, message) -> None:
        await (await self.stream(peer_id)).send_all(varint(4 << 30))


class Half(IpfsPeer):
    """Ends in the middle of a block, and says no more."""

    async def answer(self, peer_id, message) -> None:
        reply = new_message()
        reply.payload.add(prefix=b"\x01\x55\x12\x20", data=bytes(2 * MIB))
        await (await self.stream(peer_id)).send_all(framed(reply)[:MIB])


def test_blocks_that_nobody_asked_for_are_dropped(victim, make_watch, tmp_path):
    blocks = Blocks(tmp_path, 12 * MIB)

    async def act():
        async with ipfs_peer(tmp_path, blocks, Pushy) as peer:
            await fetch(victim, blocks.cid, peer)

    with make_watch(victim):
        run(act)
    stored = sum(file.stat().st_size for file in (victim.data_dir / "content").rglob("*") if file.is_file())
    with victim.client() as client:
        assert stored < sum(model["size"] for model in client.models()) + MIB


@pytest.mark.parametrize("kind", [Liar, Giant, Half])
def test_a_peer_that_sends_nothing_of_use_is_given_up(victim, make_watch, tmp_path, kind):
    blocks = Blocks(tmp_path, MIB)

    async def act():
        async with ipfs_peer(tmp_path, blocks, kind) as peer:
            with pytest.raises(AccelError) as failed:
                await fetch(victim, blocks.cid, peer)
            assert failed.value.code == "content-not-found"
            assert any(code in failed.value.message for code in ("[peer-silent]", "[peer-lost]"))

    with make_watch(victim):
        run(act, 120)


# --- that mean harm: who fetches


async def is_served(victim, folder, cid):
    async with ipfs_peer(folder) as friend:
        await friend.host.connect(victim.ready["addresses"][0])
        await friend.say(victim.peer_id, wanting(cid))
        assert (await friend.heard.receive()).payload


def test_a_huge_wantlist_is_cut(victim, make_watch, tmp_path, blocks_of_victim):
    async def act():
        async with ipfs_peer(tmp_path) as peer:
            await peer.host.connect(victim.ready["addresses"][0])
            with trio.move_on_after(5):
                for _ in range(10):
                    cids = [b"\x01\x55\x12\x20" + os.urandom(32) for _ in range(50_000)]
                    await peer.say(victim.peer_id, wanting(*cids))
            await is_served(victim, tmp_path, blocks_of_victim[0])

    with make_watch(victim):
        run(act)


def test_peers_that_never_read_are_dropped_and_hold_up_nobody(victim, make_watch, tmp_path, blocks_of_victim):
    async def act():
        async with trio.open_nursery() as nursery, ipfs_peer(tmp_path, kind=Deaf) as deaf:
            for other in [deaf, *[await nursery.start(keep_peer, tmp_path, Deaf) for _ in range(5)]]:
                await other.host.connect(victim.ready["addresses"][0])
                for _ in range(20):
                    await other.say(victim.peer_id, wanting(*blocks_of_victim))
            await is_served(victim, tmp_path, blocks_of_victim[0])
            while deaf.host.is_connected(victim.peer_id):
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()

    with make_watch(victim):
        run(act, 90)


async def keep_peer(folder, kind, *, task_status):
    async with ipfs_peer(folder, kind=kind) as peer:
        task_status.started(peer)
        await trio.sleep_forever()


def test_more_guests_than_there_is_room_for(victim, make_watch, tmp_path, blocks_of_victim):
    """Each is served: those that have had what they wanted make room for the next."""

    async def act():
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_GUESTS + 4):
                peer = await nursery.start(keep_peer, tmp_path, IpfsPeer)
                await until_served(peer, victim, blocks_of_victim[0])
            guests = await trio.to_thread.run_sync(partial(guests_of, victim))
            assert 0 < guests <= MAX_GUESTS
            nursery.cancel_scope.cancel()

    with make_watch(victim):
        run(act, 120)


async def until_served(peer, node, cid):
    """Tries again and again, as who is turned away does."""
    while True:
        with suppress(trio.BrokenResourceError, AccelError), trio.move_on_after(1):
            await peer.host.connect(node.ready["addresses"][0])
            await peer.say(node.peer_id, wanting(cid))
            assert (await peer.heard.receive()).payload
            return
        peer.begin_anew()
        await trio.sleep(0.1)


def guests_of(node) -> int:
    with node.client() as client:
        return client.status()["ipfs"]["peers"]


@pytest.mark.parametrize(
    "garbage",
    [os.urandom(100_000), b"\xff" * 20, bytes(100_000), framed(wanting(b"x" * 500)), varint(4 << 20) + bytes(100)],
    ids=["noise", "a number without an end", "empty messages", "no CID", "half a message"],
)  # fmt: skip
def test_garbage_ends_a_stream_and_no_more(victim, make_watch, tmp_path, blocks_of_victim, garbage):
    async def act():
        async with ipfs_peer(tmp_path) as peer:
            await peer.host.connect(victim.ready["addresses"][0])
            stream = await peer.host.open_stream(victim.peer_id, PROTOCOL_ID)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(garbage)
            await peer.say(victim.peer_id, wanting(blocks_of_victim[0]))
            assert (await peer.heard.receive()).payload

    with make_watch(victim):
        run(act)


@pytest.fixture
def closed(tmp_path):
    """A node that is not public."""
    with NodeProcess("closed", tmp_path / "closed", "--backends", "none") as node:
        node.wait_ready()
        yield node


async def takes_streams(node, peer) -> bool:
    """Whether it speaks Bitswap with this peer just now."""
    await peer.host.connect(node.ready["addresses"][0])
    with suppress(AccelError):
        await (await peer.host.open_stream(node.peer_id, PROTOCOL_ID)).aclose()
        return True
    return False


class Curious(IpfsPeer):
    """Wants of whoever fetches from it what it is asked for, once it has answered that."""

    async def answer(self, peer_id, message) -> None:
        await super().answer(peer_id, message)
        await self.say(peer_id, wanting(*self.wants))


def test_a_node_that_is_not_public_takes_streams_of_its_sources_only_and_serves_nothing(closed, tmp_path):
    blocks = Blocks(tmp_path, 5 * MIB)

    async def act():
        async with ipfs_peer(tmp_path, blocks, Curious) as peer:
            assert not await takes_streams(closed, peer)
            await fetch(closed, blocks.cid, peer)
            while await takes_streams(closed, peer):
                await trio.sleep(0.05)
            heard = [peer.heard.receive_nowait() for _ in range(peer.heard.statistics().current_buffer_used)]
            assert heard
            assert not any(message.payload or message.blockPresences for message in heard)

    run(act)


def test_a_fetch_that_its_caller_left_leaves_nothing_open(closed, tmp_path):
    class Silent(IpfsPeer):
        async def answer(self, peer_id, message) -> None:
            pass

    async def act():
        async with ipfs_peer(tmp_path, kind=Silent) as peer, ipfs_peer(tmp_path, kind=Silent) as other:
            client = closed.client()
            nothing = "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"

            def get():
                with suppress(AccelError):
                    client.get_model(nothing, ipfs_peers=[peer.address, other.address])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, get)
                (wanted,) = (await peer.heard.receive()).wantlist.entries
                await trio.to_thread.run_sync(client.close)
            (taken_back,) = (await peer.heard.receive()).wantlist.entries
            assert (taken_back.block, taken_back.cancel) == (wanted.block, True)
            while await takes_streams(closed, peer) or await takes_streams(closed, other):
                await trio.sleep(0.05)

    run(act)


def test_a_stranger_learns_nothing_of_the_cluster(victim, tmp_path):
    """No gossip is opened towards it: it would be told the topic."""
    opened = []

    async def act():
        async with ipfs_peer(tmp_path) as peer:

            async def note(stream):
                opened.append(stream)

            for protocol in ("/meshsub/1.0.0", "/meshsub/1.1.0"):
                peer.host.on_stream(protocol, note)
            await peer.host.connect(victim.ready["addresses"][0])
            await peer.say(victim.peer_id, wanting(b"\x01\x55\x12\x20" + bytes(32)))
            await peer.heard.receive()

    run(act)
    wait_until(lambda: guests_of(victim) >= 0, what="an answer")
    assert opened == []
