"""Who provides a CID, by way of an IPFS daemon, and having it provided; and a daemon that is led to a peer."""

from __future__ import annotations

import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content import kubo_routing
from ipfs_accel_node.node.content.cid import RAW, make_cid
from ipfs_accel_node.node.content.kubo import Kubo
from ipfs_accel_node.node.content.kubo_address import parse_kubo
from ipfs_accel_node.node.content.kubo_routing import Provider, find_providers, provide
from ipfs_accel_node.protocols.errors import AccelError
from ipfs_peer import ipfs_peer

CID = make_cid(RAW, b"a block")
PEERS = [f"12D3KooWpeer{number}" for number in range(30)]


def event(kind, peer_id="", responses=None, extra=""):
    return {"Extra": extra, "ID": peer_id, "Responses": responses, "Type": kind}


def provider(peer_id, *addresses):
    return event(4, responses=[{"Addrs": list(addresses) or None, "ID": peer_id}])


@pytest.fixture
async def fake():
    """A fake, and one that asks it."""
    kubo = FakeKubo()
    kubo.put(b"a block")
    with serving(kubo) as url:
        async with Kubo(parse_kubo(url)) as kubo.asker:
            yield kubo


async def test_a_daemon_that_is_alone_finds_nobody_and_provides_nothing(daemon):
    cid = daemon.put(b"a block", RAW)
    async with Kubo(parse_kubo(daemon.address)) as kubo:
        assert (await find_providers(kubo, cid)).providers == []
        with pytest.raises(AccelError) as failed:
            await provide(kubo, cid)
    assert failed.value.code == "kubo-failed"
    assert failed.value.hint


async def test_a_daemon_is_led_to_a_peer(daemon, tmp_path):
    async with ipfs_peer(tmp_path) as peer, Kubo(parse_kubo(daemon.address)) as kubo:
        await kubo.connect(peer.address)
        away = f"/ip4/127.0.0.1/tcp/1/p2p/{peer.address.rpartition('/')[2]}"
        with pytest.raises(AccelError) as failed:
            await kubo.connect(away.replace(away[-1], "3" if away[-1] != "3" else "4"))
    assert failed.value.code == "kubo-failed"


@pytest.mark.parametrize("lacking", [set(), {"routing/findprovs", "routing/provide"}])
async def test_providers_are_found_by_the_new_and_the_old_name(fake, lacking):
    fake.lacking = lacking
    fake.providers = [
        event(1, PEERS[5]), provider(PEERS[0]), event(3, PEERS[6], extra="that peer failed"),
        provider(PEERS[1], "/ip4/1.2.3.4/udp/4001/quic-v1"), provider(PEERS[0], "/ip4/1.2.3.5/tcp/4001"),
    ]  # fmt: skip
    fake.provided = [event(3, PEERS[6], extra="that peer failed"), event(1, PEERS[5])]
    found = await find_providers(fake.asker, CID)
    assert found.complete
    assert set(found.providers) == {
        Provider(PEERS[0], ("/ip4/1.2.3.5/tcp/4001",)), Provider(PEERS[1], ("/ip4/1.2.3.4/udp/4001/quic-v1",))
    }  # fmt: skip
    await provide(fake.asker, CID)
    assert (fake.asked[-1] == "/api/v0/dht/provide") is bool(lacking)


async def test_what_is_found_is_bounded(fake):
    listed = [provider(peer, *(f"/ip4/1.2.3.4/tcp/{port}" for port in range(100))) for peer in PEERS]
    fake.providers = [provider("x" * 999), provider("a\x1b[2J"), provider(PEERS[0], "/dns/" + "x" * 999), *listed]
    found = (await find_providers(fake.asker, CID)).providers
    assert len(found) == 20
    assert max(len(each.addresses) for each in found) == 16
    assert all(each.peer_id in PEERS for each in found)


async def test_what_was_found_when_the_time_is_up_is_kept(fake, monkeypatch):
    monkeypatch.setattr(kubo_routing, "FIND_S", 0.5)
    fake.providers, fake.fault = [provider(PEERS[0])], "goes on looking"
    found = await find_providers(fake.asker, CID)
    assert ([each.peer_id for each in found.providers], found.complete) == ([PEERS[0]], False)


@pytest.mark.parametrize("events", [[{"Type": 4, "Responses": 7}], [{"Type": 4, "Responses": [7, {"ID": 7}]}], [{}]])
async def test_events_that_make_no_sense_are_read_over(fake, events):
    fake.providers = [*events, provider(PEERS[0])]
    assert [each.peer_id for each in (await find_providers(fake.asker, CID)).providers] == [PEERS[0]]


async def test_an_error_that_names_nobody_is_of_the_whole(fake):
    fake.providers = fake.provided = [event(3, extra="the routing\nis broken")]
    for call in (find_providers, provide):
        with pytest.raises(AccelError, match="the routing is broken") as failed:
            await call(fake.asker, CID)
        assert failed.value.code == "kubo-failed"
    fake.providers = [provider(PEERS[0]), *fake.providers]
    assert len((await find_providers(fake.asker, CID)).providers) == 1


async def test_what_is_no_event_and_too_many_of_them_fail(fake):
    for events in ([["no", "object"]], [provider(PEERS[0], "x" * 1000)] * 2000):
        fake.providers = events
        with pytest.raises(AccelError) as failed:
            await find_providers(fake.asker, CID)
        assert failed.value.code == "kubo-failed"
