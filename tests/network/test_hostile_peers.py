"""Peers that mean harm, over real connections: whatever they do, the node serves its clients and its members on."""

from __future__ import annotations

import gc
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from cluster import NodeProcess
from ipfs_accel_node.node.mesh import identity
from ipfs_accel_node.node.mesh.gossip import Gossip
from ipfs_accel_node.node.mesh.host import Host
from ipfs_accel_node.protocols import blocks, framing, inference, values
from ipfs_accel_node.protocols.advert import Advert
from ipfs_accel_node.protocols.hello import Hello, HelloFacts
from ipfs_accel_node.protocols.sealing import decode_token

LINK, BLOCKS, GOSSIP = inference.PROTOCOL_ID, blocks.PROTOCOL_ID, "/meshsub/1.0.0"
GIANT = b"\xff\xff\xff\xff"

#: The attackers' own hosts are torn down in the middle of things.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def everything_closed():
    """What the attackers' own hosts left open is closed while its warnings are expected."""
    yield
    gc.collect()


@pytest.fixture
def watch(victim, friend, make_watch):
    return make_watch(victim, others=friend.uses_victim)


def port_of(node) -> int:
    return int(node.wait_ready()["addresses"][0].split("/")[4])


class Attacker:
    """A libp2p host of its own, connected with the victim; a member when it says its hello with the right key."""

    def __init__(self, host: Host, own: identity.Identity, victim: NodeProcess) -> None:
        self.host, self.own = host, own
        self.victim = victim.peer_id
        self.address = victim.ready["addresses"][0]
        self.key, _ = decode_token(victim.ready["token"])

    @property
    def muxed(self):
        (connection,) = self.host.libp2p.get_network().get_connections()
        return connection.muxed_conn

    async def stream(self, protocol=LINK):
        return await self.host.open_stream(self.victim, protocol)

    async def linked(self, key=None):
        """The stream of a link whose hello is over."""
        stream = await self.stream()
        from libp2p.peer.id import ID

        hello = Hello(
            HelloFacts("attacker", 1), key or self.key, dialler=True, own_peer_id=self.own.peer_id_bytes,
            peer_id=ID.from_string(self.victim).to_bytes(),
        )  # fmt: skip
        while not hello.done:
            await stream.send_all(hello.take_outgoing())
            hello.receive(await stream.receive_some())
        return stream


@asynccontextmanager
async def attacking(victim, folder):
    own = identity.load_or_create(folder / f"{os.urandom(4).hex()}.key")
    host = Host(own)
    async with host.listening(["/ip4/127.0.0.1/tcp/0"]):
        await host.connect(victim.ready["addresses"][0])
        yield Attacker(host, own, victim)


def attack(victim, folder, act: Callable[[Attacker], Awaitable[None]], seconds: float = 30.0) -> None:
    """Acts as an attacker within a bound; that its streams break under it is what is hoped for."""

    async def run() -> None:
        with trio.move_on_after(seconds):
            async with attacking(victim, folder) as attacker:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await act(attacker)

    trio.run(run)


# --- before Noise

RAW = {
    "nothing": b"",
    "noise": os.urandom(100_000),
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "4 GiB announced": b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x0f" + bytes(200_000),
    "multistream and noise": b"\x13/multistream/1.0.0\n" + os.urandom(1000),
    "a Noise message of nothing": b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xff\xff" + os.urandom(65_535),
    "a Noise message cut off": b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xff\xff" + os.urandom(1000),
}


def test_garbage_before_noise(victim, watch):
    with watch, ExitStack() as stack:
        for garbage in RAW.values():
            for _ in range(5):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(victim)), 5))
                with suppress(OSError):
                    connection.sendall(garbage)


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(victim, watch, tmp_path):
    with watch, ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(victim)), 5))
        joins(victim, tmp_path)


def joins(victim, folder, seconds=10.0):
    """Somebody new gets a link, whatever else is going on."""

    async def join() -> None:
        async with attacking(victim, folder) as newcomer:
            await newcomer.linked()

    async def run() -> None:
        with trio.fail_after(seconds):
            while True:
                try:
                    await join()
                    return
                except Exception:
                    await trio.sleep(0.1)

    trio.run(run)


# --- after Noise, and after yamux


@pytest.mark.parametrize(
    "garbage",
    [os.urandom(50_000), struct.pack("!BBHII", 0, 0, 0, 1, 0xFFFF_FFFF), struct.pack("!BBHII", 9, 9, 9, 9, 9),
     struct.pack("!BBHII", 0, 0, 1, 1, 15 << 20) + bytes(1000), struct.pack("!BBHII", 0, 0, 0, 7, 60_000)],
    ids=["noise", "4 GiB", "unknown", "15 MiB and silence", "half a frame"],
)  # fmt: skip
def test_garbage_after_noise(victim, watch, tmp_path, garbage):
    async def act(attacker):
        await attacker.muxed.secured_conn.write(garbage)
        await trio.sleep(0.3)

    with watch:
        attack(victim, tmp_path, act)


STREAM_GARBAGE = {
    "noise": os.urandom(100_000),
    "4 GiB": GIANT,
    "half a frame": b"\0\0\xff\xff" + bytes(100),
    "an answer": framing.encode(33, 0, b"c", 5) + inference.Accepted(0, 0).to_frame(1),
}


@pytest.mark.parametrize("protocol", [LINK, BLOCKS, GOSSIP, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/no/such"])
def test_garbage_of_a_stranger_on_every_protocol(victim, watch, tmp_path, protocol):
    async def act(attacker):
        for garbage in STREAM_GARBAGE.values():
            with suppress(Exception):
                stream = await attacker.stream(protocol)
                await stream.send_all(garbage)
        await trio.sleep(0.3)

    with watch:
        attack(victim, tmp_path, act)


@pytest.mark.parametrize("protocol", [LINK, BLOCKS, GOSSIP])
def test_garbage_of_a_member_on_every_protocol(victim, watch, tmp_path, protocol):
    async def act(attacker):
        link = await attacker.linked()
        for garbage in STREAM_GARBAGE.values():
            with suppress(trio.BrokenResourceError):
                stream = link if protocol == LINK else await attacker.stream(protocol)
                await stream.send_all(garbage)
            if protocol == LINK:
                link = await attacker.linked()
        await trio.sleep(0.3)

    with watch:
        attack(victim, tmp_path, act)


def test_a_stranger_gets_nothing(victim, watch, tmp_path):
    """Neither blocks nor a link, and its connection is not kept."""

    async def act(attacker):
        with pytest.raises(Exception, match="wrong-cluster-key"):
            await attacker.linked(b"x" * 32)

    async def ask(attacker):
        stream = await attacker.stream(BLOCKS)
        await stream.send_all(blocks.BlockAsker().want([b"c"]))
        assert b"wrong-cluster-key" in await stream.receive_some()

    with watch:
        attack(victim, tmp_path, act)
        attack(victim, tmp_path, ask)


def test_hellos_that_never_end_keep_nobody_out(victim, watch, tmp_path):
    async def act(attacker):
        for _ in range(70):
            with suppress(Exception):
                stream = await attacker.stream()
                await stream.send_all(b"\0\0")

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(one)
            await trio.sleep(1)
            await trio.to_thread.run_sync(partial(joins, victim, tmp_path))
            nursery.cancel_scope.cancel()

    async def one() -> None:
        async with attacking(victim, tmp_path) as attacker:
            await act(attacker)
            await trio.sleep_forever()

    with watch:
        trio.run(many)
        gc.collect()


# --- members that go too far


def test_a_thousand_streams(victim, watch, tmp_path):
    async def act(attacker):
        await attacker.linked()
        for _ in range(1000):
            stream = await attacker.muxed.open_stream()
            with suppress(Exception):
                await stream.write(b"\x13/multistream/1.0.0\n")
            attacker.muxed.stream_backlog_semaphore.release()

    with watch:
        attack(victim, tmp_path, act)


@pytest.mark.soak
def test_a_flood_of_new_streams_without_a_word(victim, watch, tmp_path):
    async def act(attacker):
        for number in range(101, 10_101, 2):
            await attacker.muxed.secured_conn.write(struct.pack("!BBHII", 0, 1, 1, number, 0))

    with watch:
        attack(victim, tmp_path, act, 10)


def call_flood():
    return b"".join(
        inference.Call("peers", 0, values.pack({})).to_frame(number) for number in range(1, 20_001, 2)
    )  # fmt: skip


def job_flood(cid):
    request = inference.Request(os.urandom(16), 1, cid, "echo", {}, {}, 60_000, {}, 0, values.pack("x" * 10_000))
    return b"".join(request.to_frame(number) for number in range(1, 6001, 2))


FLOODS = {
    "pings": lambda cid: inference.Ping(1).to_frame(0) * 100_000,
    "calls": lambda cid: call_flood(),
    "jobs": job_flood,
    "cancels": lambda cid: b"".join(
        inference.Call("advert", 0, values.pack({})).to_frame(number) + inference.Cancel("").to_frame(number)
        for number in range(1, 20_001, 2)
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_member_that_floods_and_reads_nothing(victim, watch, tmp_path, flood):
    async def act(attacker):
        link = await attacker.linked()
        await link.send_all(FLOODS[flood](victim.cid))
        await trio.sleep(1)

    with watch:
        attack(victim, tmp_path, act, 10)


def test_a_member_that_does_not_read_its_result(victim, watch, tmp_path):
    """Twenty MiB are on their way to it when it stops: the link goes, and the job with it."""
    payload = values.pack("x" * (20 << 20))

    async def act(attacker):
        link = await attacker.linked()
        request = inference.Request(os.urandom(16), 1, victim.cid, "echo", {}, {}, 60_000, {}, len(payload), b"")
        await link.send_all(request.to_frame(1))
        credit, at = 256 * 1024, 0
        decoder = framing.Decoder()
        while at < len(payload):
            while credit >= 32_768 or at + credit >= len(payload):
                piece = payload[at : at + 32_768]
                await link.send_all(inference.Body(piece).to_frame(1))
                at, credit = at + len(piece), credit - len(piece)
                if at >= len(payload):
                    break
            else:
                for frame in decoder.feed(await link.receive_some()):
                    if frame.type == inference.MessageType.CREDIT:
                        credit += frame.fields[0]
                    elif frame.type == inference.MessageType.PING:
                        await link.send_all(inference.Pong(frame.fields[0]).to_frame(0))
        await trio.sleep(7)

    with watch:
        attack(victim, tmp_path, act, 25)
        with victim.client() as client:
            victim.wait_for(
                "no link", lambda: all(p["name"] != "attacker" or not p["linked"] for p in client.peers()), 10
            )


def test_a_member_that_stops_reading_its_socket(victim, watch, tmp_path):
    """Nothing leaves the victim any more, not even a goodbye: the connection is dropped all the same."""

    async def act(attacker):
        link = await attacker.linked()
        attacker.muxed.secured_conn.read = sleep_for_ever
        with trio.move_on_after(8):
            for number in range(1, 200_001, 2):
                await link.send_all(inference.Call("peers", 0, values.pack({})).to_frame(number) * 1)

    async def sleep_for_ever(*_: object) -> bytes:
        await trio.sleep_forever()

    with watch:
        attack(victim, tmp_path, act, 12)


@pytest.mark.soak
def test_a_member_that_sends_a_byte_at_a_time(victim, watch, tmp_path):
    async def act(attacker):
        link = await attacker.linked()
        with trio.move_on_after(2):
            for byte in inference.Call("peers", 0, bytes(1000)).to_frame(1):
                await link.send_all(bytes([byte]))
                await trio.sleep(0.05)

    with watch:
        attack(victim, tmp_path, act, 10)


@pytest.mark.soak
def test_a_member_that_wants_blocks_and_takes_none(victim, watch, tmp_path):
    async def act(attacker):
        await attacker.linked()
        for _ in range(4):
            stream = await attacker.stream(BLOCKS)
            with trio.move_on_after(1):
                await stream.send_all(blocks.BlockAsker().want([b"\x01\x55\x12\x20" + bytes(32)] * 20_000))

    with watch:
        attack(victim, tmp_path, act, 15)


def test_a_member_that_floods_adverts(victim, watch, tmp_path):
    """Its own and made-up ones, as fast as they go: they are taken at a bounded pace."""

    async def act(attacker):
        gossip = Gossip(attacker.host, attacker.own, attacker.key, lambda *_: None)
        async with gossip.running():
            await attacker.linked()
            await trio.sleep(1)
            for counter in range(2000):
                await gossip.publish(Advert(1, counter, "attacker", "ready", ("/ip4/1.2.3.4/tcp/1",)))

    with watch:
        began = time.monotonic()
        attack(victim, tmp_path, act, 10)
        watch.serves()
        assert time.monotonic() - began < 40
